"""How far the simulator agrees with others: golden tables beside our own figures, and a page that shows them."""

from __future__ import annotations

from neupims_sim.validation.comparison import Comparison, Validation, count_steps, validate
from neupims_sim.validation.golden import read_golden
from neupims_sim.validation.page import to_json, to_markdown

__all__ = ["Comparison", "Validation", "count_steps", "read_golden", "to_json", "to_markdown", "validate"]

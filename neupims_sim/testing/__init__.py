"""Tests for what others write: whether a memory model keeps the promises that the simulator builds on.

One line in its author's own tests is enough::

    def test_conformance():
        check_memory_model("my_memory")
"""

from __future__ import annotations

from neupims_sim.testing.conformance import check_memory_model
from neupims_sim.testing.report import CheckResult, ConformanceError, ConformanceReport, Finding

__all__ = ["CheckResult", "ConformanceError", "ConformanceReport", "Finding", "check_memory_model"]

"""What an iteration takes: models by name, one file each."""

from __future__ import annotations

from neupims_sim.serving.costs.base import COSTS, IterationCost

__all__ = ["COSTS", "IterationCost"]

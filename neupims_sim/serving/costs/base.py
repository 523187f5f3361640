"""The contract of a cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from neupims_sim.config import Config
from neupims_sim.registry import Registry, function_of
from neupims_sim.serving.schedulers import Iteration


class IterationCost(Protocol):
    """How long iterations of one instance take."""

    def seconds(self, iteration: Iteration) -> float:
        """Time of an iteration, s, above 0; requests still have the ``computed`` of before it."""
        ...

    def report(self) -> Mapping[str, Any]:
        """How the figures came about, for ``result.json``; ``label`` is measured, simulated, interpolated, estimated or bound."""
        ...


COSTS: Registry[Callable[[Config], IterationCost]] = Registry(
    "cost of an iteration", "neupims_sim.serving.costs", key="serving.cost.model", adopt=function_of("config")
)
"""A maker takes the configuration of the instance; it raises InputError if ``serving.cost`` lacks what it needs."""

"""Every iteration takes the same time, as golden schedules and queueing theory want it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neupims_sim.config import Config
from neupims_sim.errors import InputError
from neupims_sim.serving.costs.base import COSTS
from neupims_sim.serving.schedulers import Iteration


@COSTS.register("constant")
class Constant:
    """``serving.cost.seconds``."""

    def __init__(self, config: Config) -> None:
        if config.serving.cost.seconds is None:
            raise InputError("serving.cost.seconds is missing; serving.cost.model=constant needs it")
        self._seconds = config.serving.cost.seconds

    def seconds(self, iteration: Iteration) -> float:
        """See :class:`IterationCost`."""
        return self._seconds

    def report(self) -> Mapping[str, Any]:
        """See :class:`IterationCost`."""
        return {"model": "constant", "label": "assumed"}

"""Small models that simulate in a fraction of a second, and broken memories."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import pytest
import simpy

from neupims_sim.config import Config, load_config
from neupims_sim.memory.models import MEMORY_MODELS, IdealMemory
from neupims_sim.trace import Trace
from neupims_sim.workloads import generate_llm, request_batch

SMALL: Mapping[str, Any] = {
    "model.layers": 4,
    "model.d_model": 1024,
    "model.heads": 8,
    "model.d_ff": 4096,
    "workload.batch_size": 16,
    "parallel.tensor": 1,
    "memory.organization.channels": 8,
}


def small(system: str = "neupims", settings: Mapping[str, Any] | None = None) -> Config:
    """A system with a model of 4 narrow layers on 8 channels."""
    return load_config(system, {**small_options(settings or {}), **(settings or {})})


def small_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """SMALL without the size of a batch where ``settings`` state the requests."""
    drawn = ("workload.batch_size",) if settings.get("workload.requests") is not None else ()
    return {key: value for key, value in SMALL.items() if key not in drawn}


def layer_trace(config: Config) -> Trace:
    """The operators of one layer for the whole batch on one device."""
    contexts = request_batch(config.workload, config.seed).context_tokens
    return generate_llm(config.model, contexts, tensor_parallel=config.parallel.tensor)


SYSTEMS = ("neupims", "npu_pim", "npu_only")
CASES = [
    pytest.param(system, {"preset": preset, **settings}, id=f"{system}-{preset}-{index}")
    for system in SYSTEMS
    for preset in ("physical", "asplos24")
    for index, settings in enumerate(({}, {"scheduling.interleaving": "lockstep"}))
    if system != "npu_only" or not settings
]
"""Every system under every preset, where it can with and without interleaving."""


@MEMORY_MODELS.register("silent")
class SilentMemory(IdealMemory):
    """Takes requests and never answers."""

    def transfer(self, kind: int, address: int, size_bytes: int) -> simpy.Event:
        return self.env.event()


@MEMORY_MODELS.register("ticking")
class TickingMemory(SilentMemory):
    """Never answers either, but keeps the clock busy."""

    def transfer(self, kind: int, address: int, size_bytes: int) -> simpy.Event:
        def tick() -> Generator[simpy.Event, None, None]:
            while True:
                yield self.env.timeout(1000)

        self.env.process(tick())
        return self.env.event()

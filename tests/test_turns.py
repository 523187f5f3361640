"""Who goes first where sub-batches wait for the same unit."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import numpy as np
import simpy

from neupims_sim.config.schema import NpuConfig
from neupims_sim.mapping.npu_attention import StreamedAttention
from neupims_sim.memory.models import MemoryModel
from neupims_sim.memory.program import TILE, PimProgram
from neupims_sim.npu.device import Npu, Region
from neupims_sim.simulation.device import PimTurns

SimEvent = simpy.events.Event


class SlowMemory:
    """Every transfer and every program takes 100 cycles; a channel runs one program at a time."""

    capabilities = SimpleNamespace(channels=1)

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._channel = simpy.Resource(env)

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        return self._env.timeout(100)

    def run_program(self, channel: int, program: PimProgram, release: object = None) -> SimEvent:
        def run() -> object:
            with self._channel.request() as turn:
                yield turn
                yield self._env.timeout(100)

        return self._env.process(run())  # type: ignore[arg-type]


def order(env: simpy.Environment, waiting: list[tuple[str, Callable[[], object]]]) -> list[str]:
    """The names of processes that are started one cycle after the other, in the order in which they end."""
    ended: list[str] = []

    def follow(delay: int, name: str, work: Callable[[], object]) -> object:
        yield env.timeout(delay)
        yield from work()  # type: ignore[misc]
        ended.append(name)

    for delay, (name, work) in enumerate(waiting):
        env.process(follow(delay, name, work))  # type: ignore[arg-type]
    env.run()
    return ended


def test_a_channel_takes_the_older_layer_then_the_first_sub_batch() -> None:
    env = simpy.Environment()
    turns = PimTurns(env, cast(MemoryModel, SlowMemory(env)))
    program = PimProgram.build([(TILE, 0, 1, 1)])
    asked = [(0, 1), (0, 1), (1, 0), (0, 1), (0, 0)]  # (layer, sub-batch); the channel takes two at once
    waiting = [(str(turn), lambda turn=turn: turns.run(0, program, turn, None)) for turn in asked]
    assert order(env, waiting) == ["(0, 1)", "(0, 1)", "(0, 0)", "(0, 1)", "(1, 0)"]  # type: ignore[arg-type]


def test_the_npu_takes_a_waiting_qkv_before_an_older_ffn() -> None:
    env = simpy.Environment()
    config = NpuConfig(name="small", scratchpad_bytes=1024)
    npu = Npu(env, config, SlowMemory(env), lambda *work: None)
    fills = np.full(
        4, 1024, dtype=np.int64
    )  # each step fills the scratchpad, so that the loader stays with its operator
    none = np.zeros(4, dtype=np.int64)
    steps = StreamedAttention(none, fills, fills, fills, none + 10, none, 0, 0)

    def gemm(priority: int) -> object:
        weights, activations, output = (Region(0, 4096) for _ in range(3))
        ready = env.event().succeed()
        return npu.gemm(
            "gemm", steps, weights=weights, activations=activations, output=output, ready=ready, priority=priority
        )

    waiting = [("FFN1", lambda: gemm(1)), ("FFN2", lambda: gemm(1)), ("QKV", lambda: gemm(0))]
    assert order(env, waiting) == ["FFN1", "QKV", "FFN2"]  # type: ignore[arg-type]

"""When the sub-batches use the NPU and PIM: a policy is a SimPy process over the phases of each sub-batch.

Every layer of a sub-batch is three phases: QKV (norm, QKV GEMM, cache append) on the NPU, MHA (logits, softmax, attend)
in PIM or on the NPU, and Proj+FFN on the NPU.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import simpy

from neupims_sim.registry import Registry

SimEvent = simpy.events.Event
Process = Generator[SimEvent, Any, None]


class SubBatch(Protocol):
    """The phases of one sub-batch; each call starts the phase and returns an event that fires at its end."""

    def qkv(self, layer: int) -> SimEvent: ...
    def mha(self, layer: int) -> SimEvent: ...
    def proj_ffn(self, layer: int) -> SimEvent: ...


class Recorder(Protocol):
    """Told when stages end, and of the moments between which the same steady-state layer passes."""

    def stage(self, name: str, start: int, end: int) -> None: ...
    def mark(self) -> None: ...


@dataclass(frozen=True)
class Interleaving:
    """A policy.

    Attributes
    ----------
    run: the process; it takes the environment, the sub-batches, the number of layers and the recorder.
    sub_batches: how many sub-batches it interleaves (1 or 2).
    fewest_layers: layers that it needs to show its steady state.
    """

    run: Callable[[simpy.Environment, Sequence[SubBatch], int, Recorder], Process]
    sub_batches: int = 2
    fewest_layers: int = 2


INTERLEAVINGS: Registry[Interleaving] = Registry("interleaving", "neupims_sim.scheduling")


def resolve_interleaving(setting: str, batch_size: int, auto_min_batch: int, attention_on_pim: bool) -> str:
    """``auto``: lockstep from ``auto_min_batch`` requests up where attention runs in PIM, else off.

    Interleaving reads all weights once per sub-batch, so it pays only where attention is long enough to hide that;
    the NeuPIMs paper (section 8) interleaves from 256 requests up, and so does lockstep here break even. ``dataflow`` is
    not chosen: without barriers the two sub-batches drift into the same phase and wait for the same unit.
    """
    if setting != "auto":
        return setting
    return "lockstep" if attention_on_pim and batch_size >= auto_min_batch else "off"


def off(env: simpy.Environment, sub_batches: Sequence[SubBatch], layers: int, recorder: Recorder) -> Process:
    """The whole batch goes through QKV (stage A), MHA (B) and Proj+FFN (E), one after the other."""
    (batch,) = sub_batches
    for layer in range(layers):
        yield from _stage(env, recorder, "A", batch.qkv(layer))
        yield from _stage(env, recorder, "B", batch.mha(layer))
        yield from _stage(env, recorder, "E", batch.proj_ffn(layer))
        recorder.mark()


def lockstep(env: simpy.Environment, sub_batches: Sequence[SubBatch], layers: int, recorder: Recorder) -> Process:
    """Stages A to F of NeuPIMs (section 6): each ends when both of its sides have ended."""
    one, two = sub_batches
    yield from _stage(env, recorder, "A", one.qkv(0))
    yield from _stage(env, recorder, "B", two.qkv(0), one.mha(0))
    recorder.mark()
    for layer in range(layers - 1):
        # Both sides start together; the NPU side is Proj+FFN of this layer, then QKV of the next.
        yield from _stage(env, recorder, "C", _in_turn(env, one, layer), two.mha(layer))
        yield from _stage(env, recorder, "D", _in_turn(env, two, layer), one.mha(layer + 1))
        recorder.mark()
    yield from _stage(env, recorder, "E", one.proj_ffn(layers - 1), two.mha(layers - 1))
    yield from _stage(env, recorder, "F", two.proj_ffn(layers - 1))


def dataflow(env: simpy.Environment, sub_batches: Sequence[SubBatch], layers: int, recorder: Recorder) -> Process:
    """No barriers: each sub-batch follows its own dependencies and takes a unit when it is free."""
    passed = [0] * layers

    def follow(batch: SubBatch) -> Process:
        for layer in range(layers):
            yield batch.qkv(layer)
            yield batch.mha(layer)
            yield batch.proj_ffn(layer)
            passed[layer] += 1
            if passed[layer] == len(sub_batches) and layer < layers - 1:  # the last one runs dry
                recorder.mark()

    yield env.all_of([env.process(follow(batch)) for batch in sub_batches])


INTERLEAVINGS.register("off")(Interleaving(off, sub_batches=1))
INTERLEAVINGS.register("lockstep")(Interleaving(lockstep))
INTERLEAVINGS.register("dataflow")(Interleaving(dataflow, fewest_layers=4))


def _in_turn(env: simpy.Environment, batch: SubBatch, layer: int) -> SimEvent:
    def both() -> Process:
        yield batch.proj_ffn(layer)
        yield batch.qkv(layer + 1)

    return env.process(both())


def _stage(env: simpy.Environment, recorder: Recorder, name: str, *sides: SimEvent) -> Process:
    start = int(env.now)
    yield env.all_of(sides)
    recorder.stage(name, start, int(env.now))

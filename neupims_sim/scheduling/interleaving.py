"""When sub-batches use the NPU and PIM: a policy is a SimPy process over the phases of each sub-batch.

Work goes in steps that are alike: the layers of a decoder, or one batch of queries after another. Every step of a sub-batch is
three phases: ``before`` and ``after`` on the NPU and ``middle`` in PIM (or on the NPU).

=========  =====================================  =================================  =========================
workload   before                                 middle                             after
=========  =====================================  =================================  =========================
decoder    QKV: norm, QKV GEMM, cache append      MHA: logits, softmax, attend       projection and FFN
retrieval  extraction of the queries' features    search of the database             ranking and reranking
=========  =====================================  =================================  =========================
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import simpy

from neupims_sim.errors import InputError, shown
from neupims_sim.registry import Registry, function_of

SimEvent = simpy.events.Event
Process = Generator[SimEvent, Any, None]


class SubBatch(Protocol):
    """The phases of one sub-batch; each call starts the phase of a step and returns an event that fires at its end."""

    def before(self, step: int) -> SimEvent: ...
    def middle(self, step: int) -> SimEvent: ...
    def after(self, step: int) -> SimEvent: ...


class Recorder(Protocol):
    """Told when stages end, and of the moments between which the same steady-state step passes."""

    def stage(self, name: str, start: int, end: int) -> None: ...
    def mark(self) -> None: ...


@dataclass(frozen=True)
class Interleaving:
    """A policy.

    Attributes
    ----------
    run: the process; it takes the environment, the sub-batches, the number of steps and the recorder.
    sub_batches: how many sub-batches it interleaves (1 or 2).
    fewest_steps: steps that it needs to show its steady state.
    barriers: whether exactly the work of the steps before a mark is done at the mark, and none of later ones.
    """

    run: Callable[[simpy.Environment, Sequence[SubBatch], int, Recorder], Process]
    sub_batches: int = 2
    fewest_steps: int = 2
    barriers: bool = True


def _own_interleaving(found: Any, what: str) -> Interleaving:
    """An :class:`Interleaving` of somebody else, or the function of one that is like the default."""
    if isinstance(found, Interleaving):
        if found.sub_batches not in (1, 2) or found.fewest_steps < 1:
            raise InputError(
                f"{what} has sub_batches={shown(found.sub_batches)} and fewest_steps={shown(found.fewest_steps)}; allowed: 1 or 2, "
                "and 1 or more"
            )
        return found
    if not inspect.isgeneratorfunction(found):
        raise InputError(f"{what} is neither an Interleaving nor a function that yields SimPy events")
    return Interleaving(function_of("env", "sub_batches", "steps", "recorder")(found, what))


INTERLEAVINGS: Registry[Interleaving] = Registry(
    "interleaving", "neupims_sim.scheduling", key="scheduling.interleaving", adopt=_own_interleaving, rules=("auto",)
)


def resolve_interleaving(setting: str, batch_size: int, auto_min_batch: int, attention_on_pim: bool) -> str:
    """``auto``: lockstep from ``auto_min_batch`` requests up where attention runs in PIM, else off.

    Interleaving reads all weights once per sub-batch, so it pays only where attention is long enough to hide that;
    the NeuPIMs paper (section 8) interleaves from 256 requests up, and so does lockstep here break even. ``dataflow`` is
    not chosen: without barriers the two sub-batches drift into the same phase and wait for the same unit.
    """
    if setting != "auto":
        return setting
    return "lockstep" if attention_on_pim and batch_size >= auto_min_batch else "off"


def off(env: simpy.Environment, sub_batches: Sequence[SubBatch], steps: int, recorder: Recorder) -> Process:
    """The whole batch goes through before (stage A), middle (B) and after (E), one after the other."""
    (batch,) = sub_batches
    for step in range(steps):
        yield from _stage(env, recorder, "A", batch.before(step))
        yield from _stage(env, recorder, "B", batch.middle(step))
        yield from _stage(env, recorder, "E", batch.after(step))
        recorder.mark()


def lockstep(env: simpy.Environment, sub_batches: Sequence[SubBatch], steps: int, recorder: Recorder) -> Process:
    """Stages A to F of NeuPIMs (section 6): each ends when both of its sides have ended."""
    one, two = sub_batches
    yield from _stage(env, recorder, "A", one.before(0))
    yield from _stage(env, recorder, "B", two.before(0), one.middle(0))
    recorder.mark()
    for step in range(steps - 1):
        # Both sides start together; the NPU side ends this step of a sub-batch, then begins its next.
        yield from _stage(env, recorder, "C", _in_turn(env, one, step), two.middle(step))
        yield from _stage(env, recorder, "D", _in_turn(env, two, step), one.middle(step + 1))
        recorder.mark()
    yield from _stage(env, recorder, "E", one.after(steps - 1), two.middle(steps - 1))
    yield from _stage(env, recorder, "F", two.after(steps - 1))


def dataflow(env: simpy.Environment, sub_batches: Sequence[SubBatch], steps: int, recorder: Recorder) -> Process:
    """No barriers: each sub-batch follows its own dependencies and takes a unit when it is free."""
    passed = [0] * steps

    def follow(batch: SubBatch) -> Process:
        for step in range(steps):
            yield batch.before(step)
            yield batch.middle(step)
            yield batch.after(step)
            passed[step] += 1
            if passed[step] == len(sub_batches) and step < steps - 1:  # the last one runs dry
                recorder.mark()

    yield env.all_of([env.process(follow(batch)) for batch in sub_batches])


INTERLEAVINGS.register("off")(Interleaving(off, sub_batches=1))
INTERLEAVINGS.register("lockstep")(Interleaving(lockstep))
INTERLEAVINGS.register("dataflow")(Interleaving(dataflow, fewest_steps=4, barriers=False))


def _in_turn(env: simpy.Environment, batch: SubBatch, step: int) -> SimEvent:
    def both() -> Process:
        yield batch.after(step)
        yield batch.before(step + 1)

    return env.process(both())


def _stage(env: simpy.Environment, recorder: Recorder, name: str, *sides: SimEvent) -> Process:
    start = int(env.now)
    yield env.all_of(sides)
    recorder.stage(name, start, int(env.now))

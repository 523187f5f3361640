"""One memory model under one series of work, and everything of it that can be seen from outside."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from math import ceil
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import simpy

from neupims_sim.memory.device import Counters
from neupims_sim.memory.engine import READ, WRITE
from neupims_sim.memory.models import MemoryModel, SimEvent
from neupims_sim.memory.program import PimProgram
from neupims_sim.testing.report import Finding
from neupims_sim.testing.work import Program, Transfer, Work

T = TypeVar("T")

MOST_EVENTS_PER_CYCLE = 100_000
"""A model that keeps the clock busier than this never gets to the next cycle."""

DRAIN_CYCLES = 4096
"""How often it is asked whether buffered writes have moved."""


class TrialError(Exception):
    """What keeps a trial from coming to its end: a finding, and the check that it belongs to."""

    def __init__(self, check: str, asked: str, happened: str, expected: str) -> None:
        super().__init__(happened)
        self.check = check
        self.finding = Finding(asked, happened, expected)


class Trial:
    """Work on a new model, from cycle 0 until everything is complete and every write has left its queue.

    Parameters
    ----------
    build: makes the model in a simulation.
    works: in order of their cycles.
    patience_cycles: device cycles without completion after which the model hangs.

    Attributes
    ----------
    done: per work, the device cycle at which its event fired (None: it never did).
    samples: (device cycle, counters as the model returned them, copy of them made at once).
    trouble: what ended the trial early.
    """

    def __init__(
        self,
        build: Callable[[simpy.Environment], MemoryModel],
        works: Sequence[Work],
        patience_cycles: int,
    ) -> None:
        self.env = simpy.Environment()
        self.model = build(self.env)
        self.works = works
        self.patience_cycles = patience_cycles
        self.done: list[int | None] = [None] * len(works)
        self.samples: list[tuple[int, Counters, Counters]] = []
        self.trouble: TrialError | None = None
        self._events: list[SimEvent] = []
        try:
            self._carry_out()
        except TrialError as error:
            self.trouble = error

    @property
    def memory_cycles(self) -> int:
        """Length in cycles of the memory's clock."""
        return ceil(self.env.now * self.model.config.organization.clock_ghz / self.model.clock_ghz)

    @property
    def counters(self) -> Counters:
        """Totals at the end."""
        return self.samples[-1][2]

    @cached_property
    def log(self) -> npt.NDArray[np.int64]:
        """The command log."""
        return self.model.take_log()

    @property
    def programs(self) -> list[PimProgram]:
        """The PIM programs asked for."""
        return [work.program for work in self.works if isinstance(work, Program)]

    def transfers(self, kind: int) -> list[Transfer]:
        """The reads, or the writes, asked for."""
        return [work for work in self.works if isinstance(work, Transfer) and work.kind == kind]

    def bursts(self, kind: int) -> int:
        """Bursts that the reads, or the writes, touch."""
        burst_bytes = self.model.config.organization.burst_bytes
        return sum(work.bursts(burst_bytes) for work in self.transfers(kind))

    def _carry_out(self) -> None:
        self._sample("nothing")
        for index, work in enumerate(self.works):
            if work.cycle > self.env.now:
                self._step(self.env.timeout(work.cycle - int(self.env.now)), "the work before")
            self._start(index, work)
            self._sample(str(work))
        while None in self.done:
            self._wait()
        end = self.env.now + self.patience_cycles
        while self._moved() < self.bursts(READ) + self.bursts(WRITE) and self.env.now < end:
            self._step(self.env.timeout(DRAIN_CYCLES), "buffered writes")  # posted writes complete before they move
            self._sample("all of it")

    def _start(self, index: int, work: Work) -> None:
        event = self._guarded(str(work), lambda: work.start(self.model))
        if not isinstance(event, simpy.Event):
            raise TrialError("completion", str(work), f"the call returned {event!r}", "a simpy.Event that fires later")
        for earlier, known in zip(self.works, self._events, strict=False):
            if known is event:
                happened = f"it has the same event as the {earlier}"
                raise TrialError("completion", str(work), happened, "an event of its own for every call")
        if event.callbacks is None:
            raise TrialError("time", str(work), "the event has fired already", "an event that fires at a later cycle")
        self._events.append(event)

        def completed(_: SimEvent) -> None:
            self.done[index] = int(self.env.now)

        event.callbacks.append(completed)

    def _wait(self) -> None:
        """Run until something completes. The end of our patience is an event, too, so that the clock never runs dry."""
        missing = self.done.count(None)
        first = str(self.works[self.done.index(None)])
        self._step(self.env.timeout(self.patience_cycles), first, lambda: self.done.count(None) < missing)
        if self.done.count(None) == missing:
            happened = (
                f"{missing} of {len(self.done)} events have not fired, and none for {self.patience_cycles} cycles"
            )
            raise TrialError("completion", first, happened, "every event fires")
        self._sample(first)

    def _step(self, stop: SimEvent, asked: str, enough: Callable[[], bool] = lambda: False) -> None:
        """Let the clock go on until ``stop``, or until there is enough."""
        events_now = 0
        while not stop.processed and not enough():
            before = self.env.now
            self._guarded(asked, self.env.step)
            if self.env.now < before:
                happened = f"the clock went from cycle {before} back to cycle {self.env.now}"
                raise TrialError("time", asked, happened, "no event in the past")
            events_now = events_now + 1 if self.env.now == before else 0
            if events_now > MOST_EVENTS_PER_CYCLE:
                happened = f"{events_now} events at cycle {before}, and no end"
                raise TrialError("completion", asked, happened, "the clock goes on")

    def _moved(self) -> int:
        return self.counters.reads + self.counters.writes

    def _sample(self, asked: str) -> None:
        counters = self._guarded(f"counters() after {asked}", self.model.counters)
        if not isinstance(counters, Counters):
            raise TrialError("counters", "counters()", f"it returned {counters!r}", "neupims_sim.memory.Counters")
        self.samples.append((int(self.env.now), counters, copy.deepcopy(counters)))

    def _guarded(self, asked: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:  # the model is a stranger's
            past = isinstance(error, ValueError) and "egative delay" in str(error)
            happened = f"{type(error).__name__}: {error}"
            expected = "no event in the past" if past else "no exception"
            raise TrialError("time" if past else "completion", asked, happened, expected) from error

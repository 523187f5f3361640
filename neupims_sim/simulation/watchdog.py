"""Nothing waits forever (INV-8): a run in which nothing completes any more is ended, and says what it waits for."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

from neupims_sim.memory.device import Counters
from neupims_sim.memory.engine import READ
from neupims_sim.memory.models import Capabilities, MemoryModel, SimulationStalled
from neupims_sim.memory.program import PimProgram
from neupims_sim.simulation.observations import Observations
from neupims_sim.simulation.timeline import Timeline

SimEvent = simpy.events.Event
Int64Array = npt.NDArray[np.int64]


class Watchdog(MemoryModel):
    """A memory that knows what was asked of it and has not been done yet, and an observer of the NPU.

    Parameters
    ----------
    memory: does the work; calls and events are passed through as they are.
    cycles: a run is stopped when nothing completes for this long (it may take twice as long to notice).
    timeline: told about all of that, too.
    """

    def __init__(self, memory: MemoryModel, cycles: int, seen: Observations, timeline: Timeline | None) -> None:
        super().__init__(memory.env, memory.config, preset=memory.preset, clock_ghz=memory.clock_ghz)
        self._memory = memory
        self._cycles = cycles
        self._seen = seen
        self._timeline = timeline
        self._pending: dict[SimEvent, tuple[str, int]] = {}
        self._last_progress = 0
        self.env.process(self._watch())

    @property
    def capabilities(self) -> Capabilities:
        return self._memory.capabilities

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        event = self._memory.transfer(kind, address, size_bytes)
        return self._transferred(kind, address, size_bytes, None, event)

    def transfer_in_channel(self, kind: int, channel: int, address: int, size_bytes: int) -> SimEvent:
        event = self._memory.transfer_in_channel(kind, channel, address, size_bytes)
        return self._transferred(kind, address, size_bytes, channel, event)

    def run_program(self, channel: int, program: PimProgram, release: Int64Array | None = None) -> SimEvent:
        what = f"PIM program of {len(program)} macro-commands in channel {channel}"
        event = self._memory.run_program(channel, program, release)
        if self._timeline is not None:
            self._timeline.under_way("programs", event)
        return self._asked(what, event)

    def counters(self) -> Counters:
        return self._memory.counters()

    def take_log(self) -> Int64Array:
        return self._memory.take_log()

    def busy(self, lane: str, name: str, start: int, end: int) -> None:
        """A unit of the NPU has worked (``npu.device.BusyObserver``)."""
        self._last_progress = int(self.env.now)
        self._seen.work.busy(name, start, end)
        if self._timeline is not None:
            self._timeline.busy(lane, name, start, end)

    def _transferred(self, kind: int, address: int, size_bytes: int, channel: int | None, event: SimEvent) -> SimEvent:
        if self._timeline is not None:
            bursts = self._memory.bursts(address, size_bytes, channel)
            self._timeline.under_way("reads" if kind == READ else "writes", event, bursts)
        where = f"at {address:#x}" if channel is None else f"in channel {channel}"
        return self._asked(f"{'read' if kind == READ else 'write'} of {size_bytes} B {where}", event)

    def _asked(self, what: str, event: SimEvent) -> SimEvent:
        if event.callbacks is not None:
            self._pending[event] = (what, int(self.env.now))
            event.callbacks.append(self._done)
        return event

    def _done(self, event: SimEvent) -> None:
        del self._pending[event]
        self._last_progress = int(self.env.now)

    def _watch(self) -> Generator[SimEvent, Any, None]:
        while True:
            yield self.env.timeout(self._cycles)
            if self.env.now - self._last_progress >= self._cycles:
                raise SimulationStalled(self._diagnosis())

    def _diagnosis(self) -> str:
        phases = [f"sub-batch {index} is in {phase}" for index, phase in sorted(self._seen.under_way.items())]
        if self._pending:
            what, asked = next(iter(self._pending.values()))
            blocked = (
                f"memory {self.config.name!r} (model {self.config.model!r}) has not completed {len(self._pending)} "
                f"requests, the first a {what} of cycle {asked}"
            )
        else:
            blocked = "no memory request is pending: a unit of the NPU or the interleaving policy waits for itself"
        return f"nothing has completed since cycle {self._last_progress}: {', '.join([*phases, blocked])}"

"""Counters: bandwidth, work in PIM and on the NPU, and what waits, in a bounded number of sampling intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from neupims_sim.config import Config
from neupims_sim.simulation.timeline.commands import DOTS, READS, WRITES, CommandCounts, CommandRecorder
from neupims_sim.simulation.timeline.lanes import Slice
from neupims_sim.units import convert_cycles

Int64Array = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

MAX_SAMPLES = 512
"""Sampling intervals of a window for the counters of the device."""
MAX_CHANNEL_SAMPLES = 128
"""Sampling intervals of a window for the counter of each channel."""


class Counter(NamedTuple):
    """Values over time, each from its cycle on."""

    name: str
    cycles: FloatArray
    """Device cycles, clipped to the window."""
    series: Mapping[str, FloatArray]


class Change(NamedTuple):
    """A number of things under way changes."""

    cycle: int
    by: int
    bursts: int = 0
    """That have been asked for, where it is a transfer."""


Changes = Mapping[str, Sequence[Change]]
"""Of ``reads``, ``writes``, ``programs`` and ``turns``."""


class Sampler:
    """Samples what was seen in a window of device cycles, in at most ``samples`` intervals."""

    def __init__(self, config: Config, recorder: CommandRecorder, start: float, end: float, samples: int) -> None:
        self._config = config
        organization = config.memory.organization
        self._ratio = config.clock_ghz / organization.clock_ghz
        self._recorder = recorder
        self._start, self._end = start, end
        self._commands: CommandCounts = recorder.counts(start / self._ratio, end / self._ratio, samples)
        self._edges = self._commands.edges * self._ratio
        self._instants = np.clip(self._edges, start, end)
        self._nanoseconds = np.diff(self._commands.edges) / organization.clock_ghz

    def device(self, busy: Mapping[str, Iterable[Slice]], changes: Changes) -> Iterator[Counter]:
        """Counters of the whole device; ``busy`` are the lanes of the NPU."""
        if self._recorder.seen:
            per_burst = self._config.memory.organization.burst_bytes
            moved = self._commands.counts.sum(axis=1)
            read, written = (self._rate(moved[kind] * per_burst) for kind in (READS, WRITES))
            yield self._mean("bandwidth GB/s", {"read": read, "write": written})
            if self._recorder.spec.has_pim:
                yield self._mean("PIM-internal bandwidth GB/s", {"read": self._rate(moved[DOTS] * self._dot_bytes)})
                pim = self._recorder.pim_intervals()
                at_work = mean_under_way(pim.start, pim.end, self._commands.edges)
                yield self._mean("channels at work in PIM", {"channels": at_work})
        yield self._mean("busy %", {unit: 100 * self._share(slices) for unit, slices in busy.items()})
        yield self._exact("transfers under way", {kind: changes[kind] for kind in ("reads", "writes")})
        if self._recorder.seen:
            yield self._queue(changes)
        if changes["programs"]:
            yield self._exact("PIM programs", {"in channels": changes["programs"], "waiting": changes["turns"]})

    def channels(self) -> Iterator[Counter]:
        """Bandwidth of every channel."""
        if not self._recorder.seen:
            return
        moved = self._commands.counts[READS] + self._commands.counts[WRITES]
        for channel, bursts in enumerate(moved * self._config.memory.organization.burst_bytes):
            yield self._mean(f"channel {channel}", {"GB/s": self._rate(bursts)})

    @property
    def _dot_bytes(self) -> int:
        """Read from open PIM rows by one dot-product in all banks of a channel."""
        organization, pim = self._config.memory.organization, self._config.memory.pim
        return organization.banks * pim.multipliers_per_bank * self._config.npu.element_bytes

    def _rate(self, size_bytes: Int64Array) -> FloatArray:
        rate: FloatArray = size_bytes / self._nanoseconds
        return rate

    def _share(self, slices: Iterable[Slice]) -> FloatArray:
        times = [(part.start, part.end) for part in slices]
        start, end = np.array(times).reshape(-1, 2).T
        return mean_under_way(start, end, self._edges)

    def _mean(self, name: str, series: Mapping[str, FloatArray]) -> Counter:
        """A mean over each interval, drawn from its start on."""
        return Counter(name, self._instants[:-1], series)

    def _exact(self, name: str, changes: Mapping[str, Sequence[Change]]) -> Counter:
        """How many are under way where intervals begin, and at the end of the window."""
        return Counter(
            name, self._instants, {what: _under_way(steps, self._instants) for what, steps in changes.items()}
        )

    def _queue(self, changes: Changes) -> Counter:
        """Bursts that have been asked for and not been issued where intervals begin, and where the last ends."""
        series = {}
        for kind, what in ((READS, "reads"), (WRITES, "writes")):
            issued = np.cumsum(self._commands.counts[kind].sum(axis=0))
            steps = [change for change in changes[what] if change.bursts]
            cycles = np.array([self._memory_cycle(change.cycle) for change in steps], dtype=np.int64)
            asked = np.concatenate([[0], np.cumsum([change.bursts for change in steps], dtype=np.int64)])
            by_then = asked[np.searchsorted(cycles, self._commands.edges, side="left")]
            series[what] = by_then - self._commands.before[kind] - np.concatenate([[0], issued])
        return Counter("queued bursts", self._instants, series)

    def _memory_cycle(self, device_cycle: int) -> int:
        """From which on the memory can work on what it was asked then (``MemoryModel.cycle``)."""
        return convert_cycles(device_cycle, self._config.clock_ghz, self._config.memory.organization.clock_ghz)


def mean_under_way(start: npt.ArrayLike, end: npt.ArrayLike, edges: npt.ArrayLike) -> FloatArray:
    """Mean number of intervals from ``start`` to ``end`` (they may overlap) that are under way between consecutive ``edges``."""
    at = np.asarray(edges, dtype=np.float64)
    total = np.zeros(len(at))
    for times, sign in ((start, 1), (end, -1)):
        ordered = np.sort(np.asarray(times, dtype=np.float64))
        passed = np.searchsorted(ordered, at)
        total += sign * (passed * at - np.concatenate([[0.0], np.cumsum(ordered)])[passed])
    return np.diff(total) / np.diff(at)


def _under_way(changes: Sequence[Change], instants: FloatArray) -> FloatArray:
    """How many are under way after each instant."""
    cycles = np.array([change.cycle for change in changes])
    count = np.concatenate([[0], np.cumsum([change.by for change in changes])])
    under_way: FloatArray = count[np.searchsorted(cycles, instants, side="right")]
    return under_way

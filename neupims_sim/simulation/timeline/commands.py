"""The command log of a run, reduced as it comes: a run issues millions of commands.

Kept are the busy intervals of every channel, the number of bursts and dot-products per sampling interval, and of a short window
the commands themselves. Times are cycles of the memory's clock.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from neupims_sim.compiling import kept
from neupims_sim.memory.inspection import dot_product_cycles
from neupims_sim.memory.spec import COMMANDS, GEMV, GWRITE, HEADER, RD, WR, ResolvedSpec

Int64Array = npt.NDArray[np.int64]

GAP_CYCLES = 64
"""Bursts of a channel that are no further apart, memory cycles, become one interval."""
MAX_COMMANDS = 100_000
"""A window with more commands than this shows intervals only."""
BINS = 1 << 14
"""Sampling intervals of which commands are counted; they become twice as long when a run has more."""
SHORTEST = 4
"""Sampling intervals are 2^4 cycles or longer: several bursts, so that where one is counted matters little."""
READS, WRITES, DOTS = range(3)
"""What is counted per sampling interval: bursts where their command issues, dot-products where they begin."""

_NEVER = 1 << 62
_OTHER, _READ, _WRITE, _GWRITE, _HEADER, _GEMV = range(6)
_ROLES = {RD: _READ, WR: _WRITE, GWRITE: _GWRITE, HEADER: _HEADER, GEMV: _GEMV}
"""What a command is to the reduction. Compiled code takes it as an array: Numba's cache notices changes of this file only."""
_BEGIN, _END, _FIRST, _SECOND = range(4)
_PIM = 4
"""Columns of an open interval of a channel, memory and PIM: begin, end, commands of the first and of the second kind."""


class Intervals(NamedTuple):
    """Busy times of channels, memory cycles; sorted by channel, then time, and disjoint within a channel."""

    channel: Int64Array
    start: Int64Array
    end: Int64Array
    counts: Int64Array
    """[n, 2]: commands of the first and of the second kind (reads and writes, or tiles and GWRITEs) in each."""

    def joined(self, gap_cycles: int) -> Intervals:
        """Neighbours of a channel that are no more than ``gap_cycles`` apart become one."""
        if not len(self.start):
            return self
        apart = (self.channel[1:] != self.channel[:-1]) | (self.start[1:] - self.end[:-1] > gap_cycles)
        first = np.flatnonzero(np.concatenate([[True], apart]))
        last = np.append(first[1:], len(self.start)) - 1
        return Intervals(self.channel[first], self.start[first], self.end[last], np.add.reduceat(self.counts, first))

    def between(self, start: float, end: float) -> Intervals:
        """Those that touch the window."""
        inside = (self.end > start) & (self.start < end)
        return Intervals(*(column[inside] for column in self))

    def of(self, channel: int) -> Intervals:
        """Those of one channel."""
        return Intervals(*(column[self.channel == channel] for column in self))


class CommandCounts(NamedTuple):
    """Bursts and dot-products per sampling interval."""

    edges: Int64Array
    """[n + 1]: where intervals begin, and where the last ends."""
    counts: Int64Array
    """[3, channels, n]: reads, writes, dot-products."""
    before: Int64Array
    """[3]: of all channels before the first interval."""


class CommandRecorder:
    """Takes a command log part by part.

    Parameters
    ----------
    window: memory cycles (from, to) that are of interest; all unless given. Of a window the commands themselves are kept,
        up to ``MAX_COMMANDS``.
    """

    def __init__(self, spec: ResolvedSpec, window: tuple[int, int] | None) -> None:
        self.spec = spec
        self._window = window or (0, _NEVER)
        channels = spec.config.organization.channels
        lengths = spec.burst_cycles, spec.gwrite_latency, dot_product_cycles(spec) if spec.has_pim else 0
        self._lengths = np.array(lengths, dtype=np.int64)
        self._longest = int(self._lengths[2]) * spec.config.organization.row_bytes
        """No GEMV takes longer: each of its dot-products reads other bytes of the open rows."""
        self._roles = np.array([_ROLES.get(command, _OTHER) for command in range(len(COMMANDS))], dtype=np.int64)
        self._open = np.zeros((channels, 2 * _PIM), dtype=np.int64)
        self._bins = np.zeros((3, channels, BINS), dtype=np.int32)
        self._before = np.zeros(3, dtype=np.int64)
        self._shift = SHORTEST
        self._parts: tuple[list[Int64Array], list[Int64Array]] = [], []
        self._single: list[Int64Array] | None = None if window is None else []
        self.seen = False
        """Whether there were any commands."""

    def add(self, log: Int64Array) -> None:
        """Take the next part of the log, [n, ``LOG_FIELDS``], in order of time within each channel."""
        if not len(log):
            return
        self.seen = True
        first, last = self._window
        newest = min(int(log[:, 0].max()) + self._longest, last)
        while (newest - first) >> self._shift >= BINS:
            self._widen_bins()
        memory, pim = np.empty((2, len(log), 1 + _PIM), dtype=np.int64)
        found = reduce_log(
            log, self._roles, self._lengths, self._open, memory, pim, self._bins, self._before, self._shift, first, last
        )
        for parts, rows, count in zip(self._parts, (memory, pim), found, strict=True):
            if count:
                parts.append(rows[:count].copy())
        if self._single is not None:
            self._single.append(log[(log[:, 0] >= first) & (log[:, 0] < last)])
            if sum(map(len, self._single)) > MAX_COMMANDS:
                self._single = None

    def memory_intervals(self) -> Intervals:
        """When channels read and write, from the RD or WR command to the end of a burst's length after the last of them."""
        return self._intervals(0)

    def pim_intervals(self) -> Intervals:
        """GWRITEs, and tiles from their HEADER to the end of their last dot-product, or to the next HEADER or GWRITE."""
        return self._intervals(1)

    def commands(self) -> Int64Array | None:
        """The commands of the window by channel, then time; None where no window was given or it has too many."""
        if self._single is None:
            return None
        log = np.concatenate([np.zeros((0, 7), dtype=np.int64), *self._single])
        return log[np.lexsort((log[:, 0], log[:, 1]))]

    def counts(self, start: float, end: float, most: int) -> CommandCounts:
        """Commands in intervals that cover the window, at most ``most``; their length is a power of two."""
        origin, last = self._window[0], max(int(np.ceil(end)) - 1, int(start))
        shift = self._shift
        while ((last - origin) >> shift) - ((int(start) - origin) >> shift) >= most:
            shift += 1
        first, stop = (int(start) - origin) >> shift, ((last - origin) >> shift) + 1
        width = 1 << (shift - self._shift)
        bins = self._bins[:, :, first * width : stop * width].astype(np.int64)
        missing = (stop - first) * width - bins.shape[2]
        bins = np.pad(bins, ((0, 0), (0, 0), (0, missing)))
        return CommandCounts(
            edges=origin + (np.arange(first, stop + 1, dtype=np.int64) << shift),
            counts=bins.reshape(*bins.shape[:2], stop - first, width).sum(axis=3),
            before=self._before + self._bins[:, :, : first * width].sum(axis=(1, 2), dtype=np.int64),
        )

    def _widen_bins(self) -> None:
        pairs = self._bins.reshape(*self._bins.shape[:2], BINS // 2, 2).sum(axis=3)
        self._bins[:, :, : BINS // 2] = pairs
        self._bins[:, :, BINS // 2 :] = 0
        self._shift += 1

    def _intervals(self, which: int) -> Intervals:
        begun = self._open[:, which * _PIM : (which + 1) * _PIM]
        channel = np.flatnonzero(begun[:, _FIRST] + begun[:, _SECOND])
        rows = np.concatenate([*self._parts[which], np.column_stack([channel, begun[channel]])])
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        return Intervals(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3:])


@kept()
def reduce_log(
    log: Any,
    roles: Any,
    lengths: Any,
    begun: Any,
    memory: Any,
    pim: Any,
    bins: Any,
    before: Any,
    shift: int,
    first: int,
    last: int,
) -> tuple[int, int]:
    """Bursts and PIM commands to intervals and counts; returns how many rows of ``memory`` and ``pim`` were written.

    Parameters
    ----------
    log: [n, ``LOG_FIELDS``].
    roles: [commands], what each command is to the reduction.
    lengths: cycles of a burst, a GWRITE and a dot-product.
    begun: [channels, 8], the interval of each channel that may go on, memory and PIM.
    memory, pim: [n, 5], channel and columns of the intervals that have ended and touch the window from ``first`` to ``last``.
    bins: [3, channels, ``BINS``], reads, writes and dot-products in intervals of 2^``shift`` cycles from ``first`` on.
    before: [3], those before ``first``.
    """
    memory_rows, pim_rows = 0, 0
    burst, gwrite, dot = lengths
    for index in range(len(log)):
        cycle, channel, role = log[index, 0], log[index, 1], roles[log[index, 2]]
        if role in (_READ, _WRITE):
            if cycle - begun[channel, _END] > GAP_CYCLES or begun[channel, _END] == 0:
                memory_rows = end_interval(begun[channel, :_PIM], channel, memory, memory_rows, first, last)
                begun[channel, _BEGIN] = cycle
            begun[channel, _END] = cycle + burst
            begun[channel, _FIRST + role - _READ] += 1
            count_at(bins, before, role - _READ, channel, cycle - first, shift, 1)
        elif role == _GEMV:
            dots = log[index, 6]
            begun[channel, _PIM + _END] = cycle + max(1, dots * dot)
            at, last_at = cycle - first, cycle - first + (dots - 1) * dot
            if at >> shift == last_at >> shift:
                count_at(bins, before, DOTS, channel, at, shift, dots)
            else:
                for number in range(dots):
                    count_at(bins, before, DOTS, channel, at + number * dot, shift, 1)
        elif role != _OTHER:
            begun[channel, _PIM + _END] = min(begun[channel, _PIM + _END], cycle)
            pim_rows = end_interval(begun[channel, _PIM:], channel, pim, pim_rows, first, last)
            begun[channel, _PIM + _BEGIN] = cycle
            begun[channel, _PIM + _END] = cycle + (gwrite if role == _GWRITE else 1)
            begun[channel, _PIM + _FIRST + (role == _GWRITE)] = 1
    return memory_rows, pim_rows


@kept()
def count_at(bins: Any, before: Any, kind: int, channel: int, cycle: int, shift: int, amount: int) -> None:
    """Count ``amount`` at ``cycle`` from the first interval on, or before it; what lies behind the last is of no interest."""
    if cycle < 0:
        before[kind] += amount
    elif cycle >> shift < bins.shape[2]:
        bins[kind, channel, cycle >> shift] += amount


@kept()
def end_interval(here: Any, channel: int, rows: Any, count: int, first: int, last: int) -> int:
    """Note an interval if there is one and it touches the window, and forget it; returns how many are noted now."""
    if here[_FIRST] + here[_SECOND] > 0 and here[_END] > first and here[_BEGIN] < last:
        rows[count, 0] = channel
        rows[count, 1:] = here
        count += 1
    here[:] = 0
    return count

"""What every unit of the device did and when, as trace events of Chrome (https://ui.perfetto.dev opens the file).

Processes and their lanes: the stages; the NPU's systolic arrays, vector units and DMA; each sub-batch's phases and operators;
each request's steps of attention; each channel's memory and PIM activity.

A run issues millions of DRAM commands, so bursts that lie close together become one slice, and a lane with too many
slices is drawn more coarsely: a file has at most `MAX_SLICES` slices per lane of a channel.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from neupims_sim.config import Config
from neupims_sim.errors import InputError
from neupims_sim.memory.models import MemoryModel
from neupims_sim.memory.spec import COMMANDS, resolve
from neupims_sim.simulation.observations import Observations

Int64Array = npt.NDArray[np.int64]

GAP_CYCLES = 64
"""Bursts of a channel that are no further apart, memory cycles, become one slice."""
MAX_SLICES = 2000
"""Slices of one lane of a channel; above, the gap that is bridged is doubled until they are fewer."""
_CHUNK_COMMANDS = 1 << 18
"""Commands that are kept before they are reduced."""

_RD, _WR, _GWRITE, _HEADER, _GEMV = (COMMANDS.index(name) for name in ("RD", "WR", "GWRITE", "HEADER", "GEMV"))


class Slice(NamedTuple):
    """Something that took time on a lane, device cycles."""

    start: float
    end: float
    name: str
    args: Mapping[str, Any] = MappingProxyType({})


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


class Timeline:
    """Watches one run and writes it down; the run does not notice (INV-7).

    Give a new one to :func:`neupims_sim.simulation.simulate`, then call :meth:`write`.
    """

    def __init__(self) -> None:
        self._busy: defaultdict[str, list[Slice]] = defaultdict(list)
        self._log: list[Int64Array] = []
        self._bursts: list[Intervals] = []
        self._pim: list[Int64Array] = []

    def watch(self, config: Config, memory: MemoryModel, seen: Observations) -> None:
        """The run begins."""
        self._config, self._memory, self._seen = config, memory, seen

    def busy(self, lane: str, name: str, start: int, end: int) -> None:
        """A unit of the NPU has worked (``npu.device.BusyObserver``)."""
        self._busy[lane].append(Slice(start, end, name))
        self._log.append(self._memory.take_log())
        if sum(map(len, self._log)) > _CHUNK_COMMANDS:
            self._reduce()

    def write(self, path: Path, window: tuple[int, int] | None = None) -> None:
        """Write the events of ``window`` (device cycles from, to; the last steady-state layer unless given), gzip'ed JSON.

        Raises InputError where the run had ended before the window began.
        """
        self._log.append(self._memory.take_log())
        self._reduce()
        end = max(record.end_cycle for record in self._seen.phases)
        if window is None:
            layers = self._seen.layer_cycles
            window = (layers[-2], layers[-1]) if len(layers) > 1 else (0, end)
        if not 0 <= window[0] < min(window[1], end):
            raise InputError(
                f"timeline window {window[0]}:{window[1]} is empty: it must begin before it ends, and within the "
                f"{end} simulated cycles"
            )
        document = {
            "traceEvents": list(self._events(*window)),
            "displayTimeUnit": "ns",
            "otherData": {"window_cycles": window, "clock_ghz": self._config.clock_ghz, "system": self._config.system},
        }
        with path.open("wb") as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as compressed:
            compressed.write(json.dumps(document, separators=(",", ":")).encode())

    def _events(self, start: float, end: float) -> Iterator[dict[str, Any]]:
        """Names of processes and lanes, and their slices cut to the window, in order of time on each lane."""
        microseconds = 1 / (1000 * self._config.clock_ghz)
        for pid, (process, lanes) in enumerate(self._processes(start, end), start=1):
            yield _name("process_name", pid, 0, name=process)
            yield _name("process_sort_index", pid, 0, sort_index=pid)
            for tid, (lane, slices) in enumerate(lanes):
                yield _name("thread_name", pid, tid, name=lane)
                yield _name("thread_sort_index", pid, tid, sort_index=tid)
                for part in sorted(slices, key=lambda part: part.start):
                    begin, stop = max(part.start, start), min(part.end, end)
                    if begin < stop:
                        yield {
                            "ph": "X",
                            "name": part.name,
                            "cat": process,
                            "ts": round(begin * microseconds, 6),
                            "dur": round((stop - begin) * microseconds, 6),
                            "pid": pid,
                            "tid": tid,
                            "args": dict(part.args),
                        }

    def _processes(self, start: float, end: float) -> Iterator[tuple[str, list[tuple[str, Iterable[Slice]]]]]:
        seen = self._seen
        yield "stages", [("stage", [Slice(begin, stop, name) for name, begin, stop in seen.stages])]
        units = ("systolic arrays", "vector units", "DMA read", "DMA write", *(["link"] if self._busy["link"] else []))
        yield "NPU", [lane for unit in units for lane in _rows(unit, _same_name_joined(self._busy[unit]))]
        for sub_batch in sorted({record.sub_batch for record in seen.phases}):
            phases = [
                Slice(record.start_cycle, record.end_cycle, record.phase, {"layer": record.layer})
                for record in seen.phases
                if record.sub_batch == sub_batch
            ]
            operators = [
                Slice(
                    record.start_cycle, record.end_cycle, record.operator, {"layer": record.layer, "unit": record.unit}
                )
                for record in seen.operators
                if record.sub_batch == sub_batch and record.request is None
            ]
            yield f"sub-batch {sub_batch}", [*_rows("phases", phases), *_rows("operators", operators)]
        requests: defaultdict[int, list[Slice]] = defaultdict(list)
        for record in seen.operators:
            if record.request is not None:
                args = {"layer": record.layer, "sub_batch": record.sub_batch, "unit": record.unit}
                requests[record.request].append(Slice(record.start_cycle, record.end_cycle, record.operator, args))
        if requests:
            yield "requests", [lane for n in sorted(requests) for lane in _rows(f"request {n}", requests[n])]
        yield "memory", list(self._channels(start, end))

    def _channels(self, start: float, end: float) -> Iterator[tuple[str, Iterable[Slice]]]:
        """Memory and PIM lane of every channel."""
        ratio = self._config.clock_ghz / self._config.memory.organization.clock_ghz
        kinds = [("memory", self._memory_intervals(), ("reads", "writes"), GAP_CYCLES)]
        if self._pim:
            kinds.append(("PIM", self._pim_intervals(), ("tiles", "gwrites"), 0))
        for channel in range(self._config.memory.organization.channels):
            for kind, intervals, names, gap_cycles in kinds:
                part, gap = intervals.between(start / ratio, end / ratio).of(channel), gap_cycles
                while len(part.start) > MAX_SLICES:
                    gap = max(GAP_CYCLES, 2 * gap)
                    part = part.joined(gap)
                yield (
                    f"channel {channel} {kind}",
                    [
                        Slice(begin * ratio, stop * ratio, _what(names, counts), dict(zip(names, counts, strict=True)))
                        for begin, stop, counts in zip(*(column.tolist() for column in part[1:]), strict=True)
                    ],
                )

    def _reduce(self) -> None:
        """Bursts to intervals; of PIM commands keep those that tell tiles apart."""
        log = np.concatenate(self._log)
        self._log = []
        if not len(log):
            return
        log = log[np.lexsort((log[:, 0], log[:, 1]))]
        cycle, channel, command = log[:, 0], log[:, 1], log[:, 2]
        burst = (command == _RD) | (command == _WR)
        kinds = np.stack([command == _RD, command == _WR], axis=1)[burst].astype(np.int64)
        length = self._config.memory.organization.burst_cycles
        bursts = Intervals(channel[burst], cycle[burst], cycle[burst] + length, kinds)
        self._bursts.append(bursts.joined(GAP_CYCLES))
        pim = np.isin(command, (_GWRITE, _HEADER, _GEMV))
        if pim.any():
            self._pim.append(log[pim, :3])

    def _memory_intervals(self) -> Intervals:
        if not self._bursts:
            nothing = np.zeros(0, dtype=np.int64)
            return Intervals(nothing, nothing, nothing, np.zeros((0, 2), dtype=np.int64))
        parts = Intervals(*(np.concatenate(column) for column in zip(*self._bursts, strict=True)))
        order = np.lexsort((parts.start, parts.channel))
        return Intervals(*(column[order] for column in parts)).joined(GAP_CYCLES)

    def _pim_intervals(self) -> Intervals:
        """GWRITEs, and tiles from their HEADER to their last GEMV."""
        gwrite_cycles = resolve(self._config.memory, self._config.preset).gwrite_latency
        log = np.concatenate(self._pim)
        cycle, channel, command = log[np.lexsort((log[:, 0], log[:, 1]))].T
        first = np.flatnonzero(command != _GEMV)
        last = np.append(first[1:], len(cycle)) - 1
        gwrite = command[first] == _GWRITE
        stop = np.where(gwrite, cycle[first] + gwrite_cycles, cycle[last] + 1)
        counts = np.stack([~gwrite, gwrite], axis=1).astype(np.int64)
        return Intervals(channel[first], cycle[first], stop, counts)


def _name(what: str, pid: int, tid: int, **args: Any) -> dict[str, Any]:
    """A metadata event."""
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "ts": 0, "args": args}


def _what(names: Sequence[str], counts: Sequence[int]) -> str:
    """``"reads"``, ``"reads and writes"``, ``"tile"``, ``"tiles"``."""
    return " and ".join(name if count > 1 else name[:-1] for name, count in zip(names, counts, strict=True) if count)


def _same_name_joined(slices: Iterable[Slice]) -> list[Slice]:
    """Slices that touch or overlap one of the same name become one with it: the pieces in which an operator moves or computes."""
    joined: list[Slice] = []
    latest: dict[str, int] = {}
    for part in sorted(slices, key=lambda part: part.start):
        at = latest.get(part.name)
        if at is not None and part.start <= joined[at].end:
            joined[at] = joined[at]._replace(end=max(joined[at].end, part.end))
        else:
            latest[part.name] = len(joined)
            joined.append(part)
    return joined


def _rows(name: str, slices: Iterable[Slice]) -> list[tuple[str, list[Slice]]]:
    """Lanes ``name``, ``name (2)``, ... such that no two slices of a lane overlap."""
    rows: list[list[Slice]] = [[]]
    for part in sorted(slices, key=lambda part: part.start):
        for row in rows:
            if not row or row[-1].end <= part.start:
                row.append(part)
                break
        else:
            rows.append([part])
    return [(name if index == 0 else f"{name} ({index + 1})", row) for index, row in enumerate(rows)]

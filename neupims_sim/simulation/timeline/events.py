"""Trace events as Chrome and Perfetto read them ("Trace Event Format", Chromium project), streamed into a file.

Lanes are threads, groups of lanes are processes. No two lanes of a file have the same tid, and none has that of a process:
Perfetto takes a thread whose tid is its pid for the main thread, and finds threads by tid.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from neupims_sim.writing import replaced

Event = dict[str, Any]

_FIRST_LANE = 1000
"""Smallest tid; pids are below."""


class Place(NamedTuple):
    """Where a slice begins in the file; flows are bound to it."""

    lane: Lane
    cycle: float


class Process(NamedTuple):
    """A group of lanes and counters."""

    pid: int
    name: str


class Lane(NamedTuple):
    """A row of slices."""

    process: Process
    tid: int


class TraceEvents:
    """Makes events; times are device cycles of ``clock_ghz``.

    Perfetto binds a flow to the slice on its lane that has begun last, in order of time and then of the file: flows come after
    all slices.
    """

    def __init__(self, clock_ghz: float) -> None:
        self._cycle_picoseconds = 1000 / clock_ghz
        self._processes = 0
        self._lanes = 0
        self._flows = 0

    def process(self, name: str) -> Process:
        """The next group of lanes."""
        self._processes += 1
        return Process(self._processes, name)

    def name(self, process: Process) -> Iterator[Event]:
        """Name and place of a process."""
        yield self._metadata("process_name", process.pid, None, name=process.name)
        yield self._metadata("process_sort_index", process.pid, None, sort_index=process.pid)

    def lane(self, process: Process, name: str) -> tuple[Lane, list[Event]]:
        """The next lane of a process, and its name and place."""
        lane = Lane(process, _FIRST_LANE + self._lanes)
        self._lanes += 1
        return lane, [
            self._metadata("thread_name", process.pid, lane.tid, name=name),
            self._metadata("thread_sort_index", process.pid, lane.tid, sort_index=lane.tid),
        ]

    def slice(self, lane: Lane, name: str, start: float, end: float, args: Mapping[str, Any]) -> Event:
        """Something that takes time."""
        begin, stop = self._picoseconds(start), self._picoseconds(end)
        return {
            "ph": "X",
            "name": name,
            "cat": lane.process.name,
            "ts": microseconds(begin),
            "dur": microseconds(stop - begin),
            "pid": lane.process.pid,
            "tid": lane.tid,
            "args": dict(args),
        }

    def counter(self, process: Process, name: str, cycle: float, values: Mapping[str, float]) -> Event:
        """Values from ``cycle`` on."""
        return {
            "ph": "C",
            "name": name,
            "ts": microseconds(self._picoseconds(cycle)),
            "pid": process.pid,
            "args": dict(values),
        }

    def flow(self, name: str, places: Sequence[Place]) -> Iterator[Event]:
        """Arrows from slice to slice; ``places`` are in order of time, two or more."""
        self._flows += 1
        for number, (lane, cycle) in enumerate(places):
            yield {
                "ph": "s" if number == 0 else "f" if number == len(places) - 1 else "t",
                "name": name,
                "cat": "flow",
                "id": self._flows,
                "bp": "e",
                "ts": microseconds(self._picoseconds(cycle)),
                "pid": lane.process.pid,
                "tid": lane.tid,
            }

    def _picoseconds(self, cycle: float) -> int:
        return round(cycle * self._cycle_picoseconds)

    def _metadata(self, what: str, pid: int, tid: int | None, **args: Any) -> Event:
        event: Event = {"ph": "M", "name": what, "ts": 0, "pid": pid, "args": args}
        return event if tid is None else event | {"tid": tid}


def microseconds(picoseconds: int) -> float:
    """The unit of the format. Perfetto multiplies by 1000 and drops the fraction, which must not take a nanosecond away.

    Otherwise a slice could begin before the one before it on its lane has ended, and would be lost.
    """
    value = picoseconds / 1e6
    while int(value * 1000) < picoseconds // 1000:
        value = math.nextafter(value, math.inf)
    return value


def write_events(path: Path, events: Iterable[Event], about: Mapping[str, Any]) -> None:
    """Write a file of trace events, gzip'ed JSON: the same bytes for the same events. Raises InputError if it cannot be written."""
    with (
        replaced(path) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as compressed,
    ):
        compressed.write(b'{"traceEvents":[')
        remaining, separator = iter(events), b"\n"
        while part := list(islice(remaining, _PART)):
            compressed.write(separator + _json(part)[1:-1])
            separator = b",\n"
        compressed.write(b'\n],"displayTimeUnit":"ns","otherData":' + _json(about) + b"}\n")


_PART = 500
"""Events that are in memory at a time."""


def _json(value: Sequence[Event] | Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()

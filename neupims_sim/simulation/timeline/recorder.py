"""A timeline: watches a run and writes it down as trace events.

A file is bounded, whatever the run: lanes, slices per lane, requests, sampling intervals and single commands have limits
(docs/timeline.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simpy

from neupims_sim.config import Config
from neupims_sim.errors import InputError
from neupims_sim.memory.models import MemoryModel
from neupims_sim.memory.spec import resolve
from neupims_sim.simulation.observations import Observations
from neupims_sim.simulation.timeline.commands import CommandRecorder
from neupims_sim.simulation.timeline.counters import MAX_CHANNEL_SAMPLES, MAX_SAMPLES, Change, Counter, Sampler
from neupims_sim.simulation.timeline.events import Event, Place, Process, TraceEvents, write_events
from neupims_sim.simulation.timeline.flows import flows
from neupims_sim.simulation.timeline.lanes import (
    Key,
    Row,
    Slice,
    background_rows,
    channel_rows,
    cut,
    request_rows,
    rows,
    same_name_joined,
    stage_rows,
    sub_batch_rows,
)

_COLLECT_CYCLES = 4096
"""The command log is taken this often or more seldom: its length between is what a memory can issue in so many cycles."""
_UNITS = ("systolic arrays", "vector units", "DMA read", "DMA write")


class Timeline:
    """Watches one run and writes it down; the run does not notice (INV-7).

    Give a new one to :func:`neupims_sim.simulation.simulate`, then call :meth:`write`.

    Parameters
    ----------
    window: device cycles (from, to) to show; the last steady-state layer unless given.
    """

    def __init__(self, window: tuple[int, int] | None = None) -> None:
        self._window = window
        self._busy: defaultdict[str, list[Slice]] = defaultdict(list)
        self._changes: defaultdict[str, list[Change]] = defaultdict(list)
        self._next_collection = 0

    def watch(self, config: Config, memory: MemoryModel, seen: Observations) -> None:
        """The run begins."""
        self._config, self._memory, self._seen = config, memory, seen
        per_cycle = config.memory.organization.clock_ghz / config.clock_ghz
        window = None
        if self._window is not None:
            start, end = (cycle * per_cycle for cycle in self._window)
            window = int(start), int(np.ceil(end))
        self._commands = CommandRecorder(resolve(config.memory, config.preset), window)

    def busy(self, lane: str, name: str, start: int, end: int) -> None:
        """A unit of the NPU has worked (``npu.device.BusyObserver``)."""
        self._collect_if_due()
        if self._window is None or (end > self._window[0] and start < self._window[1]):
            self._busy[lane].append(Slice(start, end, name))

    def under_way(self, what: str, until: simpy.Event, bursts: int = 0) -> None:
        """A transfer (``reads``, ``writes``), a PIM program in its channel or its wait for a turn begins now."""
        changes = self._changes[what]
        changes.append(Change(int(self._memory.env.now), 1, bursts))
        if until.callbacks is None:
            self._ended(what, until)
        else:
            until.callbacks.append(partial(self._ended, what))

    def _ended(self, what: str, _: simpy.Event) -> None:
        self._changes[what].append(Change(int(self._memory.env.now), -1))
        self._collect_if_due()

    def _collect_if_due(self) -> None:
        now = int(self._memory.env.now)
        if now >= self._next_collection:
            self._next_collection = now + _COLLECT_CYCLES
            self._commands.add(self._memory.take_log())

    def write(self, path: Path) -> None:
        """Write the events of the window; the format is in docs/timeline.md.

        Raises InputError where the run had ended before the window began, or the file cannot be written.
        """
        self._commands.add(self._memory.take_log())
        start, end = self._shown()
        about = {
            "system": self._config.system,
            "shown_devices": 1,
            "devices": self._config.parallel.devices,
            "clock_ghz": self._config.clock_ghz,
            "window_start_cycle": start,
            "window_end_cycle": end,
        }
        write_events(path, self._events(start, end), about)

    def _shown(self) -> tuple[int, int]:
        """The window, as far as the run went."""
        end = max(record.end_cycle for record in self._seen.phases)
        if self._window is None:
            layers = self._seen.layer_cycles
            return (layers[-2], layers[-1]) if len(layers) > 1 else (0, end)
        if not 0 <= self._window[0] < min(self._window[1], end):
            raise InputError(
                f"timeline window {self._window[0]}:{self._window[1]} is empty: it must begin before it ends, and within the "
                f"{end} simulated cycles"
            )
        return self._window[0], min(self._window[1], end)

    def _events(self, start: int, end: int) -> Iterator[Event]:
        events = TraceEvents(self._config.clock_ghz)
        watched = self._config, self._commands, start, end
        units = {unit: self._busy[unit] for unit in (*_UNITS[:2], "link") if self._busy[unit] or unit in _UNITS}
        yield from _counters(
            events, events.process("device"), Sampler(*watched, MAX_SAMPLES).device(units, self._changes)
        )
        places: dict[Key, Place] = {}
        for name, group in self._groups(start, end):
            process = events.process(name)
            yield from events.name(process)
            for row in group:
                lane, named = events.lane(process, row.name)
                yield from named
                for part in row.slices:
                    if part.key is not None:
                        places[part.key] = Place(lane, part.start)
                    yield events.slice(lane, part.name, part.start, part.end, part.args)
            if name == "memory":
                yield from _values(events, process, Sampler(*watched, MAX_CHANNEL_SAMPLES).channels())
        for flow in flows(self._seen, places):
            yield from events.flow(*flow)

    def _groups(self, start: int, end: int) -> Iterator[tuple[str, Iterable[Row]]]:
        """Processes and their lanes."""
        seen = self._seen
        if seen.stages:
            yield "stages", stage_rows(seen, start, end)
        units = [unit for unit in (*_UNITS, "link") if self._busy[unit] or unit in _UNITS]
        yield "NPU", [row for unit in units for row in rows(unit, cut(same_name_joined(self._busy[unit]), start, end))]
        for sub_batch in sorted({record.sub_batch for record in seen.phases}):
            yield f"sub-batch {sub_batch}", sub_batch_rows(seen, sub_batch, start, end)
        for name, group in (
            ("requests", request_rows(seen, start, end)),
            ("background", background_rows(seen, start, end)),
        ):
            if any(row.slices for row in group):
                yield name, group
        if self._commands.seen:
            yield "memory", channel_rows(self._config, self._commands, start, end)


def _counters(events: TraceEvents, process: Process, counters: Iterable[Counter]) -> Iterator[Event]:
    yield from events.name(process)
    yield from _values(events, process, counters)


def _values(events: TraceEvents, process: Process, counters: Iterable[Counter]) -> Iterator[Event]:
    for counter in counters:
        names, columns = list(counter.series), [values.tolist() for values in counter.series.values()]
        for cycle, *values in zip(counter.cycles.tolist(), *columns, strict=True):
            rounded: dict[str, Any] = {name: round(value, 3) for name, value in zip(names, values, strict=True)}
            yield events.counter(process, counter.name, cycle, rounded)

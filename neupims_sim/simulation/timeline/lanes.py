"""Lanes: what is drawn as slices, in rows without overlap and with a bounded number of slices.

Times are device cycles.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from neupims_sim.config import Config
from neupims_sim.memory.command_log import command_levels
from neupims_sim.memory.spec import BANK, COMMANDS, GEMV, GWRITE, HEADER, PIM_ACT, PIM_PRE
from neupims_sim.simulation.observations import BACKGROUND_SEARCH, Observations
from neupims_sim.simulation.timeline.commands import GAP_CYCLES, CommandRecorder, Intervals

MAX_SLICES = 2000
"""Slices of one lane. Above, neighbours become one: the gap that is bridged is doubled until they are fewer."""
MAX_ROWS = 16
"""Lanes for slices of one kind that overlap each other. In the last, those that still overlap become one."""
MAX_REQUEST_SLICES = 20_000
"""Slices of all requests. Above, only every second request is shown, or every third, and so on."""

_PIM_COMMANDS = (GWRITE, HEADER, PIM_ACT, GEMV, PIM_PRE)

Key = tuple[str, int]
"""``operator`` or ``phase`` and its number in the observations: what flows lead to."""


class Slice(NamedTuple):
    """Something that took time."""

    start: float
    end: float
    name: str
    args: Mapping[str, Any] = MappingProxyType({})
    key: Key | None = None


class Row(NamedTuple):
    """A lane: slices in order of time that do not overlap."""

    name: str
    slices: Sequence[Slice]


def cut(slices: Iterable[Slice], start: float, end: float) -> list[Slice]:
    """The parts of slices that lie in the window."""
    parts = (part._replace(start=max(part.start, start), end=min(part.end, end)) for part in slices)
    return [part for part in parts if part.start < part.end]


def rows(name: str, slices: Iterable[Slice]) -> list[Row]:
    """Lanes ``name``, ``name (2)``, ... such that no two slices of a lane overlap, within ``MAX_ROWS`` and ``MAX_SLICES``."""
    return [row._replace(slices=_coarsened(list(row.slices))) for row in _apart(name, slices)]


def _apart(name: str, slices: Iterable[Slice]) -> list[Row]:
    found: list[list[Slice]] = [[]]
    for part in sorted(slices, key=lambda part: (part.start, part.end)):
        free = next((row for row in found if not row or row[-1].end <= part.start), None)
        if free is not None:
            free.append(part)
        elif len(found) < MAX_ROWS:
            found.append([part])
        else:
            found[-1][-1] = _joined(found[-1][-1], part)
    return [Row(name if n == 0 else f"{name} ({n + 1})", row) for n, row in enumerate(found)]


def same_name_joined(slices: Iterable[Slice]) -> list[Slice]:
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


def stage_rows(seen: Observations, start: float, end: float) -> list[Row]:
    """The stages of the interleaving."""
    return rows("stage", cut((Slice(begin, stop, name) for name, begin, stop in seen.stages), start, end))


def sub_batch_rows(seen: Observations, sub_batch: int, start: float, end: float) -> list[Row]:
    """Phases of a sub-batch, and its operators but those of single requests."""
    phases = [
        Slice(record.start_cycle, record.end_cycle, record.phase, {"layer": record.layer}, ("phase", number))
        for number, record in enumerate(seen.phases)
        if record.sub_batch == sub_batch
    ]
    operators = [
        Slice(
            record.start_cycle,
            record.end_cycle,
            record.operator,
            {"layer": record.layer, "unit": record.unit},
            ("operator", number),
        )
        for number, record in enumerate(seen.operators)
        if record.sub_batch == sub_batch and record.request is None and record.operator != BACKGROUND_SEARCH
    ]
    return [*rows("phases", cut(phases, start, end)), *rows("operators", cut(operators, start, end))]


def background_rows(seen: Observations, start: float, end: float) -> list[Row]:
    """Searches beside other work."""
    searches = [
        Slice(record.start_cycle, record.end_cycle, record.operator, {"search": record.layer})
        for record in seen.operators
        if record.operator == BACKGROUND_SEARCH
    ]
    return rows("searches", cut(searches, start, end))


def request_rows(seen: Observations, start: float, end: float) -> list[Row]:
    """The steps of attention of each request, or of every k-th so that they are ``MAX_REQUEST_SLICES`` or fewer."""
    requests: defaultdict[int, list[Slice]] = defaultdict(list)
    for number, record in enumerate(seen.operators):
        if record.request is not None and record.end_cycle > start and record.start_cycle < end:
            args = {"layer": record.layer, "sub_batch": record.sub_batch, "unit": record.unit}
            step = Slice(record.start_cycle, record.end_cycle, record.operator, args, ("operator", number))
            requests[record.request].append(step)
    numbers, every = sorted(requests), 1
    while sum(len(requests[number]) for number in numbers[::every]) > MAX_REQUEST_SLICES:
        every += 1
    return [row for n in numbers[::every] for row in rows(f"request {n}", cut(requests[n], start, end))]


def channel_rows(config: Config, recorder: CommandRecorder, start: float, end: float) -> Iterator[Row]:
    """Memory and PIM of every channel, and the single commands below where they are few."""
    ratio = config.clock_ghz / config.memory.organization.clock_ghz
    kinds = [("memory", recorder.memory_intervals(), ("reads", "writes"))]
    if recorder.spec.has_pim:
        kinds.append(("PIM", recorder.pim_intervals(), ("tiles", "gwrites")))
    single = _command_slices(recorder, ratio)
    for channel in range(config.memory.organization.channels):
        for kind, intervals, names in kinds:
            part = _few(intervals.between(start / ratio, end / ratio).of(channel))
            begins = np.maximum(part.start * ratio, start).tolist()
            stops = np.minimum(part.end * ratio, end).tolist()
            busy = [
                Slice(begin, stop, _what(names, counts), dict(zip(names, counts, strict=True)))
                for begin, stop, counts in zip(begins, stops, part.counts.tolist(), strict=True)
            ]
            yield Row(f"channel {channel} {kind}", busy)
            if single is not None:
                yield from _apart(f"channel {channel} {kind} commands", cut(single[channel, kind], start, end))


def _command_slices(recorder: CommandRecorder, ratio: float) -> defaultdict[tuple[int, str], list[Slice]] | None:
    """By channel and kind, every command of the window as long as it takes the command bus."""
    log = recorder.commands()
    if log is None:
        return None
    levels, cycles = command_levels(recorder.spec), recorder.spec.command_cycles
    slices: defaultdict[tuple[int, str], list[Slice]] = defaultdict(list)
    for cycle, channel, command, bank, row, column, tag in log.tolist():
        args = {"bank": bank if levels[command] == BANK else -1, "row": row, "column": column}
        if command == GEMV:
            args["dot-products"] = tag
        args = {name: value for name, value in args.items() if value >= 0}
        kind = "PIM" if command in _PIM_COMMANDS else "memory"
        part = Slice(cycle * ratio, (cycle + cycles[command]) * ratio, COMMANDS[command], args)
        slices[channel, kind].append(part)
    return slices


def _few(part: Intervals) -> Intervals:
    """The intervals of a lane, at most ``MAX_SLICES``."""
    gap = GAP_CYCLES
    while len(part.start) > MAX_SLICES:
        part = part.joined(gap)
        gap *= 2
    return part


def _coarsened(slices: list[Slice]) -> list[Slice]:
    """At most ``MAX_SLICES`` slices."""
    gap = GAP_CYCLES
    while len(slices) > MAX_SLICES:
        fewer = slices[:1]
        for part in slices[1:]:
            if part.start - fewer[-1].end <= gap:
                fewer[-1] = _joined(fewer[-1], part)
            else:
                fewer.append(part)
        slices = fewer
        gap *= 2
    return slices


def _joined(one: Slice, other: Slice) -> Slice:
    """Two slices as one, from the start of the first to the end of the later one."""
    count = sum(int(part.args.get("slices", 1)) for part in (one, other))
    name = one.name if one.name == other.name else "several"
    return Slice(one.start, max(one.end, other.end), name, {"slices": count})


def _what(names: Sequence[str], counts: Sequence[int]) -> str:
    """``"reads"``, ``"reads and writes"``, ``"tile"``, ``"tiles"``."""
    return " and ".join(name if count > 1 else name[:-1] for name, count in zip(names, counts, strict=True) if count)

"""Whether a log of issued commands is legal: a second, slow and obvious implementation of the memory table.

This is the checker of INV-1 (legality) and INV-4 (refresh). It reads the constraint rows of the configuration directly and shares
nothing with the compiled engine or with the resolution of the table but the numbering of the commands, so that a mistake
would have to be made twice to go unnoticed.

Not checked: the data-bus slot of a GEMV's result. The tables charge that slot where the GEMV issues (its distance to reads and
writes is a constraint row like any other), not where the result appears on the bus.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from neupims_sim.config.memory import Constraint, MemoryConfig
from neupims_sim.config.presets import row_tags
from neupims_sim.errors import InputError
from neupims_sim.memory.spec import COMMANDS

MAX_POSTPONED_REFRESHES = 8
"""REF commands that a controller may postpone (JESD235, refresh): the next is at most 9 intervals after the last."""

_ROW_BUS = ("ACT", "PRE", "PREA", "REF", "REFPB", "PIM_ACT", "PIM_PRE")
_MEMORY_COMMANDS = ("ACT", "PRE", "PREA", "RD", "WR", "REF", "REFPB")
_DECLARED = {
    "none": _MEMORY_COMMANDS,
    "single": (*_MEMORY_COMMANDS, "GWRITE", "HEADER", "PIM_ACT", "GEMV"),
    "dual": COMMANDS,
}
"""Commands that a memory with this kind of ``row_buffers`` understands."""


@dataclass(frozen=True)
class Violation:
    """One broken rule."""

    cycle: int
    channel: int
    command: str
    bank: int
    rule: str
    """The constraint row as the table writes it, or a sentence."""
    required_cycle: int | None = None
    """First cycle at which the rule allows the command, where it is a matter of time."""
    detail: str = ""

    def __str__(self) -> str:
        text = f"cycle {self.cycle}, channel {self.channel}: {self.command} bank {self.bank} breaks {self.rule}"
        if self.required_cycle is not None:
            text += f": not before cycle {self.required_cycle}"
        return text + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class RefreshReport:
    """How the ranks were refreshed.

    Attributes
    ----------
    counts: REF commands per (channel, rank).
    longest_postponement_cycles: the longest time from a refresh falling due to its REF command (or to the end of the log).
    """

    violations: list[Violation]
    counts: dict[tuple[int, int], int]
    longest_postponement_cycles: int


def check_commands(
    memory: MemoryConfig,
    log: npt.NDArray[np.int64],
    *,
    preset: str = "physical",
    until: int | None = None,
    limit: int = 100,
) -> list[Violation]:
    """The first ``limit`` violations in a log that starts with the memory idle at cycle 0; an empty list if it is legal.

    Parameters
    ----------
    log: [n, (cycle, channel, command, bank, row, column, tag)], in issue order per channel. command: index into ``COMMANDS``;
        tag: the dot-products of a GEMV.
    preset: which rows tagged ``when`` are active, besides those of the memory's kind of row buffers.
    until: the cycle that the memory has reached; if given, no command may lie beyond it and the refreshes are checked
        too (:func:`check_refresh`).
    """
    channels: dict[int, _Channel] = {}
    found: list[Violation] = []
    for entry in _entries(log):
        if entry.channel not in channels:
            channels[entry.channel] = _Channel(memory, preset)
        found += channels[entry.channel].issue(entry)
        if until is not None and entry.cycle >= until:
            found.append(_violation(entry, f"no command at or after cycle {until}, which the memory has reached"))
        if len(found) >= limit:
            return found[:limit]
    if until is not None:
        found += check_refresh(memory, log, until).violations
    return found[:limit]


def check_refresh(memory: MemoryConfig, log: npt.NDArray[np.int64], until: int) -> RefreshReport:
    """INV-4: per rank, floor(until / interval) +- 1 refresh commands, and no bank refreshed more than 9 tREFI after the last time.

    Refreshes of single banks fall due so often that a PIM macro-command, which is not interrupted, outlasts several; the standard
    allows to postpone them by 8 tREFI. With PIM those of one tREFI may be outstanding.

    ``controller.refresh: all_bank``: a REF per rank every tREFI; ``per_bank``: a REFPB per rank every tREFIpb (tREFI divided by the
    commands that cover a rank, where the table does not state it). Rank r's fall due from (r + 1) / ranks of the interval on.
    With ``off`` no refresh may be issued.
    """
    organization, policy = memory.organization, memory.controller.refresh
    command = {"all_bank": "REF", "per_bank": "REFPB", "off": ""}[policy]
    per_rank, ranks = organization.banks_per_rank, organization.pseudo_channels * organization.ranks
    keys = [(channel, rank) for channel in range(organization.channels) for rank in range(ranks)]
    issued: dict[tuple[int, int], list[_Entry]] = {key: [] for key in keys}
    found: list[Violation] = []
    for entry in _entries(log):
        if entry.command not in ("REF", "REFPB"):
            continue
        if entry.command != command:
            found.append(_violation(entry, f"a memory with refresh: {policy} issues no {entry.command}"))
        elif entry.channel < organization.channels and entry.bank < organization.banks:
            issued[entry.channel, entry.bank // per_rank].append(entry)
    counts = {key: len(entries) for key, entries in issued.items()}
    if policy == "off":
        return RefreshReport(found, counts, 0)

    interval = memory.timing["tREFI"]
    longest_gap = (MAX_POSTPONED_REFRESHES + 1) * interval
    if policy == "per_bank":
        interval = memory.timing.get("tREFIpb", interval * organization.banks_per_refpb // per_rank)
    behind = 1
    if policy == "per_bank" and memory.row_buffers != "none":
        behind += per_rank // organization.banks_per_refpb
    postponement = 0
    for (channel, rank), entries in issued.items():
        first, expected = rank * per_rank, until // interval
        if not expected - behind <= len(entries) <= expected + 1:
            allowed = "+- 1" if behind == 1 else f"- {behind} to + 1"
            rule = f"floor(T / interval) {allowed} refreshes per rank"
            detail = f"rank {rank}: {len(entries)} refreshes in {until} cycles, {expected} expected"
            found.append(Violation(until, channel, command, first, rule, detail=detail))
        for bank in range(first, first + per_rank):
            cycles = [entry.cycle for entry in entries if bank in addressed_banks(memory, entry.command, entry.bank)]
            for before, after in zip([0, *cycles], [*cycles, until], strict=True):
                if after - before > longest_gap:
                    rule = f"a bank refreshed at most {MAX_POSTPONED_REFRESHES + 1} tREFI after the last time"
                    detail = f"rank {rank}: not from cycle {before} to cycle {after}"
                    found.append(Violation(after, channel, command, bank, rule, detail=detail))
        due = (rank + 1) * interval // ranks
        for cycle in [*(entry.cycle for entry in entries), until]:
            postponement = max(postponement, cycle - due)
            due += interval
    return RefreshReport(found, counts, postponement)


def active_constraints(memory: MemoryConfig, preset: str) -> list[Constraint]:
    """The constraint rows whose ``when`` tags all hold (``config.presets.row_tags``)."""
    tags = row_tags(memory, preset)
    return [row for row in memory.constraints if row.holds(tags)]


def latency_cycles(memory: MemoryConfig, expression: str, dots: int = 0) -> int:
    """The value of a latency expression; ``dots``: the dot-products that the GEMV before it was asked for."""
    if not re.fullmatch(r"[\w\s+\-*/(),]*", expression):
        raise InputError(f"memory {memory.name!r}: latency {expression!r} is not an expression of timing parameters")
    names = dict(memory.timing)
    names |= {"burst": memory.organization.burst_cycles, "dots": max(dots, memory.pim.pipeline_dots)}
    return int(eval(expression, {"__builtins__": {}, "max": max, "min": min}, names))


def addressed_banks(memory: MemoryConfig, command: str, bank: int) -> range:
    """The banks of the channel that a command works on."""
    organization = memory.organization
    if command == "REFPB":
        apart = organization.banks_per_rank // organization.banks_per_refpb
        first = bank // organization.banks_per_rank * organization.banks_per_rank
        return range(first + (bank - first) % apart, first + organization.banks_per_rank, apart)
    size = {
        "PIM_ACT": {"bank_group": organization.banks_per_group, "rank": organization.banks_per_rank}[
            memory.pim.activates
        ],
        "REF": organization.banks_per_rank,
        "PREA": organization.banks_per_rank,
        "HEADER": organization.banks,
        "GEMV": organization.banks,
    }.get(command, 1)
    first = bank // size * size
    return range(first, first + size)


class _Entry(NamedTuple):
    cycle: int
    channel: int
    command: str
    bank: int
    row: int
    column: int
    tag: int


def _entries(log: npt.NDArray[np.int64]) -> Iterator[_Entry]:
    for cycle, channel, command, bank, row, column, tag in log.tolist():
        yield _Entry(cycle, channel, COMMANDS[command], bank, row, column, tag)


def _violation(entry: _Entry, rule: str, required_cycle: int | None = None, detail: str = "") -> Violation:
    return Violation(entry.cycle, entry.channel, entry.command, entry.bank, rule, required_cycle, detail)


class _Channel:
    """One channel: every rule looks at each command in turn, then takes note of it."""

    def __init__(self, memory: MemoryConfig, preset: str) -> None:
        self.organization = memory.organization
        rules = [_TimingRule(memory, constraint) for constraint in active_constraints(memory, preset)]
        self.ending = {command: [r for r in rules if command in r.constraint.next] for command in COMMANDS}
        self.starting = {command: [r for r in rules if command in r.constraint.previous] for command in COMMANDS}
        self.command_bus = _CommandBus(memory)
        self.data_bus = _DataBus(memory)
        self.row_buffers = _RowBuffers(memory)
        self.last_cycle = 0

    def issue(self, entry: _Entry) -> Iterator[Violation]:
        """What is wrong with this command, given all before it."""
        if entry.cycle < self.last_cycle:
            yield _violation(entry, "commands of a channel are logged in the order of their cycles", self.last_cycle)
        self.last_cycle = entry.cycle
        if not (0 <= entry.bank < self.organization.banks and 0 <= entry.channel < self.organization.channels):
            yield _violation(entry, "channel and bank lie within the organization")
            return
        for rule in self.ending[entry.command]:
            yield from rule.check(entry)
        for rule in self.starting[entry.command]:
            rule.note(entry)
        yield from self.command_bus.issue(entry)
        yield from self.data_bus.issue(entry)
        yield from self.row_buffers.issue(entry)


class _TimingRule:
    """One constraint row: for every earlier ``previous`` that shares the scope with this ``next``, distance >= latency.

    A distance is between the last cycles of two commands; the log has their first.

    Per instance of the scope (a bank, a bank group, ...) it keeps when the last ``window`` previous commands stop forbidding the next one.
    """

    def __init__(self, memory: MemoryConfig, constraint: Constraint) -> None:
        self.memory, self.constraint = memory, constraint
        self.text = constraint.text
        self.release: dict[int, deque[int]] = defaultdict(lambda: deque(maxlen=constraint.window))
        self.earliest: dict[int, int] = {}
        self.latency: dict[int, int] = {}
        self.touched: dict[tuple[str, int], set[int]] = {}

    def check(self, entry: _Entry) -> Iterator[Violation]:
        required = max(self.earliest.get(instance, 0) for instance in self._touches(entry)) - self._length(entry)
        if entry.cycle < required:
            yield _violation(entry, self.text, required)

    def note(self, entry: _Entry) -> None:
        dots = entry.tag if entry.command == "GEMV" else 0
        if dots not in self.latency:
            self.latency[dots] = latency_cycles(self.memory, self.constraint.latency, dots)
        for instance in self._binds(entry):
            release = self.release[instance]
            release.append(entry.cycle + self._length(entry) + self.latency[dots])
            if len(release) == self.constraint.window:
                self.earliest[instance] = max(self.earliest.get(instance, 0), release[0])

    def _length(self, entry: _Entry) -> int:
        return self.memory.command_cycles.get(entry.command, 1)

    def _binds(self, entry: _Entry) -> set[int]:
        """Instances of the scope in which a previous command binds the next one."""
        touched = self._touches(entry)
        if self.constraint.scope != "other_ranks":
            return touched
        ranks = self.memory.organization.ranks
        return {first + rank for own in touched for first in [own // ranks * ranks] for rank in range(ranks)} - touched

    def _touches(self, entry: _Entry) -> set[int]:
        """Instances of the scope that contain a bank which the command works on."""
        key = entry.command, entry.bank
        if key not in self.touched:
            organization = self.memory.organization
            size = {
                "bank": 1,
                "bank_group": organization.banks_per_group,
                "rank": organization.banks_per_rank,
                "other_ranks": organization.banks_per_rank,
                "pseudo_channel": organization.banks // organization.pseudo_channels,
                "channel": organization.banks,
            }[self.constraint.scope]
            self.touched[key] = {bank // size for bank in addressed_banks(self.memory, *key)}
        return self.touched[key]


class _CommandBus:
    """One command at a time on a command bus, each for as many cycles as the table says."""

    def __init__(self, memory: MemoryConfig) -> None:
        self.separate = memory.controller.separate_command_buses
        self.length = {command: memory.command_cycles.get(command, 1) for command in COMMANDS}
        self.free: dict[str, int] = {}

    def issue(self, entry: _Entry) -> Iterator[Violation]:
        bus = "the command bus"
        if self.separate:
            bus = "the row command bus" if entry.command in _ROW_BUS else "the column command bus"
        if entry.cycle < self.free.get(bus, 0):
            yield _violation(entry, f"one command at a time on {bus}", self.free[bus])
        self.free[bus] = entry.cycle + self.length[entry.command]


class _DataBus:
    """No two bursts of reads and writes overlap on the data bus of a pseudo-channel."""

    def __init__(self, memory: MemoryConfig) -> None:
        self.burst = memory.organization.burst_cycles
        latency = {"RD": memory.timing.get("CL", 0), "WR": memory.timing.get("CWL", 0)}
        self.delay = {name: cycles + memory.command_cycles.get(name, 1) - 1 for name, cycles in latency.items()}
        self.per_pseudo_channel = memory.organization.banks // memory.organization.pseudo_channels
        self.starts: dict[int, list[int]] = defaultdict(list)

    def issue(self, entry: _Entry) -> Iterator[Violation]:
        if entry.command not in self.delay:
            return
        start = entry.cycle + self.delay[entry.command]
        pseudo_channel = entry.bank // self.per_pseudo_channel
        starts = [other for other in self.starts[pseudo_channel] if other + self.burst > entry.cycle]
        overlapping = [other for other in starts if abs(other - start) < self.burst]
        if overlapping:
            required = entry.cycle + max(overlapping) + self.burst - start
            detail = f"its burst starts at cycle {start}, another one at cycle {max(overlapping)}"
            yield _violation(entry, "bursts do not overlap on the data bus", required, detail)
        self.starts[pseudo_channel] = [*starts, start]


class _RowBuffers:
    """Which row is open where, and what each command needs of that.

    ``memory`` and ``pim`` map a bank to its open row. With a single row buffer they are the same mapping.
    """

    def __init__(self, memory: MemoryConfig) -> None:
        self.kind = memory.row_buffers
        self.organization, self.config = memory.organization, memory
        self.memory: dict[int, int] = {}
        self.pim: dict[int, int] = {} if self.kind == "dual" else self.memory
        self.pim_name = "PIM row buffer" if self.kind == "dual" else "row buffer"
        self.header_row: int | None = None
        self.since_header: list[_Entry] = []
        """Reads and writes since the last HEADER or GEMV, where PIM owns the channel (single row buffer)."""

    def issue(self, entry: _Entry) -> Iterator[Violation]:
        if entry.command not in _DECLARED[self.kind]:
            yield _violation(entry, f"a memory with row_buffers: {self.kind} has no {entry.command}")
            return
        banks = addressed_banks(self.config, entry.command, entry.bank)
        if entry.command in ("ACT", "PIM_ACT") and not 0 <= entry.row < self.organization.rows:
            yield _violation(entry, "the row lies within the organization", detail=f"row {entry.row}")
        if entry.command == "ACT":
            yield from self._activate(entry, banks, self.memory, self.pim, "memory row buffer")
        elif entry.command == "PIM_ACT":
            yield from self._activate(entry, banks, self.pim, self.memory, self.pim_name)
        elif entry.command == "PRE":
            yield from self._precharge(entry, self.memory, "memory row buffer")
        elif entry.command == "PIM_PRE":
            yield from self._precharge(entry, self.pim, "PIM row buffer")
        elif entry.command == "PREA":
            for bank in banks:
                self.memory.pop(bank, None)
        elif entry.command in ("REF", "REFPB"):
            still_open = [bank for bank in banks if bank in self.memory or bank in self.pim]
            if still_open:
                rule = f"{entry.command} needs every row buffer of its banks closed"
                yield _violation(entry, rule, detail=f"open: banks {still_open}")
        elif entry.command == "HEADER":
            yield from self._header(entry, banks)
        elif entry.command == "GEMV":
            yield from self._gemv(entry, banks)
        else:
            yield from self._access(entry)

    def _activate(
        self, entry: _Entry, banks: range, buffer: dict[int, int], other: dict[int, int], name: str
    ) -> Iterator[Violation]:
        still_open = [bank for bank in banks if bank in buffer]
        if still_open:
            detail = f"open: {', '.join(f'row {buffer[bank]} of bank {bank}' for bank in still_open)}"
            yield _violation(entry, f"{entry.command} needs the {name} closed", detail=detail)
        shared = [bank for bank in banks if other.get(bank) == entry.row]
        if self.kind == "dual" and shared:
            detail = f"row {entry.row} of banks {shared}"
            yield _violation(entry, "no row may be open in the memory and the PIM row buffer at once", detail=detail)
        for bank in banks:
            buffer[bank] = entry.row

    def _precharge(self, entry: _Entry, buffer: dict[int, int], name: str) -> Iterator[Violation]:
        if entry.bank not in buffer:
            yield _violation(entry, f"{entry.command} needs an open row in the {name}")
        buffer.pop(entry.bank, None)

    def _access(self, entry: _Entry) -> Iterator[Violation]:
        opened = self.memory.get(entry.bank)
        if opened != entry.row:
            detail = f"row {entry.row}; open: {'none' if opened is None else f'row {opened}'}"
            yield _violation(entry, f"{entry.command} needs its row open in the memory row buffer", detail=detail)
        if self.kind == "single" and entry.command != "GWRITE":
            self.since_header.append(entry)

    def _header(self, entry: _Entry, banks: range) -> Iterator[Violation]:
        other = [bank for bank in banks if self.pim.get(bank, entry.row) != entry.row]
        if other:
            rule = f"HEADER needs every {self.pim_name} closed or at its row"
            yield _violation(entry, rule, detail=f"row {entry.row}; other rows are open in banks {other}")
        self.header_row = entry.row
        self.since_header = []

    def _gemv(self, entry: _Entry, banks: range) -> Iterator[Violation]:
        missing = [bank for bank in banks if self.pim.get(bank) != entry.row]
        if missing:
            rule = f"GEMV needs its row open in the {self.pim_name} of every bank"
            yield _violation(entry, rule, detail=f"row {entry.row} is not open in banks {missing}")
        if self.header_row != entry.row:
            yield _violation(entry, "GEMV needs a HEADER that announced its row", detail=f"row {entry.row}")
        for access in self.since_header:
            rule = "with a single row buffer, no RD or WR between a HEADER and its last GEMV"
            yield _violation(access, rule, detail=f"a GEMV follows at cycle {entry.cycle}")
        self.since_header = []

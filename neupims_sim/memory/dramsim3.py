"""DRAMsim3 configuration files (``.ini``) as memory tables.

What a key means, its default and the constraints that follow from it are those of DRAMsim3 (``configuration.cc``, ``timing.cc``,
``command_queue.cc`` and ``controller.cc`` of https://github.com/umd-memsys/DRAMsim3; Li et al., IEEE CAL 2020). The table
states what DRAMsim3 fixes in its code, too, such as the cap of 4 row hits.
"""

from __future__ import annotations

import difflib
import json
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from neupims_sim.config import MemoryConfig
from neupims_sim.config.files import label, parse_yaml
from neupims_sim.config.loader import DEFAULT_PRESET
from neupims_sim.config.memory_checks import memory_violations
from neupims_sim.errors import InputError, joined, shortened, suggestion
from neupims_sim.memory.spec import resolve
from neupims_sim.memory.text import read_lines


@dataclass(frozen=True)
class ImportedTable:
    """A memory table made of a foreign file.

    Attributes
    ----------
    text: the table, YAML with comments.
    notes: what the file does not state, what it states without effect here, and what works differently here; a line each.
    """

    text: str
    notes: tuple[str, ...]


class Protocol(NamedTuple):
    """What DRAMsim3 derives from the name of a standard."""

    transfers_per_clock: int = 2
    column_transfers: int = 1
    """Transfers of a device that one of the file's columns holds; 0: a whole burst."""
    separate_rcd: bool = False
    """tRCDRD and tRCDWR instead of tRCD."""
    dual_command: bool = False
    """Whether a row and a column command may issue in one cycle."""
    precharge_gap: bool = False
    """Whether tPPD applies."""
    wide_window: bool = False
    """Whether at most 32 rows are opened in t32AW."""


_GDDR = Protocol(column_transfers=0, separate_rcd=True, precharge_gap=True, wide_window=True)
_HBM = Protocol(column_transfers=2, separate_rcd=True, dual_command=True)
PROTOCOLS: dict[str, Protocol] = {
    "DDR3": Protocol(),
    "DDR4": Protocol(),
    "LPDDR": Protocol(),
    "LPDDR3": Protocol(),
    "LPDDR4": Protocol(precharge_gap=True),
    "GDDR5": _GDDR._replace(transfers_per_clock=4),
    "GDDR5X": _GDDR._replace(transfers_per_clock=8),
    "GDDR6": _GDDR._replace(transfers_per_clock=16),
    "HBM": _HBM,
    "HBM2": _HBM,
}

_TIMINGS: dict[str, int | None] = {
    "CL": None, "CWL": None, "tRCD": None, "tRCDRD": None, "tRCDWR": None, "tRP": None, "tRAS": None, "tRRD_S": None,
    "tRRD_L": None, "tFAW": None, "t32AW": 330, "tPPD": 0, "tCCD_S": None, "tCCD_L": None, "tRTP": 5, "tWR": None,
    "tWTR_S": None, "tWTR_L": None, "tRTRS": 2, "tRFC": None, "tRFCb": 20, "tREFI": 7800, "tREFIb": 1950,
}  # fmt: skip
"""Timing parameters, cycles, in the order of the table. Without a key DRAMsim3's default holds; None: the default is another
part's figure, so a file must state the key where a constraint needs it."""

_WITHOUT_EFFECT = {
    "dram_structure": ("num_dies", "hbm_dual_cmd"),
    "timing": (*_TIMINGS, "tRPRE", "tWPRE", "tCKE", "tCKESR", "tXS", "tXP", "ideal_memory_latency"),
    "power": ("VDD", "IDD0", "IDD2P", "IDD2N", "IDD3N", "IDD4R", "IDD4W", "IDD5AB", "IDD5PB", "IDD6x"),
    "system": ("enable_self_refresh", "sref_threshold"),
    "other": ("epoch_period", "output_level", "output_prefix"),
    "hmc": ("num_links", "link_width", "link_speed", "block_size", "xbar_queue_depth"),
    "thermal": (
        "const_logic_power", "mat_dim_x", "mat_dim_y", "loc_mapping", "bank_order", "bank_layer_order", "chip_dim_x",
        "chip_dim_y", "amb_temp",
    ),
}  # fmt: skip
"""Keys that DRAMsim3 reads and that may stay unread here: of power-down, self-refresh, output and temperature, which are not
modelled, and timings that no constraint of the standard needs."""

MOST_BYTES = 1 << 20
"""The longest configuration file; those of DRAMsim3 have 2 KB."""

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_REFRESH_POLICIES = ("RANK_LEVEL_STAGGERED", "RANK_LEVEL_SIMULTANEOUS", "BANK_LEVEL_STAGGERED")
_NEAR = 0.75
"""Likeness from which on a name is taken for another one misspelt."""


# --- the file ---


class _Entry(NamedTuple):
    section: str
    key: str
    value: str
    line: int


@dataclass
class _Ini:
    """The keys of a file by section and name, without case; what was asked for and what was not there is remembered."""

    path: Path
    entries: dict[tuple[str, str], _Entry] = field(default_factory=dict)
    sections: dict[str, int] = field(default_factory=dict)
    """Line of the heading."""
    asked: dict[tuple[str, str], str] = field(default_factory=dict)
    """Keys that were asked for, as DRAMsim3 writes them."""
    defaults: list[str] = field(default_factory=list)
    """Figures and policies that DRAMsim3's default states, as ``key = value``."""
    partly: dict[tuple[str, str], str] = field(default_factory=dict)
    """Of numbers that text follows, what is read, as ``key = value: what``."""

    def states(self, section: str, key: str) -> bool:
        """Whether the file has a value for a key (an empty one is none)."""
        return (section, key.lower()) in self.entries and self.entries[section, key.lower()].value != ""

    def text(self, section: str, key: str, default: str | None = None) -> str:
        """The value of a key, or ``default``. Raises InputError without either."""
        new = (section, key.lower()) not in self.asked
        self.asked[section, key.lower()] = key
        if self.states(section, key):
            return self.entries[section, key.lower()].value
        if default is None and (section, key.lower()) in self.entries:
            raise InputError(
                f"{label(self.path)}:{self.entries[section, key.lower()].line}: [{section}] {key} has no value"
            )
        if default is None:
            raise self._missing(section, key)
        if new:
            self.defaults.append(f"{key} = {default}")
        return default

    def _number(self, section: str, key: str, value: str, pattern: str) -> str | None:
        """The number at the beginning of a value, which is what DRAMsim3 reads of it (by strtol and strtod)."""
        found = re.match(pattern, value)
        if found and found[0] != value:
            self.partly[section, key] = f"{key} = {shortened(value)} is read as {found[0]}"
        return found[0] if found else None

    def integer(self, section: str, key: str, default: int | None = None, least: int = 0) -> int:
        """A whole number of at least ``least``: decimal, or as in C hexadecimal after 0x."""
        value = self.text(section, key, None if default is None else str(default))
        digits = self._number(section, key, value, r"0[xX][0-9a-fA-F]{1,15}(?!\w)|(?:0|[1-9][0-9]{0,17})(?![\w.])")
        if digits is None or int(digits, 0) < least:
            raise self.error(section, key, f"an integer of at least {least} (decimal, without leading zeros)")
        return int(digits, 0)

    def power_of_two(self, section: str, key: str, default: int | None = None) -> int:
        """A size that address bits select."""
        value = self.integer(section, key, default, least=1)
        if value & (value - 1):
            raise self.error(section, key, "a power of two, because address bits select it")
        return value

    def real(self, section: str, key: str) -> float:
        """A non-negative number."""
        value = self.text(section, key)
        number = self._number(
            section, key, value, r"(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,2})?(?!\w)"
        )
        if number is None:
            raise self.error(section, key, "a non-negative number")
        return float(number)

    def boolean(self, section: str, key: str, default: bool) -> bool:
        """true, yes, on, 1, or false, no, off, 0."""
        self.asked[section, key.lower()] = key
        if not self.states(section, key):
            return default
        value = self.text(section, key).lower()
        if value not in _BOOLEANS:
            raise self.error(section, key, ", ".join(_BOOLEANS))
        return _BOOLEANS[value]

    def choice(self, section: str, key: str, names: Collection[str], default: str | None = None) -> str:
        """One of ``names``."""
        value = self.text(section, key, default)
        if value not in names:
            raise self.error(section, key, suggestion(value, names).removeprefix("allowed: "))
        return value

    def error(self, section: str, key: str, allowed: str) -> InputError:
        """What is wrong with the value of a key, with its line."""
        if not self.states(section, key):
            return InputError(f"{label(self.path)}: [{section}] {key} is missing; allowed: {allowed}")
        entry = self.entries[section, key.lower()]
        return InputError(
            f"{label(self.path)}:{entry.line}: [{section}] {entry.key} = {shortened(entry.value)}: allowed: {allowed}"
        )

    def _missing(self, section: str, key: str) -> InputError:
        if section not in self.sections:
            return InputError(f"{label(self.path)}: section [{section}] is missing, with {key}")
        given = {entry.key: entry.line for entry in self.entries.values() if entry.section == section}
        near = difflib.get_close_matches(key, given, n=1, cutoff=_NEAR)
        hint = f"; is {near[0]} in line {given[near[0]]} meant?" if near else ""
        return InputError(f"{label(self.path)}:{self.sections[section]}: [{section}] has no {key}{hint}")

    def unread(self) -> Iterator[str]:
        """What the file states and nobody asked for: keys without effect here in one line, unknown keys in another."""
        known = {(section, key.lower()) for section, keys in _WITHOUT_EFFECT.items() for key in keys}
        left = {name: entry for name, entry in self.entries.items() if name not in self.asked}
        if idle := [f"{entry.key} (line {entry.line})" for name, entry in left.items() if name in known]:
            yield "without effect here: " + ", ".join(idle)
        absent = [key for name, key in self.asked.items() if name not in self.entries]
        unknown = []
        for name, entry in left.items():
            if name not in known:
                near = difflib.get_close_matches(entry.key, absent, n=1, cutoff=_NEAR)
                hint = f"; is {near[0]} meant?" if near else ""
                unknown.append(f"{entry.key} = {shortened(entry.value)} (line {entry.line}{hint})")
        if unknown:
            yield "left out, because DRAMsim3 does not know it: " + ", ".join(unknown)


def _read_ini(path: Path) -> _Ini:
    """The sections and keys of a file; ``;`` and ``#`` start comments. Raises InputError with file and line."""
    ini = _Ini(path)
    lines = read_lines(path, MOST_BYTES)
    section = ""
    for number, line in enumerate(lines, 1):
        content = re.split("[;#]", line)[0].strip()
        if not content:
            continue
        where = f"{label(path)}:{number}: {shortened(line.strip())!r}"
        if heading := re.fullmatch(r"\[([^\]]+)\]", content):
            section = heading[1].strip().lower()
            ini.sections.setdefault(section, number)
            continue
        pair = re.fullmatch(r"([^=:\s]+)\s*[=:]\s*(.*)", content)
        if pair is None or not section:
            raise InputError(f"{where} is not a line of an .ini file; allowed: '[section]', then 'key = value'")
        key = pair[1].lower()
        if (section, key) in ini.entries:
            raise InputError(f"{where}: {pair[1]} is stated twice, first in line {ini.entries[section, key].line}")
        ini.entries[section, key] = _Entry(section, pair[1], pair[2], number)
    return ini


# --- the table ---


def import_dramsim3(path: str | Path) -> ImportedTable:
    """The memory table that says what a DRAMsim3 configuration file says.

    Raises InputError, with file and line, for a malformed line, a missing key, a value that is not a number or, where address
    bits select it, not a power of two, and for an unknown protocol or policy.
    """
    ini = _read_ini(Path(path))
    protocol_name = ini.choice("dram_structure", "protocol", PROTOCOLS)
    protocol = PROTOCOLS[protocol_name]
    organization = _Organization.read(ini, protocol)
    sections = [
        organization.lines(ini, protocol),
        *_timing(ini, protocol, organization),
        _controller(ini, protocol),
        _power(ini, organization),
    ]
    notes = [*organization.notes(ini), *_differences(ini, organization)]
    if not sections[-1]:
        notes.append("no energy will be reported: [power] " + _power_problem(ini))
    if ini.defaults:
        notes.append("not in the file, so DRAMsim3's default: " + ", ".join(ini.defaults))
    if ini.partly:
        notes.append("DRAMsim3 reads a number up to the text behind it: " + ", ".join(ini.partly.values()))
    notes += ini.unread()
    heading = [
        f"# {protocol_name} memory, made of the DRAMsim3 configuration {ini.path.name} by `neupims-sim memory import`.",
        *(line for note in notes for line in _comment(note)),
        f"name: {json.dumps(ini.path.stem)}",
        "model: command",
        "row_buffers: none",
        f"source: {json.dumps(f'DRAMsim3 configuration {ini.path.name}')}",
    ]
    text = "\n\n".join("\n".join(lines) for lines in (heading, *sections) if lines) + "\n"
    _check(ini.path, text)
    return ImportedTable(text, tuple(notes))


def _comment(note: str) -> list[str]:
    """A note as lines of a YAML comment."""
    return textwrap.wrap(note, 118, initial_indent="# - ", subsequent_indent="#   ", break_on_hyphens=False)


def _check(path: Path, text: str) -> None:
    """Have the table checked and resolved, so that what its figures do not allow is said now."""
    try:
        memory = MemoryConfig.model_validate(parse_yaml(text, label(path)))
        problems = [message for _, message in memory_violations(memory, DEFAULT_PRESET)]
        if not problems:
            resolve(memory)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors(include_url=False)]
    except ValueError as error:
        problems = [str(error)]
    if problems:
        raise InputError(f"{label(path)}: does not make a memory: {joined(problems)}")


@dataclass(frozen=True)
class _Organization:
    """Sizes: a rank is as many devices as fill the bus, a channel as many ranks as fill its size."""

    ranks: int
    bank_groups: int
    banks_per_group: int
    rows: int
    row_bytes: int
    bus_bits: int
    burst_length: int
    devices_per_rank: int
    rank_bytes: int

    @staticmethod
    def read(ini: _Ini, protocol: Protocol) -> _Organization:
        section = "dram_structure"
        groups = ini.power_of_two(section, "bankgroups")
        per_group = ini.power_of_two(section, "banks_per_group")
        if not ini.boolean(section, "bankgroup_enable", True):
            groups, per_group = 1, groups * per_group
        rows, columns = ini.power_of_two(section, "rows"), ini.power_of_two(section, "columns")
        width, burst_length = ini.power_of_two(section, "device_width"), ini.power_of_two(section, "BL")
        bus_bits = ini.power_of_two("system", "bus_width", 64)
        if bus_bits < width:
            raise ini.error(section, "device_width", f"at most bus_width, {bus_bits} bits")
        row_bytes = columns * (protocol.column_transfers or burst_length) * bus_bits // 8
        rank_bytes = groups * per_group * rows * row_bytes
        ranks = max(1, (ini.integer("system", "channel_size", 1024, least=1) << 20) // rank_bytes)
        if ranks & (ranks - 1):
            raise ini.error("system", "channel_size", f"a power of two times the {rank_bytes >> 20} MB of a rank")
        return _Organization(
            ranks, groups, per_group, rows, row_bytes, bus_bits, burst_length, bus_bits // width, rank_bytes
        )

    def lines(self, ini: _Ini, protocol: Protocol) -> list[str]:
        """The section of the table."""
        period = ini.real("timing", "tCK")
        if period == 0:
            raise ini.error("timing", "tCK", "a time in ns, greater than 0")
        mapping = ini.text("system", "address_mapping", "chrobabgraco")
        if sorted(mapping[at : at + 2] for at in range(0, len(mapping), 2)) != ["ba", "bg", "ch", "co", "ra", "ro"]:
            raise ini.error("system", "address_mapping", "ro, ra, bg, ba, ch, co once each, e.g. rochrababgco")
        devices = f"of {self.devices_per_rank} devices side by side" if self.devices_per_rank > 1 else "of one device"
        return [
            "organization:",
            f"  channels: {ini.power_of_two('system', 'channels', 1)}",
            f"  ranks: {self.ranks}",
            f"  bank_groups: {self.bank_groups}",
            f"  banks_per_group: {self.banks_per_group}",
            f"  rows: {self.rows}",
            f"  row_bytes: {self.row_bytes}   # {devices}",
            f"  bus_bits: {self.bus_bits}",
            f"  burst_length: {self.burst_length}",
            f"  transfers_per_clock: {protocol.transfers_per_clock}",
            f"  clock_ghz: {round(1 / period, 6)}   # tCK {period:g} ns",
            f"  address_mapping: {mapping}",
        ]

    def notes(self, ini: _Ini) -> Iterator[str]:
        """What was made fit."""
        size = ini.integer("system", "channel_size", 1024)
        if size << 20 != self.ranks * self.rank_bytes:
            yield (
                f"channel_size = {size} MB is not what {self.ranks} rank{'s' * (self.ranks > 1)} of {self.rank_bytes >> 20} MB "
                "hold; the latter is taken"
            )


def _timing(ini: _Ini, protocol: Protocol, organization: _Organization) -> tuple[list[str], list[str]]:
    """The sections ``timing`` and ``constraints``: the rows of the standard, and the parameters that they use."""
    additive = ini.integer("timing", "AL") if ini.states("timing", "AL") else 0
    rows = list(_constraints(protocol, organization.bank_groups > 1, additive, _refreshes_per_bank(ini)))
    used = {"CL", "CWL", "tREFI", *re.findall(r"\bt\w+", " ".join(rows))}
    if _refreshes_per_bank(ini):
        used.add("tREFIb")
    timing = {key: ini.integer("timing", key, default) for key, default in _TIMINGS.items() if key in used}
    lines = {key: f"  {key}: {cycles}" for key, cycles in timing.items()}
    if additive:
        for key in ("CL", "CWL"):
            lines[key] = (
                f"  {key}: {additive + timing[key]}   # {key} {timing[key]} after an additive latency of {additive}"
            )
    if "tREFIb" in timing:
        lines["tREFIb"] = (
            f"  tREFIpb: {timing['tREFIb'] * organization.ranks}   # of a rank: tREFIb {timing['tREFIb']} per channel"
        )
    legend = "# [scope, previous, next, latency]: next issues no earlier than latency after previous, within scope."
    return ["timing:", *lines.values()], [legend, "constraints:", *rows]


def _constraints(protocol: Protocol, grouped: bool, additive: int, per_bank_refresh: bool) -> Iterator[str]:
    """Rows as ``configs/memory/hbm2.yaml`` has them. With one bank group only the shorter timings (_S) hold."""
    yield "  # row commands"
    yield "  - [bank, ACT, ACT, tRAS + tRP]"
    yield "  - [bank, ACT, PRE PREA, tRAS]"
    if protocol.separate_rcd:
        yield "  - [bank, ACT, RD, tRCDRD]"
        yield "  - [bank, ACT, WR, tRCDWR]"
    else:
        yield f"  - [bank, ACT, RD WR, tRCD{f' - {additive}' * (additive > 0)}]"
    yield "  - [bank, PRE PREA, ACT, tRP]"
    if grouped:
        yield "  - [bank_group, ACT, ACT, tRRD_L]"
    yield "  - [rank, ACT, ACT, tRRD_S]"
    yield "  - [rank, ACT, ACT, tFAW, {window: 4}]"
    if protocol.wide_window:
        yield "  - [rank, ACT, ACT, t32AW, {window: 32}]"
    if protocol.precharge_gap:
        yield "  - [rank, PRE, PRE, tPPD]"
    yield "  # column commands"
    for command in ("RD", "WR"):
        if grouped:
            yield f'  - [bank_group, {command}, {command}, "max(burst, tCCD_L)"]'
        yield f'  - [rank, {command}, {command}, "max(burst, tCCD_S)"]'
        yield f"  - [other_ranks, {command}, {command}, burst{' + tRTRS' * (command == 'RD')}]"
    for scope in ("rank", "other_ranks"):
        yield f"  - [{scope}, RD, WR, CL + burst + tRTRS - CWL]"
    if grouped:
        yield "  - [bank_group, WR, RD, CWL + burst + tWTR_L]"
    yield "  - [rank, WR, RD, CWL + burst + tWTR_S]"
    yield '  - [other_ranks, WR, RD, "max(0, CWL + burst + tRTRS - CL)"]'
    yield f"  - [bank, RD, PRE PREA, {f'{additive} + ' * (additive > 0)}tRTP]"
    yield "  - [bank, WR, PRE PREA, CWL + burst + tWR]"
    yield "  # refresh"
    if per_bank_refresh:
        yield "  - [bank, PRE PREA, REFPB, tRP]"
        yield "  - [bank, ACT, REFPB, tRAS + tRP]"
        yield "  - [rank, ACT, REFPB, tRRD_S]"
        yield "  - [rank, REFPB, ACT, tRRD_S]"
        yield "  - [bank, REFPB, ACT REF, tRFCb]"
        yield "  - [rank, REFPB, REFPB, tRFCb]"
    yield "  - [rank, PRE PREA, REF, tRP]"
    yield "  - [bank, ACT, REF, tRAS + tRP]"
    yield "  - [rank, REF, ACT REF, tRFC]"


def _refreshes_per_bank(ini: _Ini) -> bool:
    return ini.choice("system", "refresh_policy", _REFRESH_POLICIES, _REFRESH_POLICIES[0]) == "BANK_LEVEL_STAGGERED"


def _controller(ini: _Ini, protocol: Protocol) -> list[str]:
    """The section ``controller``; what DRAMsim3 has no key for stands in its code."""
    queue = ini.choice("system", "queue_structure", ("PER_BANK", "PER_RANK"), "PER_BANK")
    page = ini.choice("system", "row_buf_policy", ("OPEN_PAGE", "CLOSE_PAGE"), "OPEN_PAGE")
    eager = ini.boolean("system", "aggressive_precharging_enabled", False)
    refresh = ini.text("system", "refresh_policy", _REFRESH_POLICIES[0])
    dual = protocol.dual_command and ini.boolean("dram_structure", "hbm_dual_cmd", True)
    transactions = ini.integer("system", "trans_queue_size", 32, least=1)
    settings: Iterable[tuple[str, object, str]] = (
        ("bank_queue_depth", ini.integer("system", "cmd_queue_size", 16, least=1), "cmd_queue_size"),
        ("transaction_queue_depth", transactions, "trans_queue_size"),
        ("row_hit_cap", 4, "as in DRAMsim3"),
        ("write_drain_high", transactions, "DRAMsim3 drains a full write buffer"),
        ("write_drain_low", min(8, transactions), "DRAMsim3 drains more than 8 when nothing else waits"),
        ("posted_writes", "true", "in DRAMsim3 a write is complete when it is accepted"),
        ("scheduling", "fr_fcfs" if queue == "PER_RANK" else "bank_round_robin", f"queue_structure {queue}"),
        ("page_policy", "closed" if eager or page == "CLOSE_PAGE" else "open", f"row_buf_policy {page}"),
        ("refresh", "per_bank" if refresh == "BANK_LEVEL_STAGGERED" else "all_bank", f"refresh_policy {refresh}"),
        ("separate_command_buses", str(dual).lower(), "hbm_dual_cmd" if protocol.dual_command else "HBM only"),
    )
    width = max(len(f"{key}: {value}") for key, value, _ in settings)
    return ["controller:", *(f"  {f'{key}: {value}':{width}}   # {why}" for key, value, why in settings)]


def _differences(ini: _Ini, organization: _Organization) -> Iterator[str]:
    """Where the table cannot say what the file says."""
    stated: Mapping[tuple[str, str], str] = {key: entry.value for key, entry in ini.entries.items()}
    if stated.get(("system", "queue_structure")) == "PER_RANK":
        yield "queue_structure = PER_RANK: here every bank has a queue of cmd_queue_size, not the banks of a rank together"
    if stated.get(("system", "row_buf_policy")) == "CLOSE_PAGE":
        yield "row_buf_policy = CLOSE_PAGE: here a row closes behind the last request that waits for it, not behind each request"
    if stated.get(("system", "refresh_policy")) == "RANK_LEVEL_SIMULTANEOUS" and organization.ranks > 1:
        yield "refresh_policy = RANK_LEVEL_SIMULTANEOUS: here the refreshes of the ranks are spread over tREFI"
    if stated.get(("system", "refresh_policy")) == "BANK_LEVEL_STAGGERED":
        yield (
            "refresh_policy = BANK_LEVEL_STAGGERED: here the refreshed bank waits tRFCb (in DRAMsim3 the other banks wait, tRFC)"
        )
    if ini.boolean("system", "unified_queue", False):
        yield "unified_queue: here writes always have a buffer of their own"


_CURRENTS = ("IDD0", "IDD2N", "IDD3N", "IDD4R", "IDD4W", "IDD5AB")
_PER_BANK = ("IDD5PB",)


def _power_problem(ini: _Ini) -> str:
    """Why the file gives no energies: it has to state all currents (DRAMsim3's defaults are another part's), none below standby."""
    if not all(ini.states("power", key) for key in ("VDD", *_CURRENTS)):
        return "does not state all of VDD, " + ", ".join(_CURRENTS)
    at = {key: ini.real("power", key) for key in ("VDD", *_CURRENTS, *_PER_BANK) if ini.states("power", key)}
    at = {key: value for key, value in at.items() if key not in _PER_BANK or value}
    tras, trp = ini.integer("timing", "tRAS"), ini.integer("timing", "tRP")
    standby = dict.fromkeys(("IDD4R", "IDD4W", "IDD5AB", *_PER_BANK), at["IDD3N"])
    standby |= {"IDD3N": at["IDD2N"], "IDD0": (at["IDD3N"] * tras + at["IDD2N"] * trp) / max(1, tras + trp)}
    low = [f"{key} = {value:g} below {standby[key]:g}" for key, value in at.items() if value < standby.get(key, 0)]
    if low:
        return "has currents below standby: " + ", ".join(low)
    return "" if at["VDD"] > 0 else "has VDD = 0"


def _power(ini: _Ini, organization: _Organization) -> list[str]:
    """The section ``power``; empty if the file gives no energies."""
    if _power_problem(ini):
        return []
    currents = [key for key in (*_CURRENTS, *_PER_BANK) if ini.states("power", key)]
    return [
        "power:",
        f"  vdd_v: {ini.real('power', 'VDD'):g}",
        *(f"  {key.lower()}_ma: {ini.real('power', key):g}" for key in currents),
        f"  devices_per_rank: {organization.devices_per_rank}",
    ]

"""Configuration of a memory: a DRAM standard, with or without PIM, as one declarative table.

The table follows the order of a JEDEC document: organisation, timing parameters, commands, timing constraints.
It is data; ``neupims_sim.memory.spec`` resolves it to integers once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from neupims_sim.config.bounds import Clock, Number, Picojoules, Whole
from neupims_sim.config.expressions import ExpressionError, evaluate
from neupims_sim.errors import shown, suggestion
from neupims_sim.showing import Shown

# Bounds are far beyond any device, and so small that products of them stay exact integers of the machine.
MAX_CYCLES = 1_000_000
"""The longest timing and distance, cycles: a millisecond at 1 GHz."""
MAX_CAPACITY_BYTES = 1 << 50

Count = Annotated[int, Whole(1, 1024)]
"""Parts of one level of the hierarchy, and other small numbers."""
Size = Annotated[int, Whole(1, 1 << 32)]
"""Rows, bytes of a row, bits of a bus."""
Depth = Annotated[int, Whole(1, 1_000_000)]
"""Entries of a queue."""
Cycles = Annotated[int, Whole(0, MAX_CYCLES)]
Name = Annotated[str, Field(max_length=100)]
"""A name that messages repeat."""
COMMANDS = ("ACT", "PRE", "RD", "WR", "REF", "GWRITE", "HEADER", "PIM_ACT", "PIM_PRE", "GEMV", "REFPB", "PREA")
"""The vocabulary of tables: commands by what they do to the row buffers (``docs/architecture.md``)."""

Scope = Literal["bank", "bank_group", "rank", "other_ranks", "pseudo_channel", "channel"]


class _Section(Shown, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Organization(_Section):
    """Sizes of one device. All counts are powers of two because address bits select them."""

    channels: Count
    pseudo_channels: Count = 1
    """Per channel: parts with ranks, banks and a data bus of their own that share the channel's command buses."""
    ranks: Count
    """Per pseudo-channel."""
    bank_groups: Count
    banks_per_group: Count
    rows: Size
    """Rows per bank."""
    row_bytes: Size
    """Row (page) size per bank, bytes."""
    bus_bits: Size
    """Data bus of one pseudo-channel (of the channel, where there is one only), bits."""
    burst_length: Count
    """Transfers per burst."""
    metadata_bytes: Annotated[int, Whole(0, 1024)] = 0
    """Of a burst, beside its data: LPDDR6 moves 4 bytes of metadata or ECC with 32 of data."""
    transfers_per_clock: Count = 2
    """Transfers per cycle of the command clock: 2 for a DDR interface, 4 or 8 where the data clock is faster than that."""
    clock_ghz: Clock = 1.0
    """Command clock."""
    banks_per_refpb: Count = 1
    """Banks that one per-bank refresh (REFPB) refreshes, equally far apart in the rank (DDR5: one in each bank group)."""
    address_mapping: Annotated[str, Field(max_length=32)] = "rorabgbachco"
    """Fields from the most significant bit down: ro, ra, bg, ba, ch, co, and pc where there are pseudo-channels."""

    @model_validator(mode="after")
    def _powers_of_two(self) -> Organization:
        for key in (
            "channels",
            "pseudo_channels",
            "ranks",
            "bank_groups",
            "banks_per_group",
            "rows",
            "row_bytes",
            "burst_bytes",
            "transfers_per_clock",
            "banks_per_refpb",
        ):
            value = getattr(self, key)
            if value < 1 or value & (value - 1):
                raise ValueError(f"organization.{key}={value} must be a power of two: address bits select it")
        if self.capacity_bytes > MAX_CAPACITY_BYTES:
            raise ValueError(
                f"organization.rows={self.rows}: with channels, pseudo_channels, ranks, bank_groups, banks_per_group and row_bytes "
                f"it makes a capacity of {self.capacity_bytes:,} B; allowed: at most {MAX_CAPACITY_BYTES:,} B"
            )
        fields = [self.address_mapping[i : i + 2] for i in range(0, len(self.address_mapping), 2)]
        needed = ["ro", "ra", "bg", "ba", "ch", "co", *(["pc"] if self.pseudo_channels > 1 else [])]
        if len(fields) > len(set(fields)) or not set(needed) <= set(fields) <= {*needed, "pc"}:
            raise ValueError(
                f"organization.address_mapping={self.address_mapping!r} must name each of {', '.join(needed)} once"
            )
        if self.row_bytes < self.burst_bytes:
            raise ValueError(
                f"organization.row_bytes={self.row_bytes} is smaller than one burst of {self.burst_bytes} B"
            )
        if self.banks_per_refpb > self.banks_per_rank:
            raise ValueError(
                f"organization.banks_per_refpb={self.banks_per_refpb} is more than the {self.banks_per_rank} banks of a rank"
            )
        return self

    @property
    def burst_bytes(self) -> int:
        """Bytes of data moved by one read or write command."""
        return self.bus_bits * self.burst_length // 8 - self.metadata_bytes

    @property
    def burst_cycles(self) -> int:
        """Cycles the data bus is taken by one burst."""
        return max(1, self.burst_length // self.transfers_per_clock)

    @property
    def banks_per_rank(self) -> int:
        """Banks of one rank, over its bank groups."""
        return self.bank_groups * self.banks_per_group

    @property
    def banks(self) -> int:
        """Banks of one channel, over all pseudo-channels, ranks and bank groups."""
        return self.pseudo_channels * self.ranks * self.banks_per_rank

    @property
    def channel_bytes(self) -> int:
        """Capacity of one channel, bytes."""
        return self.banks * self.rows * self.row_bytes

    @property
    def capacity_bytes(self) -> int:
        """Capacity of the device, bytes."""
        return self.channels * self.channel_bytes


class Constraint(_Section):
    """One row of the timing table: ``next`` may issue no earlier than ``latency`` after ``previous``, within ``scope``.

    With ``window: n`` the distance is counted from the n-th last ``previous`` (tFAW is window 4).
    ``latency`` is an expression over timing parameters, ``burst`` (cycles of a burst) and ``dots`` (dot-products of the
    previous GEMV, at least ``pim.pipeline_dots``). ``when`` lists tags that must all be active (a preset or one
    that it builds on, ``single`` or ``dual``) or, with ``not`` before them, inactive.
    Written in YAML as ``[scope, previous, next, latency]`` or ``[scope, previous, next, latency, {window: 4, when: [dual]}]``.
    """

    scope: Scope
    previous: Annotated[tuple[Name, ...], Field(max_length=64)]
    next: Annotated[tuple[Name, ...], Field(max_length=64)]
    latency: Annotated[str, Field(max_length=500)]
    window: Count = 1
    when: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    source: str = ""

    def holds(self, active: Collection[str]) -> bool:
        """Whether all of ``when`` is so, with these tags active."""
        return all((tag.removeprefix("not ") in active) != tag.startswith("not ") for tag in self.when)

    @property
    def text(self) -> str:
        """The row as the table writes it."""
        row = [self.scope, " ".join(self.previous), " ".join(self.next), self.latency]
        options = [f"window: {self.window}"] if self.window > 1 else []
        options += [f"when: [{', '.join(self.when)}]"] if self.when else []
        return f"[{', '.join(row)}{', {' + ', '.join(options) + '}' if options else ''}]"

    @model_validator(mode="before")
    @classmethod
    def _from_row(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            if not 4 <= len(value) <= 5 or (len(value) == 5 and not isinstance(value[4], dict)):
                raise ValueError(
                    f"constraint row {value!r} must be [scope, previous, next, latency] or [..., {{options}}]"
                )
            value = dict(zip(("scope", "previous", "next", "latency"), value, strict=False)) | (
                value[4] if len(value) == 5 else {}
            )
        if isinstance(value, dict):
            value = dict(value)
            for key in ("previous", "next", "when"):
                if isinstance(value.get(key), str):
                    value[key] = tuple(value[key].split())
            if isinstance(value.get("latency"), int):
                value["latency"] = str(value["latency"])
        return value


class ControllerConfig(_Section):
    """The memory controller of one channel."""

    bank_queue_depth: Depth = 8
    """Requests waiting per bank."""
    transaction_queue_depth: Depth = 32
    """Requests accepted but not yet in a bank queue: reads; writes have a buffer of the same size."""
    row_hit_cap: Depth = 4
    """Row hits after which a waiting conflict may close the row (FR-FCFS cap)."""
    write_drain_high: Depth = 32
    """Buffered writes that start a drain regardless of reads."""
    write_drain_low: Annotated[int, Whole(0, 1_000_000)] = 8
    """More buffered writes than this are drained when no request waits in a bank queue."""
    max_outstanding_reads: Depth = 4096
    """Reads of one channel accepted but not yet returned: what the requester (DMA) can keep in flight."""
    posted_writes: bool = False
    """Whether a write counts as complete when the controller accepts it, instead of when its burst ends."""
    scheduling: str = "bank_round_robin"
    """Which request goes first: a name in ``memory.policies.SCHEDULING``."""
    page_policy: str = "open"
    """When a row that nobody waits for is closed: a name in ``memory.policies.PAGE_POLICIES``."""
    page_timeout_cycles: Cycles = 200
    """For ``page_policy: timeout``: cycles since a row's last column command after which it is closed."""
    refresh: str = "all_bank"
    """How rows are refreshed: a name in ``memory.policies.REFRESHES``."""
    precharge_all: bool = False
    """Close several rows of a rank with one PREA instead of a PRE per bank, before a refresh or a PIM tile."""
    pim_priority: str = "pim_first"
    """Who goes first where both want to: a name in ``memory.policies.PIM_PRIORITIES``."""
    pim_max_wait_cycles: Cycles = 1000
    """For ``pim_priority: bounded_wait``: cycles that a PIM macro-command waits for requests at most."""
    separate_command_buses: bool = True
    """Row (ACT, PRE, REF) and column (RD, WR) commands on buses of their own, as HBM has them."""


class PimConfig(_Section):
    """Processing in memory: units beside the banks that read an open PIM row."""

    multipliers_per_bank: Count = 16
    activates: Literal["bank_group", "rank"] = "bank_group"
    """The banks in which one PIM_ACT opens a row."""
    pipeline_dots: Annotated[int, Whole(0, 1024)] = 6
    """A result is ready no sooner than this many dot-product slots after the first."""
    result_latency: str = "tDOT * dots + CL + burst"
    """From the issue of a GEMV to the arrival of its result, cycles (an expression like a constraint's)."""
    deadline_estimate: Literal["exact", "asplos24"] = "exact"
    """How the controller bounds a GEMV before a refresh: its real length, or the estimate of the published artifact."""
    device_serial_issue: bool = False
    """Assumption of the published NPU+PIM baseline: one PIM command per cycle for the whole device, channel after channel."""


Milliamperes = Annotated[float, Number(0, 1e6)]


class PowerConfig(_Section):
    """Supply voltage and currents of one DRAM device, as its data sheet gives them, and the energy of PIM events."""

    vdd_v: Annotated[float, Number(0, 100), Field(gt=0)]
    """Supply voltage, V."""
    idd0_ma: Milliamperes
    """One bank activated and precharged every tRAS + tRP, mA (as all IDD)."""
    idd2n_ma: Milliamperes
    """Standby, all rows closed."""
    idd3n_ma: Milliamperes
    """Standby, a row open."""
    idd4r_ma: Milliamperes
    """Reading without gaps."""
    idd4w_ma: Milliamperes
    """Writing without gaps."""
    idd5ab_ma: Milliamperes
    """During tRFC after an all-bank refresh."""
    idd5pb_ma: Milliamperes = 0.0
    """During tRFCpb after a per-bank refresh; 0: the energy of an all-bank refresh divided by its REFPB commands."""
    devices_per_rank: Count = 1
    """Devices (chips) that make up a rank's data bus."""
    pim_idd2n_ma: Milliamperes = 0.0
    """What the PIM row buffers of a dual-row-buffer device add to standby, all of them closed."""
    pim_idd3n_ma: Milliamperes = 0.0
    """The same with a PIM row open."""
    pim_activate_pj_per_row: Picojoules = 0.0
    """Opening one PIM row; a PIM_ACT opens one in each of its banks."""
    dot_product_pj_per_byte: Picojoules = 0.0
    """Reading a byte of an open PIM row and multiplying it (assumption: formats differ by their bytes)."""
    gwrite_pj_per_byte: Picojoules = 0.0
    """Copying a byte of a row into the global vector buffer; a GWRITE copies a row."""
    result_read_pj_per_bank: Picojoules = 0.0
    """Reading one result; a GEMV has one per bank."""
    source: str = ""


class MemoryConfig(_Section):
    """One memory system."""

    name: Name
    model: Annotated[str, Field(max_length=300)] = "command"
    """Registered memory model: ``command`` (command level), ``ideal``, an entry point, or ``package.module:Class``."""
    row_buffers: Literal["none", "single", "dual"] = "none"
    """none: plain DRAM; single: PIM shares the row buffer and owns the channel while it works; dual: a PIM row buffer of its own."""
    organization: Organization
    timing: Annotated[dict[Name, Cycles], Field(max_length=256)] = {}
    """Timing parameters, cycles of the command clock. Written as cycles, as a time (``14 ns``: rounded up to cycles), or as an
    expression over other parameters and ``burst`` (``tRC: tRAS + tRP``)."""
    constraints: Annotated[tuple[Constraint, ...], Field(max_length=1000)] = ()
    command_cycles: dict[str, Count] = {}
    """Cycles that a command takes on its command bus, where that is not 1. Distances and latencies count from the last of them."""
    controller: ControllerConfig = ControllerConfig()
    pim: PimConfig = PimConfig()
    power: PowerConfig | None = None
    """Currents and energies; without them no energy is reported."""
    speed: Name = ""
    """The speed grade: a name in ``speeds``."""
    speeds: dict[str, dict[str, Any]] = {}
    """Per speed grade: values of ``organization``, ``timing``, ``command_cycles`` and ``power``; they apply after the file that
    states them and before files that build on it."""
    presets: dict[str, dict[str, Any]] = {}
    """Per preset: values of ``organization``, ``timing``, ``controller``, ``pim`` and ``power`` that it assumes; they apply
    after the table and before explicit settings."""
    ideal_latency_cycles: Cycles = 50
    """Latency of the ``ideal`` model."""
    source: str = ""
    """Where the figures come from."""

    @model_validator(mode="before")
    @classmethod
    def _timings_in_cycles(cls, tree: Any) -> Any:
        """Timings that are written as times or expressions, in cycles; what is wrong otherwise is for the fields to say."""
        if not isinstance(tree, dict) or not isinstance(tree.get("timing"), dict):
            return tree
        written = tree["timing"]
        if not any(isinstance(value, str) for value in written.values()) or len(written) > 256:
            return tree
        organization = tree.get("organization")
        try:
            sizes = (
                organization if isinstance(organization, Organization) else Organization.model_validate(organization)
            )
        except ValueError:  # what is wrong there is for that field to say; without a clock there are no cycles
            return tree | {"timing": {name: value for name, value in written.items() if not isinstance(value, str)}}
        known: dict[str, Any] = {}
        return tree | {"timing": {name: _cycles(name, written, sizes, (), known) for name in written}}


class TimingError(ValueError):
    """A timing parameter that has no value in cycles."""

    def __init__(self, name: str, value: Any, problem: str) -> None:
        super().__init__(f"={shown(value)}: {problem}")
        self.keys = ("timing", name)


_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ns|us)")


_MOST_IN_A_ROW = 32
"""Of parameters, each of which refers to the next."""


def _cycles(
    name: str, written: Mapping[str, Any], organization: Organization, using: tuple[str, ...], known: dict[str, Any]
) -> Any:
    """One timing parameter in cycles; ``using``: the parameters whose expressions led to it; ``known``: those that have been computed."""
    if name == "burst":
        return organization.burst_cycles
    if name in known:
        return known[name]
    if name not in written:
        raise TimingError(using[-1], written[using[-1]], f"unknown timing {name!r}; {suggestion(name, written)}")
    if name in using:
        circle = " -> ".join((*using[using.index(name) :], name))
        raise TimingError(name, written[name], f"goes in a circle: {circle}")
    if len(using) > _MOST_IN_A_ROW:
        raise TimingError(using[0], written[using[0]], f"leads through more than {_MOST_IN_A_ROW} other parameters")
    known[name] = found = _computed(name, written, organization, using, known)
    return found


def _computed(
    name: str, written: Mapping[str, Any], organization: Organization, using: tuple[str, ...], known: dict[str, Any]
) -> Any:
    value = written[name]
    if not isinstance(value, str):
        return value
    if time := _TIME.fullmatch(value.strip()):
        cycles = float(time[1]) * (1000 if time[2] == "us" else 1) * organization.clock_ghz
        if cycles > MAX_CYCLES:
            raise TimingError(name, value, f"more than {MAX_CYCLES} cycles of {organization.clock_ghz:g} GHz")
        return math.ceil(cycles - 1e-6)
    try:
        return evaluate(value, lambda other: _cycles(other, written, organization, (*using, name), known))
    except ExpressionError as error:
        raise TimingError(name, value, str(error)) from None

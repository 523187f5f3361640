"""Configuration of a memory: a DRAM standard, with or without PIM, as one declarative table.

The table follows the order of a JEDEC document: organisation, timing parameters, commands, timing constraints.
It is data; ``neupims_sim.memory.spec`` resolves it to integers once.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Scope = Literal["bank", "bank_group", "rank", "other_ranks", "channel"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Organization(_Section):
    """Sizes of one device. All counts are powers of two because address bits select them."""

    channels: PositiveInt
    ranks: PositiveInt
    bank_groups: PositiveInt
    banks_per_group: PositiveInt
    rows: PositiveInt
    """Rows per bank."""
    row_bytes: PositiveInt
    """Row (page) size per bank, bytes."""
    bus_bits: PositiveInt
    """Data bus of one channel, bits."""
    burst_length: PositiveInt
    """Transfers per burst; two per clock cycle."""
    clock_ghz: Annotated[float, Field(gt=0)] = 1.0
    """Command clock."""
    address_mapping: str = "rorabgbachco"
    """Fields from the most significant bit down: ro, ra, bg, ba, ch, co."""

    @model_validator(mode="after")
    def _powers_of_two(self) -> Organization:
        for key in (
            "channels",
            "ranks",
            "bank_groups",
            "banks_per_group",
            "rows",
            "row_bytes",
            "bus_bits",
            "burst_length",
        ):
            value = getattr(self, key)
            if value & (value - 1):
                raise ValueError(f"organization.{key}={value} must be a power of two: address bits select it")
        fields = [self.address_mapping[i : i + 2] for i in range(0, len(self.address_mapping), 2)]
        if sorted(fields) != ["ba", "bg", "ch", "co", "ra", "ro"]:
            raise ValueError(
                f"organization.address_mapping={self.address_mapping!r} must name each of ro, ra, bg, ba, ch, co once"
            )
        if self.row_bytes < self.burst_bytes:
            raise ValueError(
                f"organization.row_bytes={self.row_bytes} is smaller than one burst of {self.burst_bytes} B"
            )
        return self

    @property
    def burst_bytes(self) -> int:
        """Bytes moved by one read or write command."""
        return self.bus_bits * self.burst_length // 8

    @property
    def burst_cycles(self) -> int:
        """Cycles the data bus is taken by one burst (two transfers per cycle)."""
        return max(1, self.burst_length // 2)

    @property
    def banks(self) -> int:
        """Banks of one channel, over all ranks and bank groups."""
        return self.ranks * self.bank_groups * self.banks_per_group

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
    previous GEMV, at least ``pim.pipeline_dots``). ``when`` lists tags that must all be active (a preset name, ``single`` or ``dual``).
    Written in YAML as ``[scope, previous, next, latency]`` or ``[scope, previous, next, latency, {window: 4, when: [dual]}]``.
    """

    scope: Scope
    previous: tuple[str, ...]
    next: tuple[str, ...]
    latency: str
    window: PositiveInt = 1
    when: tuple[str, ...] = ()
    source: str = ""

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

    bank_queue_depth: PositiveInt = 8
    """Requests waiting per bank."""
    transaction_queue_depth: PositiveInt = 32
    """Requests accepted but not yet in a bank queue: reads; writes have a buffer of the same size."""
    row_hit_cap: PositiveInt = 4
    """Row hits after which a waiting conflict may close the row (FR-FCFS cap)."""
    write_drain_high: PositiveInt = 32
    """Buffered writes that start a drain regardless of reads."""
    write_drain_low: NonNegativeInt = 8
    """More buffered writes than this are drained when no request waits in a bank queue."""
    max_outstanding_reads: PositiveInt = 4096
    """Reads of one channel accepted but not yet returned: what the requester (DMA) can keep in flight."""
    posted_writes: bool = False
    """Whether a write counts as complete when the controller accepts it, instead of when its burst ends."""
    refresh: Literal["rank_staggered", "off"] = "rank_staggered"
    pim_reserves_slots: bool = True
    """While a PIM command waits, memory commands that would push it further back are held (PIM goes first even when
    it is not ready yet); otherwise PIM only wins when both are ready in the same cycle, and write bursts can starve it."""
    separate_command_buses: bool = True
    """Row (ACT, PRE, REF) and column (RD, WR) commands on buses of their own, as HBM has them."""


class PimConfig(_Section):
    """Processing in memory: units beside the banks that read an open PIM row."""

    multipliers_per_bank: PositiveInt = 16
    pipeline_dots: NonNegativeInt = 6
    """A result is ready no sooner than this many dot-product slots after the first."""
    result_latency: str = "tDOT * dots + CL + burst"
    """From the issue of a GEMV to the arrival of its result, cycles (an expression like a constraint's)."""
    deadline_estimate: Literal["exact", "asplos24"] = "exact"
    """How the controller bounds a GEMV before a refresh: its real length, or the estimate of the published artifact."""
    device_serial_issue: bool = False
    """Assumption of the published NPU+PIM baseline: one PIM command per cycle for the whole device, channel after channel."""


class MemoryConfig(_Section):
    """One memory system."""

    name: str
    model: str = "command"
    """Registered memory model: ``command`` (command level), ``ideal``, an entry point, or ``package.module:Class``."""
    row_buffers: Literal["none", "single", "dual"] = "none"
    """none: plain DRAM; single: PIM shares the row buffer and owns the channel while it works; dual: a PIM row buffer of its own."""
    organization: Organization
    timing: dict[str, NonNegativeInt] = {}
    """Timing parameters, cycles of the command clock."""
    constraints: tuple[Constraint, ...] = ()
    controller: ControllerConfig = ControllerConfig()
    pim: PimConfig = PimConfig()
    presets: dict[str, dict[str, Any]] = {}
    """Per preset: values of ``organization``, ``timing``, ``controller`` and ``pim`` that it assumes; they apply after
    the table and before explicit settings."""
    ideal_latency_cycles: NonNegativeInt = 50
    """Latency of the ``ideal`` model."""
    source: str = ""
    """Where the figures come from."""

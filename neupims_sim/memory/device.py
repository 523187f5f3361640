"""A device's memory at command level: Python's handle on the compiled engine.

Transfers and PIM programs go in as items; :meth:`CommandDevice.advance` runs all channels to a cycle or to the first completion.
There is no clock process here: :mod:`neupims_sim.memory.models` connects this to SimPy, ``memory replay`` drives it directly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from neupims_sim.errors import InputError
from neupims_sim.memory import engine as en
from neupims_sim.memory.address import AddressMap
from neupims_sim.memory.engine import READ, WRITE
from neupims_sim.memory.program import PimProgram
from neupims_sim.memory.spec import BANK, BANK_GROUP, CHANNEL, COMMANDS, OTHER_RANKS, RANK, ResolvedSpec

Int64Array = npt.NDArray[np.int64]

LOG_FIELDS = ("cycle", "channel", "command", "bank", "row", "tag")
"""Columns of a command log. tag: the item of a RD or WR, the dot-products of a GEMV, else -1."""


@dataclass
class Counters:
    """What one memory has done so far, summed over channels."""

    commands: dict[str, int]
    reads: int
    writes: int
    read_latency_sum: int
    """Cycles from acceptance to return, summed over reads."""
    dot_products: int
    """Dot-product slots executed (each in every bank)."""
    result_reads: int
    tiles: int
    pim_busy_cycles: int
    """Cycles with work in the PIM queue, summed over channels."""
    last_memory_cycle: int
    last_pim_cycle: int
    per_channel_commands: Int64Array = field(repr=False)
    """[channels, commands]"""


def build_table(spec: ResolvedSpec) -> Any:
    """The record (an array of one ``engine.TABLE``) that the engine reads."""
    organization, controller, pim = spec.config.organization, spec.config.controller, spec.config.pim
    banks, ranks = organization.banks, organization.ranks
    per_group, per_rank = organization.banks_per_group, organization.bank_groups * organization.banks_per_group
    bank = np.arange(banks)
    node = np.zeros((banks, 4), dtype=np.int64)
    node[:, RANK] = 1 + bank // per_rank
    node[:, BANK_GROUP] = 1 + ranks + bank // per_group
    node[:, BANK] = 1 + ranks + ranks * organization.bank_groups + bank
    ordered = sorted(spec.rows, key=lambda row: row.previous)
    rows = np.zeros((max(1, len(ordered)), 6), dtype=np.int64)
    begin = np.zeros(len(COMMANDS) + 1, dtype=np.int64)
    windows = 0
    same = np.zeros((len(COMMANDS), len(COMMANDS)), dtype=np.int64)
    other = np.zeros_like(same)
    for index, row in enumerate(ordered):
        rows[index] = (row.next, row.level, row.base, row.per_dot, row.window, windows if row.window > 1 else 0)
        windows += row.window > 1
        begin[row.previous + 1 :] = index + 1
        if row.window == 1:
            if row.level != OTHER_RANKS:
                same[row.previous, row.next] = max(same[row.previous, row.next], row.base)
            if row.level in (CHANNEL, OTHER_RANKS):
                other[row.previous, row.next] = max(other[row.previous, row.next], row.base)
    address = AddressMap.of(organization)
    table = np.zeros(1, dtype=en.TABLE)
    table["rows"][0, : len(rows)] = rows
    table["row_begin"] = begin
    table["node"][0, :banks] = node
    table["command_bus"] = spec.command_bus
    table["delay_same"], table["delay_other"] = same, other
    scalars = {
        "channels": organization.channels,
        "ranks": ranks,
        "banks": banks,
        "banks_per_rank": per_rank,
        "banks_per_group": per_group,
        "bank_groups": organization.bank_groups,
        "burst_cycles": spec.burst_cycles,
        "read_latency": spec.read_latency,
        "write_latency": spec.write_latency,
        "gwrite_latency": spec.gwrite_latency,
        "result_base": spec.result_latency[0],
        "result_per_dot": spec.result_latency[1],
        "refresh_interval": spec.refresh_interval,
        "queue_depth": controller.bank_queue_depth,
        "transaction_depth": controller.transaction_queue_depth,
        "outstanding_reads": controller.max_outstanding_reads,
        "hit_cap": controller.row_hit_cap,
        "drain_high": min(controller.write_drain_high, controller.transaction_queue_depth),
        "drain_low": controller.write_drain_low,
        "posted_writes": controller.posted_writes,
        "dual": spec.dual,
        "pim_reserves": controller.pim_reserves_slots,
        "pipeline_dots": pim.pipeline_dots,
        "coarse_estimate": pim.deadline_estimate == "asplos24",
    }
    for field, short in (("row", "ro"), ("rank", "ra"), ("group", "bg"), ("bank", "ba")):
        scalars[f"{field}_shift"], scalars[f"{field}_bits"] = address.shift[short], address.bits[short]
    for name, value in scalars.items():
        table[name] = value
    return table


def build_channels(table: Any) -> Any:
    """All-idle channels: every row closed, the first refresh of rank r due at (r + 1) / ranks of the interval."""
    count, ranks = int(table["channels"][0]), int(table["ranks"][0])
    channels = np.zeros(count, dtype=en.CHANNEL)
    channels["index"] = np.arange(count)
    channels["last_admit"] = channels["last_move"] = -1
    channels["pim_busy_since"] = en.NEVER
    channels["history"] = -en.NEVER // 2
    channels["open_row"] = channels["candidate"] = -1
    channels["next_refresh"][:, :ranks] = (np.arange(ranks) + 1) * int(table["refresh_interval"][0]) // ranks
    return channels


class CommandDevice:
    """All channels of one device, advanced command by command.

    Parameters
    ----------
    spec: the resolved memory table.
    log: whether to keep every issued command (:meth:`take_log`).
    """

    def __init__(self, spec: ResolvedSpec, *, log: bool = False) -> None:
        self.spec = spec
        self.table = build_table(spec)
        self.channels = build_channels(self.table)
        self._device = np.zeros(1, dtype=en.DEVICE)
        self._device["next_done"] = en.NEVER
        self._device["log_on"] = log
        self._operations = np.zeros((1024, 5), dtype=np.int64)
        self._trace = np.zeros((0, 4), dtype=np.int64)
        self.address = AddressMap.of(spec.config.organization)
        self._channel_count = spec.config.organization.channels
        self._free = list(range(en.MAX_ITEMS - 1, -1, -1))
        self._operation_count = 0
        self._programs_running = 0
        self._log_parts: list[Int64Array] = []

    @property
    def time(self) -> int:
        """The cycle that all channels have reached."""
        return int(self._device["time"][0])

    def submit_transfer(self, kind: int, address: int, size_bytes: int) -> int:
        """Start reading (READ) or writing (WRITE) a byte range now; returns its item.

        Raises InputError if the range lies beyond the capacity (INV-9).
        """
        capacity = self.spec.config.organization.capacity_bytes
        if size_bytes <= 0 or address < 0 or address + size_bytes > capacity:
            raise InputError(
                f"memory {self.spec.config.name!r}: transfer of {size_bytes} B at address {address:#x} does not fit; "
                f"allowed: 1 B or more within {capacity} B"
            )
        burst = self.address.burst_bytes
        begin = self.address.local_begin(address // burst, self._channel_count)
        end = self.address.local_begin(-(-(address + size_bytes) // burst), self._channel_count)
        touched = np.flatnonzero(end > begin)
        item = self._new_item(kind, touched)
        self.channels["left"][:, item] = end - begin
        self._enqueue(item, kind, touched, begin[touched], end[touched])
        return item

    def submit_channel_transfer(self, kind: int, channel: int, address: int, size_bytes: int) -> int:
        """Like :meth:`submit_transfer`, for consecutive bytes of one channel; ``address`` counts that channel's own bytes."""
        organization = self.spec.config.organization
        if not 0 <= channel < organization.channels or size_bytes <= 0 or address < 0:
            raise InputError(f"transfer of {size_bytes} B at {address:#x} of channel {channel} does not exist")
        if address + size_bytes > organization.channel_bytes:
            raise InputError(
                f"memory {self.spec.config.name!r}: {size_bytes} B at {address:#x} lie beyond the channel's "
                f"{organization.channel_bytes} B"
            )
        burst = self.address.burst_bytes
        begin, end = address // burst, -(-(address + size_bytes) // burst)
        touched = np.array([channel])
        item = self._new_item(kind, touched)
        self.channels["left"][channel, item] = end - begin
        self._enqueue(item, kind, touched, np.array([begin]), np.array([end]))
        return item

    def submit_programs(
        self, programs: Mapping[int, PimProgram], release: Mapping[int, Int64Array] | None = None
    ) -> int:
        """Start one PIM program per given channel; the returned item completes when the last of them does.

        ``release``: per channel, the cycle before which each operation may not start (default: now).
        """
        if not self.spec.has_pim:
            raise InputError(f"memory {self.spec.config.name!r} has no PIM; allowed: row_buffers single or dual")
        rows = self.spec.config.organization.rows
        for channel, program in programs.items():
            if not 0 <= channel < self._channel_count:
                raise InputError(f"PIM program for channel {channel}; allowed: 0 to {self._channel_count - 1}")
            if len(program) == 0:
                raise InputError(f"the PIM program for channel {channel} is empty; it needs at least one operation")
            if not 0 <= program.operations[:, 1].min() <= program.operations[:, 1].max() < rows:
                raise InputError(f"PIM program touches row {program.operations[:, 1].max()}; allowed: 0 to {rows - 1}")
        if self._programs_running == 0:
            self._operation_count = 0
        self._programs_running += 1
        begin = []
        for channel, program in programs.items():
            first = self._operation_count
            operations = self._room_for_operations(first + len(program))
            operations[first : first + len(program), :4] = program.operations
            operations[first : first + len(program), 4] = release[channel] if release is not None else 0
            self._operation_count += len(program)
            begin.append(first)
        touched = np.array(list(programs), dtype=np.int64)
        first_operation = np.array(begin, dtype=np.int64)
        end = np.append(first_operation[1:], self._operation_count)
        item = self._new_item(en.PROGRAM, touched)
        busy = self.channels["pim_busy_since"]
        busy[touched] = np.minimum(busy[touched], self.time)
        self._enqueue(item, en.PROGRAM, touched, first_operation, end)
        return item

    def load_trace(self, local: Int64Array, kind: Int64Array, cycle: Int64Array, channel: Int64Array) -> int:
        """Replay single-burst requests: per channel in order, one per cycle from its stamp on, accepted when there is room."""
        count = np.bincount(channel, minlength=self._channel_count)
        item = self._new_item(READ, np.flatnonzero(count))
        order = np.argsort(channel, kind="stable")
        trace = np.stack([local, kind, cycle, np.full_like(local, item)], axis=1)[order]
        end = np.cumsum(count)
        self._trace = np.ascontiguousarray(trace)
        channels = self.channels
        channels["trace_end"], channels["trace_next"], channels["next"] = end, end - count, self.time
        channels["left"][:, item] = count
        self._device["active_writes"] += int((kind == WRITE).any())
        return item

    def advance(self, limit: int) -> tuple[int, list[int]]:
        """Run to ``limit`` or the first completion: (cycle reached, items complete at that cycle)."""
        device = self._device[0]
        time = self._run(limit)
        while device["log_on"] and device["log_count"] >= en.MAX_LOG - 4:
            self._drain_log()
            time = self._run(limit)
        if time < device["next_done"]:
            return time, []
        taken = int(en.take_done(self._device, time))
        done = [int(item) for item in device["done"][:taken]]
        rest = int(device["n_done"]) - taken
        device["done"][:rest] = device["done"][taken : taken + rest].copy()
        device["n_done"] = rest
        for item in done:
            self._programs_running -= int(device["kind"][item] == en.PROGRAM)
            self._free.append(item)
        return time, done

    def _run(self, limit: int) -> int:
        return int(en.advance(self.table, self.channels, self._device, self._operations, self._trace, limit))

    def take_log(self) -> Int64Array:
        """All commands issued since the last call, [entries, LOG_FIELDS], in issue order per channel."""
        self._drain_log()
        parts, self._log_parts = self._log_parts, []
        return np.concatenate(parts) if parts else np.zeros((0, len(LOG_FIELDS)), dtype=np.int64)

    def counters(self) -> Counters:
        """Totals since construction."""
        channels = self.channels
        since = channels["pim_busy_since"]
        busy = channels["st_pim_busy"].sum() + np.maximum(0, self.time - since[since < en.NEVER]).sum()
        counts = channels["counts"].sum(axis=0)
        return Counters(
            commands={name: int(count) for name, count in zip(COMMANDS, counts, strict=True)},
            reads=int(counts[COMMANDS.index("RD")]),
            writes=int(counts[COMMANDS.index("WR")]),
            read_latency_sum=int(channels["st_return_sum"].sum() - channels["st_accept_sum"].sum()),
            dot_products=int(channels["st_dots"].sum()),
            result_reads=int(channels["st_results"].sum()),
            tiles=int(channels["st_tiles"].sum()),
            pim_busy_cycles=int(busy),
            last_memory_cycle=int(channels["st_last_memory"].max()),
            last_pim_cycle=int(channels["st_last_pim"].max()),
            per_channel_commands=channels["counts"].copy(),
        )

    def _new_item(self, kind: int, touched: Int64Array) -> int:
        if not self._free:
            raise RuntimeError(f"more than {en.MAX_ITEMS} transfers and PIM programs are under way at once")
        item = self._free.pop()
        device = self._device[0]
        device["kind"][item], device["parts"][item], device["finish"][item] = kind, len(touched), 0
        device["active_writes"] += int(kind == WRITE)
        return item

    def _room_for_operations(self, needed: int) -> Int64Array:
        if needed > len(self._operations):
            grown = np.zeros((max(needed, 2 * len(self._operations)), 5), dtype=np.int64)
            grown[: len(self._operations)] = self._operations
            self._operations = grown
        return self._operations

    def _enqueue(self, item: int, kind: int, channels: Int64Array, begin: Int64Array, end: Int64Array) -> None:
        """Append an item's parts to the sources of the channels that it touches."""
        records = self.channels
        tail = records["source_tail"][channels, kind]
        source = records["source"]
        source[channels, kind, tail % en.MAX_ITEMS, 0] = item
        source[channels, kind, tail % en.MAX_ITEMS, 1] = begin
        source[channels, kind, tail % en.MAX_ITEMS, 2] = end
        records["source_tail"][channels, kind] = tail + 1
        records["next"][channels] = np.minimum(records["next"][channels], self.time)

    def _drain_log(self) -> None:
        device = self._device[0]
        if device["log_count"]:
            self._log_parts.append(device["log"][: device["log_count"]].copy())
        device["log_count"] = 0


def serialized_releases(programs: Iterable[tuple[int, PimProgram]], start: int) -> dict[int, Int64Array]:
    """Release cycles when one PIM command per cycle leaves the NPU for the whole device, channel after channel.

    Every GWRITE, HEADER, dot-product and result read counts as one command (assumption of the published NPU+PIM baseline).
    """
    releases, issued = {}, start
    for channel, program in programs:
        operations = program.operations.astype(np.int64)
        commands = 1 + operations[:, 2] * (operations[:, 3] + 1)
        ends = issued + np.cumsum(commands)
        releases[channel] = ends - commands
        issued = int(ends[-1]) if len(ends) else issued
    return releases

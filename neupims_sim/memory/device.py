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
from neupims_sim.memory.engine import READ
from neupims_sim.memory.program import FP16_BYTES, TILE, PimProgram, check_program
from neupims_sim.memory.spec import (
    ACT,
    BANK,
    BANK_GROUP,
    CHANNEL,
    COMMANDS,
    GEMV,
    GWRITE,
    HEADER,
    OTHER_RANKS,
    PIM_ACT,
    PIM_PRE,
    PRE,
    PREA,
    PSEUDO_CHANNEL,
    RANK,
    RD,
    REF,
    REFPB,
    WR,
    ResolvedSpec,
    Row,
)

Int64Array = npt.NDArray[np.int64]

LOG_FIELDS = ("cycle", "channel", "command", "bank", "row", "column", "tag")
"""Columns of a command log. column: of a RD or WR, in bursts, else -1; tag: the item of a RD or WR, the dot-products of a
GEMV, else -1."""


@dataclass
class Counters:
    """What one memory has done so far, summed over channels."""

    commands: dict[str, int]
    reads: int
    writes: int
    read_latency_sum: int
    """Cycles from acceptance to return, summed over reads; until now for those that wait to be issued."""
    dot_products: int
    """Dot-product slots executed (each in every bank)."""
    result_reads: int
    tiles: int
    pim_busy_cycles: int
    """Cycles with work in the PIM queue, summed over channels."""
    last_memory_cycle: int
    last_pim_cycle: int
    open_cycles: dict[str, int] = field(default_factory=dict)
    """Cycles with a row open in a rank, summed over ranks, per kind of row buffer (``memory``, ``pim``)."""


def build_table(spec: ResolvedSpec, *, all_rows: bool = False) -> Any:
    """The record (an array of one ``engine.TABLE``) that the engine reads.

    Rows of commands that this controller never issues are left out, unless ``all_rows``.

    Raises InputError if the table exceeds one of the engine's fixed sizes.
    """
    organization, controller, pim = spec.config.organization, spec.config.controller, spec.config.pim
    _check_limits(spec)
    banks, ranks = organization.banks, organization.pseudo_channels * organization.ranks
    per_group, per_rank = organization.banks_per_group, organization.banks_per_rank
    bank = np.arange(banks)
    node = np.zeros((banks, BANK + 1), dtype=np.int64)
    node[:, RANK] = 1 + bank // per_rank
    node[:, BANK_GROUP] = 1 + ranks + bank // per_group
    node[:, BANK] = 1 + ranks + ranks * organization.bank_groups + bank
    same = np.zeros((len(COMMANDS), len(COMMANDS)), dtype=np.int64)
    other, apart = np.zeros_like(same), np.zeros_like(same)
    for row in spec.rows:
        if row.window == 1:
            between = row.previous, row.next
            if row.level != OTHER_RANKS:
                same[between] = max(same[between], row.base)
            if row.level in (CHANNEL, PSEUDO_CHANNEL, OTHER_RANKS):
                other[between] = max(other[between], row.base)
            if row.level == CHANNEL:
                apart[between] = max(apart[between], row.base)
    gemv_gaps = [(row.base, row.per_dot) for row in spec.rows if row.previous == row.next == GEMV] or [(0, 0)]
    issued = issued_commands(spec)
    rows_in_force = [row for row in spec.rows if all_rows or {row.previous, row.next} <= issued]
    ordered = sorted(needed_rows(rows_in_force, organization.ranks), key=_engine_order)
    rows = np.zeros((max(1, len(ordered)), 6), dtype=np.int64)
    histories = {history: index for index, history in enumerate(window_histories(ordered))}
    for index, row in enumerate(ordered):
        history = histories[row.pool, row.next] if row.window > 1 else 0
        rows[index] = (row.next, row.level, row.base, row.per_dot, row.window, history)
    order = np.array([_engine_order(row) for row in ordered]).reshape(-1, 2) @ (3, 1)
    begin = np.searchsorted(order, np.arange(3 * len(COMMANDS) + 1))
    address = AddressMap.of(organization)
    table = np.zeros(1, dtype=en.TABLE)
    table["rows"][0, : len(rows)] = rows
    table["row_begin"] = begin[::3]
    table["other_begin"], table["window_begin"] = begin[1::3], begin[2::3]
    table["node"][0, :banks] = node
    table["rank_banks"][0, :ranks] = np.bitwise_or.reduce(
        np.left_shift(np.int64(1), bank).reshape(ranks, per_rank), axis=1
    )
    table["command_bus"] = spec.command_bus
    table["command_cycles"] = spec.command_cycles
    table["delay_same"], table["delay_other"], table["delay_apart"] = same, other, apart
    wait = controller.pim_max_wait_cycles if spec.pim_priority.bounded else en.NEVER
    close_after = controller.page_timeout_cycles if spec.page_policy.waits else 0
    refresh_banks = organization.banks_per_refpb if spec.refresh == "REFPB" else per_rank
    pim_act_banks = per_group if spec.pim_act_level == BANK_GROUP else per_rank
    scalars = {
        "channels": organization.channels,
        "ranks": ranks,
        "banks": banks,
        "banks_per_rank": per_rank,
        "bank_groups": organization.bank_groups,
        "burst_cycles": spec.burst_cycles,
        "read_latency": spec.read_latency,
        "write_latency": spec.write_latency,
        "gwrite_latency": spec.gwrite_latency,
        "result_base": spec.result_latency[0],
        "result_per_dot": spec.result_latency[1],
        "gemv_gap_base": max(base for base, _ in gemv_gaps),
        "gemv_gap_per_dot": max(per_dot for _, per_dot in gemv_gaps),
        "shortest": _shortest_completion(spec),
        "ranks_per_pseudo_channel": organization.ranks,
        "refresh_interval": spec.refresh_interval,
        "refresh_command": REFPB if spec.refresh == "REFPB" else REF,
        "refresh_units": per_rank // refresh_banks,
        "refresh_banks": refresh_banks,
        "precharge_all": controller.precharge_all,
        "queue_depth": controller.bank_queue_depth,
        "queue_mask": (1 << (controller.bank_queue_depth - 1).bit_length()) - 1,
        "transaction_depth": controller.transaction_queue_depth,
        "outstanding_reads": controller.max_outstanding_reads,
        "hit_cap": controller.row_hit_cap,
        "drain_high": min(controller.write_drain_high, controller.transaction_queue_depth),
        "drain_low": controller.write_drain_low,
        "posted_writes": controller.posted_writes,
        "dual": spec.dual,
        "in_order": spec.scheduling.in_order,
        "oldest_first": spec.scheduling.oldest_first,
        "close_after": close_after if spec.page_policy.closes else en.NEVER,
        "pim_reserves": spec.pim_priority.reserves,
        "pim_max_wait": wait if spec.pim_priority.waits else 0,
        "pim_act_level": spec.pim_act_level,
        "pim_act_banks": pim_act_banks,
        "pipeline_dots": pim.pipeline_dots,
        "coarse_estimate": pim.deadline_estimate == "asplos24",
        # By the exact estimate a macro-command ends before the refresh; per-bank refreshes come too often to give way to.
        "refresh_interrupts": pim.deadline_estimate == "asplos24" and spec.refresh == "REF",
    }
    fields = {"column": "co", "row": "ro", "pseudo": "pc", "rank": "ra", "group": "bg", "bank": "ba"}
    for part, short in fields.items():
        scalars[f"{part}_shift"], scalars[f"{part}_bits"] = address.shift[short], address.bits[short]
    for name, value in scalars.items():
        table[name] = value
    return table


def _check_limits(spec: ResolvedSpec) -> None:
    organization, controller = spec.config.organization, spec.config.controller
    windows = [row for row in spec.rows if row.window > 1]
    limits = (
        ("banks per channel", organization.banks, en.MAX_BANKS),
        ("ranks per channel", organization.pseudo_channels * organization.ranks, en.MAX_RANKS),
        ("controller.bank_queue_depth", controller.bank_queue_depth, en.MAX_QUEUE),
        ("controller.transaction_queue_depth", controller.transaction_queue_depth, en.MAX_TRANSACTIONS),
        ("controller.max_outstanding_reads", controller.max_outstanding_reads, en.MAX_RETURNS),
        ("constraint rows (one per pair of commands)", len(needed_rows(spec.rows, organization.ranks)), en.MAX_ROWS),
        ("constraint rows with a window", len(window_histories(windows)), en.MAX_WINDOWS),
        ("the longest window", max((row.window for row in windows), default=1), en.MAX_WINDOW),
    )
    for what, value, most in limits:
        if value > most:
            raise InputError(f"memory {spec.config.name!r}: {what}: {value}; allowed: at most {most}")
    if any(row.level in (OTHER_RANKS, PSEUDO_CHANNEL) for row in windows):
        raise InputError(
            f"memory {spec.config.name!r}: constraints: a window excludes the scopes other_ranks and pseudo_channel"
        )
    levels = {(row.pool, row.next, row.level) for row in windows}
    if len(levels) > len(window_histories(windows)):
        raise InputError(
            f"memory {spec.config.name!r}: constraints: a row with a window and several previous commands needs a scope at "
            "least as wide as what each of them addresses"
        )


def issued_commands(spec: ResolvedSpec) -> set[int]:
    """The commands that a controller of this kind may ever issue."""
    issued = {ACT, PRE, RD, WR}
    issued |= {PREA} if spec.config.controller.precharge_all else set()
    issued |= {COMMANDS.index(spec.refresh)} if spec.refresh else set()
    issued |= {GWRITE, HEADER, PIM_ACT, GEMV} if spec.has_pim else set()
    return issued | ({PIM_PRE} if spec.dual else set())


def needed_rows(rows: Iterable[Row], ranks: int) -> list[Row]:
    """The rows that can bind: not those for other ranks where there are none, nor those that a wider row implies."""
    kept: list[Row] = []
    for row in sorted(set(rows), key=lambda row: (row.level, -row.base)):
        if row.level == OTHER_RANKS:
            if ranks > 1:
                kept.append(row)
        elif row.window > 1 or not any(_implies(wider, row) for wider in kept):
            kept.append(row)
    return kept


def window_histories(rows: Iterable[Row]) -> list[tuple[int, int]]:
    """The rings of past issue cycles that rows with a window need: per row of the table and next command, (pool, next)."""
    return list(dict.fromkeys((row.pool, row.next) for row in rows if row.window > 1))


def _implies(wider: Row, row: Row) -> bool:
    same = (wider.previous, wider.next, wider.window) == (row.previous, row.next, 1)
    return same and wider.level <= row.level and wider.base >= row.base and wider.per_dot >= row.per_dot


def _engine_order(row: Row) -> tuple[int, int]:
    """By previous command, then plain rows, rows for several ranks of a pseudo-channel, rows with a window."""
    return row.previous, 2 if row.window > 1 else int(row.level in (OTHER_RANKS, PSEUDO_CHANNEL))


def _shortest_completion(spec: ResolvedSpec) -> int:
    """Fewest cycles from a command (or the acceptance of a posted write) to the completion of an item that it can cause."""
    latencies = [spec.read_latency, spec.write_latency]
    if spec.has_pim:
        base, per_dot = spec.result_latency
        latencies += [spec.gwrite_latency, base + per_dot * spec.config.pim.pipeline_dots]
    return max(1, min(latencies))


def build_channels(table: Any) -> Any:
    """All-idle channels: every row closed, the first refresh of rank r due at (r + 1) / ranks of the interval (the ranks of
    all pseudo-channels count)."""
    count, ranks = int(table["channels"][0]), int(table["ranks"][0])
    channels = np.zeros(count, dtype=en.CHANNEL)
    channels["index"] = np.arange(count)
    channels["last_admit"] = channels["last_move"] = -1
    channels["pim_busy_since"] = en.NEVER
    channels["history"] = -en.NEVER // 2
    channels["open_row"] = channels["candidate"] = -1
    channels["room"] = -1
    channels["oldest"] = np.arange(en.MAX_TRANSACTIONS)
    interval = int(table["refresh_interval"][0])
    channels["next_refresh"][:, :ranks] = (np.arange(ranks) + 1) * interval // ranks
    channels["refresh_due"] = channels["next_refresh"][:, 0] if interval else en.NEVER
    return channels


class CommandDevice:
    """All channels of one device, advanced command by command.

    Parameters
    ----------
    spec: the resolved memory table.
    log: whether to keep every issued command (:meth:`take_log`).
    element_bytes: of the data that PIM multiplies, by which a row holds so many dot-products.
    """

    def __init__(
        self,
        spec: ResolvedSpec,
        *,
        log: bool = False,
        most_window_cycles: int = en.NEVER,
        element_bytes: int = FP16_BYTES,
    ) -> None:
        self.spec = spec
        self._element_bytes = element_bytes
        self.table = build_table(spec)
        self.channels = build_channels(self.table)
        self._device = np.zeros(1, dtype=en.DEVICE)
        self._device["next_done"] = self._device["horizon"] = en.NEVER
        self._device["log_on"] = log
        self._device["most_window"] = most_window_cycles
        self._operations = np.zeros(1024, dtype=en.OPERATION)
        self._trace = np.zeros(0, dtype=en.REQUEST)
        self._trace_item: int | None = None
        """The item of a trace of which more will be given."""
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
        _check_kind(kind)
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
        self._enqueue(item, kind, touched, begin[touched], end[touched], (end - begin)[touched])
        return item

    def submit_channel_transfer(self, kind: int, channel: int, address: int, size_bytes: int) -> int:
        """Like :meth:`submit_transfer`, for consecutive bytes of one channel; ``address`` counts that channel's own bytes."""
        organization = self.spec.config.organization
        _check_kind(kind)
        if not 0 <= channel < organization.channels or size_bytes <= 0 or address < 0:
            raise InputError(f"transfer of {size_bytes} B at {address:#x} of channel {channel} does not exist")
        if address + size_bytes > organization.channel_bytes:
            raise InputError(
                f"memory {self.spec.config.name!r}: {size_bytes} B at {address:#x} lie beyond the channel's "
                f"{organization.channel_bytes} B"
            )
        burst = self.address.burst_bytes
        begin, end = np.array([address // burst]), np.array([-(-(address + size_bytes) // burst)])
        touched = np.array([channel])
        item = self._new_item(kind, touched)
        self._enqueue(item, kind, touched, begin, end, end - begin)
        return item

    def submit_programs(
        self, programs: Mapping[int, PimProgram], release: Mapping[int, Int64Array] | None = None
    ) -> int:
        """Start one PIM program per given channel; the returned item completes when the last of them does.

        ``release``: per channel, the cycle before which each operation may not start (default: now).
        """
        if not self.spec.has_pim:
            raise InputError(f"memory {self.spec.config.name!r} has no PIM; allowed: row_buffers single or dual")
        if not programs:
            raise InputError("PIM programs for no channel; give at least one")
        for channel, program in programs.items():
            if not 0 <= channel < self._channel_count:
                raise InputError(f"PIM program for channel {channel}; allowed: 0 to {self._channel_count - 1}")
            check_program(program, self.spec.config, self._element_bytes)
            if release is not None and np.shape(release.get(channel, 0)) != (len(program),):
                raise InputError(
                    f"PIM program for channel {channel}: release must have a cycle for each of its {len(program)} operations"
                )
        if self._programs_running == 0:
            self._operation_count = 0
        self._programs_running += 1
        begin = []
        for channel, program in programs.items():
            first = self._operation_count
            operations = self._room_for_operations(first + len(program))[first : first + len(program)]
            for column, name in enumerate(("kind", "row", "readouts", "dots")):
                operations[name] = program.operations[:, column]
            operations["release"] = release[channel] if release is not None else 0
            operations["least"] = self._least_cycles(program)
            self._operation_count += len(program)
            begin.append(first)
        touched = np.array(list(programs), dtype=np.int64)
        first_operation = np.array(begin, dtype=np.int64)
        end = np.append(first_operation[1:], self._operation_count)
        item = self._new_item(en.PROGRAM, touched)
        busy = self.channels["pim_busy_since"]
        busy[touched] = np.minimum(busy[touched], self.time)
        left = np.add.reduceat(self._operations["least"][: self._operation_count], first_operation)
        self._enqueue(item, en.PROGRAM, touched, first_operation, end, left)
        return item

    def load_trace(
        self,
        local: Int64Array,
        kind: Int64Array,
        cycle: Int64Array,
        channel: Int64Array,
        *,
        per_channel: bool = False,
        more: bool = False,
    ) -> int:
        """Replay single-burst requests in order, one per cycle, each from its stamp on and accepted when there is room; returns the item.

        per_channel: every channel has a source of its own, so that requests of one channel do not wait for those of others.
        more: a further part of the trace will follow, to which ``per_channel`` and the item still belong. :meth:`advance` then stops
            as soon as a source has offered all its requests (:attr:`needs_trace`); give the next part before going on.
        """
        going_on, channels = self._trace_item is not None, self.channels
        count = np.bincount(channel, minlength=self._channel_count)
        touched = np.flatnonzero(count)
        if self._trace_item is None:
            self._trace_item = self._new_item(READ, touched[:0])
            self._device["parts"][0, self._trace_item] = 1  # until the last part is known, so that it does not complete
            self._device["one_source"] = not per_channel
            channels["left"][:, self._trace_item] = 0
        item = self._trace_item
        part = np.empty(len(local), dtype=en.REQUEST)
        order = np.argsort(channel, kind="stable") if per_channel else slice(None)
        for name, values in (("channel", channel), ("local", local), ("kind", kind), ("cycle", cycle)):
            part[name] = values[order]
        part["item"] = item
        sources = channels if per_channel else channels[:1]
        sizes = count if per_channel else np.array([len(part)])
        begin = np.cumsum(sizes) - sizes
        rest = [self._trace[source["trace_next"] : source["trace_end"]] for source in sources]
        pieces = [piece for s, old in enumerate(rest) for piece in (old, part[begin[s] : begin[s] + sizes[s]])]
        sizes = np.array([len(old) for old in rest]) + sizes
        self._trace = np.concatenate(pieces)
        sources["trace_end"] = np.cumsum(sizes)
        sources["trace_next"] = sources["trace_end"] - sizes
        sources["trace_more"] = more
        left = channels["left"][touched, item]
        self._device["parts"][0, item] += int(np.count_nonzero(left == 0)) - (not more)
        self._trace_item = item if more else None
        self._device["trace_starved"] = 0
        self._wake(touched, item, left + count[touched], now=not going_on)
        return item

    @property
    def needs_trace(self) -> bool:
        """Whether a source waits for the next part of the trace."""
        return bool(self._device["trace_starved"][0])

    def advance(self, limit: int) -> tuple[int, list[int]]:
        """Run to ``limit`` or the first completion: (cycle reached, items complete at that cycle)."""
        device = self._device[0]
        time = self._run(limit)
        while device["log_on"] and device["log_count"] >= en.LOG_ROOM:
            self._drain_log()
            time = self._run(limit)
        if time < device["next_done"]:
            return time, []
        taken = int(en.take_done(self._device, time))
        done = sorted(int(item) for item in device["done"][:taken])
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
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.zeros((0, len(LOG_FIELDS)), dtype=np.int64)

    def counters(self) -> Counters:
        """Totals since construction."""
        channels = self.channels
        since = channels["pim_busy_since"]
        busy = channels["st_pim_busy"].sum() + np.maximum(0, self.time - since[since < en.NEVER]).sum()
        counts = channels["counts"].sum(axis=0)
        waiting = (
            channels["in_flight"] - (channels["returns_tail"] - channels["returns_head"])
        ).sum()  # reads not issued
        return Counters(
            commands={name: int(count) for name, count in zip(COMMANDS, counts, strict=True)},
            reads=int(counts[COMMANDS.index("RD")]),
            writes=int(counts[COMMANDS.index("WR")]),
            read_latency_sum=int(
                channels["st_return_sum"].sum() - channels["st_accept_sum"].sum() + waiting * self.time
            ),
            dot_products=int(channels["st_dots"].sum()),
            result_reads=int(channels["st_results"].sum()),
            tiles=int(channels["st_tiles"].sum()),
            pim_busy_cycles=int(busy),
            last_memory_cycle=int(channels["st_last_memory"].max()),
            last_pim_cycle=int(channels["st_last_pim"].max()),
            open_cycles=dict(zip(("memory", "pim"), self._open_cycles(), strict=True)),
        )

    def _open_cycles(self) -> list[int]:
        """Per row buffer, cycles with a row open, summed over ranks; those open now count until now."""
        channels, table = self.channels, self.table[0]
        totals = channels["st_open"].sum(axis=(0, 2))
        for rank in range(table["ranks"]):
            still_open = channels["open_mask"] & table["rank_banks"][rank] != 0
            totals += np.where(still_open, self.time - channels["open_since"][:, :, rank], 0).sum(axis=0)
        return [int(total) for total in totals]

    def _new_item(self, kind: int, touched: Int64Array) -> int:
        if not self._free:
            raise RuntimeError(f"more than {en.MAX_ITEMS} transfers and PIM programs are under way at once")
        item = self._free.pop()
        device = self._device[0]
        device["kind"][item], device["parts"][item], device["finish"][item] = kind, len(touched), 0
        device["items_end"] = max(int(device["items_end"]), item + 1)
        return item

    def _least_cycles(self, program: PimProgram) -> Int64Array:
        """Per operation, cycles that it takes at least: those between its first and its last command, and that one's slot."""
        table, operations = self.table[0], program.operations.astype(np.int64)
        dots = np.maximum(operations[:, 3], table["pipeline_dots"])
        gap = table["gemv_gap_base"] + table["gemv_gap_per_dot"] * dots
        tile: Int64Array = 2 + (operations[:, 2] - 1) * gap
        return np.where(operations[:, 0] == TILE, tile, 1)

    def _room_for_operations(self, needed: int) -> Any:
        if needed > len(self._operations):
            grown = np.zeros(max(needed, 2 * len(self._operations)), dtype=en.OPERATION)
            grown[: len(self._operations)] = self._operations
            self._operations = grown
        return self._operations

    def _enqueue(
        self, item: int, kind: int, channels: Int64Array, begin: Int64Array, end: Int64Array, left: Int64Array
    ) -> None:
        """Append an item's parts to the sources of the channels that it touches."""
        records = self.channels
        tail = records["source_tail"][channels, kind]
        source = records["source"]
        source[channels, kind, tail % en.MAX_ITEMS, 0] = item
        source[channels, kind, tail % en.MAX_ITEMS, 1] = begin
        source[channels, kind, tail % en.MAX_ITEMS, 2] = end
        records["source_tail"][channels, kind] = tail + 1
        self._wake(channels, item, left)

    def _wake(self, channels: Int64Array, item: int, left: Int64Array, *, now: bool = True) -> None:
        """Have channels look at what they were given; ``left`` as in ``engine.CHANNEL``.

        ``now``: at the device's time; otherwise when they go on, which for channels ahead of it is later.
        """
        records = self.channels
        records["left"][channels, item] = left
        if now:
            records["next"][channels] = np.minimum(records["next"][channels], self.time)
        records["arrival"][channels] = records["rethink"][channels] = 0
        soonest = self.time + en.cycles_for(int(left.max())) + int(self.table["shortest"][0])
        self._device["horizon"] = min(int(self._device["horizon"][0]), soonest)

    def _drain_log(self) -> None:
        device = self._device[0]
        if device["log_count"]:
            self._log_parts.append(device["log"][: device["log_count"]].copy())
        device["log_count"] = 0


def _check_kind(kind: int) -> None:
    if kind not in (READ, en.WRITE):
        raise InputError(f"transfer of kind {kind!r}; allowed: {READ} (READ), {en.WRITE} (WRITE)")


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

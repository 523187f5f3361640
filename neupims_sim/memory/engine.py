"""The compiled command-level memory engine.

One call of :func:`advance` moves all channels of a device forward in time, command by command, up to a limit or to the
first completion. Nothing ticks: each channel computes the earliest legal cycle of its next command and jumps there.

Vocabulary
----------
item: a transfer or a PIM program that somebody outside waits for; it has a *part* on every channel that it touches.
run: consecutive bursts of one item in one row of one bank; queues hold runs, so that a row of 16 bursts is one entry.
local index: the burst index of an address with the channel bits taken out (:mod:`neupims_sim.memory.address`).
candidate: per bank, the one command that its queue wants next, given the row-buffer state.

State is plain data: one record per channel (:data:`CHANNEL`) and one for the device (:data:`DEVICE`). Compiled functions
receive records as pointers, which is what makes the small functions below free; their arrays therefore have fixed sizes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from numba.cpython.unsafe.numbers import trailing_zeros

from neupims_sim.memory.program import GWRITE as OP_GWRITE
from neupims_sim.memory.spec import (
    ACT,
    COMMANDS,
    GEMV,
    GWRITE,
    HEADER,
    OTHER_RANKS,
    PIM_ACT,
    PIM_PRE,
    PRE,
    RD,
    REF,
    WR,
)

Array = npt.NDArray[np.int64]

NEVER = 1 << 62
N_COMMANDS = len(COMMANDS)

READ, WRITE, PROGRAM = 0, 1, 2
"""Kinds of items."""

# Sizes of the fixed-size arrays inside the records. They are limits of one channel, checked when a table is resolved.
MAX_BANKS = 64
MAX_RANKS = 8
MAX_NODES = 1 + MAX_RANKS + MAX_BANKS + MAX_BANKS
MAX_ROWS = 256
MAX_WINDOWS = 4
MAX_WINDOW = 32
MAX_TRANSACTIONS = 64
MAX_QUEUE = 128
MAX_ITEMS = 2048
MAX_RETURNS = 8192
MAX_LOG = 1 << 15


def _record(*fields: tuple[Any, ...]) -> np.dtype[Any]:
    return np.dtype([(field[0], np.int64, field[1:]) if len(field) > 1 else (field[0], np.int64) for field in fields])


TABLE = _record(
    # Constraint rows (next, level, base, per_dot, window, history index), grouped by previous command;
    # rows of previous command p are row_begin[p] : row_begin[p + 1].
    ("rows", MAX_ROWS, 6),
    ("row_begin", N_COMMANDS + 1),
    ("node", MAX_BANKS, 4),  # the bank's ancestor at each level, an index into CHANNEL.ready
    ("command_bus", N_COMMANDS),
    ("delay_same", N_COMMANDS, N_COMMANDS),  # [previous, next]: longest distance when both address the same rank
    ("delay_other", N_COMMANDS, N_COMMANDS),  # the same for different ranks
    ("channels",), ("ranks",), ("banks",), ("banks_per_rank",), ("banks_per_group",), ("bank_groups",),
    ("burst_cycles",), ("read_latency",), ("write_latency",), ("gwrite_latency",),
    ("result_base",), ("result_per_dot",),  # cycles from a GEMV's issue to its result
    ("refresh_interval",),  # of one rank; 0: no refresh
    ("queue_depth",), ("transaction_depth",), ("outstanding_reads",), ("hit_cap",), ("drain_high",), ("drain_low",),
    ("posted_writes",),
    ("dual",),  # 1: PIM has row buffers of its own; 0: it shares them and owns the channel while it works
    ("pim_reserves",), ("pipeline_dots",),
    ("coarse_estimate",),  # 1: the published artifact's estimate of a GEMV's length, 0: the real one
    ("row_shift",), ("row_bits",), ("rank_shift",), ("rank_bits",), ("group_shift",), ("group_bits",),
    ("bank_shift",), ("bank_bits",),
)  # fmt: skip

CHANNEL = _record(
    ("index",),
    ("next",),  # cycle of the channel's next event; it need not be looked at before
    ("bus", 2),  # first cycle at which each command bus is free
    ("round_robin",),  # bank after the one served last
    ("queued",),  # bursts in all bank queues
    ("last_admit",), ("last_move",),  # cycles at which a burst was last accepted, and last moved to a bank queue
    ("draining",),  # writes still to move in the current drain
    ("in_flight",),  # reads accepted and not yet returned
    ("refresh_pending",),  # bit per rank
    ("next_refresh", MAX_RANKS),
    ("pim_started",),  # whether the current macro-command has passed its deadline check
    ("pim_header_done",),
    ("pim_readouts",),  # GEMVs issued of the current tile
    ("pim_waits_refresh",),  # no macro-command starts before the next refresh
    ("pim_free",),  # cycle at which a GWRITE has ended and the next macro-command may start
    ("pim_busy_since",),  # cycle at which the PIM queue became non-empty, or NEVER
    ("trace_next",), ("trace_end",),  # records of a replayed trace
    ("returns_head",), ("returns_tail",),
    # [node, command]: first cycle at which the command is legal as far as this node of the hierarchy knows.
    ("ready", MAX_NODES, N_COMMANDS),
    ("history", MAX_WINDOWS, MAX_NODES, MAX_WINDOW),  # rings of past issue cycles, for rows with a window
    ("history_at", MAX_WINDOWS, MAX_NODES),
    ("open_row", 2, MAX_BANKS),  # the open row or -1; buffer 0 is the memory row buffer, 1 the PIM row buffer
    ("open_mask", 2),  # bit per bank with an open row
    ("hits", MAX_BANKS),  # column commands since the row was opened
    ("queue_head", MAX_BANKS), ("queue_runs", MAX_BANKS), ("queue_bursts", MAX_BANKS),
    ("candidate", MAX_BANKS),  # the bank's candidate command or -1
    ("candidate_run", MAX_BANKS),  # position, from the queue head, of the run that the candidate serves
    ("mask", N_COMMANDS),  # bit per bank whose candidate it is
    ("transaction", 2, MAX_TRANSACTIONS, 4),  # accepted runs (bank, row, bursts, item) not in a bank queue yet, oldest first
    ("transaction_runs", 2), ("transaction_bursts", 2),
    ("source_head", 3), ("source_tail", 3),
    ("queue", MAX_BANKS, MAX_QUEUE, 4),  # ring of runs (row, bursts, item, kind) per bank
    ("source", 3, MAX_ITEMS, 3),  # rings of items to do (item, cursor, end); cursor: a local index, or an operation
    ("left", MAX_ITEMS),  # bursts not yet issued, per item
    ("returns", MAX_RETURNS),  # ring of return cycles of reads in flight (for the outstanding limit)
    ("op_loaded",), ("op_kind",), ("op_row",), ("op_readouts",), ("op_dots",), ("op_release",),  # current PIM macro-command
    ("counts", N_COMMANDS),
    ("st_reads",), ("st_writes",), ("st_accept_sum",), ("st_return_sum",),  # sums of acceptance and return cycles of reads
    ("st_dots",), ("st_results",), ("st_tiles",), ("st_pim_busy",), ("st_last_memory",), ("st_last_pim",),
)  # fmt: skip

DEVICE = _record(
    ("time",),
    ("kind", MAX_ITEMS), ("parts", MAX_ITEMS),  # of items; parts: channels on which work is left
    ("finish", MAX_ITEMS),  # the latest completion so far
    ("done", MAX_ITEMS), ("n_done",),  # finished items whose completion has not been reported
    ("next_done",),  # the earliest of their completions, or NEVER
    ("active_writes",),
    ("log", MAX_LOG, 6), ("log_count",), ("log_on",),  # issued commands (cycle, channel, command, bank, row, tag)
)  # fmt: skip


@njit(cache=True)
def earliest(table: Any, ch: Any, command: int, bank: int, level: int) -> int:
    """First legal cycle of a command that addresses ``bank``'s ancestor at ``level``."""
    ready = ch.ready
    cycle = ready[0, command]
    if level >= 1:
        cycle = max(cycle, ready[table.node[bank, 1], command])
    if level >= 2:
        cycle = max(cycle, ready[table.node[bank, 2], command])
    if level >= 3:
        cycle = max(cycle, ready[table.node[bank, 3], command])
    return max(cycle, ch.bus[table.command_bus[command]])


@njit(cache=True)
def record(
    table: Any, ch: Any, device: Any, cycle: int, command: int, bank: int, row: int, dots: int, tag: int
) -> None:
    """Note that ``command`` issues at ``cycle``: command bus, counters, log, and every constraint that it starts."""
    ch.bus[table.command_bus[command]] = cycle + 1
    ch.counts[command] += 1
    if device.log_on:
        entry = device.log[device.log_count]
        entry[0], entry[1], entry[2], entry[3], entry[4], entry[5] = cycle, ch.index, command, bank, row, tag
        device.log_count += 1
    ready = ch.ready
    for index in range(table.row_begin[command], table.row_begin[command + 1]):
        row_ = table.rows[index]
        following, level = row_[0], row_[1]
        after = cycle + row_[2] + row_[3] * dots
        if level == OTHER_RANKS:
            own = table.node[bank, 1]
            for node in range(1, 1 + table.ranks):
                if node != own and ready[node, following] < after:
                    ready[node, following] = after
            continue
        node = table.node[bank, level]
        if row_[4] > 1:
            ring = ch.history[row_[5], node]
            at = ch.history_at[row_[5], node]
            ring[at] = cycle
            at = (at + 1) % row_[4]
            ch.history_at[row_[5], node] = at
            after = ring[at] + row_[2]
        if ready[node, following] < after:
            ready[node, following] = after


@njit(cache=True)
def set_candidate(table: Any, ch: Any, bank: int) -> None:
    """Work out which command the bank's queue wants next (FR-FCFS: first hit, unless the cap lets the conflict at the head win)."""
    command, position = -1, 0
    runs = ch.queue_runs[bank]
    if runs > 0:
        head, size = ch.queue_head[bank], MAX_QUEUE
        row = ch.open_row[0, bank]
        if row < 0:
            command = ACT
        elif ch.queue[bank, head, 0] == row:
            command = RD + ch.queue[bank, head, 3]
        else:
            command = PRE
            if ch.hits[bank] < table.hit_cap:
                for other in range(1, runs):
                    at = (head + other) % size
                    if ch.queue[bank, at, 0] == row:
                        command, position = RD + ch.queue[bank, at, 3], other
                        break
    old = ch.candidate[bank]
    if old != command:
        bit = np.int64(1) << np.int64(bank)
        if old >= 0:
            ch.mask[old] &= ~bit
        if command >= 0:
            ch.mask[command] |= bit
        ch.candidate[bank] = command
    ch.candidate_run[bank] = position


@njit(cache=True)
def push_bank(
    table: Any, ch: Any, bank: int, row: int, bursts: int, item: int, kind: int
) -> None:
    """Append bursts to a bank queue, to its last run if they continue it."""
    runs, size = ch.queue_runs[bank], MAX_QUEUE
    ch.queue_bursts[bank] += bursts
    ch.queued += bursts
    if runs > 0:
        last = ch.queue[bank, (ch.queue_head[bank] + runs - 1) % size]
        if last[0] == row and last[2] == item and last[3] == kind:
            last[1] += bursts
            return
    entry = ch.queue[bank, (ch.queue_head[bank] + runs) % size]
    entry[0], entry[1], entry[2], entry[3] = row, bursts, item, kind
    ch.queue_runs[bank] = runs + 1
    # An older run decides the candidate unless it waits for a conflict that this hit may overtake.
    if runs == 0 or ch.candidate[bank] == PRE:
        set_candidate(table, ch, bank)


@njit(cache=True)
def pop_burst(table: Any, ch: Any, bank: int, position: int) -> int:
    """Take one burst from the run at ``position`` of a bank queue and return its item."""
    head, size = ch.queue_head[bank], MAX_QUEUE
    at = (head + position) % size
    item = ch.queue[bank, at, 2]
    ch.queue_bursts[bank] -= 1
    ch.queued -= 1
    ch.queue[bank, at, 1] -= 1
    if ch.queue[bank, at, 1] == 0:
        for back in range(position, 0, -1):
            to, origin = (head + back) % size, (head + back - 1) % size
            for field in range(4):
                ch.queue[bank, to, field] = ch.queue[bank, origin, field]
        ch.queue_head[bank] = (head + 1) % size
        ch.queue_runs[bank] -= 1
        set_candidate(table, ch, bank)
    elif ch.hits[bank] >= table.hit_cap:
        set_candidate(table, ch, bank)
    return item


@njit(cache=True)
def finish_part(device: Any, item: int, cycle: int) -> None:
    """One channel has done its part of an item, complete at ``cycle``."""
    device.finish[item] = max(device.finish[item], cycle)
    device.parts[item] -= 1
    if device.parts[item] == 0:
        count = device.n_done
        device.done[count] = item
        device.n_done = count + 1
        device.next_done = min(device.next_done, device.finish[item])
        if device.kind[item] == WRITE:
            device.active_writes -= 1


@njit(cache=True)
def finish_burst(ch: Any, device: Any, item: int, cycle: int) -> None:
    """One burst of an item completes at ``cycle``."""
    ch.st_last_memory = max(ch.st_last_memory, cycle)
    ch.left[item] -= 1
    if ch.left[item] == 0:
        finish_part(device, item, cycle)


@njit(cache=True)
def accept(table: Any, ch: Any, device: Any, cycle: int, kind: int, local: int, item: int) -> None:
    """Put one burst at the end of the transaction queue."""
    row = (local >> table.row_shift) & ((1 << table.row_bits) - 1)
    bank = (local >> table.rank_shift) & ((1 << table.rank_bits) - 1)
    bank = (bank << table.group_bits) | ((local >> table.group_shift) & ((1 << table.group_bits) - 1))
    bank = (bank << table.bank_bits) | ((local >> table.bank_shift) & ((1 << table.bank_bits) - 1))
    ch.transaction_bursts[kind] += 1
    ch.last_admit = cycle
    if kind == READ:
        ch.st_reads += 1
        ch.st_accept_sum += cycle
        ch.in_flight += 1
    else:
        ch.st_writes += 1
        if table.posted_writes:
            finish_burst(ch, device, item, cycle + table.write_latency)
    runs = ch.transaction_runs[kind]
    if runs > 0:
        last = ch.transaction[kind, runs - 1]
        if last[0] == bank and last[1] == row and last[3] == item:
            last[2] += 1
            return
    entry = ch.transaction[kind, runs]
    entry[0], entry[1], entry[2], entry[3] = bank, row, 1, item
    ch.transaction_runs[kind] = runs + 1


@njit(cache=True)
def may_accept(table: Any, ch: Any, kind: int) -> bool:
    """Whether the transaction queue (and, for reads, the requester's outstanding limit) has room for one more burst."""
    if ch.transaction_bursts[kind] >= table.transaction_depth:
        return False
    return kind == WRITE or ch.in_flight < table.outstanding_reads


@njit(cache=True)
def admit(table: Any, ch: Any, device: Any, trace: Array, now: int) -> int:
    """Accept at most one read and one write of waiting items this cycle. Returns the next cycle at which more could be accepted."""
    again = NEVER
    head, tail = ch.returns_head, ch.returns_tail
    while head < tail and ch.returns[head % MAX_RETURNS] <= now:
        head += 1
        ch.in_flight -= 1
    ch.returns_head = head
    if ch.trace_next < ch.trace_end:
        return admit_trace(table, ch, device, trace, now)
    if ch.last_admit >= now:
        if may_accept(table, ch, READ) and ch.source_head[READ] < ch.source_tail[READ]:
            return now + 1
        if may_accept(table, ch, WRITE) and ch.source_head[WRITE] < ch.source_tail[WRITE]:
            return now + 1
        return NEVER
    for kind in range(2):
        head = ch.source_head[kind]
        if head == ch.source_tail[kind]:
            continue
        if not may_accept(table, ch, kind):
            if kind == READ and ch.in_flight >= table.outstanding_reads and ch.returns_head < ch.returns_tail:
                again = min(again, ch.returns[ch.returns_head % MAX_RETURNS])
            continue
        at = head % MAX_ITEMS
        item, local = ch.source[kind, at, 0], ch.source[kind, at, 1]
        accept(table, ch, device, now, kind, local, item)
        ch.source[kind, at, 1] = local + 1
        more = local + 1 < ch.source[kind, at, 2]
        if not more:
            ch.source_head[kind] = head + 1
            more = head + 1 < ch.source_tail[kind]
        if more and may_accept(table, ch, kind):
            again = now + 1
    return again


@njit(cache=True)
def admit_trace(table: Any, ch: Any, device: Any, trace: Array, now: int) -> int:
    """Accept the next record of a replayed trace, in order, one per cycle, not before its stamp."""
    kind = trace[ch.trace_next, 1]
    start = max(trace[ch.trace_next, 2], ch.last_admit + 1)
    if start > now:
        return start
    if not may_accept(table, ch, kind):
        if kind == READ and ch.in_flight >= table.outstanding_reads and ch.returns_head < ch.returns_tail:
            return ch.returns[ch.returns_head % MAX_RETURNS]
        return NEVER
    accept(table, ch, device, now, kind, trace[ch.trace_next, 0], trace[ch.trace_next, 3])
    ch.trace_next += 1
    if ch.trace_next == ch.trace_end:
        return NEVER
    return max(now + 1, trace[ch.trace_next, 2])


@njit(cache=True)
def incoming(ch: Any, kind: int) -> bool:
    """Whether bursts of this kind are still to be accepted."""
    if ch.source_head[kind] < ch.source_tail[kind]:
        return True
    return ch.trace_next < ch.trace_end


@njit(cache=True)
def choose_transactions(table: Any, ch: Any) -> int:
    """Which transaction queue feeds the bank queues now: reads, unless a write drain is on."""
    writes = ch.transaction_bursts[WRITE]
    if ch.draining == 0 and writes > 0:
        idle = ch.queued == 0
        only_writes = ch.transaction_bursts[READ] == 0 and not incoming(ch, READ)
        if writes >= table.drain_high or (idle and writes > table.drain_low) or (idle and only_writes):
            ch.draining = writes
    return WRITE if ch.draining > 0 else READ


@njit(cache=True)
def move(table: Any, ch: Any, now: int) -> int:
    """Move one burst per cycle from the transaction queue to its bank queue: the oldest whose bank has room.

    Returns the next cycle at which another burst could move.
    """
    if not table.dual and ch.source_head[PROGRAM] < ch.source_tail[PROGRAM]:
        return NEVER  # single row buffer: PIM owns the channel
    kind = choose_transactions(table, ch)
    runs = ch.transaction_runs[kind]
    if runs == 0:
        return NEVER
    if ch.last_move >= now:
        return now + 1
    for position in range(runs):
        entry = ch.transaction[kind, position]
        bank = entry[0]
        if ch.queue_bursts[bank] >= table.queue_depth:
            continue
        push_bank(table, ch, bank, entry[1], 1, entry[3], kind)
        ch.last_move = now
        ch.transaction_bursts[kind] -= 1
        if kind == WRITE:
            ch.draining -= 1
        entry[2] -= 1
        if entry[2] == 0:
            for later in range(position, runs - 1):
                for field in range(4):
                    ch.transaction[kind, later, field] = ch.transaction[kind, later + 1, field]
            ch.transaction_runs[kind] = runs - 1
        return now + 1
    return NEVER


@njit(cache=True)
def close_command(table: Table, buffer: int) -> int:
    """The command that closes a row buffer."""
    return PIM_PRE if buffer == 1 else PRE


@njit(cache=True)
def first_close(table: Any, ch: Any, buffer: int, banks: int) -> tuple[int, int, int]:
    """The earliest close of an open row among ``banks`` (a bit mask): (cycle, command, bank); lowest bank first among equals."""
    command = close_command(table, buffer)
    floor = max(ch.ready[0, command], ch.bus[table.command_bus[command]])
    best, chosen = NEVER, -1
    while banks:
        bank = trailing_zeros(banks)
        banks &= banks - 1
        cycle = earliest(table, ch, command, bank, 3)
        if cycle < best:
            best, chosen = cycle, bank
            if cycle <= floor:
                break
    return best, command, chosen


@njit(cache=True)
def rank_banks(table: Table, rank: int) -> int:
    """Bit mask of the banks of a rank."""
    return ((np.int64(1) << np.int64(table.banks_per_rank)) - 1) << np.int64(rank * table.banks_per_rank)


@njit(cache=True)
def refresh_candidate(table: Any, ch: Any) -> tuple[int, int, int]:
    """Towards the refresh of the first pending rank: close its banks, then REF. (cycle, command, bank)."""
    pending = ch.refresh_pending
    if pending == 0 or (ch.pim_started and not table.coarse_estimate):
        return NEVER, -1, -1  # a started macro-command fits before the deadline, by the exact estimate
    rank = trailing_zeros(pending)
    banks = rank_banks(table, rank) if table.ranks > 1 else np.int64(-1)
    for buffer in range(2):
        still_open = ch.open_mask[buffer] & banks
        if still_open:
            return first_close(table, ch, buffer, still_open)
    bank = rank * table.banks_per_rank
    return earliest(table, ch, REF, bank, 1), REF, bank


@njit(cache=True)
def macro_length(table: Any, ch: Any, kind: int, row: int, readouts: int, dots: int) -> int:
    """Bound on the cycles from now to the end of a macro-command, for the refresh deadline (NeuPIMs section 5.2)."""
    buffer = 1 if table.dual else 0
    if kind == OP_GWRITE:
        length = table.gwrite_latency
        if ch.open_row[0, 0] != row:
            length += table.delay_same[ACT, GWRITE]
            if table.coarse_estimate or ch.open_row[0, 0] >= 0:
                length += table.delay_same[PRE, ACT]
            if table.coarse_estimate and ch.open_row[0, 0] >= 0:
                length += table.delay_same[RD, PRE]
        return length
    closes = 0
    banks = ch.open_mask[buffer]
    while banks:
        closes += ch.open_row[buffer, trailing_zeros(banks)] != row
        banks &= banks - 1
    activations = table.delay_same[PIM_ACT, ACT] * (table.bank_groups - 1) + table.delay_same[PIM_ACT, GEMV]
    gap = max(0, ch.ready[0, PIM_PRE if table.dual else PRE] - max(ch.bus[0], ch.ready[0, HEADER]))
    if table.coarse_estimate:
        # The artifact counts tRTP per precharge and one burst slot per dot-product of the tile and per further result;
        # the number of dot-products travels in the HEADER as a power of two.
        slots = 1
        while slots < readouts * dots:
            slots *= 2
        return 1 + gap + closes * table.delay_same[RD, PRE] + activations + table.burst_cycles * (slots + readouts - 1)
    close = PIM_PRE if table.dual else PRE
    length = 1 + activations + table.ranks - 1
    if closes:
        length += closes + table.delay_same[close, PIM_ACT]
    return length + gap + (readouts - 1) * gemv_gap(table, dots) + table.result_base + table.result_per_dot * dots


@njit(cache=True)
def gemv_gap(table: Table, dots: int) -> int:
    """Cycles between two GEMVs of ``dots`` dot-products."""
    for index in range(table.row_begin[GEMV], table.row_begin[GEMV + 1]):
        if table.rows[index, 0] == GEMV:
            return table.rows[index, 2] + table.rows[index, 3] * dots
    return 0


@njit(cache=True)
def next_deadline(table: Any, ch: Any) -> int:
    """Cycle of the next refresh of any rank."""
    if table.refresh_interval == 0:
        return NEVER
    due = ch.next_refresh[0]
    for rank in range(1, table.ranks):
        due = min(due, ch.next_refresh[rank])
    return due


@njit(cache=True)
def pim_candidate(table: Any, ch: Any, now: int) -> tuple[int, int, int]:
    """The next command of the current PIM macro-command: (cycle, command, bank)."""
    if ch.source_head[PROGRAM] == ch.source_tail[PROGRAM]:
        return NEVER, -1, -1
    if not table.dual and ch.queued > 0:
        return NEVER, -1, -1  # single row buffer: requests already in bank queues go first
    kind, row, readouts = ch.op_kind, ch.op_row, ch.op_readouts
    dots = max(ch.op_dots, table.pipeline_dots)
    if ch.pim_started:
        if ch.refresh_pending and table.coarse_estimate:
            return NEVER, -1, -1  # the estimate fell short: the refresh closes rows, the tile opens them again
    else:
        if ch.refresh_pending or ch.pim_waits_refresh:
            return NEVER, -1, -1
        if max(ch.op_release, ch.pim_free) > now:
            return max(ch.op_release, ch.pim_free), -1, -1
        first = GWRITE if kind == OP_GWRITE else HEADER
        start = max(max(now, ch.bus[0]), ch.ready[0, first])
        length = macro_length(table, ch, kind, row, readouts, dots)
        if start + length >= next_deadline(table, ch):
            longest = table.refresh_interval // table.ranks - table.delay_same[REF, ACT]
            if length < longest or start + length - longest > next_deadline(table, ch):
                ch.pim_waits_refresh = 1
                return NEVER, -1, -1
        ch.pim_started = 1
    if kind == OP_GWRITE:
        opened = ch.open_row[0, 0]
        if opened == row:
            return earliest(table, ch, GWRITE, 0, 3), GWRITE, 0
        if opened >= 0:
            return earliest(table, ch, PRE, 0, 3), PRE, 0
        if ch.open_row[1, 0] == row:
            return earliest(table, ch, PIM_PRE, 0, 3), PIM_PRE, 0
        return earliest(table, ch, ACT, 0, 3), ACT, 0
    buffer = 1 if table.dual else 0
    if not ch.pim_header_done:
        clash, conflict = np.int64(0), np.int64(0)
        for bank in range(table.banks):
            opened = ch.open_row[buffer, bank]
            if opened >= 0 and opened != row:
                conflict |= np.int64(1) << np.int64(bank)
            if table.dual and ch.open_row[0, bank] == row:
                clash |= np.int64(1) << np.int64(bank)
        if clash:
            return first_close(table, ch, 0, clash)
        if conflict:
            return first_close(table, ch, buffer, conflict)
        return earliest(table, ch, HEADER, 0, 0), HEADER, 0
    best, chosen = NEVER, -1
    for group in range(table.ranks * table.bank_groups):
        bank = group * table.banks_per_group
        if ch.open_row[buffer, bank] < 0:
            cycle = earliest(table, ch, PIM_ACT, bank, 2)
            if cycle < best:
                best, chosen = cycle, bank
    if chosen >= 0:
        return best, PIM_ACT, chosen
    return earliest(table, ch, GEMV, 0, 0), GEMV, 0


@njit(cache=True)
def memory_candidate(
    table: Any, ch: Any, now: int, pim_cycle: int, pim_command: int, pim_bank: int
) -> tuple[int, int, int]:
    """The earliest command that any bank queue wants, column commands first among equals, round-robin over banks.

    Banks of a rank that waits for its refresh are left out. While a PIM command waits, a command that would push it
    further back is held, if the table says that PIM reserves its slots.
    """
    if ch.queued == 0:
        return NEVER, -1, -1
    blocked = np.int64(0)
    pending = ch.refresh_pending
    while pending:
        rank = trailing_zeros(pending)
        pending &= pending - 1
        blocked |= rank_banks(table, rank) if table.ranks > 1 else np.int64(-1)
    reserve = table.pim_reserves and pim_command >= 0
    start = np.int64(-1) << ch.round_robin
    best, best_command, best_bank = NEVER, -1, -1
    for index in range(4):
        command = RD if index == 0 else WR if index == 1 else ACT if index == 2 else PRE
        banks = ch.mask[command] & ~blocked
        if banks == 0:
            continue
        floor = max(ch.ready[0, command], ch.bus[table.command_bus[command]])
        rank_floor = ch.ready[1, command]
        for rank in range(1, table.ranks):
            rank_floor = min(rank_floor, ch.ready[1 + rank, command])
        floor = max(floor, rank_floor)
        if floor >= best:
            continue
        for half in range(2):
            part = banks & start if half == 0 else banks & ~start
            while part:
                bank = trailing_zeros(part)
                part &= part - 1
                cycle = earliest(table, ch, command, bank, 3)
                if cycle >= best:
                    continue
                if command == ACT and table.dual:
                    wanted = ch.queue[bank, ch.queue_head[bank], 0]
                    if ch.open_row[1, bank] == wanted:
                        if ch.pim_started and pim_command != HEADER:
                            continue  # the row is in use in the PIM row buffer
                        cycle = earliest(table, ch, PIM_PRE, bank, 3)
                        if cycle < best:
                            best, best_command, best_bank = cycle, PIM_PRE, bank
                        continue
                    if ch.pim_started and ch.op_kind != OP_GWRITE and ch.op_row == wanted:
                        continue  # a tile is about to open this row
                if reserve and cycle < pim_cycle:
                    whole = pim_command == GEMV or pim_command == HEADER
                    same = whole or bank // table.banks_per_rank == pim_bank // table.banks_per_rank
                    delay = table.delay_same[command, pim_command] if same else table.delay_other[command, pim_command]
                    if cycle + delay > pim_cycle:
                        continue
                best, best_command, best_bank = cycle, command, bank
                if cycle <= floor:
                    part = np.int64(0)
                    banks = np.int64(0)
    return best, best_command, best_bank


@njit(cache=True)
def set_open(table: Any, ch: Any, buffer: int, bank: int, row: int) -> None:
    """Open (row >= 0) or close (-1) a row buffer."""
    bit = np.int64(1) << np.int64(bank)
    ch.open_row[buffer, bank] = row
    if row >= 0:
        ch.open_mask[buffer] |= bit
    else:
        ch.open_mask[buffer] &= ~bit
    if buffer == 0:
        ch.hits[bank] = 0
        set_candidate(table, ch, bank)


@njit(cache=True)
def end_operation(ch: Any, device: Any, cycle: int, complete: int) -> None:
    """The current macro-command has issued its last command; its result is there at ``complete``."""
    ch.pim_started = 0
    ch.pim_header_done = 0
    ch.pim_readouts = 0
    ch.op_loaded = 0
    ch.st_last_pim = max(ch.st_last_pim, complete)
    head = ch.source_head[PROGRAM]
    at = head % MAX_ITEMS
    ch.source[PROGRAM, at, 1] += 1
    if ch.source[PROGRAM, at, 1] == ch.source[PROGRAM, at, 2]:
        ch.source_head[PROGRAM] = head + 1
        if head + 1 == ch.source_tail[PROGRAM]:
            ch.st_pim_busy += complete - ch.pim_busy_since
            ch.pim_busy_since = NEVER
        finish_part(device, ch.source[PROGRAM, at, 0], complete)


@njit(cache=True)
def issue_memory(table: Any, ch: Any, device: Any, cycle: int, command: int, bank: int) -> None:
    """Issue a command for the bank queues."""
    ch.round_robin = (bank + 1) % table.banks
    if command == RD or command == WR:
        item = pop_burst(table, ch, bank, ch.candidate_run[bank])
        record(table, ch, device, cycle, command, bank, ch.open_row[0, bank], 0, item)
        ch.hits[bank] += 1
        if command == RD:
            complete = cycle + table.read_latency
            ch.st_return_sum += complete
            tail = ch.returns_tail
            ch.returns[tail % MAX_RETURNS] = complete
            ch.returns_tail = tail + 1
            finish_burst(ch, device, item, complete)
        elif not table.posted_writes:
            finish_burst(ch, device, item, cycle + table.write_latency)
    elif command == ACT:
        row = ch.queue[bank, ch.queue_head[bank], 0]
        record(table, ch, device, cycle, ACT, bank, row, 0, -1)
        set_open(table, ch, 0, bank, row)
    else:
        issue_close(table, ch, device, cycle, command, bank)


@njit(cache=True)
def issue_close(table: Any, ch: Any, device: Any, cycle: int, command: int, bank: int) -> None:
    """Issue PRE or PIM_PRE."""
    buffer = 1 if command == PIM_PRE else 0
    record(table, ch, device, cycle, command, bank, ch.open_row[buffer, bank], 0, -1)
    set_open(table, ch, buffer, bank, -1)


@njit(cache=True)
def issue_pim(table: Any, ch: Any, device: Any, cycle: int, command: int, bank: int) -> None:
    """Issue a command of the current PIM macro-command."""
    if command == PRE or command == PIM_PRE:
        issue_close(table, ch, device, cycle, command, bank)
        return
    row, dots = ch.op_row, max(ch.op_dots, table.pipeline_dots)
    record(table, ch, device, cycle, command, bank, row, dots, ch.op_dots if command == GEMV else -1)
    if command == ACT:
        set_open(table, ch, 0, bank, row)
    elif command == GWRITE:
        ch.pim_free = cycle + table.gwrite_latency
        end_operation(ch, device, cycle, ch.pim_free)
    elif command == HEADER:
        ch.pim_header_done = 1
    elif command == PIM_ACT:
        for other in range(bank, bank + table.banks_per_group):
            set_open(table, ch, 1 if table.dual else 0, other, row)
    else:
        ch.pim_readouts += 1
        ch.st_dots += ch.op_dots
        ch.st_results += 1
        if ch.pim_readouts == ch.op_readouts:
            ch.st_tiles += 1
            end_operation(ch, device, cycle, cycle + table.result_base + table.result_per_dot * dots)


@njit(cache=True)
def issue_refresh(table: Any, ch: Any, device: Any, cycle: int, command: int, bank: int) -> None:
    """Issue a close on the way to a refresh, or the refresh."""
    if command != REF:
        issue_close(table, ch, device, cycle, command, bank)
        return
    record(table, ch, device, cycle, REF, bank, -1, 0, -1)
    rank = bank // table.banks_per_rank
    ch.refresh_pending &= ~(np.int64(1) << np.int64(rank))
    ch.pim_waits_refresh = 0


@njit(cache=True)
def load_operation(ch: Any, operations: Array) -> None:
    """Make the next PIM macro-command of the channel the current one."""
    at = ch.source[PROGRAM, ch.source_head[PROGRAM] % MAX_ITEMS, 1]
    ch.op_kind, ch.op_row, ch.op_readouts = operations[at, 0], operations[at, 1], operations[at, 2]
    ch.op_dots, ch.op_release = operations[at, 3], operations[at, 4]
    ch.op_loaded = 1


@njit(cache=True)
def run_channel(
    table: Any, ch: Any, device: Any, operations: Array, trace: Array, now: int, limit: int
) -> None:
    """Issue all commands of one channel with cycle < limit, and note in ``next`` when it must be looked at again."""
    now = max(now, ch.next)
    log_room = MAX_LOG - 4
    while now < limit:
        next_event = limit
        if table.refresh_interval > 0:
            for rank in range(table.ranks):
                due = ch.next_refresh[rank]
                if due <= now:
                    ch.refresh_pending |= np.int64(1) << np.int64(rank)
                    ch.next_refresh[rank] = due + table.refresh_interval
                    due += table.refresh_interval
                next_event = min(next_event, due)
        arrivals = admit(table, ch, device, trace, now)
        arrivals = min(arrivals, move(table, ch, now))
        cycle, command, bank = refresh_candidate(table, ch)
        cause = 0
        if not ch.op_loaded and ch.source_head[PROGRAM] < ch.source_tail[PROGRAM]:
            load_operation(ch, operations)
        pim_cycle, pim_command, pim_bank = pim_candidate(table, ch, now)
        if pim_command < 0:
            next_event = min(next_event, max(pim_cycle, now + 1))
        elif max(pim_cycle, now) < max(cycle, now):
            cycle, command, bank, cause = pim_cycle, pim_command, pim_bank, 1
        memory_cycle, memory_command, memory_bank = memory_candidate(
            table, ch, now, pim_cycle, pim_command, pim_bank
        )
        if max(memory_cycle, now) < max(cycle, now):
            cycle, command, bank, cause = memory_cycle, memory_command, memory_bank, 2
        cycle = max(cycle, now)
        next_event = min(next_event, arrivals)
        if cycle >= next_event:
            if next_event >= limit:
                due = next_deadline(table, ch)
                if pim_command < 0:
                    due = min(due, pim_cycle)
                ch.next = min(cycle, min(arrivals, due))
                return
            now = next_event
            continue
        now = cycle
        if cause == 0:
            issue_refresh(table, ch, device, cycle, command, bank)
        elif cause == 1:
            issue_pim(table, ch, device, cycle, command, bank)
        else:
            issue_memory(table, ch, device, cycle, command, bank)
        if device.log_on and device.log_count >= log_room:
            ch.next = now
            return
    ch.next = now


@njit(cache=True)
def advance(tables: Any, channels: Any, devices: Any, operations: Array, trace: Array, limit: int) -> int:
    """Run all channels to ``limit`` or to the first completion, whichever is earlier, and return that cycle.

    Channels run in windows no longer than the shortest time from a command to the completion that it can cause, so no
    channel passes a cycle at which something outside could react. Returns early, at the cycle reached, when the log is full.
    """
    table, device = tables[0], devices[0]
    while True:
        stop = min(limit, device.next_done)
        time = device.time
        if time >= stop:
            return time
        first = NEVER
        for channel in range(table.channels):
            first = min(first, channels[channel].next)
        if first >= stop:
            device.time = stop
            return stop
        shortest = table.write_latency if device.active_writes > 0 else table.read_latency
        window = min(stop, max(time, first) + shortest)
        for channel in range(table.channels):
            ch = channels[channel]
            if ch.next < window:
                run_channel(table, ch, device, operations, trace, time, window)
                if device.log_on and device.log_count >= MAX_LOG - 4:
                    return time
        device.time = window


@njit(cache=True)
def take_done(devices: Any, time: int) -> int:
    """Move the finished items that are complete at ``time`` to the front of ``done``; returns how many there are."""
    device = devices[0]
    taken = 0
    upcoming = NEVER
    for index in range(device.n_done):
        item = device.done[index]
        if device.finish[item] <= time:
            device.done[index] = device.done[taken]
            device.done[taken] = item
            taken += 1
        else:
            upcoming = min(upcoming, device.finish[item])
    device.next_done = upcoming
    return taken

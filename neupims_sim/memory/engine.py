"""The compiled command-level memory engine.

One call of :func:`advance` moves all channels of a device forward in time, command by command, up to a limit or to the
first completion. Nothing ticks: each channel computes the earliest legal cycle of its next command and jumps there.

A channel looks again only at what has changed. :func:`run_channel` goes from event to event, and each kind of event has a
cycle of its own in the channel's record, set to 0 as soon as something that it depends on changes:

``refresh_due``: a rank's next refresh falls due.
``arrival``: a burst may be accepted, or moved from the transaction queue to its bank queue (:func:`admit`, :func:`move`).
``rethink``: the next command must be chosen again (:func:`choose`); until then it is ``chosen_command`` at ``chosen_cycle``.

Vocabulary
----------
item: a transfer or a PIM program that somebody outside waits for; it has a *part* on every channel that it touches.
run: consecutive bursts of one item in one row of one bank; queues hold runs, so that a row of 16 bursts is one entry.
local index: the burst index of an address with the channel bits taken out (:mod:`neupims_sim.memory.address`).
candidate: per bank, the one command that its queue wants next, given the row-buffer state.

State is plain data: one record per channel (:data:`CHANNEL`) and one for the device (:data:`DEVICE`). Compiled functions
receive records as pointers, which is what makes the small functions below free; their arrays therefore have fixed sizes.
"""

# Records are untyped to mypy, and NumPy's integers are the machine's in compiled code.
# mypy: disable-error-code="no-any-return,return-value"
from __future__ import annotations

from typing import Any

import numpy as np
from numba.cpython.unsafe.numbers import trailing_zeros

from neupims_sim.compiling import kept
from neupims_sim.memory.program import GWRITE as OP_GWRITE
from neupims_sim.memory.spec import (
    ACT,
    BANK,
    BANK_GROUP,
    COMMANDS,
    GEMV,
    GWRITE,
    HEADER,
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
)
from neupims_sim.memory.spec import (
    CHANNEL as CHANNEL_LEVEL,
)

compiled = kept(error_model="numpy")
"""Every function of the engine: no checks for division by zero inside."""

inlined = kept(error_model="numpy", inline="always")
"""For a few functions in the innermost loops that the compiler would leave as calls."""

NEVER = 1 << 62
N_COMMANDS = len(COMMANDS)

READ, WRITE, PROGRAM = 0, 1, 2
"""Kinds of items."""

# Sizes of the fixed-size arrays inside the records: limits of one channel, checked when a table is built. Rings have sizes
# that are powers of two.
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
LOG_ROOM = MAX_LOG - 4


def _record(*fields: tuple[Any, ...]) -> np.dtype[Any]:
    return np.dtype([(field[0], np.int64, field[1:]) if len(field) > 1 else (field[0], np.int64) for field in fields])


TABLE = _record(
    # Constraint rows (next, level, base, per_dot, window, history index), grouped by previous command. Of previous command p,
    # rows of one level are row_begin[p] : other_begin[p], then rows for several ranks of a pseudo-channel up to window_begin[p],
    # then rows with a window up to row_begin[p + 1].
    ("rows", MAX_ROWS, 6),
    ("row_begin", N_COMMANDS + 1), ("other_begin", N_COMMANDS), ("window_begin", N_COMMANDS),
    ("node", MAX_BANKS, BANK + 1),  # the bank's ancestor at each level, an index into CHANNEL.ready
    ("command_bus", N_COMMANDS), ("command_cycles", N_COMMANDS),
    ("delay_same", N_COMMANDS, N_COMMANDS),  # [previous, next]: longest distance when both address the same rank
    ("delay_other", N_COMMANDS, N_COMMANDS),  # the same for different ranks of a pseudo-channel
    ("delay_apart", N_COMMANDS, N_COMMANDS),  # the same for different pseudo-channels
    ("channels",), ("ranks",), ("banks",), ("banks_per_rank",), ("bank_groups",),
    ("ranks_per_pseudo_channel",),  # ranks counts those of all pseudo-channels
    ("rank_banks", MAX_RANKS),  # bit mask of the banks of each rank
    ("burst_cycles",), ("read_latency",), ("write_latency",), ("gwrite_latency",),
    ("result_base",), ("result_per_dot",),  # cycles from a GEMV's issue to its result
    ("gemv_gap_base",), ("gemv_gap_per_dot",),  # cycles from a GEMV to the next
    ("shortest",),  # fewest cycles from a command, or from the acceptance of a posted write, to the completion it can cause
    ("refresh_interval",),  # of one rank; 0: no refresh
    ("refresh_command",), ("refresh_units",),  # units: refresh commands that cover a rank
    ("refresh_banks",),  # banks of a unit; they lie refresh_units apart
    ("precharge_all",),
    ("queue_depth",), ("queue_mask",),  # the mask keeps a position in a bank queue's ring, the smallest that holds the depth
    ("transaction_depth",), ("outstanding_reads",), ("hit_cap",), ("drain_high",), ("drain_low",),
    ("posted_writes",),
    ("in_order",), ("oldest_first",),
    ("close_after",),  # cycles after which a row that nobody waits for is closed, or NEVER
    ("dual",),  # 1: PIM has row buffers of its own; 0: it shares them and owns the channel while it works
    ("pim_reserves",), ("pim_max_wait",), ("pipeline_dots",),
    ("pim_act_level",), ("pim_act_banks",),  # what one PIM_ACT opens
    ("coarse_estimate",),  # 1: the published artifact's estimate of a GEMV's length, 0: the real one
    ("refresh_interrupts",),  # whether a refresh interrupts a PIM macro-command, or waits for its end
    ("column_shift",), ("column_bits",), ("row_shift",), ("row_bits",), ("pseudo_shift",), ("pseudo_bits",),
    ("rank_shift",), ("rank_bits",), ("group_shift",), ("group_bits",), ("bank_shift",), ("bank_bits",),
)  # fmt: skip

CHANNEL = _record(
    ("index",),
    ("next",),  # cycle of the channel's next event; it need not be looked at before
    ("reached",),  # cycle to which it was run last
    ("refresh_due",), ("arrival",), ("rethink",),  # cycles of its kinds of events (see above)
    ("chosen_cycle",), ("chosen_command",), ("chosen_bank",),
    ("chosen_by",),  # who wants it: FOR_REFRESH, FOR_PIM or FOR_MEMORY
    ("bus", 2),  # first cycle at which each command bus is free
    ("round_robin",),  # bank after the one served last
    ("queued",),  # bursts in all bank queues
    ("last_admit",), ("last_move",),  # cycles at which a burst was last accepted, and last moved to a bank queue
    ("draining",),  # writes still to move in the current drain
    ("in_flight",),  # reads accepted and not known to have returned (looked up when the limit on outstanding reads is reached)
    ("returns_head",), ("returns_tail",),
    ("refresh_pending",),  # bit per rank
    ("refreshes_owed", MAX_RANKS),  # refreshes due and not yet issued
    ("refresh_unit", MAX_RANKS),  # the unit that is refreshed next
    ("pim_started",),  # whether the current macro-command has passed its deadline check
    ("pim_header_done",),
    ("pim_readouts",),  # GEMVs issued of the current tile
    ("pim_waits_refresh",),  # no macro-command starts before the next refresh
    ("pim_free",),  # cycle at which a GWRITE has ended and the next macro-command may start
    ("pim_since",),  # cycle at which the current macro-command could have started
    ("pim_busy_since",),  # cycle at which the PIM queue became non-empty, or NEVER
    ("op_loaded",), ("op_kind",), ("op_row",), ("op_readouts",), ("op_dots",), ("op_release",),  # current PIM macro-command
    # A source of requests, which offers those of a replayed trace in order, one per cycle. Each channel has one of its own, or
    # that of the first channel serves them all (DEVICE.one_source).
    ("trace_next",), ("trace_end",),  # its part of the trace
    ("trace_more",),  # whether more of the trace will be given
    ("trace_free",),  # cycle from which on it offers the next request
    ("accepted_runs",),  # runs that the transaction queues have held so far
    ("transaction_runs", 2), ("transaction_bursts", 2),
    ("source_head", 3), ("source_tail", 3),
    ("st_accept_sum",), ("st_return_sum",),  # sums of acceptance and return cycles of reads, the second of those issued
    ("st_dots",), ("st_results",), ("st_tiles",), ("st_pim_busy",), ("st_last_memory",), ("st_last_pim",),
    ("counts", N_COMMANDS),
    ("open_mask", 2),  # bit per bank with an open row
    ("idle",),  # bit per bank whose open row nobody waits for, where such rows are closed
    ("close_at", MAX_BANKS),  # cycle from which on such a row is closed
    ("open_since", 2, MAX_RANKS), ("st_open", 2, MAX_RANKS),  # cycles with a row open in a rank, per row buffer
    ("mask", N_COMMANDS),  # bit per bank whose candidate it is
    ("room",),  # bit per bank whose queue has room
    ("waiting", 2),  # bit per bank for which a run waits in the transaction queue
    ("next_refresh", MAX_RANKS),
    ("open_row", 2, MAX_BANKS),  # the open row or -1; buffer 0 is the memory row buffer, 1 the PIM row buffer
    ("hits", MAX_BANKS),  # column commands since the row was opened
    ("queue_head", MAX_BANKS), ("queue_runs", MAX_BANKS), ("queue_bursts", MAX_BANKS),
    ("candidate", MAX_BANKS),  # the bank's candidate command or -1
    ("candidate_run", MAX_BANKS),  # position, from the queue head, of the run that the candidate serves
    ("waiting_runs", 2, MAX_BANKS),  # runs in the transaction queue per bank
    # [command, node]: first cycle at which the command is legal as far as this node of the hierarchy knows.
    ("ready", N_COMMANDS, MAX_NODES),
    ("history", MAX_WINDOWS, MAX_NODES, MAX_WINDOW),  # rings of the last cycles of past commands, for rows with a window
    ("history_at", MAX_WINDOWS, MAX_NODES),
    # Accepted runs (bank, row, bursts, item, end, number) not in a bank queue yet. end: the column after the last burst, number:
    # how many runs were accepted before it.
    ("transaction", 2, MAX_TRANSACTIONS, 6),
    ("oldest", 2, MAX_TRANSACTIONS),  # places of these runs in ``transaction``, by age; after them the free places
    ("queue", MAX_BANKS, MAX_QUEUE, 6),  # ring of runs (row, bursts, item, kind, end, number) per bank
    ("source", 3, MAX_ITEMS, 3),  # rings of items to do (item, cursor, end); cursor: a local index, or an operation
    ("left", MAX_ITEMS),  # per item: bursts not issued (posted writes: not accepted) yet, or cycles that operations not begun need
    ("returns", MAX_RETURNS),  # ring of return cycles of reads in flight (for the outstanding limit)
)  # fmt: skip

DEVICE = _record(
    ("time",),
    ("items_end",),  # items have smaller numbers
    ("kind", MAX_ITEMS), ("parts", MAX_ITEMS),  # of items; parts: channels on which work is left
    ("finish", MAX_ITEMS),  # the latest completion so far
    ("done", MAX_ITEMS), ("n_done",),  # finished items whose completion has not been reported
    ("next_done",),  # the earliest of their completions, or NEVER
    ("horizon",),  # a cycle before which no item completes
    ("most_window",),  # channels run apart from each other for no more cycles than this
    ("one_source",),  # whether one source of requests serves all channels
    ("trace_starved",),  # a source has come to the end of its part of the trace, and more will be given
    ("log", MAX_LOG, 7), ("log_count",), ("log_on",),  # issued commands (cycle, channel, command, bank, row, column, tag)
)  # fmt: skip

OPERATION = _record(("kind",), ("row",), ("readouts",), ("dots",), ("release",), ("least",))
"""A PIM macro-command; release: cycle before which it may not start, least: cycles that it takes at least."""

REQUEST = _record(("channel",), ("local",), ("kind",), ("cycle",), ("item",))
"""One burst of a replayed trace: its channel and local index, READ or WRITE, and the cycle from which on it is offered."""

FOR_REFRESH, FOR_PIM, FOR_MEMORY = 0, 1, 2
"""Who wants the command that a channel has chosen."""


@compiled
def bit(bank: int) -> int:
    """The mask of one bank (or rank)."""
    return np.int64(1) << np.int64(bank)


@compiled
def earliest(table: Any, ch: Any, command: int, bank: int, level: int) -> int:
    """First legal cycle of a command that addresses ``bank``'s ancestor at ``level``."""
    ready, node = ch.ready[command], table.node[bank]
    cycle = max(ready[0], ch.bus[table.command_bus[command]])
    if level >= RANK:
        cycle = max(cycle, ready[node[RANK]])
    if level >= BANK_GROUP:
        cycle = max(cycle, ready[node[BANK_GROUP]])
    if level >= BANK:
        cycle = max(cycle, ready[node[BANK]])
    return cycle


@compiled
def record(
    table: Any, ch: Any, device: Any, cycle: int, command: int, bank: int, row: int, column: int, dots: int, tag: int
) -> None:
    """Note that ``command`` issues at ``cycle``: command bus, counters, log, and every constraint that it starts."""
    ch.rethink = 0
    ch.bus[table.command_bus[command]] = cycle + table.command_cycles[command]
    ch.counts[command] += 1
    if device.log_on:
        entry = device.log[device.log_count]
        entry[0], entry[1], entry[2], entry[3], entry[4], entry[5] = cycle, ch.index, command, bank, row, column
        entry[6] = tag
        device.log_count += 1
    restrain(table, ch, cycle, command, bank, dots)
    for index in range(table.other_begin[command], table.window_begin[command]):
        rule = table.rows[index]
        own = table.node[bank, RANK]
        first = own - (own - 1) % table.ranks_per_pseudo_channel
        for node in range(first, first + table.ranks_per_pseudo_channel):
            if node != own or rule[1] == PSEUDO_CHANNEL:
                delay_node(ch, rule[0], node, cycle + rule[2])
    for index in range(table.window_begin[command], table.row_begin[command + 1]):
        rule = table.rows[index]
        node = table.node[bank, rule[1]]
        last = cycle + table.command_cycles[command] - 1
        delay_node(ch, rule[0], node, push_history(ch, rule[5], node, rule[4], last) + rule[2])


@inlined
def restrain(table: Any, ch: Any, cycle: int, command: int, bank: int, dots: int) -> None:
    """Start the constraints of ``command`` that count from this one command only, at every level above ``bank``."""
    for index in range(table.row_begin[command], table.other_begin[command]):
        rule = table.rows[index]
        delay_node(ch, rule[0], table.node[bank, rule[1]], cycle + rule[2] + rule[3] * dots)


@inlined
def delay_node(ch: Any, command: int, node: int, cycle: int) -> None:
    """``command`` may not issue below ``node`` before ``cycle``."""
    if ch.ready[command, node] < cycle:
        ch.ready[command, node] = cycle


@compiled
def push_history(ch: Any, history: int, node: int, window: int, cycle: int) -> int:
    """Remember a command's last cycle; returns that of the command ``window - 1`` before it."""
    at = ch.history_at[history, node]
    ch.history[history, node, at] = cycle
    at = at + 1 if at + 1 < window else 0
    ch.history_at[history, node] = at
    return ch.history[history, node, at]


@compiled
def set_candidate(table: Any, ch: Any, bank: int) -> None:
    """Work out which command the bank's queue wants next (FR-FCFS: first hit, unless the cap lets the conflict at the head win)."""
    command, position = -1, 0
    runs = ch.queue_runs[bank]
    if table.close_after < NEVER:
        if runs == 0 and ch.open_row[0, bank] >= 0:
            ch.idle |= bit(bank)
            ch.rethink = 0
        else:
            ch.idle &= ~bit(bank)
    if runs > 0:
        head, row = ch.queue_head[bank], ch.open_row[0, bank]
        if row < 0:
            command = ACT
        elif ch.queue[bank, head, 0] == row:
            command = RD + ch.queue[bank, head, 3]
        else:
            command = PRE
            if ch.hits[bank] < table.hit_cap:
                for other in range(1, runs):
                    at = (head + other) & table.queue_mask
                    if ch.queue[bank, at, 0] == row:
                        command, position = RD + ch.queue[bank, at, 3], other
                        break
    old = ch.candidate[bank]
    if old != command:
        if old >= 0:
            ch.mask[old] &= ~bit(bank)
        if command >= 0:
            ch.mask[command] |= bit(bank)
        ch.candidate[bank] = command
        ch.rethink = 0
    ch.candidate_run[bank] = position


@compiled
def push_bank(table: Any, ch: Any, run: Any, kind: int) -> None:
    """Append the first burst of a run of the transaction queue to its bank queue, to the last run there if it continues that."""
    bank, column = run[0], run[4] - run[2]
    runs = ch.queue_runs[bank]
    bursts_queued = ch.queue_bursts[bank] + 1
    ch.queue_bursts[bank] = bursts_queued
    if bursts_queued >= table.queue_depth:
        ch.room &= ~bit(bank)
    ch.queued += 1
    if runs > 0:
        last = ch.queue[bank, (ch.queue_head[bank] + runs - 1) & table.queue_mask]
        if last[4] == column and last[0] == run[1] and last[2] == run[3] and last[3] == kind:
            last[1] += 1
            last[4] = column + 1
            return
    entry = ch.queue[bank, (ch.queue_head[bank] + runs) & table.queue_mask]
    entry[0], entry[1], entry[2], entry[3], entry[4], entry[5] = run[1], 1, run[3], kind, column + 1, run[5]
    ch.queue_runs[bank] = runs + 1
    # An older run decides the candidate unless it waits for a conflict that this hit may overtake.
    if runs == 0 or ch.candidate[bank] == PRE:
        set_candidate(table, ch, bank)


@compiled
def pop_burst(table: Any, ch: Any, bank: int, position: int) -> tuple[int, int]:
    """Take one burst from the run at ``position`` of a bank queue; returns its item and its column."""
    head = ch.queue_head[bank]
    run = ch.queue[bank, (head + position) & table.queue_mask]
    item, column = run[2], run[4] - run[1]
    ch.queue_bursts[bank] -= 1
    ch.room |= bit(bank)
    ch.queued -= 1
    ch.arrival = 0
    run[1] -= 1
    if run[1] == 0:
        for back in range(position, 0, -1):
            to, origin = (head + back) & table.queue_mask, (head + back - 1) & table.queue_mask
            for field in range(6):
                ch.queue[bank, to, field] = ch.queue[bank, origin, field]
        ch.queue_head[bank] = (head + 1) & table.queue_mask
        ch.queue_runs[bank] -= 1
        set_candidate(table, ch, bank)
    elif ch.hits[bank] >= table.hit_cap:
        set_candidate(table, ch, bank)
    return item, column


@compiled
def finish_part(device: Any, item: int, cycle: int) -> None:
    """One channel has done its part of an item, complete at ``cycle``."""
    device.finish[item] = max(device.finish[item], cycle)
    device.parts[item] -= 1
    if device.parts[item] == 0:
        count = device.n_done
        device.done[count] = item
        device.n_done = count + 1
        device.next_done = min(device.next_done, device.finish[item])


@compiled
def finish_burst(ch: Any, device: Any, item: int, cycle: int) -> None:
    """One burst of an item completes at ``cycle``."""
    ch.st_last_memory = max(ch.st_last_memory, cycle)
    ch.left[item] -= 1
    if ch.left[item] == 0:
        finish_part(device, item, cycle)


@compiled
def accept(table: Any, ch: Any, device: Any, cycle: int, kind: int, local: int, item: int) -> None:
    """Put one burst at the end of the transaction queue."""
    row = (local >> table.row_shift) & ((1 << table.row_bits) - 1)
    column = (local >> table.column_shift) & ((1 << table.column_bits) - 1)
    bank = (local >> table.rank_shift) & ((1 << table.rank_bits) - 1)
    if table.pseudo_bits > 0:
        bank |= ((local >> table.pseudo_shift) & ((1 << table.pseudo_bits) - 1)) << table.rank_bits
    bank = (bank << table.group_bits) | ((local >> table.group_shift) & ((1 << table.group_bits) - 1))
    bank = (bank << table.bank_bits) | ((local >> table.bank_shift) & ((1 << table.bank_bits) - 1))
    ch.transaction_bursts[kind] += 1
    ch.last_admit = cycle
    if kind == READ:
        ch.st_accept_sum += cycle
        ch.in_flight += 1
    elif table.posted_writes:
        finish_burst(ch, device, item, cycle + table.write_latency)
    runs = ch.transaction_runs[kind]
    if runs > 0:
        last = ch.transaction[kind, ch.oldest[kind, runs - 1]]
        if last[4] == column and last[0] == bank and last[1] == row and last[3] == item:
            last[2] += 1
            last[4] = column + 1
            return
    number = ch.accepted_runs
    ch.accepted_runs = number + 1
    entry = ch.transaction[kind, ch.oldest[kind, runs]]
    entry[0], entry[1], entry[2], entry[3], entry[4], entry[5] = bank, row, 1, item, column + 1, number
    ch.transaction_runs[kind] = runs + 1
    ch.waiting_runs[kind, bank] += 1
    ch.waiting[kind] |= bit(bank)


@compiled
def may_accept(table: Any, ch: Any, kind: int) -> bool:
    """Whether the transaction queue (and, for reads, the requester's outstanding limit) has room for one more burst."""
    if ch.transaction_bursts[kind] >= table.transaction_depth:
        return False
    return kind == WRITE or ch.in_flight < table.outstanding_reads


@compiled
def retry(table: Any, ch: Any, kind: int) -> int:
    """When a burst of ``kind`` that may not be accepted now could be: the next return of a read, if that is what it waits for."""
    if kind == READ and ch.in_flight >= table.outstanding_reads and ch.returns_head < ch.returns_tail:
        return ch.returns[ch.returns_head & (MAX_RETURNS - 1)]
    return NEVER


@compiled
def take_returns(ch: Any, now: int) -> None:
    """Forget the reads that have returned."""
    head, tail = ch.returns_head, ch.returns_tail
    while head < tail and ch.returns[head & (MAX_RETURNS - 1)] <= now:
        head += 1
    ch.in_flight -= head - ch.returns_head
    ch.returns_head = head


@compiled
def admit(table: Any, ch: Any, device: Any, now: int) -> int:
    """Accept at most one read and one write of waiting items this cycle. Returns the next cycle at which more could be accepted."""
    fresh = ch.last_admit < now
    again = NEVER
    for kind in range(2):
        if ch.source_head[kind] == ch.source_tail[kind]:
            continue
        if fresh and may_accept(table, ch, kind):
            admit_next(table, ch, device, now, kind)
            if ch.source_head[kind] == ch.source_tail[kind]:
                continue
        again = min(again, now + 1 if may_accept(table, ch, kind) else retry(table, ch, kind))
    return again


@compiled
def admit_next(table: Any, ch: Any, device: Any, now: int, kind: int) -> None:
    """Accept the next burst of the oldest waiting item."""
    head = ch.source_head[kind]
    part = ch.source[kind, head & (MAX_ITEMS - 1)]
    local = part[1]
    part[1] = local + 1
    if local + 1 == part[2]:
        ch.source_head[kind] = head + 1
    accept(table, ch, device, now, kind, local, part[0])


@compiled
def admit_request(table: Any, ch: Any, source: Any, device: Any, trace: Any, now: int) -> int:
    """Accept the next request of the channel's source if it is for this channel and may be; returns when to try again."""
    request = trace[source.trace_next]
    if request.channel != ch.index:
        return NEVER
    start = max(request.cycle, source.trace_free)
    if start > now:
        return start
    if not may_accept(table, ch, request.kind):
        return retry(table, ch, request.kind)
    accept(table, ch, device, now, request.kind, request.local, request.item)
    source.trace_next += 1
    source.trace_free = now + 1
    return now + 1


@compiled
def incoming(ch: Any, source: Any, kind: int, now: int) -> bool:
    """Whether bursts of this kind are still to be accepted; of a trace, whether its last request has not been."""
    if ch.source_head[kind] < ch.source_tail[kind]:
        return True
    return source.trace_next < source.trace_end or source.trace_more or now + 1 < source.trace_free


@compiled
def choose_transactions(table: Any, ch: Any, source: Any, now: int) -> int:
    """Which transaction queue feeds the bank queues now: reads, unless a write drain is on."""
    writes = ch.transaction_bursts[WRITE]
    if ch.draining == 0 and writes > 0:
        idle = ch.queued == 0
        only_writes = ch.transaction_bursts[READ] == 0 and not incoming(ch, source, READ, now)
        if writes >= table.drain_high or (idle and writes > table.drain_low) or (idle and only_writes):
            ch.draining = writes
    return WRITE if ch.draining > 0 else READ


@compiled
def pim_owns_channel(table: Any, ch: Any, now: int) -> bool:
    """Whether no request may enter a bank queue because PIM, which shares the row buffers and has work, does it or is about to."""
    return table.pim_max_wait == 0 or ch.pim_started or (ch.op_loaded and now - ch.pim_since >= table.pim_max_wait)


@compiled
def move(table: Any, ch: Any, source: Any, now: int) -> int:
    """Move one burst per cycle from the transaction queue to its bank queue: the oldest whose bank has room.

    Returns the next cycle at which another burst could move.
    """
    if not table.dual and ch.source_head[PROGRAM] < ch.source_tail[PROGRAM] and pim_owns_channel(table, ch, now):
        return NEVER
    if table.in_order and ch.queued > 0:
        return NEVER
    kind = choose_transactions(table, ch, source, now)
    runs = ch.transaction_runs[kind]
    if runs == 0:
        return NEVER
    if ch.last_move >= now:
        return now + 1
    takers = ch.waiting[kind] & ch.room
    if takers == 0:
        return NEVER
    position = 0
    while takers & bit(ch.transaction[kind, ch.oldest[kind, position], 0]) == 0:
        position += 1
    entry = ch.transaction[kind, ch.oldest[kind, position]]
    push_bank(table, ch, entry, kind)
    ch.last_move = now
    ch.transaction_bursts[kind] -= 1
    if kind == WRITE:
        ch.draining -= 1
    entry[2] -= 1
    if entry[2] == 0:
        remove_transaction(ch, kind, position)
    return now + 1


@compiled
def remove_transaction(ch: Any, kind: int, position: int) -> None:
    """Take a run whose last burst has moved out of the transaction queue."""
    place = ch.oldest[kind, position]
    bank = ch.transaction[kind, place, 0]
    ch.waiting_runs[kind, bank] -= 1
    if ch.waiting_runs[kind, bank] == 0:
        ch.waiting[kind] &= ~bit(bank)
    runs = ch.transaction_runs[kind] - 1
    ch.transaction_runs[kind] = runs
    for later in range(position, runs):
        ch.oldest[kind, later] = ch.oldest[kind, later + 1]
    ch.oldest[kind, runs] = place


@compiled
def close_command(table: Any, buffer: int) -> int:
    """The command that closes a row buffer."""
    return PIM_PRE if buffer == 1 else PRE


@compiled
def first_close(table: Any, ch: Any, buffer: int, banks: int) -> tuple[int, int, int]:
    """The earliest close of an open row among ``banks`` (a bit mask): (cycle, command, bank); lowest bank first among equals.

    One PREA where the controller uses it, and these are several banks, and all that are open in their rank.
    """
    if table.precharge_all and buffer == 0:
        bank = trailing_zeros(banks)
        in_rank = ch.open_mask[0] & table.rank_banks[table.node[bank, RANK] - 1]
        if in_rank & (in_rank - 1) and in_rank & ~banks == 0:
            return earliest(table, ch, PREA, bank, RANK), PREA, bank
    command = close_command(table, buffer)
    floor = max(ch.ready[command, 0], ch.bus[table.command_bus[command]])
    best, chosen = NEVER, -1
    while banks:
        bank = trailing_zeros(banks)
        banks &= banks - 1
        cycle = earliest(table, ch, command, bank, BANK)
        if cycle < best:
            best, chosen = cycle, bank
            if cycle <= floor:
                break
    return best, command, chosen


@compiled
def refresh_candidate(table: Any, ch: Any) -> tuple[int, int, int]:
    """Towards the refresh of the first pending rank: close the banks, then the refresh. (cycle, command, bank)."""
    pending = ch.refresh_pending
    if pending == 0 or (ch.pim_started and not table.refresh_interrupts):
        return NEVER, -1, -1
    rank = trailing_zeros(pending)
    banks = refreshed_banks(table, ch, rank)
    for buffer in range(2):
        still_open = ch.open_mask[buffer] & banks
        if still_open:
            return first_close(table, ch, buffer, still_open)
    bank = rank * table.banks_per_rank + ch.refresh_unit[rank]
    if table.refresh_command == REF:
        return earliest(table, ch, REF, bank, RANK), REF, bank
    cycle = np.int64(0)
    while banks:
        cycle = max(cycle, earliest(table, ch, REFPB, trailing_zeros(banks), BANK))
        banks &= banks - 1
    return cycle, REFPB, bank


@compiled
def refreshed_banks(table: Any, ch: Any, rank: int) -> int:
    """Bit mask of the banks that the next refresh of a rank refreshes."""
    if table.refresh_command == REF:
        return table.rank_banks[rank]
    banks = np.int64(0)
    first = rank * table.banks_per_rank + ch.refresh_unit[rank]
    for index in range(table.refresh_banks):
        banks |= bit(first + index * table.refresh_units)
    return banks


@compiled
def banks_at(ch: Any, buffer: int, row: int) -> int:
    """Bit mask of the banks that have ``row`` open."""
    found = np.int64(0)
    banks = ch.open_mask[buffer]
    while banks:
        bank = trailing_zeros(banks)
        banks &= banks - 1
        if ch.open_row[buffer, bank] == row:
            found |= bit(bank)
    return found


@compiled
def banks_to_close(table: Any, ch: Any, row: int) -> int:
    """Bit mask of the banks that a tile must close before its HEADER: all that are open, but for sets open at ``row``.

    PIM_ACT opens a set of banks at once, so a set that is open in part has to be closed.
    """
    buffer = 1 if table.dual else 0
    right = banks_at(ch, buffer, row)
    keep = np.int64(0)
    together = bit(table.pim_act_banks) - 1 if table.pim_act_banks < MAX_BANKS else np.int64(-1)
    for _ in range(table.banks // table.pim_act_banks):
        if right & together == together:
            keep |= together
        together <<= table.pim_act_banks
    return ch.open_mask[buffer] & ~keep


@compiled
def macro_length(table: Any, ch: Any, kind: int, row: int, readouts: int, dots: int) -> int:
    """Bound on the cycles from now to the end of a macro-command, for the refresh deadline (NeuPIMs section 5.2)."""
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
    banks = banks_to_close(table, ch, row)
    while banks:
        closes += 1
        banks &= banks - 1
    per_rank = table.banks_per_rank // table.pim_act_banks
    activations = table.delay_same[PIM_ACT, ACT] * (per_rank - 1) + table.delay_same[PIM_ACT, GEMV]
    gap = max(0, ch.ready[PIM_PRE if table.dual else PRE, 0] - max(ch.bus[0], ch.ready[HEADER, 0]))
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
    between = table.gemv_gap_base + table.gemv_gap_per_dot * dots
    return length + gap + (readouts - 1) * between + table.result_base + table.result_per_dot * dots


@compiled
def pim_candidate(table: Any, ch: Any, now: int) -> tuple[int, int, int]:
    """The next command of the current PIM macro-command: (cycle, command, bank)."""
    if not table.dual and ch.queued > 0:
        return NEVER, -1, -1  # single row buffer: requests already in bank queues go first
    kind, row, readouts = ch.op_kind, ch.op_row, ch.op_readouts
    dots = max(ch.op_dots, table.pipeline_dots)
    if ch.pim_started:
        if ch.refresh_pending and table.refresh_interrupts:
            return NEVER, -1, -1  # the estimate fell short: the refresh closes rows, the tile opens them again
    else:
        if ch.refresh_pending or ch.pim_waits_refresh:
            return NEVER, -1, -1
        if max(ch.op_release, ch.pim_free) > now:
            return max(ch.op_release, ch.pim_free), -1, -1
        give_way = min(table.pim_max_wait, NEVER - ch.pim_since) + ch.pim_since
        if give_way > now and (ch.queued > 0 or ch.transaction_runs[READ] > 0):
            return give_way, -1, -1
        first = GWRITE if kind == OP_GWRITE else HEADER
        start = max(max(now, ch.bus[0]), ch.ready[first, 0])
        length = macro_length(table, ch, kind, row, readouts, dots)
        # A macro-command that fits between no two refreshes starts all the same: the refresh is late by at most its length.
        refresh_length = table.delay_same[table.refresh_command, ACT]
        fits_after_refresh = length < table.refresh_interval // table.ranks - refresh_length
        if start + length >= ch.refresh_due and fits_after_refresh:
            ch.pim_waits_refresh = 1
            return NEVER, -1, -1
        ch.pim_started = 1
    if kind == OP_GWRITE:
        opened = ch.open_row[0, 0]
        if opened == row:
            return earliest(table, ch, GWRITE, 0, BANK), GWRITE, 0
        if opened >= 0:
            return earliest(table, ch, PRE, 0, BANK), PRE, 0
        if ch.open_row[1, 0] == row:
            return earliest(table, ch, PIM_PRE, 0, BANK), PIM_PRE, 0
        return earliest(table, ch, ACT, 0, BANK), ACT, 0
    buffer = 1 if table.dual else 0
    if not ch.pim_header_done:
        if table.dual:
            clash = banks_at(ch, 0, row)
            if clash:
                return first_close(table, ch, 0, clash)
        conflict = banks_to_close(table, ch, row)
        if conflict:
            return first_close(table, ch, buffer, conflict)
        return earliest(table, ch, HEADER, 0, CHANNEL_LEVEL), HEADER, 0
    best, chosen = NEVER, -1
    for bank in range(0, table.banks, table.pim_act_banks):
        if ch.open_row[buffer, bank] < 0:
            cycle = earliest(table, ch, PIM_ACT, bank, table.pim_act_level)
            if cycle < best:
                best, chosen = cycle, bank
    if chosen >= 0:
        return best, PIM_ACT, chosen
    return earliest(table, ch, GEMV, 0, CHANNEL_LEVEL), GEMV, 0


@compiled
def memory_candidate(table: Any, ch: Any, now: int, pim: tuple[int, int, int]) -> tuple[int, int, int]:
    """The earliest command that any bank queue wants, column commands first among equals, round-robin over banks.

    Banks of a rank that waits for its refresh are left out. ``pim``: the command that PIM waits for, (cycle, command, bank).
    """
    best, best_command, best_bank = NEVER, -1, -1
    if ch.queued == 0 and ch.idle == 0:
        return best, best_command, best_bank
    allowed = ~pending_banks(table, ch) if ch.refresh_pending else np.int64(-1)
    ready = now if table.oldest_first else np.int64(0)  # banks in turn: what has been legal for longest goes first
    beside_pim_rows = table.dual and (ch.pim_started or ch.open_mask[1] != 0)
    for index in range(4):
        command = RD if index == 0 else WR if index == 1 else ACT if index == 2 else PRE
        banks = ch.mask[command] & allowed
        if command == PRE:
            banks &= ~copied_bank(ch)
        if banks == 0:
            continue
        floor = max(earliest_anywhere(table, ch, command), ready)
        if floor >= best:
            continue
        if command == ACT and beside_pim_rows:
            banks, leftover = sort_by_pim_row(ch, banks, pim[1])
            close_floor = max(earliest_anywhere(table, ch, PIM_PRE), ready)
            cycle, bank = first_bank(table, ch, PIM_PRE, leftover, close_floor, best, (NEVER, -1, -1))
            if cycle < best:
                best, best_command, best_bank = cycle, PIM_PRE, bank
        cycle, bank = first_bank(table, ch, command, banks, floor, best, pim)
        if cycle < best:
            if table.oldest_first:
                bank = oldest_bank(table, ch, command, banks, cycle, pim)
            best, best_command, best_bank = cycle, command, bank
    if ch.idle and (table.dual or not ch.pim_started):
        cycle, bank = first_idle(table, ch, ch.idle & allowed & ~copied_bank(ch), best)
        if cycle < best:
            best, best_command, best_bank = cycle, PRE, bank
    return best, best_command, best_bank


@compiled
def copied_bank(ch: Any) -> int:
    """Bit mask of the bank whose row a GWRITE is about to copy; it stays open."""
    return 1 if ch.pim_started and ch.op_kind == OP_GWRITE and ch.open_row[0, 0] == ch.op_row else 0


@compiled
def first_idle(table: Any, ch: Any, banks: int, best: int) -> tuple[int, int]:
    """Which row that nobody waits for is closed first among ``banks``, and when; (best, -1) if none before ``best``."""
    chosen = -1
    while banks:
        bank = trailing_zeros(banks)
        banks &= banks - 1
        cycle = max(earliest(table, ch, PRE, bank, BANK), ch.close_at[bank])
        if cycle < best:
            best, chosen = cycle, bank
    return best, chosen


@compiled
def pending_banks(table: Any, ch: Any) -> int:
    """Bit mask of the banks that wait for a refresh."""
    banks = np.int64(0)
    pending = ch.refresh_pending
    while pending:
        banks |= refreshed_banks(table, ch, trailing_zeros(pending))
        pending &= pending - 1
    return banks


@compiled
def earliest_anywhere(table: Any, ch: Any, command: int) -> int:
    """A cycle before which ``command`` is legal in no bank: what the command bus, the channel and every rank allow."""
    ready = ch.ready[command]
    ranks = ready[1]
    for rank in range(1, table.ranks):
        ranks = min(ranks, ready[1 + rank])
    return max(max(ready[0], ch.bus[table.command_bus[command]]), ranks)


@compiled
def first_bank(
    table: Any, ch: Any, command: int, banks: int, floor: int, best: int, pim: tuple[int, int, int]
) -> tuple[int, int]:
    """Which of ``banks`` (a bit mask) may issue ``command`` first, and when; (best, -1) if none before ``best``.

    Among equals: the first in round-robin order. ``floor``: no bank may be earlier than this. While a PIM command waits, a
    command that would push it further back is held, if the table says that PIM reserves its slots.
    """
    ready = ch.ready[command]
    first_group = 1 + table.ranks
    first_bank = first_group + table.ranks * table.bank_groups
    start = np.int64(-1) << ch.round_robin
    chosen, group, group_cycle, hold_from = -1, -1, floor, NEVER
    for half in range(2):
        part = banks & start if half == 0 else banks & ~start
        while part:
            bank = trailing_zeros(part)
            part &= part - 1
            if bank >> table.bank_bits != group:
                group = bank >> table.bank_bits
                rank = group >> table.group_bits
                group_cycle = max(floor, max(ready[first_group + group], ready[1 + rank]))
                if table.pim_reserves and pim[1] >= 0:
                    hold_from = pim[0] + 1 - delay_to_pim(table, command, rank, pim[1], pim[2])
            cycle = max(group_cycle, ready[first_bank + bank])
            if cycle < best and not hold_from <= cycle < pim[0]:
                best, chosen = cycle, bank
                if cycle <= floor:
                    return best, chosen
    return best, chosen


@compiled
def oldest_bank(table: Any, ch: Any, command: int, banks: int, cycle: int, pim: tuple[int, int, int]) -> int:
    """Of ``banks`` that may issue ``command`` at ``cycle``, that whose request was accepted first (runs count as a whole)."""
    chosen, oldest = -1, NEVER
    while banks:
        bank = trailing_zeros(banks)
        banks &= banks - 1
        number = ch.queue[bank, (ch.queue_head[bank] + ch.candidate_run[bank]) & table.queue_mask, 5]
        if number < oldest and earliest(table, ch, command, bank, BANK) <= cycle:
            delay = delay_to_pim(table, command, table.node[bank, RANK] - 1, pim[1], pim[2]) if pim[1] >= 0 else 0
            if not (table.pim_reserves and pim[0] - delay < cycle < pim[0]):
                chosen, oldest = bank, number
    return chosen


@compiled
def delay_to_pim(table: Any, command: int, rank: int, pim_command: int, pim_bank: int) -> int:
    """Cycles from ``command`` in ``rank`` to the PIM command."""
    whole = pim_command in (GEMV, HEADER)
    pim_rank = table.node[pim_bank, RANK] - 1
    if whole or rank == pim_rank:
        return table.delay_same[command, pim_command]
    if rank // table.ranks_per_pseudo_channel != pim_rank // table.ranks_per_pseudo_channel:
        return table.delay_apart[command, pim_command]
    return table.delay_other[command, pim_command]


@compiled
def sort_by_pim_row(ch: Any, banks: int, pim_command: int) -> tuple[int, int]:
    """Of banks that want a row opened: those that may, and those whose PIM row buffer must be closed first (bit masks).

    A row must not be open in both row buffers. No row is opened that a tile uses or is about to; one left over in a PIM
    row buffer is closed there first.
    """
    free, leftover = banks, np.int64(0)
    tile_row = ch.op_row if ch.pim_started and ch.op_kind != OP_GWRITE else -1
    while banks:
        bank = trailing_zeros(banks)
        banks &= banks - 1
        wanted = ch.queue[bank, ch.queue_head[bank], 0]
        if ch.open_row[1, bank] == wanted:
            free &= ~bit(bank)
            if not ch.pim_started or pim_command == HEADER:
                leftover |= bit(bank)
        elif wanted == tile_row:
            free &= ~bit(bank)
    return free, leftover


@compiled
def set_open(table: Any, ch: Any, buffer: int, bank: int, row: int, cycle: int) -> None:
    """Open (row >= 0) or close (-1) a row buffer."""
    rank = table.node[bank, RANK] - 1
    in_rank = table.rank_banks[rank]
    ch.open_row[buffer, bank] = row
    if row >= 0:
        if ch.open_mask[buffer] & in_rank == 0:
            ch.open_since[buffer, rank] = cycle
        ch.open_mask[buffer] |= bit(bank)
    else:
        ch.open_mask[buffer] &= ~bit(bank)
        if ch.open_mask[buffer] & in_rank == 0:
            ch.st_open[buffer, rank] += cycle - ch.open_since[buffer, rank]
    if buffer == 0:
        ch.hits[bank] = 0
        if table.close_after < NEVER:
            ch.close_at[bank] = cycle + table.close_after
        set_candidate(table, ch, bank)


@compiled
def end_operation(ch: Any, device: Any, cycle: int, complete: int) -> None:
    """The current macro-command has issued its last command; its result is there at ``complete``."""
    ch.pim_started = 0
    ch.pim_header_done = 0
    ch.pim_readouts = 0
    ch.op_loaded = 0
    ch.arrival = 0
    ch.st_last_pim = max(ch.st_last_pim, complete)
    head = ch.source_head[PROGRAM]
    at = head & (MAX_ITEMS - 1)
    ch.source[PROGRAM, at, 1] += 1
    if ch.source[PROGRAM, at, 1] == ch.source[PROGRAM, at, 2]:
        ch.source_head[PROGRAM] = head + 1
        if head + 1 == ch.source_tail[PROGRAM]:
            ch.st_pim_busy += complete - ch.pim_busy_since
            ch.pim_busy_since = NEVER
        finish_part(device, ch.source[PROGRAM, at, 0], complete)


@compiled
def issue_memory(table: Any, ch: Any, device: Any, cycle: int, command: int, bank: int) -> None:
    """Issue a command for the bank queues."""
    ch.round_robin = (bank + 1) & (table.banks - 1)
    if command in (RD, WR):
        item, column = pop_burst(table, ch, bank, ch.candidate_run[bank])
        record(table, ch, device, cycle, command, bank, ch.open_row[0, bank], column, 0, item)
        ch.hits[bank] += 1
        if table.close_after < NEVER:
            ch.close_at[bank] = cycle + table.close_after
        if command == RD:
            complete = cycle + table.read_latency
            ch.st_return_sum += complete
            tail = ch.returns_tail
            ch.returns[tail & (MAX_RETURNS - 1)] = complete
            ch.returns_tail = tail + 1
            finish_burst(ch, device, item, complete)
        elif not table.posted_writes:
            finish_burst(ch, device, item, cycle + table.write_latency)
    elif command == ACT:
        row = ch.queue[bank, ch.queue_head[bank], 0]
        record(table, ch, device, cycle, ACT, bank, row, -1, 0, -1)
        set_open(table, ch, 0, bank, row, cycle)
    else:
        issue_close(table, ch, device, cycle, command, bank)


@compiled
def issue_close(table: Any, ch: Any, device: Any, cycle: int, command: int, bank: int) -> None:
    """Issue PRE, PIM_PRE or PREA."""
    if command == PREA:
        record(table, ch, device, cycle, PREA, bank, -1, -1, 0, -1)
        banks = ch.open_mask[0] & table.rank_banks[table.node[bank, RANK] - 1]
        while banks:
            set_open(table, ch, 0, trailing_zeros(banks), -1, cycle)
            banks &= banks - 1
        return
    buffer = 1 if command == PIM_PRE else 0
    record(table, ch, device, cycle, command, bank, ch.open_row[buffer, bank], -1, 0, -1)
    set_open(table, ch, buffer, bank, -1, cycle)


@compiled
def issue_pim(table: Any, ch: Any, device: Any, cycle: int, command: int, bank: int) -> None:
    """Issue a command of the current PIM macro-command."""
    if command in (PRE, PIM_PRE, PREA):
        issue_close(table, ch, device, cycle, command, bank)
        return
    row, dots = ch.op_row, max(ch.op_dots, table.pipeline_dots)
    record(table, ch, device, cycle, command, bank, row, -1, dots, ch.op_dots if command == GEMV else -1)
    if command == ACT:
        set_open(table, ch, 0, bank, row, cycle)
    elif command == GWRITE:
        ch.pim_free = cycle + table.gwrite_latency
        end_operation(ch, device, cycle, ch.pim_free)
    elif command == HEADER:
        ch.pim_header_done = 1
    elif command == PIM_ACT:
        for other in range(bank, bank + table.pim_act_banks):
            set_open(table, ch, 1 if table.dual else 0, other, row, cycle)
    else:
        ch.pim_readouts += 1
        ch.st_dots += ch.op_dots
        ch.st_results += 1
        if ch.pim_readouts == ch.op_readouts:
            ch.st_tiles += 1
            end_operation(ch, device, cycle, cycle + table.result_base + table.result_per_dot * dots)


@compiled
def issue_refresh(table: Any, ch: Any, device: Any, cycle: int, command: int, bank: int) -> None:
    """Issue a close on the way to a refresh, or the refresh."""
    if command not in (REF, REFPB):
        issue_close(table, ch, device, cycle, command, bank)
        return
    record(table, ch, device, cycle, command, bank, -1, -1, 0, -1)
    rank = table.node[bank, RANK] - 1
    if command == REFPB:
        for index in range(1, table.refresh_banks):
            restrain(table, ch, cycle, REFPB, bank + index * table.refresh_units, 0)
        ch.refresh_unit[rank] = (ch.refresh_unit[rank] + 1) % table.refresh_units
    ch.refreshes_owed[rank] -= 1
    if ch.refreshes_owed[rank] == 0:
        ch.refresh_pending &= ~bit(rank)
    ch.pim_waits_refresh = 0


@compiled
def load_operation(ch: Any, operation: Any, now: int) -> None:
    """Make the next PIM macro-command of the channel the current one."""
    ch.pim_since = max(now, operation.release)
    ch.op_kind, ch.op_row, ch.op_release = operation.kind, operation.row, operation.release
    ch.op_readouts, ch.op_dots = operation.readouts, operation.dots
    ch.left[ch.source[PROGRAM, ch.source_head[PROGRAM] & (MAX_ITEMS - 1), 0]] -= operation.least
    ch.op_loaded = 1


@compiled
def fall_due(table: Any, ch: Any, now: int) -> None:
    """Note which ranks are due for their refresh at ``now``."""
    ch.refresh_due = NEVER
    for rank in range(table.ranks):
        if ch.next_refresh[rank] <= now:
            ch.refresh_pending |= bit(rank)
            ch.refreshes_owed[rank] += 1
            ch.next_refresh[rank] += table.refresh_interval
        ch.refresh_due = min(ch.refresh_due, ch.next_refresh[rank])
    ch.rethink = 0


@compiled
def choose(table: Any, ch: Any, now: int) -> None:
    """Choose the channel's next command: the earliest; among equals refresh, then PIM, then the bank queues."""
    ch.rethink = NEVER
    cycle, command, bank = refresh_candidate(table, ch)
    by = FOR_REFRESH
    pim = NEVER, -1, -1
    if ch.source_head[PROGRAM] < ch.source_tail[PROGRAM]:
        pim = pim_candidate(table, ch, now)
        if pim[1] < 0:
            ch.rethink = pim[0]
        elif max(pim[0], now) < max(cycle, now):
            cycle, command, bank = pim
            by = FOR_PIM
    memory = memory_candidate(table, ch, now, pim)
    if max(memory[0], now) < max(cycle, now):
        cycle, command, bank = memory
        by = FOR_MEMORY
    ch.chosen_cycle, ch.chosen_command, ch.chosen_bank, ch.chosen_by = cycle, command, bank, by


@compiled
def issue(table: Any, ch: Any, device: Any, cycle: int) -> None:
    """Issue the chosen command."""
    if ch.last_move == cycle:
        ch.arrival = 0  # a burst may still take the slot that the move left, in this cycle
    if ch.chosen_by == FOR_MEMORY:
        issue_memory(table, ch, device, cycle, ch.chosen_command, ch.chosen_bank)
    elif ch.chosen_by == FOR_PIM:
        issue_pim(table, ch, device, cycle, ch.chosen_command, ch.chosen_bank)
    else:
        issue_refresh(table, ch, device, cycle, ch.chosen_command, ch.chosen_bank)


@compiled
def run_channel(
    table: Any, ch: Any, source: Any, device: Any, operations: Any, trace: Any, now: int, limit: int
) -> None:
    """Issue all commands of one channel with cycle < limit, and note in ``next`` when it must be looked at again.

    What falls due at a cycle comes before the command chosen for it. Stops at the cycle in which ``source`` has given the channel
    a request and goes on to one for another channel, or to one that is not known yet.
    """
    now = max(now, ch.next)
    while now < limit:
        if ch.refresh_due <= now:
            fall_due(table, ch, now)
        if ch.arrival <= now:
            if ch.in_flight + 1 >= table.outstanding_reads:
                take_returns(ch, now)
            turn, again = source.trace_next, NEVER
            if turn < source.trace_end:
                again = admit_request(table, ch, source, device, trace, now)
            elif not source.trace_more:
                again = admit(table, ch, device, now)
                if now + 1 < source.trace_free:
                    again = min(again, source.trace_free - 1)
            if passes_on(ch, source, trace, turn):
                ch.arrival = 0
                device.trace_starved = source.trace_next == source.trace_end
                break
            ch.arrival = min(again, move(table, ch, source, now))
        if ch.rethink <= now:
            if not ch.op_loaded and ch.source_head[PROGRAM] < ch.source_tail[PROGRAM]:
                load_operation(ch, operations[ch.source[PROGRAM, ch.source_head[PROGRAM] & (MAX_ITEMS - 1), 1]], now)
            choose(table, ch, now)
        cycle = max(ch.chosen_cycle, now)
        event = min(min(ch.refresh_due, ch.arrival), ch.rethink)
        if cycle >= event:
            now = event
        elif cycle >= limit or device.log_count >= LOG_ROOM:
            now = cycle
            break
        else:
            now = cycle
            issue(table, ch, device, cycle)
    ch.next, ch.reached = now, min(now, limit)


@inlined
def passes_on(ch: Any, source: Any, trace: Any, turn: int) -> bool:
    """Whether a channel stops because its source, which was at ``turn``, has gone on to another's request or to one not known yet."""
    if source.trace_next == source.trace_end:
        return source.trace_more != 0
    return source.trace_next > turn and trace[source.trace_next].channel != ch.index


@compiled
def whose_turn(table: Any, channels: Any, device: Any, trace: Any, now: int, limit: int) -> int:
    """The channel that is to accept the next request of the one source of all channels; -1 if it cannot before ``limit``.

    Until then the channels are only as far as the last request of their own, so that none passes the cycle of its next one.
    """
    source = channels[0]
    if source.trace_next == source.trace_end:
        if not source.trace_more:
            end_source(table, channels, device, now)
        return -1
    request = trace[source.trace_next]
    ch = channels[request.channel]
    ch.next = min(ch.next, max(max(now, ch.reached), max(request.cycle, source.trace_free)))
    if ch.next >= limit:
        return -1
    ch.arrival = 0
    return request.channel


@compiled
def end_source(table: Any, channels: Any, device: Any, now: int) -> None:
    """The one source of all channels has no more requests, which every channel learns from the cycle of the last one on."""
    device.one_source = 0
    for channel in range(table.channels):
        ch = channels[channel]
        ch.trace_free = channels[0].trace_free
        ch.next = min(ch.next, max(max(now, ch.reached), ch.trace_free - 1))
        ch.arrival = 0


@compiled
def find_horizon(table: Any, channels: Any, device: Any, start: int) -> int:
    """A cycle before which no item completes, whatever the channels do from ``start`` on.

    In one cycle a channel issues at most one burst, and accepts at most one of an item; PIM needs ``left`` cycles or more.
    """
    least = NEVER
    for item in range(device.items_end):
        if device.parts[item] > 0:
            left = 0
            for channel in range(table.channels):
                left = max(left, channels[channel].left[item])
                if left >= least:
                    break
            least = min(least, left)
            if least <= 2:
                break
    return start + cycles_for(least) + table.shortest


@compiled
def cycles_for(left: int) -> int:
    """Cycles from now to the last of ``left`` bursts at least, two in a cycle: a read issued and a posted write accepted."""
    return max((left + 1) // 2 - 1, 0)


@compiled
def advance(tables: Any, channels: Any, devices: Any, operations: Any, trace: Any, limit: int) -> int:
    """Run all channels to ``limit`` or to the first completion, whichever is earlier, and return that cycle.

    Channels run one after the other, in windows that end before any item can complete (:func:`find_horizon`), so no channel
    passes a cycle at which something outside could react. Returns early, at the cycle reached, when the log is full or a
    channel needs more of a trace.
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
        first = max(time, first)
        if device.horizon < first + table.shortest:
            device.horizon = find_horizon(table, channels, device, first)
        window = min(min(stop, device.horizon), first + device.most_window)
        channel = 0
        while channel < table.channels:
            turn = whose_turn(table, channels, device, trace, time, window) if device.one_source else -1
            ch = channels[turn if turn >= 0 else channel]
            channel += turn < 0
            if ch.next < window:
                source = channels[0] if device.one_source else ch
                run_channel(table, ch, source, device, operations, trace, time, window)
                if device.log_count >= LOG_ROOM or device.trace_starved:
                    return time
        device.time = window


@compiled
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

"""The controller's policies, one by one: who goes first, when rows close, how banks are refreshed, who waits for PIM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from neupims_sim.config import MemoryConfig, load_memory
from neupims_sim.config.memory import Constraint
from neupims_sim.errors import InputError
from neupims_sim.memory import (
    COMMANDS,
    LOG_FIELDS,
    READ,
    CommandDevice,
    PimProgram,
    Replay,
    Requests,
    check_commands,
    replay_requests,
    resolve,
)
from neupims_sim.memory.program import GWRITE, TILE

TRCD, TRP, TRAS, TRTP, TFAW, BURST = 14, 14, 34, 5, 30, 2


def table(name: str = "hbm2", **controller: object) -> MemoryConfig:
    """One channel of a shipped memory, no refresh unless asked for."""
    values = {"refresh": "off"} | controller
    overrides = {f"controller.{key}": value for key, value in values.items()}
    return load_memory(name, "physical", {"organization.channels": 1} | overrides)


def address(config: MemoryConfig, bank: int, row: int, column: int = 0) -> int:
    """Of a burst, for tables with the mapping ``rorabgbachco``."""
    organization = config.organization
    assert organization.address_mapping == "rorabgbachco"
    columns = organization.row_bytes // organization.burst_bytes
    return ((row * organization.banks + bank) * columns + column) * organization.burst_bytes


def replay(
    config: MemoryConfig,
    reads: Sequence[tuple[int, int, int]],
    cycles: Sequence[int] | None = None,
    program: PimProgram | None = None,
) -> Replay:
    """Read (bank, row, column) from the given cycles on; the log must be legal."""
    addresses = np.array([address(config, *read) for read in reads], dtype=np.int64)
    offered = np.zeros(len(reads), dtype=np.int64) if cycles is None else np.array(cycles, dtype=np.int64)
    requests = Requests(addresses, np.full(len(reads), READ), offered) if len(reads) else None
    result = replay_requests(resolve(config), requests, program, log=True)
    assert result.log is not None
    assert check_commands(config, result.log) == []
    return result


def issued(result: Replay, *commands: str, fields: Sequence[str] = ("cycle",)) -> list[tuple[int, ...]]:
    assert result.log is not None
    entries = result.log[np.isin(result.log[:, 2], [COMMANDS.index(name) for name in commands])]
    return [tuple(entry) for entry in entries[:, [LOG_FIELDS.index(field) for field in fields]].tolist()]


def order(result: Replay) -> list[tuple[int, ...]]:
    return issued(result, "RD", fields=("bank", "row", "column"))


# --- request scheduling ---

CONFLICT_BETWEEN_HITS = [(0, 7, 0), (0, 8, 0), (0, 7, 1), (0, 7, 2)]


@pytest.mark.parametrize("scheduling", ["bank_round_robin", "fr_fcfs"])
def test_row_hits_overtake_a_conflict(scheduling: str) -> None:
    result = replay(table(scheduling=scheduling), CONFLICT_BETWEEN_HITS)
    assert order(result) == [(0, 7, 0), (0, 7, 1), (0, 7, 2), (0, 8, 0)]


@pytest.mark.parametrize("cap", [1, 2, 3])
def test_the_cap_ends_overtaking(cap: int) -> None:
    """The read that opened the row is no hit; ``cap`` hits follow it."""
    reads = [(0, 7, 0), (0, 8, 0), *((0, 7, column) for column in range(1, 5))]
    result = replay(table(scheduling="fr_fcfs", row_hit_cap=cap), reads)
    assert order(result).index((0, 8, 0)) == 1 + cap


def test_fcfs_serves_requests_in_the_order_of_acceptance() -> None:
    rng = np.random.default_rng(5)
    reads = [
        (int(bank), int(row), 0) for bank, row in zip(rng.integers(0, 16, 60), rng.integers(0, 3, 60), strict=True)
    ]
    in_order = replay(table(scheduling="fcfs"), reads)
    assert order(in_order) == reads
    assert order(replay(table(scheduling="fr_fcfs"), reads)) != reads
    assert in_order.cycles > replay(table(scheduling="fr_fcfs"), reads).cycles


def test_of_two_open_rows_the_older_request_or_the_next_bank_goes_first() -> None:
    """Both rows open long ago; eight requests for bank 0, then eight for bank 4, all waiting when the first can go."""
    opening = [(0, 7, 0), (4, 7, 0)]
    waiting = [(0, 7, column) for column in range(1, 8)] + [(4, 7, column) for column in range(1, 8)]
    config = {"transaction_queue_depth": 64, "bank_queue_depth": 16}
    cycles = [0, 0, *[100] * len(waiting)]
    oldest = order(replay(table(scheduling="fr_fcfs", **config), opening + waiting, cycles))
    assert oldest == opening + waiting
    in_turn = order(replay(table(scheduling="bank_round_robin", **config), opening + waiting, cycles))
    banks = [bank for bank, _, _ in in_turn[9:]]
    assert banks[:4] in ([4, 0, 4, 0], [0, 4, 0, 4])


# --- page policy ---


def test_an_open_page_stays_open() -> None:
    result = replay(table(page_policy="open"), [(0, 7, 0), (0, 7, 1)], [0, 5000])
    assert result.commands["ACT"] == 1
    assert result.commands["PRE"] == 0


def test_a_closed_page_closes_as_soon_as_nobody_waits_for_it() -> None:
    result = replay(table(page_policy="closed"), [(0, 7, 0), (0, 7, 1), (0, 7, 2)], [0, 0, 500])
    assert issued(result, "PRE")[0] == (max(TRAS, TRCD + BURST + TRTP),)
    assert result.commands["ACT"] == 2


def test_a_closed_page_stays_open_while_somebody_waits_for_it() -> None:
    reads = [(0, 7, column) for column in range(30)]
    assert replay(table(page_policy="closed"), reads).commands["ACT"] == 1


@pytest.mark.parametrize(("second", "activations"), [(TRCD + 150, 1), (TRCD + 300, 2)])
def test_a_page_closes_after_the_timeout(second: int, activations: int) -> None:
    config = table(page_policy="timeout", page_timeout_cycles=200)
    result = replay(config, [(0, 7, 0), (0, 7, 1), (1, 0, 0)], [0, second, 2000])
    last_read = second if activations == 1 else TRCD
    assert issued(result, "PRE", fields=("cycle", "bank"))[0] == (last_read + 200, 0)
    assert len([bank for (bank,) in issued(result, "ACT", fields=("bank",)) if bank == 0]) == activations


# --- refresh ---


def run_idle(config: MemoryConfig, cycles: int) -> np.ndarray:
    device = CommandDevice(resolve(config), log=True)
    while device.time < cycles:
        device.advance(cycles)
    log = device.take_log()
    assert check_commands(config, log, until=cycles) == []
    return log


def test_per_bank_refresh_takes_the_banks_of_a_rank_in_turn() -> None:
    config = table(refresh="per_bank")
    interval = 3900 // 16
    log = run_idle(config, 40 * interval)
    refreshes = log[log[:, 2] == COMMANDS.index("REFPB")]
    assert refreshes[:, 3].tolist() == [index % 16 for index in range(len(refreshes))]
    assert np.array_equal(refreshes[:, 0], interval * np.arange(1, len(refreshes) + 1))


def test_one_per_bank_refresh_covers_the_banks_that_the_organization_says() -> None:
    config = load_memory(
        "hbm2",
        overrides={"organization.channels": 1, "organization.banks_per_refpb": 4, "controller.refresh": "per_bank"},
    )
    log = run_idle(config, 3900 * 3)
    refreshes = log[log[:, 2] == COMMANDS.index("REFPB")]
    assert refreshes[:8, 3].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert np.array_equal(np.diff(refreshes[:, 0]), np.full(len(refreshes) - 1, 3900 // 4))


def test_other_banks_work_while_one_is_refreshed() -> None:
    config = table(refresh="per_bank")
    interval, length = 3900 // 16, config.timing["tRFCpb"]
    reads = [(0, 7, 0), (5, 7, 0)]
    result = replay(config, reads, [interval + 1, interval + 1])
    (to_bank_0,), (to_bank_5,) = issued(result, "ACT")[1], issued(result, "ACT")[0]
    assert issued(result, "REFPB")[0] == (interval,)
    assert to_bank_0 == interval + length
    assert to_bank_5 == interval + config.timing["tRREFD"]


def test_all_bank_refresh_stops_the_rank_and_off_stops_nobody() -> None:
    reads, cycles = [(5, 7, 0)], [3901]
    assert issued(replay(table(refresh="all_bank"), reads, cycles), "ACT") == [(3900 + 260,)]
    assert issued(replay(table(refresh="off"), reads, cycles), "ACT") == [(3901,)]


def test_no_refresh_comes_for_free() -> None:
    config = table(refresh="per_bank")
    rows = tuple(row for row in config.constraints if "REFPB" not in (*row.previous, *row.next))
    with pytest.raises(InputError, match=r"needs rows for REFPB; constraints has none from REFPB to ACT"):
        resolve(config.model_copy(update={"constraints": rows}))


@pytest.mark.parametrize(
    ("buffers", "command"),
    [("dual", "PIM_PRE"), ("dual", "GEMV"), ("single", "PRE"), ("single", "GEMV")],
)
def test_no_pim_command_comes_for_free(buffers: str, command: str) -> None:
    config = load_memory("hbm2_pim_dual", overrides={"row_buffers": buffers})
    rows = tuple(row for row in config.constraints if not ("PIM_ACT" in row.previous and command in row.next))
    with pytest.raises(InputError, match=f"row_buffers='{buffers}' needs a row from PIM_ACT to {command}"):
        resolve(config.model_copy(update={"constraints": rows}))


@pytest.mark.parametrize(("precharge_all", "single", "together"), [(False, 3, 0), (True, 0, 1)])
def test_prea_closes_all_rows_of_a_rank_at_once(precharge_all: bool, single: int, together: int) -> None:
    config = table(refresh="all_bank", precharge_all=precharge_all)
    reads = [(0, 7, 0), (5, 7, 0), (9, 7, 0), (0, 7, 1)]
    result = replay(config, reads, [0, 0, 0, 4500])
    assert (result.commands["PRE"], result.commands["PREA"]) == (single, together)
    last_close = issued(result, "PRE", "PREA")[-1][0]
    assert issued(result, "REF") == [(last_close + TRP,)]


def test_prea_is_not_used_for_one_row() -> None:
    result = replay(table(refresh="all_bank", precharge_all=True), [(0, 7, 0), (0, 7, 1)], [0, 4500])
    assert (result.commands["PRE"], result.commands["PREA"]) == (1, 0)


def test_prea_is_not_used_where_a_row_of_the_rank_stays_open() -> None:
    """A REFPB of banks 0, 4, 8 and 12; bank 1 goes on."""
    organization = {"organization.channels": 1, "organization.banks_per_refpb": 4}
    policies = {"controller.refresh": "per_bank", "controller.precharge_all": True}
    config = load_memory("hbm2", overrides=organization | policies)
    interval = 3900 // 4
    result = replay(config, [(0, 7, 0), (4, 7, 0), (1, 7, 0), (1, 7, 1)], [0, 0, 0, interval + 50])
    assert (result.commands["PREA"], result.commands["PRE"]) == (0, 2)
    assert sorted(issued(result, "ACT", fields=("bank",))) == [(0,), (1,), (4,)]


# --- windows, command buses, pseudo-channels ---


def test_a_window_counts_its_previous_commands_together() -> None:
    """tFAW over ACT and REFPB: a refresh and three activations fill it."""
    config = table(refresh="per_bank")
    pooled = Constraint.model_validate(["rank", "ACT REFPB", "ACT REFPB", "100", {"window": 4}])
    config = config.model_copy(update={"constraints": (*config.constraints, pooled)})
    interval = 3900 // 16
    reads = [(bank, 7, 0) for bank in (3, 6, 9, 13)]
    result = replay(config, reads, [interval + 1] * 4)
    activations = [cycle for (cycle,) in issued(result, "ACT")]
    assert activations[2] < interval + 100
    assert activations[3] == interval + 100


@pytest.mark.parametrize("separate", [True, False])
def test_a_command_takes_its_bus_for_as_long_as_the_table_says(separate: bool) -> None:
    """Activations take 4 cycles and may follow each other after 4; on a common bus reads come between."""
    overrides = {
        "organization.channels": 1,
        "controller.refresh": "off",
        "controller.separate_command_buses": separate,
        "command_cycles": {"ACT": 4, "RD": 2},
        "timing.tFAW": 16,
    }
    reads = [(bank, 7, 0) for group in range(4) for bank in (group, group + 4, group + 8, group + 12)]
    result = replay(load_memory("hbm2", overrides=overrides), reads)
    gaps = np.diff([cycle for (cycle,) in issued(result, "ACT")])
    assert set(gaps) == {4} if separate else gaps.max() >= 6


def test_pseudo_channels_share_the_command_bus_and_nothing_else() -> None:
    config = load_memory("hbm3", overrides={"organization.channels": 1, "controller.refresh": "off"})
    device = CommandDevice(resolve(config), log=True)
    size = 1 << 17
    item = device.submit_transfer(READ, 0, size)
    done: list[int] = []
    while item not in done:
        done += device.advance(1_000_000)[1]
    log = device.take_log()
    assert check_commands(config, log) == []
    reads = log[log[:, 2] == COMMANDS.index("RD")]
    pseudo_channel = reads[:, 3] // 16
    assert len(np.unique(reads[:, 0])) == len(reads)
    per_pseudo_channel = [reads[pseudo_channel == index][:, 0] for index in range(2)]
    assert all(np.median(np.diff(cycles)) == config.organization.burst_cycles for cycles in per_pseudo_channel)
    assert size / device.time > 0.9 * 2 * config.organization.burst_bytes / config.organization.burst_cycles


# --- PIM or requests first ---

PROGRAM = PimProgram.build([(GWRITE, 900, 0, 0), *((TILE, 1000 + tile, 2, 8) for tile in range(4))])
READS = [(bank, 7 + row, column) for row in range(2) for bank in range(32) for column in range(8)]


def both(name: str, priority: str, **controller: object) -> Replay:
    config = table(name, pim_priority=priority, **controller)
    return replay(config, READS, program=PROGRAM)


@pytest.mark.parametrize("name", ["hbm2_pim_dual", "hbm2_pim_blocked"])
def test_whoever_is_first_ends_first(name: str) -> None:
    pim_first, memory_first = both(name, "pim_first"), both(name, "memory_first")
    bounded = both(name, "bounded_wait", pim_max_wait_cycles=300)
    assert pim_first.pim_cycles < bounded.pim_cycles < memory_first.pim_cycles
    assert pim_first.memory_cycles > memory_first.memory_cycles
    alone = replay(table(name), READS)
    assert memory_first.memory_cycles == alone.memory_cycles


@pytest.mark.parametrize("name", ["hbm2_pim_dual", "hbm2_pim_blocked"])
def test_memory_first_starts_no_macro_command_while_reads_wait(name: str) -> None:
    result = both(name, "memory_first")
    first_of_pim = min(issued(result, "GWRITE", "HEADER"))[0]
    assert first_of_pim > max(issued(result, "RD"))[0]


@pytest.mark.parametrize("name", ["hbm2_pim_dual", "hbm2_pim_blocked"])
@pytest.mark.parametrize("wait", [50, 400])
def test_bounded_wait_waits_no_longer_than_the_bound(name: str, wait: int) -> None:
    """The first command of PIM comes after the wait, and not much later: a row, in one buffer all that is already queued."""
    result = both(name, "bounded_wait", pim_max_wait_cycles=wait, bank_queue_depth=1)
    first_of_pim = min(issued(result, "GWRITE", "HEADER"))[0]
    assert wait <= first_of_pim
    slack = TRAS + TRP + TRCD + 20 if name == "hbm2_pim_dual" else 32 * TFAW // 4 + TRAS + TRP + TRCD + 20
    assert first_of_pim <= wait + slack


@pytest.mark.parametrize("name", ["hbm2_pim_dual", "hbm2_pim_blocked"])
@pytest.mark.parametrize("priority", ["pim_first", "ready_first", "memory_first", "bounded_wait"])
def test_a_program_takes_as_long_under_any_priority_where_nobody_else_wants_the_channel(
    name: str, priority: str
) -> None:
    alone = replay(table(name, pim_priority=priority), [], program=PROGRAM)
    assert alone.pim_cycles == replay(table(name), [], program=PROGRAM).pim_cycles


def test_a_closed_page_policy_leaves_the_rows_of_a_tile_open() -> None:
    """PIM shares the row buffers, and no request waits for its rows: they are its own until the tile ends."""
    left_open = replay(table("hbm2_pim_blocked"), [], program=PROGRAM)
    closed = replay(table("hbm2_pim_blocked", page_policy="closed"), [], program=PROGRAM)
    assert closed.commands["PIM_ACT"] == left_open.commands["PIM_ACT"] == 4 * 8
    assert closed.pim_cycles <= left_open.pim_cycles


# --- names ---


@pytest.mark.parametrize(
    ("key", "name", "nearest"),
    [
        ("scheduling", "frfcfs", "fr_fcfs"),
        ("page_policy", "close", "closed"),
        ("refresh", "perbank", "per_bank"),
        ("pim_priority", "pim-first", "pim_first"),
    ],
)
def test_an_unknown_policy_is_refused_with_the_nearest_name(key: str, name: str, nearest: str) -> None:
    with pytest.raises(InputError, match=rf"controller.{key}='{name}': .*did you mean {nearest}\?"):
        resolve(table(**{key: name}))


def test_a_policy_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from neupims_sim.memory.policies import PAGE_POLICIES, PagePolicy

    entries: Mapping[str, PagePolicy] = PAGE_POLICIES._entries
    monkeypatch.setattr(PAGE_POLICIES, "_entries", dict(entries))
    PAGE_POLICIES.register("mine")(PagePolicy(closes=True, waits=True))
    result = replay(table(page_policy="mine", page_timeout_cycles=100), [(0, 7, 0), (1, 7, 0)], [0, 900])
    assert issued(result, "PRE")[0] == (TRCD + 100,)

"""The independent checker finds every broken rule, and accepts what the engine issues (INV-1, INV-2, INV-4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from memory_cases import (
    TABLES,
    Outcome,
    Program,
    Transfer,
    Work,
    asked_bursts,
    asked_in_total,
    broken_rules,
    commands,
    describe,
    memory,
    mixes,
    pim_operations,
    run,
    variants,
)

from neupims_sim.config import MemoryConfig, load_memory
from neupims_sim.config.memory import Constraint
from neupims_sim.errors import InputError
from neupims_sim.memory.address import AddressMap
from neupims_sim.memory.device import CommandDevice
from neupims_sim.memory.legality import (
    Violation,
    active_constraints,
    check_commands,
    check_refresh,
    latency_cycles,
)
from neupims_sim.memory.program import GWRITE, TILE, PimProgram
from neupims_sim.memory.replay import replay_requests
from neupims_sim.memory.spec import COMMANDS, resolve

DRAM = memory("hbm2")
DUAL = memory("hbm2_pim_dual")
SINGLE = memory("hbm2_pim_blocked")
ONE_BUS = memory("hbm2", "asplos24")

# Groups of four banks, 0 to 15 are rank 0 and 16 to 31 rank 1. Row 7 opens in all of them, tFAW apart within a rank.
ACTIVATIONS = [(30 * step + rank, "PIM_ACT", 16 * rank + 4 * step, 7) for step in range(4) for rank in range(2)]
TILE_LOG = [(0, "HEADER", 0, 7), *ACTIVATIONS, (105, "GEMV", 0, 7, 8), (123, "GEMV", 0, 7, 8)]


# --- legal by hand ---


def test_a_read_a_write_and_a_refresh_at_their_earliest_cycles_are_legal() -> None:
    log = commands(
        (0, "ACT", 0, 5),
        (14, "RD", 0, 5),
        (16, "RD", 0, 5),
        (30, "WR", 0, 5),
        (44, "RD", 0, 5),
        (52, "PRE", 0, 5),
        (66, "REF", 0),
        (326, "ACT", 0, 5),
    )
    assert broken_rules(DRAM, log) == []


def test_a_pim_tile_at_its_earliest_cycles_is_legal_with_dual_row_buffers() -> None:
    closes = [(123 + 2 * 8 + 5 + bank, "PIM_PRE", bank, 7) for bank in range(32)]
    assert broken_rules(DUAL, commands(*TILE_LOG, *closes, (175, "HEADER", 0, 8), (176, "PIM_ACT", 0, 8))) == []


def test_a_pim_tile_at_its_earliest_cycles_is_legal_with_a_single_row_buffer() -> None:
    closes = [(123 + 2 * 8 + 5 + bank, "PRE", bank, 7) for bank in range(32)]
    assert broken_rules(SINGLE, commands(*TILE_LOG, *closes)) == []


def test_reads_go_on_beside_a_tile_with_dual_row_buffers() -> None:
    reads = [(2, "ACT", 0, 5), (20, "RD", 0, 5)]
    with_reads = sorted([*TILE_LOG, *reads, (127, "RD", 0, 5)], key=lambda entry: entry[0])
    # The activation takes a whole tFAW window of the physical table, and has none here.
    rules = set(broken_rules(DUAL, commands(*with_reads)))
    assert rules == {"[rank, PIM_ACT, PIM_ACT ACT, tFAW]", "[rank, ACT, PIM_ACT, tFAW, {when: [not asplos24]}]"}


# --- one broken rule each ---

CLOSED = "ACT needs the memory row buffer closed"
SHARED = "no row may be open in the memory and the PIM row buffer at once"
GEMV_OPEN = "GEMV needs its row open in the {} of every bank"
REFRESH_CLOSED = "REF needs every row buffer of its banks closed"
ORDER = "commands of a channel are logged in the order of their cycles"
OWNERSHIP = "with a single row buffer, no RD or WR between a HEADER and its last GEMV"


@pytest.mark.parametrize(
    ("config", "log", "rule"),
    [
        (DRAM, commands((0, "ACT", 0, 5), (100, "ACT", 0, 6)), CLOSED),
        (SINGLE, commands((0, "PIM_ACT", 0, 5), (100, "ACT", 3, 6)), CLOSED),
        (DRAM, commands((0, "RD", 0, 5)), "RD needs its row open in the memory row buffer"),
        (DRAM, commands((0, "ACT", 0, 5), (20, "RD", 0, 6)), "RD needs its row open in the memory row buffer"),
        (DRAM, commands((0, "ACT", 0, 5), (20, "WR", 1, 5)), "WR needs its row open in the memory row buffer"),
        (DUAL, commands((0, "PIM_ACT", 0, 5), (20, "RD", 0, 5)), "RD needs its row open in the memory row buffer"),
        (DUAL, commands((0, "ACT", 0, 5), (20, "GWRITE", 0, 6)), "GWRITE needs its row open in the memory row buffer"),
        (DRAM, commands((0, "PRE", 0, 5)), "PRE needs an open row in the memory row buffer"),
        (DUAL, commands((0, "PIM_ACT", 0, 5), (60, "PRE", 0, 5)), "PRE needs an open row in the memory row buffer"),
        (DUAL, commands((0, "ACT", 0, 5), (60, "PIM_PRE", 0, 5)), "PIM_PRE needs an open row in the PIM row buffer"),
        (DUAL, commands((0, "PIM_ACT", 0, 5), (90, "PIM_ACT", 0, 5)), "PIM_ACT needs the PIM row buffer closed"),
        (SINGLE, commands((0, "ACT", 3, 5), (90, "PIM_ACT", 0, 5)), "PIM_ACT needs the row buffer closed"),
        (DUAL, commands((0, "PIM_ACT", 4, 5), (90, "ACT", 6, 5)), SHARED),
        (DUAL, commands((0, "ACT", 6, 5), (90, "PIM_ACT", 4, 5)), SHARED),
        (DRAM, commands((0, "ACT", 15, 5), (90, "REF", 0)), REFRESH_CLOSED),
        (DUAL, commands((0, "PIM_ACT", 16, 5), (90, "REF", 16)), REFRESH_CLOSED),
        (SINGLE, commands((0, "PIM_ACT", 16, 5), (90, "REF", 16)), REFRESH_CLOSED),
        (DUAL, commands((0, "PIM_ACT", 16, 5), (90, "HEADER", 0, 6)), "HEADER needs every PIM row buffer closed or at its row"),
        (SINGLE, commands((0, "ACT", 9, 5), (90, "HEADER", 0, 6)), "HEADER needs every row buffer closed or at its row"),
        (DUAL, commands(*TILE_LOG[:-3], (105, "GEMV", 0, 7, 8)), GEMV_OPEN.format("PIM row buffer")),
        (DUAL, commands(*TILE_LOG[:-1], (300, "HEADER", 0, 7), (330, "GEMV", 0, 8, 8)), GEMV_OPEN.format("PIM row buffer")),
        (SINGLE, commands(*TILE_LOG[:-3], (105, "GEMV", 0, 7, 8)), GEMV_OPEN.format("row buffer")),
        (DUAL, commands(*TILE_LOG[1:]), "GEMV needs a HEADER that announced its row"),
        (SINGLE, commands(*TILE_LOG[:-2], (111, "RD", 0, 7), (120, "GEMV", 0, 7, 8)), OWNERSHIP),
        (SINGLE, commands(*TILE_LOG[:-1], (131, "RD", 0, 7), (160, "GEMV", 0, 7, 8)), OWNERSHIP),
        (DRAM, commands((0, "PIM_ACT", 0, 5)), "a memory with row_buffers: none has no PIM_ACT"),
        (SINGLE, commands((0, "PIM_PRE", 0, 5)), "a memory with row_buffers: single has no PIM_PRE"),
        (DRAM, commands((0, "ACT", 0, 5), (0, "ACT", 4, 5)), "one command at a time on the row command bus"),
        (ONE_BUS, commands((0, "ACT", 0, 5), (14, "RD", 0, 5), (14, "ACT", 4, 5)), "one command at a time on the command bus"),
        (DRAM, commands((0, "ACT", 0, 5), (30, "RD", 0, 5), (41, "WR", 0, 5)), "bursts do not overlap on the data bus"),
        (DRAM, commands((0, "ACT", 0, 5), (30, "RD", 0, 5), (29, "RD", 0, 5)), ORDER),
        (DRAM, commands((0, "ACT", 16, 5)), "channel and bank lie within the organization"),
        (DRAM, commands((0, "ACT", 0, 32768)), "the row lies within the organization"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_reported(config: MemoryConfig, log: np.ndarray, rule: str) -> None:
    assert rule in broken_rules(config, log)


def test_separate_command_buses_take_a_row_and_a_column_command_in_one_cycle() -> None:
    assert broken_rules(DRAM, commands((0, "ACT", 0, 5), (14, "ACT", 4, 5), (14, "RD", 0, 5))) == []


@pytest.mark.parametrize(("fifth", "legal"), [(29, False), (30, True)])
def test_the_fifth_activation_of_a_rank_waits_for_the_window(fifth: int, legal: bool) -> None:
    log = commands(*[(4 * index, "ACT", 4 * index, 5) for index in range(4)], (fifth, "ACT", 1, 5))
    assert broken_rules(DRAM, log) == ([] if legal else ["[rank, ACT, ACT, tFAW, {window: 4}]"])


@pytest.mark.parametrize(("dots", "earliest"), [(1, 105 + 2 * 6 + 5), (8, 105 + 2 * 8 + 5)])
def test_pim_precharge_waits_for_the_last_dot_product(dots: int, earliest: int) -> None:
    tile = [*TILE_LOG[:-2], (105, "GEMV", 0, 7, dots)]
    assert broken_rules(DUAL, commands(*tile, (earliest, "PIM_PRE", 0, 7))) == []
    (violation,) = check_commands(DUAL, commands(*tile, (earliest - 1, "PIM_PRE", 3, 7)))
    assert violation == Violation(
        earliest - 1,
        0,
        "PIM_PRE",
        3,
        "[channel, GEMV, PIM_PRE, tDOT * dots + tRTP, {when: [dual, not asplos24]}]",
        earliest,
    )


def test_a_violation_reads_as_one_line() -> None:
    (violation,) = check_commands(DRAM, commands((0, "ACT", 0, 5), (13, "RD", 0, 5)))
    assert str(violation) == ("cycle 13, channel 0: RD bank 0 breaks [bank, ACT, RD WR, tRCD]: not before cycle 14")


def test_channels_are_checked_apart() -> None:
    log = commands((0, "ACT", 0, 5), (0, "ACT", 0, 5))
    log[1, 1] = 1
    assert broken_rules(memory("hbm2", channels=2), log) == []


def test_the_number_of_violations_is_limited() -> None:
    log = commands(*[(0, "RD", 0, 5)] * 50)
    assert len(check_commands(DRAM, log, limit=7)) == 7


def test_a_latency_is_an_expression_of_timing_parameters_only() -> None:
    with pytest.raises(InputError, match="not an expression"):
        latency_cycles(DRAM, "().__class__")


# --- refresh (INV-4) ---

INTERVAL = 3900


def refreshes(cycles: Sequence[int], bank: int = 0) -> np.ndarray:
    return commands(*[(cycle, "REF", bank) for cycle in cycles])


def test_inv_4_a_refresh_per_interval_is_accepted() -> None:
    report = check_refresh(DRAM, refreshes([INTERVAL * n + 17 for n in range(1, 21)]), 20 * INTERVAL + 100)
    assert report.violations == []
    assert report.counts == {(0, 0): 20}
    assert report.longest_postponement_cycles == 17


def test_inv_4_two_missing_refreshes_are_reported() -> None:
    cycles = [INTERVAL * n for n in range(1, 21) if n not in (7, 13)]
    (violation,) = check_refresh(DRAM, refreshes(cycles), 20 * INTERVAL + 100).violations
    assert violation.rule == "floor(T / interval) +- 1 refreshes per rank"
    assert violation in check_commands(DRAM, refreshes(cycles), until=20 * INTERVAL + 100)


@pytest.mark.parametrize(("intervals", "legal"), [(9, True), (10, False)])
def test_inv_4_a_refresh_is_postponed_by_eight_intervals_at_most(intervals: int, legal: bool) -> None:
    late = [
        INTERVAL * intervals + 300 * n for n in range(intervals)
    ]  # all that fell due meanwhile, one after the other
    report = check_refresh(DRAM, refreshes(late), INTERVAL * intervals + 3000)
    assert (report.violations == []) == legal
    assert report.longest_postponement_cycles == (intervals - 1) * INTERVAL


@settings(max_examples=15)
@given(st.sampled_from(["hbm2_pim_dual", "hbm2_pim_blocked", "hbm3_pim_dual", "gddr6_aim"]), st.integers(0, 2**32 - 1))
def test_inv_4_pim_outlasts_refreshes_of_single_banks(name: str, seed: int) -> None:
    """A tile takes longer than a REFPB interval and is not interrupted: refreshes come late, but none later than 8 tREFI."""
    config = load_memory(name, overrides={"organization.channels": 1, "controller.refresh": "per_bank"})
    rng = np.random.default_rng(seed)
    readouts = rng.integers(1, 33, 80)
    program = PimProgram.build(
        [(TILE, 900 + int(rng.integers(0, 9)), int(r), int(rng.integers(1, 32 // r + 1))) for r in readouts]
    )
    result = replay_requests(resolve(config), None, program, log=True)
    assert result.log is not None
    assert check_commands(config, result.log, until=result.cycles) == []
    longest = check_refresh(config, result.log, result.cycles).longest_postponement_cycles
    assert longest < config.timing["tREFI"]
    assert [v.rule for v in check_refresh(config, result.log[:0], 20 * config.timing["tREFI"]).violations]


def test_inv_4_each_rank_is_refreshed() -> None:
    first = refreshes([INTERVAL // 2 + INTERVAL * n for n in range(5)])
    second = refreshes([INTERVAL * n for n in range(1, 6)], bank=16)
    until = 5 * INTERVAL + 1
    assert check_refresh(DUAL, np.concatenate([first, second]), until).violations == []
    (violation,) = check_refresh(DUAL, first, until).violations
    assert (violation.bank, violation.detail) == (16, "rank 1: 0 refreshes in 19501 cycles, 5 expected")


def test_nothing_issues_beyond_the_cycle_that_the_memory_has_reached() -> None:
    log = commands((0, "ACT", 0, 5), (14, "RD", 0, 5))
    assert check_commands(DRAM, log, until=15) == []
    (violation,) = check_commands(DRAM, log, until=14)
    assert violation.command == "RD"


# --- every row of every table ---

LEVELS = ("bank", "bank_group", "rank", "channel")
"""From fine to coarse."""


def distance_within(config: MemoryConfig, level: str) -> int:
    """From bank 0 to a bank that shares this level with it and nothing finer."""
    organization = config.organization
    group, rank = organization.banks_per_group, organization.bank_groups * organization.banks_per_group
    return {"bank": 0, "bank_group": 1, "rank": group, "channel": rank if organization.ranks > 1 else group}[level]


def pairs(config: MemoryConfig) -> Iterator[tuple[Constraint, str, str]]:
    for constraint in config.constraints:
        for previous in constraint.previous:
            for following in constraint.next:
                if constraint.scope != "other_ranks" or config.organization.ranks > 1:
                    yield constraint, previous, following


def planted(previous: str, count: int, following: str, bank: int, distance: int) -> np.ndarray:
    """``count`` times the previous command in bank 0, then the next one in ``bank``, ``distance`` cycles after the first."""
    log = [(1000 + index, previous, 0, 3, DOTS) for index in range(count)]
    return commands(*log, (1000 + distance, following, bank, 3, DOTS))


DOTS = 11


@pytest.mark.parametrize(("name", "preset", "row_buffers"), TABLES)
def test_every_row_of_the_table_is_checked_to_the_cycle(name: str, preset: str, row_buffers: str | None) -> None:
    config = memory(name, preset, row_buffers)
    active = active_constraints(config, preset)
    for constraint, previous, following in pairs(config):
        text = constraint.text
        bank = distance_within(config, "channel" if constraint.scope == "other_ranks" else constraint.scope)
        latency = latency_cycles(config, constraint.latency, DOTS)
        if latency < constraint.window:
            continue  # cannot be broken
        window = constraint.window
        late = planted(previous, window, following, bank, latency)
        early = planted(previous, window, following, bank, latency - 1)
        fewer = planted(previous, window - 1, following, bank, window)
        assert (text in broken_rules(config, early, preset)) == (constraint in active), text
        assert text not in broken_rules(config, late, preset), text
        assert text not in broken_rules(config, fewer, preset), text


@pytest.mark.parametrize(("name", "preset", "row_buffers"), TABLES)
def test_no_row_of_the_table_binds_outside_its_scope(name: str, preset: str, row_buffers: str | None) -> None:
    config = memory(name, preset, row_buffers)
    for constraint, previous, following in pairs(config):
        if constraint.scope == "other_ranks":
            bank = distance_within(config, "rank")
        else:
            whole = {"PIM_ACT": "bank_group", "REF": "rank", "PREA": "rank", "GEMV": "channel", "HEADER": "channel"}
            scopes = [constraint.scope, whole.get(previous, "bank"), whole.get(following, "bank")]
            coarsest = max(LEVELS.index(scope) for scope in scopes)
            if coarsest >= LEVELS.index("rank") + (config.organization.ranks > 1):
                continue  # nothing is outside
            bank = distance_within(config, LEVELS[coarsest + 1])
        window = constraint.window
        text = constraint.text
        assert text not in broken_rules(config, planted(previous, window, following, bank, window), preset)


@pytest.mark.parametrize(("name", "preset", "row_buffers"), TABLES)
def test_engine_and_checker_read_the_same_latencies(name: str, preset: str, row_buffers: str | None) -> None:
    config = memory(name, preset, row_buffers)
    expected = [
        (COMMANDS.index(previous), COMMANDS.index(following), latency_cycles(config, row.latency, DOTS), row.window)
        for row in active_constraints(config, preset)
        for previous in row.previous
        for following in row.next
    ]
    resolved = resolve(config, preset).rows
    assert [(row.previous, row.next, row.base + DOTS * row.per_dot, row.window) for row in resolved] == expected


# --- what the engine issues ---


def assert_legal(config: MemoryConfig, preset: str, works: Sequence[Work], outcome: Outcome) -> None:
    """INV-1 and INV-4."""
    violations = check_commands(config, outcome.log, preset=preset, until=outcome.until)
    assert not violations, describe(works, violations)


def assert_conserved(config: MemoryConfig, works: Sequence[Work], outcome: Outcome) -> None:
    """INV-2: every burst, vector and result that was asked for moves once, and every item completes once."""
    for kind, command in enumerate(["RD", "WR"]):
        moved = Counter((channel, bank, row) for channel, bank, row in outcome.named(command)[:, [1, 3, 4]].tolist())
        assert moved == asked_in_total(config, works, kind)
    for channel in range(config.organization.channels):
        operations = pim_operations(works, channel)
        results = [(row, dots) for kind, row, count, dots in operations if kind == TILE for _ in range(count)]
        expected = {
            "GWRITE": [(row, -1) for kind, row, _, _ in operations if kind == GWRITE],
            "HEADER": [(row, -1) for kind, row, _, _ in operations if kind == TILE],
            "GEMV": results,
        }
        for command, sequence in expected.items():
            entries = outcome.named(command)
            assert [tuple(e) for e in entries[entries[:, 1] == channel][:, [4, 6]].tolist()] == sequence
    assert Counter(item for _, item in outcome.completed) == Counter(item for _, item in outcome.submitted)
    assert outcome.counters is not None
    assert outcome.counters.commands == {name: len(outcome.named(name)) for name in COMMANDS}


def assert_completed_on_time(config: MemoryConfig, works: Sequence[Work], outcome: Outcome) -> None:
    """A transfer completes when its last burst has moved, unless it is a posted write; a program with its last result."""
    latency = {"RD": config.timing["CL"], "WR": config.timing["CWL"]}
    taken = [0] * config.organization.channels
    for number, work in enumerate(works):
        submitted, item = outcome.submitted[number]
        completion = outcome.completion(number)
        if isinstance(work, Transfer):
            command = ("RD", "WR")[work.kind]
            if command == "WR" and config.controller.posted_writes:
                continue
            own = outcome.named(command)
            own = own[(own[:, -1] == item) & (own[:, 0] >= submitted) & (own[:, 0] < completion)]
            assert len(own) == len(asked_bursts(config, work))
            last_cycle = own[:, 0].max() + config.command_cycles.get(command, 1) - 1
            assert completion == last_cycle + latency[command] + config.organization.burst_cycles
            continue
        ends = []
        for channel, operations in work.operations.items():
            taken[channel] += sum(1 if kind == GWRITE else readouts for kind, _, readouts, _ in operations)
            issued = outcome.named("GWRITE", "GEMV")
            cycle, _, command, _, _, _, dots = issued[issued[:, 1] == channel][taken[channel] - 1].tolist()
            result = latency_cycles(config, config.pim.result_latency, dots)
            ends.append(cycle + (config.timing["tGWRITE"] if COMMANDS[command] == "GWRITE" else result))
        assert completion == max(ends)


def check_engine(config: MemoryConfig, preset: str, works: Sequence[Work]) -> None:
    outcome = run(config, preset, works)
    assert_legal(config, preset, works, outcome)
    assert_conserved(config, works, outcome)
    assert_completed_on_time(config, works, outcome)


PHASES = (Phase.generate, Phase.shrink)
"""Without explaining a failure: that takes many more runs, and the message has the work that was run."""

ENGINE_TABLES = [
    pytest.param(name, preset, channels, colliding, id=f"{name}-{preset}-{'colliding' if colliding else 'apart'}")
    for name, channels, rows in (("hbm2", 2, [False]), ("hbm2_pim_dual", 2, [False, True]), ("hbm2_pim_blocked", 1, [False, True]))
    for preset in ("physical", "asplos24")
    for colliding in rows
]  # fmt: skip


@pytest.mark.parametrize(("name", "preset", "channels", "colliding"), ENGINE_TABLES)
def test_inv_1_and_2_every_command_is_legal_and_every_burst_moves_once(
    name: str, preset: str, channels: int, colliding: bool
) -> None:
    config = memory(name, preset, channels=channels)

    @settings(max_examples=25, phases=PHASES)
    @given(mixes(config, colliding=colliding))
    def law(works: list[Work]) -> None:
        check_engine(config, preset, works)

    law()


@settings(max_examples=40, phases=PHASES)
@given(st.data())
def test_inv_1_and_2_hold_for_any_organization_and_controller(data: st.DataObject) -> None:
    config, preset = data.draw(variants())
    check_engine(config, preset, data.draw(mixes(config, colliding=data.draw(st.booleans()))))


@pytest.mark.parametrize("preset", ["physical", "asplos24"])
@pytest.mark.parametrize("name", ["hbm2_pim_blocked", "hbm2_pim_dual"])
def test_a_tile_closes_bank_groups_that_are_open_in_part(name: str, preset: str) -> None:
    """PIM_ACT opens a row in all four banks at once: a GWRITE of the tile's row must not leave one of them open, or closed."""
    operations = [(GWRITE, 0, 0, 0), (TILE, 0, 1, 1), (GWRITE, 0, 0, 0), (TILE, 0, 1, 1)]
    check_engine(memory(name, preset), preset, [Program(0, {0: operations})])


@pytest.mark.parametrize(("outstanding", "groups"), [(1, 32), (2, 16), (4, 8)])
def test_the_next_read_is_accepted_when_an_outstanding_one_returns(outstanding: int, groups: int) -> None:
    overrides = {"organization.channels": 1, "controller.max_outstanding_reads": outstanding}
    outcome = run(load_memory("hbm2", "physical", overrides), "physical", [Transfer(0, 0, 0, 32 * 64)])
    activation, latency, burst = 14, 14 + 2, 2
    assert outcome.completion(0) == activation + groups * latency + (outstanding - 1) * burst


@settings(max_examples=20, phases=PHASES)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 200), st.integers(0, 1 << 12)), min_size=1, max_size=300))
def test_inv_1_and_2_a_replayed_trace_is_legal_and_complete(requests: list[tuple[int, int, int]]) -> None:
    kind, gap, burst = (np.array(column, dtype=np.int64) for column in zip(*requests, strict=True))
    config = memory("hbm2", channels=2)
    device = CommandDevice(resolve(config), log=True)
    channel, local = AddressMap.of(config.organization).split(burst)
    item = device.load_trace(local, kind, np.cumsum(gap // 20), channel)
    done: list[int] = []
    while not done:
        assert device.time < 400_000
        _, done = device.advance(device.time + 5000)
    assert done == [item]
    log = device.take_log()
    assert check_commands(config, log, until=device.time) == []
    works = [Transfer(0, which, 64 * at, 1) for which, _, at in requests]
    for which, command in enumerate(["RD", "WR"]):
        moved = log[log[:, 2] == COMMANDS.index(command)][:, [1, 3, 4]].tolist()
        assert Counter(map(tuple, moved)) == asked_in_total(config, works, which)

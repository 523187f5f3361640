"""The command-level device: what it is handed completes once, in time, whatever the steps in which it is advanced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cases import Program, Transfer, Work, memory, mixes

from neupims_sim.config import MemoryConfig, load_memory
from neupims_sim.config.memory import Constraint
from neupims_sim.errors import InputError
from neupims_sim.memory import COMMANDS, READ, WRITE, CommandDevice, PimProgram, check_commands, resolve
from neupims_sim.memory.device import needed_rows
from neupims_sim.memory.program import GWRITE, TILE
from neupims_sim.memory.spec import ACT, BANK, BANK_GROUP, OTHER_RANKS, RANK, RD, Row

Log = np.ndarray
DRAM = memory("hbm2")
DUAL = memory("hbm2_pim_dual", channels=4)

ACTIVATION, READ_LATENCY, WRITE_LATENCY = 14, 14 + 2, 4 + 2
"""tRCD; CL and CWL plus a burst."""


def device(config: MemoryConfig, preset: str = "physical", *, window: int | None = None) -> CommandDevice:
    """A device with a log."""
    windows = {} if window is None else {"most_window_cycles": window}
    return CommandDevice(resolve(config, preset), log=True, **windows)


def completions(of: CommandDevice, items: int, step: int = 1_000_000) -> list[tuple[int, int]]:
    """Advance until so many items are complete: (cycle, item) in the order reported."""
    found: list[tuple[int, int]] = []
    while len(found) < items:
        assert of.time < 2_000_000, "stuck"
        cycle, done = of.advance(of.time + step)
        found += [(cycle, item) for item in done]
    return found


def named(log: Log, *names: str) -> Log:
    """Entries of some commands."""
    return log[np.isin(log[:, 2], [COMMANDS.index(name) for name in names])]


def per_channel(log: Log) -> Log:
    """A log in issue order of each channel, the channels one after the other."""
    return log[np.argsort(log[:, 1], kind="stable")]


# --- completion ---


def test_inv_2_every_transfer_completes_once_and_its_bursts_move_once() -> None:
    config = memory("hbm2", channels=4)
    of = device(config)
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 40_000, 50)
    addresses = rng.integers(0, 1 << 26, 50)
    kinds = rng.integers(0, 2, 50)
    items = [of.submit_transfer(int(k), int(a), int(n)) for k, a, n in zip(kinds, addresses, sizes, strict=True)]
    done = completions(of, 50)
    of.advance(of.time + 10_000)
    assert sorted(item for _, item in done) == sorted(items)
    bursts = (addresses + sizes - 1) // 64 - addresses // 64 + 1
    counters = of.counters()
    assert (counters.reads, counters.writes) == (bursts[kinds == READ].sum(), bursts[kinds == WRITE].sum())
    log = of.take_log()
    for item, asked in zip(items, bursts, strict=True):
        assert np.count_nonzero(named(log, "RD", "WR")[:, -1] == item) == asked


def test_a_read_completes_when_its_last_burst_has_arrived() -> None:
    of = device(DRAM)
    item = of.submit_transfer(READ, 0, 4 * 64)
    assert completions(of, 1) == [(ACTIVATION + 3 * 2 + READ_LATENCY, item)]


@pytest.mark.parametrize(("posted", "complete"), [(False, ACTIVATION + WRITE_LATENCY), (True, WRITE_LATENCY)])
def test_a_posted_write_completes_when_it_is_accepted(posted: bool, complete: int) -> None:
    config = load_memory("hbm2", "physical", {"organization.channels": 1, "controller.posted_writes": posted})
    of = device(config)
    item = of.submit_transfer(WRITE, 0, 64)
    assert completions(of, 1) == [(complete, item)]
    of.advance(1000)
    assert of.counters().writes == 1


def test_transfers_of_a_kind_complete_in_order() -> None:
    of = device(DRAM)
    items = [of.submit_transfer(READ, 4096 * at, 2048) for at in range(6)]
    done = completions(of, 6)
    assert [item for _, item in done] == items
    cycles = [cycle for cycle, _ in done]
    assert cycles == sorted(cycles)


def test_programs_on_several_channels_complete_as_one_item_with_the_last() -> None:
    short = PimProgram.build([(GWRITE, 0, 0, 0), (TILE, 100, 1, 8)])
    long = PimProgram.build([(GWRITE, 0, 0, 0), *((TILE, 100 + i, 4, 8) for i in range(9))])
    alone = device(DUAL)
    alone.submit_programs({2: long})
    [(cycle, _)] = completions(alone, 1)
    of = device(DUAL)
    item = of.submit_programs({0: short, 2: long, 3: short})
    assert completions(of, 1) == [(cycle, item)]
    assert of.counters().tiles == 11
    assert of.counters().dot_products == 8 + 8 + 9 * 4 * 8


def test_no_operation_starts_before_its_release() -> None:
    of = device(DUAL)
    program = PimProgram.build([(GWRITE, 0, 0, 0), (TILE, 100, 1, 8)])
    of.submit_programs({1: program}, {1: np.array([700, 2000])})
    completions(of, 1)
    log = of.take_log()
    assert named(log, "ACT")[0, 0] == 700
    assert named(log, "HEADER")[0, 0] == 2000


def test_a_transfer_within_a_channel_stays_there() -> None:
    of = device(DUAL)
    of.submit_channel_transfer(READ, 2, 3 * 1024, 5000)
    completions(of, 1)
    reads = named(of.take_log(), "RD")
    assert set(reads[:, 1]) == {2}
    assert len(reads) == (3 * 1024 + 4999) // 64 - 48 + 1


def test_item_numbers_are_used_again() -> None:
    of = device(DRAM)
    numbers = set()
    for _ in range(20):
        numbers.add(of.submit_transfer(READ, 0, 64))
        completions(of, 1)
    assert len(numbers) == 1


# --- time ---


def submit(to: CommandDevice, work: Work) -> int:
    """Hand over some work now."""
    if isinstance(work, Transfer):
        return to.submit_transfer(work.kind, work.address, work.size_bytes)
    assert isinstance(work, Program)
    return to.submit_programs({channel: PimProgram.build(o) for channel, o in work.operations.items()})


def drive(of: CommandDevice, works: Sequence[Work], steps: Iterator[int]) -> tuple[list[tuple[int, int]], Log]:
    """Submit work at its cycles and run to the end, ``steps`` cycles at a time at most: completions and log."""
    done: list[tuple[int, int]] = []

    def advance_to(cycle: int) -> None:
        while of.time < cycle:
            limit = min(cycle, of.time + next(steps))
            reached, items = of.advance(limit)
            assert reached == of.time <= limit
            done.extend((reached, item) for item in items)

    cycle = 0
    for work in works:
        cycle += work.gap
        advance_to(cycle)
        submit(of, work)
    advance_to(cycle + 60_000)
    assert len(done) == len(works)
    return done, per_channel(of.take_log())


def always(step: int) -> Iterator[int]:
    """The same step for ever."""
    while True:
        yield step


CASES = [
    ("hbm2", "physical", {}),
    ("hbm2", "asplos24", {"controller.max_outstanding_reads": 6}),
    ("hbm2_pim_dual", "physical", {}),
    ("hbm2_pim_dual", "asplos24", {}),
    ("hbm2_pim_blocked", "physical", {}),
    ("hbm2_pim_blocked", "asplos24", {"controller.refresh": "off"}),
]


@pytest.mark.parametrize(("name", "preset", "overrides"), CASES)
def test_the_steps_and_the_look_ahead_do_not_change_what_happens(
    name: str, preset: str, overrides: dict[str, object]
) -> None:
    """The co-simulation rule: channels that run ahead within a window do what they do when all move cycle by cycle."""
    config = load_memory(name, preset, {"organization.channels": 4} | overrides)

    @settings(max_examples=15)
    @given(mixes(config), st.integers(0, 1 << 30))
    def law(works: list[Work], seed: int) -> None:
        expected, expected_log = drive(device(config, preset), works, always(1 << 40))
        steps = np.random.default_rng(seed)
        for window in (None, 1, 40):
            random_steps = iter(lambda: int(steps.choice([1, 2, 17, 300, 5000])), 0)
            done, log = drive(device(config, preset, window=window), works, random_steps)
            assert done == expected
            assert np.array_equal(log, expected_log)

    law()


@pytest.mark.parametrize("posted", [False, True])
def test_a_trace_of_reads_and_writes_completes_at_the_same_cycle_with_any_look_ahead(posted: bool) -> None:
    """A posted write may be accepted in the cycle in which a read issues: two bursts of one item in a cycle."""
    config = load_memory("hbm2", "physical", {"organization.channels": 1, "controller.posted_writes": posted})
    rng = np.random.default_rng(7)
    for count in (3, 20, 150, 1000):
        local, kind = rng.integers(0, 1 << 12, count), rng.integers(0, 2, count)
        zero = np.zeros(count, dtype=np.int64)
        ends = set()
        for window in (None, 1):
            of = device(config, window=window)
            of.load_trace(local, kind, zero, zero)
            [(cycle, _)] = completions(of, 1)
            assert cycle == of.counters().last_memory_cycle
            ends.add(cycle)
        assert len(ends) == 1


def test_advance_stops_at_the_limit_and_issues_nothing_from_there_on() -> None:
    of = device(DRAM)
    of.submit_transfer(READ, 0, 1 << 20)
    for limit in (1, 15, 16, 17, 1000, 5003):
        assert of.advance(limit) == (limit, [])
        assert of.take_log()[:, 0].max(initial=-1) < limit


def test_work_handed_over_at_a_completion_starts_at_that_cycle() -> None:
    of = device(DRAM)
    of.submit_transfer(READ, 0, 64)
    [(cycle, _)] = completions(of, 1)
    of.submit_transfer(READ, 64, 64)  # the same row
    assert completions(of, 1)[0][0] == cycle + READ_LATENCY


def test_inv_7_the_same_work_gives_the_same_log() -> None:
    works: list[Work] = [
        Transfer(3, READ, 4096 * 77, 300_000),
        Program(0, {0: [(GWRITE, 16, 0, 0), (TILE, 17, 4, 8)], 3: [(TILE, 18, 1, 32)]}),
        Transfer(900, WRITE, 64, 100_000),
    ]
    runs = [drive(device(DUAL), works, always(1 << 40)) for _ in range(2)]
    assert runs[0][0] == runs[1][0]
    assert np.array_equal(runs[0][1], runs[1][1])


def test_a_log_longer_than_the_engine_holds_is_complete() -> None:
    logged, silent = device(DRAM), CommandDevice(resolve(DRAM))
    for of in (logged, silent):
        of.submit_transfer(READ, 0, 6 << 20)
    assert completions(logged, 1) == completions(silent, 1)
    log = logged.take_log()
    assert len(log) > 1 << 16
    assert len(log) == sum(silent.counters().commands.values())
    assert len(logged.take_log()) == 0


# --- limits and bad input ---


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"organization.banks_per_group": 32}, "banks per channel: 128; allowed: at most 64"),
        ({"organization.ranks": 16, "organization.bank_groups": 1}, "ranks per channel: 16; allowed: at most 8"),
        ({"controller.bank_queue_depth": 129}, "controller.bank_queue_depth: 129; allowed: at most 128"),
        ({"controller.transaction_queue_depth": 65}, "controller.transaction_queue_depth: 65; allowed: at most 64"),
        ({"controller.max_outstanding_reads": 9000}, "controller.max_outstanding_reads: 9000; allowed: at most 8192"),
    ],
)
def test_a_table_beyond_the_engines_sizes_is_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CommandDevice(resolve(load_memory("hbm2", "physical", overrides)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["rank", "ACT", "ACT", f"{n} + tFAW", {"window": n}] for n in (2, 3, 5, 6)], "with a window: 5; allowed: at most 4"),
        ([["rank", "ACT", "ACT", "tFAW", {"window": 33}]], "longest window: 33; allowed: at most 32"),
        ([["other_ranks", "ACT", "ACT", "tFAW", {"window": 2}]], "a window excludes the scopes other_ranks and pseudo_channel"),
    ],
)  # fmt: skip
def test_constraint_rows_beyond_the_engines_sizes_are_refused(rows: list[object], message: str) -> None:
    constraints = [row.model_dump() for row in DRAM.constraints] + rows
    config = MemoryConfig.model_validate(DRAM.model_dump() | {"constraints": constraints})
    with pytest.raises(InputError, match=message):
        CommandDevice(resolve(config))


def test_a_row_that_a_wider_one_implies_is_left_out() -> None:
    wide, narrow = Row(RD, RD, RANK, 2, 0, 1), Row(RD, RD, BANK_GROUP, 2, 0, 1)
    longer, window = Row(RD, RD, BANK_GROUP, 3, 0, 1), Row(ACT, ACT, RANK, 30, 0, 4)
    elsewhere = Row(RD, RD, OTHER_RANKS, 4, 0, 1)
    rows = [narrow, wide, longer, window, elsewhere, Row(ACT, RD, BANK, 14, 0, 1)]
    assert set(needed_rows(rows, ranks=2)) == set(rows) - {narrow}
    assert set(needed_rows(rows, ranks=1)) == set(rows) - {narrow, elsewhere}


@pytest.mark.parametrize(("address", "size"), [(0, 0), (-64, 64), (1 << 30, 1), ((1 << 30) - 64, 65)])
def test_inv_9_a_transfer_beyond_the_capacity_is_refused(address: int, size: int) -> None:
    of = device(DRAM)
    with pytest.raises(InputError, match="does not fit"):
        of.submit_transfer(READ, address, size)


@pytest.mark.parametrize(
    ("config", "programs", "message"),
    [
        (DRAM, {0: [(GWRITE, 0, 0, 0)]}, "has no PIM"),
        (DUAL, {4: [(GWRITE, 0, 0, 0)]}, "channel 4; allowed: 0 to 3"),
        (DUAL, {0: []}, "is empty"),
        (DUAL, {0: [(TILE, 1 << 15, 1, 1)]}, "row 32768; allowed: 0 to 32767"),
        (DUAL, {0: [(GWRITE, 0, 0, 0), (TILE, 0, 4, 9)]}, "operation 1: TILE of 4 readouts of 9 .* at most 32"),
        (DUAL, {0: [(TILE, 0, 1 << 30, 1 << 30)]}, "a row holds 32"),
        (DUAL, {0: [(TILE, 0, 0, 1)]}, "at least one readout"),
        (DUAL, {0: [(TILE, 0, -1, -1)]}, "at least one readout"),
        (DUAL, {0: [(GWRITE, -1, 0, 0)]}, "row -1; allowed"),
        (DUAL, {0: [(GWRITE, 0, 1, 0)]}, "readouts=1, dots=0; allowed: 0 and 0"),
        (DUAL, {0: [(7, 0, 1, 1)]}, "kind 7"),
        (DUAL, {0: [(TILE, 1 << 40, 1, 1)]}, "below 2"),
        (DUAL, {}, "for no channel"),
    ],
)
def test_a_program_that_the_memory_cannot_run_is_refused(
    config: MemoryConfig, programs: dict[int, list[tuple[int, int, int, int]]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        device(config).submit_programs({channel: PimProgram.build(o) for channel, o in programs.items()})


def test_releases_are_as_many_as_operations_and_transfers_of_a_kind() -> None:
    with pytest.raises(InputError, match="a cycle for each of its 1 operations"):
        device(DUAL).submit_programs({0: PimProgram.build([(GWRITE, 0, 0, 0)])}, {0: np.zeros(2, np.int64)})
    with pytest.raises(InputError, match="transfer of kind 2"):
        device(DRAM).submit_transfer(2, 0, 64)


@pytest.mark.parametrize("preset", ["physical", "asplos24"])
def test_the_row_that_a_gwrite_waits_for_is_opened_once(preset: str) -> None:
    """Requests for other rows of its bank do not close it again while the GWRITE waits for the dot-products before it."""
    config = load_memory("hbm2_pim_dual", preset, {"organization.channels": 1})
    of = device(config, preset)
    gwrites, row = 40, 20
    of.submit_programs({0: PimProgram.build([(TILE, 16, 1, 32), (GWRITE, row, 0, 0)] * gwrites)})
    for number in range(200):
        of.submit_transfer(READ, number % 6 * 32 * 1024, 1024)
    completions(of, 201)
    activations = named(of.take_log(), "ACT")
    assert np.count_nonzero(activations[:, 4] == row) <= gwrites


def test_rows_of_a_pseudo_channel_bind_all_its_ranks_and_no_other_pseudo_channel() -> None:
    organization = {"organization.channels": 1, "organization.pseudo_channels": 2, "organization.ranks": 2}
    mapping = {"organization.address_mapping": "ropcrabgbachco", "controller.refresh": "off"}
    config = load_memory("hbm2", "physical", organization | mapping)
    row = Constraint.model_validate(["pseudo_channel", "ACT", "ACT", "70"])
    config = config.model_copy(update={"constraints": (*config.constraints, row)})
    of = device(config)
    size = config.organization.row_bytes
    for bank in (0, 16, 32, 48):  # ranks 0 and 1 of both pseudo-channels
        of.submit_transfer(READ, bank * size, 64)
    completions(of, 4)
    log = of.take_log()
    assert check_commands(config, log) == []
    activated = {int(bank): int(cycle) for cycle, _, _, bank, *_ in named(log, "ACT")}
    assert activated[16] - activated[0] == 70
    assert activated[48] - activated[32] == 70
    assert activated[32] < 70

"""Every shipped memory table at every speed grade: figures follow from its own timing, each row of it binds to the cycle."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_cases import Work, describe, mixes, run
from standard_cases import (
    GRADES,
    TABLES,
    Issued,
    Variant,
    byte_of,
    commands_of,
    earliest_by,
    first_of,
    grade,
    length,
    local_of,
    refresh_interval,
    refreshes,
    relations,
    variants,
)

from neupims_sim.config import MemoryConfig, load_memory
from neupims_sim.config.memory import Constraint
from neupims_sim.memory import engine
from neupims_sim.memory.device import CommandDevice, build_channels, build_table
from neupims_sim.memory.energy import command_energy_pj
from neupims_sim.memory.engine import READ
from neupims_sim.memory.legality import addressed_banks, check_commands
from neupims_sim.memory.policies import CONTROLLER_POLICIES
from neupims_sim.memory.spec import COMMAND_LEVEL, COMMANDS, resolve

each_grade = pytest.mark.parametrize(("name", "speed"), GRADES)
each_table = pytest.mark.parametrize("name", TABLES)


def row_timing(config: MemoryConfig) -> tuple[int, int, int]:
    """tRCD of a read, tRP, and CL with the burst, from the first cycles of the commands (JEDEC counts from the last)."""
    return (
        first_of(config, "tRCDRD", "tRCD") + length(config, "ACT", "RD"),
        config.timing["tRP"] + length(config, "PRE", "ACT"),
        config.timing["CL"] + config.organization.burst_cycles + length(config, "RD", "one cycle"),
    )


def read(device: CommandDevice, bank: int, row: int) -> int:
    """Cycles that a read of one burst takes from now on."""
    config, begin = device.spec.config, device.time
    device.submit_channel_transfer(READ, 0, byte_of(config, bank, row), config.organization.burst_bytes)
    end, done = device.advance(1 << 40)
    assert len(done) == 1
    return end - begin


def replayed(config: MemoryConfig, local: np.ndarray) -> tuple[int, np.ndarray]:
    """Reads that are all offered at once: cycle of the last one's end, and the log."""
    device = CommandDevice(resolve(config), log=True)
    zero = np.zeros(len(local), dtype=np.int64)
    device.load_trace(local, zero, zero, zero)
    end, done = device.advance(1 << 40)
    assert len(done) == 1
    return end, device.take_log()


def cycles_of(log: np.ndarray, command: str) -> np.ndarray:
    return log[log[:, 2] == COMMANDS.index(command), 0]


# --- what follows from a table's own timing ---


@each_table
def test_a_table_has_speed_grades_of_its_own_clock_and_says_where_its_figures_come_from(name: str) -> None:
    config = load_memory(name)
    assert config.speed in config.speeds
    clocks = {load_memory(name, overrides={"speed": speed}).organization.clock_ghz for speed in config.speeds}
    assert len(clocks) >= (1 if "One speed grade" in config.source else 2)
    assert config.source
    assert config.power is not None
    assert config.power.source


@each_grade
def test_sequential_reads_reach_95_percent_of_the_refresh_limited_peak(name: str, speed: str) -> None:
    config = grade(name, speed, "all_bank")
    organization, timing = config.organization, config.timing
    peak = organization.pseudo_channels * organization.burst_bytes / organization.burst_cycles
    device = CommandDevice(resolve(config))
    size = int(10 * timing["tREFI"] * peak)
    device.submit_channel_transfer(READ, 0, 0, size)
    cycles, _ = device.advance(1 << 40)
    assert 0.95 * peak * (1 - timing["tRFC"] / timing["tREFI"]) <= size / cycles <= peak


@each_grade
def test_latencies_of_a_closed_bank_a_row_hit_and_a_row_conflict(name: str, speed: str) -> None:
    config = grade(name, speed)
    activate, precharge, column = row_timing(config)
    device = CommandDevice(resolve(config))
    bank = config.organization.banks - 1
    assert read(device, bank, 5) == activate + column
    assert read(device, bank, 5) == column
    device.advance(device.time + 1000)
    assert read(device, bank, 6) == precharge + activate + column


@each_grade
def test_conflicts_in_one_bank_follow_each_other_every_row_cycle(name: str, speed: str) -> None:
    config = grade(name, speed)
    activate, precharge, column = row_timing(config)
    rows = range(50)
    end, log = replayed(config, local_of(config, [3] * len(rows), rows))
    read_to_precharge = earliest_by(config, config.constraints, [Issued(0, "RD", 3)], "PRE", 3)
    open_cycles = config.timing["tRAS"] + length(config, "ACT", "PRE")
    row_cycle = max(open_cycles, activate + read_to_precharge) + precharge
    row_cycle = max(row_cycle, earliest_by(config, config.constraints, [Issued(0, "ACT", 3)], "ACT", 3))
    assert set(np.diff(cycles_of(log, "ACT"))) == {row_cycle}
    assert end == (len(rows) - 1) * row_cycle + activate + column


@each_grade
def test_random_reads_are_spaced_by_the_activation_limits_the_banks_or_the_data_bus(name: str, speed: str) -> None:
    config = grade(name, speed)
    organization, timing = config.organization, config.timing
    count, rng = 4000, np.random.default_rng(5)
    banks, rows = rng.integers(0, organization.banks, count), rng.integers(0, organization.rows, count)
    end, log = replayed(config, local_of(config, banks.tolist(), rows.tolist()))
    assert len(cycles_of(log, "ACT")) > 0.98 * count
    per_rank = max(first_of(config, "tRRD_S", "tRRD"), timing.get("tFAW", 0) / 4)
    bound = max(per_rank / organization.ranks, organization.burst_cycles) / organization.pseudo_channels
    row_cycle = earliest_by(config, config.constraints, [Issued(0, "ACT", 0)], "ACT", 0)
    bound = max(bound, row_cycle / organization.banks)
    assert 0.99 * bound <= end / count <= 1.25 * bound  # 1 %: a few rows are open already


@each_grade
@pytest.mark.parametrize("refresh", ["all_bank", "per_bank", "off"])
def test_inv_4_refreshes_of_each_rank_are_counted(name: str, speed: str, refresh: str) -> None:
    config = grade(name, speed, refresh)
    if refresh not in refreshes(config):
        pytest.skip("the standard has no per-bank refresh")
    organization = config.organization
    device = CommandDevice(resolve(config), log=True)
    device.submit_channel_transfer(READ, 0, 0, 200_000)
    until = 7 * config.timing["tREFI"] + 100
    while device.time < until:
        device.advance(until)
    log = device.take_log()
    for command in ("REF", "REFPB"):
        banks = log[log[:, 2] == COMMANDS.index(command), 3]
        counts = np.bincount(
            banks // organization.banks_per_rank, minlength=organization.banks // organization.banks_per_rank
        )
        wanted = {"all_bank": "REF", "per_bank": "REFPB", "off": None}[refresh] == command
        expected = until // refresh_interval(config) if wanted else 0
        assert np.abs(counts - expected).max() <= (1 if wanted else 0)
        if wanted:
            covered = np.bincount([bank for first in banks for bank in addressed_banks(config, command, int(first))])
            assert len(covered) == organization.banks
            assert covered.max() - covered.min() <= 1
            assert (
                organization.banks_per_rank / len(addressed_banks(config, command, 0)) * refresh_interval(config)
                <= config.timing["tREFI"]
            )


@each_table
def test_every_timing_parameter_of_a_table_is_used(name: str) -> None:
    config = load_memory(name)
    expressions = [row.latency for row in config.constraints]
    if config.row_buffers != "none":
        expressions.append(config.pim.result_latency)
    words = {word for expression in expressions for word in re.findall(r"\w+", expression)}
    read_by_the_engine = {"CL", "CWL", "tREFI", "tREFIpb", "tGWRITE"}
    assert set(config.timing) <= words | read_by_the_engine


# --- power ---


@each_grade
def test_currents_are_ordered_as_in_a_data_sheet(name: str, speed: str) -> None:
    power = grade(name, speed).power
    assert power is not None
    assert power.idd2n_ma < power.idd3n_ma < min(power.idd4r_ma, power.idd4w_ma, power.idd5ab_ma)
    energy = command_energy_pj(grade(name, speed))
    assert min(energy[command] for command in ("ACT", "RD", "WR", "REF", "REFPB")) > 0


def per_byte(config: MemoryConfig) -> list[float]:
    """Energy of a read per byte, of an activation per byte of the page, of a refresh per byte of the rank."""
    organization, energy = config.organization, command_energy_pj(config)
    rank_bytes = organization.banks_per_rank * organization.rows * organization.row_bytes
    sizes = {"RD": organization.burst_bytes, "ACT": organization.row_bytes, "REF": rank_bytes}
    return [energy[command] / size for command, size in sizes.items()]


@pytest.mark.parametrize(("name", "volts_squared"), [("hbm2e", 1.0), ("hbm3", (1.1 / 1.2) ** 2)])
def test_scaled_currents_keep_the_energy_of_hbm2_per_byte(name: str, volts_squared: float) -> None:
    expected = [volts_squared * energy for energy in per_byte(grade("hbm2", "2.0Gbps"))]
    for speed in load_memory(name).speeds:
        # times are rounded up to cycles
        assert per_byte(grade(name, speed)) == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize(
    ("name", "reads_per_dot"),
    [("hbm2_pim_dual", 4), ("hbm2_pim_blocked", 4), ("hbm3_pim_dual", 8), ("gddr6_aim", 3)],
)
def test_energies_of_pim_events_are_multiples_of_activations_and_reads(name: str, reads_per_dot: int) -> None:
    config = grade(name, load_memory(name).speed)
    organization, energy = config.organization, command_energy_pj(config)
    opened = {"bank_group": organization.banks_per_group, "rank": organization.banks_per_rank}[config.pim.activates]
    result_bytes = 2 * organization.banks
    assert energy["PIM_ACT"] == pytest.approx(opened * energy["ACT"], rel=0.01)
    assert energy["dot_product"] == pytest.approx(reads_per_dot * energy["RD"], rel=0.01)
    assert energy["GWRITE"] == pytest.approx(organization.row_bytes / organization.burst_bytes * energy["RD"], rel=0.01)
    assert energy["GEMV"] == pytest.approx(result_bytes / organization.burst_bytes * energy["RD"], rel=0.01)


# --- legality ---


def controllers(config: MemoryConfig) -> st.SearchStrategy[dict[str, Any]]:
    """Every policy that the table can have, and settings that make them matter."""
    policies = {key: st.sampled_from(list(names)) for key, names in CONTROLLER_POLICIES.items()}
    return st.fixed_dictionaries(
        {f"controller.{key}": names for key, names in policies.items()}
        | {
            "controller.refresh": st.sampled_from(refreshes(config)),
            "controller.precharge_all": st.booleans(),
            "controller.page_timeout_cycles": st.sampled_from([1, 100]),
            "controller.pim_max_wait_cycles": st.sampled_from([1, 500]),
            "controller.row_hit_cap": st.sampled_from([1, 16]),
            "controller.posted_writes": st.booleans(),
            "organization.channels": st.sampled_from([1, 2]),
            "speed": st.sampled_from(list(config.speeds)),
        }
    )


@each_table
def test_inv_1_every_issued_command_is_legal_under_every_policy(name: str) -> None:
    @settings(max_examples=10, suppress_health_check=[HealthCheck.data_too_large])
    @given(st.data())
    def law(data: st.DataObject) -> None:
        config = load_memory(name, overrides=data.draw(controllers(load_memory(name))))
        works: list[Work] = data.draw(mixes(config))
        outcome = run(config, "physical", works)
        violations = check_commands(config, outcome.log, until=outcome.until)
        assert not violations, describe(works, violations)

    law()


# --- every row of every table ---

SAME_GROUP = "a burst is as long as tCCD_L; a longer tCCD_L, as in pseudo-channel mode, would bind"
TURNAROUND = "read data come CL after RD, later than write data end; a longer CWL would bind"
HBM2_IMPLIED = {
    "[bank_group, RD, RD, max(burst, tCCD_L)]: RD -> RD": SAME_GROUP,
    "[bank_group, WR, WR, max(burst, tCCD_L)]: WR -> WR": SAME_GROUP,
    "[other_ranks, WR, RD, max(0, CWL + burst + tRTRS - CL)]: WR -> RD": TURNAROUND,
}
NO_GROUPS = "gddr6_aim states tCCD_L = tCCD_S, as measured on the device; the row is that of gddr6, where it binds"
IMPLIED = {
    "hbm2": HBM2_IMPLIED,
    "hbm2_pim_dual": HBM2_IMPLIED,
    "hbm2_pim_blocked": HBM2_IMPLIED,
    "gddr6_aim": {
        "[bank_group, RD, RD, tCCD_L]: RD -> RD": NO_GROUPS,
        "[bank_group, WR, WR, tCCD_L]: WR -> WR": NO_GROUPS,
    },
}
"""Pairs of commands of a row that never wait for it in a shipped table, with the reason why the row stands there."""

START = 1000


class Probe:
    """A channel of the compiled engine in which commands have been issued, whatever the rows say."""

    def __init__(self, variant: Variant) -> None:
        self.config = variant.config
        spec = resolve(variant.config, variant.preset)
        self.table = build_table(spec, all_rows=True)
        self.idle = build_channels(self.table)
        self.device = np.zeros(1, dtype=engine.DEVICE)
        self.level = COMMAND_LEVEL | {"PIM_ACT": spec.pim_act_level}

    def after(self, *issued: Issued) -> Any:
        """A fresh channel after these commands; their time on the command bus is forgotten."""
        channels = self.idle.copy()
        table, channel, device = self.table[0], channels[0], self.device[0]
        for cycle, command, bank, dots in issued:
            number = COMMANDS.index(command)
            if command == "REFPB":
                engine.issue_refresh(table, channel, device, cycle, number, bank)
            else:
                engine.record(
                    table, channel, device, cycle, number, bank, 0, -1, max(dots, self.config.pim.pipeline_dots), -1
                )
        channels["bus"] = 0
        return channel

    def earliest(self, channel: Any, command: str, bank: int) -> int:
        """The first legal cycle of a command."""
        level = self.level[command]
        banks = addressed_banks(self.config, command, bank) if command == "REFPB" else [bank]
        number = COMMANDS.index(command)
        return max(int(engine.earliest(self.table[0], channel, number, other, level)) for other in banks)


def dots_of(config: MemoryConfig, command: str) -> list[int]:
    """Lengths to try: of a GEMV, one below and one above its pipeline."""
    return [1, config.pim.pipeline_dots + 7] if command == "GEMV" else [0]


def pair(row: Constraint, previous: str, following: str) -> str:
    """A row and two of its commands."""
    return f"{row.text}: {previous} -> {following}"


def without(rows: list[Constraint], row: Constraint) -> list[Constraint]:
    return [other for other in rows if other is not row]


def window_cases(variant: Variant) -> Iterator[tuple[Constraint, list[Issued], str, int]]:
    """Per row with a window: as many of its commands as it counts, each as early as all rows allow, and one more to come.

    The commands go to the bank groups of a rank in turn.
    """
    organization = variant.config.organization
    for row in variant.rows:
        if row.window == 1:
            continue
        turns = [
            group * organization.banks_per_group + bank
            for bank in range(organization.banks_per_group)
            for group in range(organization.bank_groups)
        ]
        for command in row.next:
            for first in range(len(row.previous)):
                issued: list[Issued] = []
                for turn in range(row.window):
                    previous, bank = row.previous[(first + turn) % len(row.previous)], turns[turn]
                    cycle = max([START, *(before.cycle + 1 for before in issued)])
                    cycle = max(cycle, earliest_by(variant.config, variant.rows, issued, previous, bank))
                    issued.append(Issued(cycle, previous, bank))
                yield row, issued, command, turns[row.window]


@each_table
def test_every_row_binds_to_the_cycle_and_nothing_else_does(name: str) -> None:
    """The engine allows a command at exactly the cycle that the rows give, in every relation of its bank to the one before."""
    bound: set[str] = set()
    written: set[str] = set()
    for variant in variants(name):
        config, rows = variant.config, variant.rows
        probe = Probe(variant)
        written |= {pair(row, *both) for row in rows for both in product(row.previous, row.next)}
        commands = commands_of(config)
        for previous in commands:
            for dots in dots_of(config, previous):
                issued = Issued(START, previous, 0, dots)
                channel = probe.after(issued)
                related = [row for row in rows if previous in row.previous and row.window == 1]
                for command in commands:
                    relevant = [row for row in related if command in row.next]
                    for bank in relations(config):
                        expected = earliest_by(config, relevant, [issued], command, bank)
                        found = probe.earliest(channel, command, bank)
                        where = f"{variant.label}: {previous} ({dots}) in bank 0, {command} in bank {bank}"
                        assert found == expected, where
                        bound |= {
                            pair(row, previous, command)
                            for row in relevant
                            if expected > START + config.command_cycles.get(previous, 1) - 1
                            and earliest_by(config, without(relevant, row), [issued], command, bank) < expected
                        }
        for row, issues, command, bank in window_cases(variant):
            expected = earliest_by(config, rows, issues, command, bank)
            assert probe.earliest(probe.after(*issues), command, bank) == expected, f"{variant.label}: {row.text}"
            if earliest_by(config, without(rows, row), issues, command, bank) < expected:
                bound |= {pair(row, before.command, command) for before in issues}
    assert written - bound == set(IMPLIED.get(name, {}))

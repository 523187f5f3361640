"""What a memory table may not say is refused when it is read: by ``load_memory`` and by whole configurations alike."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from cli_cases import Captured, run
from hypothesis import given, settings
from hypothesis import strategies as st

from neupims_sim.config import MemoryConfig, load_config, load_memory
from neupims_sim.config.memory import Constraint
from neupims_sim.errors import InputError
from neupims_sim.memory import Requests, replay_requests, resolve
from neupims_sim.memory.energy import command_energy_pj

DDR4 = load_memory("ddr4")


# --- the data bus ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"organization.burst_length": 16}, "bursts of 8 cycles overlap on the data bus: RD to RD in one rank takes 4"),
        (
            {"timing.tCCD_S": 3},
            "RD to RD in one rank takes 3 cycles or more .*memory.timing.tCCD_S=3",
        ),
        ({"timing.CL": 40}, None),  # the rows between reads and writes follow from it
        (
            {"controller.refresh": "off", "constraints": [["bank", "ACT", "RD WR", 9]]},
            "RD to RD in one rank takes 0 cycles or more .no row",
        ),
    ],
)
def test_column_commands_are_a_burst_apart(settings: dict[str, Any], message: str | None) -> None:
    """One that is refused would report a bandwidth above the peak of its bus."""
    for load, keys in (
        (lambda values: load_memory("ddr4", overrides=values), settings),
        (
            lambda values: load_config("npu_only", {"memory": "ddr4"} | values),
            {f"memory.{key}": value for key, value in settings.items()},
        ),
    ):
        if message is None:
            load(keys)
        else:
            with pytest.raises(InputError, match=message):
                load(keys)


def test_a_command_that_takes_the_bus_for_longer_counts_from_its_last_cycle() -> None:
    load_memory("ddr4", overrides={"command_cycles": {"RD": 2, "WR": 2, "ACT": 2}})


@pytest.mark.parametrize("row", range(len(DDR4.constraints)))
def test_no_row_between_column_commands_can_be_left_out(row: int) -> None:
    """Of two ranks with bank groups each such row but those of a group keeps bursts apart; a table without it is refused."""
    left = DDR4.constraints[row]
    rows = [kept.model_dump() for kept in DDR4.constraints if kept is not left]
    columns = {*left.previous, *left.next} <= {"RD", "WR"} and left.scope != "bank_group"
    late = (left.previous, left.next) == (("WR",), ("RD",))  # CWL + burst - CL is negative: bursts are apart anyway
    if columns and not late:
        with pytest.raises(InputError, match=f"{left.previous[0]} to {left.next[0]} in (one rank|two ranks)"):
            load_memory("ddr4", overrides={"constraints": rows})
    elif late:
        load_memory("ddr4", overrides={"constraints": rows})


def test_a_table_without_rows_is_refused_before_it_runs() -> None:
    table = load_memory("ddr4", overrides={"constraints": [], "controller.refresh": "off"})
    with pytest.raises(InputError, match="constraints is empty"):
        resolve(table)


# --- refresh ---


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ddr4", {"timing.tREFI": 560}),  # tRFC
        ("ddr4", {"timing.tREFI": 600}),  # and no time to open a row
        ("hbm2", {"timing.tREFI": 260}),
        ("hbm2", {"timing.tRFC": 4000}),
        ("hbm2", {"controller.refresh": "per_bank", "timing.tREFI": 500}),
        ("hbm2", {"controller.refresh": "per_bank", "timing.tRFCpb": 4000}),
        ("ddr5", {"controller.refresh": "per_bank", "timing.tRFCpb": "400 ns"}),
        ("hbm2_pim_dual", {"timing.tREFI": 700}),  # requests would get through, a tile would not
    ],
)
def test_a_refresh_that_leaves_no_time_is_refused(
    capsys: Captured, tmp_path: Any, name: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="refresh leaves no time"):
        load_memory(name, overrides=settings)
    load_memory(name, overrides=settings | {"controller.refresh": "off"})
    (tmp_path / "t").write_text("0x0 READ 0\n")
    options = [option for key, value in settings.items() for option in ("--set", f"{key}={value}")]
    code, out, err = run(capsys, "memory", "replay", name, tmp_path / "t", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("name", ["ddr4", "hbm2", "lpddr5", "hbm3"])
def test_the_shortest_interval_that_is_accepted_lets_requests_through(name: str) -> None:
    def loaded(interval: int) -> MemoryConfig:
        return load_memory(name, overrides={"timing.tREFI": interval, "organization.channels": 1})

    low, high = 1, 100_000
    while high - low > 1:
        middle = (low + high) // 2
        try:
            loaded(middle)
            high = middle
        except InputError:
            low = middle
    spec = resolve(loaded(high))
    conflicts = np.arange(40) * spec.config.organization.channel_bytes // 64
    result = replay_requests(spec, Requests(conflicts, np.arange(40) % 3 // 2, np.zeros(40, int)))
    assert result.commands["RD"] + result.commands["WR"] == 40


# --- bounds of values ---

HOSTILE = [
    float("nan"),
    float("inf"),
    -float("inf"),
    -1,
    2**53 + 1,
    2**63,
    2**64,
    10**9,
    10**300,
    1e308,
    "",
    "1e999",
    [],
    {},
    None,
]


def _fields() -> list[str]:
    tree = load_memory("hbm2_pim_dual").model_dump()
    sections = ("organization", "controller", "pim", "power")
    numbers = [
        f"{section}.{key}"
        for section in sections
        for key, value in tree[section].items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return [*numbers, "timing.tRCD", "timing.tREFI", "timing.tDOT", "command_cycles.ACT", "ideal_latency_cycles"]


@pytest.mark.parametrize("key", _fields())
def test_hostile_values_are_refused_in_one_line_or_run(key: str) -> None:
    """In every number of a table: at once, with the key, and never an error of Python."""
    begin = time.perf_counter()
    for value in HOSTILE:
        message = ""
        try:
            resolve(load_memory("hbm2_pim_dual", overrides={key: value}))
        except InputError as error:
            message = str(error)
        assert message.isprintable()
        assert len(message) < 1200
        assert message or (isinstance(value, int | float) and 0 < value < 2**53)
    assert time.perf_counter() - begin < 5


def test_sizes_that_are_fine_each_are_bounded_together() -> None:
    with pytest.raises(InputError, match=r"organization.rows=4294967296: .*makes a capacity of"):
        load_memory("hbm2", overrides={"organization.rows": 1 << 32})


def test_a_drain_ends_below_where_it_begins() -> None:
    with pytest.raises(InputError, match=r"write_drain_low=33 is above memory.controller.write_drain_high=32"):
        load_memory("hbm2", overrides={"controller.write_drain_low": 33})
    load_memory("hbm2", overrides={"controller.write_drain_low": 32})


# --- currents ---


@pytest.mark.parametrize(
    ("key", "value", "standby"),
    [
        ("idd0_ma", 45, "below standby"),  # (55 x 34 + 40 x 14) / 48 = 50.6
        ("idd2n_ma", 56, "idd3n_ma=55 is below standby, memory.power.idd2n_ma=56"),
        ("idd3n_ma", 391, "idd4r_ma=390 is below standby"),
        ("idd4r_ma", 54, "idd3n_ma=55"),
        ("idd4w_ma", 54, "idd3n_ma=55"),
        ("idd5ab_ma", 54, "idd3n_ma=55"),
        ("idd5pb_ma", 54, "idd3n_ma=55"),
        ("pim_idd2n_ma", 16, "pim_idd3n_ma=15 is below standby"),
    ],
)
def test_a_current_below_standby_is_refused_with_its_key(key: str, value: float, standby: str) -> None:
    with pytest.raises(InputError, match=rf"memory.power.*{standby}"):
        load_memory("hbm2_pim_dual", overrides={f"power.{key}": value})


@settings(max_examples=40)
@given(st.lists(st.floats(0, 700), min_size=6, max_size=6))
def test_accepted_currents_give_no_negative_energy(currents: list[float]) -> None:
    names = ("idd0_ma", "idd2n_ma", "idd3n_ma", "idd4r_ma", "idd4w_ma", "idd5ab_ma")
    try:
        table = load_memory(
            "hbm2", overrides={f"power.{name}": ma for name, ma in zip(names, sorted(currents), strict=True)}
        )
    except InputError:
        return
    assert min(command_energy_pj(table).values()) >= -1e-9


# --- text ---


def test_rows_and_names_are_bounded() -> None:
    with pytest.raises(InputError, match="latency"):
        load_memory("hbm2", overrides={"constraints": [["bank", "ACT", "RD", "1 + " * 400 + "1"]]})
    with pytest.raises(InputError, match="at most"):
        load_memory("hbm2", overrides={"name": "x" * 100_000})
    with pytest.raises(InputError, match="at most"):
        load_memory("hbm2", overrides={"constraints": [["bank", "ACT", "RD", 14]] * 2000})


@pytest.mark.parametrize("deep", ["(" * 240 + "1" + ")" * 240, "-" * 400 + "1", "max(" * 150, "9" * 400, "x" * 100_000])
def test_expressions_are_bounded(deep: str) -> None:
    with pytest.raises(InputError, match=r"timing\.tRCD") as error:
        load_memory("hbm2", overrides={"timing": {"tRCD": deep}})
    assert len(str(error.value)) < 1000


def test_a_row_says_at_most_a_millisecond() -> None:
    row = Constraint.model_validate(["bank", "ACT", "RD", "1000 * tRFC * tRFC"])
    table = load_memory("hbm2")
    with pytest.raises(InputError, match="latency must be non-negative and at most 1000000 cycles; it is 67600000"):
        load_memory("hbm2", overrides={"constraints": [*(r.model_dump() for r in table.constraints), row.model_dump()]})

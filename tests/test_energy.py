"""Energy: events times their energy, standby by the time with a row open, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import simpy
from memory_cases import memory

from neupims_sim import load_config, simulate
from neupims_sim.config import MemoryConfig, load_memory
from neupims_sim.config.memory import PowerConfig
from neupims_sim.errors import InputError
from neupims_sim.memory import READ, WRITE, CommandDevice, Counters, PimProgram, build_memory, resolve
from neupims_sim.memory.energy import command_energy_pj, memory_energy_joules, standby_energy_pj
from neupims_sim.memory.program import GWRITE, TILE
from neupims_sim.npu.energy import npu_energy_joules

POWER = PowerConfig(
    vdd_v=1.2,
    idd0_ma=65,
    idd2n_ma=40,
    idd3n_ma=55,
    idd4r_ma=390,
    idd4w_ma=500,
    idd5ab_ma=250,
    pim_idd3n_ma=15,
    pim_activate_pj_per_row=828,
    dot_product_pj_per_byte=3.140625,
    gwrite_pj_per_byte=12.5625,
    result_read_pj_per_bank=25.125,
)


def powered(name: str, channels: int = 1, **power: float) -> MemoryConfig:
    return memory(name, channels=channels).model_copy(update={"power": POWER.model_copy(update=power)})


def test_the_energy_of_a_command_is_what_it_draws_above_standby() -> None:
    """pJ of the published NeuPIMs artifact, from the same currents: 1.2 V x (390 - 55) mA x 2 ns = 804 for a read."""
    each = command_energy_pj(powered("hbm2"))
    assert {name: round(each[name]) for name in ("ACT", "RD", "WR", "REF")} == {
        "ACT": 828,
        "RD": 804,
        "WR": 1068,
        "REF": 60_840,
    }
    assert standby_energy_pj(powered("hbm2"), 1) == pytest.approx(48)
    assert standby_energy_pj(powered("hbm2"), 1, {"memory": 1}) == pytest.approx(66)


def test_a_faster_clock_makes_the_same_cycles_cheaper_and_more_chips_dearer() -> None:
    config = powered("hbm2")
    fast = config.model_copy(update={"organization": config.organization.model_copy(update={"clock_ghz": 2.0})})
    assert command_energy_pj(fast)["RD"] == pytest.approx(402)
    assert command_energy_pj(powered("hbm2", devices_per_rank=8))["RD"] == pytest.approx(8 * 804)


def test_a_refresh_of_all_banks_one_by_one_costs_as_much_as_one_of_the_rank_unless_its_current_is_known() -> None:
    each = command_energy_pj(powered("hbm2"))
    assert each["REFPB"] * 16 == pytest.approx(each["REF"])
    timed = powered("hbm2", idd5pb_ma=105)
    timed = timed.model_copy(update={"timing": dict(timed.timing) | {"tRFCpb": 100}})
    assert command_energy_pj(timed)["REFPB"] == pytest.approx(1.2 * 50 * 100)


def test_without_traffic_there_is_background_only() -> None:
    config = load_memory("hbm2", overrides={"organization.channels": 2, "controller.refresh": "off"})
    config = config.model_copy(update={"power": POWER})
    device = CommandDevice(resolve(config))
    device.advance(10_000)
    energy = memory_energy_joules(config, device.counters(), device.time)
    assert energy.pop("memory_background") == pytest.approx(2 * 48e-12 * 10_000)
    assert set(energy.values()) == {0.0}


def test_rows_count_as_open_from_their_activation_to_their_precharge() -> None:
    config = powered("hbm2")
    device = CommandDevice(resolve(config), log=True)
    device.submit_transfer(READ, 0, 64)  # ACT at 0; the row stays open until the refresh
    device.advance(3000)
    device.advance(3000)
    assert device.counters().open_cycles == {"memory": 3000, "pim": 0}
    device.advance(5000)
    closed = [cycle for cycle, _, command, *_ in device.take_log().tolist() if command == 1]
    assert device.counters().open_cycles == {"memory": closed[0], "pim": 0}


def test_both_row_buffers_of_a_rank_count_on_their_own() -> None:
    config = powered("hbm2_pim_dual")
    device = CommandDevice(resolve(config))
    device.submit_transfer(READ, 0, 64)
    device.submit_programs({0: PimProgram.build([(GWRITE, 0, 0, 0), (TILE, 100, 2, 8)])})
    while device.time < 1500:
        device.advance(1500)
    opened = device.counters().open_cycles
    assert 1400 < opened["memory"] <= 1500
    assert 2 * 1200 < opened["pim"] <= 2 * 1500  # a tile has a row open in both ranks


@pytest.mark.parametrize("name", ["hbm2", "hbm2_pim_dual", "hbm2_pim_blocked"])
def test_energy_by_cause_is_events_times_their_energy(name: str) -> None:
    config = powered(name)
    device = CommandDevice(resolve(config))
    device.submit_transfer(READ, 0, 64 * 100)
    device.submit_transfer(WRITE, 1 << 20, 64 * 50)
    if config.row_buffers != "none":
        device.submit_programs({0: PimProgram.build([(GWRITE, 900, 0, 0), (TILE, 1000, 3, 8)])})
    while device.time < 9000:
        device.advance(9000)
    counters = device.counters()
    energy = {cause: joules * 1e12 for cause, joules in memory_energy_joules(config, counters, device.time).items()}
    assert energy["memory_read"] == pytest.approx(100 * 804)
    assert energy["memory_write"] == pytest.approx(50 * 1068)
    assert energy["memory_activate"] == pytest.approx(828 * counters.commands["ACT"])
    assert energy["memory_refresh"] == pytest.approx(60_840 * counters.commands["REF"])
    if config.row_buffers == "none":
        assert not any(cause.startswith("pim") for cause in energy)
    else:
        assert energy["pim_dot_product"] == pytest.approx(24 * 3216)
        assert energy["pim_result_read"] == pytest.approx(3 * 804)
        assert energy["pim_vector_write"] == pytest.approx(12_864)
        assert energy["pim_activate"] == pytest.approx(8 * 3312)


@pytest.mark.parametrize(
    ("change", "dearer"),
    [
        ({"organization.banks_per_group": 8}, {"PIM_ACT", "dot_product", "GEMV"}),
        ({"organization.bank_groups": 8}, {"dot_product", "GEMV"}),
        ({"organization.ranks": 4}, {"dot_product", "GEMV"}),
        ({"pim.multipliers_per_bank": 32}, {"dot_product"}),
        ({"organization.row_bytes": 2048}, {"GWRITE"}),
        ({"pim.activates": "rank"}, {"PIM_ACT"}),
    ],
    ids=lambda value: str(
        sorted(value) if isinstance(value, set) else value
    ),  # the order of a set differs between processes
)
def test_pim_energies_are_per_row_byte_and_bank(change: dict[str, Any], dearer: set[str]) -> None:
    """Twice of what a command does costs twice as much, so a byte, a row or a result costs what it did."""
    before, after = (command_energy_pj(load_memory("hbm2_pim_dual", overrides=extra)) for extra in ({}, change))
    times = 4 if "pim.activates" in change else 2
    for command in ("PIM_ACT", "GWRITE", "GEMV", "dot_product"):
        assert after[command] == pytest.approx(before[command] * (times if command in dearer else 1)), command


def test_a_dot_product_costs_by_the_bytes_of_its_elements() -> None:
    config = load_memory("hbm2_pim_dual")
    assert [command_energy_pj(config, size)["dot_product"] for size in (1, 2, 4)] == pytest.approx([1608, 3216, 6432])


def test_a_table_without_power_has_no_energy() -> None:
    config = memory("hbm2").model_copy(update={"power": None})
    with pytest.raises(InputError, match="power is missing"):
        command_energy_pj(config)
    run = load_config("npu_only", {"memory.power": None, "workload.batch_size": 4, "model.layers": 2})
    result = simulate(run)
    assert (result.energy_joules, result.average_power_w) == ({}, None)


def test_npu_energy_is_linear_in_what_was_done() -> None:
    npu = load_config("neupims").npu
    one = npu_energy_joules(npu, macs=1e6, vector_cycles=0, dma_bytes=0)
    assert one["npu_mac"] == pytest.approx(1e6 * 2.0e-12)
    assert one["npu_vector"] == 0
    two = npu_energy_joules(npu, macs=2e6, vector_cycles=0, dma_bytes=0)
    assert all(two[cause] == pytest.approx(2 * joules) for cause, joules in one.items())
    assert sum(npu_energy_joules(npu, macs=0, vector_cycles=0, dma_bytes=0).values()) == 0


@pytest.mark.parametrize(("element_bytes", "mac_pj", "lane_pj"), [(1, 1.1, 1.1), (2, 2.0, 1.1), (4, 4.6, 3.7)])
def test_npu_energies_are_those_of_the_number_format(element_bytes: int, mac_pj: float, lane_pj: float) -> None:
    """Multiply 0.2, 1.1, 3.7 pJ and an fp32 add of 0.9 (Horowitz, ISSCC 2014)."""
    npu = load_config("neupims", {"npu.element_bytes": element_bytes}).npu
    energy = npu_energy_joules(npu, macs=1e9, vector_cycles=1e3, dma_bytes=0)
    assert energy["npu_mac"] == pytest.approx(1e9 * mac_pj * 1e-12)
    assert energy["npu_vector"] == pytest.approx(1e3 * 8 * 128 * lane_pj * 1e-12)


def test_an_energy_per_format_may_be_one_number_and_has_no_unknown_formats() -> None:
    assert load_config("neupims", {"npu.energy.mac_pj": 1.5}).npu.energy.mac_pj.float16 == 1.5
    assert load_config("neupims", {"npu.energy.mac_pj.float8": 0.5}).npu.energy.mac_pj.float32 == 4.6
    with pytest.raises(
        InputError, match=r"npu\.energy\.mac_pj\.float4=0\.5: unknown key; allowed: float16, float32, float8"
    ):
        load_config("neupims", {"npu.energy.mac_pj.float4": 0.5})


@pytest.mark.parametrize("system", ["neupims", "npu_pim", "npu_only"])
def test_inv_energy_parts_sum_to_the_average_power(system: str) -> None:
    result = simulate(load_config(system, {"workload.batch_size": 16, "memory.power": POWER.model_dump()}))
    assert all(joules >= 0 for joules in result.energy_joules.values())
    assert result.average_power_w == pytest.approx(sum(result.energy_joules.values()) / result.seconds)
    memory_joules = sum(joules for cause, joules in result.energy_joules.items() if not cause.startswith("npu_"))
    channels = 32 * result.devices
    assert result.memory_power_w_per_channel == pytest.approx(memory_joules / result.seconds / channels)


def test_energy_of_more_layers_is_that_of_a_steady_state_layer_times_their_number() -> None:
    few, many, more = (
        simulate(load_config("neupims", {"workload.batch_size": 16, "model.layers": layers})).energy_joules
        for layers in (8, 16, 24)
    )
    for cause in few:
        assert more[cause] - many[cause] == pytest.approx(many[cause] - few[cause], rel=1e-6), cause


def test_a_model_without_rows_has_standby_and_bursts() -> None:
    config = load_memory("ideal").model_copy(update={"power": POWER})
    env = simpy.Environment()
    model = build_memory(env, config)
    env.run(until=model.transfer(READ, 0, 6400))
    energy = memory_energy_joules(config, model.counters(), int(env.now))
    assert energy["memory_read"] == pytest.approx(100 * 804e-12)
    assert energy["memory_activate"] == 0
    assert isinstance(model.counters(), Counters)

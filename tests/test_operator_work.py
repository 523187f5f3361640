"""FLOPs, bytes and busy cycles of operators: what a roofline is drawn from."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation_cases import CASES, layer_trace, small

from neupims_sim.config import load_config
from neupims_sim.simulation import Result, simulate
from neupims_sim.simulation.work import OperatorTally
from neupims_sim.trace import macs

ROOFS = {
    "systolic arrays": ("npu_flops_per_s", "memory_bytes_per_s"),
    "GPU": ("npu_flops_per_s", "memory_bytes_per_s"),
    "PIM": ("pim_flops_per_s", "pim_bytes_per_s"),
}


def check_roofs(result: Result) -> set[str]:
    """No operator on arrays, in PIM or on a GPU is above its roof; returns the units seen."""
    hertz = result.cycles / result.seconds
    units = set()
    for name, flops in result.operator_flops.items():
        unit = result.operator_unit[name]
        if unit in ROOFS and flops:
            seconds = result.operator_busy_cycles[name] / hertz
            peak, bandwidth = (result.peak[key] for key in ROOFS[unit])
            assert flops <= 1.001 * peak * seconds, name
            assert result.operator_bytes.get(name, 0) <= 1.001 * bandwidth * seconds, name
            units.add(unit)
    return units


@pytest.mark.parametrize(("system", "options"), CASES)
def test_inv_3_and_5_operators_do_the_work_of_the_trace_below_their_roofs(system: str, options: dict[str, Any]) -> None:
    """INV-3 work and INV-5 bounds, operator by operator."""
    config = small(system, options)
    result = simulate(config)
    wanted: Counter[str] = Counter()
    for operator in layer_trace(config).operators:
        wanted["attention" if system == "npu_only" and operator.request is not None else operator.name] += 2 * macs(
            operator
        )
    products = {name: flops for name, flops in wanted.items() if flops}
    assert {name: result.operator_flops[name] for name in products} == products
    assert check_roofs(result) == ({"systolic arrays"} if system == "npu_only" else {"systolic arrays", "PIM"})

    in_pim = sum(size for name, size in result.operator_bytes.items() if result.operator_unit.get(name) == "PIM")
    by_dma = sum(result.operator_bytes.values()) - in_pim
    assert in_pim == result.traffic_bytes["pim_internal"]
    moved = result.traffic_bytes["read"] + result.traffic_bytes["write"]
    assert 0.98 * moved <= by_dma <= 1.005 * moved  # the rest are operands that the NPU writes for PIM


@pytest.mark.parametrize("workload", ["decoding", "images", "search"])
def test_inv_5_gpu_kernels_and_other_workloads_stay_below_their_roofs(workload: str) -> None:
    """INV-5 bounds, where repetitions stand for others and where kernels are a closed form."""
    if workload == "decoding":
        assert check_roofs(simulate(small("gpu_a100"))) == {"GPU"}
    elif workload == "images":
        config = load_config(
            "npu_only", {"model": "vit-s16", "workload": "images", "workload.batch_size": 1, "memory.model": "ideal"}
        )
        result = simulate(config)
        assert check_roofs(result) == {"systolic arrays"}
        assert 2 * result.observations.npu_macs <= sum(result.operator_flops.values())
    else:
        settings = {"workload": "search_1m", "workload.database": 20_000, "workload.queries": 2}
        result = simulate(load_config("neupims", settings))
        assert "PIM" in check_roofs(result)
        assert result.operator_flops["search"] == 2 * 2 * 20_000 * result_dimensions()


def result_dimensions() -> int:
    """Elements of a descriptor of search_1m."""
    return int(load_config("neupims", {"workload": "search_1m"}).workload.dimensions)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=20))
def test_busy_cycles_are_the_length_of_the_union(spans: list[tuple[int, int]]) -> None:
    tally, cycles = OperatorTally(), set[int]()
    for start, end in sorted(((min(span), max(span)) for span in spans), key=lambda span: span[1]):
        tally.busy("x", start, end)
        cycles |= set(range(start, end))
    assert tally.totals({}).busy_cycles.get("x", 0) == len(cycles)

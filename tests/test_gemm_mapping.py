"""Laws of the tiling of a GEMM: nothing is lost, nothing exceeds the buffers, no byte moves for nothing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neupims_sim.config.schema import NpuConfig, SystolicConfig
from neupims_sim.errors import InputError
from neupims_sim.mapping.gemm import GemmPlan, Loops, fits_on_chip, plan_gemm
from neupims_sim.npu import Gemm, share_gemm

NPU = NpuConfig(name="test")
ARTIFACT = NpuConfig(
    name="asplos24",
    systolic=SystolicConfig(dataflow="is", sharing="fused"),
    scratchpad_bytes=128 * 2**20,
    accumulator_bytes=128 * 2**20,
)
BANDWIDTH = 1024.0

lengths = st.one_of(st.integers(1, 300), st.integers(1, 9000), st.sampled_from([1, 128, 1024, 4096, 12288]))
npus = st.builds(
    NpuConfig,
    name=st.just("test"),
    systolic=st.builds(
        SystolicConfig,
        arrays=st.sampled_from([1, 3, 8]),
        dataflow=st.sampled_from(["ws", "os", "is"]),
        preload=st.sampled_from(["serial", "overlapped"]),
        sharing=st.sampled_from(["split_n", "split_m", "best", "fused"]),
    ),
    scratchpad_bytes=st.sampled_from([2**18, 2**20, 8 * 2**20, 128 * 2**20]),
    accumulator_bytes=st.sampled_from([2**18, 2**20, 8 * 2**20, 128 * 2**20]),
    double_buffered=st.booleans(),
)


def plan(m: int, k: int, n: int, npu: NpuConfig = NPU, **on_chip: bool) -> GemmPlan:
    return plan_gemm(m, k, n, npu, bandwidth_bytes_per_cycle=BANDWIDTH, **on_chip)


@settings(deadline=None, max_examples=60)
@given(lengths, lengths, lengths, npus)
def test_inv3_tiles_hold_every_mac_exactly_once(m: int, k: int, n: int, npu: NpuConfig) -> None:
    planned = plan(m, k, n, npu)
    assert planned.macs == planned.tile_macs.sum() == m * k * n
    assert (planned.tile_macs > 0).all()


@settings(deadline=None, max_examples=60)
@given(lengths, lengths, lengths, npus)
def test_tiles_fit_the_halves_of_the_buffers(m: int, k: int, n: int, npu: NpuConfig) -> None:
    tile = plan(m, k, n, npu).tile
    copies = 2 if npu.double_buffered else 1
    assert (tile.m * tile.k + tile.k * tile.n) * npu.element_bytes <= npu.scratchpad_bytes // copies
    assert tile.m * tile.n * npu.accumulator_element_bytes <= npu.accumulator_bytes // copies


@settings(deadline=None, max_examples=60)
@given(lengths, lengths, lengths, npus)
def test_inv2_traffic_is_the_compulsory_bytes_times_the_reads(m: int, k: int, n: int, npu: NpuConfig) -> None:
    planned = plan(m, k, n, npu)
    assert planned.activation_reads >= 1
    assert planned.weight_reads >= 1
    assert planned.total_activation_bytes == planned.activation_reads * m * k * npu.element_bytes
    assert planned.total_weight_bytes == planned.weight_reads * k * n * npu.element_bytes
    assert planned.total_store_bytes == m * n * npu.element_bytes


@settings(deadline=None, max_examples=60)
@given(lengths, lengths, lengths, npus)
def test_inv5_tiles_do_not_beat_the_peak(m: int, k: int, n: int, npu: NpuConfig) -> None:
    planned = plan(m, k, n, npu)
    assert 0 < planned.utilization <= 1
    assert (planned.compute_cycles > 0).all()


@settings(deadline=None, max_examples=60)
@given(lengths, lengths, lengths)
def test_kept_panels_fit_beside_the_tiles(m: int, k: int, n: int) -> None:
    planned = plan(m, k, n)
    tile, elements = planned.tile, NPU.scratchpad_bytes // NPU.element_bytes
    if planned.kept == "activation":
        assert tile.m * k + 2 * tile.k * tile.n <= elements
    if planned.kept == "weight":
        assert k * tile.n + 2 * tile.m * tile.k <= elements


@settings(deadline=None, max_examples=150)
@given(lengths, lengths, lengths, npus, st.sampled_from([2, 4]), st.sampled_from([2, 4]), st.booleans())
def test_larger_buffers_never_make_the_plan_slower(
    m: int, k: int, n: int, npu: NpuConfig, scratchpad: int, accumulator: int, output_on_chip: bool
) -> None:
    """Beyond the 2 % within which times count as equal."""
    sizes = {
        "scratchpad_bytes": scratchpad * npu.scratchpad_bytes,
        "accumulator_bytes": accumulator * npu.accumulator_bytes,
    }
    if not fits_on_chip(m, k, n, npu, output_on_chip=output_on_chip):
        return
    small, large = (plan(m, k, n, size, output_on_chip=output_on_chip) for size in (npu, npu.model_copy(update=sizes)))
    assert large.pipelined_cycles <= 1.02 * small.pipelined_cycles


def test_the_least_traffic_may_be_slower_in_larger_buffers_but_not_the_fastest_plan() -> None:
    systolic = SystolicConfig(arrays=2, rows=64, columns=128, sharing="best")
    small = NpuConfig(name="test", systolic=systolic, scratchpad_bytes=2**18, accumulator_bytes=2**20)
    large = small.model_copy(update={"scratchpad_bytes": 2**19, "accumulator_bytes": 2**21})

    def slowdown(loops: Loops) -> float:
        before, after = (
            plan_gemm(512, 512, 512, npu, bandwidth_bytes_per_cycle=256, loops=loops).pipelined_cycles
            for npu in (small, large)
        )
        return after / before

    assert slowdown("least_traffic") > 1.1
    assert slowdown("fastest") <= 1


def test_decode_gemm_reads_weights_and_activations_once() -> None:
    planned = plan(256, 4096, 3072)
    assert (planned.activation_reads, planned.weight_reads) == (1, 1)
    assert planned.traffic_bytes == 2 * (256 * 4096 + 4096 * 3072 + 256 * 3072)


@pytest.mark.parametrize("m", [1, 16, 256, 512])
def test_weight_streaming_gemm_has_steps_to_overlap_whatever_the_capacity(m: int) -> None:
    large = NPU.model_copy(update={"scratchpad_bytes": 128 * 2**20, "accumulator_bytes": 128 * 2**20})
    assert 8 <= plan(m, 4096, 4096, large).steps == plan(m, 4096, 4096).steps <= 128


@pytest.mark.parametrize("m", [1, 64, 256, 512])
@pytest.mark.parametrize("npu", [NPU, ARTIFACT], ids=["physical", "asplos24"])
def test_pipelined_steps_come_close_to_the_slower_of_load_and_compute(m: int, npu: NpuConfig) -> None:
    planned = plan(m, 4096, 3072, npu)
    loads = (planned.activation_bytes + planned.weight_bytes) / BANDWIDTH
    loaded = computed = 0.0
    for load, compute in zip(loads, planned.compute_cycles, strict=True):
        loaded += load
        computed = max(loaded, computed) + compute
    assert computed <= 1.1 * max(loads.sum(), planned.compute_cycles.sum())


@pytest.mark.parametrize("npu", [NPU, ARTIFACT], ids=["physical", "asplos24"])
def test_chunking_for_overlap_costs_no_compute(npu: NpuConfig) -> None:
    whole = share_gemm(Gemm(256, 4096, 3072), npu.systolic).occupancy.cycles
    assert plan(256, 4096, 3072, npu).total_compute_cycles == whole


def test_activations_on_chip_are_not_read_and_outputs_on_chip_not_stored() -> None:
    planned = plan(256, 4096, 1024, activation_on_chip=True, output_on_chip=True)
    assert planned.activation_reads == planned.total_activation_bytes == planned.total_store_bytes == 0
    assert planned.total_weight_bytes == 2 * 4096 * 1024


def test_operands_on_chip_must_fit() -> None:
    assert fits_on_chip(256, 4096, 4096, NPU, activation_on_chip=True)
    assert not fits_on_chip(4096, 4096, 4096, NPU, activation_on_chip=True)
    with pytest.raises(InputError, match=r"npu.scratchpad_bytes=8388608"):
        plan(4096, 4096, 4096, activation_on_chip=True)


def test_single_step_gemm_stores_after_its_last_cycle() -> None:
    planned = plan(1, 1, 1)
    assert planned.steps == 1
    assert planned.compute_cycles.tolist() == [share_gemm(Gemm(1, 1, 1), NPU.systolic).occupancy.cycles]
    assert planned.store_bytes.tolist() == [2]


def test_outputs_are_stored_once_k_is_complete() -> None:
    planned = plan(2000, 5000, 3000)
    outputs = math.ceil(2000 / planned.tile.m) * math.ceil(3000 / planned.tile.n)
    assert (planned.store_bytes > 0).sum() == outputs
    assert planned.store_bytes[-1] > 0


def test_buffers_too_small_for_one_block_are_refused_with_the_numbers() -> None:
    tiny = NPU.model_copy(update={"scratchpad_bytes": 1000})
    with pytest.raises(InputError, match=r"128 x 128 x 128 needs 131072 of npu.scratchpad_bytes=1000"):
        plan(512, 512, 512, tiny)


def test_empty_dimensions_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        plan(0, 1, 1)

"""Decode attention on the NPU: nothing is lost, all arrays work, no step needs a whole K or V; and what a device makes of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neupims_sim.config import Config, load_config
from neupims_sim.config.schema import NpuConfig, SystolicConfig
from neupims_sim.mapping.npu_attention import SplitAttention, plan_split_attention
from neupims_sim.npu import Gemm, array_occupancy
from neupims_sim.simulation import Result, simulate

NPU = NpuConfig(name="test")
npus = st.builds(
    NpuConfig,
    name=st.just("test"),
    systolic=st.builds(
        SystolicConfig,
        arrays=st.sampled_from([1, 3, 8]),
        rows=st.sampled_from([16, 128]),
        columns=st.sampled_from([32, 128]),
        dataflow=st.sampled_from(["ws", "os", "is"]),
    ),
    scratchpad_bytes=st.sampled_from([2**14, 2**18, 2**23]),
)
contexts = st.lists(st.integers(1, 3000), min_size=1, max_size=20)


def total(plan: SplitAttention, npu: NpuConfig = NPU) -> int:
    """Cycles of the arrays."""
    return int((plan.logits_cycles + plan.attend_cycles).sum())


@settings(max_examples=30)
@given(contexts, st.integers(1, 8), st.sampled_from([1, 4]), st.sampled_from([64, 128]), npus)
def test_every_token_of_every_head_is_loaded_once_and_no_step_takes_more_than_a_quarter(
    lengths: list[int], kv_heads: int, group: int, size: int, npu: NpuConfig
) -> None:
    plan = plan_split_attention(lengths, kv_heads * group, kv_heads, size, npu)
    assert plan.load_bytes.sum() == 2 * sum(lengths) * kv_heads * size * npu.element_bytes
    assert (plan.room_bytes > plan.load_bytes).all()  # the logits
    assert plan.room_bytes.max() <= npu.scratchpad_bytes // 4
    assert plan.macs == 2 * sum(lengths) * kv_heads * group * size


@settings(max_examples=20)
@given(contexts, st.integers(1, 8), st.sampled_from([1, 4]), npus)
def test_no_plan_beats_its_arrays(lengths: list[int], kv_heads: int, group: int, npu: NpuConfig) -> None:
    plan = plan_split_attention(lengths, kv_heads * group, kv_heads, 128, npu)
    systolic = npu.systolic
    assert total(plan) * systolic.arrays * systolic.rows * systolic.columns >= plan.macs


@pytest.mark.parametrize("lengths", [[8192], [700] * 64, [90] * 64])
@pytest.mark.parametrize("kv_heads", [1, 2, 8])
def test_all_arrays_work_however_few_heads_there_are(lengths: list[int], kv_heads: int) -> None:
    """Blocks of 128 tokens, of one head or of several requests, are dealt out to 8 arrays; a step's last round may lack some."""
    plan = plan_split_attention(lengths, 8, kv_heads, 128, NPU)
    block = array_occupancy(Gemm(8 // kv_heads, 128, 128), NPU.systolic).busy_cycles
    blocks = kv_heads * sum(math.ceil(tokens / 128) for tokens in lengths)
    assert total(plan) == pytest.approx(2 * block * blocks / 8, rel=0.2)


def test_a_row_of_the_softmax_is_shared_by_the_steps_of_its_head() -> None:
    """In all as many vectors of logits as the whole row has, and the sums of arrays and steps besides."""
    plan = plan_split_attention([32768], 8, 1, 128, NPU)
    per_vector = (
        2 * NPU.vector.add_cycles + NPU.vector.compare_cycles + NPU.vector.exp_cycles + NPU.vector.multiply_cycles
    )
    whole = 8 * 32768 // 128 * per_vector / NPU.vector.units
    assert whole < plan.softmax_cycles.sum() < 1.25 * whole
    assert len(plan.softmax_cycles) > 4


def run(options: dict[str, Any]) -> tuple[Config, Result]:
    config = load_config("npu_only", {"workload": "sharegpt", "model.layers": 2, **options})
    return config, simulate(config)


LLAMA_70B = {
    "model": "llama-3-8b",
    "model.heads": 64,
    "model.d_model": 8192,
    "model.d_ff": 28672,
    "parallel.tensor": 8,
    "workload.batch_size": 64,
    "workload.context_tokens": 1024,
}


@pytest.mark.parametrize(
    "options",
    [
        {"model": "llama-3-8b", "workload.batch_size": 2, "workload.context_tokens": 4096},
        {
            "model": "llama-3-8b",
            "parallel.tensor": 4,
            "workload.batch_size": 64,
            "workload.context_tokens": 1000,
        },
        LLAMA_70B,
    ],
    ids=["8B", "8B on 4", "70B on 8"],
)
def test_decoding_comes_within_8_per_cent_of_the_memory_bound(options: dict[str, Any]) -> None:
    """Weights, and K and V of all requests, at the bandwidth that refreshes leave."""
    config, result = run(options)
    model, tensor = config.model, config.parallel.tensor
    queries, cache = model.heads * model.head_size, model.kv_heads * model.head_size
    weights = model.d_model * (2 * queries + 2 * cache + 3 * model.d_ff)
    read = weights + 2 * cache * options["workload.batch_size"] * options["workload.context_tokens"]
    organization, timing = config.memory.organization, config.memory.timing
    bandwidth = organization.channels * organization.burst_bytes / organization.burst_cycles
    bound = read * config.npu.element_bytes / tensor / (bandwidth * (1 - timing["tRFC"] / timing["tREFI"]))
    assert bound <= result.block_cycles <= 1.08 * bound


def test_few_heads_on_a_device_leave_arrays_idle_only_in_the_frozen_preset() -> None:
    """One K/V head on a device of 8 arrays: attention was bound by one array, and is bound by memory."""
    attention = {
        name: run(LLAMA_70B | {"mapping.npu_attention": name})[1].stages["B"] for name in ("pipelined", "split")
    }
    assert attention["pipelined"] > 3 * attention["split"]


def test_half_a_scratchpad_of_k_cannot_overlap_and_pieces_can() -> None:
    long = {"model": "llama-3-8b", "workload.batch_size": 2, "workload.context_tokens": 8192}
    frozen, now = (run(long | {"preset": preset})[1].stages["B"] for preset in ("physical_2024", "physical"))
    assert frozen > 1.3 * now


def test_flash_decoding_adds_up_to_the_attention() -> None:
    """What the plan assumes: parts of a context, each with its own softmax, give the whole when rescaled to one maximum."""
    rng = np.random.default_rng(0)
    query, keys, values = rng.normal(size=(4, 64)), rng.normal(size=(300, 64)), rng.normal(size=(300, 64))
    logits = query @ keys.T
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    whole = weights / weights.sum(axis=1, keepdims=True) @ values
    best, norm, mixed = np.full((4, 1), -np.inf), np.zeros((4, 1)), np.zeros((4, 64))
    for first in range(0, 300, 128):
        part = logits[:, first : first + 128]
        maximum = np.maximum(best, part.max(axis=1, keepdims=True))
        weights, scale = np.exp(part - maximum), np.exp(best - maximum)
        norm = norm * scale + weights.sum(axis=1, keepdims=True)
        mixed = mixed * scale + weights @ values[first : first + 128]
        best = maximum
    np.testing.assert_allclose(mixed / norm, whole)

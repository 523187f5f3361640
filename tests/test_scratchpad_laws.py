"""Laws of whole runs over the size of the on-chip buffers: never slower with more, never a standstill with little."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulation_cases import small

from neupims_sim.config import Config
from neupims_sim.errors import InputError
from neupims_sim.simulation import Result, simulate

KIBI = 1024
GATED = {
    "model.ffn": "gated",
    "model.activation": "silu",
    "model.norm": "rmsnorm",
    "model.position": "rotary",
    "model.bias": False,
}


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    """Small language models and batches on arrays of many shapes."""
    heads, size = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from([32, 64, 128]))
    return {
        "model.layers": 2,
        "model.heads": heads,
        "model.head_size": size,
        "model.d_model": heads * size,
        "model.kv_heads": draw(st.sampled_from([count for count in (1, 2, 4, 8) if heads % count == 0])),
        "model.d_ff": draw(st.sampled_from([256, 1000, 2048, 8192])),
        "workload.batch_size": draw(st.sampled_from([2, 3, 16, 64, 200])),
        "workload.dataset": draw(st.sampled_from(["alpaca", "sharegpt"])),
        "memory.organization.channels": draw(st.sampled_from([1, 2, 8])),
        "npu.systolic.arrays": draw(st.sampled_from([1, 3, 8])),
        "npu.systolic.rows": draw(st.sampled_from([16, 64, 128])),
        "npu.systolic.columns": draw(st.sampled_from([16, 64, 128])),
        "npu.systolic.dataflow": draw(st.sampled_from(["ws", "os", "is"])),
        "npu.systolic.sharing": draw(st.sampled_from(["best", "split_n", "split_m"])),
        "npu.double_buffered": draw(st.booleans()),
        **(GATED if draw(st.booleans()) else {}),
    }


sizes = st.sampled_from([64, 256, 1024, 4096])


def with_buffers(system: str, model: dict[str, Any], scratchpad: int, accumulator: int, **more: Any) -> Config:
    buffers = {"npu.scratchpad_bytes": scratchpad * KIBI, "npu.accumulator_bytes": accumulator * KIBI}
    return small(system, {**model, **buffers, **more})


def run(config: Config) -> Result | None:
    """None where a tile does not fit."""
    try:
        return simulate(config)
    except InputError:
        return None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(models(), sizes, sizes)
def test_twice_the_buffers_are_never_slower(model: dict[str, Any], scratchpad: int, accumulator: int) -> None:
    """But for what a plan counts as equally fast, 2 %. On the ideal memory: DRAM adds the luck of its refreshes."""
    ideal = {"memory.model": "ideal"}
    one = run(with_buffers("npu_only", model, scratchpad, accumulator, **ideal))
    if one is not None:
        two = run(with_buffers("npu_only", model, 2 * scratchpad, 2 * accumulator, **ideal))
        assert two is not None
        assert two.block_cycles <= 1.02 * one.block_cycles + 100


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    models(), st.sampled_from([48, 80, 150, 300, 600, 2000]), sizes, st.sampled_from(["off", "lockstep", "dataflow"])
)
def test_nobody_waits_for_ever_for_room(
    model: dict[str, Any], scratchpad: int, accumulator: int, interleaving: str
) -> None:
    """INV-8 with little room, of which interleaved sub-batches have half each; and every product is done."""
    options = {"scheduling.interleaving": interleaving}
    done = run(with_buffers("neupims", model, scratchpad, accumulator, **options))
    if done is not None:
        plenty = run(with_buffers("neupims", model, 1 << 16, 1 << 16, **options))
        assert plenty is not None
        assert done.observations.npu_macs == plenty.observations.npu_macs

"""Decode attention on the NPU: K and V stream through the systolic arrays, request by request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neupims_sim.config.schema import MappingConfig, NpuConfig
from neupims_sim.npu import Gemm, array_occupancy, vector_cycles
from neupims_sim.npu.systolic import ceil_div
from neupims_sim.npu.vector import adder_tree_passes

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StreamedAttention:
    """Attention of several requests as tile steps (``npu.TileSteps``): the K, then the V of each request."""

    activation_bytes: Int64Array
    weight_bytes: Int64Array
    compute_cycles: Int64Array
    store_bytes: Int64Array
    softmax_cycles: int
    """Vector-unit cycles of all requests together; 0 where they are part of the compute cycles."""
    macs: int


def plan_npu_attention(
    contexts: Sequence[int], heads: int, kv_heads: int, head_size: int, npu: NpuConfig, mapping: MappingConfig
) -> StreamedAttention:
    """Plan one layer's attention of requests with the given context lengths on one device's shard of heads.

    pipelined: the heads of a request are shared over the arrays, [group, d] x [d, L] and [group, L] x [L, d] each; K and V
    of the next request load meanwhile and the softmax runs on the vector units beside them.
    serial: see :func:`serial_head_cycles`; a request computes after its K and V are there, one head after the other.
    """
    group = heads // kv_heads
    cache = np.array([kv_heads * head_size * tokens * npu.element_bytes for tokens in contexts], dtype=np.int64)
    compute = np.zeros((len(contexts), 2), dtype=np.int64)
    softmax = 0
    for index, tokens in enumerate(contexts):
        if mapping.npu_attention == "serial":
            compute[index, 1] = heads * serial_head_cycles(tokens, npu)
            continue
        rounds = ceil_div(kv_heads, npu.systolic.arrays)
        compute[index, 0] = rounds * array_occupancy(Gemm(group, head_size, tokens), npu.systolic).busy_cycles
        compute[index, 1] = rounds * array_occupancy(Gemm(group, tokens, head_size), npu.systolic).busy_cycles
        softmax += vector_cycles("softmax", npu.vector, rows=heads, width=tokens)
    return StreamedAttention(
        activation_bytes=np.zeros(2 * len(contexts), dtype=np.int64),
        weight_bytes=np.repeat(cache, 2),
        compute_cycles=compute.ravel(),
        store_bytes=np.zeros(2 * len(contexts), dtype=np.int64),
        softmax_cycles=softmax,
        macs=int(2 * sum(contexts) * heads * head_size),
    )


def serial_head_cycles(tokens: int, npu: NpuConfig) -> int:
    """Cycles of one head when every GEMV is drained before the next starts (assumption of the published artifact).

    Logits: R + C - 1 + floor(L / A). Softmax: 2 a + 3 v (``adder_tree_passes`` and vectors of L elements) and the
    pipeline latency of the vector units. Attend: R + C - 1 + R / A for each of ceil((L + R - 1) / R) blocks of tokens.
    With 8 arrays of 128 x 128: 255 + floor(L / 8) + (2 a + 3 v) + 8 + 271 ceil((L + 127) / 128).
    """
    systolic = npu.systolic
    block = ceil_div(systolic.rows, systolic.arrays)
    drain = systolic.rows + systolic.columns - 1
    lanes = npu.vector.lanes
    softmax = 2 * adder_tree_passes(tokens, lanes) + 3 * ceil_div(tokens, lanes)
    blocks = ceil_div(tokens + systolic.rows - 1, systolic.rows)
    return drain + tokens // systolic.arrays + softmax + npu.vector.pipeline_latency_cycles + (drain + block) * blocks

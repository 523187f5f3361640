"""Decode attention on the NPU: K and V stream through the systolic arrays.

``split`` (flash-decoding; Dao et al., "Flash-Decoding for long-context inference", 2023) cuts the context of every request and K/V
head into blocks of as many tokens as lie on an array, and hands blocks of any head and request to the arrays, so that all of
them work however few heads there are. A *step* is some blocks for each array, at most a quarter of the scratchpad: two steps
load and wait while one computes and one is in the softmax. It loads their K and V, multiplies q K^T, takes the softmax of its own tokens,
multiplies by V, and adds to what earlier steps made of the same head, rescaled to the common maximum. So no step needs a
whole K or V.

The other two are assumptions of earlier models: ``pipelined`` and ``serial`` take the K, then the V of a request as one step.
"""

from __future__ import annotations

import functools
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from neupims_sim.config.schema import MappingConfig, NpuConfig
from neupims_sim.npu import Gemm, array_occupancy, operation_cycles, rows_cycles, vector_cycles
from neupims_sim.npu.systolic import ceil_div
from neupims_sim.npu.vector import adder_tree_passes

Int64Array = npt.NDArray[np.int64]

_FEWEST_STEPS = 16
"""Steps that overlap well with each other; fewer where arrays would idle, for a step has a block for each."""


@dataclass(frozen=True)
class StreamedAttention:
    """Attention of several requests as tile steps (``npu.TileSteps``): the K, then the V of each request."""

    activation_bytes: Int64Array
    weight_bytes: Int64Array
    room_bytes: Int64Array
    freed_bytes: Int64Array
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
    room = np.minimum(np.repeat(cache, 2), npu.scratchpad_bytes // (4 if mapping.hold_residents else 1))
    return StreamedAttention(
        activation_bytes=np.zeros(2 * len(contexts), dtype=np.int64),
        weight_bytes=np.repeat(cache, 2),
        room_bytes=room,
        freed_bytes=room,
        compute_cycles=compute.ravel(),
        store_bytes=np.zeros(2 * len(contexts), dtype=np.int64),
        softmax_cycles=softmax,
        macs=int(2 * sum(contexts) * heads * head_size),
    )


@dataclass(frozen=True)
class SplitAttention:
    """Attention of several requests in steps of alike size (``npu.device.AttentionSteps``), one entry per step."""

    room_bytes: Int64Array
    """K, V and logits of the step's blocks."""
    load_bytes: Int64Array
    logits_cycles: Int64Array
    softmax_cycles: Int64Array
    """Vector units: softmax of the step's tokens, and adding up what arrays and earlier steps made of the same heads."""
    attend_cycles: Int64Array
    store_bytes: Int64Array
    drain_cycles: Int64Array
    macs: int


class _Block(NamedTuple):
    """Consecutive tokens of one K/V head of one request: work for one array at a time."""

    request: int
    head: int
    tokens: int


def plan_split_attention(
    contexts: Sequence[int], heads: int, kv_heads: int, head_size: int, npu: NpuConfig
) -> SplitAttention:
    """Plan one layer's attention of requests with the given context lengths on one device's shard of heads."""
    group = heads // kv_heads
    token_bytes = (2 * head_size + group) * npu.element_bytes
    room = npu.scratchpad_bytes // 4
    block_tokens = max(1, min(max(npu.systolic.rows, npu.systolic.columns), room // token_bytes))
    blocks = kv_heads * sum(ceil_div(context, block_tokens) for context in contexts)
    rounds = max(1, blocks // (_FEWEST_STEPS * npu.systolic.arrays))
    steps = list(_steps(contexts, kv_heads, block_tokens, rounds * npu.systolic.arrays, max(1, room // token_bytes)))
    tokens = np.array([sum(block.tokens for block in step) for step in steps], dtype=np.int64)
    size = min(max(contexts), block_tokens)
    drains = (
        array_occupancy(gemm, npu.systolic).latency_cycles
        for gemm in (Gemm(group, head_size, size), Gemm(group, size, head_size))
    )
    return SplitAttention(
        room_bytes=tokens * token_bytes,
        load_bytes=tokens * 2 * head_size * npu.element_bytes,
        logits_cycles=_busiest_array(steps, npu, lambda block: Gemm(group, head_size, block.tokens)),
        softmax_cycles=np.array([_vector_cycles(step, group, head_size, npu) for step in steps], dtype=np.int64),
        attend_cycles=_busiest_array(steps, npu, lambda block: Gemm(group, block.tokens, head_size)),
        store_bytes=np.zeros_like(tokens),
        drain_cycles=np.full_like(tokens, max(0, *drains)),
        macs=int(2 * sum(contexts) * heads * head_size),
    )


def _steps(
    contexts: Sequence[int], kv_heads: int, block_tokens: int, step_blocks: int, step_tokens: int
) -> Iterator[list[_Block]]:
    """Blocks request by request and head by head, at most so many blocks and tokens at a time."""
    step: list[_Block] = []
    taken = 0
    for request, context in enumerate(contexts):
        for head in range(kv_heads):
            for first in range(0, context, block_tokens):
                block = _Block(request, head, min(block_tokens, context - first))
                if taken + block.tokens > step_tokens or len(step) == step_blocks:
                    yield step
                    step, taken = [], 0
                step.append(block)
                taken += block.tokens
    yield step


def _busiest_array(steps: Sequence[Sequence[_Block]], npu: NpuConfig, product: Callable[[_Block], Gemm]) -> Int64Array:
    """Cycles of each step until the last array has done its blocks, the longest first to whoever is free."""
    busy = functools.cache(lambda gemm: array_occupancy(gemm, npu.systolic).busy_cycles)
    longest = []
    for step in steps:
        free = [0] * npu.systolic.arrays
        for cycles in sorted((busy(product(block)) for block in step), reverse=True):
            heapq.heapreplace(free, free[0] + cycles)
        longest.append(max(free))
    return np.array(longest, dtype=np.int64)


def _vector_cycles(step: Sequence[_Block], group: int, head_size: int, npu: NpuConfig) -> int:
    """Softmax over a step's tokens of each head, and the sums: one per further array that worked on the head, and one,
    rescaled, with the result of earlier steps."""
    tokens: Counter[tuple[int, int]] = Counter()
    blocks: Counter[tuple[int, int]] = Counter()
    for block in step:
        tokens[block.request, block.head] += block.tokens
        blocks[block.request, block.head] += 1
    rows = [width for width in tokens.values() for _ in range(group)]
    sums = sum(min(count, npu.systolic.arrays) for count in blocks.values()) * group * head_size
    rescaled = len(blocks) * group * head_size
    return rows_cycles("softmax", npu.vector, rows) + operation_cycles({"add": sums, "multiply": rescaled}, npu.vector)


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

"""Full attention (many query tokens) as work of the NPU: head by head, the logits never leave the scratchpad.

Heads that share K and V (grouped queries) are one product of all their query rows; it is called a head here. A *step* is as many heads
as there are systolic arrays, of one image or of several, side by side; where so many do not fit in the scratchpad it is fewer, and
where not even one does, a block of its query rows. A step loads its Q, K and V, multiplies Q K^T on the arrays, takes the softmax on the
vector units, multiplies by V on the arrays and stores. Blocks of one head load its K and V again.

With a causal mask, masked logits are computed all the same: tiles are whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from neupims_sim.config.schema import NpuConfig
from neupims_sim.errors import InputError
from neupims_sim.npu import Gemm, Occupancy, share_gemm, vector_cycles
from neupims_sim.npu.systolic import ceil_div

Int64Array = npt.NDArray[np.int64]
Operand = Literal["queries", "keys", "values", "output"]


class AttentionShape(NamedTuple):
    """Attention of several images, requests or pairs of the same shape."""

    images: int
    heads: int
    """Query heads of one image; ``heads / kv_heads`` of them share keys and values."""
    kv_heads: int
    tokens: int
    context: int
    head_size: int

    @property
    def products(self) -> int:
        """Independent products: key/value heads of all images."""
        return self.images * self.kv_heads

    @property
    def rows(self) -> int:
        """Query rows of a product."""
        return self.heads // self.kv_heads * self.tokens


@dataclass(frozen=True, eq=False)
class AttentionPlan:
    """Full attention in steps (``npu.device.AttentionSteps``). The arrays have one entry per step, in execution order."""

    shape: AttentionShape
    first_head: Int64Array
    heads: Int64Array
    """A step has the heads from ``first_head`` on, counted over all images; K/V heads where queries share them."""
    first_row: Int64Array
    rows: Int64Array
    """Of every head, the query rows from ``first_row`` on."""
    room_bytes: Int64Array
    """Scratchpad that a step holds: what it loads, its logits, and its output until it is stored."""
    load_bytes: Int64Array
    logits_cycles: Int64Array
    softmax_cycles: Int64Array
    attend_cycles: Int64Array
    store_bytes: Int64Array
    drain_cycles: Int64Array
    """From the last row that enters the arrays to its last result; the next product may enter meanwhile."""

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.load_bytes)

    @property
    def array_cycles(self) -> int:
        """Cycles that the arrays are held."""
        return int(self.logits_cycles.sum() + self.attend_cycles.sum())


class _Footprint(NamedTuple):
    """Bytes of one head in the scratchpad."""

    per_row: int
    """Query, logits and output of one row."""
    fixed: int
    """Keys and values."""

    def rows_in(self, room: int) -> int:
        """Query rows that fit."""
        return max(0, room - self.fixed) // self.per_row

    def heads_in(self, room: int, rows: int) -> int:
        """Heads of so many rows that fit."""
        return room // (self.fixed + rows * self.per_row)


class _Step(NamedTuple):
    first_head: int
    heads: int
    first_row: int
    rows: int


def plan_attention(shape: AttentionShape, npu: NpuConfig, resident: frozenset[Operand] = frozenset()) -> AttentionPlan:
    """Plan the steps of an attention.

    ``resident`` operands lie in the scratchpad all the time: they are neither loaded nor stored, and ``npu.scratchpad_bytes`` is what is
    left beside them. A step takes at most half of that if ``double_buffered``, so that the next one may load.

    Raises InputError where not even one query row of one head fits.
    """
    footprint = _footprint(shape, npu, resident)
    steps = _steps(shape, footprint, npu)
    first_head, heads, first_row, rows = np.array(steps, dtype=np.int64).T
    sizes = _operand_bytes(shape, npu, resident)
    cost = {pair: _cycles(shape, npu, *pair) for pair in set(zip(heads.tolist(), rows.tolist(), strict=True))}
    cycles = np.array([cost[pair] for pair in zip(heads.tolist(), rows.tolist(), strict=True)], dtype=np.int64).T
    return AttentionPlan(
        shape,
        first_head=first_head,
        heads=heads,
        first_row=first_row,
        rows=rows,
        room_bytes=heads * (footprint.fixed + rows * footprint.per_row),
        load_bytes=heads * (sizes["keys"] + sizes["values"] + rows * sizes["queries"]),
        logits_cycles=cycles[0],
        softmax_cycles=cycles[1],
        attend_cycles=cycles[2],
        store_bytes=heads * rows * sizes["output"],
        drain_cycles=cycles[3],
    )


def attention_fits(shape: AttentionShape, npu: NpuConfig, resident: frozenset[Operand] = frozenset()) -> bool:
    """Whether a step has room for a head per array (or for all heads), so that :func:`plan_attention` need not cut finer."""
    return npu.scratchpad_bytes > 0 and _heads_at_once(shape, _footprint(shape, npu, resident), npu) == min(
        npu.systolic.arrays, shape.products
    )


def _room(npu: NpuConfig) -> int:
    """Scratchpad that a step may take."""
    return npu.scratchpad_bytes // (2 if npu.double_buffered else 1)


def _heads_at_once(shape: AttentionShape, footprint: _Footprint, npu: NpuConfig) -> int:
    return min(npu.systolic.arrays, shape.products, footprint.heads_in(_room(npu), shape.rows))


def _operand_bytes(shape: AttentionShape, npu: NpuConfig, resident: frozenset[Operand]) -> dict[Operand, int]:
    """Bytes that move between DRAM and scratchpad: of one head's keys and values, of one row's query and output."""
    row = shape.head_size * npu.element_bytes
    moved: dict[Operand, int] = {
        "queries": row,
        "keys": shape.context * row,
        "values": shape.context * row,
        "output": row,
    }
    return {name: 0 if name in resident else size for name, size in moved.items()}


def _footprint(shape: AttentionShape, npu: NpuConfig, resident: frozenset[Operand]) -> _Footprint:
    sizes = _operand_bytes(shape, npu, resident)
    logits = shape.context * npu.element_bytes
    return _Footprint(sizes["queries"] + logits + sizes["output"], sizes["keys"] + sizes["values"])


def _steps(shape: AttentionShape, footprint: _Footprint, npu: NpuConfig) -> list[_Step]:
    """As many whole heads as there are arrays, or as fit; else blocks of rows of one head, about equally long."""
    room, at_once = _room(npu), _heads_at_once(shape, footprint, npu)
    if at_once:
        return [
            _Step(first, min(at_once, shape.products - first), 0, shape.rows)
            for first in range(0, shape.products, at_once)
        ]
    most = footprint.rows_in(room)
    if not most:
        raise InputError(
            f"attention of {shape.tokens} tokens to {shape.context} with heads of {shape.head_size}: one query row with "
            f"its keys and values needs {footprint.fixed + footprint.per_row} B of the {room} B that a step may take of "
            f"npu.scratchpad_bytes={npu.scratchpad_bytes}"
        )
    block = ceil_div(shape.rows, ceil_div(shape.rows, most))
    return [
        _Step(head, 1, first, min(block, shape.rows - first))
        for head in range(shape.products)
        for first in range(0, shape.rows, block)
    ]


def _cycles(shape: AttentionShape, npu: NpuConfig, heads: int, rows: int) -> tuple[int, int, int, int]:
    """(logits, softmax, attend, drain) of a step: every head has an equal share of the arrays, whole ones."""
    shares = [
        npu.systolic.model_copy(update={"arrays": npu.systolic.arrays // heads, "sharing": sharing})
        for sharing in ("split_n", "split_m")
    ]

    def product(k: int, n: int) -> Occupancy:
        occupancies = (share_gemm(Gemm(rows, k, n), share).occupancy for share in shares)
        return min(occupancies, key=lambda occupancy: occupancy.busy_cycles)

    logits, attend = product(shape.head_size, shape.context), product(shape.context, shape.head_size)
    softmax = vector_cycles("softmax", npu.vector, rows=heads * rows, width=shape.context)
    drain = max(0, logits.latency_cycles, attend.latency_cycles)
    return logits.busy_cycles, softmax, attend.busy_cycles, drain

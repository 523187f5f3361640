"""Kinds around weight matrices: GEMM and embedding look-up."""

from __future__ import annotations

from neupims_sim.trace.kinds import KINDS, Kind, bytes_by_role, require_rank, require_shape
from neupims_sim.trace.operators import ELEMENT_BYTES, Operator, Role


@KINDS.register("gemm")
class Gemm(Kind):
    """``[M, K] x [K, N] (+ bias [N]) -> [M, N]``: M K N multiply-accumulates."""

    inputs = (2, 3)

    @staticmethod
    def check(op: Operator) -> None:
        m, k = require_rank("left matrix", op.inputs[0], "M", "K")
        k_right, n = require_rank("right matrix", op.inputs[1], "K", "N")
        if k != k_right:
            raise ValueError(f"[{m}, {k}] x [{k_right}, {n}]: inner dimensions {k} and {k_right} differ")
        for bias in op.inputs[2:]:
            require_shape("bias", bias, (n,))
        require_shape("output", op.outputs[0], (m, n))

    @staticmethod
    def macs(op: Operator) -> int:
        return op.outputs[0].elements * op.inputs[0].shape[1]


@KINDS.register("embedding")
class Embedding(Kind):
    """Token ids ``[T]``, table ``[V, E]`` (, positions ``[P, E]``) ``-> [T, E]``; one row per token and table is read.

    1 FLOP per element where positions are added.
    """

    inputs = (2, 3)

    @staticmethod
    def check(op: Operator) -> None:
        (tokens,) = require_rank("token ids", op.inputs[0], "T")
        for table in op.inputs[1:]:
            rows, _ = require_rank("table", table, "rows", "E")
            require_shape("table", table, (rows, op.inputs[1].shape[1]))
        require_shape("output", op.outputs[0], (tokens, op.inputs[1].shape[1]))

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return {"add": op.outputs[0].elements * (len(op.inputs) - 2)}

    @staticmethod
    def read_bytes(op: Operator) -> dict[Role, int]:
        total = bytes_by_role(op.inputs[:1])
        for table in op.inputs[1:]:
            total[table.role] = total.get(table.role, 0) + op.outputs[0].elements * ELEMENT_BYTES[table.dtype]
        return total

"""Kinds of vector search and of reranking what it found."""

from __future__ import annotations

from typing import ClassVar

from neupims_sim.trace.kinds import KINDS, Kind, bytes_by_role, require_rank, require_shape
from neupims_sim.trace.operators import Operator, Role


@KINDS.register("similarity")
class Similarity(Kind):
    """Dot products ``[Q, D]``, ``[N, D] -> [Q, N]``; of vectors with each other (Gram matrix) ``[N, D] -> [N, N]``.

    D multiply-accumulates per output element.
    """

    inputs = (1, 2)

    @staticmethod
    def check(op: Operator) -> None:
        rows, size = require_rank("queries", op.inputs[0], "Q", "D")
        count, _ = require_rank("vectors", op.inputs[-1], "N", "D")
        require_shape("vectors", op.inputs[-1], (count, size))
        require_shape("output", op.outputs[0], (rows, count))

    @staticmethod
    def macs(op: Operator) -> int:
        return op.outputs[0].elements * op.inputs[0].shape[1]


@KINDS.register("top_m")
class TopM(Kind):
    """The M best of every row in descending order: scores ``[R, N] ->`` ids ``[R, M]``, scores ``[R, M]``.

    1 FLOP per score: compare with the worst of the best so far, as a unit does that selects in passing.
    """

    outputs = 2

    @staticmethod
    def check(op: Operator) -> None:
        rows, count = require_rank("scores", op.inputs[0], "R", "N")
        _, best = require_rank("ids", op.outputs[0], "R", "M")
        if best > count:
            raise ValueError(f"the best {best} of {count} scores")
        for output in op.outputs:
            require_shape("output", output, (rows, best))

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return {"compare": op.inputs[0].elements}


@KINDS.register("weighted_mean")
class WeightedMean(Kind):
    """Each vector refined by its neighbours: vectors ``[M, D]``, ids ``[M, K]``, similarities ``[M, K] -> [M, D]``.

    ``sum_k w_k x_k / sum_k w_k`` with w = 1 for the vector itself, which comes first, and beta x similarity for the others
    (SuperGlobal, arXiv 2308.06954). Per row: K D multiply-accumulates; K - 1 multiplies by beta, K sums of weights, D divides.
    """

    inputs = (3, 3)
    attrs: ClassVar = {"beta": float}

    @staticmethod
    def check(op: Operator) -> None:
        rows, size = require_rank("vectors", op.inputs[0], "M", "D")
        _, neighbours = require_rank("ids", op.inputs[1], "M", "K")
        for tensor in op.inputs[1:]:
            require_shape("neighbours", tensor, (rows, neighbours))
        require_shape("output", op.outputs[0], (rows, size))

    @staticmethod
    def macs(op: Operator) -> int:
        return op.outputs[0].elements * op.inputs[1].shape[1]

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        rows, neighbours = op.inputs[1].shape
        return {"multiply": rows * (neighbours - 1), "add": rows * neighbours, "divide": op.outputs[0].elements}


@KINDS.register("max_of_rows")
class MaxOfRows(Kind):
    """Element-wise maximum of chosen rows: vectors ``[M, D]``, ids ``[1, K] -> [1, D]``. Reads K rows; K D FLOPs (compare)."""

    inputs = (2, 2)

    @staticmethod
    def check(op: Operator) -> None:
        rows, size = require_rank("vectors", op.inputs[0], "M", "D")
        _, chosen = require_rank("ids", op.inputs[1], "1", "K")
        require_shape("ids", op.inputs[1], (1, chosen))
        if chosen > rows:
            raise ValueError(f"{chosen} rows of {rows}")
        require_shape("output", op.outputs[0], (1, size))

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return {"compare": op.inputs[1].elements * op.outputs[0].elements}

    @staticmethod
    def read_bytes(op: Operator) -> dict[Role, int]:
        total = bytes_by_role(op.inputs[1:])
        vectors, ids = op.inputs
        total[vectors.role] = total.get(vectors.role, 0) + ids.elements * vectors.bytes // vectors.shape[0]
        return total


@KINDS.register("mean")
class Mean(Kind):
    """Element-wise mean of n tensors of the same shape: n FLOPs per element (n - 1 sums, a multiply)."""

    inputs = (2, 8)

    @staticmethod
    def check(op: Operator) -> None:
        for tensor in (*op.inputs[1:], *op.outputs):
            require_shape("tensor", tensor, op.inputs[0].shape)

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        elements = op.outputs[0].elements
        return {"add": (len(op.inputs) - 1) * elements, "multiply": elements}

"""Kinds that model files of others need: what a node of a general graph does where no kind of a known model fits."""

from __future__ import annotations

import math
from typing import ClassVar

from neupims_sim.errors import suggestion
from neupims_sim.kernels.costs import OPERATIONS
from neupims_sim.trace.kinds import KINDS, Kind, require_rank, require_shape
from neupims_sim.trace.operators import Operator


def batched_gemm_shape(op: Operator) -> tuple[int, int, int, int]:
    """(batch, M, K, N) of a ``batched_gemm``: so many products ``[M, K] x [K, N]``."""
    batch, m, n = op.outputs[0].shape
    return batch, m, op.inputs[0].shape[2], n


@KINDS.register("batched_gemm")
class BatchedGemm(Kind):
    """``[B, M, K] x [B, K, N] -> [B, M, N]``: B M K N multiply-accumulates.

    An operand with a smaller batch, a divisor of B, is shared: keys of grouped-query attention, one matrix for all.
    """

    inputs = (2, 2)

    @staticmethod
    def check(op: Operator) -> None:
        left, m, k = require_rank("left matrices", op.inputs[0], "B", "M", "K")
        right, _, n = require_rank("right matrices", op.inputs[1], "B", "K", "N")
        batch = require_rank("output", op.outputs[0], "B", "M", "N")[0]
        for shared in (left, right):
            if batch % shared:
                raise ValueError(f"{shared} matrices cannot be shared by a batch of {batch}")
        require_shape("right matrices", op.inputs[1], (right, k, n))
        require_shape("output", op.outputs[0], (batch, m, n))

    @staticmethod
    def macs(op: Operator) -> int:
        return math.prod(batched_gemm_shape(op))


@KINDS.register("elementwise")
class Elementwise(Kind):
    """A function of each element of tensors that are broadcast against each other, any shape.

    ``attrs.operations``: how many of each elementary operation (``kernels.costs.OPERATIONS``) an output element takes.
    """

    inputs = (1, 64)
    attrs: ClassVar = {"operations": dict}
    per_tile = True

    @staticmethod
    def check(op: Operator) -> None:
        for name, count in op.attrs["operations"].items():
            if name not in OPERATIONS:
                raise ValueError(f"attrs.operations: unknown operation {name!r}; {suggestion(name, OPERATIONS)}")
            if type(count) is not int or count < 1:
                raise ValueError(f"attrs.operations: {name}={count!r} must be an integer of at least 1")
        for tensor in op.inputs:
            if op.outputs[0].elements % tensor.elements:
                raise ValueError(
                    f"input {tensor.name!r} has shape {list(tensor.shape)}, which cannot be broadcast to "
                    f"{list(op.outputs[0].shape)}"
                )

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return {name: count * op.outputs[0].elements for name, count in op.attrs["operations"].items()}


@KINDS.register("reduction")
class Reduction(Kind):
    """Each output element combines ``window`` elements of the input: pooling, or reduction along axes; any shape.

    ``attrs.operation``: ``add`` or ``compare`` (maximum, minimum), one per element of a window; ``mean``: the sum is divided, one
    more per output element.
    """

    attrs: ClassVar = {"operation": str, "window": int, "mean": bool}

    @staticmethod
    def check(op: Operator) -> None:
        operation, window = op.attrs["operation"], op.attrs["window"]
        if operation not in ("add", "compare"):
            raise ValueError(f"attrs.operation={operation!r}; {suggestion(operation, ('add', 'compare'))}")
        if operation == "compare" and op.attrs["mean"]:
            raise ValueError("attrs.mean=True needs attrs.operation='add'")
        if window < 1:
            raise ValueError(f"attrs.window={window} must be at least 1")

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        outputs = op.outputs[0].elements
        combined = {op.attrs["operation"]: outputs * int(op.attrs["window"])}
        return combined | ({"divide": outputs} if op.attrs["mean"] else {})


@KINDS.register("concatenate")
class Concatenate(Kind):
    """Tensors written one behind the other into a new one, any shape. No FLOPs; a part that is repeated is read once."""

    inputs = (2, 4096)

    @staticmethod
    def check(op: Operator) -> None:
        parts = sum(tensor.elements for tensor in op.inputs)
        if parts > op.outputs[0].elements:
            raise ValueError(f"{parts} elements do not fit in an output of {op.outputs[0].elements}")

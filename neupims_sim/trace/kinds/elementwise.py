"""Kinds of the vector units: normalisation, activation, position, residual addition; and the sum over devices."""

from __future__ import annotations

from typing import ClassVar

from neupims_sim.trace.kinds import KINDS, Kind, require_rank, require_shape
from neupims_sim.trace.operators import Operator


def normalization(elements: int, groups: int) -> dict[str, int]:
    """Operations of bringing groups of ``elements`` in all to mean 0 and deviation 1, then gain and shift.

    Per element: sum, subtract, square, sum, scale, gain, shift. Per group: two divides by its size, square root, reciprocal.
    """
    return {"add": 4 * elements, "multiply": 3 * elements, "divide": 3 * groups, "sqrt": groups}


@KINDS.register("layernorm")
class LayerNorm(Kind):
    """``[T, E]``, gain ``[E]``, shift ``[E]`` ``-> [T, E]``.

    7 FLOPs per element and 4 per row: ``normalization``.
    """

    inputs = (3, 3)
    per_tile = True

    @staticmethod
    def check(op: Operator) -> None:
        _, width = require_rank("input", op.inputs[0], "T", "E")
        for vector in op.inputs[1:]:
            require_shape("parameter", vector, (width,))
        require_shape("output", op.outputs[0], op.inputs[0].shape)

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return normalization(op.inputs[0].elements, op.inputs[0].shape[0])


@KINDS.register("rmsnorm")
class RmsNorm(Kind):
    """``[T, E]``, gain ``[E]`` ``-> [T, E]``.

    4 FLOPs per element (square, sum, scale, gain) and 3 per row (divide by E, square root, reciprocal).
    """

    inputs = (2, 2)
    per_tile = True
    check = staticmethod(LayerNorm.check)

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        elements, rows = op.inputs[0].elements, op.inputs[0].shape[0]
        return {"multiply": 3 * elements, "add": elements, "divide": 2 * rows, "sqrt": rows}


@KINDS.register("gelu")
class Gelu(Kind):
    """``x -> 0.5 x (1 + tanh(a (x + b x^3)))``, any shape (Hendrycks & Gimpel, arXiv 1606.08415).

    9 FLOPs per element: 6 multiplies (2 of them the cube), 2 adds, tanh.
    """

    per_tile = True

    @staticmethod
    def check(op: Operator) -> None:
        require_shape("output", op.outputs[0], op.inputs[0].shape)

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        elements = op.outputs[0].elements
        return {"multiply": 6 * elements, "add": 2 * elements, "tanh": elements}


@KINDS.register("silu_multiply")
class SiluMultiply(Kind):
    """``gate / (1 + exp(-gate)) * up``, the gate of SwiGLU (Shazeer, arXiv 2002.05202); inputs gate and up.

    4 FLOPs per element: exp, add, divide, multiply.
    """

    inputs = (2, 2)
    per_tile = True

    @staticmethod
    def check(op: Operator) -> None:
        require_shape("up", op.inputs[1], op.inputs[0].shape)
        require_shape("output", op.outputs[0], op.inputs[0].shape)

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return dict.fromkeys(("exp", "add", "divide", "multiply"), op.outputs[0].elements)


@KINDS.register("rotary")
class Rotary(Kind):
    """Queries ``[T, heads, d]`` and keys ``[T, kv_heads, d]`` rotated by position (Su et al., arXiv 2104.09864).

    A pair of elements takes 4 multiplies and 2 adds: 3 FLOPs per element. The angles are constants.
    """

    inputs = (2, 2)
    outputs = 2
    per_tile = True

    @staticmethod
    def check(op: Operator) -> None:
        tokens, _, size = require_rank("queries", op.inputs[0], "T", "heads", "d")
        _, kv_heads, _ = require_rank("keys", op.inputs[1], "T", "kv_heads", "d")
        require_shape("keys", op.inputs[1], (tokens, kv_heads, size))
        if size % 2:
            raise ValueError(f"head size {size} is odd; rotary positions turn pairs of elements")
        for before, after in zip(op.inputs, op.outputs, strict=True):
            require_shape("output", after, before.shape)

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        elements = sum(tensor.elements for tensor in op.outputs)
        return {"multiply": 2 * elements, "add": elements}


@KINDS.register("add")
class Add(Kind):
    """Sum of two tensors of the same shape, 1 FLOP per element."""

    inputs = (2, 2)
    per_tile = True

    @staticmethod
    def check(op: Operator) -> None:
        require_shape("input", op.inputs[1], op.inputs[0].shape)
        require_shape("output", op.outputs[0], op.inputs[0].shape)

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return {"add": op.outputs[0].elements}


@KINDS.register("all_reduce")
class AllReduce(Kind):
    """Element-wise sum over ``devices`` devices, the result on every one.

    Each device performs its share of the (devices - 1) additions per element.
    """

    attrs: ClassVar = {"devices": int}

    @staticmethod
    def check(op: Operator) -> None:
        if op.attrs["devices"] < 1:
            raise ValueError(f"attrs.devices={op.attrs['devices']} must be at least 1")
        require_shape("output", op.outputs[0], op.inputs[0].shape)

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        devices: int = op.attrs["devices"]
        return {"add": -(-op.outputs[0].elements * (devices - 1) // devices)}

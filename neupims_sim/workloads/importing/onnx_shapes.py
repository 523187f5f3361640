"""Whether the shapes of an ONNX node fit each other, where the onnx package infers an output without asking.

Its inference takes the target of a reshape, the weights of a convolution or the scale of a norm at their word. Here is what the
operators demand (https://onnx.ai/onnx/operators/), as the package's reference implementation finds out when it computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


class Sides(NamedTuple):
    """What is known of a node's tensors: None for one that is absent, or whose shape or values are not known."""

    inputs: tuple[Shape | None, ...]
    outputs: tuple[Shape | None, ...]
    values: tuple[NDArray[Any] | None, ...]
    attributes: Mapping[str, Any]
    opset: int

    def input(self, position: int) -> Shape | None:
        """Shape of an input."""
        return self.inputs[position] if position < len(self.inputs) else None


def check_shapes(op: str, sides: Sides) -> None:
    """Raise ValueError, saying which shapes do not fit, unless those that are known do."""
    check = _CHECKS.get(op)
    if check is not None:
        check(sides)


def _reshape(sides: Sides) -> None:
    source, result = sides.input(0), sides.outputs[0]
    if source is not None and result is not None and math.prod(source) != math.prod(result):
        raise ValueError(f"{_text(source)} has {math.prod(source)} elements and cannot become {_text(result)}")


def _convolution(sides: Sides) -> None:
    source, weights, bias = sides.input(0), sides.input(1), sides.input(2)
    if source is None or weights is None:
        return
    group = int(sides.attributes.get("group", 1))
    if len(source) < 3 or len(source) != len(weights):
        raise ValueError(f"weights {_text(weights)} do not fit a map {_text(source)}: as many axes, at least 3")
    if group < 1 or source[1] % group or weights[0] % group:
        raise ValueError(
            f"group={group} does not divide the {source[1]} channels of the map and the {weights[0]} of the weights"
        )
    if weights[1] * group != source[1]:
        wanted = weights[1] * group
        raise ValueError(
            f"weights {_text(weights)} in {group} groups are for {wanted} channels, not those of {_text(source)}"
        )
    _kernel(sides, weights)
    if bias is not None and bias != weights[:1]:
        raise ValueError(f"a bias {_text(bias)} does not fit the {weights[0]} channels of the weights")


def _kernel(sides: Sides, weights: Shape) -> None:
    kernel = sides.attributes.get("kernel_shape")
    if kernel is not None and tuple(kernel) != weights[2:]:
        raise ValueError(f"kernel_shape={list(kernel)} is not that of the weights {_text(weights)}")


def _gemm(sides: Sides) -> None:
    left, right, bias = sides.input(0), sides.input(1), sides.input(2)
    if left is None or right is None:
        return
    if len(left) != 2 or len(right) != 2:
        raise ValueError(f"{_text(left)} and {_text(right)} are not both matrices")
    rows, inner = left[::-1] if sides.attributes.get("transA", 0) else left
    other, columns = right[::-1] if sides.attributes.get("transB", 0) else right
    if inner != other:
        raise ValueError(f"{_text(left)} and {_text(right)} cannot be multiplied: {inner} columns, {other} rows")
    if bias is not None and not _broadcasts_to(bias, (rows, columns)):
        raise ValueError(f"a bias {_text(bias)} does not fit the result {_text((rows, columns))}")


def _matmul(sides: Sides) -> None:
    left, right = sides.input(0), sides.input(1)
    if left is None or right is None:
        return
    inner, other = (left[-1:] or (0,))[0], (right[-2:-1] or right[-1:] or (0,))[0]
    if not left or not right or inner != other:
        raise ValueError(f"{_text(left)} and {_text(right)} cannot be multiplied")
    _broadcast_shapes(left[:-2], right[:-2])


def _normalization(sides: Sides) -> None:
    source = sides.input(0)
    if source is None:
        return
    axis = int(sides.attributes.get("axis", -1))
    if not -len(source) <= axis < len(source):
        raise ValueError(f"axis={axis} is none of {_text(source)}")
    normalized = source[axis % len(source) :]
    for name, vector in (("scale", sides.input(1)), ("bias", sides.input(2))):
        if vector is not None and not _broadcasts_to(vector, normalized):
            raise ValueError(f"a {name} {_text(vector)} does not fit the normalized axes {_text(normalized)}")


def _per_channel(sides: Sides) -> None:
    """Batch and instance normalization: every vector has an element per channel."""
    source = sides.input(0)
    if source is None:
        return
    if len(source) < 2:
        raise ValueError(f"{_text(source)} has no axis of channels")
    for vector in sides.inputs[1:]:
        if vector is not None and vector != source[1:2]:
            raise ValueError(f"a vector {_text(vector)} does not fit the {source[1]} channels of {_text(source)}")


def _group_normalization(sides: Sides) -> None:
    source, groups = sides.input(0), int(sides.attributes.get("num_groups", 0))
    if source is None:
        return
    if len(source) < 2 or groups < 1 or source[1] % groups:
        raise ValueError(f"num_groups={groups} does not divide the channels of {_text(source)}")
    length = source[1] if sides.opset >= 21 else groups
    for vector in sides.inputs[1:3]:
        if vector is not None and vector != (length,):
            raise ValueError(f"a vector {_text(vector)} has not {length} elements")


def _broadcasting(sides: Sides) -> None:
    known = [shape for shape in sides.inputs if shape is not None]
    _broadcast_shapes(*known)


def _slope(sides: Sides) -> None:
    source, slope = sides.input(0), sides.input(1)
    if source is not None and slope is not None and not _broadcasts_to(slope, source):
        raise ValueError(f"a slope {_text(slope)} does not fit {_text(source)}")


def _expand(sides: Sides) -> None:
    source, target = sides.input(0), sides.values[1] if len(sides.values) > 1 else None
    if source is not None and target is not None:
        _broadcast_shapes(source, tuple(int(side) for side in target.ravel()))


def _concatenation(sides: Sides) -> None:
    known = [shape for shape in sides.inputs if shape is not None]
    axis = int(sides.attributes.get("axis", 0))
    for shape in known[1:]:
        first = known[0]
        if len(shape) != len(first) or any(
            a != b for side, (a, b) in enumerate(zip(first, shape, strict=True)) if side != axis % len(first)
        ):
            raise ValueError(f"{_text(first)} and {_text(shape)} do not fit together along axis {axis}")


def _split(sides: Sides) -> None:
    source, parts = sides.input(0), sides.values[1] if len(sides.values) > 1 else None
    stated = sides.attributes.get("split") if parts is None else parts.ravel().tolist()
    if source is None or stated is None:
        return
    axis = int(sides.attributes.get("axis", 0)) % max(1, len(source))
    if sum(stated) != source[axis] or len(stated) != len(sides.outputs):
        raise ValueError(
            f"parts of {list(stated)} are not axis {axis} of {_text(source)} in {len(sides.outputs)} outputs"
        )


def _gather(sides: Sides) -> None:
    source, indices = sides.input(0), sides.values[1] if len(sides.values) > 1 else None
    if source is None or indices is None or not indices.size:
        return
    axis = int(sides.attributes.get("axis", 0))
    if not -len(source) <= axis < len(source):
        raise ValueError(f"axis={axis} is none of {_text(source)}")
    length = source[axis]
    if indices.min() < -length or indices.max() >= length:
        raise ValueError(f"indices from {indices.min()} to {indices.max()} are beyond the {length} of axis {axis}")


def _pool(sides: Sides) -> None:
    source, kernel = sides.input(0), sides.attributes.get("kernel_shape")
    if source is None or kernel is None:
        return
    if len(kernel) != len(source) - 2:
        raise ValueError(f"kernel_shape={list(kernel)} does not fit {_text(source)}")
    result = sides.outputs[0]
    if result is not None and min(result) < 1:
        raise ValueError(f"a window of {list(kernel)} finds no place in {_text(source)}")


def _attention(sides: Sides) -> None:
    """Queries, keys and values: [B, heads, L, size] or [B, L, heads x size]; keys and values have the same length and heads."""
    query, key, value = (sides.input(position) for position in range(3))
    if query is None or key is None or value is None:
        return
    if not len(query) == len(key) == len(value) or len(query) not in (3, 4):
        raise ValueError(
            f"queries {_text(query)}, keys {_text(key)} and values {_text(value)} have not the same 3 or 4 axes"
        )
    lengths = key[-2], value[-2]
    if lengths[0] != lengths[1] or not query[0] == key[0] == value[0]:
        raise ValueError(
            f"queries {_text(query)}, keys {_text(key)} and values {_text(value)} are of different batches or lengths"
        )
    if len(query) == 4 and (query[-1] != key[-1] or key[1] != value[1] or query[1] % key[1]):
        raise ValueError(
            f"heads of queries {_text(query)} do not fit those of keys {_text(key)} and values {_text(value)}"
        )


def _broadcasts_to(shape: Shape, target: Shape) -> bool:
    """Whether a tensor can be repeated to a shape (unidirectional broadcasting)."""
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _broadcast_shapes(*shapes: Shape) -> None:
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(f"{' and '.join(map(_text, shapes))} do not broadcast") from None


def _text(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"


_CHECKS: Mapping[str, Callable[[Sides], None]] = {
    "Reshape": _reshape,
    "Conv": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "LayerNormalization": _normalization,
    "RMSNormalization": _normalization,
    "BatchNormalization": _per_channel,
    "InstanceNormalization": _per_channel,
    "GroupNormalization": _group_normalization,
    "PRelu": _slope,
    "Expand": _expand,
    "Concat": _concatenation,
    "Split": _split,
    "Gather": _gather,
    "Attention": _attention,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _pool),
    **dict.fromkeys(
        (
            "Add",
            "Sub",
            "Mul",
            "Div",
            "Pow",
            "Mod",
            "Min",
            "Max",
            "Mean",
            "Sum",
            "Where",
            "Equal",
            "Greater",
            "Less",
            "And",
            "Or",
            "Xor",
        ),
        _broadcasting,
    ),
    **dict.fromkeys(("GreaterOrEqual", "LessOrEqual", "BitwiseAnd", "BitwiseOr", "BitwiseXor"), _broadcasting),
}

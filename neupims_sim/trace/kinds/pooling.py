"""Kinds that pool: many tokens or positions to one descriptor, or windows of a map.

Axes: tokens ``[B, N, C]``, maps ``[B, C, H, W]``. A sum or maximum is 1 FLOP per element that goes in; x^p is 1 FLOP, as every
elementary function, whatever it costs a vector unit.
"""

from __future__ import annotations

from typing import ClassVar

from neupims_sim.trace.kinds import KINDS, Kind, require_rank, require_shape
from neupims_sim.trace.kinds.convolution import check_window, window_positions
from neupims_sim.trace.operators import Operator


def generalized_mean(elements: int, outputs: int) -> dict[str, int]:
    """Operations of ``(mean(max(x, eps)^p))^(1/p)`` over ``elements`` inputs in all, giving ``outputs``.

    Per input: compare, power, sum. Per output: divide, power.
    """
    return {"compare": elements, "pow": elements + outputs, "add": elements, "divide": outputs}


def _check_pooled(op: Operator) -> None:
    """Tokens ``[B, N, C]`` or maps ``[B, C, H, W]`` to ``[B, C]``."""
    shape = op.inputs[0].shape
    if len(shape) not in (3, 4):
        raise ValueError(f"input {op.inputs[0].name!r} has shape {list(shape)}, expected [B, N, C] or [B, C, H, W]")
    require_shape("output", op.outputs[0], (shape[0], shape[2 if len(shape) == 3 else 1]))


def _check_power(op: Operator) -> None:
    if not op.attrs["p"] > 0:
        raise ValueError(f"attrs.p={op.attrs['p']} must be greater than 0")


@KINDS.register("average_pool")
class AveragePool(Kind):
    """``[B, N, C]`` or ``[B, C, H, W] -> [B, C]``. 1 FLOP per input (sum), 1 per output (divide)."""

    check = staticmethod(_check_pooled)

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return {"add": op.inputs[0].elements, "divide": op.outputs[0].elements}


@KINDS.register("max_pool")
class MaxPool(Kind):
    """``[B, N, C]`` or ``[B, C, H, W] -> [B, C]``. 1 FLOP per input (compare)."""

    check = staticmethod(_check_pooled)

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return {"compare": op.inputs[0].elements}


@KINDS.register("group_gem")
class GroupGem(Kind):
    """Tokens ``[B, N, C]``, exponents ``[G] -> [B, C]``: channel c is pooled with exponent c // (C / G).

    Group generalized mean pooling (Ko et al., arXiv 2212.04114); GeM is one group. ``generalized_mean``.
    """

    inputs = (2, 2)

    @staticmethod
    def check(op: Operator) -> None:
        batch, _, channels = require_rank("tokens", op.inputs[0], "B", "N", "C")
        (groups,) = require_rank("exponents", op.inputs[1], "G")
        if channels % groups:
            raise ValueError(f"{channels} channels are not a multiple of {groups} groups")
        require_shape("output", op.outputs[0], (batch, channels))

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return generalized_mean(op.inputs[0].elements, op.outputs[0].elements)


@KINDS.register("gem_plus")
class GemPlus(Kind):
    """Maps ``[B, C, H, W] -> [B, C]``, one fixed exponent p (SuperGlobal, arXiv 2308.06954). ``generalized_mean``."""

    attrs: ClassVar = {"p": float}

    @staticmethod
    def check(op: Operator) -> None:
        _check_power(op)
        batch, channels, *_ = require_rank("map", op.inputs[0], "B", "C", "H", "W")
        require_shape("output", op.outputs[0], (batch, channels))

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return generalized_mean(op.inputs[0].elements, op.outputs[0].elements)


@KINDS.register("regional_gem")
class RegionalGem(Kind):
    """``R = 0.5 L + 0.5 X`` with L the generalized mean of X in a window around each position; ``[B, C, H, W]`` to the same.

    Stride 1, reflection padding of half a window (SuperGlobal, arXiv 2308.06954). Per element: power (shared by its
    windows), window^2 sums, divide, power, and the mean with X (add, multiply).
    """

    attrs: ClassVar = {"p": float, "window": int}

    @staticmethod
    def check(op: Operator) -> None:
        _check_power(op)
        window = op.attrs["window"]
        if window < 1 or window % 2 == 0:
            raise ValueError(f"attrs.window={window} must be odd and at least 1")
        sizes = require_rank("map", op.inputs[0], "B", "C", "H", "W")[2:]
        if min(sizes) <= window // 2:
            raise ValueError(f"a map of {sizes[0]} x {sizes[1]} is too small to reflect {window // 2} positions")
        require_shape("output", op.outputs[0], op.inputs[0].shape)

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        elements, window = op.outputs[0].elements, int(op.attrs["window"])
        return {
            "pow": 2 * elements,
            "add": (window**2 + 1) * elements,
            "divide": elements,
            "multiply": elements,
        }


@KINDS.register("scale_gem")
class ScaleGem(Kind):
    """Descriptors of S scales ``[S, B, C] -> [B, C]``: generalized mean with p = infinity, the element-wise maximum.

    SuperGlobal (arXiv 2308.06954). 1 FLOP per input (compare).
    """

    @staticmethod
    def check(op: Operator) -> None:
        _, batch, channels = require_rank("descriptors", op.inputs[0], "S", "B", "C")
        require_shape("output", op.outputs[0], (batch, channels))

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return {"compare": op.inputs[0].elements}


@KINDS.register("window_max_pool")
class WindowMaxPool(Kind):
    """``[B, C, H, W] -> [B, C, Ho, Wo]``, the maximum under each position of a window. kernel^2 FLOPs per output (compare)."""

    attrs: ClassVar = {"kernel": int, "stride": int, "padding": int}

    @staticmethod
    def check(op: Operator) -> None:
        check_window(op)
        batch, channels, *sizes = require_rank("map", op.inputs[0], "B", "C", "H", "W")
        positions = (
            window_positions(size, *(op.attrs[key] for key in ("kernel", "stride", "padding"))) for size in sizes
        )
        require_shape("output", op.outputs[0], (batch, channels, *positions))

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return {"compare": op.outputs[0].elements * int(op.attrs["kernel"]) ** 2}

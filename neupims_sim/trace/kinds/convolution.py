"""Convolutions as GEMMs. Axes of maps: ``[B, C, H, W]``, batch, channels, height, width.

im2col gathers the window under every output position into one row, so that a convolution is the product
``[B Ho Wo, C k k] x [C k k, N]`` (Chellapilla et al., IWFHR 2006). The gathered matrix is never a tensor of the trace: bytes are
those of the map itself, and how often a value is read again is the mapping's business.
"""

from __future__ import annotations

from typing import ClassVar

from neupims_sim.trace.kinds import KINDS, Kind, require_rank, require_shape
from neupims_sim.trace.operators import Operator


def window_positions(size: int, kernel: int, stride: int, padding: int) -> int:
    """Positions of a window of ``kernel`` along an axis of ``size``; 0 or less where it does not fit."""
    return (size + 2 * padding - kernel) // stride + 1


def im2col(op: Operator) -> tuple[int, int, int]:
    """(M, K, N) of the GEMM that a ``convolution`` is."""
    depth, channels = op.inputs[1].shape
    return op.outputs[0].elements // channels, depth, channels


def check_window(op: Operator) -> None:
    """Raise ``ValueError`` unless kernel and stride are positive and padding is less than the kernel."""
    kernel, stride, padding = (op.attrs[name] for name in ("kernel", "stride", "padding"))
    if kernel < 1 or stride < 1 or not 0 <= padding < kernel:
        raise ValueError(f"a window of kernel={kernel}, stride={stride}, padding={padding} is impossible")


@KINDS.register("convolution")
class Convolution(Kind):
    """``[B, C, H, W]``, weights ``[C k k, N]`` (, bias ``[N]``) ``-> [B, N, Ho, Wo]``, Ho = (H + 2 padding - k) // stride + 1.

    C k k multiply-accumulates per output element. Batch norm is folded into weights and bias.
    """

    inputs = (2, 3)
    attrs: ClassVar = {"kernel": int, "stride": int, "padding": int}

    @staticmethod
    def check(op: Operator) -> None:
        check_window(op)
        batch, channels, *sizes = require_rank("map", op.inputs[0], "B", "C", "H", "W")
        kernel, stride, padding = (op.attrs[name] for name in ("kernel", "stride", "padding"))
        _, width = require_rank("weights", op.inputs[1], "C k k", "N")
        require_shape("weights", op.inputs[1], (channels * kernel**2, width))
        for bias in op.inputs[2:]:
            require_shape("bias", bias, (width,))
        positions = (window_positions(size, kernel, stride, padding) for size in sizes)
        require_shape("output", op.outputs[0], (batch, width, *positions))

    @staticmethod
    def macs(op: Operator) -> int:
        m, k, n = im2col(op)
        return m * k * n


@KINDS.register("center_pivot_convolution")
class CenterPivotConvolution(Kind):
    """A 4-D convolution as the sum of two 2-D ones: over the first two map axes, and over the last two.

    ``[B, C, H, W, H', W']``, weights ``[C k k, N]`` twice, bias ``[N]`` twice ``-> [B, N, Ho, Wo, Ho', Wo']``; the same
    kernel, stride and padding on every axis (Min et al., HSNet, ICCV 2021, section 4.3: 2 k^2 weights instead of k^4).
    2 C k k multiply-accumulates per output element, and one addition.
    """

    inputs = (5, 5)
    attrs: ClassVar = {"kernel": int, "stride": int, "padding": int}

    @staticmethod
    def check(op: Operator) -> None:
        check_window(op)
        batch, channels, *sizes = require_rank("map", op.inputs[0], "B", "C", "H", "W", "H'", "W'")
        kernel, stride, padding = (op.attrs[name] for name in ("kernel", "stride", "padding"))
        _, width = require_rank("weights", op.inputs[1], "C k k", "N")
        for weights in op.inputs[1:3]:
            require_shape("weights", weights, (channels * kernel**2, width))
        for bias in op.inputs[3:]:
            require_shape("bias", bias, (width,))
        positions = (window_positions(size, kernel, stride, padding) for size in sizes)
        require_shape("output", op.outputs[0], (batch, width, *positions))

    @staticmethod
    def macs(op: Operator) -> int:
        return op.outputs[0].elements * sum(weights.shape[0] for weights in op.inputs[1:3])

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return {"add": op.outputs[0].elements}


@KINDS.register("correlation")
class Correlation(Kind):
    """Every position of one map with every position of another.

    ``[B, C, H, W]``, ``[B, C, H', W'] -> [B, 1, H, W, H', W']``: C multiply-accumulates per output element.
    """

    inputs = (2, 2)

    @staticmethod
    def check(op: Operator) -> None:
        batch, channels, *left = require_rank("left map", op.inputs[0], "B", "C", "H", "W")
        right = require_rank("right map", op.inputs[1], "B", "C", "H'", "W'")[2:]
        require_shape("right map", op.inputs[1], (batch, channels, *right))
        require_shape("output", op.outputs[0], (batch, 1, *left, *right))

    @staticmethod
    def macs(op: Operator) -> int:
        return op.outputs[0].elements * op.inputs[0].shape[1]

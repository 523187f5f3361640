"""Operators that are matrix products: their GEMM, and which tensors its two matrices come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from neupims_sim.npu import Gemm
from neupims_sim.registry import Registry
from neupims_sim.trace import Operator, Tensor
from neupims_sim.trace.kinds.convolution import im2col
from neupims_sim.trace.kinds.imported import batched_gemm_shape


class Product(NamedTuple):
    """One or more products ``[m, k] x [k, n]``; the matrices may be gathered from smaller tensors (im2col)."""

    gemm: Gemm
    activations: Tensor
    """What the [m, k] matrix is made of."""
    weights: Tensor
    """What the [k, n] matrix is made of: parameters, a database, or other activations."""
    times: int = 1
    """Products one after the other, each with a part of the tensors."""


PRODUCTS: Registry[Callable[[Operator], Product]] = Registry("matrix product", "neupims_sim.mapping")
"""By operator kind. A new one is one function registered under the kind's name."""


def product_of(operator: Operator) -> Product | None:
    """The matrix product that an operator is, None for one that is not."""
    return PRODUCTS[operator.op](operator) if operator.op in PRODUCTS else None


@PRODUCTS.register("gemm")
def gemm(operator: Operator) -> Product:
    """[M, K] x [K, N]."""
    left, right = operator.inputs[:2]
    m, k = left.shape
    return Product(Gemm(m, k, operator.outputs[0].shape[1]), left, right)


@PRODUCTS.register("convolution")
def convolution(operator: Operator) -> Product:
    """im2col: [B Ho Wo, C k k] x [C k k, N]."""
    return Product(Gemm(*im2col(operator)), operator.inputs[0], operator.inputs[1])


@PRODUCTS.register("center_pivot_convolution")
def center_pivot_convolution(operator: Operator) -> Product:
    """Two convolutions into the same sums: the two gathered matrices side by side, the weights one above the other."""
    image, first, second = operator.inputs[:3]
    depth, width = first.shape[0] + second.shape[0], first.shape[1]
    positions = operator.outputs[0].elements // width
    return Product(Gemm(positions, depth, width), image, replace(first, shape=(depth, width)))


@PRODUCTS.register("correlation")
def correlation(operator: Operator) -> Product:
    """[H W, C] x [C, H' W'] for every image."""
    left, right = operator.inputs
    batch, channels, *_ = left.shape
    each = batch * channels
    return Product(Gemm(left.elements // each, channels, right.elements // each), left, right, times=batch)


@PRODUCTS.register("batched_gemm")
def batched_gemm(operator: Operator) -> Product:
    """B times [M, K] x [K, N]; one [B M, K] x [K, N] where the right matrix is shared by all."""
    left, right = operator.inputs
    batch, m, k, n = batched_gemm_shape(operator)
    if right.shape[0] == 1 and left.shape[0] == batch:
        return Product(Gemm(batch * m, k, n), left, right)
    return Product(Gemm(m, k, n), left, right, times=batch)


@PRODUCTS.register("similarity")
def similarity(operator: Operator) -> Product:
    """Queries [Q, D] x [D, N]: the database stands on the side of the weights. One input: with itself."""
    queries, vectors = operator.inputs[0], operator.inputs[-1]
    rows, size = queries.shape
    return Product(Gemm(rows, size, vectors.shape[0]), queries, vectors)

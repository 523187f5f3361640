"""The parts of a vision transformer (Dosovitskiy et al., arXiv 2010.11929) besides attention and pooling."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from neupims_sim.kernels.arrays import FloatArray, check_shape, features, positive_floor
from neupims_sim.kernels.attention import multi_head_attention


class Norm(NamedTuple):
    """Parameters of :func:`layer_norm`: gain [channels], shift [channels]."""

    gain: FloatArray
    shift: FloatArray


class Linear(NamedTuple):
    """Parameters of :func:`linear`: weight [inputs, outputs], bias [outputs]."""

    weight: FloatArray
    bias: FloatArray


class BlockWeights(NamedTuple):
    """Parameters of :func:`vit_block`, with C channels and a hidden layer of F."""

    norm1: Norm
    qkv: Linear
    """[C, 3 C]: queries, keys and values side by side."""
    projection: Linear
    """[C, C]"""
    norm2: Norm
    up: Linear
    """[C, F]"""
    down: Linear
    """[F, C]"""


def layer_norm(x: FloatArray, norm: Norm, eps: float = 1e-6) -> FloatArray:
    """``(x - mean) / sqrt(variance + eps) gain + shift`` over the last axis (Ba et al., arXiv 1607.06450).

    The variance divides by the number of channels. Raises InputError for parameters that do not fit x [..., channels].
    """
    x = features("layer_norm: x", x)
    for name, parameter in zip(Norm._fields, norm, strict=True):
        check_shape(f"layer_norm: {name}", parameter, x, x.shape[-1:])
    positive_floor("layer_norm: eps", eps, x)
    centred = x - x.mean(axis=-1, keepdims=True)
    # The sum of squares starts at eps x channels, so that its mean is variance + eps.
    squares = (centred * centred).sum(axis=-1, keepdims=True, initial=eps * x.shape[-1])
    normalized: FloatArray = centred * (1 / np.sqrt(squares / x.shape[-1])) * norm.gain + norm.shift
    return normalized


def gelu(x: FloatArray) -> FloatArray:
    """``0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))``, any shape (Hendrycks & Gimpel, arXiv 1606.08415).

    Within 5e-4 of ``x Phi(x)``, the form with the error function.
    """
    x = features("gelu: x", x)
    cubic = x + 0.044715 * (x * x * x)
    activated: FloatArray = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * cubic))
    return activated


def linear(x: FloatArray, parameters: Linear) -> FloatArray:
    """``x weight + bias``: [..., inputs] -> [..., outputs]. Raises InputError for parameters that do not fit."""
    x = features("linear: x", x)
    outputs = parameters.weight.shape[1:]
    check_shape("linear: weight", parameters.weight, x, (x.shape[-1], *outputs))
    check_shape("linear: bias", parameters.bias, x, outputs)
    product: FloatArray = x @ parameters.weight + parameters.bias
    return product


def vit_block(x: FloatArray, weights: BlockWeights, heads: int, eps: float = 1e-6) -> FloatArray:
    """One pre-norm encoder block: ``x + attention(norm1(x))``, then ``x + mlp(norm2(x))`` with GELU.

    Parameters
    ----------
    x: [batch, tokens, channels], float32 or float64, as the weights; computed in this type.
    heads: attention heads; must divide the channels.
    eps: of both layer norms.

    Returns
    -------
    [batch, tokens, channels].

    Raises InputError for heads that do not divide the channels and for weights that do not fit.
    """
    x = features("vit_block: x", x, "batch", "tokens", "channels")
    check_shape("vit_block: qkv", weights.qkv.weight, x, (x.shape[-1], 3 * x.shape[-1]))
    queries, keys, values = np.split(linear(layer_norm(x, weights.norm1, eps), weights.qkv), 3, axis=-1)
    x = x + linear(multi_head_attention(queries, keys, values, heads), weights.projection)
    return x + linear(gelu(linear(layer_norm(x, weights.norm2, eps), weights.up)), weights.down)

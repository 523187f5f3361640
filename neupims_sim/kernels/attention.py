"""Softmax, decode attention with grouped-query heads (Ainslie et al., GQA, EMNLP 2023), full multi-head attention."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from neupims_sim.errors import InputError
from neupims_sim.kernels.arrays import FloatArray, check_at_least, check_shape, features

Float = TypeVar("Float", bound=np.floating[Any])


def softmax(x: npt.NDArray[Float], axis: int = -1) -> npt.NDArray[Float]:
    """exp(x) / sum(exp(x)) along ``axis``, shifted by the maximum so that it cannot overflow."""
    exponentials = np.exp(x - x.max(axis=axis, keepdims=True))
    normalized: npt.NDArray[Float] = exponentials / exponentials.sum(axis=axis, keepdims=True)
    return normalized


def attention_probabilities(logits: npt.NDArray[Float], head_size: int) -> npt.NDArray[Float]:
    """Softmax over tokens of ``logits / sqrt(head_size)``; logits (unscaled q . k) and result are [heads, tokens]."""
    scaled: npt.NDArray[Float] = np.divide(logits, math.sqrt(head_size))
    return softmax(scaled)


def attention_output(probabilities: FloatArray, values: FloatArray) -> FloatArray:
    """Probability-weighted sum of values: [heads, tokens] x [tokens, kv_heads, head_size] -> [heads, head_size]."""
    heads, tokens = probabilities.shape
    kv_heads, head_size = values.shape[1:]
    grouped = probabilities.reshape(kv_heads, heads // kv_heads, tokens)
    output: FloatArray = np.einsum("kgt,tkd->kgd", grouped, values).reshape(heads, head_size)
    return output


def decode_attention(query: FloatArray, keys: FloatArray, values: FloatArray) -> FloatArray:
    """Attention of one new token to its context.

    Parameters
    ----------
    query: [heads, head_size]; query head i uses K and V head ``i // (heads // kv_heads)``.
    keys, values: [tokens, kv_heads, head_size], the new token included.

    Returns
    -------
    [heads, head_size].
    """
    heads, head_size = query.shape
    tokens, kv_heads = keys.shape[:2]
    grouped = query.reshape(kv_heads, heads // kv_heads, head_size)
    logits = np.einsum("kgd,tkd->kgt", grouped, keys).reshape(heads, tokens)
    return attention_output(attention_probabilities(logits, head_size), values)


def multi_head_attention(queries: FloatArray, keys: FloatArray, values: FloatArray, heads: int) -> FloatArray:
    """Every token attends to every token: softmax(q k^T / sqrt(d)) v per head (Vaswani et al., arXiv 1706.03762).

    Parameters
    ----------
    queries, keys, values: [batch, tokens, channels], float32 or float64, of one type; computed in this type.
    heads: equal runs of d = channels / heads consecutive channels.

    Returns
    -------
    [batch, tokens, channels].

    Raises InputError for heads that do not divide the channels and for arrays that do not fit together.
    """
    queries = features("multi_head_attention: queries", queries, "batch", "tokens", "channels")
    for name, array in (("keys", keys), ("values", values)):
        check_shape(
            f"multi_head_attention: {name}", features(f"multi_head_attention: {name}", array), queries, queries.shape
        )
    batch, tokens, channels = queries.shape
    check_at_least("multi_head_attention: heads", heads, 1)
    if channels % heads:
        raise InputError(f"multi_head_attention: heads={heads} does not divide the {channels} channels")

    def split(x: FloatArray) -> FloatArray:
        return x.reshape(batch, tokens, heads, channels // heads).swapaxes(1, 2)

    logits = split(queries * (1 / math.sqrt(channels // heads))) @ split(keys).swapaxes(2, 3)
    return (softmax(logits) @ split(values)).swapaxes(1, 2).reshape(batch, tokens, channels)

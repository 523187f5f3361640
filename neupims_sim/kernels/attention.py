"""Decode attention of one request with grouped-query heads (Ainslie et al., GQA, EMNLP 2023)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def softmax(x: FloatArray, axis: int = -1) -> FloatArray:
    """exp(x) / sum(exp(x)) along ``axis``, shifted by the maximum so that it cannot overflow."""
    exponentials = np.exp(x - x.max(axis=axis, keepdims=True))
    normalized: FloatArray = exponentials / exponentials.sum(axis=axis, keepdims=True)
    return normalized


def attention_probabilities(logits: FloatArray, head_size: int) -> FloatArray:
    """Softmax over tokens of ``logits / sqrt(head_size)``; logits (unscaled q . k) and result are [heads, tokens]."""
    return softmax(logits / np.sqrt(head_size))


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

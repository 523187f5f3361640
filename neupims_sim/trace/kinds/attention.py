"""Kinds of the attention of one request, and the cache that it reads.

Axes: ``heads`` query heads share ``kv_heads`` key/value heads (grouped-query attention where fewer); ``T`` tokens of
this step (1 in decode, the prompt in prefill) look at a context of ``L`` tokens, the last T of which are their own.
With ``causal: true`` token t of the step sees L - T + 1 + t tokens, and only those are counted as work.
"""

from __future__ import annotations

from typing import ClassVar

from neupims_sim.trace.kinds import KINDS, Kind, require_rank, require_shape
from neupims_sim.trace.operators import Operator


def visible_pairs(tokens: int, context: int, causal: bool) -> int:
    """(query token, context token) pairs that attention computes for one head."""
    return tokens * context - (tokens * (tokens - 1) // 2 if causal else 0)


def _check(op: Operator, heads: int, kv_heads: int, tokens: int, context: int) -> None:
    if heads % kv_heads:
        raise ValueError(f"{heads} query heads are not a multiple of {kv_heads} key/value heads")
    if op.attrs["context_tokens"] != context:
        raise ValueError(f"attrs.context_tokens={op.attrs['context_tokens']}, but the cache holds {context} tokens")
    if op.attrs["causal"] and tokens > context:
        raise ValueError(f"{tokens} tokens attend causally to a context of only {context}")


@KINDS.register("attention_logits")
class AttentionLogits(Kind):
    """Queries ``[heads, T, d]``, keys ``[kv_heads, L, d]`` ``-> [heads, T, L]``.

    heads x d multiply-accumulates per visible pair. The factor 1/sqrt(d) belongs to the query weights.
    """

    inputs = (2, 2)
    attrs: ClassVar = {"context_tokens": int, "causal": bool}

    @staticmethod
    def check(op: Operator) -> None:
        heads, tokens, size = require_rank("queries", op.inputs[0], "heads", "T", "d")
        kv_heads, context, _ = require_rank("keys", op.inputs[1], "kv_heads", "L", "d")
        require_shape("keys", op.inputs[1], (kv_heads, context, size))
        require_shape("output", op.outputs[0], (heads, tokens, context))
        _check(op, heads, kv_heads, tokens, context)

    @staticmethod
    def macs(op: Operator) -> int:
        heads, tokens, size = op.inputs[0].shape
        return heads * size * visible_pairs(tokens, op.attrs["context_tokens"], op.attrs["causal"])


@KINDS.register("attention_attend")
class AttentionAttend(Kind):
    """Probabilities ``[heads, T, L]``, values ``[kv_heads, L, d]`` ``-> [heads, T, d]``.

    heads x d multiply-accumulates per visible pair.
    """

    inputs = (2, 2)
    attrs: ClassVar = {"context_tokens": int, "causal": bool}

    @staticmethod
    def check(op: Operator) -> None:
        heads, tokens, context = require_rank("probabilities", op.inputs[0], "heads", "T", "L")
        kv_heads, _, size = require_rank("values", op.inputs[1], "kv_heads", "L", "d")
        require_shape("values", op.inputs[1], (kv_heads, context, size))
        require_shape("output", op.outputs[0], (heads, tokens, size))
        _check(op, heads, kv_heads, tokens, context)

    @staticmethod
    def macs(op: Operator) -> int:
        heads, tokens, size = op.outputs[0].shape
        return heads * size * visible_pairs(tokens, op.attrs["context_tokens"], op.attrs["causal"])


@KINDS.register("softmax")
class Softmax(Kind):
    """``[heads, T, L] -> [heads, T, L]`` over the last axis.

    5 FLOPs per visible element: maximum, subtract, exp, sum, divide.
    """

    attrs: ClassVar = {"causal": bool}

    @staticmethod
    def check(op: Operator) -> None:
        require_rank("input", op.inputs[0], "heads", "T", "L")
        require_shape("output", op.outputs[0], op.inputs[0].shape)

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        heads, tokens, context = op.inputs[0].shape
        pairs = heads * visible_pairs(tokens, context, op.attrs["causal"])
        return {"compare": pairs, "add": 2 * pairs, "exp": pairs, "divide": pairs}


@KINDS.register("kv_append")
class KvAppend(Kind):
    """New keys and values, ``[T, kv_heads, d]`` each, written to the cache as ``[2, T, kv_heads, d]``. No FLOPs."""

    inputs = (2, 2)
    per_tile = True

    @staticmethod
    def check(op: Operator) -> None:
        shape = require_rank("keys", op.inputs[0], "T", "kv_heads", "d")
        require_shape("values", op.inputs[1], shape)
        require_shape("output", op.outputs[0], (2, *shape))

"""Kinds of the vector units that vision models need besides those of language models."""

from __future__ import annotations

from typing import ClassVar

from neupims_sim.trace.kinds import KINDS, Kind, require_rank, require_shape
from neupims_sim.trace.kinds.elementwise import normalization
from neupims_sim.trace.operators import Operator


def _require_channels(op: Operator) -> None:
    if len(op.inputs[0].shape) < 2:
        raise ValueError(f"input {op.inputs[0].name!r} has shape {list(op.inputs[0].shape)}, expected [B, C, ...]")


@KINDS.register("relu")
class Relu(Kind):
    """``max(x, alpha)``, any shape: ReLU with alpha 0, ReLUP of SuperGlobal (arXiv 2308.06954) with 0.014.

    1 FLOP per element.
    """

    attrs: ClassVar = {"alpha": float}
    per_tile = True

    @staticmethod
    def check(op: Operator) -> None:
        require_shape("output", op.outputs[0], op.inputs[0].shape)

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return {"compare": op.outputs[0].elements}


@KINDS.register("token_sequence")
class TokenSequence(Kind):
    """Sequences of T tokens for a transformer: ``-> [B T, E]``.

    Inputs: one or more sources of tokens ``[rows, E]``, in the order of the sequence or shared by all B; special tokens
    (class, separator) ``[S, E]``, the same for all; position embedding ``[T, E]``, which is added: 1 FLOP per element.
    """

    inputs = (3, 6)
    per_tile = True

    @staticmethod
    def check(op: Operator) -> None:
        rows, width = require_rank("output", op.outputs[0], "B T", "E")
        for source in op.inputs:
            require_shape("input", source, (require_rank("input", source, "rows", "E")[0], width))
        tokens = op.inputs[-1].shape[0]
        if rows % tokens:
            raise ValueError(f"{rows} output tokens are not a multiple of {tokens} positions")

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return {"add": op.outputs[0].elements}


@KINDS.register("group_norm")
class GroupNorm(Kind):
    """``[B, C, ...]``, gain ``[C]``, shift ``[C]`` to the same shape; statistics per group of channels.

    7 FLOPs per element and 4 per image and group: ``normalization`` (Wu & He, ECCV 2018).
    """

    inputs = (3, 3)
    attrs: ClassVar = {"groups": int}
    per_tile = True

    @staticmethod
    def check(op: Operator) -> None:
        _require_channels(op)
        channels, groups = op.inputs[0].shape[1], op.attrs["groups"]
        if groups < 1 or channels % groups:
            raise ValueError(f"{channels} channels are not a multiple of attrs.groups={groups}")
        for vector in op.inputs[1:]:
            require_shape("parameter", vector, (channels,))
        require_shape("output", op.outputs[0], op.inputs[0].shape)

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        return normalization(op.outputs[0].elements, op.outputs[0].shape[0] * int(op.attrs["groups"]))


@KINDS.register("l2_normalize")
class L2Normalize(Kind):
    """``[B, C, ...]`` to the same shape, every vector of C divided by its length.

    3 FLOPs per element (square, sum, divide) and 2 per vector (square root, floor against zero).
    """

    per_tile = True

    @staticmethod
    def check(op: Operator) -> None:
        _require_channels(op)
        require_shape("output", op.outputs[0], op.inputs[0].shape)

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        elements, vectors = op.outputs[0].elements, op.outputs[0].elements // op.outputs[0].shape[1]
        return {"multiply": elements, "add": elements, "divide": elements, "sqrt": vectors, "compare": vectors}


@KINDS.register("resize")
class Resize(Kind):
    """``[B, C, ...] -> [B, C, ...]``: multilinear interpolation along the d axes whose length changes.

    An output is 2^d - 1 interpolations between two values, 3 FLOPs each (subtract, multiply, add).
    """

    @staticmethod
    def check(op: Operator) -> None:
        _require_channels(op)
        before, after = op.inputs[0], op.outputs[0]
        if len(before.shape) != len(after.shape) or before.shape[:2] != after.shape[:2]:
            raise ValueError(f"{list(before.shape)} cannot be resized to {list(after.shape)}: the first two axes stay")

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        resized = sum(a != b for a, b in zip(op.inputs[0].shape, op.outputs[0].shape, strict=True))
        interpolations = ((1 << resized) - 1) * op.outputs[0].elements
        return {"add": 2 * interpolations, "multiply": interpolations}

"""Which memory channel holds a request's K and V, and therefore computes its attention.

A policy is a function ``(context_tokens, loads, channels, capacity_tokens) -> channel of each request`` registered
under a name; :func:`check_channel_assignment` tells its author whether it keeps the contract.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from neupims_sim.errors import InputError
from neupims_sim.mapping.pim_attention import AttentionLayout
from neupims_sim.registry import Registry

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class ChannelAssignment(Protocol):
    """Assigns each request to one channel, deterministically.

    Parameters
    ----------
    context_tokens: int64 [B].
    loads: float64 [B], estimated PIM cycles of each request (:func:`load_estimate`).
    channels: channels to choose from.
    capacity_tokens: tokens that one channel can hold; None: no limit.

    Returns
    -------
    int64 [B], in [0, channels). Raises InputError if a request fits nowhere.
    """

    def __call__(
        self, context_tokens: IntArray, loads: FloatArray, channels: int, capacity_tokens: int | None = None
    ) -> IntArray: ...


CHANNEL_ASSIGNMENTS: Registry[ChannelAssignment] = Registry("channel assignment", "neupims_sim.scheduling")


def load_estimate(
    layout: AttentionLayout, context_tokens: IntArray, gwrite_cycles: int = 100, tile_cycles: int = 184
) -> FloatArray:
    """Estimated PIM cycles of each request's attention in one layer, [B] -> [B] (NeuPIMs Algorithm 1).

    G gwrites + T tiles of the logits and attend programs; without grouped queries and with heads that fill rows that is
    G ceil(E/512) + T ceil(L/32) ceil(E/512) + G ceil(L/512) nh + T ceil(d/32) ceil(L/512) nh.
    """
    token_tiles = np.ceil(context_tokens / layout.banks)
    segments = np.ceil(context_tokens / layout.row_tokens)
    logits = layout.query_rows * (gwrite_cycles + tile_cycles * token_tiles)
    attend = layout.heads * segments * (gwrite_cycles + tile_cycles * layout.element_tiles)
    loads: FloatArray = logits + attend
    return loads


@CHANNEL_ASSIGNMENTS.register("round_robin")
def round_robin(
    context_tokens: IntArray, loads: FloatArray, channels: int, capacity_tokens: int | None = None
) -> IntArray:
    """Each request to the next channel in turn that has room."""
    free = _free_tokens(channels, capacity_tokens)
    assigned = np.zeros(len(context_tokens), np.int64)
    turn = 0
    for request, tokens in enumerate(context_tokens):
        order = (turn + np.arange(channels)) % channels
        assigned[request] = _take(free, order, int(tokens), capacity_tokens)
        turn = (int(assigned[request]) + 1) % channels
    return assigned


@CHANNEL_ASSIGNMENTS.register("gmlbp")
def gmlbp(context_tokens: IntArray, loads: FloatArray, channels: int, capacity_tokens: int | None = None) -> IntArray:
    """Greedy min-load bin packing (NeuPIMs Algorithm 2): longest first, each to the least-loaded channel with room.

    Ties go to the earlier request and the lowest channel.
    """
    free = _free_tokens(channels, capacity_tokens)
    channel_load = np.zeros(channels)
    assigned = np.zeros(len(context_tokens), np.int64)
    for request in np.argsort(-context_tokens, kind="stable"):
        order = np.argsort(channel_load, kind="stable")
        assigned[request] = _take(free, order, int(context_tokens[request]), capacity_tokens)
        channel_load[assigned[request]] += loads[request]
    return assigned


def _free_tokens(channels: int, capacity_tokens: int | None) -> FloatArray:
    return np.full(channels, np.inf if capacity_tokens is None else float(capacity_tokens))


def _take(free: FloatArray, order: IntArray, tokens: int, capacity_tokens: int | None) -> int:
    """The first channel in ``order`` with room for ``tokens``, which it then holds."""
    room = free[order] >= tokens
    if not room.any():
        raise InputError(
            f"a request of {tokens} tokens fits in no channel: each of the {len(free)} holds {capacity_tokens} tokens, "
            f"and the emptiest has room for {free.max():.0f}"
        )
    channel = int(order[room.argmax()])
    free[channel] -= tokens
    return channel


def check_channel_assignment(policy: ChannelAssignment, seed: int = 0) -> None:
    """Raise AssertionError unless ``policy`` keeps the contract of :class:`ChannelAssignment` on random batches."""
    random = np.random.default_rng(seed)
    for batch, channels in [(0, 4), (1, 1), (3, 8), (64, 32), (65, 4), (512, 32)]:
        tokens = random.integers(1, 2049, batch)
        loads: FloatArray = tokens.astype(np.float64) * 40
        capacity = int(tokens.sum()) // channels + 2048
        for limit in (None, capacity):
            assigned = policy(tokens.copy(), loads.copy(), channels, limit)
            assert assigned.shape == (batch,), f"{batch} requests, but channels of shape {assigned.shape}"
            assert np.issubdtype(assigned.dtype, np.integer), f"channels must be integers, not {assigned.dtype}"
            assert ((assigned >= 0) & (assigned < channels)).all(), f"channels must lie in [0, {channels}): {assigned}"
            assert (assigned == policy(tokens, loads, channels, limit)).all(), "the same batch, other channels"
        held = np.bincount(assigned, weights=tokens, minlength=channels)
        assert (held <= capacity).all(), f"a channel of {capacity} tokens was given {held.max():.0f}"

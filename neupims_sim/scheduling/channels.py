"""Which memory channel holds a request's K and V, and therefore computes its attention.

A policy is a function ``(context_tokens, loads, channels, rows, room) -> channel of each request`` registered
under a name; :func:`check_channel_assignment` tells its author whether it keeps the contract.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from neupims_sim.errors import InputError, shown
from neupims_sim.mapping.pim_attention import AttentionLayout
from neupims_sim.registry import Registry, function_of
from neupims_sim.scheduling.partition import integers_of

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class ChannelAssignment(Protocol):
    """Assigns each request to one channel, deterministically.

    Parameters
    ----------
    context_tokens: int64 [B].
    loads: float64 [B], estimated PIM cycles of each request (:func:`load_estimate`).
    channels: channels to choose from.
    rows: int64 [B], PIM rows that each request's K and V take in a channel; None: no limit.
    room: PIM rows free in each channel.

    Returns
    -------
    int64 [B], in [0, channels). Raises InputError if a request fits nowhere.
    """

    def __call__(
        self, context_tokens: IntArray, loads: FloatArray, channels: int, rows: IntArray | None = None, room: int = 0
    ) -> IntArray: ...


def _own_assignment(found: Any, what: str) -> ChannelAssignment:
    """A function of somebody else, which has to keep the contract at every call."""
    policy = function_of("context_tokens", "loads", "channels", "rows", "room")(found, what)

    def checked(
        context_tokens: IntArray, loads: FloatArray, channels: int, rows: IntArray | None = None, room: int = 0
    ) -> IntArray:
        copied = None if rows is None else rows.copy()
        assigned = integers_of(policy(context_tokens.copy(), loads.copy(), channels, copied, room), what)
        if assigned.shape != context_tokens.shape or not ((assigned >= 0) & (assigned < channels)).all():
            raise InputError(
                f"{what} returned {shown(assigned)}; needed for {len(context_tokens)} requests: an integer each, from 0 to {channels - 1}"
            )
        return assigned

    return checked


CHANNEL_ASSIGNMENTS: Registry[ChannelAssignment] = Registry(
    "channel assignment", "neupims_sim.scheduling", key="scheduling.channel_assignment", adopt=_own_assignment
)


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
    context_tokens: IntArray, loads: FloatArray, channels: int, rows: IntArray | None = None, room: int = 0
) -> IntArray:
    """Each request to the next channel in turn that has room.

    Where that leaves no channel for a request, the whole batch is dealt out again with the largest requests first.
    """
    rows = np.zeros_like(context_tokens) if rows is None else rows
    try:
        return _in_turn(np.arange(len(rows)), rows, channels, room)
    except InputError:
        return _in_turn(np.argsort(-rows, kind="stable"), rows, channels, room)


def _in_turn(requests: IntArray, rows: IntArray, channels: int, room: int) -> IntArray:
    free = np.full(channels, room)
    assigned = np.zeros(len(rows), np.int64)
    turn = 0
    for request in requests:
        order = (turn + np.arange(channels)) % channels
        assigned[request] = _take(free, order, int(rows[request]), room)
        turn = (int(assigned[request]) + 1) % channels
    return assigned


@CHANNEL_ASSIGNMENTS.register("gmlbp")
def gmlbp(
    context_tokens: IntArray, loads: FloatArray, channels: int, rows: IntArray | None = None, room: int = 0
) -> IntArray:
    """Greedy min-load bin packing (NeuPIMs Algorithm 2): longest first, each to the least-loaded channel with room.

    Ties go to the earlier request and the lowest channel.
    """
    rows = np.zeros_like(context_tokens) if rows is None else rows
    free = np.full(channels, room)
    channel_load = np.zeros(channels)
    assigned = np.zeros(len(context_tokens), np.int64)
    for request in np.argsort(-context_tokens, kind="stable"):
        order = np.argsort(channel_load, kind="stable")
        assigned[request] = _take(free, order, int(rows[request]), room)
        channel_load[assigned[request]] += loads[request]
    return assigned


def _take(free: IntArray, order: IntArray, rows: int, room: int) -> int:
    """The first channel in ``order`` with ``rows`` free, which it then holds."""
    fits = free[order] >= rows
    if not fits.any():
        raise InputError(
            f"the batch does not fit: a request needs {rows} PIM rows, each of the {len(free)} channels holds {room}, and "
            f"the emptiest has {free.max()} left; what helps: fewer or shorter requests, more channels, or more devices"
        )
    channel = int(order[fits.argmax()])
    free[channel] -= rows
    return channel


def check_channel_assignment(policy: ChannelAssignment, seed: int = 0) -> None:
    """Raise AssertionError unless ``policy`` keeps the contract of :class:`ChannelAssignment` on random batches."""
    random = np.random.default_rng(seed)
    for batch, channels in [(0, 4), (1, 1), (3, 8), (64, 32), (65, 4), (512, 32)]:
        tokens = random.integers(1, 2049, batch)
        loads: FloatArray = tokens.astype(np.float64) * 40
        rows, room = tokens // 8, int(tokens.sum()) // (8 * channels) + 256
        for limit in (None, rows):
            assigned = policy(tokens.copy(), loads.copy(), channels, limit, room)
            assert assigned.shape == (batch,), f"{batch} requests, but channels of shape {assigned.shape}"
            assert np.issubdtype(assigned.dtype, np.integer), f"channels must be integers, not {assigned.dtype}"
            assert ((assigned >= 0) & (assigned < channels)).all(), f"channels must lie in [0, {channels}): {assigned}"
            assert (assigned == policy(tokens, loads, channels, limit, room)).all(), "the same batch, other channels"
        held = np.bincount(assigned, weights=rows, minlength=channels)
        assert (held <= room).all(), f"a channel of {room} rows was given {held.max():.0f}"

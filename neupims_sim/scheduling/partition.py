"""Which of the two interleaved sub-batches a request belongs to (NeuPIMs, section 6.2).

A policy is a function ``(channel, loads) -> sub-batch of each request`` registered under a name;
:func:`check_partition` tells its author whether it keeps the contract.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from neupims_sim.errors import InputError, shown
from neupims_sim.registry import Registry, function_of

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class Partition(Protocol):
    """Splits a batch in two, deterministically.

    Parameters
    ----------
    channel: int64 [B], the channel of each request.
    loads: float64 [B], estimated PIM cycles of each request.

    Returns
    -------
    int64 [B], 0 or 1. Either sub-batch may be empty only if the batch has fewer than two requests.
    """

    def __call__(self, channel: IntArray, loads: FloatArray) -> IntArray: ...


def integers_of(returned: Any, what: str) -> IntArray:
    """What a policy of somebody else returned, as int64; raises InputError, starting with ``what``, unless it is integers."""
    try:
        array = np.asarray(returned)
    except ValueError:  # lists of different lengths
        array = np.zeros(0)
    if array.dtype.kind not in "iu":
        raise InputError(f"{what} returned {shown(returned)}; needed: an array of integers")
    return array.astype(np.int64)


def _own_partition(found: Any, what: str) -> Partition:
    """A function of somebody else, which has to keep the contract at every call."""
    policy = function_of("channel", "loads")(found, what)

    def checked(channel: IntArray, loads: FloatArray) -> IntArray:
        sub_batch = integers_of(policy(channel.copy(), loads.copy()), what)
        if sub_batch.shape != channel.shape or not np.isin(sub_batch, (0, 1)).all():
            raise InputError(f"{what} returned {shown(sub_batch)}; needed for {len(channel)} requests: 0 or 1 each")
        if len(channel) > 1 and len(np.unique(sub_batch)) < 2:
            raise InputError(f"{what} returned {shown(sub_batch)}; needed: both sub-batches have requests")
        return sub_batch

    return checked


PARTITIONS: Registry[Partition] = Registry(
    "sub-batch partition", "neupims_sim.scheduling", key="scheduling.partition", adopt=_own_partition
)


@PARTITIONS.register("positional")
def positional(channel: IntArray, loads: FloatArray) -> IntArray:
    """Per channel, the first half of its requests to sub-batch 0, the rest to 1 (NeuPIMs Algorithm 3).

    Of an odd number, sub-batch 0 gets the larger half in the first such channel, the smaller in the second, and so on.
    """
    sub_batch = np.ones(len(channel), np.int64)
    larger_half = True
    for c in np.unique(channel):
        requests = np.flatnonzero(channel == c)
        odd = len(requests) % 2
        sub_batch[requests[: len(requests) // 2 + (odd and larger_half)]] = 0
        larger_half ^= bool(odd)
    return sub_batch


@PARTITIONS.register("balanced")
def balanced(channel: IntArray, loads: FloatArray) -> IntArray:
    """Per channel, sub-batches of even load and count.

    Requests are taken by falling load in pairs; the heavier of a pair goes where the channel has less load so far. Thus
    the two loads of a channel differ by at most its largest request. The odd request of a channel goes to the sub-batch
    with fewer requests overall.
    """
    sub_batch = np.zeros(len(channel), np.int64)
    odd_requests = 0
    for c in np.unique(channel):
        requests = np.flatnonzero(channel == c)
        requests = requests[np.argsort(-loads[requests], kind="stable")]
        surplus = 0.0
        for heavier, lighter in zip(requests[0::2], requests[1::2], strict=False):
            into = int(surplus > 0)
            sub_batch[heavier], sub_batch[lighter] = into, 1 - into
            surplus += (loads[heavier] - loads[lighter]) * (1 - 2 * into)
        if len(requests) % 2:
            sub_batch[requests[-1]] = odd_requests % 2
            odd_requests += 1
    return sub_batch


def check_partition(policy: Partition, seed: int = 0) -> None:
    """Raise AssertionError unless ``policy`` keeps the contract of :class:`Partition` on random batches."""
    random = np.random.default_rng(seed)
    for batch, channels in [(0, 4), (1, 1), (2, 2), (3, 8), (64, 32), (65, 4), (512, 32)]:
        channel = random.integers(0, channels, batch)
        loads = random.uniform(1, 1000, batch)
        sub_batch = policy(channel.copy(), loads.copy())
        assert sub_batch.shape == (batch,), f"{batch} requests, but sub-batches of shape {sub_batch.shape}"
        assert np.isin(sub_batch, (0, 1)).all(), f"sub-batches are 0 and 1, not {np.unique(sub_batch)}"
        assert batch < 2 or len(np.unique(sub_batch)) == 2, f"one sub-batch of {batch} requests is empty"
        assert (sub_batch == policy(channel, loads)).all(), "the same batch must get the same sub-batches"

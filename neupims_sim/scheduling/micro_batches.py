"""Which requests go through a pipeline together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def micro_batches_of_alike_load(
    context_tokens: IntArray, count: int, channels: IntArray | None = None
) -> list[IntArray]:
    """The requests of ``count`` micro-batches, as ascending positions in the batch.

    Requests are dealt out in rounds of one per micro-batch, by falling context and, where ``channels`` of them are known, channel
    by channel. In each round the longest goes to the micro-batch that has the fewest tokens so far. Numbers of requests
    differ by at most one, tokens by at most the longest context, and every channel's requests spread over all micro-batches.
    """
    channels = np.zeros_like(context_tokens) if channels is None else channels
    order = np.lexsort((-context_tokens, channels))
    micro_batch, tokens = np.empty_like(context_tokens), np.zeros(count, np.int64)
    for start in range(0, len(order), count):
        dealt = order[start : start + count]
        dealt = dealt[np.argsort(-context_tokens[dealt], kind="stable")]
        takers = np.argsort(tokens, kind="stable")[: len(dealt)]
        micro_batch[dealt] = takers
        tokens[takers] += context_tokens[dealt]
    return [np.flatnonzero(micro_batch == number) for number in range(count)]

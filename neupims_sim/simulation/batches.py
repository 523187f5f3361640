"""The requests of a decode iteration: in which order they came, and which micro-batches they make up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neupims_sim.config import Config, WorkloadConfig
from neupims_sim.errors import InputError
from neupims_sim.scheduling.micro_batches import micro_batches_of_alike_load
from neupims_sim.system.pipeline import micro_batches
from neupims_sim.workloads import RequestBatch, arrival_order, request_batch

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MicroBatch:
    """Requests that a stage of the pipeline works on together.

    Attributes
    ----------
    requests: int64 [B], their numbers in the workload: rows of its file, or slots in the order of drawing.
    context_tokens: int64 [B], the token of this iteration included.
    channels: int64 [B], where the file assigns them; None: the policy does.
    count: micro-batches that are alike, this one included: the same contexts on the same channels.
    """

    requests: Int64Array
    context_tokens: Int64Array
    channels: Int64Array | None
    count: int = 1

    @property
    def size(self) -> int:
        """Requests of one micro-batch."""
        return len(self.requests)


@dataclass(frozen=True)
class DecodingBatch:
    """All requests of the system; every micro-batch that differs from the others once."""

    micro_batches: tuple[MicroBatch, ...]

    @property
    def count(self) -> int:
        """Micro-batches in the pipeline."""
        return sum(micro_batch.count for micro_batch in self.micro_batches)

    @property
    def size(self) -> int:
        """Requests of all micro-batches."""
        return sum(micro_batch.count * micro_batch.size for micro_batch in self.micro_batches)

    @property
    def largest(self) -> int:
        """Requests of the largest micro-batch."""
        return max(micro_batch.size for micro_batch in self.micro_batches)

    @property
    def total_tokens(self) -> int:
        """Contexts of all requests together."""
        return sum(micro_batch.count * int(micro_batch.context_tokens.sum()) for micro_batch in self.micro_batches)

    def waiting(self, at_work: MicroBatch) -> list[MicroBatch]:
        """The micro-batches whose K and V are in memory while a stage works on one of ``at_work``."""
        return [other for other in self.micro_batches for _ in range(other.count - (other is at_work))]


def decoding_batch(config: Config, workload: WorkloadConfig) -> DecodingBatch:
    """The configured batch; raises ``InputError`` for what can be traced but not simulated, and for too few requests."""
    if workload.phase != "decode":
        raise InputError(f"workload.phase={workload.phase!r} can be traced but not simulated yet; allowed: decode")
    if workload.lm_head:
        raise InputError("workload.lm_head=True can be traced but not simulated yet; allowed: False")
    batch, count = request_batch(workload, config.seed), micro_batches(config)
    contexts = np.asarray(batch.context_tokens, dtype=np.int64)
    channels = _channels(config, workload, batch)
    order = _order(config, workload, batch, divided=config.parallel.batch == "split" and count > 1)
    if config.parallel.batch == "per_stage":
        return DecodingBatch((_micro_batch(order, contexts, channels, count),))
    if len(contexts) < count:
        raise InputError(
            f"workload.requests={workload.requests!r} holds {len(contexts)} requests, too few for {count} "
            "micro-batches (parallel.micro_batches, else parallel.pipeline)"
        )
    split = micro_batches_of_alike_load(contexts[order], count, None if channels is None else channels[order])
    return DecodingBatch(_distinct([_micro_batch(order[members], contexts, channels) for members in split]))


def _channels(config: Config, workload: WorkloadConfig, batch: RequestBatch) -> Int64Array | None:
    """Those of the file, where K and V lie in one channel per request; raises InputError for one that does not exist."""
    if batch.channels is None or config.attention_on != "pim" or config.gpu is not None:
        return None
    channels, there = np.asarray(batch.channels, dtype=np.int64), config.memory.organization.channels
    if channels.max(initial=0) >= there:
        raise InputError(
            f"workload.requests={workload.requests!r}: ch_idx {channels.max()} does not exist; allowed: 0 to {there - 1}"
        )
    return channels


def _order(config: Config, workload: WorkloadConfig, batch: RequestBatch, divided: bool) -> Int64Array:
    """In which order the requests came: slots in their order, rows of a file as ``scheduling.request_order`` says.

    Micro-batches have no order of a file.
    """
    slots = workload.requests is None
    if slots or (config.scheduling.request_order == "file" and batch.channels is not None and not divided):
        return np.arange(len(batch.context_tokens))
    return arrival_order(batch, config.seed)


def _micro_batch(members: Int64Array, contexts: Int64Array, channels: Int64Array | None, count: int = 1) -> MicroBatch:
    return MicroBatch(members, contexts[members], None if channels is None else channels[members], count)


def _distinct(found: Sequence[MicroBatch]) -> tuple[MicroBatch, ...]:
    """The first of those that are alike, with their number."""
    alike: dict[tuple[tuple[int, int], ...], list[MicroBatch]] = {}
    for one in found:
        channels = np.zeros_like(one.context_tokens) if one.channels is None else one.channels
        key = tuple(sorted(zip(one.context_tokens.tolist(), channels.tolist(), strict=True)))
        alike.setdefault(key, []).append(one)
    return tuple(
        MicroBatch(first.requests, first.context_tokens, first.channels, 1 + len(others))
        for first, *others in alike.values()
    )

"""The requests of a run: read from a file or drawn, with their times of arrival."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from neupims_sim.config import ArrivalsConfig, ServedRequestsConfig, ServingConfig
from neupims_sim.errors import InputError
from neupims_sim.serving.blocks import ChunkContent, Content, OwnContent, TokenContent
from neupims_sim.serving.clock import TICKS_PER_S
from neupims_sim.serving.readers import RequestTable, read_requests
from neupims_sim.serving.readers.base import MOST_SECONDS
from neupims_sim.serving.request import ServedRequest
from neupims_sim.showing import Shown
from neupims_sim.workloads.random import stream
from neupims_sim.workloads.requests import load_lengths

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class RequestPlan(Shown):
    """Requests in the order of their arrival.

    Attributes
    ----------
    table: their lengths and contents; ``arrival`` does not decrease, and is absent in a closed loop.
    concurrency: closed loop: requests in the system at a time; else None.
    generated_token_id: of every output token, where the table has token ids.
    """

    table: RequestTable
    concurrency: int | None
    generated_token_id: int

    def request(self, index: int, arrival: int) -> ServedRequest:
        """Request number ``index`` of the plan, which arrives now."""
        table = self.table
        prompt, output = int(table.prompt_tokens[index]), int(table.output_tokens[index])
        return ServedRequest(int(table.number[index]), arrival, prompt, output, self._content(index, prompt))

    def _content(self, index: int, prompt_tokens: int) -> Content:
        table, number = self.table, int(self.table.number[index])
        if table.token_ids is not None:
            return TokenContent(table.token_ids[index], self.generated_token_id)
        if table.chunk_ids is not None:
            return ChunkContent(table.chunk_ids[index], table.chunk_tokens, prompt_tokens, number)
        return OwnContent(number)


def plan_requests(serving: ServingConfig, seed: int) -> RequestPlan:
    """The requests that ``serving`` describes.

    Raises
    ------
    InputError: no requests are described, a file is wrong, or the file has no times and ``arrivals.kind`` does not say when.
    """
    table = _lengths(serving.requests, seed)
    if serving.requests.count is not None and serving.requests.path is not None:
        table = _first(table, serving.requests.count)
    arrivals = serving.arrivals
    if arrivals.kind is None and table.arrival is None:
        where = serving.requests.path or f"serving.requests.format={serving.requests.format}"
        raise InputError(
            f"{where}: no arrival times; serving.arrivals.kind says when requests arrive, allowed: all_at_once, closed_loop, constant, "
            "gamma, poisson"
        )
    if arrivals.kind in ("replay", None):
        table = _replayed(table, arrivals.time_scale or 1.0, serving.requests.path)
        return RequestPlan(table, None, serving.requests.generated_token_id)
    if table.after is not None:
        raise InputError(
            f"{serving.requests.path}: requests of a session wait for each other; serving.arrivals.kind={arrivals.kind} would tear "
            "them apart, allowed: replay"
        )
    table = replace(table, arrival=None if arrivals.kind == "closed_loop" else _drawn(arrivals, len(table), seed))
    return RequestPlan(table, arrivals.concurrency, serving.requests.generated_token_id)


def _lengths(requests: ServedRequestsConfig, seed: int) -> RequestTable:
    if requests.path is not None:
        return read_requests(requests.path, requests.format)
    count, rng = requests.count or 0, stream(seed, "served requests")
    if requests.format == "random":
        assert requests.input_tokens is not None, "checked with the configuration"
        assert requests.output_tokens is not None, "checked with the configuration"
        ratio = 1.0 if requests.range_ratio is None else requests.range_ratio
        prompt, output = (
            rng.integers(max(1, round(longest * ratio)), longest, count, endpoint=True)
            for longest in (requests.input_tokens, requests.output_tokens)
        )
    elif requests.format == "lengths":
        assert requests.dataset is not None, "checked with the configuration"
        prompt, output = load_lengths(requests.dataset).sample(count, rng)
        prompt = np.maximum(prompt, 1)
    else:
        raise InputError(
            "serving.requests: no requests; give a file (--requests FILE, serving.requests.path), or format: random or lengths"
        )
    return RequestTable(np.arange(count), prompt, output)


def _first(table: RequestTable, count: int) -> RequestTable:
    if count > len(table):
        raise InputError(f"serving.requests.count={count} is more than the {len(table)} requests of the file")
    return table.rows(np.arange(count))


def _replayed(table: RequestTable, scale: float, path: str | None) -> RequestTable:
    if table.arrival is None:
        raise InputError(f"{path or 'serving.requests'}: serving.arrivals.kind=replay needs a file with arrival times")
    if int(table.arrival.max()) * scale > MOST_SECONDS * TICKS_PER_S:
        raise InputError(
            f"serving.arrivals.time_scale={scale:g}: the last request would arrive after {MOST_SECONDS:,.0f} s"
        )
    if (np.diff(table.arrival) < 0).any():
        note = f"{path}: not in order of arrival; sorted (requests keep the numbers of their rows)"
        table = replace(table.rows(np.argsort(table.arrival, kind="stable")), notes=(*table.notes, note))
    assert table.arrival is not None
    return replace(table, arrival=np.rint(table.arrival * scale).astype(np.int64)) if scale != 1.0 else table


def _drawn(arrivals: ArrivalsConfig, count: int, seed: int) -> Int64Array:
    """Ticks at which requests arrive, in order; int64 [count]."""
    if arrivals.kind == "all_at_once":
        return np.zeros(count, np.int64)
    assert arrivals.rate is not None, "checked with the configuration"
    if count / arrivals.rate > MOST_SECONDS:
        raise InputError(
            f"serving.arrivals.rate={arrivals.rate:g}: {count} requests would take longer than {MOST_SECONDS:,.0f} s to arrive"
        )
    if arrivals.kind == "constant":
        return np.rint(np.arange(count) / arrivals.rate * TICKS_PER_S).astype(np.int64)
    rng = stream(seed, "arrivals")
    shape = 1.0 if arrivals.burstiness is None else arrivals.burstiness
    intervals = rng.gamma(shape, 1 / (shape * arrivals.rate), count)
    return np.rint(np.cumsum(intervals) * TICKS_PER_S).astype(np.int64)

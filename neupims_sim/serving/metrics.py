"""Metrics of serving, with the names and formulas of ``vllm bench serve``.

TTFT = first token - arrival. TPOT = (end - first token) / (outputs - 1), of requests with at least two. ITL = every gap between two
tokens of a request. E2E = end - arrival. Queueing = first scheduled - arrival. Percentiles interpolate linearly between ranks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from neupims_sim.config import LimitsConfig
from neupims_sim.serving.clock import TICKS_PER_S
from neupims_sim.serving.records import NEVER, RequestRecords, TokenGaps

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
PERCENTILES = {"median": 50, "p90": 90, "p95": 95, "p99": 99}


def ttft_s(records: RequestRecords) -> FloatArray:
    """Time to the first token of every request, s; NaN where there is none."""
    return _between(records, "arrived", "first_token")


def e2e_s(records: RequestRecords) -> FloatArray:
    """From arrival to the last token, s; NaN where there is none."""
    return _between(records, "arrived", "ended")


def tpot_s(records: RequestRecords) -> FloatArray:
    """Time per output token behind the first, s; NaN for requests that have not ended or have one output token."""
    outputs = records["output_tokens"]
    return np.where(outputs > 1, _between(records, "first_token", "ended") / np.maximum(outputs - 1, 1), np.nan)


def queueing_s(records: RequestRecords) -> FloatArray:
    """From arrival to the first iteration, s; NaN where there is none."""
    return _between(records, "arrived", "first_scheduled")


def good(records: RequestRecords, limits: LimitsConfig) -> BoolArray:
    """Which requests ended within every stated limit; one output token meets any TPOT."""
    within: BoolArray = records["ended"] != NEVER
    for limit, values in ((limits.ttft_s, ttft_s), (limits.e2e_s, e2e_s)):
        if limit is not None:
            within &= values(records) <= limit
    if limits.tpot_s is not None:
        within &= (tpot_s(records) <= limits.tpot_s) | (records["output_tokens"] == 1)
    return within


def latencies(records: RequestRecords, chosen: BoolArray) -> dict[str, float | None]:
    """Mean, median and percentiles of TTFT, TPOT, E2E and queueing of the ``chosen`` requests; None where no request has one."""
    table: dict[str, float | None] = {}
    for name, values in (("ttft", ttft_s), ("tpot", tpot_s), ("e2e", e2e_s), ("queueing", queueing_s)):
        of_chosen = values(records)[chosen]
        table |= _statistics(name, of_chosen[~np.isnan(of_chosen)])
    return table


def gap_latencies(gaps: TokenGaps) -> dict[str, float | None]:
    """Mean, median and percentiles of ITL, over all gaps."""
    values, counts = gaps.values()
    names = ("mean", *PERCENTILES)
    if not len(values):
        return {f"itl_{name}_s": None for name in names}
    last = np.cumsum(counts) - 1  # rank of the last gap of each length
    found = [float((values * counts).sum() / counts.sum())]
    for percent in PERCENTILES.values():
        rank = percent / 100 * last[-1]
        below, above = (values[np.searchsorted(last, whole)] for whole in (np.floor(rank), np.ceil(rank)))
        found.append(float(below + (above - below) * (rank - np.floor(rank))))
    return {f"itl_{name}_s": value / TICKS_PER_S for name, value in zip(names, found, strict=True)}


def rates(records: RequestRecords, chosen: BoolArray, limits: LimitsConfig, span_s: float) -> dict[str, float | None]:
    """Requests and tokens per second of the ``chosen`` requests, which ended within ``span_s``."""
    if span_s <= 0:
        return dict.fromkeys(("requests_per_s", "output_tokens_per_s", "total_tokens_per_s", "goodput_per_s"))
    ended = chosen & (records["ended"] != NEVER)
    outputs, prompts = (int(records[name][ended].sum()) for name in ("output_tokens", "prompt_tokens"))
    stated = any(limit is not None for limit in limits.model_dump().values())
    return {
        "requests_per_s": int(ended.sum()) / span_s,
        "output_tokens_per_s": outputs / span_s,
        "total_tokens_per_s": (outputs + prompts) / span_s,
        "goodput_per_s": int((good(records, limits) & chosen).sum()) / span_s if stated else None,
    }


def counts(records: RequestRecords, running: int, waiting: int) -> dict[str, int]:
    """Where the requests are: injected = completed + running + waiting + refused."""
    return {
        "injected": int((records["arrived"] != NEVER).sum()),
        "completed": int((records["ended"] != NEVER).sum()),
        "running": running,
        "waiting": waiting,
        "refused": int(records.refused.sum()),
    }


def steady(records: RequestRecords, ramp_share: float) -> tuple[BoolArray, float]:
    """Requests that ended in the steady part of a run, and its length, s.

    The part begins when a share ``ramp_share`` of the requests has ended, and ends when as many are left to end.
    """
    ended = records["ended"]
    times = np.sort(ended[ended != NEVER])
    skipped = int(len(times) * ramp_share)
    if len(times) - 2 * skipped < 2:
        return np.zeros(len(ended), bool), 0.0
    begin, end = times[skipped], times[len(times) - 1 - skipped]
    return (ended > begin) & (ended <= end), float(end - begin) / TICKS_PER_S


def _between(records: RequestRecords, begin: str, end: str) -> FloatArray:
    begins, ends = records[begin], records[end]
    return np.where((begins != NEVER) & (ends != NEVER), (ends - begins) / TICKS_PER_S, np.nan)


def _statistics(name: str, values: FloatArray) -> dict[str, float | None]:
    if not len(values):
        return {f"{name}_{statistic}_s": None for statistic in ("mean", *PERCENTILES)}
    found: dict[str, Any] = {f"{name}_mean_s": float(values.mean())}
    return found | {f"{name}_{key}_s": float(np.percentile(values, percent)) for key, percent in PERCENTILES.items()}

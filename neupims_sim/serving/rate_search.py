"""The highest rate of arrivals at which a system keeps its limits."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from neupims_sim.config import ArrivalsConfig, Config
from neupims_sim.errors import InputError, suggestion
from neupims_sim.serving.server import ServingResult, serve
from neupims_sim.showing import Shown
from neupims_sim.simulation.sampling import student_t_975

LIMITED = tuple(
    f"{latency}_{statistic}"
    for latency in ("ttft", "tpot", "itl", "e2e")
    for statistic in ("mean", "median", "p90", "p95", "p99")
)
"""Latencies that can be limited."""
_MOST_DECADES = 1e6
"""How far from the configured rate the search looks, as a factor."""


@dataclass(frozen=True, repr=False)
class RateSearch(Shown):
    """Outcome of a search.

    Attributes
    ----------
    rate: requests/s, mean over seeds of the highest rate found to keep the limits.
    ci95: half the width of its 95 % confidence interval over seeds (Student's t); None for one seed.
    rates: found with each seed.
    runs: (seed, rate, whether it keeps the limits) of every run.
    result: of the last run that kept the limits.
    """

    rate: float
    ci95: float | None
    rates: Mapping[int, float]
    runs: tuple[tuple[int, float, bool], ...]
    result: ServingResult

    def to_json(self) -> dict[str, object]:
        """``find_rate`` of ``result.json``."""
        return {
            "rate_per_s": self.rate,
            "rate_ci95_per_s": self.ci95,
            "by_seed": {str(seed): rate for seed, rate in self.rates.items()},
            "runs": [{"seed": seed, "rate_per_s": rate, "within": kept} for seed, rate, kept in self.runs],
        }


def parse_limits(text: str) -> dict[str, float]:
    """``"ttft_p99:0.5 tpot_p99:0.05"`` -> metrics and their limits in seconds; raises InputError."""
    limits: dict[str, float] = {}
    for part in text.replace(",", " ").split():
        match = re.fullmatch(r"([a-z0-9_]+):([0-9.]+(?:e[+-]?[0-9]+)?)", part)
        if match is None or not 0 < float(match[2]) < float("inf"):
            raise InputError(f"--find-rate {part[:80]!r} is not METRIC:SECONDS with seconds above 0, e.g. ttft_p99:0.5")
        name = match[1].removesuffix("_s")
        if name not in LIMITED:
            raise InputError(f"--find-rate {part[:80]!r}: unknown metric; {suggestion(name, LIMITED)}")
        limits[name] = float(match[2])
    if not limits:
        raise InputError("--find-rate needs at least one limit, e.g. 'ttft_p99:0.5 tpot_p99:0.05'")
    return limits


def find_rate(
    config: Config,
    limits: Mapping[str, float],
    seeds: int = 3,
    tolerance: float = 0.02,
    on_run: Callable[[int, float, bool], None] = lambda seed, rate, kept: None,
) -> RateSearch:
    """The highest ``serving.arrivals.rate`` at which every metric keeps its limit, by bracketing and bisection.

    A run keeps the limits if all its requests are served and each metric of the whole run is at most its limit. The same seed gives
    the same requests and intervals in the same proportions at every rate, so that runs differ by the rate alone. The search
    starts at the configured rate.

    Parameters
    ----------
    limits: s, by name of :data:`LIMITED`.
    seeds: searches, with ``seed``, ``seed`` + 1, ...
    tolerance: the search ends when the lowest rate that breaks a limit is at most this much, relatively, above the highest that keeps all.
    on_run: told about every run.

    Raises
    ------
    InputError: ``serving.arrivals`` has no rate, or no rate keeps the limits.
    """
    if config.serving.arrivals.rate is None:
        raise InputError(
            "--find-rate varies serving.arrivals.rate; serving.arrivals.kind must be poisson, gamma or constant"
        )
    alone = serve(_with(config, config.seed, ArrivalsConfig(kind="closed_loop", concurrency=1)))
    shown = " ".join(f"{name}:{limit:g}" for name, limit in limits.items())
    if alone.metrics["completed"] == 0:
        raise InputError(f"--find-rate: no request can be served: {'; '.join(alone.notes)}")
    if broken := _broken(alone, limits):
        reached = ", ".join(f"{name} is {alone.metrics[f'{name}_s']:.4g} s" for name in broken)
        raise InputError(f"--find-rate {shown!r}: not kept at any rate: with one request at a time {reached}")
    rates: dict[int, float] = {}
    runs: list[tuple[int, float, bool]] = []
    best: ServingResult | None = None
    for seed in range(config.seed, config.seed + seeds):

        def keeps(rate: float, seed: int = seed) -> bool:
            nonlocal best
            result = serve(_with(config, seed, config.serving.arrivals.model_copy(update={"rate": rate})))
            kept = not _broken(result, limits)
            runs.append((seed, rate, kept))
            on_run(seed, rate, kept)
            if kept:
                best = result
            return kept

        rates[seed] = _search(config.serving.arrivals.rate, keeps, tolerance)
    assert best is not None
    values = list(rates.values())
    ci95 = None
    if len(values) > 1:
        ci95 = student_t_975(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return RateSearch(statistics.fmean(values), ci95, rates, tuple(runs), best)


def _search(start: float, keeps: Callable[[float], bool], tolerance: float) -> float:
    low = high = start
    if keeps(start):
        while keeps(high := 2 * low):
            low = high
            if low > _MOST_DECADES * start:
                raise InputError(
                    f"--find-rate: the limits hold even at {low:g} requests/s; serving.requests.count is too small to queue"
                )
    else:
        while not keeps(low := high / 2):
            high = low
            if low * _MOST_DECADES < start:
                raise InputError(f"--find-rate: the limits do not hold even at {low:g} requests/s")
    while high > low * (1 + tolerance):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


def _broken(result: ServingResult, limits: Mapping[str, float]) -> list[str]:
    """Metrics above their limit; a metric that no request has (TPOT of single tokens) keeps any."""
    values = {name: result.metrics[f"{name}_s"] for name in limits}
    return [name for name, limit in limits.items() if values[name] is not None and values[name] > limit]


def _with(config: Config, seed: int, arrivals: ArrivalsConfig) -> Config:
    serving = config.serving.model_copy(update={"arrivals": arrivals})
    return config.model_copy(update={"seed": seed, "serving": serving})

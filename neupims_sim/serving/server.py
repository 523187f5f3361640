"""A serving simulation from the configuration to its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import simpy

from neupims_sim.config import Config, ModelConfig, config_hash
from neupims_sim.errors import InputError
from neupims_sim.serving import metrics
from neupims_sim.serving.capacity import block_capacity
from neupims_sim.serving.clock import TICKS_PER_S
from neupims_sim.serving.costs import COSTS
from neupims_sim.serving.instance import Instance
from neupims_sim.serving.records import RequestRecords, Samples, SampleSeries, TokenGaps
from neupims_sim.serving.request import ServedRequest
from neupims_sim.serving.requests import plan_requests
from neupims_sim.serving.schedulers import SCHEDULERS, Iteration
from neupims_sim.serving.source import Source
from neupims_sim.showing import Shown

IterationRecord = dict[str, Any]


@dataclass(frozen=True, repr=False)
class ServingResult(Shown):
    """What a serving simulation yields; every metric is defined in ``docs/serving.md``.

    Attributes
    ----------
    metrics: ``serving`` of ``result.json``.
    records, samples: of requests, and of the server over time.
    notes: what the user should know: requests that were refused or left out, and why.
    """

    metrics: dict[str, Any]
    config_hash: str
    records: RequestRecords = field(repr=False, compare=False)
    samples: Samples = field(repr=False, compare=False)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The content of ``result.json``."""
        return {"serving": self.metrics, "config_hash": self.config_hash, "notes": list(self.notes)}


def serve(config: Config, on_iteration: Callable[[IterationRecord], None] | None = None) -> ServingResult:
    """Serve the requests that ``config.serving`` describes on the configured system.

    Parameters
    ----------
    on_iteration: called with a record of every iteration: ``start_s``, ``end_s``, ``tokens`` {number: tokens}, ``preempted``,
        ``finished`` (numbers), ``cached`` {number: tokens found when a request is scheduled first, if any}.

    Raises
    ------
    InputError: nothing can be served as configured.
    ServingStalledError: requests wait that can never be scheduled.
    """
    return _Server(config, on_iteration).run()


class _Server:
    def __init__(self, config: Config, on_iteration: Callable[[IterationRecord], None] | None) -> None:
        if not isinstance(config.model, ModelConfig):
            raise InputError(f"model={config.model.name}: only language models are served, not {config.model.family}")
        self._config = config
        self._model = config.model
        self._on_iteration = on_iteration
        options = config.serving.scheduler
        policy = SCHEDULERS[options.policy]
        self._cost = COSTS[config.serving.cost.model](config)
        self._plan = plan_requests(config.serving, config.seed)
        caching = options.enable_prefix_caching
        self._capacity = block_capacity(config)
        scheduler = policy(options, self._capacity.blocks, self._plan.table.has_content if caching is None else caching)
        self._env = simpy.Environment()
        self._source = Source(self._env, self._plan, self._submit)
        self._instance = Instance(self._env, scheduler, self._cost, self, self._left, lambda: self._source.may_send)
        self._records = RequestRecords(int(self._plan.table.number.max()) + 1)
        self._series, self._gaps = SampleSeries(), TokenGaps()
        self._refusals: dict[str, list[int]] = {}
        self._iterations = self._preemptions = self._lookup_tokens = self._cached_tokens = self._busy = 0
        self._peak_running = 0

    def run(self) -> ServingResult:
        """To the end of the last request."""
        self._source.start()
        self._env.run()
        notes = (*self._plan.table.notes, *(_refusal(reason, numbers) for reason, numbers in self._refusals.items()))
        return ServingResult(self._metrics(), config_hash(self._config), self._records, self._series.samples(), notes)

    # --- what happens ---

    def _submit(self, request: ServedRequest) -> bool:
        reason = self._reason_to_refuse(request)
        if reason is not None:
            self._records.refused[request.number] = True
            self._refusals.setdefault(reason, []).append(request.number)
            self._instance.wake()
        else:
            self._instance.submit(request)
        self._records.note(request)
        return reason is None

    def _reason_to_refuse(self, request: ServedRequest) -> str | None:
        longest, scheduler = self._model.max_positions, self._instance.scheduler
        if request.prompt_tokens + request.output_tokens > longest:
            return f"longer than model.max_positions={longest} tokens, prompt and output together"
        return scheduler.reason_to_refuse(request)

    def _left(self, request: ServedRequest) -> None:
        self._records.note(request)
        self._source.left(request)

    def iteration(self, start: int, end: int, iteration: Iteration, finished: list[ServedRequest]) -> None:
        """See :class:`InstanceObserver`."""
        scheduler = self._instance.scheduler
        self._iterations += 1
        self._busy += end - start
        self._preemptions += len(iteration.preempted)
        self._peak_running = max(self._peak_running, len(iteration.tokens))
        self._gaps.add(iteration, end)
        self._series.add(
            end, len(scheduler.waiting), len(scheduler.running), scheduler.pool.blocks - scheduler.pool.free
        )
        for request in iteration.admitted:
            if scheduler.pool.caching and request.preemptions == 0:
                self._cached_tokens += request.cached or 0
                self._lookup_tokens += request.prompt_tokens
        if self._on_iteration is not None:
            self._on_iteration(_record(start, end, iteration, finished))

    # --- what is reported ---

    def _metrics(self) -> dict[str, Any]:
        records, limits, scheduler = self._records, self._config.serving.limits, self._instance.scheduler
        everybody = records["arrived"] >= 0
        duration = int(self._env.now) / TICKS_PER_S
        chosen, span = metrics.steady(records, self._config.serving.ramp_share)
        return {
            "devices": self._config.parallel.devices,
            **metrics.counts(records, len(scheduler.running), len(scheduler.waiting)),
            "duration_s": duration,
            **metrics.rates(records, everybody, limits, duration),
            **metrics.latencies(records, everybody),
            **metrics.gap_latencies(self._gaps),
            "steady_state": {
                "requests": int(chosen.sum()),
                "span_s": span,
                **metrics.rates(records, chosen, limits, span),
                **metrics.latencies(records, chosen),
            },
            "iterations": self._iterations,
            "busy_s": self._busy / TICKS_PER_S,
            "preemptions": self._preemptions,
            "prefix_cache_hit_rate": self._cached_tokens / self._lookup_tokens if self._lookup_tokens else None,
            "peak_running": self._peak_running,
            "kv_blocks": self._capacity.to_json(),
            "cost": dict(self._cost.report()),
        }


def _record(start: int, end: int, iteration: Iteration, finished: list[ServedRequest]) -> IterationRecord:
    return {
        "start_s": start / TICKS_PER_S,
        "end_s": end / TICKS_PER_S,
        "tokens": {str(request.number): tokens for request, tokens in iteration.tokens},
        "preempted": [request.number for request in iteration.preempted],
        "finished": [request.number for request in finished],
        "cached": {
            str(request.number): request.cached
            for request in iteration.admitted
            if request.cached and request.preemptions == 0
        },
    }


def _refusal(reason: str, numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f"{len(numbers):,} request{'s' if len(numbers) > 1 else ''} refused ({shown}): {reason}"

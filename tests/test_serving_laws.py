"""Laws of serving: conservation, Little's law, queueing theory, blocks, order."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_cases import Request, served

from neupims_sim.config import SchedulerConfig
from neupims_sim.serving import ServingResult
from neupims_sim.serving.blocks import BlockPool, OwnContent
from neupims_sim.serving.clock import TICKS_PER_S
from neupims_sim.serving.request import ServedRequest
from neupims_sim.serving.schedulers import SCHEDULERS, Iteration, Scheduler, check_scheduler
from neupims_sim.serving.schedulers.conformance import served_iterations

REQUESTS = st.lists(
    st.tuples(st.integers(0, 30).map(float), st.integers(1, 80), st.integers(1, 30)), min_size=1, max_size=25
)
OPTIONS = st.fixed_dictionaries(
    {
        "policy": st.sampled_from(list(SCHEDULERS)),
        "max_num_seqs": st.integers(1, 8),
        "max_num_batched_tokens": st.integers(8, 64),
        "block_size": st.sampled_from([1, 4, 16]),
        "num_gpu_blocks": st.integers(9, 200),
        "enable_prefix_caching": st.booleans(),
        "long_prefill_token_threshold": st.integers(0, 20),
        "long_prefill_token_threshold_adaptive": st.booleans(),
        "scheduler_reserve_full_isl": st.booleans(),
        "watermark": st.sampled_from([0.0, 0.05, 0.3]),
    }
)


@given(REQUESTS, OPTIONS)
@settings(max_examples=100, deadline=None)
def test_every_request_ends_or_is_refused_and_has_its_tokens(requests: list[Request], options: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        result, iterations = served(requests, Path(folder), **options)
    metrics, records = result.metrics, result.records
    assert metrics["running"] == metrics["waiting"] == 0
    assert metrics["injected"] == len(requests) == metrics["completed"] + metrics["refused"]
    done = ~records.refused
    assert (records["produced_tokens"] == records["output_tokens"])[done].all()
    order = ("arrived", "first_scheduled", "first_token", "ended")
    for earlier, later in itertools.pairwise(order):
        assert (records[earlier] <= records[later])[done].all()
    computed: dict[str, int] = {}
    for iteration in iterations:
        assert sum(iteration["tokens"].values()) <= options["max_num_batched_tokens"] or options["policy"] != "vllm_v1"
        assert len(iteration["tokens"]) <= options["max_num_seqs"]
        for number, tokens in iteration["tokens"].items():
            computed[number] = computed.get(number, 0) + tokens
    for number, tokens in computed.items():
        least = records["prompt_tokens"][int(number)] + records["output_tokens"][int(number)] - 1
        assert tokens >= least - records["cached_tokens"][int(number)] or records["preemptions"][int(number)]


@given(REQUESTS, OPTIONS)
@settings(max_examples=100, deadline=None)
def test_blocks_are_conserved_and_requests_too(requests: list[Request], options: dict[str, Any]) -> None:
    config = SchedulerConfig(**options)
    scheduler = SCHEDULERS[config.policy](config, options["num_gpu_blocks"] - 1, options["enable_prefix_caching"])
    pending = sorted(
        (int(arrival), number, ServedRequest(number, 0, prompt, output, OwnContent(number)))
        for number, (arrival, prompt, output) in enumerate(requests)
    )
    for _ in served_iterations(scheduler, [(arrival, request) for arrival, _, request in pending]):
        pass


@pytest.mark.parametrize("policy", list(SCHEDULERS))
def test_shipped_schedulers_conform(policy: str) -> None:
    check_scheduler(policy)


class LastInFirstOut(SCHEDULERS["orca"]):  # type: ignore[misc]
    """Somebody's own."""

    def add(self, request: ServedRequest) -> None:
        self.waiting.appendleft(request)


def test_own_scheduler_is_found_and_runs(tmp_path: Path) -> None:
    check_scheduler(LastInFirstOut)
    requests = [(0.0, 5, 3), (0.0, 6, 3)]
    _, iterations = served(requests, tmp_path, policy="test_serving_laws:LastInFirstOut", max_num_seqs=1)
    assert iterations[0]["tokens"] == {"1": 6}


class Forgetful(SCHEDULERS["vllm_v1"]):  # type: ignore[misc]
    """Loses the blocks of requests that end."""

    def release(self, request: ServedRequest) -> None:
        request.blocks = []


class Greedy(SCHEDULERS["vllm_v1"]):  # type: ignore[misc]
    """Runs requests beyond their known tokens."""

    def plan(self) -> Iteration:
        iteration = super().plan()
        iteration.tokens = [(request, tokens + 1) for request, tokens in iteration.tokens]
        return iteration


@pytest.mark.parametrize(("broken", "message"), [(Forgetful, "blocks are lost"), (Greedy, "new tokens of request")])
def test_broken_schedulers_are_told(broken: type[Scheduler], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_scheduler(broken)


def test_nobody_starves_under_first_come_first_served(tmp_path: Path) -> None:
    """Without preemption requests start in the order in which they arrive."""
    rng = np.random.default_rng(0)
    requests = [(float(i), int(p), int(o)) for i, (p, o) in enumerate(rng.integers(1, 100, (60, 2)))]
    result, _ = served(requests, tmp_path, max_num_seqs=4)
    assert (np.diff(result.records["first_scheduled"]) >= 0).all()


def _one_at_a_time(load: float, count: int, folder: Path) -> ServingResult:
    """Poisson arrivals at a server that takes 1 s for each request."""
    options = {
        "requests": {"format": "random", "input_tokens": 8, "output_tokens": 1, "count": count},
        "arrivals": {"kind": "poisson", "rate": load},
    }
    return served([], folder, options, max_num_seqs=1)[0]


def test_waiting_times_of_one_server_follow_lindleys_recursion(tmp_path: Path) -> None:
    """W(n + 1) = max(0, W(n) + service - interval), to the tick."""
    records = _one_at_a_time(0.9, 2000, tmp_path).records
    waited = 0
    for number in range(2000):
        assert records["first_scheduled"][number] - records["arrived"][number] == waited
        if number < 1999:
            waited = max(0, waited + TICKS_PER_S - int(records["arrived"][number + 1] - records["arrived"][number]))


def test_mean_waiting_time_is_that_of_m_d_1(tmp_path: Path) -> None:
    """Pollaczek and Khinchine: rho / (2 (1 - rho)) service times."""
    load = 0.4
    result = _one_at_a_time(load, 60_000, tmp_path)
    assert result.metrics["queueing_mean_s"] == pytest.approx(load / (2 * (1 - load)), rel=0.02)


def test_littles_law(tmp_path: Path) -> None:
    """Mean requests in the system = rate of arrivals x mean time in it, exactly, from the first arrival to the last end."""
    result, _ = served(
        [],
        tmp_path,
        {
            "requests": {"format": "lengths", "dataset": "alpaca", "count": 400},
            "arrivals": {"kind": "gamma", "rate": 0.1, "burstiness": 0.5},
        },
    )
    records = result.records
    events = sorted([(time, 1) for time in records["arrived"]] + [(time, -1) for time in records["ended"]])
    area = present = last = 0
    for time, change in events:
        area += present * int(time - last)
        present, last = present + change, time
    span = int(records["ended"].max())
    assert area / span == pytest.approx(400 / span * (records["ended"] - records["arrived"]).mean(), rel=1e-9)
    assert result.metrics["e2e_mean_s"] == pytest.approx(area / 400 / 1e12, rel=1e-9)


def test_preemption_changes_no_output(tmp_path: Path) -> None:
    requests = [(0.0, 30, 40), (0.0, 30, 40), (1.0, 20, 30)]
    tight, _ = served(requests, tmp_path, num_gpu_blocks=8)
    roomy, _ = served(requests, tmp_path)
    assert tight.metrics["preemptions"] > 0 == roomy.metrics["preemptions"]
    assert (tight.records["produced_tokens"] == roomy.records["produced_tokens"]).all()
    assert (tight.records["first_token"] == roomy.records["first_token"]).all()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=60))
@settings(max_examples=100, deadline=None)
def test_pool_never_gives_a_block_to_two_requests(actions: list[tuple[int, int]]) -> None:
    pool, held = BlockPool(16, caching=True), []
    for which, count in actions:
        if which < len(held) and pool.free < count:
            pool.give_back(held.pop(which))
        elif pool.free >= count:
            blocks = [pool.take() for _ in range(count)]
            for position, block in enumerate(blocks[:-1]):
                pool.publish(block, bytes([which, position]))
            held.append(blocks)
        flat = [block for blocks in held for block in blocks]
        assert len(flat) == len(set(flat))
        assert len(flat) + pool.free == 16

"""Whether a scheduler keeps the contract, for its author."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from neupims_sim.config import SchedulerConfig
from neupims_sim.serving.blocks import OwnContent, TokenContent
from neupims_sim.serving.request import ServedRequest
from neupims_sim.serving.schedulers.base import SCHEDULERS, Scheduler

_MOST_ITERATIONS = 100_000


def check_scheduler(policy: str | type[Scheduler], seed: int = 0, rounds: int = 20) -> None:
    """Raise AssertionError unless a scheduler keeps the contract of :class:`Scheduler` on random requests and options.

    Every request that it does not refuse ends with all its outputs; blocks are neither lost nor given twice; nobody runs without
    the blocks that it needs; requests that wait hold none; the same requests get the same iterations.
    """
    make = SCHEDULERS[policy] if isinstance(policy, str) else policy
    random = np.random.default_rng(seed)
    for _ in range(rounds):
        options = SchedulerConfig(
            max_num_seqs=int(random.integers(1, 9)),
            max_num_batched_tokens=int(random.integers(8, 65)),
            block_size=int(random.choice([1, 4, 16])),
            long_prefill_token_threshold=int(random.choice([0, 5])),
            watermark=float(random.choice([0.0, 0.2])),
        )
        blocks, caching = int(random.integers(8, 200)), bool(random.integers(0, 2))
        arrivals = sorted(random.integers(0, 40, 25).tolist())
        lengths = [(int(prompt), int(output)) for prompt, output in random.integers(1, (80, 30), (25, 2))]
        runs = [
            list(served_iterations(make(options, blocks, caching), _requests(arrivals, lengths, caching)))
            for _ in range(2)
        ]
        assert runs[0] == runs[1], "the same requests must get the same iterations"


def served_iterations(
    scheduler: Scheduler, requests: list[tuple[int, ServedRequest]]
) -> Iterable[list[tuple[int, int]]]:
    """(request, new tokens) of every iteration until all requests have ended, each checked.

    requests: (iteration before which it arrives, request), in order of arrival.
    """
    pending = [entry for entry in requests if scheduler.reason_to_refuse(entry[1]) is None]
    injected, completed = len(pending), 0
    for iteration_number in range(_MOST_ITERATIONS):
        while pending and pending[0][0] <= iteration_number:
            scheduler.add(pending.pop(0)[1])
        scheduler.more_to_come = bool(pending)
        iteration = scheduler.plan()
        held = {block for request in scheduler.running for block in request.blocks}
        assert len(held) + scheduler.pool.free == scheduler.pool.blocks, "blocks are lost, or held by nobody"
        assert all(not request.blocks for request in scheduler.waiting), "a request that waits holds blocks"
        numbers = [request.number for request, _ in iteration.tokens]
        assert len(set(numbers)) == len(numbers), "a request is twice in an iteration"
        for request, tokens in iteration.tokens:
            assert 1 <= tokens <= request.known_tokens - request.computed, (
                f"{tokens} new tokens of request {request.number}"
            )
            assert len(request.blocks) == scheduler.blocks_for(request.computed + tokens), (
                "a request runs without its blocks"
            )
        yield [(request.number, tokens) for request, tokens in iteration.tokens]
        completed += len(scheduler.finish(iteration)[1])
        present = len(scheduler.running) + len(scheduler.waiting)
        assert injected == completed + present + len(pending), "requests are lost"
        if completed == injected:
            break
    assert completed == injected, (
        f"{injected - completed} of {injected} requests have not ended after {_MOST_ITERATIONS} iterations"
    )
    assert scheduler.pool.free == scheduler.pool.blocks, "blocks are held after the end"


def _requests(arrivals: list[int], lengths: list[tuple[int, int]], alike: bool) -> list[tuple[int, ServedRequest]]:
    """Requests of their own content, or whose prompts all begin alike."""
    return [
        (
            arrival,
            ServedRequest(number, 0, prompt, output, TokenContent([7] * prompt, 5) if alike else OwnContent(number)),
        )
        for number, (arrival, (prompt, output)) in enumerate(zip(arrivals, lengths, strict=True))
    ]

"""What every scheduler shares: the queues, the blocks, and what an iteration does to its requests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from neupims_sim.config import SchedulerConfig
from neupims_sim.errors import InputError
from neupims_sim.registry import Registry
from neupims_sim.serving.blocks import BlockPool
from neupims_sim.serving.request import ServedRequest


@dataclass(slots=True)
class Iteration:
    """One pass through the model.

    tokens: new tokens of each request, in the order in which they were scheduled; at least 1 each.
    preempted: requests that lost their cache to make room.
    admitted: requests that were waiting before.
    """

    tokens: list[tuple[ServedRequest, int]] = field(default_factory=list)
    preempted: list[ServedRequest] = field(default_factory=list)
    admitted: list[ServedRequest] = field(default_factory=list)


class Scheduler(ABC):
    """Requests that wait and run on one instance.

    A subclass decides in :meth:`plan`; the rest is the same for all: a request whose known tokens are all computed after an
    iteration has one new token, and leaves with its last.

    Parameters
    ----------
    options: ``serving.scheduler``.
    blocks: of the device's memory, the one that vLLM keeps for itself (the null block) not counted.
    caching: whether prefixes are shared.
    """

    def __init__(self, options: SchedulerConfig, blocks: int, caching: bool) -> None:
        self.options = options
        self.pool = BlockPool(blocks, caching)
        self.waiting: deque[ServedRequest] = deque()
        self.running: list[ServedRequest] = []
        self.more_to_come = True
        """Whether requests may still arrive."""

    @abstractmethod
    def plan(self) -> Iteration:
        """The next iteration; requests in it hold the blocks that it needs. Without tokens if nothing can run."""

    def add(self, request: ServedRequest) -> None:
        """A request has arrived."""
        self.waiting.append(request)

    def reason_to_refuse(self, request: ServedRequest) -> str | None:
        """Why ``request`` could never run to its end, even alone; None if it can."""
        needed = self.blocks_for(request.most_cached_tokens)
        if needed > self.pool.blocks:
            return f"more K and V than all {self.pool.blocks:,} blocks of {self.options.block_size} tokens hold"
        return None

    def blocks_for(self, tokens: int) -> int:
        """Blocks of so many tokens."""
        return -(-tokens // self.options.block_size)

    def finish(self, iteration: Iteration) -> tuple[list[ServedRequest], list[ServedRequest]]:
        """The iteration is over: requests with a new token, and of these the ones that are complete (their blocks are free again)."""
        answered, finished = [], []
        for request, tokens in iteration.tokens:
            request.computed += tokens
            if request.computed == request.prompt_tokens + request.produced:
                request.produced += 1
                answered.append(request)
                if request.produced == request.output_tokens:
                    finished.append(request)
        if finished:
            for request in finished:
                self.release(request)
            leaving = {request.number for request in finished}
            self.running = [request for request in self.running if request.number not in leaving]
        return answered, finished

    # --- for subclasses ---

    def extend(self, request: ServedRequest, tokens: int) -> bool:
        """Give a running request room for ``tokens`` new ones; False, and nothing happens, if there are not enough free blocks."""
        missing = self.blocks_for(request.computed + tokens) - len(request.blocks)
        if missing > self.pool.free:
            return False
        for _ in range(missing):
            request.blocks.append(self.pool.take())
        self._publish(request, request.computed + tokens)
        return True

    def find_cached(self, request: ServedRequest) -> list[int]:
        """Blocks with the beginning of its known tokens; at least one token is left to compute."""
        if not self.pool.caching:
            return []
        hits: list[int] = []
        for index in range((request.known_tokens - 1) // self.options.block_size):
            block = self.pool.find(request.key(index, self.options.block_size))
            if block is None:
                break
            hits.append(block)
        return hits

    def blocks_missing(self, tokens: int, hits: list[int]) -> int:
        """Free blocks that a request without any needs for its first ``tokens``: hits that others hold cost none."""
        held = sum(not self.pool.lies_free(block) for block in hits)
        return self.blocks_for(tokens) - held

    def admit(self, request: ServedRequest, tokens: int, hits: list[int], iteration: Iteration) -> None:
        """Move the first waiting request to the running ones, with what the cache holds and room for ``tokens`` more."""
        assert request is self.waiting[0]
        self.waiting.popleft()
        for block in hits:
            self.pool.share(block)
        request.blocks = list(hits)
        request.computed = len(hits) * self.options.block_size
        if request.cached is None:
            request.cached = request.computed
        fits = self.extend(request, tokens)
        assert fits, "admitted without room"
        self.running.append(request)
        iteration.admitted.append(request)
        iteration.tokens.append((request, tokens))

    def preempt(self, request: ServedRequest, iteration: Iteration) -> None:
        """Take a running request's blocks; it waits before all others and keeps its outputs."""
        self.release(request)
        request.computed = 0
        request.preemptions += 1
        self.waiting.appendleft(request)
        iteration.preempted.append(request)

    def release(self, request: ServedRequest) -> None:
        """Give all blocks of a request back."""
        self.pool.give_back(request.blocks)
        request.blocks = []

    def _publish(self, request: ServedRequest, computed: int) -> None:
        if not self.pool.caching:
            return
        size = self.options.block_size
        for index in range(request.computed // size, computed // size):
            self.pool.publish(request.blocks[index], request.key(index, size))


def _own_scheduler(found: Any, what: str) -> type[Scheduler]:
    if not (isinstance(found, type) and issubclass(found, Scheduler)):
        raise InputError(f"{what} is not a subclass of neupims_sim.serving.schedulers.Scheduler")
    return found


SCHEDULERS: Registry[type[Scheduler]] = Registry(
    "scheduler", "neupims_sim.serving.schedulers", key="serving.scheduler.policy", adopt=_own_scheduler
)

"""One server: a scheduler in front of a device, iteration after iteration."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol

import simpy

from neupims_sim.errors import InputError
from neupims_sim.serving.clock import MOST_SECONDS, TICKS_PER_S, ticks
from neupims_sim.serving.costs import IterationCost
from neupims_sim.serving.request import ServedRequest
from neupims_sim.serving.schedulers import Iteration, Scheduler

Process = Generator[simpy.events.Event, Any, None]
_LAST = simpy.events.EventPriority(2)
"""Behind SimPy's URGENT (0) and NORMAL (1)."""


class ServingStalledError(RuntimeError):
    """Requests wait, and nothing can ever run."""


class InstanceObserver(Protocol):
    """What is told about an instance."""

    def iteration(self, start: int, end: int, iteration: Iteration, finished: list[ServedRequest]) -> None:
        """An iteration has ended; its requests have their new tokens."""
        ...


class Instance:
    """Runs what its scheduler plans, as long as the cost says.

    Parameters
    ----------
    on_left: called with every request that ends, at its end.
    may_arrive: whether requests may arrive although nobody leaves.
    """

    def __init__(
        self,
        env: simpy.Environment,
        scheduler: Scheduler,
        cost: IterationCost,
        observer: InstanceObserver,
        on_left: Callable[[ServedRequest], None],
        may_arrive: Callable[[], bool],
    ) -> None:
        self._env = env
        self.scheduler = scheduler
        self._cost = cost
        self._observer = observer
        self._on_left = on_left
        self._may_arrive = may_arrive
        self._wake: simpy.Event | None = None
        env.process(self._serve())

    def submit(self, request: ServedRequest) -> None:
        """A request arrives here."""
        self.scheduler.add(request)
        self.wake()

    def wake(self) -> None:
        """Look again whether something can run: a request has arrived, or none will."""
        if self._wake is not None and not self._wake.triggered:
            self._wake.succeed()

    def _serve(self) -> Process:
        scheduler = self.scheduler
        while True:
            scheduler.more_to_come = self._may_arrive()
            iteration = scheduler.plan()
            if not iteration.tokens:
                if (scheduler.waiting or scheduler.running) and not scheduler.more_to_come:
                    first = (*scheduler.running, *scheduler.waiting)[0]
                    raise ServingStalledError(
                        f"request {first.number} ({first.known_tokens:,} tokens) waits and can never be scheduled; more "
                        "serving.scheduler.max_num_batched_tokens or num_gpu_blocks, or enable_chunked_prefill"
                    )
                self._wake = self._env.event()
                yield self._wake
                yield _Late(self._env)
                continue
            start = int(self._env.now)
            for request in iteration.admitted:
                if request.first_scheduled_at is None:
                    request.first_scheduled_at = start
            seconds = self._cost.seconds(iteration)
            if not start / TICKS_PER_S + seconds <= MOST_SECONDS:
                raise InputError(
                    f"serving takes longer than {MOST_SECONDS:,.0f} s, with an iteration of {seconds:.3g} s at "
                    f"{start / TICKS_PER_S:,.0f} s; see serving.cost"
                )
            yield _Late(self._env, max(1, ticks(seconds)))
            end = int(self._env.now)
            answered, finished = scheduler.finish(iteration)
            for request in answered:
                if request.first_token_at is None:
                    request.first_token_at = end
            for request in finished:
                request.ended_at = end
            self._observer.iteration(start, end, iteration, finished)
            for request in answered:
                request.last_token_at = end
            for request in finished:
                self._on_left(request)


class _Late(simpy.Event):
    """Happens ``delay`` from now, after everything else of that time: an iteration that starts then sees all that arrive then."""

    def __init__(self, env: simpy.Environment, delay: int = 0) -> None:
        super().__init__(env)
        self._ok = True
        self._value = None
        env.schedule(self, priority=_LAST, delay=delay)

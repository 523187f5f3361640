"""Where requests come from: at their times, when others end, or both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator
from typing import Any

import simpy

from neupims_sim.serving.request import ServedRequest
from neupims_sim.serving.requests import RequestPlan

Process = Generator[simpy.events.Event, Any, None]


class Source:
    """Sends the requests of a plan to a server.

    Open: at their times. Closed loop: as many as ``concurrency`` at 0, then one whenever one leaves. Sessions: the first
    request at its time, the next a delay after the one before has left.

    Parameters
    ----------
    submit: takes a request at the moment of its arrival; False if it is refused.
    """

    def __init__(self, env: simpy.Environment, plan: RequestPlan, submit: Callable[[ServedRequest], bool]) -> None:
        self._env = env
        self._plan = plan
        self._submit = submit
        self._next = 0
        self._timers = 0
        self._followers: defaultdict[int, list[int]] = defaultdict(list)
        self._index: dict[int, int] = {}
        table = plan.table
        if table.after is not None:
            for index, leader in enumerate(table.after.tolist()):
                if leader >= 0:
                    self._followers[leader].append(index)

    def start(self) -> None:
        """Begin to send."""
        if self._plan.concurrency is None:
            self._env.process(self._replay())
        else:
            for _ in range(min(self._plan.concurrency, len(self._plan.table))):
                self._send_next()

    @property
    def may_send(self) -> bool:
        """Whether a request may arrive although nobody leaves."""
        return self._timers > 0

    def left(self, request: ServedRequest) -> None:
        """A request has ended or was refused."""
        if self._plan.concurrency is not None:
            self._send_next()
        elif self._followers:
            index = self._index.pop(request.number)
            for follower in self._followers.pop(index, ()):
                self._env.process(self._follow(follower))

    def _send_next(self) -> None:
        """Closed loop: requests that are refused at once make room for the next."""
        while self._next < len(self._plan.table):
            index = self._next
            self._next += 1
            if self._submit(self._plan.request(index, int(self._env.now))):
                return

    def _replay(self) -> Process:
        arrival = self._plan.table.arrival
        assert arrival is not None
        self._timers += 1
        after = self._plan.table.after
        for index, time in enumerate(arrival.tolist()):
            if after is not None and after[index] >= 0:
                continue
            if time > self._env.now:
                yield self._env.timeout(time - self._env.now)
            self._send(index)
        self._timers -= 1

    def _follow(self, index: int) -> Process:
        assert self._plan.table.delay is not None
        self._timers += 1
        yield self._env.timeout(int(self._plan.table.delay[index]))
        self._timers -= 1
        self._send(index)

    def _send(self, index: int) -> None:
        request = self._plan.request(index, int(self._env.now))
        if self._followers:
            self._index[request.number] = index
        if not self._submit(request):
            self.left(request)

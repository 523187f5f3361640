"""What is kept of a run: columns of requests, counts of token gaps, and samples over time. Nothing grows with tokens served."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neupims_sim.serving.request import ServedRequest
from neupims_sim.serving.schedulers import Iteration
from neupims_sim.showing import Shown

Int64Array = npt.NDArray[np.int64]
NEVER = -1
COLUMNS = (
    "arrived",
    "first_scheduled",
    "first_token",
    "ended",
    "prompt_tokens",
    "output_tokens",
    "produced_tokens",
    "cached_tokens",
    "preemptions",
)
"""Of a request; times in ticks, -1 for what has not happened."""


class RequestRecords:
    """A row per request, by its number; rows of requests that have not arrived are -1 throughout."""

    def __init__(self, rows: int) -> None:
        self.columns: dict[str, Int64Array] = {name: np.full(rows, NEVER, np.int64) for name in COLUMNS}
        self.refused: npt.NDArray[np.bool_] = np.zeros(rows, bool)

    def __getitem__(self, name: str) -> Int64Array:
        return self.columns[name]

    def note(self, request: ServedRequest) -> None:
        """Take down how a request stands."""
        values = (
            request.arrived_at,
            request.first_scheduled_at,
            request.first_token_at,
            request.ended_at,
            request.prompt_tokens,
            request.output_tokens,
            request.produced,
            request.cached,
            request.preemptions,
        )
        for name, value in zip(COLUMNS, values, strict=True):
            self.columns[name][request.number] = NEVER if value is None else value


@dataclass(frozen=True, repr=False)
class Samples(Shown):
    """State of a server at ends of iterations.

    time: ticks; waiting, running: requests; used_blocks: held by requests.
    """

    time: Int64Array
    waiting: Int64Array
    running: Int64Array
    used_blocks: Int64Array


class SampleSeries:
    """Samples at regular iterations; when there are too many every other one is dropped, so that their number is bounded."""

    MOST = 8192

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, int]] = []
        self._every = 1
        self._seen = 0

    def add(self, time: int, waiting: int, running: int, used_blocks: int) -> None:
        """The state at the end of an iteration."""
        if self._seen % self._every == 0:
            self._rows.append((time, waiting, running, used_blocks))
            if len(self._rows) > self.MOST:
                self._rows = self._rows[::2]
                self._every *= 2
        self._seen += 1

    def samples(self) -> Samples:
        """What was kept, in order."""
        table = np.array(self._rows, dtype=np.int64).reshape(-1, 4)
        return Samples(*table.T)


class TokenGaps:
    """How often two tokens of a request were so far apart, ticks."""

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()

    def add(self, iteration: Iteration, end: int) -> None:
        """Gaps that ended with this iteration."""
        for request, _ in iteration.tokens:
            if request.last_token_at is not None and request.computed == request.prompt_tokens + request.produced - 1:
                self._count[end - request.last_token_at] += 1

    def values(self) -> tuple[Int64Array, Int64Array]:
        """Distinct gaps in order, and how often each occurred."""
        gaps = np.array(sorted(self._count), dtype=np.int64)
        return gaps, np.array([self._count[gap] for gap in gaps.tolist()], dtype=np.int64)

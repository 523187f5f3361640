"""A point becomes an outcome. `sweeps.processes` and `sweeps.cluster` do that in other processes."""

from __future__ import annotations

import json
import os
import socket
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from neupims_sim.config import Config
from neupims_sim.errors import InputError
from neupims_sim.sweeps.identity import code_version

RunPoint = Callable[[Config], dict[str, Any]]
"""Runs one configuration; returns the content of ``result.json``. With several workers it must be picklable."""


class Task(NamedTuple):
    """A point to run: what the store calls it, and its resolved configuration, JSON."""

    point: int
    config: str


@dataclass(frozen=True)
class Outcome:
    """What became of a point: ``result`` (a JSON object as text), or else ``error`` (one line) and ``traceback``."""

    result: str = ""
    error: str = ""
    traceback: str = ""
    seconds: float | None = None
    worker: str = ""


Events = Generator[tuple[int, Outcome | None]]
"""A point when it starts, and again with its outcome when it is done. Tasks are taken from an iterator as workers are free."""


class OtherCodeError(Exception):
    """A worker has other code than the process that started the sweep."""


def simulate_point(config: Config) -> dict[str, Any]:
    """Simulate one configuration: serve its requests over time where it describes any, else one iteration or inference."""
    # here, so that reading a sweep does not load the simulator
    if config.serving.requests.stated:
        from neupims_sim.serving import serve

        return serve(config).to_json()
    from neupims_sim.simulation import simulate

    return simulate(config).to_json()


def check_point(config: Config) -> None:
    """Raise InputError if `simulate_point` would refuse the configuration before it simulates: work that does not fit."""
    from neupims_sim.simulation import check_fits

    if not config.serving.requests.stated:
        check_fits(config)


def execute_here(run_point: RunPoint, tasks: Iterator[Task]) -> Events:
    """Run every task in this process."""
    for task in tasks:
        yield task.point, None
        yield task.point, attempt(run_point, task.config)


def attempt(run_point: RunPoint, config: str) -> Outcome:
    """Run one configuration, whatever happens."""
    start, worker = time.perf_counter(), f"{socket.gethostname()}:{os.getpid()}"
    result = error = trace = ""
    try:
        result = json.dumps(run_point(Config.model_validate_json(config)), indent=2, ensure_ascii=False)
    except InputError as problem:
        error = one_line(str(problem))
    except Exception as problem:
        error, trace = one_line(f"{type(problem).__name__}: {problem}"), traceback.format_exc()
    return Outcome(result, error, trace, round(time.perf_counter() - start, 6), worker)


def check_code(expected: str) -> None:
    """Raise OtherCodeError unless this process has the code that the sweep started with."""
    if code_version() != expected:
        raise OtherCodeError(
            f"code {code_version()} of {socket.gethostname()} is not {expected}, with which the sweep started"
        )


def killed(how: str) -> str:
    """The message of a point that has no outcome because whoever ran it was ended from outside."""
    return f"killed: {how}"


def one_line(text: str) -> str:
    """A text without line breaks."""
    return " ".join(text.split())

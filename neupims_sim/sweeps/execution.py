"""Points become outcomes: in this process, or in several."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from neupims_sim.config import Config
from neupims_sim.errors import InputError

RunPoint = Callable[[Config], dict[str, Any]]
"""Runs one configuration; returns the content of ``result.json``. With several workers it must be picklable."""


@dataclass(frozen=True)
class Outcome:
    """What became of a point: ``result`` (a JSON object as text), or else ``error`` (one line) and ``traceback``."""

    result: str = ""
    error: str = ""
    traceback: str = ""


def simulate_point(config: Config) -> dict[str, Any]:
    """Simulate one configuration."""
    from neupims_sim.simulation import simulate  # here, so that reading a sweep does not load the simulator

    return simulate(config).to_json()


def execute(run_point: RunPoint, configs: Mapping[str, Config], workers: int) -> Generator[tuple[str, Outcome]]:
    """Run every configuration; yields its key and outcome as soon as it is done.

    With one worker all run in this process. A worker process that dies fails only the point which it was running.
    """
    if workers == 1:
        for key, config in configs.items():
            yield key, _attempt(run_point, config)
        return
    suspects = []
    with _pool(workers) as pool:
        try:
            futures = {pool.submit(_attempt, run_point, config): key for key, config in configs.items()}
            for future in as_completed(futures):
                try:
                    yield futures[future], future.result()
                except BrokenProcessPool:
                    suspects.append(futures[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for key in suspects:  # the pool does not tell which of its points killed it: give each a process of its own
        with _pool(1) as pool:
            try:
                yield key, pool.submit(_attempt, run_point, configs[key]).result()
            except BrokenProcessPool:
                yield key, Outcome(error="the worker process died (killed, or out of memory)")


def _attempt(run_point: RunPoint, config: Config) -> Outcome:
    try:
        return Outcome(result=json.dumps(run_point(config), indent=2, ensure_ascii=False))
    except InputError as error:
        return Outcome(error=_one_line(str(error)))
    except Exception as error:
        return Outcome(error=_one_line(f"{type(error).__name__}: {error}"), traceback=traceback.format_exc())


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _pool(workers: int) -> Executor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)


def _start_worker() -> None:
    """A worker ends at Ctrl-C without a word, and with its parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

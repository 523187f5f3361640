"""Points run on a Dask cluster. `distributed` is loaded only when a cluster is asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from neupims_sim.errors import InputError
from neupims_sim.sweeps.execution import (
    Events,
    OtherCodeError,
    Outcome,
    RunPoint,
    Task,
    attempt,
    check_code,
    killed,
    one_line,
)
from neupims_sim.sweeps.identity import code_version

if TYPE_CHECKING:
    from distributed import Client, Future

_log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
"""How long an address may take to answer."""
WAITING_PER_THREAD = 2
"""Tasks handed to the cluster per thread of its workers: one that runs, and the next."""
LEAST_WAITING = 8
"""Tasks handed to a cluster that has no workers yet."""


def execute_on_cluster(run_point: RunPoint, tasks: Iterator[Task], address: str) -> Events:
    """Run every task on the cluster whose scheduler has this address.

    Dask gives a task to another worker when its own dies, and gives up after some deaths (its setting
    ``distributed.scheduler.allowed-failures``). Raises InputError if the cluster cannot be reached, is lost, or has other code.
    """
    client = _connect(address)
    try:
        _check_workers(client, address)
        yield from _run(client, run_point, tasks, address)
    except (OSError, CancelledError):  # asked anything after the scheduler ended, a client raises one of these
        raise _gone(address) from None
    finally:
        with suppress(OSError, CancelledError):
            client.close(timeout=CONNECT_SECONDS)


def _run(client: Client, run_point: RunPoint, tasks: Iterator[Task], address: str) -> Events:
    from distributed import as_completed

    code = code_version()
    points: dict[Future, int] = {}
    finished = as_completed(loop=client.loop)
    while True:
        for _ in range(_room(client) - len(points)):
            task = next(tasks, None)
            if task is None:
                break
            future = client.submit(
                _attempt_checked, run_point, task.config, code, key=f"point-{task.point}", pure=False
            )
            points[future] = task.point
            finished.add(future)
            yield task.point, None
        if not points:
            return
        future = next(finished)
        outcome = _outcome(future, address)
        yield points.pop(future), outcome


def _outcome(future: Future, address: str) -> Outcome:
    from distributed import KilledWorker

    if future.status in ("cancelled", "lost"):
        raise _gone(address)
    problem = future.exception()
    if isinstance(problem, OtherCodeError):
        raise InputError(f"--dask {address}: {problem}; install the same version on every worker")
    if isinstance(problem, KilledWorker):
        return Outcome(error=killed(f"the worker process died {problem.allowed_failures + 1} times at this point"))
    if problem is not None:
        return Outcome(error=one_line(f"{type(problem).__name__}: {problem}"))
    outcome = future.result()
    assert isinstance(outcome, Outcome)
    return outcome


def _gone(address: str) -> InputError:
    return InputError(f"--dask {address}: the scheduler is gone; finished points are stored, the same command goes on")


def _attempt_checked(run_point: RunPoint, config: str, code: str) -> Outcome:
    check_code(code)  # a worker may join while the sweep runs
    return attempt(run_point, config)


def _connect(address: str) -> Client:
    try:
        from distributed import Client
        from distributed.comm import connect
    except ImportError:
        raise InputError("--dask needs the package distributed: pip install 'neupims-sim[dask]'") from None
    for logger in ("distributed", "distributed.client"):  # which sets a level of its own
        logging.getLogger(logger).setLevel(logging.CRITICAL)  # what matters is told as one line

    async def greet() -> None:
        (await connect(address, timeout=CONNECT_SECONDS)).abort()

    try:
        asyncio.run(greet())  # a client that cannot connect leaves threads and messages behind
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except Exception as error:  # anything may answer at a wrong address
        raise InputError(
            f"--dask {address}: no Dask scheduler answers within {CONNECT_SECONDS:g} s ({one_line(str(error))}); "
            "give its address, e.g. tcp://host:8786"
        ) from None


def _check_workers(client: Client, address: str) -> None:
    try:
        versions: dict[str, Any] = client.run(code_version)
    except Exception as error:  # the workers' own, such as ModuleNotFoundError
        raise InputError(f"--dask {address}: a worker cannot load neupims_sim: {one_line(str(error))}") from None
    if not versions:
        _log.warning("--dask %s: the scheduler has no workers yet; waiting for the first", address)
    for worker, version in versions.items():
        if version != code_version():
            raise InputError(
                f"--dask {address}: worker {worker} has code {version} of neupims_sim, this is {code_version()}; "
                "install the same version on every worker"
            )


def _room(client: Client) -> int:
    """How many tasks the cluster should have at a time: memory stays flat, and no worker waits."""
    threads: dict[str, int] = client.nthreads()
    return max(LEAST_WAITING, WAITING_PER_THREAD * sum(threads.values()))

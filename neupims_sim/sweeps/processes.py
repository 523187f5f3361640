"""Points run in processes of this machine, each with a fresh interpreter and one task at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from neupims_sim.sweeps.execution import (
    Events,
    OtherCodeError,
    Outcome,
    RunPoint,
    Task,
    attempt,
    check_code,
    killed,
)
from neupims_sim.sweeps.identity import code_version

ATTEMPTS = 2
"""How often a point is given to a worker before the death of its worker counts as its failure."""
STARTS = 3
"""How often in a row a worker may die before it is ready."""

DEATH_SECONDS = 5.0
"""How long a process whose pipe has closed may take to end."""

_READY = "ready"


def execute_in_processes(run_point: RunPoint, tasks: Iterator[Task], workers: int) -> Events:
    """Run every task in ``workers`` processes. A task whose worker dies runs once more, in a new one; others go on."""
    crew: list[_Worker] = []
    try:
        for task in (task for _, task in zip(range(workers), tasks, strict=False)):
            crew.append(_Worker(run_point))
            crew[-1].give(task)
            yield task.point, None
        while busy := {worker.pipe: worker for worker in crew if worker.task is not None}:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                worker = busy[pipe]
                outcome = worker.receive()
                if outcome is None or worker.task is None:
                    continue
                finished, following = worker.task, next(tasks, None)
                worker.give(following)  # first of all, so that it does not wait for the store
                yield finished.point, outcome
                if following is not None:
                    yield following.point, None
    finally:
        for worker in crew:
            worker.end()


class _Worker:
    """A process, and the task that it has."""

    def __init__(self, run_point: RunPoint) -> None:
        self.run_point = run_point
        self.task: Task | None = None
        self.attempts = 0
        self._deaths_at_start = 0
        self._start()

    def give(self, task: Task | None) -> None:
        """Hand over a task, or None to leave the worker idle."""
        self.task = task
        self.attempts = 0
        if task is not None:
            self._send(task)

    def receive(self) -> Outcome | None:
        """What has come of the task, None if that is still open. A dead worker is replaced."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            return self._rise_again()
        if isinstance(message, OtherCodeError):
            raise message
        if message == _READY:
            self._is_ready, self._deaths_at_start = True, 0
            return None
        assert isinstance(message, Outcome)
        return message

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.run_point, code_version()), daemon=True)
        self._process.start()
        theirs.close()
        self._is_ready = False

    def _send(self, task: Task) -> None:
        self.attempts += 1
        with suppress(OSError):  # if it has died, reading from it will tell
            self.pipe.send(task.config)

    def _rise_again(self) -> Outcome | None:
        self._process.join(DEATH_SECONDS)
        how = self._process.exitcode
        self.end()
        if not self._is_ready:
            self._deaths_at_start += 1
            self.attempts -= 1  # the task was not begun
            if self._deaths_at_start == STARTS:
                raise RuntimeError(
                    f"a worker process died {STARTS} times as it started; a script that sweeps needs if __name__ == '__main__'"
                )
        self._start()
        if self.task is None or self.attempts == ATTEMPTS:
            return Outcome(error=killed(f"the worker process died {ATTEMPTS} times at this point ({_how(how)})"))
        self._send(self.task)
        return None


def _how(exit_code: int | None) -> str:
    """How a process has ended."""
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    if -exit_code == signal.SIGKILL:
        return "SIGKILL; out of memory?"
    return signal.strsignal(-exit_code) or f"signal {-exit_code}"


def _serve(pipe: Connection, run_point: RunPoint, code: str) -> None:
    """The life of a worker: it ends with its parent, however that ends, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        check_code(code)
        pipe.send(_READY)
        while True:
            pipe.send(attempt(run_point, pipe.recv()))
    except OtherCodeError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError):
        pass


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

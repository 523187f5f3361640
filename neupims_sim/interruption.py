"""SIGTERM and SIGHUP end a program as Ctrl-C does: what is open is closed, what has finished is written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end.

    Its number is its only argument, for SimPy makes an exception that leaves a process anew, from its arguments.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return f"interrupted by {signal.Signals(self.number).name}"


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, the signals raise :class:`Interrupted`; not those that are ignored (``nohup``) or have a handler of somebody else.

    In threads other than the main one, which get no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, _interrupt)
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """What shells report of a program that a signal has ended: 128 and its number."""
    return 128 + (interrupt.number if isinstance(interrupt, Interrupted) else signal.SIGINT)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)

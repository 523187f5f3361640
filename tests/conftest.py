"""Settings that all tests share."""

from __future__ import annotations

import signal

from hypothesis import settings

# The same examples every time, and no time limit for one: the first call of a compiled function takes seconds.
settings.register_profile("repeatable", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("repeatable")

# Under nohup, SIGHUP is ignored, by the programs that tests start too; tests of signals send it.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import settings

# The same examples every time, and no time limit for one: the first call of a compiled function takes seconds.
settings.register_profile("repeatable", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("repeatable")

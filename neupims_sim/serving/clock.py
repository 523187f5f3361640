"""The clock of serving: whole picoseconds, so that equal times are equal."""

from __future__ import annotations

TICKS_PER_S = 10**12
MOST_SECONDS = 9e6
"""Of a run, 104 days: times are kept in 64 bits."""


def ticks(seconds: float) -> int:
    """Seconds as the nearest tick."""
    return round(seconds * TICKS_PER_S)

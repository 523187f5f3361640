"""Failures as people read them: each message once, with the points that it is about."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

SHOWN_PLACES = 3
"""Points that a line names."""
SHOWN_GROUPS = 20
"""Lines."""
SHOWN_LETTERS = 400
"""Of a message; `results --failed` has all of it."""

_NUMBER = re.compile(r"\d[\d.,]*")


class Failure(NamedTuple):
    """A failed point: its place on the axes, and why."""

    place: str
    message: str


def grouped(failures: Iterable[Failure]) -> list[str]:
    """A line per message, messages that differ in their numbers only being one; the most frequent first."""
    groups: dict[str, list[Failure]] = {}
    for failure in failures:
        groups.setdefault(_NUMBER.sub("#", failure.message), []).append(failure)
    ordered = sorted(groups.values(), key=len, reverse=True)
    lines = [_line(group) for group in ordered[:SHOWN_GROUPS]]
    rest = ordered[SHOWN_GROUPS:]
    if rest:
        lines.append(f"{sum(map(len, rest)):,} points with {len(rest):,} other messages")
    return lines


def _line(group: list[Failure]) -> str:
    first = group[0]
    message = first.message if len(first.message) <= SHOWN_LETTERS else f"{first.message[:SHOWN_LETTERS]}…"
    if len(group) == 1:
        return f"{first.place}: {message}"
    places = "; ".join(failure.place for failure in group[:SHOWN_PLACES])
    more = f"; {len(group) - SHOWN_PLACES:,} more" if len(group) > SHOWN_PLACES else ""
    alike = "" if len({failure.message for failure in group}) == 1 else " (the others with other numbers)"
    return f"{len(group):,} points: {message}{alike} [{places}{more}]"

"""What a page holds, whatever it is about: facts, tables, bars, figures."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple

from markupsafe import Markup

MAX_CHOICES = 40
"""An axis with more values than this has no select box."""


_PACKAGES = ("neupims_sim", "python", "numpy", "numba", "simpy")


class Fact(NamedTuple):
    """A line of a list of facts; ``code`` is text to type or to compare."""

    name: str
    text: str
    code: bool = False


class Cell(NamedTuple):
    """A cell of a table. Numbers sort by ``value``, which is not rounded."""

    text: str
    value: float | None = None
    link: str = ""
    share: float | None = None
    """Length of a bar beside the text, in [0, 1]."""


class Column(NamedTuple):
    """A column of a table; with ``filtered`` it has a select box."""

    name: str
    unit: str = ""
    numeric: bool = False
    filtered: bool = False


@dataclass(frozen=True)
class Table:
    """A table that sorts, and filters if it has more than a few rows."""

    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    filters: bool = False
    """With a text box and select boxes."""

    def choices(self, column: int) -> list[str]:
        """The texts in a column, in order."""
        return list(dict.fromkeys(row[column].text for row in self.rows))

    @property
    def boxes(self) -> list[tuple[int, Column, list[str]]]:
        """Number, column and values of every select box."""
        found = [(i, column, self.choices(i)) for i, column in enumerate(self.columns) if column.filtered]
        return [box for box in found if 1 < len(box[2]) <= MAX_CHOICES]


class FigureView(NamedTuple):
    """A picture, or the message why there is none."""

    caption: str
    title: str
    width: float
    """Inches."""
    svg: Markup
    error: str = ""


class Timeline(NamedTuple):
    """A link to a timeline, and of which run it is."""

    link: str
    name: str
    size: str


class Timelines(NamedTuple):
    """Links to the first of the timelines in a folder, and how many there are."""

    links: list[Timeline]
    found: int


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from."""

    facts: list[Fact] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def number(value: Any, decimals: int | None = None) -> Cell:
    """A number as a cell: six digits, or as many decimals as given; empty if there is none."""
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(float(value)):
        return Cell("")
    plain = float(value)
    if decimals is not None:
        return Cell(f"{plain:,.{decimals}f}", plain)
    return Cell(f"{plain:,.0f}" if plain.is_integer() and abs(plain) < 1e15 else f"{plain:,.6g}", plain)


def with_shares(cells: Iterable[Cell], whole: float | None = None) -> list[Cell]:
    """Cells with bars: shares of ``whole``, or of the greatest of them."""
    listed = list(cells)
    most = whole or max((cell.value or 0.0 for cell in listed), default=0.0)
    return [cell._replace(share=min(1.0, max(0.0, (cell.value or 0.0) / most)) if most else 0.0) for cell in listed]


def environment_facts(environment: Mapping[str, Any]) -> list[Fact]:
    """What `neupims_sim.simulation.environment` wrote, as far as it is there."""
    versions = [f"{name} {environment[name]}" for name in _PACKAGES if name in environment]
    facts = [Fact("Versions", ", ".join(versions))] if versions else []
    if "machine" in environment:
        facts.append(Fact("Machine", str(environment["machine"])))
    if isinstance(environment.get("command_line"), list):
        facts.append(Fact("Command", shlex.join(map(str, environment["command_line"])), code=True))
    return facts


def duration(seconds: float) -> str:
    """``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def counted(count: int, noun: str) -> str:
    """``1 point``, ``2,000 points``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"

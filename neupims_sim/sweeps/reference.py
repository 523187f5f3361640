"""Columns that do not come from a run: figures of others, and ratios between points."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from neupims_sim.sweeps.labels import value_key, written_key


@dataclass(frozen=True)
class ReferenceTable:
    """Figures of others, by places on some axes of a sweep.

    Attributes
    ----------
    head: names of axes and of the figures' columns, in the order of the file.
    rows: line of the table, text of every cell.
    """

    head: list[str]
    rows: list[tuple[int, list[str]]]

    def axes(self, known: Sequence[str]) -> list[str]:
        """The columns that are axes."""
        return [name for name in self.head if name in known]

    def columns(self, known: Sequence[str]) -> list[str]:
        """The columns that hold figures."""
        return [name for name in self.head if name not in known]

    def place(self, row: Sequence[str], axes: Sequence[str], text_axes: Collection[str]) -> tuple[str, ...]:
        """Where on the axes the figures of a row belong; ``text_axes`` are those of labels."""
        return tuple(written_key(row[self.head.index(axis)], axis in text_axes) for axis in axes)


class ReferenceSettings(BaseModel):
    """``reference`` of a sweep file."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    source: str
    """Where the figures come from, for people."""
    table: str
    """CSV: a head line, then a line per place. Columns named like an axis say where a line belongs, the others are figures."""

    @cached_property
    def parsed(self) -> ReferenceTable:
        """The table."""
        lines = csv.reader(io.StringIO(self.table, newline=None), skipinitialspace=True)
        rows = [(number, [cell.strip() for cell in row]) for number, row in enumerate(lines, start=1) if row]
        return ReferenceTable(rows[0][1], rows[1:]) if rows else ReferenceTable([], [])


class RelativeSettings(BaseModel):
    """An entry of ``relative`` of a sweep file: a column as its ratio to that of another point."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: str
    """A metric or reference column."""
    axis: str
    """The point to compare with has another value on this axis, and the same on all others."""
    to: Any
    """That value."""


def reference_columns(
    reference: ReferenceSettings, axes: Sequence[str], text_axes: Collection[str], table: pd.DataFrame
) -> dict[str, list[float | None]]:
    """The reference's figures for every point of ``table``; None where there is none."""
    parsed = reference.parsed
    used = parsed.axes(axes)
    rows = {parsed.place(row, used, text_axes): row for _, row in parsed.rows}
    places = [tuple(value_key(cell) for cell in cells) for cells in zip(*(table[axis] for axis in used), strict=True)]
    found: dict[str, list[float | None]] = {}
    for name in parsed.columns(axes):
        index = parsed.head.index(name)
        cells = [rows[place][index] if place in rows else "" for place in places]
        found[name] = [float(cell) if cell else None for cell in cells]
    return found


def relative_column(settings: RelativeSettings, axes: Sequence[str], table: pd.DataFrame) -> list[float | None]:
    """The ratio of every point; None where a number is missing, or the other is 0."""
    bases = base_values(table, axes, settings.axis, settings.to, settings.of)
    return [_ratio(value, base) for value, base in zip(table[settings.of], bases, strict=True)]


def base_values(table: pd.DataFrame, axes: Sequence[str], axis: str, value: Any, column: str) -> list[Any]:
    """For every point the cell of ``column`` of the point with ``value`` on ``axis`` and all else alike; None if there is none."""
    records = table.to_dict("records")
    others = [name for name in axes if name != axis]

    def rest(row: Mapping[Hashable, Any]) -> tuple[str, ...]:
        return tuple(value_key(row[name]) for name in others)

    bases = {rest(row): row[column] for row in records if value_key(row[axis]) == value_key(value)}
    return [bases.get(rest(row)) for row in records]


def _ratio(value: Any, base: Any) -> float | None:
    try:
        ratio = float(value) / float(base)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return ratio if ratio == ratio else None  # NaN


def reference_problems(reference: ReferenceSettings, axes: Sequence[str], text_axes: Collection[str]) -> Iterable[str]:
    """What is wrong with the table of a reference, by its own line numbers."""
    parsed = reference.parsed
    if not parsed.axes(axes) or not parsed.columns(axes):
        yield f"reference.table: needs a column for an axis ({', '.join(axes)}) and one for a figure; has {parsed.head}"
        return
    if len(set(parsed.head)) < len(parsed.head):
        yield "reference.table: two columns have one name"
    if "" in parsed.head:
        yield "reference.table: a column has no name"
    used, seen = parsed.axes(axes), dict[tuple[str, ...], int]()
    for line, row in parsed.rows:
        if len(row) != len(parsed.head):
            yield f"reference.table, line {line}: {len(row)} cells; the head has {len(parsed.head)}"
            continue
        if (place := parsed.place(row, used, text_axes)) in seen:
            yield f"reference.table, line {line}: the same place as line {seen[place]}"
        seen[place] = line
        for name in parsed.columns(axes):
            cell = row[parsed.head.index(name)]
            if cell and not _is_number(cell):
                yield f"reference.table, line {line}: {name}={cell!r} is not a number"


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False

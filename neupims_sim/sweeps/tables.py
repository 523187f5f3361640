"""Pivot tables of a sweep's results, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import pandas as pd

from neupims_sim.sweeps.definition import Sweep, TableSettings
from neupims_sim.sweeps.labels import Label

MISSING = "–"
"""In the cell of a point that is excluded or lacks the number."""


def to_markdown(sweep: Sweep, table: pd.DataFrame) -> str:
    """Every table of the sweep file, in order; ``table`` is what `neupims_sim.sweeps.store` describes."""
    return "\n\n".join(_pivot(sweep, settings, table) for settings in sweep.tables)


def format_cell(value: Any, shown: Label, decimals: int | None = None) -> str:
    """A number of the table as people read it, a text as it is, "" if there is none."""
    if not isinstance(value, Real):
        return "" if value is None else str(value)
    number = float(value) * shown.factor
    return "" if math.isnan(number) else f"{number:,.{shown.decimals if decimals is None else decimals}f}"


def _pivot(sweep: Sweep, settings: TableSettings, table: pd.DataFrame) -> str:
    labels = sweep.shown_labels()
    shown = labels.column(settings.value)
    repeats: dict[tuple[Any, ...], list[Mapping[Hashable, Any]]] = {}
    for row in table.to_dict("records"):
        repeats.setdefault((*(row[axis] for axis in settings.rows), row[settings.columns]), []).append(row)
    cells = {key: _cell(rows, settings, shown) for key, rows in repeats.items()}
    rows = list(dict.fromkeys(key[:-1] for key in cells))
    columns = list(dict.fromkeys(key[-1] for key in cells))
    lines = [
        [
            *(labels.value(axis, value) for axis, value in zip(settings.rows, row, strict=True)),
            *(cells.get((*row, column), MISSING) for column in columns),
        ]
        for row in rows
    ]
    head = [
        *(str(labels.column(axis)) for axis in settings.rows),
        *(labels.value(settings.columns, value) for value in columns),
    ]
    rule = ["---"] * len(settings.rows) + ["---:"] * len(columns)
    unit = f"{shown.unit}; " if shown.unit not in settings.title else ""
    title = f"**{settings.title}** ({unit}columns: {labels.column(settings.columns)})"
    return "\n".join([title, "", *map(_line, [head, rule, *lines])])


def _cell(rows: Sequence[Mapping[Hashable, Any]], settings: TableSettings, shown: Label) -> str:
    """A point; of its repeats the mean."""
    if any(row["status"] != "ok" for row in rows):
        return "failed"
    values = [row[settings.value] for row in rows]
    numeric = len(values) > 1 and all(isinstance(value, Real) for value in values)
    value = math.fsum(values) / len(values) if numeric else values[0]
    return format_cell(value, shown, settings.decimals) or MISSING


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escaped(cells))} |"


def _escaped(cells: Iterable[str]) -> list[str]:
    return [" ".join(cell.split()).replace("|", r"\|") for cell in cells]

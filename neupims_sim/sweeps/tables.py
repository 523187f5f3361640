"""Pivot tables of a sweep's results, and how Markdown writes them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import pandas as pd

from neupims_sim.sweeps.checks import DEVICES
from neupims_sim.sweeps.definition import Aggregate, Sweep, TableSettings
from neupims_sim.sweeps.labels import Label, is_one_of, value_key

DEFAULT: list[Aggregate] = ["mean"]
"""Shown of points that only repeat one."""
MISSING = "–"
"""In the cell of points that are excluded, or of which one lacks the number."""


class PivotTable(NamedTuple):
    """A table as people read it: its cells are texts."""

    title: str
    note: str
    """What the title leaves open: unit, and what the columns are."""
    axes: list[str]
    """Heads of the columns on the left, which hold values of axes."""
    heads: list[str]
    """Of the other columns."""
    lines: list[list[str]]
    """A cell per head, those of the axes first."""


def pivot_tables(sweep: Sweep, table: pd.DataFrame) -> list[PivotTable]:
    """Every table of the sweep file, in order; ``table`` is what `neupims_sim.sweeps.store` describes."""
    return [_pivot(sweep, settings, table) for settings in sweep.tables]


def to_markdown(sweep: Sweep, table: pd.DataFrame) -> str:
    """The pivot tables as Markdown."""
    return "\n\n".join(map(_markdown, pivot_tables(sweep, table)))


def devices_in_words(sweep: Sweep, table: pd.DataFrame) -> str:
    """``4 devices``, or ``1 to 64 devices`` where points differ; "" where the table does not say."""
    if DEVICES in sweep.axes or DEVICES not in table:
        return ""
    counts = [int(count) for count in sorted(table[DEVICES].dropna().unique())]
    if not counts:
        return ""
    some = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return f"{some} {'device' if counts == [1] else 'devices'}"


def format_cell(value: Any, shown: Label, decimals: int | None = None) -> str:
    """A number of the table as people read it, a text as it is, "" if there is none."""
    if not isinstance(value, Real):
        return "" if value is None else str(value)
    number = float(value) * shown.factor
    return "" if math.isnan(number) else f"{number:,.{shown.decimals if decimals is None else decimals}f}"


def _pivot(sweep: Sweep, settings: TableSettings, table: pd.DataFrame) -> PivotTable:
    """One value with an axis across, or several side by side."""
    if settings.only is not None:
        kept = [all(is_one_of(row[a], v) for a, v in settings.only.items()) for row in table.to_dict("records")]
        table = table[kept]
    if settings.columns is None:
        return _list(sweep, settings, table)
    labels, (value,) = sweep.shown_labels(), settings.value
    shown = labels.column(value)
    repeats = _repeats(sweep, table, [*settings.rows, settings.columns])
    how = (settings.over or DEFAULT)[0]
    cells = {key: _cell(rows, value, how, settings.decimals, shown) for key, rows in repeats.items()}
    rows = list(dict.fromkeys(key[:-1] for key in cells))
    columns = [value for (value,) in _repeats(sweep, table, [settings.columns])]
    lines = [
        [*_heads(sweep, settings, row), *(cells.get((*row, column), MISSING) for column in columns)] for row in rows
    ]
    heads = [labels.value(settings.columns, column) for column in columns]
    unit = f"{shown.unit}; " if shown.unit not in settings.title else ""
    what = f"{how} over {_unnamed(sweep, settings)}; " if settings.over else ""
    note = _joined(f"{what}{unit}columns: {labels.column(settings.columns)}", devices_in_words(sweep, table))
    return PivotTable(settings.title, note, _axes(sweep, settings), heads, lines)


def _list(sweep: Sweep, settings: TableSettings, table: pd.DataFrame) -> PivotTable:
    numbers = [(value, how) for value in settings.value for how in settings.over or DEFAULT]
    labels = {value: sweep.shown_labels().column(value) for value in settings.value}
    repeats = _repeats(sweep, table, settings.rows)
    bases = {
        tuple(others): rows
        for (first, *others), rows in repeats.items()
        if settings.relative_to is not None and is_one_of(first, settings.relative_to)
    }
    lines = []
    for (first, *others), rows in repeats.items():
        base = bases.get(tuple(others), [])
        cells = []
        for value, how in numbers:
            ratio = _ratio(_number(rows, value, how), _number(base, value, how)) if rows is not base else ""
            cells.append(_cell(rows, value, how, settings.decimals, labels[value]) + ratio)
        lines.append([*_heads(sweep, settings, (first, *others)), *cells])
    heads = [f"{labels[value]}, {how}" if settings.over else str(labels[value]) for value, how in numbers]
    note = _joined(f"over {_unnamed(sweep, settings)}" if settings.over else "", devices_in_words(sweep, table))
    return PivotTable(settings.title, note, _axes(sweep, settings), heads, lines)


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _unnamed(sweep: Sweep, settings: TableSettings) -> str:
    """The axes that ``over`` takes together."""
    chosen = [axis for axis, values in (settings.only or {}).items() if not isinstance(values, list)]
    named = {*settings.rows, settings.columns, *chosen}
    return ", ".join(
        sweep.shown_labels().column(axis).name.lower()
        for axis in sweep.axes
        if axis not in named and len(sweep.values(axis)) > 1
    )


def _ratio(number: Any, base: Any) -> str:
    """`` (3.5×)``, or nothing where there is no ratio."""
    if (
        not (isinstance(number, Real) and isinstance(base, Real))
        or not float(base)
        or math.isnan(float(number) + float(base))
    ):
        return ""
    return f" ({_times(float(number) / float(base))}×)"


def _times(ratio: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _heads(sweep: Sweep, settings: TableSettings, values: Iterable[Any]) -> list[str]:
    labels = sweep.shown_labels()
    return [labels.value(axis, value) for axis, value in zip(settings.rows, values, strict=True)]


def _axes(sweep: Sweep, settings: TableSettings) -> list[str]:
    labels = sweep.shown_labels()
    return [str(labels.column(axis)) for axis in settings.rows]


def _markdown(pivot: PivotTable) -> str:
    title = f"**{markdown_text(pivot.title)}**" + (f" ({markdown_text(pivot.note)})" if pivot.note else "")
    rule = ["---"] * len(pivot.axes) + ["---:"] * len(pivot.heads)
    return "\n".join([title, "", *map(_line, [[*pivot.axes, *pivot.heads], rule, *pivot.lines])])


def _repeats(
    sweep: Sweep, table: pd.DataFrame, axes: Sequence[str]
) -> dict[tuple[Any, ...], list[Mapping[Hashable, Any]]]:
    """The points of a place on the axes: one, or its repeats over seeds. Places are in the order of the whole sweep."""
    found: dict[tuple[Any, ...], list[Mapping[Hashable, Any]]] = {}
    for row in table.to_dict("records"):
        found.setdefault(tuple(row[axis] for axis in axes), []).append(row)
    order: dict[tuple[str, ...], int] = {}
    for steps in itertools.product(*sweep.dimensions):  # what is excluded, too: the first row may lack a column
        place = {axis: value for step in steps for axis, value in step.items()}
        order.setdefault(tuple(value_key(place[axis]) for axis in axes), len(order))
    return dict(sorted(found.items(), key=lambda item: order.get(tuple(map(value_key, item[0])), len(order))))


def _number(rows: Sequence[Mapping[Hashable, Any]], value: str, how: Aggregate) -> Any:
    """The value of a point; of several points their mean, minimum or maximum. None where one failed or lacks the number."""
    values = [row[value] for row in rows]
    if not values or any(row["status"] != "ok" for row in rows) or any(pd.isna(number) for number in values):
        return None
    if len(values) < 2 or not all(isinstance(number, Real) for number in values):
        return values[0]
    if how == "mean":
        return math.fsum(values) / len(values)
    return min(values) if how == "minimum" else max(values)


def _cell(
    rows: Sequence[Mapping[Hashable, Any]], value: str, how: Aggregate, decimals: int | None, shown: Label
) -> str:
    if any(row["status"] != "ok" for row in rows):
        return "failed"
    return format_cell(_number(rows, value, how), shown, decimals) or MISSING


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(markdown_text, cells))} |"


def markdown_text(text: str) -> str:
    """A text that Markdown shows as it is within a cell of a table: on one line, and neither a border nor the start of a tag."""
    return _SPECIAL.sub(lambda match: _ESCAPES[match[0]], " ".join(text.split()))


_ESCAPES = {"\\": r"\\", "|": r"\|", "<": "&lt;", "&": "&amp;"}
_SPECIAL = re.compile(r"[\\|<]|&(?=#?\w+;)")

"""Stacked bars: what a sum consists of, such as the time of stages or operators, or energy by cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from neupims_sim.errors import InputError, suggestion
from neupims_sim.plots.drawing import PLOTS
from neupims_sim.plots.frame import finish, grid, parts_of, set_ticks
from neupims_sim.plots.options import check_options, choice, count, flag, listed, main_axis, numbers
from neupims_sim.plots.repeats import over_seeds
from neupims_sim.plots.style import FAINT, INK, PALETTE, filling
from neupims_sim.plots.text import CHARACTER_INCHES, short_number, wrapped
from neupims_sim.sweeps import Labels

FloatArray = npt.NDArray[np.float64]

DEFAULT = ["stages."]
REST = "Other"
DIRECTIONS = ("horizontal", "vertical")
BAR_INCHES = 0.34
PANEL_INCHES = 3.4
"""Along the bars."""
THICKNESS = 0.72
"""Of a bar, where 1 is the distance between bars."""
SMALL_LETTER = 0.055
"""Inches of a digit in a segment."""
DARK = 0.55
"""Brightness of a colour below which text on it is white."""


@PLOTS.register("stage_breakdown")
def stage_breakdown(table: pd.DataFrame, options: Mapping[str, Any]) -> Figure:
    """One bar per configuration, stacked from several columns of one unit.

    Options: ``columns`` (columns, or prefixes that end in a dot; ``stages.`` unless given), ``x`` (axis with one bar per value;
    the last axis unless given), ``share`` (true: percent of the bar's sum), ``direction`` (``horizontal``, ``vertical``), ``largest``
    (so many columns by their sum over all bars; the rest becomes one segment), ``title``. Further axes are panels. A number missing
    beside others counts as 0.
    """
    check_options(options, ("columns", "x", "share", "direction", "largest"))
    labels: Labels = options["labels"]
    share, upright = flag(options, "share"), choice(options, "direction", DIRECTIONS) == "vertical"
    columns = _columns(table, listed(options.get("metric", options.get("columns", DEFAULT))))
    x = main_axis(options)
    table, axes = over_seeds(table, options["axes"], columns, (x,))
    columns, table = _largest(table, columns, count(options, "largest"))
    whole = labels.together([column for column in columns if column != REST])
    names = [column if column == REST else labels.member(column) for column in columns]
    parts = parts_of(table, [axis for axis in axes if axis != x], labels)
    groups = list(table[x].unique()) if x else [None]
    bars = [labels.value(x, value) if x else "" for value in groups]
    title = f"Share of {whole.name[:1].lower()}{whole.name[1:]} (%)" if share else str(whole)

    long, across = PANEL_INCHES, BAR_INCHES * len(groups) + 0.6
    room = CHARACTER_INCHES * max(map(len, bars))
    if upright:
        across = max(2.4, len(groups) * max(BAR_INCHES * 1.3, min(room, 1.2) + 0.25))
    else:
        long += min(room, 2.0)
    width, height = (across, long) if upright else (long, max(1.4, across))
    figure, panels, per_row = grid(len(parts), width, height, sharex=not upright, sharey=True)
    heights = [_heights(points, x, groups, columns, whole.factor, share) for _, points in parts]
    longest = max(float(np.nansum(stack, axis=0).max(initial=0.0)) for stack in heights)
    for panel, part, stack in zip(panels, parts, heights, strict=True):
        _draw_stack(panel, stack, names, upright, share, longest, PANEL_INCHES - 0.6)
        (panel.set_ylim if upright else panel.set_xlim)(0, (longest or 1) * (1 if share else 1.13))
        panel.set_title(wrapped(part.title, width))
        _name_bars(panel, bars, upright, 1.2 if upright else 2.0)
        (panel.set_xlabel if upright else panel.set_ylabel)("")
        if not upright:
            panel.set_xlabel(wrapped(title, width))
        set_ticks(panel.yaxis if upright else panel.xaxis, None)
    for panel in panels[::per_row]:
        if upright:
            panel.set_ylabel(wrapped(title, height - 0.4))
        elif x:
            panel.set_ylabel(wrapped(str(labels.column(x)), height))
    if upright and x:
        for panel in panels:
            panel.set_xlabel(str(labels.column(x)))
    handles, entries = panels[0].get_legend_handles_labels()
    return finish(figure, options, handles, entries)


def _columns(table: pd.DataFrame, stated: Sequence[Any]) -> list[str]:
    """Those columns, and the numbers among those that begin with a stated prefix."""
    found: list[str] = []
    for index, name in enumerate(stated):
        key = f"plot.columns.{index}"
        if not str(name).endswith("."):
            numbers(table, name, key)
            found.append(str(name))
            continue
        family = [column for column in map(str, table) if column.startswith(str(name))]
        known = [column for column in family if pd.api.types.is_numeric_dtype(table[column]) and table[column].any()]
        if not known:
            prefixes = {f"{str(column).partition('.')[0]}." for column in table if "." in str(column)}
            raise InputError(
                f"{key}={name!r}: no column with numbers begins like this; prefixes {suggestion(str(name), prefixes)}"
            )
        found += known
    if not found:
        raise InputError("plot.columns: needs a column or a prefix")
    return list(dict.fromkeys(found))


def _largest(table: pd.DataFrame, columns: list[str], most: int | None) -> tuple[list[str], pd.DataFrame]:
    """The ``most`` largest columns in their order, and one with the sum of the rest."""
    if most is None or most >= len(columns):
        return columns, table
    kept = set(table[columns].sum().sort_values(ascending=False, kind="stable").index[:most])
    rest = [column for column in columns if column not in kept]
    table = table.assign(**{REST: table[rest].sum(axis=1, min_count=1)})
    return [*(column for column in columns if column in kept), REST], table


def _heights(
    points: pd.DataFrame, x: str | None, groups: list[Any], columns: Sequence[str], factor: float, share: bool
) -> FloatArray:
    """[column, bar] in the shown unit; NaN in a bar without any number. Raises InputError for a negative number."""
    values = points.set_index(x)[list(columns)].reindex(groups) if x else points[list(columns)]
    stack = values.to_numpy(dtype=np.float64).T * factor
    if (stack < 0).any():
        column = columns[int(np.argwhere((stack < 0).any(axis=1))[0, 0])]
        raise InputError(f"plot.columns: {column} has a negative number, which cannot be stacked")
    missing = np.isnan(stack).all(axis=0)
    stack = np.nan_to_num(stack)
    if share:
        with np.errstate(all="ignore"):
            stack = 100 * stack / stack.sum(axis=0)
    stack[:, missing] = np.nan
    return stack


def _draw_stack(
    panel: Axes, stack: FloatArray, names: Sequence[str], upright: bool, share: bool, longest: float, inches: float
) -> None:
    places, bottom = np.arange(stack.shape[1]), np.zeros(stack.shape[1])
    for index, (name, values) in enumerate(zip(names, np.nan_to_num(stack), strict=True)):
        look = filling(index) | {"linewidth": 0.4, "label": name}
        if upright:
            panel.bar(places, values, THICKNESS, bottom=bottom, **look)
        else:
            panel.barh(places, values, THICKNESS, left=bottom, **look)
        for place, start, value in zip(places, bottom, values, strict=True):
            text = short_number(value)
            needed = 0.14 if upright else SMALL_LETTER * (len(text) + 1)
            if longest and value / longest * inches > needed:
                middle = (place, start + value / 2) if upright else (start + value / 2, place)
                white = np.mean(to_rgb(PALETTE[index % len(PALETTE)])) < DARK
                halo = [withStroke(linewidth=2.5, foreground=PALETTE[index % len(PALETTE)])]
                ink = "white" if white else INK
                panel.annotate(text, middle, ha="center", va="center", fontsize=6.5, color=ink, path_effects=halo)
        bottom += values
    for place, end, values in zip(places, bottom, stack.T, strict=True):
        missing = bool(np.isnan(values).all())
        text = "n/a" if missing else "" if share else short_number(end)
        where, offset = ((place, end), (0, 2)) if upright else ((end, place), (3, 0))
        panel.annotate(
            text, where, offset, textcoords="offset points", fontsize=7, color=FAINT,
            ha="center" if upright else "left", va="bottom" if upright else "center",
        )  # fmt: skip


def _name_bars(panel: Axes, bars: Sequence[str], upright: bool, room: float) -> None:
    axis = panel.xaxis if upright else panel.yaxis
    names = [wrapped(name, room) for name in bars]
    if upright:
        panel.set_xticks(range(len(names)), names)
    else:
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)
    panel.grid(visible=False, axis="x" if upright else "y")
    panel.grid(visible=True, axis="y" if upright else "x")
    axis.set_tick_params(length=0)

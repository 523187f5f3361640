"""Stacked bars: what a sum consists of, such as the time of stages or operators, or energy by cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from neupims_sim.errors import InputError, suggestion
from neupims_sim.plots.drawing import PLOTS
from neupims_sim.plots.frame import check_bars, finish, grid, parts_of, set_ticks
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
SMALL_LETTER, SMALL_LINE = 0.055, 0.14
"""Inches of a digit in a segment, and of its height."""
NAME_INCHES, UPRIGHT_NAME_INCHES = 2.0, 1.2
"""Most room of the name of a bar that lies, and of one that stands."""
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
    check_options(options, ("columns", "x", "panels", "share", "direction", "largest"))
    labels: Labels = options["labels"]
    share, upright = flag(options, "share"), choice(options, "direction", DIRECTIONS) == "vertical"
    columns = _columns(table, listed(options.get("metric", options.get("columns", DEFAULT))))
    x = main_axis(options)
    table, axes = over_seeds(_filled(table, columns), options["axes"], columns, (x,))
    columns, table = _largest(table, columns, count(options, "largest"))
    whole = labels.together([column for column in columns if column != REST])
    names = [column if column == REST else labels.member(column) for column in columns]
    parts = parts_of(table, [axis for axis in axes if axis != x], labels)
    groups = list(table[x].unique()) if x else [None]
    check_bars(len(groups) * len(parts))
    bars = [labels.value(x, value) if x else "" for value in groups]
    along = f"Share of {whole.name[:1].lower()}{whole.name[1:]} (%)" if share else str(whole)
    across = str(labels.column(x)) if x else ""

    width, height = _size(bars, upright)
    figure, panels, per_row = grid(len(parts), width, height, sharex=not upright, sharey=True)
    stacks = [_heights(points, x, groups, columns, whole.factor, share) for _, points in parts]
    longest = max(float(np.nansum(stack, axis=0).max(initial=0.0)) for stack in stacks) or 1.0
    scale = _Scale(upright, share, longest)
    for panel, part, stack in zip(panels, parts, stacks, strict=True):
        _draw_segments(panel, stack, names, scale)
        _write_ends(panel, stack, scale)
        _name_bars(panel, bars, upright)
        panel.set_title(wrapped(part.title, width))
        panel.set_xlabel(wrapped(across if upright else along, width))
        (panel.set_ylim if upright else panel.set_xlim)(0, longest * (1 if share else 1.13))
        set_ticks(panel.yaxis if upright else panel.xaxis, None)
    for panel in panels[::per_row]:
        panel.set_ylabel(wrapped(along if upright else across, height - 0.4))
    handles, entries = panels[0].get_legend_handles_labels()
    return finish(figure, options, handles, entries)


class _Scale(NamedTuple):
    """How bars are drawn: which way, as shares or not, and the longest of all panels in the shown unit."""

    upright: bool
    share: bool
    longest: float


def _size(bars: Sequence[str], upright: bool) -> tuple[float, float]:
    """Width and height of a panel, inches."""
    room = CHARACTER_INCHES * max(map(len, bars))
    if upright:
        return max(2.4, len(bars) * max(BAR_INCHES * 1.3, min(room, UPRIGHT_NAME_INCHES) + 0.25)), PANEL_INCHES
    return PANEL_INCHES + min(room, NAME_INCHES), max(1.4, BAR_INCHES * len(bars) + 0.6)


def _filled(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The table with 0 for a number that is missing beside others, as a stage that a policy does not have."""
    present = table[list(columns)].notna().any(axis=1)
    return table.assign(**{column: table[column].where(table[column].notna() | ~present, 0) for column in columns})


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


def _draw_segments(panel: Axes, stack: FloatArray, names: Sequence[str], scale: _Scale) -> None:
    """Bars with a number in every segment that has room for it."""
    places, start = np.arange(stack.shape[1]), np.zeros(stack.shape[1])
    for index, (name, values) in enumerate(zip(names, np.nan_to_num(stack), strict=True)):
        look = filling(index) | {"linewidth": 0.4, "label": name}
        if scale.upright:
            panel.bar(places, values, THICKNESS, bottom=start, **look)
        else:
            panel.barh(places, values, THICKNESS, left=start, **look)
        colour = PALETTE[index % len(PALETTE)]
        font: dict[str, Any] = {"color": "white" if np.mean(to_rgb(colour)) < DARK else INK, "fontsize": 6.5}
        for place, middle, value in zip(places, start + values / 2, values, strict=True):
            text = short_number(value)
            room = value / scale.longest * (PANEL_INCHES - 0.6)
            if room > (SMALL_LINE if scale.upright else SMALL_LETTER * (len(text) + 1)):
                where = (place, middle) if scale.upright else (middle, place)
                halo = [withStroke(linewidth=2.5, foreground=colour)]
                panel.annotate(text, where, ha="center", va="center", path_effects=halo, **font)
        start += values


def _write_ends(panel: Axes, stack: FloatArray, scale: _Scale) -> None:
    """The sum at the end of every bar (100 % goes without saying), n/a where there is none."""
    for place, values in enumerate(stack.T):
        missing, end = bool(np.isnan(values).all()), float(np.nansum(values))
        text = "n/a" if missing else "" if scale.share else short_number(end)
        where, offset = ((place, end), (0, 2)) if scale.upright else ((end, place), (3, 0))
        panel.annotate(
            text, where, offset, textcoords="offset points", fontsize=7, color=FAINT,
            ha="center" if scale.upright else "left", va="bottom" if scale.upright else "center",
        )  # fmt: skip


def _name_bars(panel: Axes, bars: Sequence[str], upright: bool) -> None:
    axis = panel.xaxis if upright else panel.yaxis
    names = [wrapped(name, UPRIGHT_NAME_INCHES if upright else NAME_INCHES) for name in bars]
    if upright:
        panel.set_xticks(range(len(names)), names)
    else:
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)
    panel.grid(visible=False, axis="x" if upright else "y")
    panel.grid(visible=True, axis="y" if upright else "x")
    axis.set_tick_params(length=0)

"""Grouped bars: a group per value of one axis, in it a bar per value of another (or per column), panels for the rest.

The plots that show such bars fill a :class:`Chart`; how it looks is said here once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from neupims_sim.errors import InputError, shown
from neupims_sim.plots.frame import Sample, check_bars, finish, grid, parts_of, set_ticks
from neupims_sim.plots.options import main_axis, numbers
from neupims_sim.plots.repeats import half_width, over_seeds
from neupims_sim.plots.style import FAINT, INK, filling
from neupims_sim.plots.text import CHARACTER_INCHES, short_number, wrapped
from neupims_sim.sweeps import Labels

FloatArray = npt.NDArray[np.float64]

GROUP_WIDTH = 0.84
"""Width of a group of bars, where 1 is the distance between groups."""
BAR_INCHES, THIN_BAR_INCHES, WIDE_BAR_INCHES = 0.36, 0.1, 0.7
"""Least width of a bar with a number above it, and of one without, and the greatest."""
WIDEST_PANEL = 14.0
"""Inches; bars that need more room lose their numbers and become thin."""
LONGEST_WORD = 1.6
"""Inches; a longer word of a group's name is broken."""
PANEL_HEIGHT = 2.9
NUMBER_POINTS, NOTE_POINTS = 1.5, 10.0
"""How far above a bar its number and its note stand."""
TEXT_SHARE = 0.12
"""Of the height of a panel: number and note, about."""


@dataclass(frozen=True)
class BarSet:
    """The bars of one look in one panel: an entry per group, in the unit of the y axis, NaN where there is none."""

    heights: FloatArray
    errors: FloatArray | None = None
    """Half-widths of what is drawn as a whisker."""
    references: FloatArray | None = None
    """Values from elsewhere, drawn as hollow diamonds."""
    notes: Sequence[str] = ()
    """Above the numbers; "" for none."""
    look: int | None = None
    """Number of the colour (`filling`); the place in the group unless given."""


@dataclass(frozen=True)
class Chart:
    """A figure of grouped bars. ``panels``: title -> entry of the legend ("" for none) -> bars."""

    panels: Sequence[tuple[str, Mapping[str, BarSet]]]
    groups: Sequence[str]
    x_label: str
    y_label: str
    log: bool = False
    own_scales: bool = False
    """Whether every panel has a y axis of its own."""
    line: float | None = None
    """Where a horizontal line stands: what ratios are relative to."""
    line_entry: str = ""
    """What the legend says about it."""
    note_entry: tuple[str, str] | None = None
    """Text of a sample note and what the legend says about it."""
    reference_entry: str = ""
    """What the legend says about the references."""


class Places(NamedTuple):
    """Which axis is what in a chart."""

    x: str | None
    """None: everything is one group."""
    hue: str | None
    groups: list[Any]
    """Values of x; one None where there is no x."""
    hues: list[Any]
    """Values of hue; one None where there is no hue."""
    further: list[str]
    """Axes whose values are panels."""


class Measured(NamedTuple):
    """What :func:`measure` finds: the points to draw, and which axis is what."""

    table: pd.DataFrame
    places: Places


def measure(table: pd.DataFrame, options: Mapping[str, Any], columns: Sequence[str], hue: str | None) -> Measured:
    """The points with means of ``columns`` over the seeds, and x from the options."""
    x = main_axis(options, hue)
    table, axes = over_seeds(table, options["axes"], columns, (x, hue))
    further = [axis for axis in axes if axis not in (x, hue)]
    hues = list(table[hue].unique()) if hue else [None]
    groups = list(table[x].unique()) if x else [None]
    return Measured(table, Places(x, hue, groups, hues, further))


def reference_of(table: pd.DataFrame, options: Mapping[str, Any]) -> str | None:
    """The column of option ``reference``, if it is given."""
    name = options.get("reference")
    if name is not None:
        numbers(table, name, "plot.reference")
    return name


def series(points: pd.DataFrame, places: Places, hue: Any, column: str, factor: float = 1.0) -> FloatArray:
    """A column of the points of one hue, per group."""
    if places.hue is not None:
        points = points[points[places.hue] == hue]
    values = points[column]
    if places.x is not None:
        values = points.set_index(places.x)[column].reindex(places.groups)
    elif values.empty:
        return np.full(1, math.nan)
    return values.to_numpy(dtype=np.float64) * factor


def bar_set(
    points: pd.DataFrame,
    places: Places,
    hue: Any,
    column: str,
    factor: float,
    *,
    error: str | None = None,
    reference: str | None = None,
) -> BarSet:
    """The bars of one hue in a panel; whiskers are column ``error``, or how sure the mean over the seeds is."""

    def values(name: str) -> FloatArray:
        return series(points, places, hue, name, factor)

    return BarSet(values(column), values(error or half_width(column)), None if reference is None else values(reference))


def panels_of(
    measured: Measured, labels: Labels, draw: Callable[[pd.DataFrame], Mapping[str, BarSet]]
) -> list[tuple[str, Mapping[str, BarSet]]]:
    """What ``draw`` makes of the points of every panel."""
    return [(title, draw(points)) for title, points in parts_of(measured.table, measured.places.further, labels)]


def group_names(places: Places, labels: Labels) -> list[str]:
    """What stands below the groups."""
    return [labels.value(places.x, value) if places.x else "" for value in places.groups]


def group_title(places: Places, labels: Labels) -> str:
    """What stands below their names."""
    return str(labels.column(places.x)) if places.x else ""


def hue_names(places: Places, labels: Labels) -> dict[Hashable, str]:
    """What the legend calls the hues; nothing if there is no hue axis. Raises InputError if it would call two of them the same."""
    names = {hue: labels.value(places.hue, hue) if places.hue else "" for hue in places.hues}
    for name in names.values():
        same = [hue for hue in names if names[hue] == name]
        if len(same) > 1:
            raise InputError(
                f"names.{places.hue}: {shown(same[0])} and {shown(same[1])} are both called {shown(name)}; name them apart"
            )
    return names


def draw_chart(chart: Chart, options: Mapping[str, Any]) -> Figure:
    """The figure; raises InputError if it has too many bars to see."""
    check_bars(len(chart.groups) * sum(len(sets) for _, sets in chart.panels))
    size = _Size.of(chart)
    figure, panels, columns = grid(len(chart.panels), size.width, PANEL_HEIGHT, sharey=not chart.own_scales)
    for panel, (title, sets) in zip(panels, chart.panels, strict=True):
        if chart.log:
            panel.set_yscale("log")
        if chart.line is not None:
            panel.axhline(chart.line, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0.9)
        _draw_sets(panel, sets, chart, size.numbers)
        panel.set_xlim(-0.5 - size.margin, len(chart.groups) - 0.5 + size.margin)
        panel.set_xticks(range(len(chart.groups)), [wrapped(name, size.room) for name in chart.groups])
        panel.tick_params(axis="x", length=0, labelrotation=90 if size.upright else 0)
        panel.set_xlabel(chart.x_label)
        panel.set_title(wrapped(title, size.width))
        _scale(panel, chart, sets)
    for panel in panels[::columns]:
        panel.set_ylabel(wrapped(chart.y_label, PANEL_HEIGHT - 0.5))
    handles, names = _legend(panels, chart)
    return finish(figure, options, handles, names)


class _Size(NamedTuple):
    """How large things are in a chart."""

    width: float
    """Of a panel, inches."""
    room: float
    """Of a group's name, inches."""
    numbers: bool
    """Whether there is room for them above the bars."""
    upright: bool
    """Whether the groups' names stand upright."""
    margin: float
    """Left and right of the groups, in distances between groups."""

    @staticmethod
    def of(chart: Chart) -> _Size:
        bars, groups = max(len(sets) for _, sets in chart.panels), len(chart.groups)
        longest = max((len(word) for name in chart.groups for word in name.split()), default=1)
        words = min(LONGEST_WORD, CHARACTER_INCHES * (longest + 1))
        numbers = (BAR_INCHES * (bars + 0.6)) * groups + 0.4 <= WIDEST_PANEL
        bar_room = (BAR_INCHES if numbers else THIN_BAR_INCHES) * (bars + 0.6)
        upright = max(bar_room, words) * groups + 0.4 > WIDEST_PANEL
        room = bar_room if upright else max(bar_room, words)
        width = max(2.4, 0.4 + room * groups)
        bar = (width - 0.4) / groups * GROUP_WIDTH / bars
        margin = groups * max(0.02, (bar / WIDE_BAR_INCHES - 1) / 2)
        return _Size(width, 3.0 if upright else room, numbers, upright, margin)


def _draw_sets(panel: Axes, sets: Mapping[str, BarSet], chart: Chart, numbers: bool) -> None:
    width = GROUP_WIDTH / len(sets)
    text_height = TEXT_SHARE * float(_shown(chart, sets).max(initial=0.0))
    for index, (name, bars) in enumerate(sets.items()):
        places = np.arange(len(bars.heights)) + (index - (len(sets) - 1) / 2) * width
        heights = np.where(bars.heights > 0, bars.heights, math.nan) if chart.log else bars.heights
        panel.bar(
            places,
            np.nan_to_num(heights),
            width * 0.92,
            label=name,
            **filling(index if bars.look is None else bars.look),
        )
        tops = heights
        if bars.errors is not None and np.isfinite(bars.errors).any():
            errors = np.nan_to_num(bars.errors)
            drawn = np.isfinite(heights) & np.isfinite(bars.errors)
            panel.errorbar(
                places[drawn], heights[drawn], errors[drawn], fmt="none", ecolor=INK, elinewidth=0.9, capsize=2
            )
            tops = heights + errors
        if bars.references is not None:
            panel.plot(places, bars.references, **_REFERENCE)
            covered = (bars.references > tops - text_height / 4) & (bars.references < tops + text_height)
            tops = np.where(covered & (not chart.log), bars.references + text_height / 4, tops)
        notes = bars.notes or [""] * len(heights)
        for place, height, top, note in zip(places, heights, tops, notes, strict=True):
            if np.isnan(height):
                _write(panel, "n/a", place, None, 3, color=FAINT, rotation=0 if numbers else 90)
                continue
            if numbers:
                _write(panel, short_number(height), place, max(top, 0), NUMBER_POINTS, color=INK)
                if note:
                    _write(panel, note, place, max(top, 0), NOTE_POINTS, color=FAINT, style="italic")


_REFERENCE: dict[str, Any] = {
    "linestyle": "none", "marker": "D", "markersize": 4.5, "markerfacecolor": "white", "markeredgecolor": INK,
    "markeredgewidth": 1.0, "zorder": 4, "clip_on": False,
}  # fmt: skip


def _write(panel: Axes, text: str, x: float, y: float | None, above: float, **font: Any) -> None:
    """Small text ``above`` a place, in points, that grid lines do not cross; ``y`` None is the foot of the panel."""
    halo = [withStroke(linewidth=2, foreground="white")]
    place = panel.transData if y is not None else panel.get_xaxis_transform()
    font |= {"ha": "center", "fontsize": 7, "path_effects": halo, "zorder": 5}
    panel.annotate(text, (x, y or 0), (0, above), xycoords=place, textcoords="offset points", **font)


def _shown(chart: Chart, sets: Mapping[str, BarSet]) -> FloatArray:
    """All numbers that the y axis of a panel must show."""
    found = [np.zeros(0)]
    for bars in sets.values() if chart.own_scales else [bars for _, every in chart.panels for bars in every.values()]:
        found.append(bars.heights + (0 if bars.errors is None else np.nan_to_num(bars.errors)))
        found += [] if bars.references is None else [bars.references]
    values = np.concatenate(found)
    return values[np.isfinite(values)]


def _scale(panel: Axes, chart: Chart, sets: Mapping[str, BarSet]) -> None:
    """Limits with room for the numbers above the bars; a logarithmic scale starts at a power of ten."""
    if not chart.log:
        set_ticks(panel.yaxis, None)
        panel.margins(y=0.14)
        return
    values = _shown(chart, sets)
    values = values[values > 0]
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    foot = 10.0 ** math.floor(math.log10(low / 1.5))
    panel.set_ylim(foot, high * (high / foot) ** 0.17)
    set_ticks(panel.yaxis, None)


def _legend(panels: Sequence[Axes], chart: Chart) -> tuple[list[Any], list[str]]:
    entries: dict[str, Any] = {}
    for panel in panels:
        for handle in panel.containers:
            name = str(handle.get_label())
            if isinstance(handle, BarContainer) and not name.startswith("_"):  # as Matplotlib calls what has no name
                entries.setdefault(name, handle)
    if chart.line_entry:
        entries[chart.line_entry] = Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    if chart.note_entry is not None:
        sample, text = chart.note_entry
        entries[text] = Sample(sample)
    if chart.reference_entry:
        entries[chart.reference_entry] = Line2D([], [], **_REFERENCE)
    return list(entries.values()), list(entries)


def ratio_text(ratio: float) -> str:
    """``1.50``; a ratio that two decimals do not show, or that needs none, as other numbers."""
    return f"{ratio:.2f}" if 0.1 <= abs(ratio) < 10 else short_number(ratio)

"""Lines over a number, such as the batch size: one colour per configuration, panels for further axes and metrics."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoLocator, FixedLocator, Locator, MaxNLocator

from neupims_sim.errors import InputError, suggestion
from neupims_sim.plots.drawing import PLOTS
from neupims_sim.plots.frame import check_panels, finish, log_locator, set_ticks
from neupims_sim.plots.options import LOGS, axis_option, check_options, choice, flag, listed, numbers
from neupims_sim.plots.repeats import half_width, over_seeds
from neupims_sim.plots.style import FAINT, INK, MARKERS, PALETTE
from neupims_sim.plots.text import CHARACTER_INCHES, plain_number, wrapped
from neupims_sim.sweeps import Labels

PANEL_INCHES = (3.0, 2.4)
FEW_TICKS = 12
"""Up to so many distinct values of x are ticks of their own."""
STYLES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"), ((0, (5, 1, 1, 1, 1, 1)), "v"), ((0, (1, 3)), "P"))


class Layout(NamedTuple):
    """Which columns the plot shows where. ``bounds`` has one entry per entry of ``ys``."""

    x: str
    ys: list[str]
    bounds: list[str | None]
    hue: str | None
    style: str | None
    panels: str | None
    log: str
    ideal: bool


class Line(NamedTuple):
    """How the points of one hue and style look."""

    colour: str
    dashes: Any
    marker: str
    size: float


@PLOTS.register("lines")
def lines(table: pd.DataFrame, options: Mapping[str, Any]) -> Figure:
    """Lines of one column or several over a column of numbers.

    Options: ``x`` (a column of numbers; the last axis unless given), ``y`` (a column, or a list with a row of panels each),
    ``hue`` (axis with one colour per value), ``style`` (axis with one kind of line and marker per value), ``panels`` (axis
    with one panel per value), ``log`` (``"x"``, ``"y"``, ``"xy"``), ``bound`` (a column in the unit of the first y, drawn grey
    and dashed; or a list with a column or null for each y), ``ideal`` (true: from the first point of every line a dotted one that
    grows as x does), ``title``. Values are in the order of the table. A missing number, or one that a logarithmic axis cannot
    show, breaks its line, with a cross at the foot of the panel. Points that differ in their seed only are one point, their mean, in
    a band that is the 95 % confidence interval of the mean.
    """
    layout = _layout(table, options)
    labels: Labels = options["labels"]
    bounds = [bound for bound in layout.bounds if bound is not None]
    places = (layout.x, layout.hue, layout.style, layout.panels)
    averaged = [name for name in (layout.x, *layout.ys, *bounds) if name not in options["axes"]]
    table, axes = over_seeds(table, options["axes"], averaged, places)
    _check_points(table, layout, axes)
    table = _with_bounds(table, layout, labels)
    table = _with_half_widths(table, layout, labels)
    table = table.assign(**{name: _shown(table, name, layout, labels) for name in (layout.x, *layout.ys)})
    parts = list(table.groupby(layout.panels, sort=False)) if layout.panels else [(None, table)]
    check_panels(len(parts), [layout.panels or ""])

    rows, columns = len(layout.ys), len(parts)
    width, height = PANEL_INCHES[0] * columns + 0.7, PANEL_INCHES[1] * rows + 0.9
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(rows, columns, sharex=True, sharey="row", squeeze=False)
    lines = _lines(table, layout)
    for row, (y, bound) in enumerate(zip(layout.ys, layout.bounds, strict=True)):
        for panel, (_, part) in zip(grid[row], parts, strict=True):
            if layout.ideal:
                _draw_ideals(panel, part, layout, y)
            _draw_lines(panel, part, layout, y, lines)
            _mark_missing(panel, part, layout, y, lines)
            if bound is not None:
                _draw_bounds(panel, part, layout, _bound_of(y))
        _scale_y(grid[row][0], table[y], "y" in layout.log)
        grid[row][0].set_ylabel(wrapped(str(labels.column(y)), PANEL_INCHES[1]))
    for panel, (value, _) in zip(grid[0], parts, strict=True):
        if layout.panels:
            title = f"{labels.column(layout.panels).name}: {labels.value(layout.panels, value)}"
            panel.set_title(wrapped(title, PANEL_INCHES[0]))
    for panel in grid[-1]:
        panel.set_xlabel(wrapped(str(labels.column(layout.x)), PANEL_INCHES[0]))
    _scale_x(grid[0][0], table[layout.x], "x" in layout.log)

    handles = _legend(table, layout, lines, labels)
    return finish(figure, options, handles, [str(handle.get_label()) for handle in handles])


def _layout(table: pd.DataFrame, options: Mapping[str, Any]) -> Layout:
    check_options(options, ("x", "y", "hue", "style", "panels", "log", "bound", "ideal"))
    axes = list(options["axes"])
    x = options.get("x", axes[-1] if axes else None)
    y = options.get("metric", options.get("y"))
    for key, value in (("x", x), ("y", y)):
        if value is None or value == []:
            raise InputError(f"plot.{key} is missing; {suggestion('', map(str, table.columns))}")
    ys = listed(y)
    bound = None if "metric" in options else options.get("bound")
    bounds = bound if isinstance(bound, list) else [bound, *[None] * (len(ys) - 1)]
    if len(bounds) != len(ys):
        raise InputError(f"plot.bound={bound!r}: needs a column or null for each of the {len(ys)} of y")
    for name in (x, *ys):
        numbers(table, name, "plot.x" if name == x else "plot.y")
    for bound in bounds:
        if bound is not None:
            numbers(table, bound, "plot.bound")
    log = choice(options, "log", LOGS)
    hue, style, panels = (axis_option(options, key) for key in ("hue", "style", "panels"))
    return Layout(x, ys, bounds, hue, style, panels, log, flag(options, "ideal"))


def _check_points(table: pd.DataFrame, layout: Layout, axes: Sequence[str]) -> None:
    """Raise InputError if a line has several points at one x, because an axis is nowhere in the plot."""
    used = list(dict.fromkeys(key for key in (layout.x, layout.hue, layout.style, layout.panels) if key))
    if not table.dropna(subset=[layout.x]).duplicated(used).any():
        return
    varying = [axis for axis in axes if axis not in used and table[axis].nunique() > 1]
    raise InputError(
        f"plot.x={layout.x!r}: a line would have several points at one x; "
        f"use {' and '.join(varying)} as hue, style or panels"
    )


def _shown(table: pd.DataFrame, name: str, layout: Layout, labels: Labels) -> pd.Series[float]:
    """A column in the unit that it is shown in."""
    values = table[name].astype(float) * labels.column(name).factor
    if ("x" if name == layout.x else "y") not in layout.log:
        return values
    if (values <= 0).any() and name == layout.x:
        raise InputError(f"plot.log={layout.log!r}: {name} has {plain_number(values.min())}, and no logarithm")
    if not (values > 0).any():
        raise InputError(f"plot.log={layout.log!r}: {name} has no positive number")
    return values.where(values > 0)


def _with_bounds(table: pd.DataFrame, layout: Layout, labels: Labels) -> pd.DataFrame:
    """The table with a column for the bound of each y, in the unit of that y."""
    for y, bound in zip(layout.ys, layout.bounds, strict=True):
        if bound is not None:
            values = table[bound].astype(float) * labels.column(y).factor
            table = table.assign(**{_bound_of(y): values.where(values > 0) if "y" in layout.log else values})
    return table


def _with_half_widths(table: pd.DataFrame, layout: Layout, labels: Labels) -> pd.DataFrame:
    """The table with how sure each y is in the unit that it is shown in."""
    widths = {half_width(y): table[half_width(y)] * labels.column(y).factor for y in layout.ys if y != layout.x}
    return table.assign(**widths)


def _bound_of(y: str) -> str:
    return f"bound of {y}"


def _lines(table: pd.DataFrame, layout: Layout) -> dict[tuple[Any, Any], Line]:
    """The look of every line by its hue and style. Without ``style``, each hue has its own marker, for grey print."""
    hues = list(table[layout.hue].unique()) if layout.hue else [None]
    styles = list(table[layout.style].unique()) if layout.style else [None]
    looks = {}
    for (i, hue), (j, style) in itertools.product(enumerate(hues), enumerate(styles)):
        dashes, marker = STYLES[j % len(STYLES)]
        if not layout.style:  # colours that come round again are told apart by their dashes
            dashes, marker = STYLES[i // len(PALETTE) % len(STYLES)][0], MARKERS[i % len(MARKERS)]
        colour = PALETTE[i % len(PALETTE)] if layout.hue else PALETTE[2]
        looks[hue, style] = Line(colour, dashes, marker, _marker_size(i, len(hues)))
    return looks


def _marker_size(index: int, count: int) -> float:
    """Larger for the earlier of ``count`` hues, so that a line which lies below another stays visible."""
    return 4.0 + min(1.6, 4.0 / count) * (count - 1 - index)


def _groups(part: pd.DataFrame, layout: Layout) -> Iterator[tuple[tuple[Any, Any], pd.DataFrame]]:
    """The points of each line, from small x to large, with its hue and style."""
    part = part.dropna(subset=[layout.x]).sort_values(layout.x, kind="stable")
    keys = [key for key in (layout.hue, layout.style) if key]
    if not keys:
        yield (None, None), part
        return
    for values, group in part.groupby(keys, sort=False):
        hue = values[0] if layout.hue else None
        yield (hue, values[-1] if layout.style else None), group


def _draw_lines(panel: Axes, part: pd.DataFrame, layout: Layout, y: str, lines: Mapping[Any, Line]) -> None:
    groups = dict(_groups(part, layout))
    for key, line in lines.items():
        if key in groups:
            points = groups[key]
            panel.plot(points[layout.x], points[y], color=line.colour, **_drawn(line))
            if half_width(y) in points and points[half_width(y)].notna().any():
                low, high = points[y] - points[half_width(y)], points[y] + points[half_width(y)]
                if "y" in layout.log:
                    low = low.where(low > 0, points[y] / 2)
                panel.fill_between(points[layout.x], low, high, color=line.colour, alpha=0.2, linewidth=0)


def _mark_missing(panel: Axes, part: pd.DataFrame, layout: Layout, y: str, lines: Mapping[Any, Line]) -> None:
    """A cross at the foot of the panel for every number that a line lacks; those at one x stand above each other."""
    above: Counter[float] = Counter()
    for key, points in _groups(part, layout):
        for x in points.loc[points[y].isna(), layout.x]:
            height = CROSS_SHARE * above[x]
            look: dict[str, Any] = _CROSS | {"color": lines[key].colour}
            panel.plot([x], [height], transform=panel.get_xaxis_transform(), **look)
            above[x] += 1


def _draw_ideals(panel: Axes, part: pd.DataFrame, layout: Layout, y: str) -> None:
    """For every line, what it would be if it grew as x does from its first point on; each different one once."""
    drawn: list[tuple[float, float]] = []
    for _, points in _groups(part, layout):
        known = points[(points[layout.x] > 0) & points[y].notna()]
        if len(known) < 2:
            continue
        x, first = known[layout.x].to_numpy(), float(known[y].iloc[0])
        slope = first / x[0], x[0]
        if slope not in drawn:
            drawn.append(slope)
            panel.plot(x, first * x / x[0], **_IDEAL)


def _draw_bounds(panel: Axes, part: pd.DataFrame, layout: Layout, bound: str) -> None:
    """The bounds of all lines, each different one once."""
    drawn: list[pd.DataFrame] = []
    for _, points in _groups(part, layout):
        values = points[[layout.x, bound]].reset_index(drop=True)
        if not any(values.equals(other) for other in drawn):
            drawn.append(values)
            panel.plot(values[layout.x], values[bound], **_BOUND)


CROSS_SHARE = 0.05
"""Of the height of a panel, from a cross to the next above it."""
_CROSS: dict[str, Any] = {"linestyle": "none", "marker": "x", "markersize": 4.5, "zorder": 3, "clip_on": False}
_IDEAL: dict[str, Any] = {"color": FAINT, "linestyle": (0, (1, 2)), "linewidth": 1.0, "zorder": 1.4}
_BOUND: dict[str, Any] = {"color": FAINT, "linestyle": (0, (4, 3)), "linewidth": 1.0, "zorder": 1.5}


def _legend(table: pd.DataFrame, layout: Layout, lines: Mapping[Any, Line], labels: Labels) -> list[Line2D]:
    handles = []
    both = layout.hue is not None and layout.style is not None
    if layout.hue:
        for hue in table[layout.hue].unique():
            line = next(line for key, line in lines.items() if key[0] == hue)
            look: dict[str, Any] = {"linestyle": "-", "linewidth": 3} if both else _drawn(line)
            handles.append(Line2D([], [], color=line.colour, **look, label=_entry(labels, layout.hue, hue)))
    if layout.style:
        for style in table[layout.style].unique():
            line = next(line for key, line in lines.items() if key[1] == style)
            colour = INK if both else line.colour
            handles.append(Line2D([], [], color=colour, **_drawn(line), label=_entry(labels, layout.style, style)))
    if any(layout.bounds):
        handles.append(Line2D([], [], **_BOUND, label="bound"))
    if table[layout.ys].isna().any(axis=None):
        handles.append(Line2D([], [], **_CROSS, color=FAINT, label="no number (failed or not run)"))
    if layout.ideal:
        handles.append(Line2D([], [], **_IDEAL, label="proportional to x"))
    return handles


def _drawn(line: Line) -> dict[str, Any]:
    return {"linestyle": line.dashes, "marker": line.marker, "linewidth": 1.4, "markersize": line.size}


def _entry(labels: Labels, axis: str, value: Any) -> str:
    """A value in the legend; a bare number says of what it is."""
    text = labels.value(axis, value)
    if isinstance(value, str) or labels.has_name(axis, value):
        return text
    shown = labels.column(axis)
    return f"{shown.name} = {text} {shown.unit}".rstrip()


def _scale_x(panel: Axes, values: pd.Series[float], log: bool) -> None:
    """Ticks at the values themselves if they are few, thinned out where their numbers would touch."""
    if log:
        panel.set_xscale("log")
        _centre(panel.set_xlim, values)
    distinct = np.unique(values.dropna())
    if len(distinct) <= FEW_TICKS:
        locator: Locator = FixedLocator(_apart(distinct, log))
    else:
        locator = log_locator(distinct[0], distinct[-1]) if log else MaxNLocator(5)
    set_ticks(panel.xaxis, locator)


def _apart(values: np.ndarray[Any, Any], log: bool) -> list[float]:
    """Those of sorted values, first and last among them, whose numbers do not touch when written along x."""
    places = np.log(values) if log else values
    inches = PANEL_INCHES[0] * 0.85 / (places[-1] - places[0]) if len(values) > 1 else 0
    halves = [CHARACTER_INCHES * len(plain_number(value)) / 2 + 0.03 for value in values]

    def apart(left: int, right: int) -> bool:
        return bool((places[right] - places[left]) * inches >= halves[left] + halves[right])

    last = len(values) - 1
    kept = [0]
    for index in range(1, last):
        if apart(kept[-1], index) and apart(index, last):
            kept.append(index)
    return [float(values[index]) for index in dict.fromkeys((*kept, last))]


def _scale_y(panel: Axes, values: pd.Series[float], log: bool) -> None:
    low, high = values.min(), values.max()
    if not log:
        if low >= 0:
            panel.set_ylim(bottom=0)
        set_ticks(panel.yaxis, AutoLocator())
        return
    panel.set_yscale("log")
    _centre(panel.set_ylim, values)
    set_ticks(panel.yaxis, log_locator(low, high))


def _centre(set_limits: Callable[[float, float], object], values: pd.Series[float]) -> None:
    """Put a single value into the middle of a logarithmic axis."""
    if values.min() == values.max():
        set_limits(values.min() / 10, values.max() * 10)

"""Two metrics against each other, and the points that no other beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import Locator

from neupims_sim.errors import InputError, suggestion
from neupims_sim.plots.drawing import PLOTS
from neupims_sim.plots.frame import finish, grid, log_locator, parts_of, set_ticks
from neupims_sim.plots.options import LOGS, axis_option, check_options, choice, listed, numbers
from neupims_sim.plots.placing import Named, place_names
from neupims_sim.plots.ratios import BETTER
from neupims_sim.plots.repeats import over_seeds
from neupims_sim.plots.style import FAINT, INK, MARKERS, PALETTE
from neupims_sim.plots.text import wrapped
from neupims_sim.sweeps import Labels

FloatArray = npt.NDArray[np.float64]

PANEL_INCHES = (4.0, 3.2)
LABEL_INCHES = 2.4
"""Of the label of an axis."""
FEW_POINTS = 16
"""So many points of a panel have names without being asked for."""


@PLOTS.register("pareto")
def pareto(table: pd.DataFrame, options: Mapping[str, Any]) -> Figure:
    """A point per configuration, and a line of steps along those that are not beaten (the Pareto front).

    Options: ``x`` and ``y`` (columns of numbers; y is throughput unless given), ``better`` (which values of x and of y are good:
    ``[lower, higher]`` unless given), ``hue`` (axis with one colour and marker per value), ``names`` (axis, or axes, whose values stand
    beside the points; all that vary but hue where points are few; ``[]`` for none), ``panels`` (axis with one panel per value),
    ``log`` (``"x"``, ``"y"``, ``"xy"``), ``title``. A point is beaten if another is at least as good in both and better in one. Points
    that differ in their seed only are one point, their mean.
    """
    check_options(options, ("x", "y", "better", "hue", "names", "panels", "log"))
    labels: Labels = options["labels"]
    y = options.get("metric", options.get("y", "throughput_tokens_per_s"))
    if options.get("x") is None:
        raise InputError("plot.x is missing: it needs a column of numbers, such as average_power_w")
    x, log, better = options["x"], choice(options, "log", LOGS), _better(options)
    for key, name in (("plot.x", x), ("plot.y", y)):
        numbers(table, name, key)
    hue, panels_axis = axis_option(options, "hue"), axis_option(options, "panels")
    table, axes = over_seeds(table, options["axes"], [c for c in (x, y) if c not in options["axes"]], (x, y, hue))
    parts = parts_of(table, [panels_axis] if panels_axis else [], labels)
    hues = list(table[hue].unique()) if hue else [None]
    varying = [axis for axis in axes if axis not in (hue, panels_axis, x, y) and table[axis].nunique() > 1]
    named = _named_axes(options, varying, max(len(part.table) for part in parts))

    figure, panels, columns = grid(len(parts), *PANEL_INCHES, sharex=True, sharey=True)
    shown_x, shown_y = labels.column(x), labels.column(y)
    notes: list[tuple[Axes, list[Named]]] = []
    places = [
        (_shown(part.table[x], shown_x.factor, "x" in log), _shown(part.table[y], shown_y.factor, "y" in log))
        for part in parts
    ]
    ticks = [_locator([place[number] for place in places]) if name in log else None for number, name in enumerate("xy")]
    for panel, part, (xs, ys) in zip(panels, parts, places, strict=True):
        _draw_points(panel, xs, ys, [None] * len(xs) if hue is None else list(part.table[hue]), hues)
        panel.set(xscale="log" if "x" in log else "linear", yscale="log" if "y" in log else "linear")
        for axis, locator in zip((panel.xaxis, panel.yaxis), ticks, strict=True):
            set_ticks(axis, locator)
        panel.set_title(wrapped(part.title, PANEL_INCHES[0]))
        panel.set_xlabel(f"{wrapped(str(shown_x), LABEL_INCHES)}\n{better[0]} is better")
        notes.append((panel, _names(part.table, named, xs, ys, labels)))
    for panel, (xs, ys) in zip(panels, places, strict=True):
        _draw_front(panel, xs, ys, better)
    for panel in panels[::columns]:
        panel.set_ylabel(f"{wrapped(str(shown_y), LABEL_INCHES)}\n{better[1]} is better")
    handles = [Line2D([], [], **_look(index, True)) for index in range(len(hues))] if hue else []
    entries = [labels.value(hue, value) for value in hues] if hue else []
    finish(figure, options, [*handles, Line2D([], [], **_FRONT)], [*entries, "Pareto front"])
    place_names(figure, notes, _EMPTY_SIDE[better])
    return figure


def not_beaten(xs: FloatArray, ys: FloatArray, better: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which points no other beats; points with NaN are not compared."""
    gain_x = xs if better[0] == "higher" else -xs
    gain_y = ys if better[1] == "higher" else -ys
    known = np.isfinite(gain_x) & np.isfinite(gain_y)
    front = np.zeros(len(xs), bool)
    best = highest = group = -np.inf  # of y among larger x; of y, and x, among those alike in x
    for index in np.lexsort((-gain_y, -gain_x)):
        if not known[index]:
            continue
        if gain_x[index] != group:
            best, highest, group = max(best, highest), gain_y[index], gain_x[index]
        front[index] = gain_y[index] == highest > best
    return front


def _draw_points(panel: Axes, xs: FloatArray, ys: FloatArray, of: Sequence[Any], hues: Sequence[Any]) -> None:
    """Points by the colour of the hue that each is ``of``, and how many have no place."""
    for index, hue in enumerate(hues):
        own = np.array([value == hue for value in of], bool)
        panel.plot(xs[own], ys[own], **_look(index, hue is not None))
    panel.margins(0.12)
    panel.grid(visible=True, axis="both")
    missing = int((np.isnan(xs) | np.isnan(ys)).sum())
    if missing:
        panel.text(0.99, 0.01, f"n/a: {missing}", transform=panel.transAxes, color=FAINT, fontsize=7, ha="right")


_EMPTY_SIDE = {
    ("lower", "higher"): 135,
    ("higher", "higher"): 45,
    ("lower", "lower"): -135,
    ("higher", "lower"): -45,
}
"""Degrees: beyond the front there is no point."""
_FRONT: dict[str, Any] = {"color": INK, "linewidth": 1.0, "linestyle": (0, (4, 2)), "zorder": 1.5}


def _draw_front(panel: Axes, xs: FloatArray, ys: FloatArray, better: Sequence[str]) -> None:
    """Steps along the points that are not beaten, from edge to edge."""
    front = not_beaten(xs, ys, better)
    if not front.any():
        return
    limits = panel.get_xlim(), panel.get_ylim()
    order = np.argsort(xs[front] if better[0] == "lower" else -xs[front], kind="stable")
    worst_x, worst_y = (side[1 if word == "lower" else 0] for side, word in zip(limits, better, strict=True))
    front_x, front_y = xs[front][order], ys[front][order]
    line_x, line_y = np.append(front_x, worst_x), np.append(front_y, front_y[-1])
    panel.plot([line_x[0], line_x[0]], [worst_y, line_y[0]], **_FRONT)
    panel.step(line_x, line_y, where="post", **_FRONT)
    panel.set(xlim=limits[0], ylim=limits[1])


def _look(index: int, coloured: bool) -> dict[str, Any]:
    colour = PALETTE[index % len(PALETTE)] if coloured else PALETTE[2]
    turn = index // len(PALETTE)
    return {
        "linestyle": "none", "marker": MARKERS[(index + turn) % len(MARKERS)], "color": colour, "markersize": 5.5,
        "markeredgecolor": "white", "markeredgewidth": 0.6,
    }  # fmt: skip


def _shown(values: pd.Series[float], factor: float, log: bool) -> FloatArray:
    shown = values.astype(float) * factor
    return np.asarray(shown.where(shown > 0) if log else shown, dtype=np.float64)


def _locator(values: Sequence[FloatArray]) -> Locator | None:
    """Ticks of a logarithmic axis."""
    known = np.concatenate(values)
    known = known[np.isfinite(known)]
    return log_locator(float(known.min()), float(known.max())) if len(known) else None


def _names(table: pd.DataFrame, axes: Sequence[str], xs: FloatArray, ys: FloatArray, labels: Labels) -> list[Named]:
    found = []
    for row, x, y in zip(table.to_dict("records"), xs, ys, strict=True):
        if axes and np.isfinite(x) and np.isfinite(y):
            found.append(Named(float(x), float(y), ", ".join(labels.value(axis, row[axis]) for axis in axes)))
    return found


def _named_axes(options: Mapping[str, Any], varying: list[str], points: int) -> list[str]:
    stated = options.get("names")
    if stated is None:
        return varying if points <= FEW_POINTS else []
    for axis in listed(stated):
        if axis not in options["axes"]:
            raise InputError(f"plot.names={axis!r}: no such axis; {suggestion(str(axis), options['axes'])}")
    return listed(stated)


def _better(options: Mapping[str, Any]) -> tuple[str, str]:
    stated = options.get("better", ["lower", "higher"])
    if not isinstance(stated, list) or len(stated) != 2 or any(word not in BETTER for word in stated):
        raise InputError(f"plot.better={stated!r}: needs which is better for x and for y, such as [lower, higher]")
    return stated[0], stated[1]

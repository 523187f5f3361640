"""Grouped bars of any metric: how configurations compare, one panel for each value of the further axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, NullLocator

from neupims_sim.errors import InputError, suggestion
from neupims_sim.plots.drawing import PLOTS, check_options, column, numbers
from neupims_sim.plots.style import FAINT, INK, PALETTE
from neupims_sim.plots.text import (
    CHARACTER_INCHES,
    SUPERTITLE_INCHES,
    legend_columns,
    plain_number,
    short_number,
    wrapped,
)
from neupims_sim.sweeps import Labels

GROUP_WIDTH = 0.84
"""Width of a group of bars, where 1 is the distance between groups."""
PANELS_PER_ROW = 3


@PLOTS.register("throughput_bars")
def throughput_bars(table: pd.DataFrame, options: Mapping[str, Any]) -> Figure:
    """Bars of one metric, with their ratio to a baseline above them.

    Options: ``x`` (axis with one group of bars per value; the last axis unless given), ``hue`` (axis with one colour per
    value), ``metric`` (throughput unless given), ``baseline`` (value of ``hue`` to compare with), ``log`` (true for a
    logarithmic scale), ``title``. Values are in the order of the table.
    """
    check_options(options, ("x", "hue", "baseline", "log"))
    labels: Labels = options["labels"]
    log = options.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"plot.log={log!r}: must be true or false")
    axes = list(options["axes"])
    if not axes:
        raise InputError("throughput_bars needs an axis, and the sweep's grid is empty")
    x = column(table, options.get("x", axes[-1]), "plot.x")
    hue = column(table, options["hue"], "plot.hue") if "hue" in options else None
    metric = options.get("metric", "throughput_tokens_per_s")
    table = table.assign(**{metric: numbers(table, metric, "metric")}).drop_duplicates(axes)
    if log and not (table[metric] > 0).any():
        raise InputError(f"plot.log: {metric} has no positive number")
    hues = list(table[hue].unique()) if hue else [None]
    baseline = options.get("baseline")
    if baseline is not None and baseline not in hues:
        raise InputError(
            f"plot.baseline={baseline!r}: no such value of {hue}; {suggestion(str(baseline), map(str, hues))}"
        )
    further = [axis for axis in axes if axis not in (x, hue) and table[axis].nunique() > 1]
    parts = list(table.groupby(further, sort=False)) if further else [((), table)]

    groups = list(table[x].unique())
    columns = 2 if len(parts) == 4 else min(len(parts), PANELS_PER_ROW)
    rows = -(-len(parts) // columns)
    names = [labels.value(x, value) for value in groups]
    room = max(
        0.36 * (len(hues) + 0.6), *(CHARACTER_INCHES * (len(word) + 1) for name in names for word in name.split())
    )
    width = max(2.4, 0.4 + room * len(groups))
    whole = width * columns + 0.6
    figure = Figure(figsize=(whole, 2.9 * rows + 0.6))
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    label = labels.column(metric)
    for panel, (values, part) in zip(panels, parts, strict=False):
        bars = {
            value: (part if hue is None else part[part[hue] == value]).set_index(x)[metric].reindex(groups)
            * label.factor
            for value in hues
        }
        if log:
            panel.set_yscale("log")
            bars = {value: heights.where(heights > 0) for value, heights in bars.items()}
        _draw_bars(panel, {labels.value(hue, v) if hue else "": b for v, b in bars.items()}, bars.get(baseline))
        panel.set_xticks(range(len(groups)), [wrapped(name, room) for name in names])
        panel.tick_params(axis="x", length=0)
        panel.set_xlabel(str(labels.column(x)))
        place = [f"{labels.column(a).name}: {labels.value(a, v)}" for a, v in zip(further, values, strict=True)]
        panel.set_title(wrapped(", ".join(place), width))
    for panel in panels[len(parts) :]:
        panel.set_axis_off()
    for panel in panels[::columns]:
        panel.set_ylabel(wrapped(str(label), 2.4))
    _scale(panels[0], table[metric] * label.factor, log)

    figure.suptitle(wrapped(options["title"], whole, SUPERTITLE_INCHES) if options["title"] else "")
    if hue:
        handles, entries = panels[0].get_legend_handles_labels()
        if baseline is not None:
            handles.append(
                Line2D([], [], marker="$n×$", markersize=11, markeredgewidth=0, color=FAINT, linestyle="none")
            )
            entries.append(f"relative to {labels.value(hue, baseline)}")
        figure.legend(handles, entries, loc="outside lower center", ncols=legend_columns(entries, whole))
    return figure


def _draw_bars(panel: Axes, bars: Mapping[str, pd.Series[float]], baseline: pd.Series[float] | None) -> None:
    """A group of bars per index of the series, and in it one bar per series; a missing number gets a mark."""
    width = GROUP_WIDTH / len(bars)
    for index, (name, heights) in enumerate(bars.items()):
        places = np.arange(len(heights)) + (index - (len(bars) - 1) / 2) * width
        colour = PALETTE[index % len(PALETTE)]
        panel.bar(places, heights.fillna(0), width * 0.92, color=colour, label=name)
        ratios = heights / baseline if baseline is not None and heights is not baseline else heights * np.nan
        for place, height, ratio in zip(places, heights, ratios, strict=True):
            if np.isnan(height):
                _write(panel, "n/a", place, None, 3, color=FAINT)
                continue
            _write(panel, short_number(height), place, max(height, 0), 1.5, color=INK)
            if np.isfinite(ratio):
                _write(panel, f"{_ratio(ratio)}×", place, max(height, 0), 10, color=FAINT, style="italic")


def _write(panel: Axes, text: str, x: float, y: float | None, above: float, **font: Any) -> None:
    """Small text ``above`` a place, in points, that grid lines do not cross; ``y`` None is the foot of the panel."""
    halo = [withStroke(linewidth=2, foreground="white")]
    place = panel.transData if y is not None else panel.get_xaxis_transform()
    font |= {"ha": "center", "fontsize": 7, "path_effects": halo}
    panel.annotate(text, (x, y or 0), (0, above), xycoords=place, textcoords="offset points", **font)


def _ratio(ratio: float) -> str:
    """``1.50``; a ratio that two decimals do not show, or that needs none, as other numbers."""
    return f"{ratio:.2f}" if 0.1 <= abs(ratio) < 10 else short_number(ratio)


def _scale(panel: Axes, values: pd.Series[float], log: bool) -> None:
    """Limits with room for the numbers above the bars; a logarithmic scale starts at a power of ten."""
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
    if not log:
        panel.margins(y=0.14)
        return
    low, high = values[values > 0].min(), values.max()
    foot = 10.0 ** math.floor(math.log10(low / 1.5))
    panel.set_ylim(foot, high * (high / foot) ** 0.17)
    panel.yaxis.set_minor_locator(NullLocator())

"""Grouped bars: how configurations compare, one panel for each value of the further axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from neupims_sim.errors import InputError, suggestion
from neupims_sim.plots.drawing import PLOTS, check_options, column
from neupims_sim.plots.style import FAINT, INK, PALETTE
from neupims_sim.sweeps import axis_label, metric_label, value_label

GROUP_WIDTH = 0.84
"""Width of a group of bars, where 1 is the distance between groups."""
PANELS_PER_ROW = 3


@PLOTS.register("throughput_bars")
def throughput_bars(table: pd.DataFrame, options: Mapping[str, Any]) -> Figure:
    """Bars of one metric, with their ratio to a baseline above them.

    Options: ``x`` (axis with one group of bars per value; the last axis unless given), ``hue`` (axis with one colour per
    value), ``metric`` (throughput unless given), ``baseline`` (value of ``hue`` to compare with), ``title``. Values are in
    the order of the table.
    """
    check_options(options, ("x", "hue", "baseline"))
    axes = list(options["axes"])
    if not axes:
        raise InputError("throughput_bars needs an axis, and the sweep's grid is empty")
    x = column(table, options.get("x", axes[-1]), "plot.x")
    hue = column(table, options["hue"], "plot.hue") if "hue" in options else None
    metric = column(table, options.get("metric", "throughput_tokens_per_s"), "metric")
    if not pd.api.types.is_numeric_dtype(table[metric]) or table[metric].isna().all():
        raise InputError(f"metric={metric!r}: no number in this column of points.csv")
    hues = list(table[hue].unique()) if hue else [None]
    baseline = options.get("baseline")
    if baseline is not None and baseline not in hues:
        raise InputError(
            f"plot.baseline={baseline!r}: no such value of {hue}; {suggestion(str(baseline), map(str, hues))}"
        )
    further = [axis for axis in axes if axis not in (x, hue) and table[axis].nunique() > 1]
    parts = list(table.groupby(further, sort=False)) if further else [((), table)]

    groups = list(table[x].unique())
    columns = min(len(parts), PANELS_PER_ROW)
    rows = -(-len(parts) // columns)
    width = max(2.4, 0.4 + 0.36 * len(groups) * (len(hues) + 0.6))
    figure = Figure(figsize=(width * columns + 0.6, 2.9 * rows + 0.6))
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    label = metric_label(metric)
    for panel, (values, part) in zip(panels, parts, strict=False):
        bars = {
            value: (part if hue is None else part[part[hue] == value]).set_index(x)[metric].reindex(groups)
            * label.factor
            for value in hues
        }
        _draw_bars(panel, bars, bars.get(baseline))
        panel.set_xticks(range(len(groups)), [value_label(value) for value in groups])
        panel.tick_params(axis="x", length=0)
        panel.set_xlabel(axis_label(x))
        panel.set_title(", ".join(f"{axis_label(a)}: {value_label(v)}" for a, v in zip(further, values, strict=True)))
    for panel in panels[len(parts) :]:
        panel.set_axis_off()
    for panel in panels[::columns]:
        panel.set_ylabel(str(label))
    panels[0].margins(y=0.14)

    figure.suptitle(options["title"])
    if hue:
        handles, names = panels[0].get_legend_handles_labels()
        if baseline is not None:
            handles.append(
                Line2D([], [], marker="$n×$", markersize=11, markeredgewidth=0, color=FAINT, linestyle="none")
            )
            names.append(f"relative to {value_label(baseline)}")
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def _draw_bars(panel: Axes, bars: Mapping[Any, pd.Series[float]], baseline: pd.Series[float] | None) -> None:
    """A group of bars per index of the series, and in it one bar per series; a missing number gets a mark."""
    width = GROUP_WIDTH / len(bars)
    for index, (value, heights) in enumerate(bars.items()):
        places = np.arange(len(heights)) + (index - (len(bars) - 1) / 2) * width
        colour = PALETTE[index % len(PALETTE)]
        panel.bar(places, heights.fillna(0), width * 0.92, color=colour, label=value_label(value))
        ratios = heights / baseline if baseline is not None and heights is not baseline else heights * np.nan
        for place, height, ratio in zip(places, heights, ratios, strict=True):
            if np.isnan(height):
                _write(panel, "n/a", place, 0, 3, color=FAINT)
                continue
            _write(panel, _digits(height), place, height, 1.5, color=INK)
            if np.isfinite(ratio):
                _write(panel, f"{ratio:.2f}×", place, height, 10, color=FAINT, style="italic")


def _write(panel: Axes, text: str, x: float, y: float, above: float, **font: Any) -> None:
    """Small text ``above`` a place, in points, that grid lines do not cross."""
    halo = [withStroke(linewidth=2, foreground="white")]
    panel.annotate(
        text, (x, y), (0, above), textcoords="offset points", ha="center", fontsize=7, path_effects=halo, **font
    )


def _digits(number: float) -> str:
    """Three significant digits, at most two decimals."""
    return f"{number:.{max(0, min(2, 2 - int(np.floor(np.log10(number)))))}f}" if number > 0 else "0"

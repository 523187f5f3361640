"""Grouped bars of any metric: how configurations compare, one panel for each value of the further axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from neupims_sim.errors import InputError
from neupims_sim.plots.bars import (
    BarSet,
    Chart,
    bar_set,
    draw_chart,
    group_names,
    group_title,
    hue_names,
    measure,
    panels_of,
    ratio_text,
    reference_of,
)
from neupims_sim.plots.drawing import PLOTS
from neupims_sim.plots.options import axis_option, check_options, flag, numbers, value_of
from neupims_sim.sweeps import Labels


@PLOTS.register("throughput_bars")
def throughput_bars(table: pd.DataFrame, options: Mapping[str, Any]) -> Figure:
    """Bars of one metric, with their ratio to a baseline above them.

    Options: ``x`` (axis with one group of bars per value; the last axis unless given), ``hue`` (axis with one colour per
    value), ``panels`` (axes that are neither), ``metric`` (throughput unless given), ``baseline`` (value of
    ``hue`` to compare with), ``log`` (true for a logarithmic scale), ``own_scales`` (true:
    every panel has a y axis of its own), ``error`` (column with the half-width of
    whiskers; over seeds they are the 95 % confidence interval of the mean), ``reference`` (column with values from elsewhere,
    drawn as diamonds), ``title``. Values are in the order of the table.
    """
    check_options(options, ("x", "hue", "panels", "baseline", "log", "own_scales", "error", "reference"))
    labels: Labels = options["labels"]
    log, reference, error = flag(options, "log"), reference_of(table, options), options.get("error")
    metric = options.get("metric", "throughput_tokens_per_s")
    table = table.assign(**{metric: numbers(table, metric, "metric")})
    if log and not (table[metric] > 0).any():
        raise InputError(f"plot.log: {metric} has no positive number")
    averaged = [metric, *([reference] if reference else [])]
    if error is not None:
        numbers(table, error, "plot.error")
        averaged.append(error)
    measured = measure(table, options, averaged, axis_option(options, "hue"))
    places, label = measured.places, labels.column(metric)
    baseline = options.get("baseline")
    if baseline is not None:
        if places.hue is None:
            raise InputError(f"plot.baseline={baseline!r}: is a value of plot.hue, which is missing")
        baseline = value_of(measured.table, places.hue, baseline, "plot.baseline")
    names = hue_names(places, labels)

    def panel(points: pd.DataFrame) -> dict[str, BarSet]:
        bars = {
            hue: bar_set(points, places, hue, metric, label.factor, error=error, reference=reference) for hue in names
        }
        if baseline is not None:
            base = bars[baseline].heights
            bars = {
                hue: bars_of if hue == baseline else replace(bars_of, notes=_ratios(bars_of, base))
                for hue, bars_of in bars.items()
            }
        return {names[hue]: bars_of for hue, bars_of in bars.items()}

    chart = Chart(
        panels_of(measured, labels, panel),
        group_names(places, labels),
        group_title(places, labels),
        str(label),
        log=log,
        own_scales=flag(options, "own_scales"),
        note_entry=None if baseline is None else ("n×", f"relative to {names[baseline]}"),
        reference_entry="" if reference is None else labels.column(reference).name,
    )
    return draw_chart(chart, options)


def _ratios(bars: BarSet, base: np.ndarray[Any, np.dtype[np.float64]]) -> list[str]:
    with np.errstate(all="ignore"):
        ratios = bars.heights / base
    return [f"{ratio_text(ratio)}×" if np.isfinite(ratio) else "" for ratio in ratios]

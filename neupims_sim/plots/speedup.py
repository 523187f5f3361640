"""Bars of how many times as good a configuration is as a baseline."""

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
    reference_of,
)
from neupims_sim.plots.drawing import PLOTS
from neupims_sim.plots.options import check_options, choice, flag, needed_axis, numbers, value_of
from neupims_sim.plots.ratios import BETTER, ratio_label, relative_to
from neupims_sim.sweeps import Labels

RATIO = "speedup"
"""Column of the ratios."""
MEAN = "Geometric mean"


@PLOTS.register("speedup")
def speedup(table: pd.DataFrame, options: Mapping[str, Any]) -> Figure:
    """Bars of the ratio of a metric to that of a baseline, which is a line at 1.

    Options: ``hue`` (axis that has the baseline; required), ``baseline`` (value of ``hue``; the first unless given), ``x``, ``panels``,
    ``metric`` (throughput unless given), ``better`` (``lower`` for cycles and the like: the ratio is baseline / value), ``mean``
    (true for a last group with the geometric mean over the groups), ``reference`` (column with ratios from elsewhere), ``log``,
    ``title``. Ratios are taken seed by seed; whiskers are the 95 % confidence interval of their mean.
    """
    check_options(options, ("x", "hue", "panels", "baseline", "better", "mean", "reference", "log"))
    labels: Labels = options["labels"]
    hue, better, with_mean = needed_axis(options, "hue"), choice(options, "better", BETTER), flag(options, "mean")
    metric = options.get("metric", "throughput_tokens_per_s")
    numbers(table, metric, "metric")
    baseline = value_of(table, hue, options.get("baseline", table[hue].iloc[0]), "plot.baseline")
    if table[hue].nunique() == 1:
        raise InputError(f"plot.hue={hue!r}: has no value but the baseline {baseline!r}")
    reference = reference_of(table, options)
    table = table.drop_duplicates(list(options["axes"]))
    table = table.assign(**{RATIO: relative_to(table, options["axes"], hue, baseline, metric, better)})
    measured = measure(table, options, [RATIO, *([reference] if reference else [])], hue)
    places = measured.places
    names = {value: name for value, name in hue_names(places, labels).items() if value != baseline}

    def panel(points: pd.DataFrame) -> dict[str, BarSet]:
        bars = {
            name: replace(bar_set(points, places, hue, RATIO, 1, reference=reference), look=places.hues.index(hue))
            for hue, name in names.items()
        }
        return {name: _with_mean(one) for name, one in bars.items()} if with_mean else bars

    chart = Chart(
        panels_of(measured, labels, panel),
        [*group_names(places, labels), *([MEAN] if with_mean else [])],
        group_title(places, labels),
        ratio_label(labels.column(metric).name, labels.value(hue, baseline), better),
        log=flag(options, "log"),
        line=1,
        line_entry=f"{labels.value(hue, baseline)} = 1",
        reference_entry="" if reference is None else labels.column(reference).name,
    )
    return draw_chart(chart, options)


def _with_mean(bars: BarSet) -> BarSet:
    """The bars and a last one, their geometric mean; none where a bar is missing."""

    def longer(values: np.ndarray[Any, Any] | None, last: float) -> np.ndarray[Any, Any] | None:
        return None if values is None else np.append(values, last)

    heights, references = bars.heights, bars.references
    return replace(
        bars,
        heights=np.append(heights, _geometric_mean(heights)),
        errors=longer(bars.errors, np.nan),
        references=longer(references, np.nan if references is None else _geometric_mean(references)),
    )


def _geometric_mean(values: np.ndarray[Any, Any]) -> float:
    with np.errstate(all="ignore"):
        return float(np.exp(np.mean(np.log(values))))

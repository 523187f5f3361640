"""Bars of variants that build on each other: how much each adds to the one before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
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
from neupims_sim.plots.options import check_options, choice, needed_axis, numbers
from neupims_sim.plots.ratios import BETTER, ratio_label, relative_to
from neupims_sim.sweeps import Labels

RATIO = "ratio to the first step"
"""Column of the ratios."""


@PLOTS.register("ablation")
def ablation(table: pd.DataFrame, options: Mapping[str, Any]) -> Figure:
    """Bars of a metric relative to the first of several variants, and above each what it adds to the one before.

    Options: ``steps`` (axis of the variants, in the order in which they build on each other; required), ``x``, ``panels``, ``metric``
    (throughput unless given), ``better`` (``lower`` for cycles and the like: the ratio is first / value), ``reference`` (column
    with ratios to the first step from elsewhere), ``title``. Ratios are taken seed by seed.
    """
    check_options(options, ("x", "panels", "steps", "better", "reference"))
    labels: Labels = options["labels"]
    steps, better = needed_axis(options, "steps"), choice(options, "better", BETTER)
    metric = options.get("metric", "throughput_tokens_per_s")
    numbers(table, metric, "metric")
    if table[steps].nunique() < 2:
        raise InputError(f"plot.steps={steps!r}: has one value, and nothing to compare it with")
    reference, first = reference_of(table, options), table[steps].iloc[0]
    table = table.drop_duplicates(list(options["axes"]))
    table = table.assign(**{RATIO: relative_to(table, options["axes"], steps, first, metric, better)})
    measured = measure(table, options, [RATIO, *([reference] if reference else [])], steps)
    places = measured.places
    names = hue_names(places, labels)

    def panel(points: pd.DataFrame) -> dict[str, BarSet]:
        bars = [bar_set(points, places, step, RATIO, 1, reference=reference) for step in places.hues]
        later = [replace(bar, notes=_increments(before, bar)) for before, bar in pairwise(bars)]
        return dict(zip(names.values(), [bars[0], *later], strict=True))

    chart = Chart(
        panels_of(measured, labels, panel),
        group_names(places, labels),
        group_title(places, labels),
        ratio_label(labels.column(metric).name, names[first], better),
        note_entry=("+n%", "more than the step before"),
        reference_entry="" if reference is None else labels.column(reference).name,
    )
    return draw_chart(chart, options)


def _increments(before: BarSet, bars: BarSet) -> list[str]:
    """``+24%`` where both bars are there."""
    with np.errstate(all="ignore"):
        changes = 100 * (bars.heights / before.heights - 1)
    return [f"{change:+.0f}%" if np.isfinite(change) else "" for change in changes]

"""Bars of several columns side by side: how busy NPU, PIM and memory are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from neupims_sim.errors import InputError, suggestion
from neupims_sim.plots.bars import BarSet, Chart, bar_set, draw_chart, group_names, group_title, measure, panels_of
from neupims_sim.plots.drawing import PLOTS
from neupims_sim.plots.options import check_options, flag, listed, numbers
from neupims_sim.sweeps import Labels

METRICS = ("utilization.npu", "utilization.pim", "utilization.bandwidth")


@PLOTS.register("utilization")
def utilization(table: pd.DataFrame, options: Mapping[str, Any]) -> Figure:
    """A group of bars per configuration, in it one bar per column.

    Options: ``metrics`` (columns of one unit; the utilization of NPU, PIM and bandwidth unless given), ``x`` (axis with one group
    per value; the last axis unless given), ``references`` (column of ``metrics`` -> column with its values from elsewhere, drawn as
    diamonds), ``log``, ``title``. Further axes are panels.
    """
    check_options(options, ("metrics", "x", "panels", "references", "log"))
    labels: Labels = options["labels"]
    metrics = listed(options.get("metric", options.get("metrics", METRICS)))
    if not metrics:
        raise InputError("plot.metrics: needs a column")
    references = _references(table, options.get("references", {}), metrics)
    for metric in metrics:
        numbers(table, metric, "plot.metrics")
    measured = measure(table, options, [*metrics, *references.values()], None)

    def panel(points: pd.DataFrame) -> dict[str, BarSet]:
        return {
            labels.member(metric): bar_set(
                points, measured.places, None, metric, labels.column(metric).factor, reference=references.get(metric)
            )
            for metric in metrics
        }

    chart = Chart(
        panels_of(measured, labels, panel),
        group_names(measured.places, labels),
        group_title(measured.places, labels),
        str(labels.together(metrics)),
        log=flag(options, "log"),
        reference_entry=", ".join(dict.fromkeys(labels.column(name).name for name in references.values())),
    )
    return draw_chart(chart, options)


def _references(table: pd.DataFrame, stated: Any, metrics: Sequence[str]) -> dict[str, str]:
    if not isinstance(stated, Mapping):
        raise InputError(f"plot.references={stated!r}: needs a column of values for each column, as {{metric: column}}")
    for metric, column in stated.items():
        if metric not in metrics:
            raise InputError(f"plot.references.{metric}: not one of plot.metrics; {suggestion(str(metric), metrics)}")
        numbers(table, column, f"plot.references.{metric}")
    return dict(stated)

"""Points that differ in their seed only: their mean, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from neupims_sim.plots.options import SEED
from neupims_sim.simulation.sampling import student_t_975


def half_width(column: str) -> str:
    """The column of :func:`over_seeds` that says how sure the mean of another is."""
    return f"95 % half-width of {column}"


def over_seeds(
    table: pd.DataFrame, axes: Sequence[str], columns: Sequence[str], shown: Sequence[str | None]
) -> tuple[pd.DataFrame, list[str]]:
    """One row per place on the axes, and the axes that are left: without the seed, unless it is among ``shown``.

    Each of ``columns`` gets the mean over the seeds, NaN where one is missing, and beside it (`half_width`) half the width of
    its 95 % confidence interval: t(0.975, n - 1) x sample standard deviation / sqrt(n), NaN for one seed.
    """
    columns = list(dict.fromkeys(columns))
    left = [axis for axis in axes if axis != SEED or SEED in shown]
    if left == list(axes):
        once = table.drop_duplicates(left) if left else table
        return once.assign(**{half_width(column): math.nan for column in columns}), left
    table = table.drop_duplicates(list(axes))
    groups = [points for _, points in table.groupby(left, sort=False, dropna=False)] if left else [table]
    return pd.DataFrame([_mean(points, columns) for points in groups]), left


def _mean(points: pd.DataFrame, columns: Sequence[str]) -> dict[Any, Any]:
    row = dict(points.iloc[0])
    for column in columns:
        values = points[column].astype(float)
        row[column] = float(values.mean(skipna=False))
        row[half_width(column)] = _half_width(values)
    return row


def _half_width(values: pd.Series[float]) -> float:
    if len(values) < 2:
        return math.nan
    return student_t_975(len(values) - 1) * float(values.std(skipna=False)) / math.sqrt(len(values))

"""What goes where in a plot for which the sweep file states nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from neupims_sim.plots.options import SEED, listed
from neupims_sim.plots.style import PALETTE
from neupims_sim.sweeps import Sweep

SYSTEM = "system"
"""The axis that colours are for, if it varies."""
_PLACES: Mapping[str, Sequence[str]] = {
    "throughput_bars": ("x", "hue"),
    "speedup": ("x", "hue"),
    "pareto": ("hue",),
    "lines": ("x", "hue", "panels", "style"),
    "utilization": ("x",),
    "stage_breakdown": ("x",),
}
"""Kinds of plots, and their options that take an axis. Axes that are left become panels where a plot has no such option."""


def with_places(kind: str, options: Mapping[str, Any], table: pd.DataFrame, sweep: Sweep) -> dict[str, Any]:
    """The options, and those of ``x``, ``hue``, ``panels`` and ``style`` that a kind has and they lack: the axes with several values.

    Colours are for the system, or else for the first axis that is not too many; x is the last axis (of numbers, for lines).
    Lines are of the first metric of the sweep.
    """
    wanted = [key for key in _PLACES.get(kind, ()) if key not in options]
    taken = [SEED, *(value for key in ("x", "hue", "panels", "style") for value in listed(options.get(key)))]
    free = [axis for axis in sweep.axes if axis not in taken and table[axis].nunique(dropna=False) > 1]
    found = dict(options)
    if kind == "lines" and "metric" not in found:
        found.setdefault("y", sweep.metrics[0])

    def take(key: str, candidates: Sequence[str]) -> None:
        if key in wanted and candidates:
            found[key] = candidates[0]
            free.remove(candidates[0])

    if "x" in wanted:
        last = [axis for axis in reversed(free) if kind != "lines" or pd.api.types.is_numeric_dtype(table[axis])]
        others = [axis for axis in last if axis != SYSTEM]
        take("x", others or last)
    few = [axis for axis in free if table[axis].nunique(dropna=False) <= len(PALETTE)]
    take("hue", [axis for axis in few if axis == SYSTEM] or few)
    take("panels", free)
    take("style", free)
    return found

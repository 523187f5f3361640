"""From a results folder to files with a picture.

A plot is a function ``(table, options) -> Figure`` with ``@PLOTS.register("name")``, in a module of this package. ``table``
has one row per finished point (see `neupims_sim.sweeps.store`). ``options`` are those of the sweep file's ``plot``, and
``axes`` (names of the table's columns that are axes, in order), ``metric`` (if one is asked for) and ``title``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from neupims_sim.config.files import label
from neupims_sim.errors import InputError, suggestion
from neupims_sim.plots.files import check_format, save_figure
from neupims_sim.plots.style import STYLE
from neupims_sim.registry import Registry
from neupims_sim.sweeps import load_results

Plot = Callable[[pd.DataFrame, Mapping[str, Any]], Figure]
PLOTS: Registry[Plot] = Registry("plot", package="neupims_sim.plots")
DEFAULT_KIND = "throughput_bars"


def draw(
    directory: str | Path, kind: str | None = None, metric: str | None = None, output: str | Path | None = None
) -> list[Path]:
    """Draw the results in a folder; returns the files written.

    Parameters
    ----------
    directory: results folder of a sweep.
    kind: a registered plot; that of the sweep file unless given.
    metric: the column to show; that of the sweep file, or else the plot's own choice, unless given.
    output: the file to write (pdf, png or svg); ``DIRECTORY/<kind>.pdf`` and ``.png`` unless given.
    """
    directory = Path(directory)
    files = [] if output is None else [Path(output)]
    for file in files:
        check_format(file)
    sweep, table = load_results(directory)
    stated = dict(sweep.plot)
    stated_kind = stated.pop("kind", DEFAULT_KIND)
    kind = kind or str(stated_kind)
    # The sweep file's options are for its kind of plot; another kind starts from its own defaults.
    options = {"title": sweep.title, **(stated if kind == stated_kind else {}), "axes": sweep.axes}
    if metric is not None:
        options["metric"] = metric
    try:
        with mpl.rc_context(STYLE):
            figure = PLOTS[kind](table, options)
    except InputError as error:
        raise InputError(f"{label(directory)}: {error}") from error

    files = files or [directory / f"{kind}{suffix}" for suffix in (".pdf", ".png")]
    for file in files:
        save_figure(figure, file)
    return files


def check_options(options: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Raise InputError if a plot is given an option that it does not have."""
    for name, value in options.items():
        if name not in (*allowed, "axes", "title", "metric"):
            raise InputError(f"plot.{name}={value!r}: unknown option; {suggestion(name, allowed)}")


def column(table: pd.DataFrame, name: str, key: str) -> str:
    """``name`` if the table has such a column; ``key`` is the option that names it."""
    if name not in table.columns:
        allowed = [str(known) for known in table.columns if known not in ("point", "status", "error")]
        raise InputError(f"{key}={name!r}: no such column in points.csv; {suggestion(name, allowed)}")
    return name

"""From a results folder to files with a picture.

A plot is a function ``(table, options) -> Figure``, with ``@PLOTS.register("name")`` in a module of this package, or anywhere
else (``kind: package.module:function``). ``table``
has one row per finished point: the columns of ``points.csv`` (see `neupims_sim.sweeps.store`) and, where the folder has the
store, every other number and text of ``result.json`` under its dotted key. ``options`` are those of the sweep file's ``plot``,
and ``axes`` (names of the table's columns that are axes, in order), ``labels`` (what to call columns and values,
`neupims_sim.sweeps.Labels`), ``metric`` (if one is asked for) and ``title``. ``neupims_sim.testing.check_plot`` tests it.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from neupims_sim.config.files import label
from neupims_sim.errors import InputError
from neupims_sim.plots.automatic import with_places
from neupims_sim.plots.files import check_format, save_figure
from neupims_sim.plots.options import chosen_points
from neupims_sim.plots.style import STYLE
from neupims_sim.registry import Registry, function_of
from neupims_sim.sweeps import Sweep, load_whole_results
from neupims_sim.sweeps.tables import devices_in_words

Plot = Callable[[pd.DataFrame, Mapping[str, Any]], Figure]
PLOTS: Registry[Plot] = Registry(
    "plot", package="neupims_sim.plots", key="plot.kind", adopt=function_of("table", "options")
)
DEFAULT_KIND = "throughput_bars"


class OwnPlotError(InputError):
    """A plot that is not ours has failed; ``error`` is its exception."""

    def __init__(self, kind: str, plot: Plot, error: Exception) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        file = getattr(getattr(plot, "__code__", None), "co_filename", None)
        frame = ([frame for frame in frames if frame.filename == file] or frames)[-1]
        place = f"{Path(frame.filename).name}, line {frame.lineno}"
        super().__init__(f"plot.kind={kind!r}: {type(error).__name__}: {error} ({place})")
        self.error = error


def draw(
    directory: str | Path,
    kind: str | None = None,
    metric: str | None = None,
    output: str | Path | Sequence[str | Path] | None = None,
    **options: Any,
) -> list[Path]:
    """Draw the results in a folder; returns the files written.

    Parameters
    ----------
    directory: results folder of a sweep.
    kind: a plot (`PLOTS`), or ``package.module:function``; all that the sweep file states unless given.
    metric: the column to show; that of the sweep file, or else the plot's own choice, unless given.
    output: the file or files to write, each of every plot (pdf, png or svg); ``DIRECTORY/<kind>.pdf`` and ``.png`` unless given. If
        there are several plots, the names end in ``-1``, ``-2`` and so on.
    options: of the plot (``x``, ``hue``, ``panels``, ...), on top of those of the sweep file.
    """
    directory = Path(directory)
    stated_files = [Path(file) for file in ([output] if isinstance(output, str | Path) else output or [])]
    for file in stated_files:
        check_format(file)
    sweep, table = load_whole_results(directory)
    plots = stated_plots(sweep, kind)
    is_stated = any(str(plot.get("kind", DEFAULT_KIND)) == name for plot in sweep.plot for name, _ in plots)
    files = []
    for number, (name, stated) in enumerate(plots, start=1):
        chosen = _overridden(stated, options, metric)
        if options or not is_stated:
            chosen = with_places(name, chosen, table, sweep)
        try:
            figure = make_figure(sweep, table, name, chosen)
        except InputError as error:
            raise InputError(f"{label(directory)}: {error}") from error
        ending = f"-{number}" if len(plots) > 1 else ""
        default = [directory / f"{name.rpartition(':')[2]}{suffix}" for suffix in (".pdf", ".png")]
        for file in stated_files or default:
            numbered = file.with_name(f"{file.stem}{ending}{file.suffix}")
            save_figure(figure, numbered)
            files.append(numbered)
    return files


_PLACES = ("x", "hue", "style", "panels")
"""Options that give an axis its place."""


def _overridden(stated: Mapping[str, Any], options: Mapping[str, Any], metric: str | None) -> dict[str, Any]:
    """Options of the sweep file with others on top; without what the file says about an axis or a metric that is not shown any more."""
    dropped = {key for key in _PLACES if key not in options and stated.get(key) in options.values()}
    if "hue" in dropped or options.get("hue", stated.get("hue")) != stated.get("hue"):
        dropped.add("baseline")
    if metric is not None:
        dropped |= {"reference", "references", "error"}
    kept = {key: value for key, value in stated.items() if key not in dropped}
    return {**kept, **options, **({} if metric is None else {"metric": metric})}


def _title(stated: Any, sweep: Sweep, table: pd.DataFrame) -> str:
    """The title and, where the results say so, of how many devices they are."""
    return ", ".join(filter(None, (str(stated or ""), devices_in_words(sweep, table))))


def make_figure(sweep: Sweep, table: pd.DataFrame, kind: str, options: Mapping[str, Any]) -> Figure:
    """The figure of one plot; ``options`` are those that a sweep file states for it. Raises InputError if they do not fit."""
    known = {"axes": sweep.axes, "labels": sweep.shown_labels()}
    chosen = chosen_points(table.replace([math.inf, -math.inf], math.nan), options.get("where", {}))
    stated = {name: value for name, value in options.items() if name != "where"}
    plot = PLOTS[kind]
    try:
        with mpl.rc_context(STYLE):
            figure = plot(chosen, {**stated, **known, "title": _title(stated.get("title", sweep.title), sweep, chosen)})
    except InputError:
        raise
    except Exception as error:
        if PLOTS.module(kind) is None:  # a bug of ours
            raise
        raise OwnPlotError(kind, plot, error) from error
    if not isinstance(figure, Figure):
        raise InputError(f"plot.kind={kind!r}: returned {type(figure).__name__}, not a Figure of Matplotlib")
    return figure


def stated_plots(sweep: Sweep, kind: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Kind and options of the plots that a sweep file states; of those of one ``kind`` only, if it is given.

    A kind that the file does not state starts from the defaults of that plot.
    """
    stated = [
        (str(plot.get("kind", DEFAULT_KIND)), {k: v for k, v in plot.items() if k != "kind"}) for plot in sweep.plot
    ]
    if kind is not None:
        stated = [plot for plot in stated if plot[0] == kind]
    return stated or [(kind or DEFAULT_KIND, {})]

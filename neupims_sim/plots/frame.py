"""What figures share: panels for what has no other place, the title above, the legend below, scales with plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerBase
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from neupims_sim.errors import InputError, shortened
from neupims_sim.plots.style import FAINT
from neupims_sim.plots.text import MOST_ENTRY, SUPERTITLE_INCHES, legend_columns, plain_number, wrapped
from neupims_sim.sweeps import Labels

PANELS_PER_ROW = 3
MOST_PANELS = 24
LINES_OF_ROOM, LINE_INCHES = 1, 0.2
"""Lines of the title, and of the legend, that every figure has room for, and the height of a further one."""
MOST_BARS = 1_000
"""Of a figure; so many take a quarter of a minute to draw."""


class Part(NamedTuple):
    """The points of one panel."""

    title: str
    table: pd.DataFrame


@dataclass(frozen=True)
class Sample:
    """An entry of a legend whose sign is a text, such as a number that stands above bars."""

    text: str


class _DrawSample(HandlerBase):
    """Draws a :class:`Sample` into a legend."""

    def create_artists(
        self,
        legend: Any,
        orig_handle: Any,
        xdescent: float,
        ydescent: float,
        width: float,
        height: float,
        fontsize: float,
        trans: Any,
    ) -> list[Any]:
        """The text, in the middle of the place of the sign."""
        place = width / 2 - xdescent, height / 2 - ydescent
        font: dict[str, Any] = {"fontsize": 7, "style": "italic", "color": FAINT}
        return [Text(*place, orig_handle.text, ha="center", va="center", transform=trans, **font)]


def parts_of(table: pd.DataFrame, axes: Sequence[str], labels: Labels) -> list[Part]:
    """One part per combination of the values of ``axes`` that vary; raises InputError if there are too many to see."""
    varying = [axis for axis in axes if table[axis].nunique(dropna=False) > 1]
    if not varying:
        return [Part("", table)]
    parts = []
    for values, points in table.groupby(varying, sort=False, dropna=False):
        place = [f"{labels.column(a).name}: {labels.value(a, v)}" for a, v in zip(varying, values, strict=True)]
        parts.append(Part(", ".join(place), points))
    check_panels(len(parts), varying)
    return parts


def check_panels(panels: int, axes: Sequence[str]) -> None:
    """Raise InputError if the combinations of the values of ``axes`` are too many panels to see."""
    if panels > MOST_PANELS:
        raise InputError(
            f"{panels:,} panels, one for each combination of {', '.join(axes)}, and at most {MOST_PANELS} can be seen; "
            "choose points with plot.where of the sweep file"
        )


def check_bars(bars: int) -> None:
    """Raise InputError if a figure has too many bars to see."""
    if bars > MOST_BARS:
        raise InputError(
            f"{bars:,} bars, and at most {MOST_BARS:,} can be seen; choose points with plot.where of the sweep file, or another "
            "kind of plot"
        )


def grid(count: int, width: float, height: float, **subplots: Any) -> tuple[Figure, list[Axes], int]:
    """A figure with ``count`` panels of a size in inches, its panels, and how many stand side by side."""
    columns = 2 if count == 4 else min(count, PANELS_PER_ROW)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns + 0.6, height * rows + 0.6))
    panels = list(figure.subplots(rows, columns, squeeze=False, **subplots).flat)
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, panels[:count], columns


def finish(figure: Figure, options: Mapping[str, Any], handles: Sequence[Any], names: Sequence[str]) -> Figure:
    """Put the title above and a legend below, if there is anything to explain."""
    width, height = map(float, figure.get_size_inches())
    title = wrapped(str(options.get("title") or ""), width, SUPERTITLE_INCHES)
    figure.suptitle(title)
    lines = 0
    if handles:
        names = [shortened(" ".join(name.split()), MOST_ENTRY) for name in names]
        columns = legend_columns(names, width)
        lines = -(-len(names) // columns)
        signs = {Sample: _DrawSample()}
        figure.legend(handles, names, loc="outside lower center", ncols=columns, handler_map=signs)
    further = max(0, lines - LINES_OF_ROOM) + max(0, title.count("\n") + 1 - LINES_OF_ROOM)
    figure.set_figheight(height + LINE_INCHES * further)
    return figure


def set_ticks(axis: Any, locator: Locator | None) -> None:
    """Plain numbers on an axis, at the places of ``locator`` or where they are."""
    if locator is not None:
        axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))


def log_locator(low: float, high: float) -> Locator:
    """Ticks on a logarithmic axis, of which a short range has some, too."""
    decades = math.log10(high / low)
    if 0 < decades < 0.7:
        return MaxNLocator(4)
    return LogLocator(subs=(1, 2, 5) if decades < 2 else (1, 3) if decades < 3.5 else (1,), numticks=8)

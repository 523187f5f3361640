"""Heat maps of the least distances between commands, one panel per relation of the places that they go to."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from neupims_sim.memory import COMMANDS, ResolvedSpec
from neupims_sim.memory.inspection import minimum_distances, relations
from neupims_sim.plots.style import FAINT, INK, STYLE

CELL_WIDTH, CELL_HEIGHT = 0.29, 0.185
"""Inches."""
LEFT, BESIDE, BELOW = 0.68, 0.2, 0.2
"""Inches around the cells of a panel; at the left stand names of commands."""
NAMES, ABOVE = 0.46, 0.72
"""Inches above the cells, for slanted names of commands, and for them and a title of two lines."""
WIDEST = 7.2
"""Inches: two columns of a paper."""
LETTER, SMALL_LETTER = 0.066, 0.05
"""Inches of a letter of a panel's title and of the legend, about."""
TITLE, LEGEND = 0.25, 0.4
"""Inches above and below all panels."""

# Light to dark in one hue: an order that every reader sees, on paper too.
COLOURS = LinearSegmentedColormap.from_list("distances", ["#EAF2F8", "#9CC4DF", "#3B82B5", "#0B3C5D"])
DARK = 0.6
"""Share of the scale from which on text must be white."""


@dataclass
class _Block:
    """A panel, and where its upper left corner lies, in inches from that of the figure."""

    title: list[str]
    """Lines."""
    table: pd.DataFrame
    left: float = 0
    top: float = 0

    @property
    def cells(self) -> tuple[float, float]:
        """Width and height of the cells, inches."""
        rows, columns = self.table.shape
        return columns * CELL_WIDTH, rows * CELL_HEIGHT

    @property
    def size(self) -> tuple[float, float]:
        """Width and height with the names and the title, inches."""
        width, height = self.cells
        return LEFT + max(width, LETTER * max(map(len, self.title))) + BESIDE, ABOVE + height + BELOW


def draw_command_matrix(spec: ResolvedSpec) -> Figure:
    """Panels with a row per previous and a column per next command, and the cycles from one to the other in the cells.

    Commands that nothing constrains in a relation stand only in the panel of the same bank. A GEMV is the shortest one, of
    ``pim.pipeline_dots`` dot-products.
    """
    dots = max(1, spec.config.pim.pipeline_dots)
    blocks: list[_Block] = []
    for relation in relations(spec):
        table = minimum_distances(spec, relation, dots)
        if blocks:
            table = table.dropna(axis="index", how="all").dropna(axis="columns", how="all")
        if table.size:
            blocks.append(_Block(relation.title.replace(", ", ",\n").split("\n"), table))
    width, height = _arrange(blocks)
    scale = LogNorm(1, max(10, *(np.nanmax(block.table) for block in blocks)))
    with mpl.rc_context(STYLE | {"axes.grid": False, "figure.constrained_layout.use": False}):
        figure = Figure(figsize=(width, height))
        title = f"{spec.config.name}: least cycles from one command to the next"
        figure.text(0.1 / width, 1 - 0.1 / height, title, fontsize=9, fontweight="bold", va="top")
        for block in blocks:
            cell_width, cell_height = block.cells
            bottom = height - block.top - ABOVE - cell_height
            place = (block.left + LEFT) / width, bottom / height, cell_width / width, cell_height / height
            _draw_panel(figure.add_axes(place), block, scale)
        figure.text(0.1 / width, 0.1 / height, _legend(spec, dots, width), fontsize=6.5, color=FAINT, va="bottom")
    return figure


def _arrange(blocks: list[_Block]) -> tuple[float, float]:
    """Place the panels in rows as long as they fit; returns the size of the figure, inches."""
    left, top, row_height, widest = 0.0, TITLE, 0.0, 0.0
    for block in blocks:
        width, height = block.size
        if left and left + width > WIDEST:
            left, top, row_height = 0.0, top + row_height, 0.0
        block.left, block.top = left, top
        left, row_height = left + width, max(row_height, height)
        widest = max(widest, left)
    return widest, top + row_height + LEGEND


def _draw_panel(panel: Axes, block: _Block, scale: LogNorm) -> None:
    table = block.table
    values = table.to_numpy()
    panel.pcolormesh(
        np.ma.masked_invalid(np.maximum(values, 1)), cmap=COLOURS, norm=scale, edgecolors="white", linewidth=0.8
    )
    for (previous, following), cycles in np.ndenumerate(values):
        text, colour = "–", FAINT
        if not np.isnan(cycles):
            text, colour = f"{cycles:.0f}", "white" if scale(max(cycles, 1)) > DARK else INK
        panel.text(following + 0.5, previous + 0.53, text, ha="center", va="center", fontsize=6.5, color=colour)
    panel.invert_yaxis()
    panel.xaxis.tick_top()
    panel.set_xticks(np.arange(len(table.columns)) + 0.5, table.columns, rotation=45, ha="left", rotation_mode="anchor")
    panel.set_yticks(np.arange(len(table)) + 0.5, table.index)
    panel.tick_params(length=0, labelsize=6.5, pad=1.5)
    panel.spines[:].set_visible(False)
    panel.annotate(
        "\n".join(block.title), (0, 1), (0, NAMES * 72), xycoords="axes fraction", textcoords="offset points",
        fontsize=7.5, fontweight="bold", linespacing=1.1,
    )  # fmt: skip
    for text, above in (("next →", 9), ("previous ↓", 2)):
        panel.annotate(
            text, (0, 1), (-4, above), xycoords="axes fraction", textcoords="offset points", ha="right", fontsize=5.5,
            color=FAINT, style="italic",
        )  # fmt: skip


def _legend(spec: ResolvedSpec, dots: int, width: float) -> str:
    windows = dict.fromkeys((row.window, COMMANDS[row.previous], row.base) for row in spec.rows if row.window > 1)
    told = [f"at most {count} {name} in {cycles} cycles" for count, name, cycles in windows]
    if any(COMMANDS[row.previous] == "GEMV" for row in spec.rows):
        told.append(f"GEMV of {dots} dot-products")
    told.append("commands that address more than a panel tells apart: in the first panel only")
    return textwrap.fill("; ".join(["–  not constrained", *told]), int(width / SMALL_LETTER))

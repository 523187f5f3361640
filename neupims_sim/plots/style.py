"""One look for all figures."""

from __future__ import annotations

from typing import Any

PALETTE = ("#999999", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
"""Colours that colour-blind readers can tell apart (Okabe and Ito, https://jfly.uni-koeln.de/color), grey first
and, because lines of it are hard to see, without yellow."""
MARKERS = "osD^vPX*"
"""Of points, beside their colour."""
INK = "#222222"
FAINT = "#6B6B6B"

HATCHES = ("", "////", "", "\\\\\\\\", "", "....", "xxxx", "")
"""Of areas, beside their colour: neighbours that would be the same grey on paper differ."""

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E0E0E0",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name is one
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.wspace": 0.05,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "neupims_sim",
}
"""Matplotlib settings under which every figure is made and written."""


def filling(index: int) -> dict[str, Any]:
    """The look of the area number ``index``; colours that come round again have another hatch."""
    turn, place = divmod(index, len(PALETTE))
    return {
        "color": PALETTE[place],
        "hatch": HATCHES[(place + turn) % len(HATCHES)],
        "edgecolor": "white",
        "linewidth": 0,
    }

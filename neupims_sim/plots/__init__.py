"""Pictures from stored results. A new plot is one new file (docs/plots.md)."""

from __future__ import annotations

from neupims_sim.plots.drawing import PLOTS, Plot, draw, make_figure, stated_plots
from neupims_sim.plots.files import to_svg

__all__ = ["PLOTS", "Plot", "draw", "make_figure", "stated_plots", "to_svg"]

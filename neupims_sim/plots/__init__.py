"""Pictures from stored results. A new plot is one new file in this package (see `neupims_sim.plots.drawing`)."""

from __future__ import annotations

from neupims_sim.plots.drawing import PLOTS, Plot, draw

__all__ = ["PLOTS", "Plot", "draw"]

"""Tests for what others write: whether a memory model keeps the promises that the simulator builds on, and a plot its own.

One line in its author's own tests is enough::

    def test_conformance():
        check_memory_model("my_memory")

and for a plot, with the options that it cannot do without::

    def test_my_plot():
        check_plot("my_plot", {"hue": "system"})
"""

from __future__ import annotations

from neupims_sim.testing.conformance import check_memory_model
from neupims_sim.testing.plots import check_plot
from neupims_sim.testing.report import CheckResult, ConformanceError, ConformanceReport, Finding

__all__ = ["CheckResult", "ConformanceError", "ConformanceReport", "Finding", "check_memory_model", "check_plot"]

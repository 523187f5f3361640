"""One self-contained HTML page about the results of a sweep, or about one run."""

from __future__ import annotations

from neupims_sim.report.writing import write_report

__all__ = ["write_report"]

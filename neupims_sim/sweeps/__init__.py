"""Many runs: a sweep file is expanded into points, the points are executed and stored, and a sweep resumes by itself."""

from __future__ import annotations

from neupims_sim.sweeps.definition import Point, Sweep, expand, read_sweep
from neupims_sim.sweeps.execution import RunPoint
from neupims_sim.sweeps.labels import Label, axis_label, metric_label, value_label
from neupims_sim.sweeps.running import Progress, sweep
from neupims_sim.sweeps.store import load_results

__all__ = [
    "Label",
    "Point",
    "Progress",
    "RunPoint",
    "Sweep",
    "axis_label",
    "expand",
    "load_results",
    "metric_label",
    "read_sweep",
    "sweep",
    "value_label",
]

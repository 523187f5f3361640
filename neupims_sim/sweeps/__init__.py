"""Many runs: a sweep file is expanded into points, the points are executed and stored, and a sweep resumes by itself."""

from __future__ import annotations

from neupims_sim.sweeps.definition import Sweep
from neupims_sim.sweeps.execution import RunPoint
from neupims_sim.sweeps.labels import Label, Labels, value_label
from neupims_sim.sweeps.points import Point, expand
from neupims_sim.sweeps.reading import read_sweep
from neupims_sim.sweeps.reference import base_values
from neupims_sim.sweeps.running import Progress, sweep
from neupims_sim.sweeps.store import load_results, load_whole_results

__all__ = [
    "Label",
    "Labels",
    "Point",
    "Progress",
    "RunPoint",
    "Sweep",
    "base_values",
    "expand",
    "load_results",
    "load_whole_results",
    "read_sweep",
    "sweep",
    "value_label",
]

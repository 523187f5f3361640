"""Requests that arrive over time, wait, run and end on a simulated system."""

from __future__ import annotations

from neupims_sim.serving.instance import ServingStalledError
from neupims_sim.serving.server import ServingResult, serve

__all__ = ["ServingResult", "ServingStalledError", "serve"]

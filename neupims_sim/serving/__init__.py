"""Requests that arrive over time, wait, run and end on a simulated system."""

from __future__ import annotations

from neupims_sim.serving.instance import ServingStalledError
from neupims_sim.serving.rate_search import RateSearch, find_rate, parse_limits
from neupims_sim.serving.server import ServingResult, serve

__all__ = ["RateSearch", "ServingResult", "ServingStalledError", "find_rate", "parse_limits", "serve"]

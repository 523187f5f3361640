"""Requests that arrive over time, wait, run and end on a simulated system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neupims_sim.registry import Registry
from neupims_sim.serving.costs import COSTS
from neupims_sim.serving.instance import ServingStalledError
from neupims_sim.serving.rate_search import RateSearch, find_rate, parse_limits
from neupims_sim.serving.readers import READERS
from neupims_sim.serving.schedulers import SCHEDULERS
from neupims_sim.serving.server import ServingResult, serve

__all__ = ["POLICIES", "RateSearch", "ServingResult", "ServingStalledError", "find_rate", "parse_limits", "serve"]

POLICIES: Mapping[str, Registry[Any]] = {registry.key: registry for registry in (SCHEDULERS, COSTS, READERS)}
"""The registry behind each key of ``serving`` that names something."""

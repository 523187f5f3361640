"""Schedulers: which requests the next iteration works on, and on how many tokens of each.

A scheduler is a class registered under a name; its file is found by being here.
"""

from __future__ import annotations

from neupims_sim.serving.schedulers.base import SCHEDULERS, Iteration, Scheduler
from neupims_sim.serving.schedulers.conformance import check_scheduler

__all__ = ["SCHEDULERS", "Iteration", "Scheduler", "check_scheduler"]

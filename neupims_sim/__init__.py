"""Cycle-level, discrete-event simulation of NPU+PIM accelerators."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neupims_sim.config import load_config
    from neupims_sim.simulation import simulate
    from neupims_sim.sweeps import sweep

__version__ = "0.1.0"

__all__ = ["__version__", "load_config", "simulate", "sweep"]

_HOMES = {"load_config": "config", "simulate": "simulation", "sweep": "sweeps"}


def __getattr__(name: str) -> Any:
    """Import the public functions when they are first used: the simulator takes a while to load."""
    if name in _HOMES:
        return getattr(import_module(f"neupims_sim.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What users call, and what every module has."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})

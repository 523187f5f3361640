"""Cycle-level, discrete-event simulation of NPU+PIM accelerators."""

from __future__ import annotations

from neupims_sim.config import load_config

__version__ = "0.1.0"

__all__ = ["__version__", "load_config"]

"""The command line: one module per group of commands, joined in ``main``. It prints, and has no logic."""

from __future__ import annotations

from neupims_sim.cli.main import main

__all__ = ["main"]

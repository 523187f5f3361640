"""Where a result comes from: versions, machine, command line."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import neupims_sim

_CPUINFO = Path("/proc/cpuinfo")


def environment() -> dict[str, Any]:
    """Versions of what computes, the machine, and the command line of this process."""
    return {
        "neupims_sim": neupims_sim.__version__,
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "numba": version("numba"),
        "simpy": version("simpy"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {_processor()}",
        "command_line": sys.argv,
    }


def _processor() -> str:
    """The model of the processor, as far as the system tells."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor()) or "unknown processor"

"""Memories: tables of a DRAM standard with or without PIM, the compiled engine that obeys them, and models to simulate with.

A table (:class:`~neupims_sim.config.MemoryConfig`) is resolved to integers (:func:`resolve`); a :class:`CommandDevice` runs
transfers and PIM programs on it command by command; a :class:`MemoryModel` is what a simulation sees.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neupims_sim.memory.device import LOG_FIELDS, CommandDevice, Counters
    from neupims_sim.memory.engine import READ, WRITE
    from neupims_sim.memory.legality import check_commands
    from neupims_sim.memory.models import MEMORY_MODELS, Capabilities, MemoryModel, build_memory
    from neupims_sim.memory.program import PimProgram, format_program, parse_program
    from neupims_sim.memory.replay import Replay, Requests, read_requests, replay_requests, stream_requests
    from neupims_sim.memory.spec import COMMANDS, ResolvedSpec, resolve

__all__ = [
    "COMMANDS",
    "LOG_FIELDS",
    "MEMORY_MODELS",
    "READ",
    "WRITE",
    "Capabilities",
    "CommandDevice",
    "Counters",
    "MemoryModel",
    "PimProgram",
    "Replay",
    "Requests",
    "ResolvedSpec",
    "build_memory",
    "check_commands",
    "format_program",
    "parse_program",
    "read_requests",
    "replay_requests",
    "resolve",
    "stream_requests",
]

_HOMES = {
    "device": ("LOG_FIELDS", "CommandDevice", "Counters"),
    "engine": ("READ", "WRITE"),
    "legality": ("check_commands",),
    "models": ("MEMORY_MODELS", "Capabilities", "MemoryModel", "build_memory"),
    "program": ("PimProgram", "format_program", "parse_program"),
    "replay": ("Replay", "Requests", "read_requests", "replay_requests", "stream_requests"),
    "spec": ("COMMANDS", "ResolvedSpec", "resolve"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the engine takes a while to load."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

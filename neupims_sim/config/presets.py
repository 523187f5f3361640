"""Presets: named modelling assumptions (``configs/presets``). One may build on another, which its ``base`` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neupims_sim.config.files import available, label, read_yaml
from neupims_sim.config.memory import MemoryConfig
from neupims_sim.errors import InputError, suggestion


def preset_chain(name: str) -> tuple[str, ...]:
    """The preset and those that it builds on, the most general first.

    Raises InputError for a ``base`` that does not exist or goes in a circle.
    """
    chain: list[str] = []
    where = "preset"
    while True:
        path = _path(name, where)
        if name in chain:
            raise InputError(f"{where}={name!r}: base goes in a circle: {' -> '.join((*chain, name))}")
        chain.append(name)
        base = read_yaml(path).get("base")
        if base is None:
            return tuple(reversed(chain))
        where = f"{label(path)}: base"
        if not isinstance(base, str):
            raise InputError(f"{where}={base!r}: must be the name of a preset")
        name = base


def read_preset(name: str) -> tuple[Path, dict[str, Any]]:
    """The file of a preset, and what it states itself."""
    path = _path(name, "preset")
    return path, {key: value for key, value in read_yaml(path).items() if key != "base"}


def row_tags(memory: MemoryConfig, preset: str) -> frozenset[str]:
    """The tags of timing rows that are active: the preset, those that it builds on, and the kind of row buffers."""
    return frozenset({*preset_chain(preset), memory.row_buffers})


def _path(name: str, where: str) -> Path:
    presets = available("presets")
    if name not in presets:
        raise InputError(f"{where}={name!r}: no such file in configs/presets; {suggestion(name, presets)}")
    return presets[name]

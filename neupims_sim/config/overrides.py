"""What wins over every file: ``--set key=value``, or a mapping in Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import reduce
from numbers import Integral, Real
from typing import Any, NamedTuple

from pydantic import BaseModel

from neupims_sim.config import yaml_text
from neupims_sim.errors import InputError, shown

Overrides = Sequence[str] | Mapping[str, Any]
"""``["model.layers=2", "memory.timing.tRP=14 ns"]``, as ``--set`` takes them, or ``{"model.layers": 2}``."""


class Override(NamedTuple):
    """One value that wins over every file."""

    keys: tuple[str, ...]
    value: Any

    @property
    def tree(self) -> dict[str, Any]:
        """The value in its place below the root."""
        tree: dict[str, Any] = reduce(lambda inner, key: {key: inner}, reversed(self.keys), self.value)
        return tree


def source_of(overrides: Overrides) -> str:
    """What messages call them: texts are written as ``--set`` takes them."""
    return "overrides" if isinstance(overrides, Mapping) else "--set"


def parse_overrides(overrides: Overrides) -> list[Override]:
    """Key paths and values, names of files before details of their content; raises InputError for what is neither text nor mapping.

    So ``model.layers=2`` holds on top of ``model=gpt3-13b`` in either order; of two values of one key the later wins.
    """
    source = source_of(overrides)
    parsed = []
    for key, value in _pairs(overrides, source):
        parts = tuple(key.split("."))
        if not all(parts):
            raise InputError(f"{source} {shown(key)}: an empty key; write e.g. model.layers=2")
        if len(parts) > yaml_text.MOST_LEVELS:
            raise InputError(f"{source} {shown(key)}: more than {yaml_text.MOST_LEVELS} levels of keys")
        parsed.append(Override(parts, value))
    return sorted(parsed, key=lambda override: len(override.keys) - (override.keys[-1] == "base"))


def _pairs(overrides: Overrides, source: str) -> list[tuple[str, Any]]:
    if isinstance(overrides, Mapping):
        wrong = next((key for key in overrides if not isinstance(key, str)), None)
        if wrong is not None:
            raise InputError(f"{source}: key {shown(wrong)}: must be text such as 'model.layers'")
        return [(key, _plain(value, f"{source}: {key}", 0)) for key, value in overrides.items()]
    if isinstance(overrides, str | bytes) or not isinstance(overrides, Sequence):
        what = f"overrides={shown(overrides)}"
        raise InputError(f"{what}: must be a mapping such as {{'model.layers': 2}}, or a list of 'model.layers=2'")
    pairs = []
    for text in overrides:
        if not isinstance(text, str) or "=" not in text:
            raise InputError(f"{source} {shown(text)}: write key=value, e.g. model.layers=2")
        key, _, value = text.partition("=")
        pairs.append((key.strip(), yaml_text.parse(value, f"{source} {key.strip()}={shown(value)}")))
    return pairs


def _plain(value: Any, where: str, level: int) -> Any:
    """A value of Python as YAML would have it; raises InputError, starting with ``where``, if it has nothing of this kind."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if level == yaml_text.MOST_LEVELS:
        raise InputError(f"{where}: more than {yaml_text.MOST_LEVELS} levels of mappings and lists in each other")
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}", level + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where, level + 1) for item in value]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise InputError(f"{where}={shown(value)}: a {type(value).__name__}; allowed: numbers, texts, lists and mappings")

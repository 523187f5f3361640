"""Many configurations that set the same keys to other values, as the points of a sweep do, without reading files again for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from neupims_sim.config.checks import violations
from neupims_sim.config.loader import NAMED_SECTIONS, load_telling, merge, resolve
from neupims_sim.config.overrides import parse_overrides
from neupims_sim.config.schema import Config

Tree = dict[str, Any]

_STRUCTURE = {
    *NAMED_SECTIONS,
    "preset",
    "memory.speed",
    "model.family",
    "workload.kind",
    "workload.requests",
    "workload.path",
}
"""Keys whose value decides what files say."""
_STRUCTURE_ENDS = (".base", ".name")
_STRUCTURE_STARTS = ("memory.timing.", "memory.presets", "memory.speeds", "memory.constraints")


class _Resolved(NamedTuple):
    """A configuration, and the tree before validation that others with the same keys differ from in their values only."""

    config: Config
    tree: Tree


class Variations:
    """Loads configurations as :func:`load_config` does, and reads files once for all that set the same keys.

    Files must not change during its life. The first configuration with its keys, and each that is not valid, goes the whole way,
    so messages are those of :func:`load_config`.
    """

    def __init__(self) -> None:
        self._known: dict[Any, _Resolved] = {}

    def load(self, system: str, overrides: Mapping[str, Any]) -> Config:
        """The configuration of a system with overrides; raises InputError."""
        free = {key: value for key, value in overrides.items() if _is_free(key, value)}
        fixed = sorted((key, repr(value)) for key, value in overrides.items() if key not in free)
        group = (system, tuple(fixed), frozenset(free))
        if group not in self._known:
            config, _ = load_telling(system, overrides)
            self._known[group] = _Resolved(config, resolve(system, overrides)[0])
            return config
        varied = _varied(self._known[group], free)
        return load_telling(system, overrides)[0] if varied is None else varied


def _is_free(key: str, value: Any) -> bool:
    """Whether an override changes a value and nothing else."""
    structural = key in _STRUCTURE or key.endswith(_STRUCTURE_ENDS) or key.startswith(_STRUCTURE_STARTS)
    return not structural and not isinstance(value, Mapping)


def _varied(known: _Resolved, values: Mapping[str, Any]) -> Config | None:
    """The configuration with other values; None if it is not valid. Sections that have none of the keys stay as they are."""
    tree = known.tree
    changed = set()
    for override in parse_overrides(values):
        tree = merge(tree, override.tree, append_constraints=False)
        changed.add(override.keys[0])
    try:
        config = Config.model_validate(
            {name: _section(known.config, name, tree[name], name in changed) for name in tree}
        )
    except ValidationError:
        return None
    return None if any(violations(config, table="memory" in changed)) else config


def _section(config: Config, name: str, value: Any, changed: bool) -> Any:
    """A section of the schema that it has in ``config``; the one there if it has not changed."""
    old = getattr(config, name)
    if not changed:
        return old
    return type(old).model_validate(value) if isinstance(old, BaseModel) else value

"""What the configurations of many points share, and in what they differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Tree = Mapping[str, Any]

ABSENT = None
"""Stands for a key that a point does not have, among values that are JSON texts."""


@dataclass(frozen=True)
class Configs:
    """The configurations of points, by what they share and what not. Keys are paths in the tree."""

    shared: dict[tuple[str, ...], str]
    """Value of every key that all points have alike, JSON."""
    values: dict[tuple[str, ...], list[str | None]]
    """The distinct values of every other key, JSON, in order of the points; `ABSENT` where a point lacks the key."""
    points: dict[str, list[int]]
    """By hash, which of its values a point has, for every key of ``values``."""

    @staticmethod
    def of(configs: Iterable[tuple[str, Tree]]) -> Configs:
        """From hashes and resolved configurations; of each only its difference from the first one is kept."""
        first: dict[tuple[str, ...], str] = {}
        changes: dict[str, dict[tuple[str, ...], str | None]] = {}
        for name, tree in configs:
            own = dict(leaves(tree))
            first = first if changes else own
            lacking = dict.fromkeys(first.keys() - own.keys(), ABSENT)
            changes[name] = {key: value for key, value in own.items() if first.get(key) != value} | lacking
        changed = {key for change in changes.values() for key in change}
        keys = [key for key in first if key in changed] + sorted(changed - first.keys())
        numbers: dict[tuple[str, ...], dict[str | None, int]] = {key: {} for key in keys}
        points = {
            name: [numbers[key].setdefault(change.get(key, first.get(key, ABSENT)), len(numbers[key])) for key in keys]
            for name, change in changes.items()
        }
        shared = {key: value for key, value in first.items() if key not in changed}
        return Configs(shared, {key: list(found) for key, found in numbers.items()}, points)

    def shared_tree(self) -> dict[str, Any]:
        """The shared keys as a tree."""
        return _tree(self.shared)

    def distinct(self, *path: str) -> list[Any]:
        """The values of a key among the points; none if no point has it."""
        if path in self.shared:
            return [json.loads(self.shared[path])]
        return [json.loads(value) for value in self.values.get(path, []) if value is not ABSENT]

    def tree(self, name: str) -> dict[str, Any]:
        """The configuration of a point."""
        own = {key: found[i] for (key, found), i in zip(self.values.items(), self.points[name], strict=True)}
        return _tree(self.shared | {key: value for key, value in own.items() if value is not ABSENT})


def leaves(tree: Tree, prefix: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], str]]:
    """Path and value (JSON) of everything in a tree; lists and empty mappings are values."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*prefix, key))
        else:
            yield (*prefix, key), json.dumps(value, ensure_ascii=False)


def _tree(values: Mapping[tuple[str, ...], str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        place = tree
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = json.loads(value)
    return tree

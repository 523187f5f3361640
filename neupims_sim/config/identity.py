"""A resolved configuration as a file, and its identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from neupims_sim.config import yaml_text
from neupims_sim.config.schema import Config

RESOLVED = "# Resolved configuration"
"""How files with a resolved configuration begin."""


def config_hash(config: Config) -> str:
    """16 hexadecimal digits of the SHA-256 of the resolved tree: equal trees have equal hashes, however they were written.

    A file that the configuration names (``workload.requests``) counts by its path, not by its content.
    """
    return _digest(_canonical(config.model_dump(mode="json")))


def dump_config(config: Config) -> str:
    """The resolved tree as YAML; loading it gives ``config`` again, since every key is explicit and so wins over the preset."""
    return (
        f"{RESOLVED} {config_hash(config)}.\n"
        "# Every key is explicit and so wins over the preset: changing `preset` alone changes no other.\n"
        f"{dump_tree(config.model_dump(mode='json'))}"
    )


def dump_tree(tree: Mapping[str, Any]) -> str:
    """A resolved tree, or a part of one, as YAML; timing constraints stand as memory files write them."""
    memory = tree.get("memory", {})
    if "constraints" in memory:
        rows = [_row(constraint) for constraint in memory["constraints"]]
        tree = {**tree, "memory": {**memory, "constraints": rows}}
    return yaml_text.dump(tree)


class Dumped(NamedTuple):
    """A resolved configuration as it is stored."""

    text: str
    """JSON, keys in the order of the schema."""
    hash: str
    """As :func:`config_hash` has it."""
    texts: frozenset[tuple[str, str]]
    """Every text in it with the key that it is the value of."""


class Dumper:
    """Dumps many configurations that share sections: each section once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[Any, _Part]] = {}

    def dump(self, config: Config) -> Dumped:
        """A configuration, as text and by its identity."""
        parts = {name: self._part(name, getattr(config, name)) for name in Config.model_fields}
        text = ", ".join(f"{json.dumps(name)}: {part.text}" for name, part in parts.items())
        canonical = ",".join(f"{json.dumps(name)}:{parts[name].canonical}" for name in sorted(parts))
        texts = frozenset[tuple[str, str]]().union(*(part.texts for part in parts.values()))
        return Dumped(f"{{{text}}}", _digest(f"{{{canonical}}}"), texts)

    def _part(self, name: str, value: Any) -> _Part:
        if not isinstance(value, BaseModel):
            return _Part.of(name, value)
        known = self._known.get((name, id(value)))
        if known is None:
            if len(self._known) >= _MOST_PARTS:
                del self._known[next(iter(self._known))]
            known = self._known[name, id(value)] = value, _Part.of(name, value.model_dump(mode="json"))
        return known[1]


_MOST_PARTS = 200
"""Sections that are remembered."""


class _Part(NamedTuple):
    """A section, or a value beside the sections."""

    text: str
    canonical: str
    texts: frozenset[tuple[str, str]]

    @staticmethod
    def of(name: str, tree: Any) -> _Part:
        """Of a dumped value."""
        return _Part(json.dumps(tree, ensure_ascii=False), _canonical(tree), frozenset(_texts(tree, name)))


def _canonical(tree: Any) -> str:
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _digest(canonical: str) -> str:
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:16]


def _texts(tree: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(tree, str):
        yield key, tree
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _texts(value, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value, key)


def _row(constraint: Mapping[str, Any]) -> yaml_text.FlowList:
    """A timing constraint as memory files write it."""
    row = [
        constraint["scope"], " ".join(constraint["previous"]), " ".join(constraint["next"]), constraint["latency"]
    ]  # fmt: skip
    defaults = {"window": 1, "when": [], "source": ""}
    options = {key: constraint[key] for key, default in defaults.items() if constraint[key] != default}
    return yaml_text.FlowList([*row, options] if options else row)

"""A resolved configuration as a file, and its identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from neupims_sim.config import yaml_text
from neupims_sim.config.schema import Config


def config_hash(config: Config) -> str:
    """16 hexadecimal digits of the SHA-256 of the resolved tree: equal trees have equal hashes, however they were written.

    A file that the configuration names (``workload.requests``) counts by its path, not by its content.
    """
    return tree_hash(config.model_dump(mode="json"))


def tree_hash(tree: Mapping[str, Any]) -> str:
    """:func:`config_hash` of a dumped configuration."""
    canonical = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:16]


def dump_config(config: Config) -> str:
    """The resolved tree as YAML; loading it gives ``config`` again, since every key is explicit and so wins over the preset."""
    return (
        f"# Resolved configuration {config_hash(config)}.\n"
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


def _row(constraint: Mapping[str, Any]) -> yaml_text.FlowList:
    """A timing constraint as memory files write it."""
    row = [
        constraint["scope"], " ".join(constraint["previous"]), " ".join(constraint["next"]), constraint["latency"]
    ]  # fmt: skip
    defaults = {"window": 1, "when": [], "source": ""}
    options = {key: constraint[key] for key, default in defaults.items() if constraint[key] != default}
    return yaml_text.FlowList([*row, options] if options else row)

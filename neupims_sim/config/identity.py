"""A resolved configuration as a file, and its identity."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import yaml

from neupims_sim.config.memory import Constraint
from neupims_sim.config.schema import Config


def config_hash(config: Config) -> str:
    """16 hexadecimal digits of the SHA-256 of the resolved tree: equal trees have equal hashes, however they were written.

    A file that the configuration names (``workload.requests``) counts by its path, not by its content.
    """
    canonical = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:16]


def dump_config(config: Config) -> str:
    """The resolved tree as YAML; loading it gives ``config`` again, since every key is explicit and so wins over the preset."""
    tree = config.model_dump(mode="json")
    tree["memory"]["constraints"] = [_row(constraint) for constraint in config.memory.constraints]
    text = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return (
        f"# Resolved configuration {config_hash(config)}.\n"
        f"# Every key is explicit and so wins over the preset: changing `preset` alone changes no other.\n{text}"
    )


class _FlowList(list[Any]):
    """A list written on one line."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_flow(dumper: yaml.SafeDumper, row: _FlowList) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", row, flow_style=True)


_Dumper.add_representer(_FlowList, _represent_flow)


def _row(constraint: Constraint) -> _FlowList:
    """A timing constraint as memory files write it."""
    row = [constraint.scope, " ".join(constraint.previous), " ".join(constraint.next), constraint.latency]
    options = constraint.model_dump(mode="json", include={"window", "when", "source"}, exclude_defaults=True)
    return _FlowList([*row, options] if options else row)

"""``neupims-sim list``: what can be named in a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pkgutil import resolve_name
from typing import Annotated

import typer

from neupims_sim.cli.options import JsonOption
from neupims_sim.cli.output import print_json, print_table
from neupims_sim.config import available
from neupims_sim.config.files import label

POLICIES = {
    "scheduling.channel_assignment": "neupims_sim.scheduling.channels:CHANNEL_ASSIGNMENTS",
    "scheduling.partition": "neupims_sim.scheduling.partition:PARTITIONS",
    "npu.systolic.sharing": "neupims_sim.npu.sharing:sharing_policies",
}
"""The registry behind each configuration key that names a policy; imported when listed."""


class Kind(StrEnum):
    """What can be listed; all but policies are folders of ``configs``."""

    systems = "systems"
    models = "models"
    memory = "memory"
    npu = "npu"
    workloads = "workloads"
    presets = "presets"
    policies = "policies"


def list_names(kind: Annotated[Kind, typer.Argument(help="What to list.")], json: JsonOption = False) -> None:
    """List what a configuration can name: files of a folder of configs, or registered policies."""
    if kind is Kind.policies:
        policies = {key: _names(registry) for key, registry in POLICIES.items()}
        if json:
            print_json(policies)
        else:
            print_table(("key", "policies"), ((key, ", ".join(names)) for key, names in policies.items()))
        return
    files = {stem: label(path) for stem, path in available(kind.value).items()}
    if json:
        print_json(files)
    else:
        print_table(("name", "file"), files.items())


def _names(registry: str) -> list[str]:
    entries: Iterable[str] = resolve_name(registry)
    return list(entries)

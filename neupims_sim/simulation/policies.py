"""Which configuration keys name a policy, and whether what they name exists."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from neupims_sim.config import Config
from neupims_sim.errors import InputError, shown
from neupims_sim.memory.models import MEMORY_MODELS
from neupims_sim.memory.policies import CONTROLLER_POLICIES
from neupims_sim.npu.sharing import sharing_policies
from neupims_sim.registry import Registry
from neupims_sim.scheduling.channels import CHANNEL_ASSIGNMENTS
from neupims_sim.scheduling.interleaving import INTERLEAVINGS
from neupims_sim.scheduling.partition import PARTITIONS

POLICIES: Mapping[str, Registry[Any]] = {
    **{
        registry.key: registry
        for registry in (INTERLEAVINGS, CHANNEL_ASSIGNMENTS, PARTITIONS, sharing_policies, MEMORY_MODELS)
    },
    **{f"memory.controller.{key}": registry for key, registry in CONTROLLER_POLICIES.items()},
}
"""The registry behind each configuration key that names a policy."""


def check_config_names(config: Config) -> None:
    """Raise InputError, with the nearest name, unless every policy that the configuration names exists."""
    for key, registry in POLICIES.items():
        name = attrgetter(key)(config)
        if name in registry.rules:
            continue
        try:
            registry[name]
        except InputError as error:
            raise InputError(f"{key}={shown(name)}: {str(error).removeprefix(f'{key}={shown(name)} ')}") from None

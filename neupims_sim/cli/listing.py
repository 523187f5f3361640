"""``neupims-sim list``: what can be named in a configuration."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from neupims_sim.cli.options import JsonOption
from neupims_sim.cli.output import print_json, print_table
from neupims_sim.config import available
from neupims_sim.config.files import LENGTHS, label


class Kind(StrEnum):
    """What can be listed; all but plots and policies (with the operator kinds of traces) are files or folders with a name."""

    systems = "systems"
    models = "models"
    memory = "memory"
    npu = "npu"
    workloads = "workloads"
    presets = "presets"
    sweeps = "sweeps"
    experiments = "experiments"
    lengths = "lengths"
    plots = "plots"
    policies = "policies"


def list_names(kind: Annotated[Kind, typer.Argument(help="What to list.")], json: JsonOption = False) -> None:
    """List what a configuration can name: files of a folder of configs, or registered policies; and plots."""
    if kind is Kind.plots:
        _list_plots(json)
        return
    if kind is Kind.policies:
        policies = _policies()
        if json:
            print_json(policies)
        else:
            print_table(("key", "policies"), ((key, ", ".join(names)) for key, names in policies.items()))
        return
    folder = LENGTHS if kind is Kind.lengths else kind.value
    files = {name: label(path) for name, path in available(folder).items()}
    if json:
        print_json(files)
    else:
        print_table(("name", "file"), files.items())


def _policies() -> dict[str, list[str]]:
    """Registered names, by the key or option that names them."""
    from neupims_sim import serving, simulation  # here, because the simulator is slow to load
    from neupims_sim.trace import KINDS
    from neupims_sim.workloads.importing import IMPORTERS

    registries = {**simulation.POLICIES, **serving.POLICIES, "trace import": IMPORTERS, "operator kinds": KINDS}
    return {key: list(registry) for key, registry in registries.items()}


def _list_plots(json: bool) -> None:
    """Each plot with the first line of its documentation."""
    from neupims_sim.plots import PLOTS  # here, because Matplotlib is slow to load

    plots = {name: (PLOTS[name].__doc__ or "").strip().partition("\n")[0].rstrip(".") for name in PLOTS}
    if json:
        print_json(plots)
    else:
        print_table(("name", "shows"), plots.items())

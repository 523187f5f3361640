"""``neupims-sim config``: what a configuration resolves to, and whether files are valid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from neupims_sim.cli.options import ConfigArgument, JsonOption, SetOption, group, names_of
from neupims_sim.cli.output import print_json
from neupims_sim.config import Config, MemoryConfig, check_file, dump_config, load_config
from neupims_sim.config.files import EXPERIMENTS, KINDS, label
from neupims_sim.config.starting import start
from neupims_sim.errors import InputError

app = group("Show, check and start configurations.")


@app.command()
def show(config: ConfigArgument, set_: SetOption = None, json: JsonOption = False) -> None:
    """Print the fully resolved configuration: YAML that can be run again, or JSON."""
    from neupims_sim.simulation import check_config_names  # here, because the simulator is slow to load

    resolved = load_config(config, set_ or ())
    check_config_names(resolved)
    if json:
        print_json(resolved.model_dump(mode="json"))
    else:
        typer.echo(dump_config(resolved), nl=False)


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of any folder of configs.")],
) -> None:
    """Validate files: configurations, memories, NPUs, models, workloads, presets."""
    bad = 0
    for file in files:
        try:
            for loaded, preset in check_file(file):
                _check_names(loaded, preset, file)
        except InputError as error:
            typer.echo(f"error: {error}", err=True)
            bad += 1
        else:
            typer.echo(f"{file}: ok")
    if bad:
        raise typer.Exit(2)


@app.command()
def new(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Of a system, model, memory, NPU, workload, preset, sweep or experiment: see `list`.",
            autocompletion=names_of(*KINDS, EXPERIMENTS),
        ),
    ],
) -> None:
    """Copy a shipped file into this folder, to start from. Nothing is overwritten."""
    copy, use = start(name)
    typer.echo(f"{copy}: a copy of {name} to change; use: {use}")


def _check_names(loaded: BaseModel, preset: str, file: Path) -> None:
    """What only the simulator knows: the names of policies, and what the memory engine can do; raises InputError."""
    from neupims_sim.memory import resolve  # here, because the simulator is slow to load
    from neupims_sim.memory.device import build_table
    from neupims_sim.simulation import check_config_names

    try:
        if isinstance(loaded, Config):
            check_config_names(loaded)
        memory = loaded.memory if isinstance(loaded, Config) else loaded
        if isinstance(memory, MemoryConfig) and memory.model == "command":
            build_table(resolve(memory, preset))
    except InputError as error:
        raise InputError(f"{label(file)}: {error}") from None

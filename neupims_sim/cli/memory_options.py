"""Arguments and options that several ``memory`` commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neupims_sim.cli.options import names_of
from neupims_sim.config import MemoryConfig, load_memory
from neupims_sim.errors import InputError

MemoryArgument = Annotated[
    str,
    typer.Argument(
        metavar="MEMORY", help="A name in configs/memory, or a YAML file.", autocompletion=names_of("memory")
    ),
]
TraceArgument = Annotated[
    Path | None, typer.Argument(metavar="[TRACE]", help="Requests: '0xADDRESS READ|WRITE CYCLE' per line.")
]
ProgramOption = Annotated[
    Path | None,
    typer.Option("--pim", metavar="PROGRAM", help="PIM program to run on channel 0 meanwhile: GWRITE and TILE lines."),
]
PresetOption = Annotated[str, typer.Option(help="Modelling assumptions: a name in configs/presets.")]
MemorySetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="K=V", help="Override a key, e.g. controller.page_policy=closed. May be repeated."),
]
ChannelsOption = Annotated[int | None, typer.Option(help="Channels; the memory's own unless given.")]


def command_memory(
    command: str, memory: str, preset: str, overrides: list[str] | None, channels: int | None = None
) -> MemoryConfig:
    """A memory of model ``command``, with overrides and another number of channels; ``command`` names the caller in messages."""
    if channels is not None and (channels < 1 or channels & (channels - 1)):
        raise InputError(f"{command}: --channels {channels}: must be a power of two, because address bits select it")
    more = [] if channels is None else [f"organization.channels={channels}"]
    config = load_memory(memory, preset, [*(overrides or ()), *more])
    if config.model != "command":
        raise InputError(f"{command}: {memory} is of model {config.model!r}; allowed: model 'command'")
    return config

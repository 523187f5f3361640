"""``neupims-sim memory``: the memories, and a trace replayed on one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neupims_sim.cli.options import JsonOption
from neupims_sim.cli.output import print_json, print_table
from neupims_sim.config import MemoryConfig, available, load_memory
from neupims_sim.config.files import label
from neupims_sim.errors import InputError

if TYPE_CHECKING:
    from neupims_sim.memory import Replay

app = typer.Typer(help="Memories, without the rest of a system.", no_args_is_help=True)

_UNITS = {
    "cycles": "cycles until everything is complete",
    "memory_cycles": "cycles until the last request is complete",
    "pim_cycles": "cycles until the PIM program is complete",
    "reads": "reads",
    "writes": "writes",
    "mean_read_latency_cycles": "mean read latency, cycles",
    "bandwidth_gbps": "bandwidth, GB/s",
    "wall_seconds": "wall time of the engine, s",
}


@app.command("list")
def list_memories(json: JsonOption = False) -> None:
    """List the memories in configs/memory."""
    memories = {name: (load_memory(name), path) for name, path in available("memory").items()}
    if json:
        print_json({name: _facts(memory) | {"file": label(path)} for name, (memory, path) in memories.items()})
        return
    print_table(
        ("name", "title", "model", "row buffers", "channels", "capacity GiB", "peak GB/s", "file"),
        ((name, *_facts(memory).values(), label(path)) for name, (memory, path) in memories.items()),
    )


def _facts(memory: MemoryConfig) -> dict[str, str | int | float]:
    organization = memory.organization
    per_channel = organization.burst_bytes / organization.burst_cycles * organization.clock_ghz
    return {
        "title": memory.name,
        "model": memory.model,
        "row_buffers": memory.row_buffers,
        "channels": organization.channels,
        "capacity_gib": organization.capacity_bytes / 2**30,
        "peak_gbps": per_channel * organization.channels,
    }


@app.command()
def replay(
    memory: Annotated[str, typer.Argument(metavar="MEMORY", help="A name in configs/memory, or a YAML file.")],
    trace: Annotated[
        Path | None, typer.Argument(metavar="[TRACE]", help="Requests: '0xADDRESS READ|WRITE CYCLE' per line.")
    ] = None,
    pim: Annotated[
        Path | None,
        typer.Option(metavar="PROGRAM", help="PIM program to run on channel 0 meanwhile: GWRITE and TILE lines."),
    ] = None,
    channels: Annotated[int | None, typer.Option(help="Channels; the memory's own unless given.")] = None,
    preset: Annotated[str, typer.Option(help="Modelling assumptions: a name in configs/presets.")] = "physical",
    json: JsonOption = False,
    commands: Annotated[
        Path | None, typer.Option(metavar="F.csv", help="Also write every issued command to this file.")
    ] = None,
) -> None:
    """Replay a trace of requests, a PIM program, or both, on the command-level engine.

    Requests are offered in order, one per cycle, each from its stamped cycle on, and accepted when there is room.
    """
    if trace is None and pim is None:
        raise InputError("memory replay: nothing to replay; give a TRACE, --pim PROGRAM, or both")
    if channels is not None and (channels < 1 or channels & (channels - 1)):
        raise InputError(
            f"memory replay: --channels {channels}: must be a power of two, because address bits select it"
        )
    config = load_memory(memory, preset, {} if channels is None else {"organization.channels": channels})
    if config.model != "command":
        raise InputError(f"memory replay: {memory} is of model {config.model!r}; allowed: model 'command'")
    from neupims_sim.memory import parse_program, read_requests, replay_requests, resolve  # here: slow to load

    spec = resolve(config, preset)
    requests = None if trace is None else read_requests(trace, config.organization.capacity_bytes)
    program = None if pim is None else parse_program(pim)
    result = replay_requests(spec, requests, program, log=commands is not None)
    if commands is not None:
        _write_commands(result, commands)
    figures = {field.name: getattr(result, field.name) for field in dataclasses.fields(result) if field.name != "log"}
    if json:
        print_json(figures)
        return
    print_table(
        ("metric", "value"), ((text, _shown(figures[name])) for name, text in _UNITS.items()), title=config.name
    )
    print_table(("command", "count"), ((name, count) for name, count in result.commands.items() if count))


def _shown(figure: float) -> str:
    return f"{figure:,}" if isinstance(figure, int) else f"{figure:,.3f}"


def _write_commands(result: Replay, path: Path) -> None:
    import pandas as pd

    from neupims_sim.memory import COMMANDS, LOG_FIELDS

    table = pd.DataFrame(result.log, columns=list(LOG_FIELDS))
    table["command"] = table["command"].map(dict(enumerate(COMMANDS)))
    try:
        table.to_csv(path, index=False)
    except OSError as error:
        raise InputError(f"--commands {path}: cannot be written: {error.strerror or error}") from None

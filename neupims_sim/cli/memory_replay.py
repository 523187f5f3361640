"""``neupims-sim memory replay``: a trace of requests, a PIM program, or both, on one memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neupims_sim.cli.memory_options import (
    ChannelsOption,
    MemoryArgument,
    MemorySetOption,
    PresetOption,
    ProgramOption,
    TraceArgument,
    command_memory,
)
from neupims_sim.cli.options import JsonOption
from neupims_sim.cli.output import print_json, print_table
from neupims_sim.config import MemoryConfig
from neupims_sim.errors import InputError
from neupims_sim.writing import replaced

if TYPE_CHECKING:
    from neupims_sim.memory import Replay, ResolvedSpec

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


def replay(
    memory: MemoryArgument,
    trace: TraceArgument = None,
    pim: ProgramOption = None,
    channels: ChannelsOption = None,
    preset: PresetOption = "physical",
    set_: MemorySetOption = None,
    per_channel: Annotated[
        bool, typer.Option("--per-channel", help="Offer one request per cycle to every channel, each in its own order.")
    ] = False,
    json: JsonOption = False,
    commands: Annotated[
        Path | None, typer.Option(metavar="F.csv", help="Also write every issued command to this file.")
    ] = None,
) -> None:
    """Replay a trace of requests, a PIM program, or both, on the command-level engine.

    Requests come from one source: in order, one per cycle, each from its stamped cycle on, and the next waits until its channel
    has accepted it. With --per-channel every channel has a source of its own.
    """
    if trace is None and pim is None:
        raise InputError("memory replay: nothing to replay; give a TRACE, --pim PROGRAM, or both")
    config = command_memory("memory replay", memory, preset, set_, channels)
    spec, result = run_replay(config, preset, trace, pim, log=commands is not None, per_channel=per_channel)
    if commands is not None:
        _write_commands(spec, result, commands)
    figures = {field.name: getattr(result, field.name) for field in dataclasses.fields(result) if field.name != "log"}
    if json:
        print_json(figures)
        return
    print_table(
        ("metric", "value"), ((text, _shown(figures[name])) for name, text in _UNITS.items()), title=config.name
    )
    print_table(("command", "count"), ((name, count) for name, count in result.commands.items() if count))


def run_replay(
    config: MemoryConfig, preset: str, trace: Path | None, pim: Path | None, *, log: bool, per_channel: bool = False
) -> tuple[ResolvedSpec, Replay]:
    """Replay the files on a memory; with ``log`` the result has every issued command."""
    from neupims_sim.memory import parse_program, replay_requests, resolve, stream_requests  # here: slow to load

    spec = resolve(config, preset)
    requests = None if trace is None else stream_requests(trace, config.organization.capacity_bytes)
    program = None if pim is None else parse_program(pim, config)
    return spec, replay_requests(spec, requests, program, log=log, per_channel=per_channel)


def _shown(figure: float) -> str:
    return f"{figure:,}" if isinstance(figure, int) else f"{figure:,.3f}"


def _write_commands(spec: ResolvedSpec, result: Replay, path: Path) -> None:
    from neupims_sim.memory.command_log import command_table

    assert result.log is not None
    table = command_table(spec, result.log)
    with replaced(path, f"--commands {path}") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table.to_csv(file, index=False, lineterminator="\n")

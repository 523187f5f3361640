"""``neupims-sim memory timeline``: a picture of the commands on one channel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

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
from neupims_sim.cli.memory_replay import run_replay
from neupims_sim.errors import InputError


def timeline(
    memory: MemoryArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="A pdf, png or svg file.")],
    trace: TraceArgument = None,
    pim: ProgramOption = None,
    commands: Annotated[
        Path | None, typer.Option(metavar="F.csv", help="Instead: commands that `memory replay --commands` wrote.")
    ] = None,
    begin: Annotated[
        int | None, typer.Option("--from", metavar="CYCLE", help="First cycle; that of the first command unless given.")
    ] = None,
    cycles: Annotated[int, typer.Option(help="Cycles to show.")] = 600,
    channel: Annotated[int, typer.Option(help="The channel to show.")] = 0,
    banks: Annotated[
        str | None,
        typer.Option(help="Banks to show, counted through the channel, e.g. 0-7,16; those at work unless given."),
    ] = None,
    channels: ChannelsOption = None,
    preset: PresetOption = "physical",
    set_: MemorySetOption = None,
) -> None:
    """Draw the commands on one channel: its buses, and for every bank the rows in its memory and its PIM row buffer."""
    if (commands is None) == (trace is None and pim is None):
        raise InputError("memory timeline: give a TRACE, --pim PROGRAM, or both; or else --commands F.csv")
    if cycles < 1:
        raise InputError(f"memory timeline: --cycles {cycles}: must be at least 1")
    from neupims_sim.plots.files import check_format, save_figure  # here, because Matplotlib is slow to load

    check_format(output)
    config = command_memory("memory timeline", memory, preset, set_, channels)
    from neupims_sim.memory.command_log import read_commands
    from neupims_sim.plots.command_timeline import draw_command_timeline

    if commands is None:
        spec, result = run_replay(config, preset, trace, pim, log=True)
        log = result.log
        assert log is not None
    else:
        from neupims_sim.memory import resolve

        spec = resolve(config, preset)
        log = read_commands(spec, commands)
    shown = None if banks is None else _numbers(banks)
    save_figure(draw_command_timeline(spec, log, channel, begin, cycles, shown), output)
    typer.echo(output)


def _numbers(text: str) -> list[int]:
    """``0-3,8`` as 0, 1, 2, 3, 8."""
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        raise InputError(f"memory timeline: --banks {text!r}: write numbers and ranges, e.g. 0-7,16")
    ends = [(part.split("-")[0], part.split("-")[-1]) for part in text.split(",")]
    return [bank for first, last in ends for bank in range(int(first), int(last) + 1)]

"""``neupims-sim run``: one configuration, simulated."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import rich.progress
import typer
from rich.console import Console

from neupims_sim.cli.options import ConfigArgument, JsonOption, SetOption
from neupims_sim.cli.output import print_json
from neupims_sim.cli.run_table import print_result
from neupims_sim.config import load_config
from neupims_sim.config.files import label
from neupims_sim.errors import InputError

if TYPE_CHECKING:
    pass


def run(
    config: ConfigArgument,
    set_: SetOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run directory; results/run-<configuration>-<hash> unless given.")
    ] = None,
    json: JsonOption = False,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Also write timeline.json.gz, for https://ui.perfetto.dev.")
    ] = False,
    timeline_window: Annotated[
        str | None,
        typer.Option(
            metavar="START:END",
            help="Cycles that the timeline shows, single commands included if they are few; the last steady-state layer unless given.",
        ),
    ] = None,
) -> None:
    """Simulate a decode iteration, an inference, a batch of queries or a trace, print the result, and write a run directory.

    The directory holds config.yaml (resolved), result.json, operators.csv, provenance.json and a timeline if asked for. Exit code 1 if the
    simulation cannot make progress.
    """
    from neupims_sim.simulation import (  # here: slow to load
        Origin,
        SimulationStalled,
        Timeline,
        check_run_directory,
        simulate,
        write_run,
    )

    window = None if timeline_window is None else _window(timeline_window)
    resolved = load_config(config, set_ or ())
    origin = Origin.of(config, set_ or ())
    directory = out or origin.directory("run", resolved)
    check_run_directory(directory, f"--out {directory}" if out else "")
    watcher = Timeline(window) if timeline or window is not None else None
    begin = time.perf_counter()
    try:
        with spinner(f"simulating {resolved.system}"):
            result = simulate(resolved, watcher)
    except SimulationStalled as stalled:
        typer.echo(f"error: the simulation stalled: {stalled}", err=True)
        raise typer.Exit(1) from None
    write_run(result, resolved, directory, time.perf_counter() - begin, watcher, origin)
    if json:
        print_json(result.to_json())
    else:
        print_result(origin.name, resolved, result)
    typer.echo(f"results in {label(directory)}", err=True)


def _window(text: str) -> tuple[int, int]:
    cycles = re.fullmatch(r"(\d+):(\d+)", text)
    if cycles is None or not int(cycles[1]) < int(cycles[2]):
        raise InputError(f"--timeline-window {text!r} is not START:END in cycles with START < END, e.g. 0:500000")
    return int(cycles[1]), int(cycles[2])


@contextmanager
def spinner(what: str) -> Iterator[None]:
    """What is going on and for how long, on stderr if that is a terminal; gone afterwards."""
    if not sys.stderr.isatty():
        yield
        return
    columns = (
        rich.progress.SpinnerColumn(),
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.TimeElapsedColumn(),
    )
    with rich.progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(what, total=None)
        yield

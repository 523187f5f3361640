"""``neupims-sim validate``: golden tables beside our own figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from neupims_sim.cli.options import JsonOption
from neupims_sim.cli.output import print_json
from neupims_sim.errors import InputError
from neupims_sim.writing import write_text


def validate(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the page here instead of to stdout.")
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Request batches of the public NeuPIMs repository, for the whole-block table."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; as many as CPUs unless given.")] = None,
    json: JsonOption = False,
) -> None:
    """Compare with SCALE-Sim, DRAMsim3 and the NeuPIMs artifact; print a Markdown page. Takes a minute or two."""
    from neupims_sim import validation  # here, because it loads the simulator

    if output is not None and not output.absolute().parent.is_dir():
        raise InputError(f"-o {output}: no such folder")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("validate", total=validation.count_steps(requests))
        found = validation.validate(
            requests, workers, on_progress=lambda done: progress.update(task, advance=1, description=done)
        )
    page = validation.to_markdown(found)
    if output is not None:
        write_text(output, page, f"-o {output}")
    if json:
        print_json(validation.to_json(found))
    else:
        typer.echo(page if output is None else output, nl=output is not None)

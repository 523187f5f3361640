"""``neupims-sim memory import``: memory tables from files of other simulators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neupims_sim.errors import InputError
from neupims_sim.writing import write_text


def import_table(
    file: Annotated[Path, typer.Argument(metavar="FILE.ini", help="A configuration of DRAMsim3.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="NAME.yaml", help="The table to write; in configs/memory it has a name."
        ),
    ],
) -> None:
    """Make a memory table of a DRAMsim3 configuration; what it cannot take over is told, and noted in the table."""
    if output.suffix not in (".yaml", ".yml"):
        raise InputError(f"memory import: -o {output}: must end in .yaml")
    from neupims_sim.memory.dramsim3 import import_dramsim3  # here, because the engine is slow to load

    table = import_dramsim3(file)
    write_text(output, table.text, f"memory import: -o {output}")
    for note in table.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(output)

"""``neupims-sim plot``: pictures of the results of sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neupims_sim.errors import InputError


def plot(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Results folders of sweeps.")],
    kind: Annotated[
        str | None, typer.Option(help="Which plot (`list plots` shows them); else the sweep file's.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Number of the results to show; else the sweep file's.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="A pdf, png or svg file; else DIR/<kind>.pdf and .png."),
    ] = None,
) -> None:
    """Draw results, and print the files written."""
    from neupims_sim.plots import draw  # here, because Matplotlib is slow to load

    if output is not None and len(directories) > 1:
        raise InputError(f"plot: -o {output} is one file, but {len(directories)} folders are given")
    for directory in directories:
        for file in draw(directory, kind, metric, output):
            typer.echo(file)

"""``neupims-sim plot``: pictures of the results of sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from neupims_sim.errors import InputError


def plot(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Results folders of sweeps.")],
    kind: Annotated[
        str | None, typer.Option(help="Which plot (`list plots` shows them); else the sweep file's.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", "--y", help="Number of the results to show; else the sweep file's.")
    ] = None,
    x: Annotated[
        str | None, typer.Option("--x", help="Axis, or column of numbers, along x; else the sweep file's.")
    ] = None,
    hue: Annotated[str | None, typer.Option(help="Axis with a colour per value; else the sweep file's.")] = None,
    panels: Annotated[str | None, typer.Option(help="Axis with a panel per value; else the sweep file's.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="A pdf, png or svg file; else DIR/<kind>.pdf and .png."),
    ] = None,
) -> None:
    """Draw results, and print the files written."""
    from neupims_sim.plots import draw  # here, because Matplotlib is slow to load

    if output is not None and len(directories) > 1:
        raise InputError(f"plot: -o {output} is one file, but {len(directories)} folders are given")
    options = {key: value for key, value in (("x", x), ("hue", hue), ("panels", panels)) if value is not None}
    for directory in directories:
        try:
            files = draw(directory, kind, metric, output, **options)
        except InputError as error:
            raise InputError(_as_options(str(error), options)) from error
        for file in files:
            typer.echo(file)


def _as_options(message: str, options: Mapping[str, str]) -> str:
    """A message that names options of the command as such."""
    for key in options:
        message = message.replace(f"plot.{key}=", f"--{key}=").replace(f"plot.{key} ", f"--{key} ")
    return message

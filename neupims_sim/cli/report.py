"""``neupims-sim report``: one HTML page about the results of a sweep or a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Results folder of a sweep, folder of an experiment, or run directory."),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The HTML file; else DIR/report.html.")
    ] = None,
) -> None:
    """Write a page with figures, tables that sort and filter, configuration and provenance, and print the file's name.

    The page is one file that needs no network; open it in a browser.
    """
    from neupims_sim.report import write_report  # here, because Matplotlib is slow to load

    typer.echo(write_report(directory, output))

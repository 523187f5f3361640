"""``neupims-sim experiment``: run a sweep, draw its figures and fill in the page that describes it."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

import neupims_sim
from neupims_sim.cli.options import names_of
from neupims_sim.cli.sweep import Dask, RetryFailed, Workers, run_with_progress, tell_failures
from neupims_sim.config.files import label, read_text
from neupims_sim.sweeps import Sweep, read_sweep
from neupims_sim.sweeps.page import PAGE, fill, find_experiment, read_page
from neupims_sim.sweeps.store import SWEEP, TABLE
from neupims_sim.sweeps.tables import to_markdown
from neupims_sim.writing import write_text


def experiment(
    name: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT",
            help="A name (`list experiments` shows them), or a folder with sweep.yaml and README.md.",
            autocompletion=names_of("experiments"),
        ),
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="Run the quick form; the folder itself stays as it is.")
    ] = False,
    workers: Workers = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Results folder; results/<name> unless given, results/<name>-quick if quick."),
    ] = None,
    dask: Dask = None,
    retry_failed: RetryFailed = False,
) -> None:
    """Run an experiment; write its figures, points.csv and the tables of its README.md, and print the files.

    They go to the experiment's own folder, or to the results folder if the experiment came with the program.
    Interrupt it whenever you like: the same command goes on. Exit code 1 if a point failed.
    """
    start = time.monotonic()
    folder, is_own = find_experiment(name)
    page = read_page(folder / PAGE)
    file = folder / SWEEP
    definition = read_sweep(file, plots=False)
    results = out or Path("results") / (f"{definition.name}-quick" if quick else definition.name)
    table, told = run_with_progress(file, results, workers, quick, dask, retry_failed)
    failed = tell_failures(definition, table, told)
    if failed < len(table):
        target = folder if is_own and not quick else results
        for written in _write(definition, table, results, target, page, _command(folder if is_own else name, quick)):
            typer.echo(written)
    typer.echo(f"{_points(table)} in {time.monotonic() - start:.1f} s; results in {label(results)}", err=True)
    if failed:
        sys.exit(1)


def _points(table: pd.DataFrame) -> str:
    return "1 point" if len(table) == 1 else f"{len(table)} points"


def _command(experiment: Path | str, quick: bool) -> str:
    name = experiment if isinstance(experiment, str) else label(experiment)
    return f"neupims-sim experiment {shlex.quote(name)}{' --quick' if quick else ''}"


def _write(definition: Sweep, table: pd.DataFrame, results: Path, target: Path, page: str, command: str) -> list[Path]:
    """Write figures, table and page to ``target``; returns the files."""
    from neupims_sim.plots import draw  # here, because Matplotlib is slow to load

    failed = int((table["status"] == "failed").sum())
    failures = f" ({failed} failed)" if failed else ""
    origin = f"`{command}`: {_points(table)}{failures}, neupims_sim {neupims_sim.__version__}."
    files = draw(results, output=[target / "figure.svg", target / "figure.png"])
    write_text(target / TABLE, read_text(results / TABLE))
    for place in {target, results}:  # a report of the results shows the page, too
        write_text(place / PAGE, fill(page, f"{to_markdown(definition, table)}\n\n{origin}".lstrip()))
    return [*files, target / TABLE, target / PAGE]

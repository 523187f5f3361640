"""``neupims-sim sweep`` and ``results``: run many points, show their table."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import pandas as pd
import rich.progress
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from neupims_sim.config.files import label
from neupims_sim.errors import InputError
from neupims_sim.sweeps import Progress, load_results, read_sweep
from neupims_sim.sweeps import sweep as run_sweep
from neupims_sim.sweeps.tables import format_cell


def sweep(
    file: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep file, or the stem of one in configs/sweeps.")],
    workers: Annotated[int | None, typer.Option(help="Processes; as many as CPUs unless given.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Results folder; results/<name> unless given.")
    ] = None,
) -> None:
    """Run every point of a sweep that has no stored result yet, and print the table.

    Interrupt it whenever you like: the same command goes on. Exit code 1 if a point failed.
    """
    directory = out or Path("results") / read_sweep(file).name
    table = run_with_progress(file, directory, workers)
    _print_results(directory)
    failed = tell_failures(table)
    typer.echo(f"results in {label(directory)}", err=True)
    if failed:
        raise typer.Exit(1)


def run_with_progress(file: str | Path, directory: Path, workers: int | None, quick: bool = False) -> pd.DataFrame:
    """Run a sweep, with progress on stderr; an interruption ends the program with exit code 130."""
    try:
        with _shown_progress() as on_progress:
            return run_sweep(file, directory, workers, on_progress=on_progress, quick=quick)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; finished points are in {label(directory)}, the same command goes on", err=True)
        raise typer.Exit(130) from None


def tell_failures(table: pd.DataFrame) -> int:
    """Name the failed points on stderr; returns how many there are."""
    failed = table[table["status"] == "failed"]
    for point, error in zip(failed["point"], failed["error"], strict=True):
        typer.echo(f"failed: {point}: {error}", err=True)
    return len(failed)


def results(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Results folder of a sweep.")],
    csv: Annotated[Path | None, typer.Option(metavar="F", help="Also write the unrounded table to this file.")] = None,
) -> None:
    """Print the results of a sweep."""
    _print_results(directory)
    if csv is not None:
        try:
            shutil.copyfile(directory / "points.csv", csv)
        except (OSError, shutil.SameFileError) as error:
            raise InputError(f"--csv {csv}: cannot be written: {error}") from error


def _print_results(directory: Path) -> None:
    definition, table = load_results(directory)
    shown = Table(
        title=definition.title or definition.name,
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    labels = definition.shown_labels()
    for axis in definition.axes:
        shown.add_column(str(labels.column(axis)).replace(" ", "\n"), overflow="fold")
    for metric in definition.columns:
        name, unit = labels.column(metric)[:2]
        name = name.replace("utilization", "util.").replace(" ", "\n")  # narrow, so that 80 columns are enough
        shown.add_column(f"{name}\n{unit}".rstrip(), justify="right", overflow="fold")
    for row in table.to_dict("records"):
        axes = [labels.value(axis, row[axis]) for axis in definition.axes]
        numbers = [
            format_cell(row[metric], labels.column(metric)) if row["status"] == "ok" else "failed"
            for metric in definition.columns
        ]
        shown.add_row(*axes, *numbers)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 1000  # a pipe takes the table as wide as it is
    console.print(shown)


@contextmanager
def _shown_progress() -> Iterator[Callable[[Progress], None]]:
    """A bar on stderr if that is a terminal, else a line per point."""
    start = time.monotonic()
    if not sys.stderr.isatty():

        def print_line(progress: Progress) -> None:
            what = f"{progress.last}: {progress.error or 'ok'}" if progress.last else f"{progress.reused} points stored"
            typer.echo(f"[{progress.done}/{progress.total}] {what}{_rate(progress, start)}", err=True)

        yield print_line
        return

    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[rate]}"),
    )
    with rich.progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("points", total=None, rate="")

        def move_bar(progress: Progress) -> None:
            failed = f", {progress.failed} failed" if progress.failed else ""
            bar.update(task, completed=progress.done, total=progress.total, rate=_rate(progress, start) + failed)

        yield move_bar


def _rate(progress: Progress, start: float) -> str:
    """Points per minute and the time left, once a point has run."""
    ran, elapsed = progress.done - progress.reused, time.monotonic() - start
    if ran == 0 or elapsed == 0:
        return ""
    left = timedelta(seconds=round((progress.total - progress.done) * elapsed / ran))
    return f" ({ran / elapsed * 60:.1f} points/min, {left} left)"

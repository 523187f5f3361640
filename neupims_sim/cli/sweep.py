"""``neupims-sim sweep`` and ``results``: run many points, show their table."""

from __future__ import annotations

import io
import sys
import textwrap
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import pandas as pd
import rich.progress
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from neupims_sim.cli.options import names_of
from neupims_sim.cli.output import print_table
from neupims_sim.config.files import label
from neupims_sim.errors import InputError
from neupims_sim.interruption import exit_code
from neupims_sim.sweeps import Label, Progress, Sweep, read_sweep
from neupims_sim.sweeps import sweep as run_sweep
from neupims_sim.sweeps.checks import DEVICES
from neupims_sim.sweeps.derivation import evaluate, expression_problem
from neupims_sim.sweeps.failures import Failure, grouped
from neupims_sim.sweeps.overview import find_results, is_sweep
from neupims_sim.sweeps.points import place_text
from neupims_sim.sweeps.store import TABLE, count_other_code, load_text, read_tracebacks, table_of
from neupims_sim.sweeps.tables import devices_in_words, format_cell
from neupims_sim.writing import replaced, write_text

LINE_SECONDS = 1.0
"""The least time between two lines of progress where there is no terminal."""


Workers = Annotated[int | None, typer.Option(help="Processes; as many as CPUs unless given.")]
Dask = Annotated[
    str | None,
    typer.Option("--dask", metavar="ADDRESS", help="Run on the Dask cluster of this scheduler, e.g. tcp://host:8786."),
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run points again that have failed.")]


def sweep(
    file: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP",
            help="A sweep file, or the stem of one in configs/sweeps.",
            autocompletion=names_of("sweeps"),
        ),
    ],
    workers: Workers = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Results folder; results/<name> unless given.")
    ] = None,
    dask: Dask = None,
    retry_failed: RetryFailed = False,
) -> None:
    """Run every point of a sweep that has not finished yet, and print the table.

    Interrupt it whenever you like: the same command goes on. Exit code 1 if a point failed.
    """
    definition = read_sweep(file, plots=False)
    directory = out or Path("results") / definition.name
    table, told = run_with_progress(file, directory, workers, dask=dask, retry_failed=retry_failed)
    _print_table(definition, table)
    failed = tell_failures(definition, table, told)
    typer.echo(f"results in {label(directory)}", err=True)
    if failed:
        raise typer.Exit(1)


def run_with_progress(
    file: str | Path,
    directory: Path,
    workers: int | None,
    quick: bool = False,
    dask: str | None = None,
    retry_failed: bool = False,
) -> tuple[pd.DataFrame, set[str]]:
    """Run a sweep, with progress and a summary on stderr; returns its table, and the places whose failure has been told.

    An interruption ends the program with 128 + the signal's number.
    """
    start, last, told = time.monotonic(), Progress(0, 0, 0, 0), set[str]()

    def remember(progress: Progress) -> None:
        nonlocal last
        last = progress
        told.update(failure.place for failure in progress.unfit)
        show(progress)

    try:
        with _shown_progress() as show:
            table = run_sweep(
                file, directory, workers, on_progress=remember, quick=quick, dask=dask, retry_failed=retry_failed
            )
    except KeyboardInterrupt as interrupt:
        with suppress(OSError):  # the terminal may be gone
            typer.echo(
                f"{str(interrupt) or 'interrupted'}; finished points are in {label(directory)}, the same command goes on",
                err=True,
            )
        raise typer.Exit(exit_code(interrupt)) from None
    typer.echo(_summary(last, time.monotonic() - start), err=True)
    return table, told


def _summary(last: Progress, seconds: float) -> str:
    wall = timedelta(seconds=round(seconds)) if seconds >= 60 else f"{seconds:.1f} s"
    return f"{last.done - last.reused} points run, {last.reused} reused, {last.failed} failed; {wall}"


def tell_failures(definition: Sweep, table: pd.DataFrame, told: Collection[str] = ()) -> int:
    """Say on stderr which points have failed, each message once, but for those at ``told`` places; returns how many there are."""
    failed = table[table["status"] == "failed"].to_dict("records")
    failures = [Failure(place_text({axis: row[axis] for axis in definition.axes}), row["error"]) for row in failed]
    for line in grouped(failure for failure in failures if failure.place not in told):
        typer.echo(f"failed: {line}", err=True)
    if failed:
        typer.echo(
            "--retry-failed runs failed points again; `results DIR --failed` has each with its traceback", err=True
        )
    return len(failed)


def results(
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]", help="Results folder of a sweep, or one with runs and sweeps. [default: results]"
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="F", help="Also write the unrounded table to this file.")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="F", help="The same as Parquet; needs pyarrow.")] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="EXPRESSION", help="Only these rows, e.g. 'system == \"neupims\" and `cycles` < 1e6'."),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="List the failed points with their tracebacks.")] = False,
) -> None:
    """Print the results of a sweep, or list the runs and sweeps in a folder: configuration, date, headline figure."""
    if directory is None or (find_results(directory) and not is_sweep(directory)):
        _print_overview(
            directory or Path("results"), {"csv": csv, "parquet": parquet, "where": where, "failed": failed}
        )
        return
    definition, text = load_text(directory)
    table = table_of(definition, text, label(directory / TABLE))
    chosen = pd.Series(True, index=table.index) if where is None else _chosen(table, where)
    if failed:
        chosen &= table["status"] == "failed"
    if csv is not None:
        cells = pd.read_csv(
            io.StringIO(text), dtype=str, keep_default_na=False
        )  # as text, so that numbers stay as they are
        write_text(csv, cells[chosen].to_csv(index=False, lineterminator="\n"), f"--csv {csv}")
    if parquet is not None:
        content = _parquet(table[chosen])
        with replaced(parquet, f"--parquet {parquet}") as temporary:
            temporary.write_bytes(content)
    if failed:
        _print_failures(directory, definition, table[chosen])
    else:
        _print_table(definition, table[chosen])
        tell_failures(definition, table[chosen])
    _tell_other_code(directory)


def _print_overview(folder: Path, options: Mapping[str, object]) -> None:
    """The runs and sweeps in a folder; the options are those of a single sweep."""
    for name, value in options.items():
        if value:
            raise InputError(f"results: --{name} is about a sweep; name its folder")
    found = find_results(folder)
    if not found:
        typer.echo(f"no runs or sweeps in {label(folder)}", err=True)
        return
    rows = [(label(e.folder), e.configuration, f"{e.finished:%Y-%m-%d %H:%M}", e.headline) for e in found]
    print_table(("folder", "configuration", "finished", "result"), rows)


def _chosen(table: pd.DataFrame, where: str) -> pd.Series[bool]:
    """Which rows meet a condition."""
    problem = expression_problem(where, [str(column) for column in table])
    if problem:
        raise InputError(f"--where {where!r}: {problem}")
    try:
        chosen = evaluate(table, where)
    except ValueError as error:
        raise InputError(f"--where {where!r}: {error}") from None
    if not isinstance(chosen, pd.Series) or chosen.dtype != bool:
        raise InputError(f"--where {where!r}: must be true or false for every row, such as 'cycles > 1000'")
    return chosen


def _parquet(table: pd.DataFrame) -> bytes:
    try:
        content: bytes = table.to_parquet(None, engine="pyarrow", index=False)
    except ImportError:
        raise InputError("--parquet needs the package pyarrow: pip install 'neupims-sim[parquet]'") from None
    return content


def _print_failures(directory: Path, definition: Sweep, table: pd.DataFrame) -> None:
    """Points, messages and tracebacks."""
    traces = read_tracebacks(directory)
    for row in table.to_dict("records"):
        typer.echo(f"{row['point']} {place_text({axis: row[axis] for axis in definition.axes})}\n    {row['error']}")
        typer.echo(textwrap.indent(traces.get(row["point"], ""), "    "), nl=False)


def _tell_other_code(directory: Path) -> None:
    """Say on stderr if results come from code that is not this program's."""
    other = count_other_code(directory)
    if other:
        typer.echo(f"{other} of these points are of other code than this program's; a sweep runs them again", err=True)


_WHOLE = Label("")


def _print_table(definition: Sweep, table: pd.DataFrame) -> None:
    """The points that have numbers; what failed is told beside."""
    devices = devices_in_words(definition, table)
    column = " to " in devices
    shown = Table(
        title=", ".join(filter(None, (definition.title or definition.name, devices))),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    labels = definition.shown_labels()
    for axis in definition.axes:
        shown.add_column(str(labels.column(axis)).replace(" ", "\n"), overflow="fold")
    if column:
        shown.add_column("Devices", justify="right")
    for metric in definition.columns:
        name, unit = labels.column(metric)[:2]
        name = name.replace("utilization", "util.").replace(" ", "\n")  # narrow, so that 80 columns are enough
        shown.add_column(f"{name}\n{unit}".rstrip(), justify="right", overflow="fold")
    for row in table[table["status"] == "ok"].to_dict("records"):
        axes = [labels.value(axis, row[axis]) for axis in definition.axes]
        numbers = [format_cell(row[metric], labels.column(metric)) for metric in definition.columns]
        shown.add_row(*axes, *([format_cell(row[DEVICES], _WHOLE)] if column else []), *numbers)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 1000  # a pipe takes the table as wide as it is
    console.print(shown)


@contextmanager
def _shown_progress() -> Iterator[Callable[[Progress], None]]:
    """A bar on stderr if that is a terminal, else a line now and then; how many points failed, the messages come at the end."""
    start = 0.0
    if not sys.stderr.isatty():
        due = 0.0

        def print_line(progress: Progress) -> None:
            nonlocal start, due
            if progress.stage:
                typer.echo(f"{progress.stage} points: {progress.done:,} of {progress.total:,}", err=True)
                return
            for note in _lines(progress):
                typer.echo(note, err=True)
            now = time.monotonic()
            start = start or now
            if now < due and progress.done < progress.total:
                return
            due = now + LINE_SECONDS if progress.last else 0.0
            what = progress.last or f"{progress.reused} points stored"
            typer.echo(
                f"[{progress.done}/{progress.total}] {what}{_failed(progress)}{_rate(progress, start)}", err=True
            )

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
            nonlocal start
            bar.update(task, description=progress.stage or "points", completed=progress.done, total=progress.total)
            if progress.stage:
                return
            for note in _lines(progress):
                bar.console.print(note, markup=False, highlight=False)
            start = start or time.monotonic()
            rate = _rate(progress, start) + _failed(progress)
            bar.update(task, rate=rate)

        yield move_bar


def _lines(progress: Progress) -> list[str]:
    """What to tell besides how far the sweep is."""
    return [*progress.notes, *(f"does not fit, the others go on: {line}" for line in grouped(progress.unfit))]


def _failed(progress: Progress) -> str:
    return f", {progress.failed} failed" if progress.failed else ""


def _rate(progress: Progress, start: float) -> str:
    """Points per minute and the time left, once a point has run. ``start`` is when the first began."""
    ran, elapsed = progress.done - progress.reused, time.monotonic() - start
    if ran == 0 or elapsed == 0:
        return ""
    left = timedelta(seconds=round((progress.total - progress.done) * elapsed / ran))
    return f" ({ran / elapsed * 60:.1f} points/min, {left} left)"

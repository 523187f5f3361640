"""A sweep from its file to its table."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd

from neupims_sim.config import Config
from neupims_sim.config.files import label, read_text
from neupims_sim.errors import InputError, dotted_suggestion
from neupims_sim.interruption import interruptible
from neupims_sim.simulation import environment
from neupims_sim.sweeps.cluster import execute_on_cluster
from neupims_sim.sweeps.database import Begun, Place, Row, Store
from neupims_sim.sweeps.definition import Sweep
from neupims_sim.sweeps.execution import (
    Events,
    OtherCodeError,
    Outcome,
    RunPoint,
    Task,
    check_point,
    execute_here,
    one_line,
    simulate_point,
)
from neupims_sim.sweeps.failures import Failure, grouped
from neupims_sim.sweeps.identity import Inputs, code_version
from neupims_sim.sweeps.points import Point, UnusedKeys, expand, place_text
from neupims_sim.sweeps.processes import execute_in_processes
from neupims_sim.sweeps.reading import check_plots, find_sweep, parse_sweep
from neupims_sim.sweeps.store import SWEEP, TABLE, parse_table, scalars, table_text
from neupims_sim.writing import write_text

MOST_WORKERS = 1_024
"""Of one machine."""
EXPORT_SECONDS = 5.0
"""The least time from one writing of ``points.csv`` to the next while points run."""
EXPORT_SHARE = 0.05
"""The most of a sweep's time that this writing takes."""
MANY_POINTS = 500
"""From so many points on, checking and storing them takes long enough to say how far it is."""
STAGE_SECONDS = 1.0
"""Between two such reports."""
MAX_DICTIONARY = 32_768
"""Bytes that zlib makes use of."""

T = TypeVar("T")
Packed = tuple[str, str, str, bytes]
"""A `Place` whose configuration is compressed."""


@dataclass(frozen=True)
class Progress:
    """How far a sweep is, in distinct points. ``last`` is the point that just finished, empty at the start."""

    total: int
    reused: int
    """Points that an earlier run had finished."""
    done: int
    """Finished points, reused ones included."""
    failed: int
    """Finished points that failed, reused ones included."""
    last: str = ""
    error: str = ""
    """Why ``last`` failed, empty if it did not."""
    stage: str = ""
    """What is done with the first ``done`` of the points before any runs (``"checking"``, ``"storing"``, ``"fitting"``: whether the
    batches fit); empty once they run."""
    unfit: tuple[Failure, ...] = ()
    """Points that failed before any has run, because their batch does not fit into the memory."""
    notes: tuple[str, ...] = ()
    """What the user should know about the keys of the sweep and the store that was found, one line each."""


def sweep(
    path: str | Path,
    out: str | Path | None = None,
    workers: int | None = None,
    run_point: RunPoint = simulate_point,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    quick: bool = False,
    dask: str | None = None,
    retry_failed: bool = False,
) -> pd.DataFrame:
    """Run every point of a sweep file that has not finished yet, and return the table of all.

    A point has finished if the store in ``out`` has its outcome, from the same resolved configuration, the same code and
    the same contents of files that the configuration names.

    Parameters
    ----------
    path: the sweep file, or the stem of one in ``configs/sweeps``.
    out: the results folder (see `neupims_sim.sweeps.store`); ``results/<name>`` unless given.
    workers: processes; 1 runs in this process. As many as CPUs unless given, and never more than points.
    run_point: what runs a point; the simulator unless given.
    on_progress: called while many points are checked and stored, once before the first point and after each.
    quick: run the quick form that the file states.
    dask: run on the Dask cluster whose scheduler has this address, instead of in processes here.
    retry_failed: run points again that have failed.

    Returns
    -------
    One row per point in the order of the axes: ``point`` (hash), ``status``, ``error``, axes, metrics, derived columns.
    The same, to the byte of ``points.csv``, whatever the worker count and however often it was interrupted. A point that
    fails has its message in ``error``; the others go on.

    Raises
    ------
    InputError: before anything runs, if the file or the configuration of any point is not valid, the store is another
        sweep's at the moment, or the cluster does not answer; on the way, if the disk is full, or if a derived column does
        not come out as numbers; at the end, if a metric is in no result. Whatever has finished is stored.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers={workers}: must be at least 1")
    if workers is not None and workers > MOST_WORKERS:
        raise InputError(f"workers={workers}: must be at most {MOST_WORKERS}; a Dask cluster may have more")
    if workers is not None and dask is not None:
        raise InputError(f"workers={workers}: a Dask cluster has workers of its own; give dask={dask!r} or workers")
    source = find_sweep(path)
    text = read_text(source)
    definition = parse_sweep(text, label(source))
    if quick and definition.quick is None:
        raise InputError(f"{label(source)}: quick is missing, so there is no quick form")
    if quick:
        definition = definition.quick_form()
    check_plots(definition, label(source), any_columns=run_point is not simulate_point)
    directory = Path("results", definition.name) if out is None else Path(out)
    packer, count = _Packer(), definition.places
    unused = UnusedKeys()
    points = _told("checking", count, expand(definition, label(source), unused), on_progress)
    places = [packer.pack(point) for point in points]
    with interruptible(), Store(directory) as store:
        stored = map(packer.unpack, _told("storing", len(places), places, on_progress))
        begun = store.begin(text, source, stored, code_version(), retry_failed)
        del places
        folder = _Folder(directory, label(source), definition, store.rows)
        folder.write(SWEEP, text)
        try:
            folder.write_table()
            _run(store, folder, run_point, workers, dask, on_progress, (*unused.notes(), *_notes(begun)))
        except BaseException:
            with suppress(InputError):  # what went wrong first is what matters
                folder.write_table()
            raise
        table = folder.write_table()
        _check_metrics(definition, store.rows(), label(source))
    return parse_table(table, definition.text_axes)


def _told(stage: str, total: int, items: Iterable[T], on_progress: Callable[[Progress], None]) -> Iterator[T]:
    """The items; tells now and then how many have been taken, of many from the first on."""
    due = 0.0 if total >= MANY_POINTS else time.monotonic() + STAGE_SECONDS
    for done, item in enumerate(items):
        if time.monotonic() >= due:
            on_progress(Progress(total, 0, done, 0, stage=stage))
            due = time.monotonic() + STAGE_SECONDS
        yield item


def _notes(begun: Begun) -> tuple[str, ...]:
    """What is told of points that run once more, alike reasons together."""
    damaged = [Failure(place_text(again.axes), again.reason) for again in begun.damaged]
    retried = [Failure(place_text(again.axes), again.reason) for again in begun.retried]
    lost = [f"the store was damaged: {begun.lost} points could not be read and were dropped"] if begun.lost else []
    return (
        *lost,
        *(f"damaged in the store, runs again: {line}" for line in grouped(damaged)),
        *(f"failed, runs again: {line}" for line in grouped(retried)),
    )


def _run(
    store: Store,
    folder: _Folder,
    run_point: RunPoint,
    workers: int | None,
    dask: str | None,
    on_progress: Callable[[Progress], None],
    notes: tuple[str, ...],
) -> None:
    """Run what is pending in the store."""
    total, reused, failed = store.count(), store.count("ok", "failed"), store.count("failed")
    done = reused
    on_progress(Progress(total, reused, done, failed, notes=notes))
    pending = store.pending()
    if not pending:
        return
    store.note_environment(environment())
    if run_point is simulate_point:
        unfit = _unfit(store, pending, on_progress)
        pending = [point for point in pending if point not in unfit]
        done, failed = done + len(unfit), failed + len(unfit)
        if unfit:
            on_progress(Progress(total, reused, done, failed, unfit=tuple(unfit.values())))
    tasks = (Task(point, store.config(point)) for point in pending)
    workers = min(workers or _cpus(), len(pending))
    try:
        with closing(_events(run_point, tasks, workers, dask)) as events:
            for point, outcome in events:
                if outcome is None:
                    store.start(point)
                    continue
                store.finish(point, outcome)
                folder.write_table_if_due()
                done, failed = done + 1, failed + bool(outcome.error)
                on_progress(Progress(total, reused, done, failed, place_text(store.axes(point)), outcome.error))
    except OtherCodeError as error:
        raise InputError(
            f"{error}: the program has changed; finished points are stored, run the same command again"
        ) from None


def _unfit(store: Store, pending: Sequence[int], on_progress: Callable[[Progress], None]) -> dict[int, Failure]:
    """Points whose batch does not fit: they fail before any other takes the time to run."""
    found: dict[int, Failure] = {}
    for point in _told("fitting", len(pending), pending, on_progress):
        try:
            check_point(Config.model_validate_json(store.config(point)))
        except InputError as error:
            store.finish(point, Outcome(error=one_line(str(error))))
            found[point] = Failure(place_text(store.axes(point)), one_line(str(error)))
    return found


def _events(run_point: RunPoint, tasks: Iterator[Task], workers: int, dask: str | None) -> Events:
    if dask is not None:
        return execute_on_cluster(run_point, tasks, dask)
    return execute_in_processes(run_point, tasks, workers) if workers > 1 else execute_here(run_point, tasks)


def _cpus() -> int:
    """The CPUs that this process may use; fewer than the machine has in a batch job."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Folder:
    """What people read of a results folder, beside the store."""

    def __init__(self, directory: Path, source: str, definition: Sweep, rows: Callable[[], Iterable[Row]]) -> None:
        self.directory = directory
        self.source = source
        self.definition = definition
        self.rows = rows
        self._due = 0.0

    def write_table_if_due(self) -> None:
        """Write ``points.csv`` now and then: its length times the number of points would be quadratic."""
        if time.monotonic() >= self._due:
            self.write_table()

    def write_table(self) -> str:
        """Write ``points.csv``; returns its text."""
        start = time.monotonic()
        try:
            text = table_text(self.definition, self.rows())
        except InputError as error:
            raise InputError(f"{self.source}: {error}") from None
        self.write(TABLE, text)
        end = time.monotonic()
        self._due = end + max(EXPORT_SECONDS, (end - start) / EXPORT_SHARE)
        return text

    def write(self, name: str, text: str) -> None:
        """Write a file as a whole."""
        path = self.directory / name
        try:
            write_text(path, text, label(path))
        except InputError as error:
            raise InputError(f"{error}; finished points are stored, the same command goes on") from error


class _Packer:
    """Points without their objects: a hundred thousand must fit into memory while the file is checked.

    Configurations are compressed with the first as the dictionary, for most are alike.
    """

    def __init__(self) -> None:
        self._first = b""
        self._inputs = Inputs()

    def pack(self, point: Point) -> Packed:
        """A point, small."""
        config = point.dumped.text.encode()
        self._first = self._first or config[-MAX_DICTIONARY:]
        compressor = zlib.compressobj(level=1, zdict=self._first)
        return (
            json.dumps(point.axes),
            point.hash,
            self._inputs.version(point.config, point.dumped.texts),
            compressor.compress(config) + compressor.flush(),
        )

    def unpack(self, packed: Packed) -> Place:
        """The same as the store takes it."""
        axes, point, inputs, config = packed
        return Place(axes, point, inputs, zlib.decompressobj(zdict=self._first).decompress(config).decode())


def _check_metrics(definition: Sweep, rows: Iterable[Row], source: str) -> None:
    """A metric that the file states may be absent from some results (``stages.A.cycles``), but not from all."""
    if "metrics" not in definition.model_fields_set:
        return  # of the default ones some systems have none, such as a GPU of PIM
    missing, known = set(definition.metrics), set[str]()
    for row in rows:
        known |= scalars(row.result).keys()
        if not missing - known:
            return
    if known:
        metric = next(metric for metric in definition.metrics if metric not in known)
        raise InputError(f"{source}: metrics: {metric!r}: in no result; {dotted_suggestion(metric, known)}")

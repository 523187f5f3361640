"""A sweep from its file to its table."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neupims_sim.config.files import label
from neupims_sim.errors import InputError, suggestion
from neupims_sim.sweeps.definition import Sweep
from neupims_sim.sweeps.execution import RunPoint, execute, simulate_point
from neupims_sim.sweeps.points import expand
from neupims_sim.sweeps.reading import find_sweep, read_sweep
from neupims_sim.sweeps.store import Store, scalars


@dataclass(frozen=True)
class Progress:
    """How far a sweep is, in distinct points. ``last`` is the point that just finished, empty at the start."""

    total: int
    reused: int
    """Points whose result an earlier run had stored."""
    done: int
    """Finished points, reused ones included."""
    failed: int
    last: str = ""
    error: str = ""
    """Why ``last`` failed, empty if it did not."""


def sweep(
    path: str | Path,
    out: str | Path | None = None,
    workers: int | None = None,
    run_point: RunPoint = simulate_point,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    quick: bool = False,
) -> pd.DataFrame:
    """Run every point of a sweep file that has no stored result yet, and return the table of all.

    Parameters
    ----------
    path: the sweep file, or the stem of one in ``configs/sweeps``.
    out: the results folder (see `neupims_sim.sweeps.store`); ``results/<name>`` unless given.
    workers: processes; 1 runs in this process. As many as CPUs unless given, and never more than points.
    run_point: what runs a point; the simulator unless given.
    on_progress: called once before the first point and after each.
    quick: run the quick form that the file states.

    Returns
    -------
    One row per point in the order of the axes: ``point`` (hash), ``status``, ``error``, axes, metrics, derived columns.
    The same, to the byte of ``points.csv``, whatever the worker count and however often it was interrupted. A point that
    fails has its message in ``error``; the others go on.

    Raises
    ------
    InputError: before anything runs, if the file or the configuration of any point is not valid; once points have run, if
        a derived column does not come out as numbers; at the end, if a metric is in no result.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers={workers}: must be at least 1")
    source = find_sweep(path)
    definition = read_sweep(source)
    if quick and definition.quick is None:
        raise InputError(f"{label(source)}: quick is missing, so there is no quick form")
    if quick:
        definition = definition.quick_form()
    points = expand(definition, label(source))
    store = Store(Path("results", definition.name) if out is None else Path(out))
    store.create(source)

    distinct = {point.hash: point for point in points}
    outcomes: dict[str, dict[str, Any] | str] = {}

    def write_table() -> None:
        try:
            store.write_table(definition, points, outcomes)
        except InputError as error:
            raise InputError(f"{label(source)}: {error}") from None

    for key in distinct:
        result = store.result(key)
        if result is not None:
            outcomes[key] = result
    write_table()
    reused, failed = len(outcomes), 0
    on_progress(Progress(len(distinct), reused, reused, failed))

    todo = {key: point.config for key, point in distinct.items() if key not in outcomes}
    workers = min(workers or os.cpu_count() or 1, len(todo) or 1)
    with closing(execute(run_point, todo, workers)) as finished:
        for key, outcome in finished:
            if outcome.error:
                failed += 1
                outcomes[key] = outcome.error
                if outcome.traceback:
                    store.save_traceback(key, outcome.traceback)
            else:
                store.save_result(key, outcome.result)
                outcomes[key] = json.loads(outcome.result)
            write_table()
            on_progress(Progress(len(distinct), reused, len(outcomes), failed, str(distinct[key]), outcome.error))

    _check_metrics(definition, [outcome for outcome in outcomes.values() if isinstance(outcome, dict)], label(source))
    return store.read_table()


def _check_metrics(definition: Sweep, results: list[dict[str, Any]], source: str) -> None:
    """A metric may be absent from some results (``stages.A.cycles``), but not from all."""
    known = {name for result in results for name in scalars(result)}
    for metric in definition.metrics:
        if results and metric not in known:
            raise InputError(f"{source}: metrics: {metric!r}: in no result; {suggestion(metric, known)}")

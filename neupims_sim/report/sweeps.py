"""The report of a sweep."""

from __future__ import annotations

import math
import shlex
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from neupims_sim.config.files import label
from neupims_sim.config.identity import dump_tree
from neupims_sim.errors import InputError
from neupims_sim.report.configs import Configs
from neupims_sim.report.content import (
    Cell,
    Column,
    Fact,
    FigureView,
    Provenance,
    Table,
    Timelines,
    counted,
    duration,
    environment_facts,
    number,
)
from neupims_sim.report.figures import draw_all
from neupims_sim.report.prose import read_prose
from neupims_sim.report.timelines import find_timelines
from neupims_sim.sweeps import Labels, Sweep, load_results, load_whole_results
from neupims_sim.sweeps.checks import DEVICES
from neupims_sim.sweeps.database import FILE, Reader, Run
from neupims_sim.sweeps.points import place_text
from neupims_sim.sweeps.store import count_other_code
from neupims_sim.sweeps.tables import MISSING, PivotTable, devices_in_words, format_cell, pivot_tables

MAX_ROWS = 10_000
"""Points that the page's table lists."""
MAX_CONFIGS = 10_000
"""Points whose configuration the page holds, as differences from what all share."""
MAX_FAILURES = 200
"""Failed points whose message the page shows."""
MAX_VALUES, MAX_VALUE_LETTERS = 8, 60
"""Values of a key in the table of what differs, and letters of each."""
MAX_SEEDS = 40
HASH = 8
"""Digits of a point's hash that its row shows."""

_SUBJECTS = (
    ("Systems", "system", ("system",)),
    ("Models", "model", ("model", "name")),
    ("Workloads", "workload", ("workload", "name")),
    ("Presets", "preset", ("preset",)),
)
"""Key that summaries name, its axis, and its path in a configuration."""


class ConfigView(NamedTuple):
    """Configurations as the page holds them."""

    shared: str
    """YAML."""
    differing: Table
    data: Mapping[str, Any]
    """From which the page makes the configuration of a point: see ``page.js``."""
    stated: int
    """Points that have theirs in the page."""


@dataclass(frozen=True)
class SweepPage:
    """What the page of a sweep shows, from top to bottom."""

    title: str
    name: str
    prose: Markup
    facts: list[Fact]
    warnings: list[str]
    figures: list[FigureView]
    pivots: list[Table]
    points: Table
    failed: str
    """How many points."""
    failures: Table | None
    config: ConfigView | None
    timelines: Timelines
    metrics: Table
    provenance: Provenance
    kind: str = field(default="sweep", init=False)


def read_sweep_page(directory: Path, output: Path) -> SweepPage:
    """The page of a results folder, or of the folder of an experiment; raises InputError if it has no finished point."""
    sweep, table = load_results(directory)
    if not len(table):
        raise InputError(f"{label(directory)}: no point has finished yet; the sweep's own command goes on with it")
    runs, configs, environment = _stored(directory)
    labels = sweep.shown_labels()
    prose = read_prose(directory)
    failed = table[table["status"] == "failed"]
    return SweepPage(
        title=(prose.title if prose else "") or sweep.title or sweep.name,
        name=sweep.name,
        prose=prose.text if prose else Markup(),
        facts=_summary(sweep, table, runs, configs),
        warnings=_warnings(directory, sweep, table, runs),
        figures=draw_all(*load_whole_results(directory)),
        pivots=[_pivot(i, pivot) for i, pivot in enumerate(pivot_tables(sweep, table), start=1)],
        points=_points(sweep, table, labels, configs),
        failed=f"{len(failed):,}",
        failures=_failures(sweep, failed) if len(failed) else None,
        config=_configs(configs) if configs else None,
        timelines=find_timelines(directory, output, set(table["point"])),
        metrics=_metrics(sweep, labels),
        provenance=_provenance(directory, runs, environment, configs),
    )


def _stored(directory: Path) -> tuple[list[Run], Configs | None, dict[str, Any]]:
    """The runs of a store (without their configurations, one of which is big), what is in these, and what ran them."""
    if not (directory / FILE).is_file():
        return [], None, {}
    runs: list[Run] = []

    def configs(reader: Reader) -> Iterator[tuple[str, dict[str, Any]]]:
        for run in reader.runs():
            runs.append(run._replace(config={}))
            yield run.hash, run.config

    with Reader(directory) as reader:
        return runs, Configs.of(configs(reader)), reader.environment()


def _summary(sweep: Sweep, table: pd.DataFrame, runs: list[Run], configs: Configs | None) -> list[Fact]:
    failed = int((table["status"] == "failed").sum())
    facts = [Fact("Points", f"{len(table):,}"), Fact("Finished", f"{len(table) - failed:,} ok, {failed:,} failed")]
    seconds = [run.seconds for run in runs if run.seconds is not None]
    if seconds:
        facts.append(Fact("Simulated in", duration(sum(seconds))))
    labels = sweep.shown_labels()
    for name, axis, path in _SUBJECTS:
        values = configs.distinct(*path) if configs else list(table[axis].unique()) if axis in sweep.axes else []
        if values:
            shown = ", ".join(labels.value(axis, value) for value in values[:MAX_VALUES])
            facts.append(
                Fact(name if len(values) > 1 else name[:-1], shown + (", …" if len(values) > MAX_VALUES else ""))
            )
    if devices := devices_in_words(sweep, table):
        facts.append(Fact("System", devices))
    axes = [f"{labels.column(axis).name} ({table[axis].nunique()})" for axis in sweep.axes if table[axis].nunique() > 1]
    return [*facts, Fact("Axes", " × ".join(axes))] if axes else facts


def _warnings(directory: Path, sweep: Sweep, table: pd.DataFrame, runs: list[Run]) -> list[str]:
    unfinished = sum(run.status in ("pending", "running") for run in runs)
    found = []
    if unfinished:
        found.append(f"{counted(unfinished, 'point')} of this sweep had not finished when this page was written.")
    if len(table) > MAX_ROWS:
        found.append(
            f"The table of all points lists the first {MAX_ROWS:,} of {len(table):,}; "
            f"neupims-sim results {shlex.quote(label(directory))} --csv all.csv has all."
        )
    other = count_other_code(directory)
    if other:
        found.append(f"{counted(other, 'point')} ran with other code than that of the program that wrote this page.")
    return found


def _pivot(number: int, pivot: PivotTable) -> Table:
    columns = [Column(name) for name in pivot.axes]
    columns += [Column(name, numeric=True) for name in pivot.heads]
    first = len(pivot.axes)
    rows = [
        [Cell(text, _leading_number(text)) if i >= first else Cell(text) for i, text in enumerate(line)]
        for line in pivot.lines
    ]
    return Table(f"table-{number}", pivot.title, columns, rows, pivot.note)


def _leading_number(text: str) -> float | None:
    """The number that a cell such as ``1,234.5 (2.1×)`` begins with."""
    try:
        return float(text.split(" ")[0].replace(",", ""))
    except ValueError:
        return None


def _points(sweep: Sweep, table: pd.DataFrame, labels: Labels, configs: Configs | None) -> Table:
    shown = table.head(MAX_ROWS)
    axes = [(axis, labels.column(axis)) for axis in sweep.axes]
    metrics = [(metric, labels.column(metric)) for metric in sweep.columns]
    columns = [Column(name.name, name.unit, _is_numeric(table[axis]), filtered=True) for axis, name in axes]
    if several := " to " in devices_in_words(sweep, table):
        columns.append(Column("Devices", numeric=True, filtered=True))
    columns += [Column(name.name, name.unit, numeric=_is_numeric(table[metric])) for metric, name in metrics]
    failures = bool((table["status"] == "failed").any())
    columns += [Column("Status", filtered=True)] if failures else []
    rows = []
    for row in shown.to_dict("records"):
        ok = row["status"] == "ok"
        cells = [Cell(labels.value(axis, row[axis]), _value(row[axis])) for axis, _ in axes]
        cells += [number(_value(row[DEVICES]), 0)] if several else []
        cells += [Cell(format_cell(row[metric], name) if ok else "", _value(row[metric])) for metric, name in metrics]
        cells += [Cell(str(row["status"]))] if failures else []
        link = f"#point-{row['point']}" if configs else ""
        rows.append([*cells, Cell(str(row["point"])[:HASH], link=link)])
    return Table("points-table", "One row per point", [*columns, Column("Point")], rows, filters=True)


def _is_numeric(values: pd.Series[Any]) -> bool:
    return bool(pd.api.types.is_numeric_dtype(values)) and values.dtype != bool


def _value(value: Any) -> float | None:
    """A number to sort by."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value) else None


def _failures(sweep: Sweep, failed: pd.DataFrame) -> Table:
    shown = failed.head(MAX_FAILURES)
    rows = [
        [Cell(str(row["point"])[:HASH]), Cell(_place(sweep, row)), Cell(str(row["error"]))] for row in _records(shown)
    ]
    note = f"the first {MAX_FAILURES} of {len(failed):,}" if len(failed) > MAX_FAILURES else ""
    return Table("failures-table", "Where and why", [Column("Point"), Column("Where"), Column("Message")], rows, note)


def _records(table: pd.DataFrame) -> Iterable[Mapping[Hashable, Any]]:
    return table.to_dict("records")


def _place(sweep: Sweep, row: Mapping[Hashable, Any]) -> str:
    return place_text({axis: row[axis] for axis in sweep.axes})


def _configs(configs: Configs) -> ConfigView:
    rows = [
        [Cell(".".join(path)), Cell(f"{len(values)}", len(values)), Cell(_some(values))]
        for path, values in configs.values.items()
    ]
    columns = [Column("Key"), Column("Values", numeric=True), Column("Which")]
    points = dict(list(configs.points.items())[:MAX_CONFIGS])
    data = {
        "shared": [[list(path), value] for path, value in configs.shared.items()],
        "differing": [[list(path), values] for path, values in configs.values.items()],
        "points": points,
    }
    differing = Table("differing-table", "What differs between points", columns, rows)
    return ConfigView(dump_tree(configs.shared_tree()), differing, data, len(points))


def _some(values: list[str | None]) -> str:
    """Values of a key, cut to what a reader can take in."""
    texts = [MISSING if value is None else value for value in values[:MAX_VALUES]]
    texts = [text if len(text) <= MAX_VALUE_LETTERS else f"{text[:MAX_VALUE_LETTERS]}…" for text in texts]
    return ", ".join(texts) + (", …" if len(values) > MAX_VALUES else "")


def _metrics(sweep: Sweep, labels: Labels) -> Table:
    rows = []
    for name in sweep.columns:
        shown = labels.column(name)
        rows.append(
            [Cell(shown.name), Cell(shown.unit), Cell(name), Cell(f"{shown.factor:g}"), Cell(_origin(sweep, name))]
        )
    heads = ("Shown as", "Unit", "Key", "Stored value times", "From")
    return Table("metrics-table", "Columns of numbers", [Column(head) for head in heads], rows)


def _origin(sweep: Sweep, column: str) -> str:
    """Where the numbers of a column come from."""
    if column in sweep.derive:
        return f"derived: {sweep.derive[column]}"
    if column in sweep.relative:
        ratio = sweep.relative[column]
        return f"{ratio.of} relative to {ratio.axis}={ratio.to}"
    if sweep.reference is not None and column in sweep.reference_columns:
        return sweep.reference.source
    return "result.json"


def _provenance(
    directory: Path, runs: list[Run], environment: Mapping[str, Any], configs: Configs | None
) -> Provenance:
    if configs is None:
        note = f"{label(directory)} has no {FILE}: configurations, versions and times of these points are not known."
        return Provenance(notes=[note])
    facts = environment_facts(environment)
    codes = dict.fromkeys(run.code for run in runs if run.status in ("ok", "failed"))
    facts += [Fact("Digest of the code", ", ".join(codes), code=True)]
    seeds = [str(seed) for seed in configs.distinct("seed")]
    facts += [Fact("Seeds", ", ".join(seeds[:MAX_SEEDS]) + (", …" if len(seeds) > MAX_SEEDS else ""))]
    facts += _times(runs)
    facts.append(Fact("Results folder", label(directory), code=True))
    notes = ["Versions, machine and command are those of the last command that ran points of this sweep."]
    return Provenance(
        facts, notes if environment else ["The store does not say which versions and machine ran the points."]
    )


def _times(runs: list[Run]) -> list[Fact]:
    """When and where the finished points ran."""
    spans = []
    for run in runs:
        with suppress(ValueError, OverflowError, TypeError):  # what is damaged is left out
            start = datetime.fromisoformat(run.started).replace(tzinfo=UTC)
            spans.append((start, start + timedelta(seconds=run.seconds or math.nan)))
    if not spans:
        return []
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    busy = sum((end - start for start, end in spans), timedelta())
    workers = {run.worker for run in runs if run.worker}
    hosts = sorted({worker.rpartition(":")[0] for worker in workers})
    return [
        Fact("First point started", f"{first:%Y-%m-%d %H:%M:%S} UTC"),
        Fact("Last point ended", f"{last:%Y-%m-%d %H:%M:%S} UTC, {duration((last - first).total_seconds())} later"),
        Fact("Time in workers", f"{duration(busy.total_seconds())} in {counted(len(workers), 'worker')}"),
        Fact("Hosts", ", ".join(hosts)),
    ]

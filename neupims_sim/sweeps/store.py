"""The results folder of a sweep.

``store.sqlite`` holds everything (see `neupims_sim.sweeps.database`). Two files are written from it for people and other
programs, and a folder with these two alone can be read, too: ``sweep.yaml``, the sweep file, and ``points.csv``, one row per
finished point in the order of the sweep: ``point`` (hash of its configuration), ``status`` (ok, failed), ``error``, ``devices`` (of the
whole system, unless an axis is called so), the axes, the metrics, the columns that the file adds (reference, relative, derive).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from neupims_sim.config.files import label, read_text
from neupims_sim.errors import InputError, suggestion
from neupims_sim.sweeps.checks import DEVICES, FIXED_COLUMNS
from neupims_sim.sweeps.database import FILE, Reader, Row
from neupims_sim.sweeps.definition import Sweep
from neupims_sim.sweeps.derivation import derive
from neupims_sim.sweeps.identity import code_version
from neupims_sim.sweeps.reading import parse_sweep
from neupims_sim.sweeps.reference import reference_columns, relative_column

TABLE, SWEEP = "points.csv", "sweep.yaml"


def load_results(directory: str | Path) -> tuple[Sweep, pd.DataFrame]:
    """The sweep file and the table in a results folder; raises InputError if it is not one.

    The table is that of ``points.csv``; an empty cell is NaN, but "" in ``error``.
    """
    sweep, text = load_text(directory)
    return sweep, table_of(sweep, text, label(Path(directory) / TABLE))


def table_of(sweep: Sweep, text: str, source: str) -> pd.DataFrame:
    """The table in the text of ``points.csv``; raises InputError, starting with ``source``, if it is not of this sweep."""
    try:
        table = parse_table(text, sweep.text_axes)
        missing = [name for name in (*FIXED_COLUMNS, *sweep.axes, *sweep.columns) if name not in table]
        if missing:
            raise ValueError(f"no column {missing[0]}")
        if DEVICES in table and DEVICES not in sweep.axes:
            table[DEVICES].dropna().astype(float).astype(int)
    except (ValueError, KeyError, OverflowError) as error:
        problem = f"no column {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise InputError(f"{source}: not a table of this sweep: {problem}") from None
    return table


def load_whole_results(directory: str | Path) -> tuple[Sweep, pd.DataFrame]:
    """As :func:`load_results`, with every other number and text of each ``result.json`` as further columns, by dotted key.

    Points that have not finished are rows, too, with the status ``pending`` and without numbers.
    A folder without a store has the columns and rows of ``points.csv`` only.
    """
    sweep, table = load_results(directory)
    if not (Path(directory) / FILE).is_file():
        return sweep, table
    with Reader(Path(directory)) as reader:
        found = {row.hash: scalars(row.result) for row in reader.rows()}
        places = reader.places()
    whole = pd.DataFrame([found.get(point, {}) for point in table["point"]], index=table.index)
    table = table.join(whole[[name for name in whole if name not in table]])
    pending = [{"status": "pending", "error": ""} | _cells(axes) for axes, finished in places if not finished]
    if not pending or len(places) != len(table) + len(pending):  # a sweep writes
        return sweep, table
    order = [number for finished in (True, False) for number, place in enumerate(places) if place[1] == finished]
    return sweep, pd.concat([table, pd.DataFrame(pending)], ignore_index=True).set_index(pd.Index(order)).sort_index()


def load_text(directory: str | Path) -> tuple[Sweep, str]:
    """The sweep file and the text of ``points.csv``, up to date, in a results folder; raises InputError if it is not one.

    The sweep file is that of today (see `_as_edited`).
    """
    directory = Path(directory)
    if (directory / FILE).is_file():
        with Reader(directory) as reader:
            sweep = _as_edited(directory, reader)
            return sweep, table_text(sweep, reader.rows())
    if not (directory / TABLE).is_file() or not (directory / SWEEP).is_file():
        others = [path.parent.name for path in directory.absolute().parent.glob(f"*/{TABLE}")]
        near = f"; {suggestion(directory.name, others)}" if others else ""
        raise InputError(f"{label(directory)}: not the results folder of a sweep (no {TABLE} and {SWEEP}){near}")
    return parse_sweep(read_text(directory / SWEEP), label(directory / SWEEP)), read_text(directory / TABLE)


def _as_edited(directory: Path, reader: Reader) -> Sweep:
    """The sweep file of the results in a store, with what has been edited in it since: plots, labels, derived columns.

    That is the copy in the folder if somebody has changed it, else the file that was swept, as long as it is there under its name and
    has the same axes; else what the store remembers.
    """
    stored_text = reader.sweep_text()
    stored = parse_sweep(stored_text, label(directory / FILE))
    for path in (directory / SWEEP, reader.source()):
        if path is None or not path.is_file() or (text := read_text(path)) == stored_text:
            continue
        edited = parse_sweep(text, label(path))
        if (edited.name, edited.axes) == (stored.name, stored.axes):
            return edited
    return stored


def parse_table(text: str, text_axes: Iterable[str] = ()) -> pd.DataFrame:
    """``points.csv`` as a table; ``text_axes`` are those of labels, which stay as they are."""
    types = dict.fromkeys((*FIXED_COLUMNS, *text_axes), str)
    table = pd.read_csv(io.StringIO(text), dtype=types, keep_default_na=False, na_values=[""])
    table["error"] = table["error"].fillna("")
    return table


def table_text(sweep: Sweep, finished: Iterable[Row]) -> str:
    """The text of ``points.csv``; raises InputError if a derived column does not come out as numbers."""
    rows = []
    found: set[str] = set()
    for row in finished:
        numbers = scalars(row.result)
        cells = {"point": row.hash, "status": row.status, "error": row.error}
        found |= numbers.keys()
        rows.append(
            {DEVICES: numbers.get(DEVICES)} | cells | _cells(row.axes) | {m: numbers.get(m) for m in sweep.metrics}
        )
    devices = [DEVICES] if DEVICES in found and DEVICES not in (*sweep.axes, *sweep.metrics) else []
    columns = [*FIXED_COLUMNS, *devices, *sweep.axes, *sweep.metrics]
    table = pd.DataFrame(rows, columns=columns, dtype=object)  # object: an integer stays one beside an empty cell
    if sweep.reference is not None:
        for name, values in reference_columns(sweep.reference, sweep.axes, sweep.text_axes, table).items():
            table[name] = pd.Series(values, dtype=object)
    for name, settings in sweep.relative.items():
        table[name] = pd.Series(relative_column(settings, sweep.axes, table), dtype=object)
    for name, values in derive(table, sweep.derive).items():
        table[name] = pd.Series(values, dtype=object)
    return table.to_csv(index=False, lineterminator="\n")


def read_tracebacks(directory: str | Path) -> dict[str, str]:
    """Tracebacks of failed points, by hash; none in a folder without a store."""
    if not (Path(directory) / FILE).is_file():
        return {}
    with Reader(Path(directory)) as reader:
        return {row.hash: row.traceback for row in reader.rows() if row.traceback}


def count_other_code(directory: str | Path) -> int:
    """Finished points of a results folder that ran with other code than this process has."""
    if not (Path(directory) / FILE).is_file():
        return 0
    with Reader(Path(directory)) as reader:
        return reader.count_other_code(code_version())


def scalars(result: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The numbers and texts in a result, None among them, by dotted key."""
    found: dict[str, Any] = {}
    for key, value in result.items():
        if isinstance(value, Mapping):
            found |= scalars(value, f"{prefix}{key}.")
        elif value is None or isinstance(value, bool | int | float | str):
            found[f"{prefix}{key}"] = value
    return found


def _cells(axes: Mapping[str, Any]) -> dict[str, Any]:
    return {axis: as_cell(value) for axis, value in axes.items()}


def as_cell(value: Any) -> Any:
    """An axis value as a cell: numbers and texts as they are, anything else as JSON."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)

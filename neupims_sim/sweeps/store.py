"""The results folder of a sweep.

``sweep.yaml``: a copy of the sweep file. ``points/<hash>.json``: the whole result of each finished point.
``points.csv``: one row per finished point, in the order of the grid: ``point`` (hash), ``status`` (ok, failed), ``error``,
the axes, the metrics, the derived columns. Files are replaced as a whole, so the folder is consistent at every moment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from neupims_sim.config.files import label
from neupims_sim.errors import InputError, suggestion
from neupims_sim.sweeps.checks import FIXED_COLUMNS
from neupims_sim.sweeps.definition import Sweep
from neupims_sim.sweeps.derivation import derive
from neupims_sim.sweeps.points import Point
from neupims_sim.sweeps.reading import read_sweep


class Store:
    """Reads and writes one results folder. Only one process writes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def create(self, sweep_file: Path) -> None:
        """Make the folder, with a copy of the sweep file."""
        try:
            (self.directory / "points").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {label(self.directory)}: cannot be made: {error.strerror}") from error
        replace_file(self.directory / "sweep.yaml", sweep_file.read_text(encoding="utf-8"))

    def result(self, point: str) -> dict[str, Any] | None:
        """The stored result of a point, if it has finished."""
        try:
            result = json.loads((self.directory / "points" / f"{point}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return result if isinstance(result, dict) else None

    def save_result(self, point: str, text: str) -> None:
        """Store the result of a finished point, a JSON object; what told of an earlier failure goes."""
        replace_file(self.directory / "points" / f"{point}.json", text + "\n")
        (self.directory / "points" / f"{point}.traceback.txt").unlink(missing_ok=True)

    def save_traceback(self, point: str, text: str) -> None:
        """Store where a point failed."""
        replace_file(self.directory / "points" / f"{point}.traceback.txt", text)

    def write_table(self, sweep: Sweep, points: Iterable[Point], outcomes: Mapping[str, dict[str, Any] | str]) -> None:
        """Write ``points.csv``. An outcome, by point hash, is a result or the message of a failure.

        Raises InputError if a derived column does not come out as numbers.
        """
        rows = []
        for point in points:
            if point.hash not in outcomes:
                continue
            outcome = outcomes[point.hash]
            failed = isinstance(outcome, str)
            row = {"point": point.hash, "status": "failed" if failed else "ok", "error": outcome if failed else ""}
            numbers = {} if isinstance(outcome, str) else scalars(outcome)
            rows.append(row | {a: _cell(v) for a, v in point.axes.items()} | {m: numbers.get(m) for m in sweep.metrics})
        columns = [*FIXED_COLUMNS, *sweep.axes, *sweep.metrics]
        table = pd.DataFrame(rows, columns=columns, dtype=object)  # object: an integer stays one beside an empty cell
        for name, values in derive(table, sweep.derive).items():
            table[name] = pd.Series(values, dtype=object)
        replace_file(self.directory / "points.csv", table.to_csv(index=False, lineterminator="\n"))

    def read_table(self) -> pd.DataFrame:
        """``points.csv`` as a table; an empty cell is NaN, but "" in ``error``."""
        text = dict.fromkeys(FIXED_COLUMNS, str)
        table = pd.read_csv(self.directory / "points.csv", dtype=text, keep_default_na=False, na_values=[""])
        table["error"] = table["error"].fillna("")
        return table


def load_results(directory: str | Path) -> tuple[Sweep, pd.DataFrame]:
    """The sweep file and the table in a results folder; raises InputError if it is not one."""
    directory = Path(directory)
    if not (directory / "points.csv").is_file() or not (directory / "sweep.yaml").is_file():
        others = [path.parent.name for path in directory.absolute().parent.glob("*/points.csv")]
        near = f"; {suggestion(directory.name, others)}" if others else ""
        raise InputError(f"{label(directory)}: not the results folder of a sweep (no points.csv and sweep.yaml){near}")
    return read_sweep(directory / "sweep.yaml"), Store(directory).read_table()


def scalars(result: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The numbers and texts in a result, by dotted key."""
    found: dict[str, Any] = {}
    for key, value in result.items():
        if isinstance(value, Mapping):
            found |= scalars(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            found[f"{prefix}{key}"] = value
    return found


def _cell(value: Any) -> Any:
    """An axis value as a cell: numbers and texts as they are, anything else as JSON."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def replace_file(path: Path, text: str) -> None:
    """Write a text file as a whole: under a temporary name, then renamed. Line ends stay as they are."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8", newline="")
    os.replace(temporary, path)

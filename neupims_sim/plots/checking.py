"""Whether the plots of a sweep can be drawn of its points, before there are any: each is drawn once of made-up results."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import pandas as pd

from neupims_sim.errors import InputError
from neupims_sim.plots.drawing import OwnPlotError, make_figure, stated_plots
from neupims_sim.plots.options import MissingColumnError
from neupims_sim.simulation import Result
from neupims_sim.sweeps import Sweep
from neupims_sim.sweeps.labels import is_one_of
from neupims_sim.sweeps.reading import PLOT_CHECKS
from neupims_sim.sweeps.store import as_cell

MOST_ROWS = 5_000
"""Of made-up results; of more points there are those with the first values of every axis, and with those that the plots name."""
_SCALARS = {field.name for field in fields(Result) if "Mapping" not in str(field.type)}
_FAMILIES = {field.name for field in fields(Result)} - _SCALARS | {"serving"}
_TEXTS = ("item", "interleaving", "config_hash", "observations")
_OPERATORS = {"qkv": "systolic arrays", "gelu": "vector units", "logits": "PIM"}
_MEMBERS: Mapping[str, Sequence[str]] = {
    "stages": "ABCDEF",
    "utilization": ("npu", "pim", "bandwidth"),
    "energy_joules": ("memory_read", "npu_mac"),
    "peak": ("npu_flops_per_s", "vector_flops_per_s", "pim_flops_per_s", "memory_bytes_per_s", "pim_bytes_per_s"),
    **{f"operator_{what}": tuple(_OPERATORS) for what in ("cycles", "flops", "bytes", "busy_cycles")},
}
"""Members of families whose names plots of ours take for granted."""


@PLOT_CHECKS.register("made-up results")
def check_plots(sweep: Sweep, any_columns: bool = False) -> None:
    """Raise InputError unless every plot that a sweep states can be drawn of results of all its points.

    A column that only some results have may be there in the end, and is not missed; with ``any_columns`` none is.
    """
    plots = stated_plots(sweep)
    columns = sorted({text for _, options in plots for text in _texts(options) if any_columns or _is_possible(text)})
    table = made_up_results(sweep, columns)
    if table.empty:  # nothing is left of the points, which is told elsewhere
        return
    for number, (kind, options) in enumerate(plots):
        try:
            make_figure(sweep, table, kind, _decided(sweep, options))
        except InputError as error:
            missing = _missing_column(error)
            if missing is None or not (any_columns or _is_possible(missing)):
                raise InputError(_numbered(str(error), number, len(plots))) from error


def _decided(sweep: Sweep, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options, with only those points to choose that are known before there are results."""
    where = options.get("where")
    if not isinstance(where, Mapping):
        return options
    known = {name: values for name, values in where.items() if name in sweep.axes or not _is_possible(name)}
    return {**options, "where": known}


def _missing_column(error: InputError) -> str | None:
    """The column without which a plot failed, if it was that."""
    if isinstance(error, MissingColumnError):
        return error.column
    if isinstance(error, OwnPlotError) and isinstance(error.error, KeyError) and error.error.args:
        return str(error.error.args[0])
    return None


def made_up_results(sweep: Sweep, further: Sequence[str] = ()) -> pd.DataFrame:
    """A row per point of a sweep, all of them ok, with the columns that results have: positive numbers that all differ."""
    rows = [{axis: as_cell(value) for axis, value in place.items()} for place in _places(sweep)]
    table = pd.DataFrame(rows, columns=sweep.axes)
    count = pd.Series(range(1, len(table) + 1), dtype=float)
    names = [name for name in _SCALARS if name not in _TEXTS]
    names += [f"{family}.{member}" for family in _FAMILIES for member in _MEMBERS.get(family, ("any",))]
    names = [*dict.fromkeys([*sweep.columns, *sorted(names), *further])]
    numbers = {name: 1.0 + place + count / 16 for place, name in enumerate(names) if name not in sweep.axes}
    units = {f"operator_unit.{operator}": unit for operator, unit in _OPERATORS.items()}
    state = {"point": [f"{number:016x}" for number in range(len(table))], "status": "ok", "error": ""}
    return pd.DataFrame({**state, **table, **numbers, **units}, index=table.index)


def _places(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """The places of a sweep, without those that are excluded; of too many some that have every value that the file names."""
    dimensions = sweep.dimensions
    if sweep.places > MOST_ROWS:
        named = list(_values([sweep.plot, [table.model_dump() for table in sweep.tables]]))
        most = max(2, int(MOST_ROWS ** (1 / len(dimensions))))
        dimensions = [
            [step for n, step in enumerate(steps) if n < most or any(is_one_of(v, named) for v in step.values())]
            for steps in dimensions
        ]
    for steps in itertools.product(*dimensions):
        place = {axis: value for step in steps for axis, value in step.items()}
        if not any(all(is_one_of(place[axis], values) for axis, values in entry.items()) for entry in sweep.exclude):
            yield place


def _is_possible(column: Any) -> bool:
    """Whether a result of the simulator may have a column of this name."""
    prefix, dot, member = str(column).partition(".")
    return str(column) in _SCALARS or (prefix in _FAMILIES and bool(dot) and bool(member))


def _values(tree: Any) -> Iterator[Any]:
    """The leaves of a tree."""
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, list):
        for value in tree:
            yield from _values(value)
    else:
        yield tree


def _texts(options: Mapping[str, Any]) -> Iterator[str]:
    """Texts in options that may name a column."""
    stated = {key: value for key, value in options.items() if key not in ("title", "where")}
    return (value for value in _values(stated) if isinstance(value, str) and not value.endswith("."))


def _numbered(message: str, number: int, count: int) -> str:
    """A message about one of several plots: ``plot.1.hue=...``."""
    return message.replace("plot.", f"plot.{number}.", 1) if count > 1 and message.startswith("plot.") else message

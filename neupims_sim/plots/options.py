"""Options of plots: what each may be, and one line for what is wrong with one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from neupims_sim.errors import InputError, dotted_suggestion, shown, suggestion
from neupims_sim.sweeps.checks import FIXED_COLUMNS
from neupims_sim.sweeps.labels import value_key

SEED = "seed"
"""The axis that only repeats points."""
SYSTEM = "system"
COMMON = ("axes", "labels", "title", "metric")
"""Options that every plot has."""
LOGS = ("", "x", "y", "xy")
"""Which scales of a plot are logarithmic."""


def check_options(options: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Raise InputError if a plot is given an option that it does not have."""
    for name, value in options.items():
        if name not in (*allowed, *COMMON):
            raise InputError(f"plot.{name}={shown(value)}: unknown option; {suggestion(name, allowed)}")


class MissingColumnError(InputError):
    """A plot needs a column that the table does not have."""

    def __init__(self, message: str, column: str) -> None:
        super().__init__(message)
        self.column = column


def column(table: pd.DataFrame, name: Any, key: str) -> str:
    """``name`` if the table has such a column; ``key`` is the option that names it."""
    if not isinstance(name, str) or name not in table.columns:
        known = (str(known) for known in table.columns if known not in FIXED_COLUMNS)
        raise MissingColumnError(
            f"{key}={shown(name)}: no such column; {dotted_suggestion(str(name), known)}", str(name)
        )
    return name


def numbers(table: pd.DataFrame, name: Any, key: str) -> pd.Series[float]:
    """A column of numbers; raises InputError if it holds something else, or nothing."""
    known = column(table, name, key)
    try:
        values: pd.Series[float] = table[known].astype(float)  # labels that are all numbers, too
    except (TypeError, ValueError):
        values = pd.Series(dtype=float)
    if values.isna().all():
        raise InputError(f"{key}={shown(name)}: no number in this column")
    return values


def axis_option(options: Mapping[str, Any], key: str, default: str | None = None) -> str | None:
    """The axis that an option names."""
    name = options.get(key, default)
    if name is None:
        return None
    if name not in options["axes"]:
        raise InputError(f"plot.{key}={shown(name)}: no such axis; {suggestion(str(name), options['axes'])}")
    return str(name)


def needed_axis(options: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """The axis that an option must name."""
    axis = axis_option(options, key, default)
    if axis is None:
        raise InputError(f"plot.{key} is missing: it needs an axis of the sweep; {suggestion('', options['axes'])}")
    return axis


def panel_axes(options: Mapping[str, Any]) -> list[str]:
    """The axes of option ``panels``, one or a list: those that are to have no other place."""
    stated = listed(options.get("panels"))
    for axis in stated:
        axis_option({**options, "panels": axis}, "panels")
    return stated


def main_axis(options: Mapping[str, Any], *others: str | None) -> str | None:
    """The axis of option ``x``: by default the last that is none of ``others``, of ``panels`` and not the seed; None if there is none."""
    free = [axis for axis in options["axes"] if axis not in (*others, SEED, *panel_axes(options))]
    axis = axis_option(options, "x", free[-1] if free else None)
    return None if axis in others else axis


def flag(options: Mapping[str, Any], key: str) -> bool:
    """An option that is true or false, false unless given."""
    value = options.get(key, False)
    if not isinstance(value, bool):
        raise InputError(f"plot.{key}={shown(value)}: must be true or false")
    return value


def choice(options: Mapping[str, Any], key: str, allowed: Sequence[str]) -> str:
    """One of some words, the first unless given."""
    value = options.get(key, allowed[0])
    if value not in allowed:
        raise InputError(f"plot.{key}={shown(value)}: not an option; {suggestion(str(value), map(repr, allowed))}")
    return str(value)


def count(options: Mapping[str, Any], key: str) -> int | None:
    """A positive whole number, if it is given."""
    value = options.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"plot.{key}={shown(value)}: must be a whole number from 1 up")
    return value


def listed(value: Any) -> list[Any]:
    """One thing as a list of one, nothing as an empty list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def value_of(table: pd.DataFrame, axis: str, wanted: Any, key: str) -> Any:
    """The value of an axis that an option means, as the table has it."""
    values = list(table[axis].unique())
    for value in values:
        if value_key(value) == value_key(wanted):
            return value
    raise InputError(f"{key}={shown(wanted)}: no such value of {axis}; {suggestion(str(wanted), map(str, values))}")


def chosen_points(table: pd.DataFrame, where: Any) -> pd.DataFrame:
    """The points that have, for every column that ``where`` names, the value or one of the list of values."""
    if not isinstance(where, Mapping):
        raise InputError(f"plot.where={shown(where)}: needs columns and their values, such as {{system: neupims}}")
    for name, wanted in where.items():
        key = f"plot.where.{name}"
        values = [value_of(table, column(table, name, key), value, key) for value in listed(wanted)]
        table = table[table[name].isin(values)]
    if where and table.empty:
        raise InputError(f"plot.where={shown(dict(where))}: no point has all of this")
    return table

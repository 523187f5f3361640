"""What a sweep file must keep beyond the types of its keys: names that exist, and keys that are set once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from neupims_sim.config.files import available
from neupims_sim.errors import suggestion
from neupims_sim.sweeps.definition import Quick, Sweep, TableSettings
from neupims_sim.sweeps.derivation import expression_problem
from neupims_sim.sweeps.labels import is_one_of, value_key, written_key
from neupims_sim.sweeps.reference import ReferenceSettings, reference_problems

FIXED_COLUMNS = ("point", "status", "error")
"""Columns of ``points.csv`` that every sweep has."""
DEVICES = "devices"
"""Another, of numbers, where results have it and no axis or metric has the name: devices of the whole system."""
MAX_POINTS = 1_000_000
"""Of a sweep; more is taken for a slip, and would take minutes to check and gigabytes to store."""


def problems(sweep: Sweep) -> list[str]:
    """What is wrong with a sweep, one line each: key, value, what is allowed. The first check that finds something ends it."""
    for check in _CHECKS:
        if found := list(check(sweep)):
            return found
    return []


def _bad_quick_form(sweep: Sweep) -> Iterator[str]:
    if sweep.quick is None:
        return
    for kind in ("grid", "variants"):
        for axis in getattr(sweep.quick, kind):
            if axis not in getattr(sweep, kind):
                yield f"quick.{kind}.{axis}: no such axis; {suggestion(axis, getattr(sweep, kind))}"
    yield from _other_quick_axes(sweep, sweep.quick)
    for check in (_bad_groups, _keys_set_twice, _missing_system):
        for problem in check(sweep.quick_form()):
            yield f"quick: {problem}"


def _too_many_points(sweep: Sweep) -> Iterator[str]:
    """Before the product of the axes is gone through."""
    for name, form in (("", sweep), ("quick: ", sweep.quick_form())):
        if form.places > MAX_POINTS:
            yield f"{name}the axes stand for {form.places:,} points; allowed: up to {MAX_POINTS:,}"


def _bad_groups(sweep: Sweep) -> Iterator[str]:
    """Axes that vary together, and axes that two keys of the file state."""
    for index, group in enumerate(sweep.zip):
        lengths = {axis: len(values) for axis, values in group.items()}
        if len(set(lengths.values())) > 1:
            stated = ", ".join(f"{axis} {length}" for axis, length in lengths.items())
            yield f"zip.{index}: its axes need equally many values; now {stated}"
    if sweep.repeats is not None and sweep.seeds is not None:
        yield "repeats and seeds are both given; keep one of them"
    repeated = "repeats" if sweep.repeats is not None else "seeds"
    groups = [(f"zip.{index}", group) for index, group in enumerate(sweep.zip)]
    owners: dict[str, str] = {}
    for where, group in (*groups, ("grid", sweep.grid), (repeated, sweep.repeated)):
        for axis in group:
            if axis in owners:
                yield f"{axis} is an axis of {owners[axis]} and of {where}; keep one of them"
            owners[axis] = where


def _other_quick_axes(sweep: Sweep, quick: Quick) -> Iterator[str]:
    """The quick form has the axes of the sweep, or its tables and plots would not fit."""
    zipped = [axis for group in sweep.zip for axis in group]
    if quick.zip and {axis for group in quick.zip for axis in group} != set(zipped):
        yield f"quick.zip: must have the axes of zip: {', '.join(zipped) or 'none'}"
    for key in ("repeats", "seeds"):
        if getattr(quick, key) is not None and not sweep.repeated:
            yield f"quick.{key}: the sweep itself has neither repeats nor seeds"


def _keys_set_twice(sweep: Sweep) -> Iterator[str]:
    base = set(_leaves(sweep.base))
    for axis in sweep.keys:
        if axis in base and not (axis == "seed" and sweep.repeats is not None):  # repeats start from the seed of base
            yield f"{axis} is set in base and is an axis of {_owner(sweep, axis)}; keep one of them"
    owners: dict[str, str] = {}
    for axis, labels in sweep.variants.items():
        if any(f"{key}.".startswith(f"{axis}.") for key in (*base, *sweep.keys)):
            yield f"variants.{axis}: is a configuration key of base or grid; give the axis a name of its own"
        for name, settings in labels.items():
            for key in _leaves(settings):
                if key in sweep.keys:
                    yield f"variants.{axis}.{name}: {key} is an axis of {_owner(sweep, key)}, too; keep one of them"
                if owners.setdefault(key, axis) != axis:
                    yield f"variants.{axis}.{name}: {key} is set by variants.{owners[key]}, too; keep one of them"


def _owner(sweep: Sweep, axis: str) -> str:
    """The key of the file that states an axis."""
    if axis in sweep.grid:
        return "grid"
    return "zip" if any(axis in group for group in sweep.zip) else "repeats or seeds"


def _missing_system(sweep: Sweep) -> Iterator[str]:
    by_variant = any(all("system" in settings for settings in labels.values()) for labels in sweep.variants.values())
    if "system" not in sweep.base and "system" not in sweep.keys and not by_variant:
        yield (
            "base.system is missing (grid, zip, or every label of an axis of variants, may state it instead); "
            f"{suggestion('', available('systems'))}"
        )


def _columns_named_twice(sweep: Sweep) -> Iterator[str]:
    for index, metric in enumerate(sweep.metrics):
        if metric in sweep.metrics[:index]:
            yield f"metrics.{index}={metric!r}: is given twice"
        if metric in (*FIXED_COLUMNS, *sweep.keys):
            yield f"metrics.{index}={metric!r}: points.csv has a column of this name already"
    for axis in sweep.variants:
        if axis in (*FIXED_COLUMNS, *sweep.metrics):
            yield f"variants.{axis}: points.csv has a column of this name already; choose another"
    taken = [*FIXED_COLUMNS, DEVICES, *sweep.axes, *sweep.metrics]
    for key, names in (
        ("reference.table", sweep.reference_columns),
        ("relative", sweep.relative),
        ("derive", sweep.derive),
    ):
        for name in names:
            if name in taken or "`" in name:
                yield f"{key}.{name}: points.csv has a column of this name already, or it has a backtick; choose another"
        taken += names


def _bad_additions(sweep: Sweep) -> Iterator[str]:
    """What is wrong with ``reference`` and ``relative``."""
    if sweep.reference is not None:
        yield from reference_problems(sweep.reference, sweep.axes, sweep.text_axes)
        yield from _unknown_places(sweep, sweep.reference)
    columns = [*sweep.metrics, *sweep.reference_columns]
    for name, settings in sweep.relative.items():
        if settings.of not in columns:
            yield f"relative.{name}.of={settings.of!r}: no such column; {suggestion(settings.of, columns)}"
        if settings.axis not in sweep.axes:
            yield f"relative.{name}.axis={settings.axis!r}: no such axis; {suggestion(settings.axis, sweep.axes)}"
            continue
        known = _known_values(sweep, settings.axis)
        if value_key(settings.to) not in known:
            near = suggestion(str(settings.to), known)
            yield f"relative.{name}.to={settings.to!r}: no such value of {settings.axis}; {near}"


def _unknown_places(sweep: Sweep, reference: ReferenceSettings) -> Iterator[str]:
    """Figures of places that the sweep does not have."""
    for axis in reference.parsed.axes(sweep.axes):
        column, known = reference.parsed.head.index(axis), _known_values(sweep, axis)
        for line, row in reference.parsed.rows:
            if written_key(row[column], axis in sweep.text_axes) not in known:
                yield f"reference.table, line {line}: {axis}={row[column]!r}: no such value of the axis; {suggestion(row[column], known)}"


def _known_values(sweep: Sweep, axis: str) -> list[str]:
    """The values of an axis in both forms of the sweep, as texts."""
    values = (*sweep.values(axis), *sweep.quick_form().values(axis))
    return list(dict.fromkeys(value_key(value) for value in values))


def _unknown_values(sweep: Sweep) -> Iterator[str]:
    """Names of axes and of their values in ``exclude`` and ``names``; values of the quick form are known, too."""
    stated: list[tuple[str, Mapping[str, Iterable[Any]]]] = [
        (f"exclude.{index}", {axis: v if isinstance(v, list) else [v] for axis, v in entry.items()})
        for index, entry in enumerate(sweep.exclude)
    ]
    stated += [
        (f"tables.{index}.only", {axis: v if isinstance(v, list) else [v] for axis, v in table.only.items()})
        for index, table in enumerate(sweep.tables)
        if table.only is not None
    ]
    for where, entry in (*stated, ("names", sweep.names)):
        for axis, values in entry.items():
            if axis not in sweep.axes:
                yield f"{where}.{axis}: no such axis; {suggestion(axis, sweep.axes)}"
                continue
            known = _known_values(sweep, axis)
            is_text = axis in sweep.text_axes
            for value in values:
                if (written_key(value, is_text) if where == "names" else value_key(value)) not in known:
                    yield f"{where}.{axis}={value!r}: no such value of the axis; {suggestion(str(value), known)}"


def _bad_expressions(sweep: Sweep) -> Iterator[str]:
    known = [*sweep.axes, *sweep.metrics, *sweep.reference_columns, *sweep.relative]
    for name, expression in sweep.derive.items():
        problem = expression_problem(expression, known)
        if problem:
            yield f"derive.{name}={expression!r}: {problem}"
        known.append(name)


def _unknown_columns(sweep: Sweep) -> Iterator[str]:
    columns = [*sweep.axes, *sweep.columns]
    for column in sweep.labels:
        if column not in columns:
            yield f"labels.{column}: no such column; {suggestion(column, columns)}"
    for index, table in enumerate(sweep.tables):
        for key, axes in (("rows", table.rows), ("columns", _column_axes(table))):
            for axis in axes:
                if axis not in sweep.axes:
                    yield f"tables.{index}.{key}={axis!r}: no such axis; {suggestion(axis, sweep.axes)}"
        for value in table.value:
            if value not in sweep.columns:
                yield f"tables.{index}.value={value!r}: no such column; {suggestion(value, sweep.columns)}"
        if table.columns is not None and len(table.value) > 1:
            yield f"tables.{index}.value: {len(table.value)} values, and an axis across; keep one value, or drop columns"
        if table.columns is not None and len(table.over) > 1:
            yield f"tables.{index}.over: {len(table.over)} numbers a cell, and an axis across; keep one, or drop columns"
        if table.relative_to is not None:
            axis = table.rows[0]
            known = _known_values(sweep, axis) if axis in sweep.axes else []
            if table.columns is not None or table.over:
                yield f"tables.{index}.relative_to: only without columns and over"
            elif value_key(table.relative_to) not in known:
                near = suggestion(str(table.relative_to), known)
                yield f"tables.{index}.relative_to={table.relative_to!r}: no such value of {axis}; {near}"


def _incomplete_tables(sweep: Sweep) -> Iterator[str]:
    """A cell must stand for one point or its repeats: every other axis with several values heads rows or columns."""
    for index, table in enumerate(sweep.tables):
        heads = [*table.rows, *_column_axes(table)]
        if len(set(heads)) < len(heads):
            yield f"tables.{index}: an axis is given twice in rows and columns"
        for axis in sweep.axes:
            only = (table.only or {}).get(axis)
            shown = {value_key(value) for value in sweep.values(axis) if only is None or is_one_of(value, only)}
            several = len(shown) > 1 and not table.over
            if several and axis not in heads and axis not in sweep.repeated:
                yield f"tables.{index}: {axis} has several values, and is in neither rows nor columns; add it to rows, or give over"


def _column_axes(table: TableSettings) -> list[str]:
    return [] if table.columns is None else [table.columns]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of the leaves of a tree."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


_CHECKS: tuple[Callable[[Sweep], Iterable[str]], ...] = (
    _bad_groups,
    _keys_set_twice,
    _missing_system,
    _bad_quick_form,
    _too_many_points,
    _columns_named_twice,
    _bad_additions,
    _unknown_values,
    _bad_expressions,
    _unknown_columns,
    _incomplete_tables,
)

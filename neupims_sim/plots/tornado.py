"""How much a metric changes when one thing at a time does: the parameters that matter most on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neupims_sim.errors import InputError
from neupims_sim.plots.drawing import PLOTS
from neupims_sim.plots.frame import check_bars, finish, grid, parts_of, set_ticks
from neupims_sim.plots.options import SEED, check_options, count, flag, needed_axis, numbers, value_of
from neupims_sim.plots.repeats import over_seeds
from neupims_sim.plots.style import FAINT, INK, filling
from neupims_sim.plots.text import CHARACTER_INCHES, short_number, wrapped
from neupims_sim.sweeps import Label, Labels

SEPARATOR = ":"
"""Between parameter and setting in the values of the axis."""
MOST_SETTINGS = 2
PANEL_INCHES = 3.6
LINE_INCHES = 0.3
NAME_INCHES = 2.2
LOOKS = (1, 2)
"""Of the first and the second setting (`filling`)."""


class Bar(NamedTuple):
    """What one setting of a parameter changes."""

    setting: str
    change: float
    """NaN where the point, or the base, is missing."""


@PLOTS.register("tornado")
def tornado(table: pd.DataFrame, options: Mapping[str, Any]) -> Figure:
    """Bars of the change of a metric from that of a base point, one line per parameter, the largest on top.

    The axis of the settings has values such as ``base``, ``"bandwidth: low"`` and ``"bandwidth: high"``: parameter, colon,
    setting, at most two settings of a parameter; a value without colon is a parameter of one setting.

    Options: ``settings`` (that axis; the first with a base among its values unless given), ``base`` (its value to compare with;
    ``base`` unless given), ``metric`` (throughput unless given), ``absolute`` (true: changes in the unit of the metric, not in percent
    of the base), ``largest`` (so many parameters), ``title``. Further axes are panels, each with its own base; the order is that of
    the largest change in any of them. Points that differ in their seed only are one point, their mean.
    """
    check_options(options, ("settings", "base", "absolute", "largest"))
    labels: Labels = options["labels"]
    base, absolute, largest = options.get("base", "base"), flag(options, "absolute"), count(options, "largest")
    axis = _settings_axis(table, options, base)
    base = value_of(table, axis, base, "plot.base")
    metric = options.get("metric", "throughput_tokens_per_s")
    numbers(table, metric, "metric")
    parameters = _parameters(table, axis, base, labels)
    table, axes = over_seeds(table, options["axes"], [metric], (axis,))
    parts = parts_of(table, [name for name in axes if name != axis], labels)
    label = labels.column(metric)
    factor = label.factor if absolute else 100
    found = [_changes(part.table, axis, base, metric, parameters, factor, absolute) for part in parts]
    order = sorted(parameters, key=lambda name: -_extent(found, name))[:largest]
    check_bars(len(parts) * sum(len(parameters[name]) for name in order))

    room = min(NAME_INCHES, CHARACTER_INCHES * max(map(len, order)))
    width, height = PANEL_INCHES + room, max(1.3, LINE_INCHES * len(order) + 0.7)
    figure, panels, columns = grid(len(parts), width, height, sharex=True, sharey=True)
    reach = max((_extent(found, name) for name in order), default=0.0) or 1.0
    what = f"Change of {label.name[:1].lower()}{label.name[1:]} ({(label.unit or '1') if absolute else '%'})"
    for panel, part, bars in zip(panels, parts, found, strict=True):
        _draw_bars(panel, [bars[name] for name in order], "" if absolute else " %")
        panel.axvline(0, color=INK, linewidth=0.8)
        panel.set_yticks(range(len(order)), [wrapped(name, NAME_INCHES) for name in order])
        panel.set_ylim(len(order) - 0.5, -0.5)
        panel.set_xlim(-1.7 * reach, 1.7 * reach)
        panel.tick_params(axis="y", length=0)
        panel.grid(visible=False, axis="y")
        panel.grid(visible=True, axis="x")
        panel.set_title(wrapped(part.title, width))
        panel.set_xlabel(f"{wrapped(what, width)}\n{_base_text(part.table, axis, base, metric, label)}")
        set_ticks(panel.xaxis, None)
    for panel in panels[::columns]:
        panel.set_ylabel("")
    return finish(figure, options, [], [])


def _settings_axis(table: pd.DataFrame, options: Mapping[str, Any], base: Any) -> str:
    having = [axis for axis in options["axes"] if axis != SEED and str(base) in map(str, table[axis].unique())]
    return needed_axis(options, "settings", having[0] if having else None)


def _parameters(table: pd.DataFrame, axis: str, base: Any, labels: Labels) -> dict[str, dict[str, Any]]:
    """Parameter -> setting -> value of the axis, in the order of the table."""
    parameters: dict[str, dict[str, Any]] = {}
    for value in table[axis].unique():
        if value != base:
            name, _, setting = labels.value(axis, value).partition(SEPARATOR)
            parameters.setdefault(name.strip(), {})[setting.strip()] = value
    if not parameters:
        raise InputError(f"plot.settings={axis!r}: has no value but the base {base!r}")
    for name, settings in parameters.items():
        if len(settings) > MOST_SETTINGS:
            raise InputError(
                f"plot.settings={axis!r}: {name} has {len(settings)} settings ({', '.join(settings)}), and a line has room for "
                f"{MOST_SETTINGS}"
            )
    return parameters


def _changes(
    points: pd.DataFrame,
    axis: str,
    base: Any,
    metric: str,
    parameters: Mapping[str, Mapping[str, Any]],
    factor: float,
    absolute: bool,
) -> dict[str, list[Bar]]:
    """Parameter -> what its settings change, in percent or in the unit of the metric."""
    values = {row[axis]: float(row[metric]) for row in points.to_dict("records")}
    reference = values.get(base, np.nan)

    def change(value: Any) -> float:
        difference = values.get(value, np.nan) - reference
        relative = difference if absolute else difference / reference if reference else np.nan
        return float(relative * factor)

    return {
        name: [Bar(setting, change(value)) for setting, value in settings.items()]
        for name, settings in parameters.items()
    }


def _extent(found: Sequence[Mapping[str, Sequence[Bar]]], name: str) -> float:
    """The largest change that a parameter makes in any panel; 0 where nothing is known."""
    return max((abs(bar.change) for bars in found for bar in bars[name] if np.isfinite(bar.change)), default=0.0)


def _draw_bars(panel: Axes, lines: Sequence[Sequence[Bar]], unit: str) -> None:
    for place, bars in enumerate(lines):
        same_side = len({bar.change > 0 for bar in bars if np.isfinite(bar.change)}) < len(bars)
        height = 0.36 if same_side and len(bars) > 1 else 0.7
        for index, bar in enumerate(bars):
            middle = place + (index - 0.5) * height if height < 0.5 else place
            known = np.isfinite(bar.change)
            panel.barh([middle], [bar.change if known else 0], height, **filling(LOOKS[index]))
            number = f"{'+' if bar.change > 0 else ''}{short_number(bar.change)}{unit}" if known else "n/a"
            right = bar.change > 0 or (not known and index == 1)
            panel.annotate(
                f"{bar.setting}: {number}" if bar.setting else number, (bar.change if known else 0, middle),
                (3 if right else -3, 0), textcoords="offset points", ha="left" if right else "right", va="center",
                fontsize=6.5, color=INK if known else FAINT,
            )  # fmt: skip


def _base_text(points: pd.DataFrame, axis: str, base: Any, metric: str, label: Label) -> str:
    """The metric of the base point, in words."""
    values = points.loc[points[axis] == base, metric]
    known = len(values) and values.notna().all()
    unit = f" ({label.unit})" if label.unit else ""
    return f"base {short_number(float(values.iloc[0]) * label.factor)}{unit}" if known else "base n/a"

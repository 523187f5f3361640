"""Operators under the roofs of the units that run them (Williams, Waterman and Patterson, CACM 52(4), 2009)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neupims_sim.errors import InputError
from neupims_sim.plots.drawing import PLOTS
from neupims_sim.plots.frame import finish, grid, parts_of, set_ticks
from neupims_sim.plots.options import SEED, check_options, count
from neupims_sim.plots.placing import Named, place_names
from neupims_sim.plots.style import FAINT, PALETTE
from neupims_sim.plots.text import wrapped
from neupims_sim.sweeps import Labels

FLOPS, BYTES, CYCLES, UNIT = "operator_flops.", "operator_bytes.", "operator_busy_cycles.", "operator_unit."
NEEDED = ("block_cycles", "cycles", "seconds", "peak.npu_flops_per_s", "peak.memory_bytes_per_s")
PANEL_INCHES = (4.6, 3.5)
LARGEST_MARKER = 9.0
"""Radius in points of an operator that takes the whole block; the area of a marker is its share of the block."""
SMALLEST_MARKER = 2.0


@dataclass(frozen=True)
class Unit:
    """A unit: what its results call it, its roof and how it looks."""

    name: str
    flops: str
    bytes: str
    colour: str
    marker: str


ARRAYS = Unit("Systolic arrays", "peak.npu_flops_per_s", "peak.memory_bytes_per_s", PALETTE[2], "o")
VECTOR = Unit("Vector units", "peak.vector_flops_per_s", "peak.memory_bytes_per_s", PALETTE[3], "^")
PIM = Unit("PIM", "peak.pim_flops_per_s", "peak.pim_bytes_per_s", PALETTE[1], "s")
GPU = Unit("GPU", "peak.npu_flops_per_s", "peak.memory_bytes_per_s", PALETTE[6], "D")
UNITS = {"systolic arrays": ARRAYS, "vector units": VECTOR, "DMA": VECTOR, "PIM": PIM, "GPU": GPU}
"""By ``operator_unit`` of a result; element-wise work that a preset charges no cycles for counts to the vector units."""


class Placed(NamedTuple):
    """An operator in the plot."""

    name: str
    unit: Unit
    intensity: float
    """FLOPs per byte."""
    rate: float
    """FLOP/s."""
    share: float
    """Busy cycles / cycles of the block."""


class Roof(NamedTuple):
    """min(``flops``, intensity x ``bytes``), per second."""

    unit: Unit
    flops: float
    bytes: float


@PLOTS.register("roofline")
def roofline(table: pd.DataFrame, options: Mapping[str, Any]) -> Figure:
    """Achieved FLOP/s of every operator over its FLOPs per byte, below the roof of its unit; a panel per configuration.

    Options: ``largest`` (so many operators of each panel get names, those that take the longest; all unless given), ``title``.
    Needs results as the store has them: ``operator_flops``, ``operator_bytes``, ``operator_busy_cycles``, ``operator_unit`` and
    ``peak``. Bytes are those between DRAM and scratchpad, for PIM those read inside the banks; operators that move none have no
    place. The area of a marker is the share of the block in which the operator was busy. Of repeats with other seeds the first
    is shown.
    """
    check_options(options, ("largest",))
    labels: Labels = options["labels"]
    named = count(options, "largest")
    if "metric" in options:
        raise InputError(f"metric={options['metric']!r}: a roofline shows no single metric")
    axes = [axis for axis in options["axes"] if axis != SEED]
    _check_columns(table)
    table = table.drop_duplicates(axes) if axes else table.head(1)
    parts = parts_of(table, axes, labels)
    rows = [part.table.iloc[0].to_dict() for part in parts]
    figure, panels, columns = grid(len(parts), *PANEL_INCHES, sharex=True, sharey=True)
    found = [_operators(row) for row in rows]
    limits = _limits([placed for placed, _ in found], [_roofs(row) for row in rows])
    for panel, part, row, (placed, elsewhere) in zip(panels, parts, rows, found, strict=True):
        panel.set(xscale="log", yscale="log", xlim=limits[0], ylim=limits[1])
        panel.set_title(wrapped(part.title, PANEL_INCHES[0]))
        panel.set_xlabel("Operational intensity (FLOP/byte)")
        panel.grid(visible=True, axis="both")
        for axis in (panel.xaxis, panel.yaxis):
            set_ticks(axis, None)
        _draw_roofs(panel, _roofs(row) if placed else [], limits[0])
        _draw_operators(panel, placed)
        _tell_missing(panel, placed, elsewhere)
    for panel in panels[::columns]:
        panel.set_ylabel("Achieved (GFLOP/s)")
    finish(figure, options, *_legend([operator.unit for placed, _ in found for operator in placed]))
    place_names(figure, [(panel, _names(placed, named)) for panel, (placed, _) in zip(panels, found, strict=True)])
    return figure


def _check_columns(table: pd.DataFrame) -> None:
    """Raise InputError if the table is not made of whole results."""
    for name in NEEDED:
        if name not in table or table[name].isna().all():
            raise InputError(
                f"roofline: no {name} in the results; it needs whole results, as the store of a sweep of this version has them"
            )


def _tell_missing(panel: Axes, placed: Sequence[Placed], elsewhere: Sequence[str]) -> None:
    if not placed:
        panel.text(0.5, 0.5, "n/a", transform=panel.transAxes, color=FAINT, ha="center")
    elif elsewhere:
        text = wrapped(f"no traffic: {', '.join(elsewhere)}", PANEL_INCHES[0], 0.05)
        panel.text(0.99, 0.01, text, transform=panel.transAxes, color=FAINT, fontsize=6, ha="right", va="bottom")


def _legend(used: Sequence[Unit]) -> tuple[list[Line2D], list[str]]:
    """Handles and entries of the units, and what the area of a marker says."""
    units = [unit for unit in dict.fromkeys(UNITS.values()) if unit in used]
    look: dict[str, Any] = {"linestyle": "-", "linewidth": 1.2, "markeredgecolor": "white"}
    handles = [Line2D([], [], marker=unit.marker, color=unit.colour, **look) for unit in units]
    area = Line2D([], [], linestyle="none", marker="o", color=FAINT, markersize=2 * _radius(0.25))
    return [*handles, area], [*(unit.name for unit in units), "area: share of time, here 25 %"]


def _names(placed: Sequence[Placed], most: int | None) -> list[Named]:
    """The names of those that take the longest."""
    shown = sorted(placed, key=lambda operator: -operator.share)[:most]
    return [Named(o.intensity, o.rate / 1e9, o.name, 1.2 * _radius(o.share)) for o in shown]


def _operators(row: Mapping[Hashable, Any]) -> tuple[list[Placed], list[str]]:
    """What can be placed of one configuration, and the names of operators with work but without traffic."""
    placed, elsewhere = [], []
    names = [str(key).removeprefix(FLOPS) for key in row if str(key).startswith(FLOPS)]
    clock = _number(row, "cycles") / _number(row, "seconds") if _number(row, "seconds") else math.nan
    for name in names:
        flops, moved, cycles = (_number(row, prefix + name) for prefix in (FLOPS, BYTES, CYCLES))
        unit = UNITS.get(str(row.get(UNIT + name)))
        if unit is None or not flops > 0 or not clock > 0:
            continue
        if not moved > 0 or not cycles > 0:
            elsewhere.append(name)
            continue
        share = cycles / _number(row, "block_cycles")
        placed.append(Placed(name, unit, flops / moved, flops * clock / cycles, share))
    return placed, elsewhere


def _number(row: Mapping[Hashable, Any], key: str) -> float:
    """0 for what the result does not have."""
    value = row.get(key, 0)
    return 0.0 if value is None or (isinstance(value, float) and math.isnan(value)) else float(value)


def _roofs(row: Mapping[Hashable, Any]) -> list[Roof]:
    """The roofs of the units that a configuration has."""
    on_gpu = any(str(key).startswith(UNIT) and value == "GPU" for key, value in row.items())
    units = (GPU,) if on_gpu else (ARRAYS, VECTOR, PIM)
    roofs = [Roof(unit, _number(row, unit.flops), _number(row, unit.bytes)) for unit in units]
    return [roof for roof in roofs if roof.flops > 0 and roof.bytes > 0]


def _limits(
    operators: Sequence[Sequence[Placed]], roofs: Sequence[Sequence[Roof]]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Intensity and GFLOP/s that all panels show: all operators, and all roofs with their ridges."""
    placed = [operator for panel in operators for operator in panel]
    if not placed:
        raise InputError("roofline: no operator with FLOPs and traffic in the results")
    ridges = [roof.flops / roof.bytes for panel in roofs for roof in panel]
    intensities = [operator.intensity for operator in placed] + ridges
    rates = [operator.rate for operator in placed] + [roof.flops for panel in roofs for roof in panel]
    return (min(intensities) / 3, max(intensities) * 4), (min(rates) / 3e9, max(rates) * 3 / 1e9)


def _draw_roofs(panel: Axes, roofs: Sequence[Roof], limits: tuple[float, float]) -> None:
    intensity = np.geomspace(*limits, 200)
    for roof in roofs:
        height = np.minimum(roof.flops, intensity * roof.bytes) / 1e9
        panel.plot(intensity, height, color=roof.unit.colour, linewidth=1.2, zorder=1.5)
        text = f"{_scaled(roof.flops)}FLOP/s, {_scaled(roof.bytes)}B/s"
        panel.annotate(
            text, (limits[1], roof.flops / 1e9), (-2, 2), textcoords="offset points", ha="right", fontsize=6,
            color=roof.unit.colour,
        )  # fmt: skip


def _draw_operators(panel: Axes, placed: Sequence[Placed]) -> None:
    for o in sorted(placed, key=lambda operator: -operator.share):
        look: dict[str, Any] = {"marker": o.unit.marker, "color": o.unit.colour, "markeredgecolor": "white"}
        panel.plot(
            [o.intensity],
            [o.rate / 1e9],
            linestyle="none",
            markersize=2 * _radius(o.share),
            markeredgewidth=0.6,
            **look,
        )


def _radius(share: float) -> float:
    """Of a marker, points."""
    return max(SMALLEST_MARKER, LARGEST_MARKER * math.sqrt(min(share, 1.0)))


def _scaled(value: float) -> str:
    """``262 T`` for 2.62e14."""
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g} "

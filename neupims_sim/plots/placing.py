"""Names beside the points of a scatter plot, so that they cover neither each other nor the points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from neupims_sim.plots.style import FAINT, INK

FloatArray = npt.NDArray[np.float64]

DISTANCES = (7.0, 13.0, 21.0, 32.0, 46.0, 62.0, 80.0, 100.0)
"""From a point to the name beside it, in points, nearest first."""
DIRECTIONS = (0, 45, -45, 90, -90, 135, -135, 180)
"""Degrees; those nearest to the preferred one are tried first."""
LINKED = 14.0
"""From this distance on a line joins name and point."""


class Named(NamedTuple):
    """A point in data coordinates, its name, the radius of its marker in points."""

    x: float
    y: float
    name: str
    radius: float = 3.0


def place_names(figure: Figure, names: Sequence[tuple[Axes, Sequence[Named]]], preferred: int = 0) -> None:
    """Write the names of each panel where there is room, in the ``preferred`` direction (degrees) if possible.

    Call it last: it needs the final layout.
    """
    figure.draw_without_rendering()
    directions = sorted(DIRECTIONS, key=lambda degrees: abs((degrees - preferred + 180) % 360 - 180))
    for panel, points in names:
        _place(panel, points, directions, figure.dpi / 72)


def _place(panel: Axes, points: Sequence[Named], directions: Sequence[int], scale: float, size: float = 7.0) -> None:
    inside = panel.get_window_extent()
    centres = [panel.transData.transform((point.x, point.y)) for point in points]
    taken = np.empty((2 * len(points), 4))
    """Left, bottom, right, top of every marker and of the names written so far."""
    for number, ((x, y), point) in enumerate(zip(centres, points, strict=True)):
        taken[number] = x, y, x, y
        taken[number] += np.array([-1, -1, 1, 1]) * point.radius * scale
    for number, (point, (x, y)) in enumerate(zip(points, centres, strict=True), start=len(points)):
        note = panel.annotate(
            point.name, (point.x, point.y), (0, 0), textcoords="offset points", fontsize=size, color=INK, zorder=6,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip
        note.set_in_layout(False)
        extent = note.get_window_extent()
        width, height = extent.width / scale, extent.height / scale
        offsets = np.array(list(_offsets(point.radius, width, height, directions)))
        low = np.array([x, y]) + offsets * scale
        boxes = np.hstack([low, low + np.array([extent.width, extent.height])])
        reach = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])[None]
        near = taken[:number][_overlapping(reach, taken[:number])[0]]
        overlaps = _overlapping(boxes, near).sum(axis=1)
        within = (low >= inside.min).all(axis=1) & (boxes[:, 2:] <= inside.max).all(axis=1)
        free = np.flatnonzero((overlaps == 0) & within)
        best = int(free[0]) if len(free) else int(overlaps.argmin())
        dx, dy = map(float, offsets[best])
        note.set_position((dx, dy))
        taken[number] = boxes[best]
        if math.hypot(dx + width / 2, dy + height / 2) > LINKED + point.radius + width / 2:
            end = min(max(0.0, dx), dx + width), dy + height / 2
            panel.annotate(
                "", (point.x, point.y), end, textcoords="offset points", zorder=5, annotation_clip=False,
                arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.5, "shrinkA": 0, "shrinkB": point.radius},
            ).set_in_layout(False)  # fmt: skip


def _overlapping(boxes: FloatArray, others: FloatArray) -> npt.NDArray[np.bool_]:
    """[box, other] which overlap; [n, 4] each, as left, bottom, right, top."""
    apart = (others[:, 2:] <= boxes[:, None, :2]) | (others[:, :2] >= boxes[:, None, 2:])
    return np.asarray(~apart.any(axis=2))


def _offsets(radius: float, width: float, height: float, directions: Sequence[int]) -> Iterator[tuple[float, float]]:
    """Lower left corners of a name around a point, in points from it: near ones first."""
    for distance, degrees in itertools.product(DISTANCES, directions):
        reach, angle = radius + distance - DISTANCES[0] + 2, math.radians(degrees)
        dx, dy = reach * math.cos(angle), reach * math.sin(angle)
        left = dx if degrees in (0, 45, -45) else dx - width / 2 if degrees in (90, -90) else dx - width
        low = dy - height / 2 if degrees in (0, 180) else dy if degrees > 0 else dy - height
        yield left, low

"""Names beside the points of a scatter plot, so that they cover neither each other nor the points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from neupims_sim.plots.style import FAINT, INK

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
    taken = [
        Bbox.from_bounds(x - point.radius * scale, y - point.radius * scale, *(2 * point.radius * scale,) * 2)
        for (x, y), point in zip(centres, points, strict=True)
    ]
    for point, (x, y) in zip(points, centres, strict=True):
        note = panel.annotate(
            point.name, (point.x, point.y), (0, 0), textcoords="offset points", fontsize=size, color=INK, zorder=6,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip
        note.set_in_layout(False)
        extent = note.get_window_extent()
        width, height = extent.width, extent.height
        choices = [
            (dx, dy, Bbox.from_bounds(x + dx * scale, y + dy * scale, width, height))
            for dx, dy in _offsets(point.radius, width / scale, height / scale, directions)
        ]
        free = (c for c in choices if not c[2].count_overlaps(taken) and _within(c[2], inside))
        dx, dy, box = next(free, None) or min(choices, key=lambda c: c[2].count_overlaps(taken))
        note.set_position((dx, dy))
        taken.append(box)
        if math.hypot(dx + width / scale / 2, dy + height / scale / 2) > LINKED + point.radius + width / scale / 2:
            near = min(max(0.0, dx), dx + width / scale), dy + height / scale / 2
            panel.annotate(
                "", (point.x, point.y), near, textcoords="offset points", zorder=5, annotation_clip=False,
                arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.5, "shrinkA": 0, "shrinkB": point.radius},
            ).set_in_layout(False)  # fmt: skip


def _offsets(radius: float, width: float, height: float, directions: Sequence[int]) -> Iterator[tuple[float, float]]:
    """Lower left corners of a name around a point, in points from it: near ones first."""
    for distance, degrees in itertools.product(DISTANCES, directions):
        reach, angle = radius + distance - DISTANCES[0] + 2, math.radians(degrees)
        dx, dy = reach * math.cos(angle), reach * math.sin(angle)
        left = dx if degrees in (0, 45, -45) else dx - width / 2 if degrees in (90, -90) else dx - width
        low = dy - height / 2 if degrees in (0, 180) else dy if degrees > 0 else dy - height
        yield left, low


def _within(box: Bbox, area: Bbox) -> bool:
    return bool(area.x0 <= box.x0 and box.x1 <= area.x1 and area.y0 <= box.y0 and box.y1 <= area.y1)

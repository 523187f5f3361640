"""The points that a sweep stands for."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from neupims_sim.config import Config, config_hash, load_config
from neupims_sim.errors import InputError
from neupims_sim.simulation import check_config_names
from neupims_sim.sweeps.definition import Settings, Sweep, dotted
from neupims_sim.sweeps.labels import value_key


@dataclass(frozen=True)
class Point:
    """One run of a sweep: its place on the axes, and its configuration, whose hash is the point's identity."""

    axes: dict[str, Any]
    config: Config
    hash: str

    def __str__(self) -> str:
        return ", ".join(f"{axis}={value}" for axis, value in self.axes.items()) or "the only point"


def expand(sweep: Sweep, source: str) -> list[Point]:
    """Every point that is not excluded, in the order of the axes, its configuration loaded and checked.

    Raises InputError, starting with ``source`` (the sweep file) and the point, if a configuration is not valid.
    """
    points = []
    for values in itertools.product(*(sweep.values(axis) for axis in sweep.axes)):
        axes = dict(zip(sweep.axes, values, strict=True))
        if any(_matches(axes, entry) for entry in sweep.exclude):
            continue
        settings = _settings(sweep, axes)
        system = settings.pop("system")
        try:
            config = load_config(str(system), settings)
            check_config_names(config)
        except InputError as error:
            place = "".join(f" {axis}={value!r}" for axis, value in axes.items())
            raise InputError(f"{source}: point{place}: {str(error).removeprefix('--set: ')}") from error
        points.append(Point(axes, config, config_hash(config)))
    if not points:
        raise InputError(f"{source}: exclude leaves no point")
    return points


def _settings(sweep: Sweep, axes: dict[str, Any]) -> Settings:
    """The configuration keys of a point; a variant wins over ``base``."""
    settings = dict(sweep.base)
    for axis, value in axes.items():
        settings |= dotted(sweep.variants[axis][value]) if axis in sweep.variants else {axis: value}
    return settings


def _matches(axes: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Whether a point has, for every axis of an entry of ``exclude``, one of its values."""
    return all(value_key(axes[axis]) in map(value_key, as_list(values)) for axis, values in entry.items())


def as_list(value: Any) -> list[Any]:
    """One value, or a list of values, as a list."""
    return value if isinstance(value, list) else [value]

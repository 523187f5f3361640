"""The points that a sweep stands for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from neupims_sim.config import Config
from neupims_sim.config.effects import Ineffective, ineffective
from neupims_sim.config.identity import Dumped, Dumper
from neupims_sim.config.overrides import parse_overrides
from neupims_sim.config.variations import Variations
from neupims_sim.errors import InputError, shown
from neupims_sim.showing import Shown
from neupims_sim.simulation import check_config_names
from neupims_sim.sweeps.definition import Settings, Sweep, dotted
from neupims_sim.sweeps.labels import is_one_of


@dataclass(frozen=True, repr=False)
class Point(Shown):
    """One run of a sweep: its place on the axes, and its configuration."""

    axes: dict[str, Any]
    config: Config
    dumped: Dumped

    @property
    def hash(self) -> str:
        """Of the configuration."""
        return self.dumped.hash

    def __str__(self) -> str:
        return place_text(self.axes)


class UnusedKeys:
    """Keys that a sweep sets and that change nothing at any of its points, with the reason at the first."""

    def __init__(self) -> None:
        self._found: dict[str, Ineffective] = {}
        self._used: set[str] = set()

    def see(self, config: Config, settings: Settings) -> None:
        """A point with these settings."""
        unknown = {key: value for key, value in settings.items() if key not in self._used}
        if not unknown:
            return
        found = {one.key: one for one in ineffective(config, parse_overrides(unknown))}
        self._found = found | self._found
        self._used |= {key for key in unknown if not any(f"{one}.".startswith(f"{key}.") for one in found)}

    def notes(self) -> tuple[str, ...]:
        """A line for each."""
        return tuple(
            f"note: {key} changes {one.what} at any point: {one.reason}"
            for key, one in self._found.items()
            if not any(f"{key}.".startswith(f"{used}.") for used in self._used)
        )


def expand(sweep: Sweep, source: str, unused: UnusedKeys | None = None) -> Iterator[Point]:
    """Every point that is not excluded, in the order of the axes, its configuration loaded and checked.

    ``unused`` sees all of them.

    Raises InputError, starting with ``source`` (the sweep file) and the point, if a configuration is not valid.
    """
    empty, variations, dumper = True, Variations(), Dumper()
    for steps in itertools.product(*sweep.dimensions):
        axes = {axis: value for step in steps for axis, value in step.items()}
        if any(_matches(axes, entry) for entry in sweep.exclude):
            continue
        empty = False
        settings = _settings(sweep, axes)
        system = settings.pop("system")
        try:
            config = variations.load(str(system), settings)
            check_config_names(config)
        except InputError as error:
            place = "".join(f" {axis}={shown(value)}" for axis, value in axes.items())
            raise InputError(f"{source}: point{place}: {str(error).removeprefix('overrides: ')}") from error
        if unused is not None:
            unused.see(config, settings)
        yield Point(axes, config, dumper.dump(config))
    if empty:
        raise InputError(f"{source}: exclude leaves no point")


def _settings(sweep: Sweep, axes: dict[str, Any]) -> Settings:
    """The configuration keys of a point; a variant wins over ``base``."""
    settings = dict(sweep.base)
    for axis, value in axes.items():
        settings |= dotted(sweep.variants[axis][value]) if axis in sweep.variants else {axis: value}
    return settings


def _matches(axes: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Whether a point has, for every axis of an entry of ``exclude``, one of its values."""
    return all(is_one_of(axes[axis], values) for axis, values in entry.items())


def place_text(axes: dict[str, Any]) -> str:
    """A place on the axes in a line of text."""
    return ", ".join(f"{axis}={value}" for axis, value in axes.items()) or "the only point"

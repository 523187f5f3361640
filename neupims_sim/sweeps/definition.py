"""The sweep file, and the points that it stands for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neupims_sim.config import Config, config_hash, load_config
from neupims_sim.config.explain import explain
from neupims_sim.config.files import available, label, read_yaml
from neupims_sim.errors import InputError, suggestion
from neupims_sim.simulation import check_config_names

DEFAULT_METRICS = (
    "throughput_tokens_per_s",
    "utilization.npu",
    "utilization.pim",
    "utilization.bandwidth",
    "block_cycles",
)


class Sweep(BaseModel):
    """A sweep file: the cartesian product of the values of some configuration keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    """Names the folder of the results."""
    title: str = ""
    base: dict[str, Any] = {}
    """Configuration keys that all points share, dotted or nested. ``system`` is a system's name or a YAML file."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """The axes: dotted configuration keys (``system`` among them) and their values. The last one varies fastest."""
    metrics: Annotated[list[str], Field(min_length=1)] = list(DEFAULT_METRICS)
    """Numbers of the result that become columns of the table: dotted keys of ``result.json``."""
    plot: dict[str, Any] = {}
    """``kind``, and the options of that plot."""

    @property
    def axes(self) -> list[str]:
        """The names of the axes, in order."""
        return list(self.grid)


@dataclass(frozen=True)
class Point:
    """One run of a sweep: its place on the axes, and its configuration, whose hash is the point's identity."""

    axes: dict[str, Any]
    config: Config
    hash: str

    def __str__(self) -> str:
        return ", ".join(f"{axis}={value}" for axis, value in self.axes.items()) or "the only point"


def read_sweep(path: str | Path) -> Sweep:
    """The sweep file at ``path``, or the one of that name in ``configs/sweeps``; raises InputError if it is not valid."""
    path = find_sweep(path)
    try:
        sweep = Sweep.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(key) for key in first["loc"])
        raise InputError(f"{label(path)}: {where}{explain(Sweep, first)}") from None
    stated = set(_dotted_keys(sweep.base))
    for axis in sweep.grid:
        if axis in stated:
            raise InputError(f"{label(path)}: {axis} is set in base and is an axis of grid; keep one of them")
    if "system" not in stated and "system" not in sweep.grid:
        raise InputError(f"{label(path)}: base.system is missing; {suggestion('', available('systems'))}")
    return sweep


def find_sweep(path: str | Path) -> Path:
    """The file that ``path`` means: a file, or the stem of one in ``configs/sweeps``."""
    known = available("sweeps")
    if Path(path).is_file():
        return Path(path)
    if str(path) in known:
        return known[str(path)]
    raise InputError(f"{path}: no such sweep file; in configs/sweeps {suggestion(Path(path).stem, known)}")


def expand(sweep: Sweep, source: str) -> list[Point]:
    """Every point, in the order of the grid, its configuration loaded and checked.

    Raises InputError, starting with ``source`` (the sweep file) and the point, if a configuration is not valid.
    """
    points = []
    for values in itertools.product(*sweep.grid.values()):
        axes = dict(zip(sweep.grid, values, strict=True))
        settings = sweep.base | axes
        system = settings.pop("system")
        try:
            config = load_config(str(system), settings)
            check_config_names(config)
        except InputError as error:
            place = "".join(f" {axis}={value!r}" for axis, value in axes.items())
            raise InputError(f"{source}: point{place}: {str(error).removeprefix('--set: ')}") from error
        points.append(Point(axes, config, config_hash(config)))
    return points


def _dotted_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys of the leaves of a tree."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _dotted_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"

"""From a file to a checked sweep."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from neupims_sim.config.explain import explain
from neupims_sim.config.files import available, label, parse_yaml, read_text
from neupims_sim.errors import MOST_PROBLEMS, InputError, joined, shown, suggestion
from neupims_sim.registry import Registry
from neupims_sim.sweeps.checks import problems
from neupims_sim.sweeps.definition import Sweep

PLOT_CHECKS: Registry[Callable[[Sweep, bool], None]] = Registry("check of plots", package="neupims_sim.plots")
"""How the plots that a sweep states are checked before it has results: plots lie above sweeps, and say so themselves."""


def read_sweep(path: str | Path, plots: bool = True) -> Sweep:
    """The sweep file at ``path``, or the one of that name in ``configs/sweeps``; raises InputError if it is not valid.

    ``plots``: whether to check its plots, too, for which Matplotlib is loaded.
    """
    path = find_sweep(path)
    sweep = parse_sweep(read_text(path), label(path))
    if plots:
        check_plots(sweep, label(path))
    return sweep


def check_plots(sweep: Sweep, source: str, any_columns: bool = False) -> None:
    """Raise InputError, starting with ``source``, unless every plot that a sweep states can be drawn of results of its points.

    ``any_columns``: results may have other numbers than those of the simulator.
    """
    for name in PLOT_CHECKS if sweep.plot else ():
        try:
            PLOT_CHECKS[name](sweep, any_columns)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error


def parse_sweep(text: str, source: str) -> Sweep:
    """The sweep that the text of a file states, but for its plots; messages start with ``source``."""
    try:
        sweep = Sweep.model_validate(parse_yaml(text, source))
    except ValidationError as error:
        found = error.errors(include_url=False)
        told = [_told(problem) for problem in found[:MOST_PROBLEMS]]
        raise InputError(f"{source}: {joined(told, len(found) if len(found) > MOST_PROBLEMS else 0)}") from None
    if told := problems(sweep):
        raise InputError(f"{source}: {joined(told)}")
    return sweep


def _told(problem: ErrorDetails) -> str:
    """What is wrong, with its key."""
    where = ".".join(map(str, problem["loc"]))
    if problem["loc"][0] == "labels":  # the second key is a column, not a field
        problem["loc"] = (*problem["loc"][:1], *problem["loc"][2:])
    return f"{where}{explain(Sweep, problem)}"


def find_sweep(path: str | Path) -> Path:
    """The file that ``path`` means: a file, or the stem of one in ``configs/sweeps``."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{shown(path)}: must be the name of a sweep file, not a {type(path).__name__}")
    known = available("sweeps")
    if Path(path).is_file():
        return Path(path)
    if str(path) in known:
        return known[str(path)]
    raise InputError(f"{path}: no such sweep file; in configs/sweeps {suggestion(Path(path).stem, known)}")

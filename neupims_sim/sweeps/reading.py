"""From a file to a checked sweep."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from neupims_sim.config.explain import explain
from neupims_sim.config.files import available, label, parse_yaml, read_text
from neupims_sim.errors import InputError, suggestion
from neupims_sim.sweeps.checks import problems
from neupims_sim.sweeps.definition import Sweep


def read_sweep(path: str | Path) -> Sweep:
    """The sweep file at ``path``, or the one of that name in ``configs/sweeps``; raises InputError if it is not valid."""
    path = find_sweep(path)
    return parse_sweep(read_text(path), label(path))


def parse_sweep(text: str, source: str) -> Sweep:
    """The sweep that the text of a file states; messages start with ``source``."""
    try:
        sweep = Sweep.model_validate(parse_yaml(text, source))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(key) for key in first["loc"])
        if first["loc"][0] == "labels":  # the second key is a column, not a field
            first["loc"] = (*first["loc"][:1], *first["loc"][2:])
        raise InputError(f"{source}: {where}{explain(Sweep, first)}") from None
    for problem in problems(sweep):
        raise InputError(f"{source}: {problem}")
    return sweep


def find_sweep(path: str | Path) -> Path:
    """The file that ``path`` means: a file, or the stem of one in ``configs/sweeps``."""
    known = available("sweeps")
    if Path(path).is_file():
        return Path(path)
    if str(path) in known:
        return known[str(path)]
    raise InputError(f"{path}: no such sweep file; in configs/sweeps {suggestion(Path(path).stem, known)}")

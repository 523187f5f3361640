"""The page of an experiment: a hand-written Markdown file, and in it a place for tables that a command fills."""

from __future__ import annotations

from pathlib import Path

import neupims_sim
from neupims_sim.config.files import EXPERIMENTS, available, is_users, label
from neupims_sim.errors import InputError, suggestion
from neupims_sim.sweeps.store import SWEEP

PAGE = "README.md"
"""Its name in the folder of an experiment."""
BEGIN, END = "<!-- tables -->", "<!-- /tables -->"


def find_experiment(name: str) -> tuple[Path, bool]:
    """The folder of an experiment, and whether its page may be written there: nothing is written into an installation.

    ``name`` is a folder, or the path of one within a folder ``experiments`` (`neupims_sim.config.files`), with or without the latter.
    """
    path, known = Path(name), available(EXPERIMENTS)
    named = name.rstrip("/").removeprefix(f"{EXPERIMENTS}/")
    if path.is_dir() and ((path / SWEEP).is_file() or named not in known):
        if not (path / SWEEP).is_file():
            raise InputError(f"{label(path / SWEEP)}: no such file; an experiment is a folder with {SWEEP} and {PAGE}")
        return path, not path.resolve().is_relative_to(Path(neupims_sim.__file__).resolve().parent)
    if named in known:
        return known[named], is_users(known[named], EXPERIMENTS)
    problem = "is a file; an experiment is a folder" if path.exists() else "neither a folder nor an experiment"
    raise InputError(f"experiment {name!r}: {problem}; {suggestion(named, known)}")


def read_page(path: Path) -> str:
    """The text of a page; raises InputError unless it has each marker once and in order."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{label(path)}: cannot be read: {' '.join(str(error).split())}") from error
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise InputError(f"{label(path)}: needs one line {BEGIN} and, below it, one line {END}; tables go between them")
    return text


def fill(page: str, tables: str) -> str:
    """The page with ``tables`` between the markers in place of what was there."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{rest.split(END)[1]}"

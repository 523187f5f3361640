"""Run directories: everything about one run, written as a whole."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neupims_sim.config import Config, config_hash, dump_config
from neupims_sim.config.files import label
from neupims_sim.config.identity import RESOLVED
from neupims_sim.errors import InputError
from neupims_sim.simulation.environment import environment
from neupims_sim.writing import replaced_folder

CONFIG, RESULT, PROVENANCE = "config.yaml", "result.json", "provenance.json"
OPERATORS, TIMELINE, REQUESTS, ITERATIONS = "operators.csv", "timeline.json.gz", "requests.csv", "iterations.jsonl"
REPORT = "report.html"
"""What `neupims_sim.report` writes into a run directory; a new run makes it untrue."""
FILES = (CONFIG, RESULT, PROVENANCE, OPERATORS, TIMELINE, REQUESTS, ITERATIONS, REPORT)

MOST_NAME = 80
"""Characters of a configuration's name in that of a directory."""


@dataclass(frozen=True)
class Origin:
    """What a configuration was made of: a name, and the overrides on top of it."""

    name: str
    overrides: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: str | Path, overrides: Sequence[str] = ()) -> Origin:
        """Of a file or a name: its stem; of a run directory's ``config.yaml`` what that run was made of."""
        path = Path(config)
        if path.name == CONFIG:
            stored = read_provenance(path.parent)
            if isinstance(name := stored.get("configuration"), str):
                return cls(name, (*map(str, stored.get("overrides") or ()), *overrides))
        return cls(path.stem if path.is_file() else path.name, tuple(overrides))

    def directory(self, kind: str, config: Config) -> Path:
        """Where the run of ``kind`` (``run``, ``serve``) goes unless the user says otherwise."""
        return Path("results", f"{kind}-{self.name[:MOST_NAME]}-{config_hash(config)}")


def check_run_directory(directory: Path, named: str = "") -> None:
    """Raise InputError unless a run may be written to ``directory``: nothing is there, or an empty folder, or an earlier run.

    Whatever else is in a folder is somebody's, and would be lost with it. ``named`` is what the message calls the directory.
    """
    where = named or label(directory)
    try:
        _try_folder_beside(directory.resolve())
        if not directory.exists():
            return
        if not directory.is_dir():
            raise InputError(f"{where}: exists and is not a directory")
        if os.path.ismount(directory) or directory.samefile(Path.cwd()):
            raise InputError(f"{where}: cannot be replaced as a whole; name a folder within it")
        names = sorted(path.name for path in directory.iterdir())
        foreign = [name for name in names if name not in FILES or not (directory / name).is_file()]
        if not foreign and not _is_run(directory):
            foreign = names
    except OSError as error:
        raise InputError(f"{where}: cannot be written: {error.strerror or error}") from error
    if foreign:
        raise InputError(f"{where}: holds {foreign[0]}, which no run has written; name another folder")


def _try_folder_beside(directory: Path) -> None:
    """Make a folder in the nearest folder above that there is, and remove it; raises OSError if that is not possible."""
    parent = next(parent for parent in (*directory.parents, directory) if parent.exists())
    trial = parent / f".{secrets.token_hex(8)}"
    trial.mkdir()
    trial.rmdir()


def _is_run(directory: Path) -> bool:
    """Whether a folder has the result of a run, and the configuration that the run has written; not just somebody's file of that name."""
    if not (directory / CONFIG).is_file() or not (directory / RESULT).is_file():
        return False
    with (directory / CONFIG).open("rb") as file:
        return file.read(len(RESOLVED)) == RESOLVED.encode()


@contextmanager
def run_directory(
    directory: Path, config: Config, wall_seconds: float | None = None, origin: Origin | None = None
) -> Iterator[Path]:
    """Yield a folder for the files of a run; when the block ends, it becomes ``directory`` as a whole, whatever was there.

    ``config.yaml`` and ``provenance.json`` are written here.

    Parameters
    ----------
    wall_seconds: what the run took; the time within the block unless given.

    Raises
    ------
    InputError: ``directory`` holds something else than a run, or cannot be written.
    """
    begin = time.perf_counter()
    check_run_directory(directory)
    with replaced_folder(directory) as folder:
        (folder / CONFIG).write_text(dump_config(config), encoding="utf-8", newline="")
        yield folder
        provenance = environment() | {
            "seed": config.seed,
            "config_hash": config_hash(config),
            "wall_seconds": round(time.perf_counter() - begin if wall_seconds is None else wall_seconds, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        if origin is not None:
            provenance |= {"configuration": origin.name, "overrides": list(origin.overrides)}
        (folder / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8", newline="")
        check_run_directory(directory)  # a run takes long enough for somebody to put something there


def read_provenance(directory: Path) -> dict[str, Any]:
    """The content of ``provenance.json``; nothing where there is none that can be read."""
    try:
        stored = json.loads((directory / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}

"""What lies in a folder of results: runs, servings and sweeps, with what they are about and their most telling figure."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from neupims_sim.errors import shortened
from neupims_sim.simulation.directory import CONFIG, PROVENANCE, RESULT, read_provenance
from neupims_sim.sweeps.database import FILE
from neupims_sim.sweeps.execution import one_line
from neupims_sim.sweeps.store import SWEEP, TABLE

DEPTH = 3
"""Folders below a folder of results that are looked into."""
MOST_TEXT = 120
"""Characters of a configuration or a figure."""


@dataclass(frozen=True)
class Found:
    """One run or sweep."""

    folder: Path
    configuration: str
    """Of a run its configuration's name and the overrides, of a sweep its name."""
    finished: datetime
    headline: str
    """Throughput of a run; how many points a sweep has, or what is wrong with the folder."""


def is_sweep(folder: Path) -> bool:
    """Whether a folder holds the results of a sweep."""
    return any((folder / name).is_file() for name in (FILE, TABLE, SWEEP))


def find_results(folder: Path) -> list[Found]:
    """The runs and sweeps in a folder, the newest first; a damaged one says so."""
    return sorted(_found(folder), key=lambda found: (found.finished, str(found.folder)), reverse=True)


def _found(folder: Path) -> Iterator[Found]:
    for path, folders, files in os.walk(folder):
        directory = Path(path)
        depth = len(directory.relative_to(folder).parts)
        folders[:] = [] if depth == DEPTH else [name for name in folders if not name.startswith(".")]
        if RESULT in files and CONFIG in files:
            yield _run(directory)
        elif TABLE in files and SWEEP in files:
            yield _sweep(directory)


def _run(directory: Path) -> Found:
    stored = read_provenance(directory)
    try:
        headline = _headline(json.loads((directory / RESULT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        headline = f"damaged: {RESULT}: {one_line(str(error))}"
    name = stored.get("configuration") or _first(directory / CONFIG, "system")
    overrides = stored.get("overrides")
    text = " ".join([str(name), *(f"--set {item}" for item in (overrides if isinstance(overrides, list) else ()))])
    try:
        finished = datetime.fromisoformat(stored["finished"]).astimezone()
    except (KeyError, TypeError, ValueError):
        finished = _modified(directory / (PROVENANCE if stored else RESULT))
    return Found(directory, shortened(text, MOST_TEXT), finished, shortened(headline, MOST_TEXT))


def _headline(result: Any) -> str:
    served = result.get("serving")
    if served is not None:
        return f"{served['completed']:,} requests, {served['output_tokens_per_s']:,.0f} output tokens/s"
    devices = f", {count} {'device' if count == 1 else 'devices'}" if (count := result.get("devices")) else ""
    return (
        f"{result['throughput_per_s']:,.{0 if result['throughput_per_s'] >= 100 else 2}f} {result['item']}/s{devices}"
    )


def _sweep(directory: Path) -> Found:
    try:
        with (directory / TABLE).open(newline="", encoding="utf-8") as file:
            statuses = [row["status"] for row in csv.DictReader(file)]
        failed = statuses.count("failed")
        headline = f"{len(statuses):,} points" + (f", {failed:,} failed" if failed else "")
    except (OSError, ValueError, KeyError, csv.Error) as error:
        headline = f"damaged: {TABLE}: {one_line(str(error))}"
    name = f"sweep {_first(directory / SWEEP, 'name')}"
    return Found(directory, shortened(name, MOST_TEXT), _modified(directory / TABLE), shortened(headline, MOST_TEXT))


def _first(path: Path, key: str) -> str:
    """The text of a key at the outermost level of a YAML file; parsing a whole configuration takes long."""
    try:
        found = re.search(rf"^{key}:[ \t]*(\S.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, ValueError):
        found = None
    return found[1] if found else path.parent.name


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime).astimezone()

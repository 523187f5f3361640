"""The golden tables of ``tests/golden``: what other simulators and publications report."""

from __future__ import annotations

import csv
from pathlib import Path

import neupims_sim
from neupims_sim.errors import InputError


def golden_folder() -> Path:
    """``./tests/golden``, else the one beside the package."""
    for root in (Path.cwd(), Path(neupims_sim.__file__).resolve().parents[1]):
        if (root / "tests" / "golden").is_dir():
            return root / "tests" / "golden"
    raise InputError("tests/golden: no such folder; run this in the repository, where the golden tables are")


def read_golden(name: str) -> list[dict[str, str]]:
    """The rows of ``tests/golden/<name>.csv``; lines that start with # say where they come from."""
    path = golden_folder() / f"{name}.csv"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))

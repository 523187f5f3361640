"""Timelines that lie in a folder, as links from a page."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote

from neupims_sim.report.content import Timeline, Timelines

FILE = "timeline.json.gz"
MAX_TIMELINES = 100


def find_timelines(directory: Path, output: Path, points: set[str]) -> Timelines:
    """At most `MAX_TIMELINES` timelines in a folder and in the run directories within it, as links relative to the page.

    ``points``: hashes of the page's own configurations, which a run may be of.
    """
    files = [*directory.glob(FILE), *sorted(directory.glob(f"*/{FILE}"))]
    return Timelines([_timeline(directory, file, output, points) for file in files[:MAX_TIMELINES]], len(files))


def _timeline(directory: Path, file: Path, output: Path, points: set[str]) -> Timeline:
    link = quote(os.path.relpath(file.absolute(), output.absolute().parent))
    point = _config_hash(file.parent)
    name = str(file.relative_to(directory)) + (f", point {point[:8]}" if point in points else "")
    return Timeline(link, name, f"{file.stat().st_size / 1e3:,.0f} kB")


def _config_hash(run: Path) -> str:
    """The configuration of a run directory, "" if it does not say."""
    try:
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    return str(result.get("config_hash", "")) if isinstance(result, dict) else ""

"""From a folder to a file: which page it is, its template, its bytes."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import neupims_sim
from neupims_sim.config.files import label
from neupims_sim.errors import InputError
from neupims_sim.report.runs import RunPage, read_run_page
from neupims_sim.report.sweeps import SweepPage, read_sweep_page
from neupims_sim.simulation.directory import CONFIG, RESULT
from neupims_sim.sweeps.database import FILE
from neupims_sim.sweeps.store import SWEEP, TABLE
from neupims_sim.writing import write_text

SUFFIXES = (".html", ".htm")
DEFAULT = "report.html"


def write_report(directory: str | Path, output: str | Path | None = None) -> Path:
    """Write the page about a results folder of a sweep, an experiment's folder or a run directory; returns the file.

    The page needs no other file and no network, and has the same bytes whenever it is written from the same results.

    Parameters
    ----------
    directory: a results folder (``store.sqlite``, or ``sweep.yaml`` and ``points.csv``), or a run directory (``config.yaml``,
        ``result.json``, ``operators.csv``, ``provenance.json``).
    output: an HTML file; ``DIRECTORY/report.html`` unless given.

    Raises
    ------
    InputError: the folder is neither, holds no finished point or a damaged file, or the file cannot be written.
    """
    directory = Path(directory)
    output = directory / DEFAULT if output is None else Path(output)
    if not directory.is_dir():
        raise InputError(f"{label(directory)}: {'not a folder' if directory.exists() else 'no such folder'}")
    if output.suffix not in SUFFIXES:
        raise InputError(f"-o {output}: a report is a page in HTML; allowed: {', '.join(SUFFIXES)}")
    if output.is_dir():
        raise InputError(f"-o {output}: is a folder")
    write_text(output, render(read_page(directory, output)), f"-o {output}")
    return output


def read_page(directory: Path, output: Path) -> SweepPage | RunPage:
    """What a page about a folder shows, when it is written to ``output``."""
    if (directory / RESULT).is_file() and (directory / CONFIG).is_file():
        return read_run_page(directory, output)
    if not (directory / FILE).is_file() and not (directory / TABLE).is_file():
        raise InputError(
            f"{label(directory)}: neither the results folder of a sweep ({FILE}, or {SWEEP} and {TABLE}) nor a run directory "
            f"({CONFIG} and {RESULT})"
        )
    return read_sweep_page(directory, output)


def render(page: SweepPage | RunPage) -> str:
    """A page as HTML."""
    environment = _environment()
    script = _source("page.js")
    return environment.get_template(f"{page.kind}.html").render(
        page=page,
        style=Markup(_source("page.css")),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        version=neupims_sim.__version__,
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(name: str) -> str:
    """The text of a file beside the templates."""
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), name)[0]

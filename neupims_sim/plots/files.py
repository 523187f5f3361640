"""Figures to files: pdf, png or svg, the same bytes for the same figure."""

from __future__ import annotations

import io
import os
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from neupims_sim.config.files import label
from neupims_sim.errors import InputError
from neupims_sim.plots.style import STYLE

FORMATS = (".pdf", ".png", ".svg")
_UNDATED = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def check_format(path: Path) -> None:
    """Raise InputError for a file name that says no format."""
    if path.suffix not in FORMATS:
        raise InputError(
            f"{path}: cannot write {path.suffix or 'a file without suffix'}; allowed: {', '.join(FORMATS)}"
        )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the file's suffix, under a temporary name first."""
    check_format(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with mpl.rc_context(STYLE):
            figure.savefig(temporary, metadata=_UNDATED.get(path.suffix))
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{label(path)}: cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def to_svg(figure: Figure) -> str:
    """A figure as the text of an SVG file, the same for the same figure."""
    text = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(text, format="svg", metadata=_UNDATED[".svg"])
    return text.getvalue()

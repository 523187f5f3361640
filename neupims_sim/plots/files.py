"""Figures to files: pdf, png or svg, the same bytes for the same figure."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from neupims_sim.config.files import label
from neupims_sim.errors import InputError
from neupims_sim.plots.style import STYLE
from neupims_sim.writing import replaced

FORMATS = (".pdf", ".png", ".svg")
_UNDATED = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def check_format(path: Path) -> None:
    """Raise InputError for a file name that says no format."""
    if path.suffix not in FORMATS:
        raise InputError(
            f"{path}: cannot write {path.suffix or 'a file without suffix'}; allowed: {', '.join(FORMATS)}"
        )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the file's suffix."""
    check_format(path)
    content = io.BytesIO()  # on a full disk Matplotlib fails in ways of its own
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a letter that the font lacks is a box
        figure.savefig(content, format=path.suffix[1:], metadata=_UNDATED.get(path.suffix))
    with replaced(path, label(path)) as temporary:
        temporary.write_bytes(content.getvalue())


def to_svg(figure: Figure) -> str:
    """A figure as the text of an SVG file, the same for the same figure."""
    text = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(text, format="svg", metadata=_UNDATED[".svg"])
    return text.getvalue()

"""The page of an experiment: a hand-written Markdown file, and in it a place for tables that a command fills."""

from __future__ import annotations

from pathlib import Path

from neupims_sim.config.files import label
from neupims_sim.errors import InputError

PAGE = "README.md"
"""Its name in the folder of an experiment."""
BEGIN, END = "<!-- tables -->", "<!-- /tables -->"


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

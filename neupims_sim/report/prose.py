"""The page that somebody wrote about an experiment, as part of a report."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from neupims_sim.config.files import read_text
from neupims_sim.sweeps.page import BEGIN, END, PAGE


class Prose(NamedTuple):
    """A page's first heading, and the rest of it."""

    title: str
    text: Markup


def read_prose(directory: Path) -> Prose | None:
    """The README.md of a folder, if it has one, without its figures and the tables that a command fills in."""
    path = directory / PAGE
    return to_html(read_text(path)) if path.is_file() else None


def to_html(text: str) -> Prose:
    """Markdown as HTML. HTML within it is shown as text; only links to the web stay links, since a page may be moved."""
    before, _, rest = text.partition(BEGIN)
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(before + rest.partition(END)[2])
    title = ""
    if len(tokens) > 1 and tokens[0].tag == "h1":
        title, tokens = tokens[1].content, tokens[3:]
    for token in tokens:
        token.children = _without_files(token.children or []) if token.type == "inline" else token.children
    rendered = parser.renderer.render(_without_empty(tokens), parser.options, {})
    return Prose(title, Markup(rendered))


def _without_files(tokens: list[Token]) -> list[Token]:
    """Inline content without images and without links to files."""
    kept: list[Token] = []
    opened: list[bool] = []
    for token in tokens:
        if token.type == "image":
            continue
        if token.type == "link_open":
            opened.append(str(token.attrGet("href")).startswith(("https://", "http://")))
        if not token.type.startswith("link_") or opened[-1]:
            kept.append(token)
        if token.type == "link_close":
            opened.pop()
    return kept


def _without_empty(tokens: list[Token]) -> list[Token]:
    """Blocks without paragraphs in which nothing is left."""
    kept: list[Token] = []
    for token in tokens:
        if token.type == "paragraph_close" and kept[-1].type == "inline" and not kept[-1].children:
            del kept[-2:]
        else:
            kept.append(token)
    return kept

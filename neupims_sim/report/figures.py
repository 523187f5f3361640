"""Figures within a page: every one has ids, references and styles of its own."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from neupims_sim.errors import InputError
from neupims_sim.plots import make_figure, stated_plots, to_svg
from neupims_sim.report.content import FigureView
from neupims_sim.sweeps import Sweep

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_HREF = f"{{{_XLINK}}}href"


def draw_all(sweep: Sweep, table: pd.DataFrame) -> list[FigureView]:
    """Every plot that a sweep states; one that cannot be drawn leaves its message."""
    found: list[FigureView] = []
    if not sweep.plot:
        return found
    for number, (kind, options) in enumerate(stated_plots(sweep), start=1):
        caption = f"Figure {number}: {kind.replace('_', ' ')}"
        title = str(options.get("title", sweep.title) or caption)
        try:
            figure = make_figure(sweep, table, kind, options)
        except InputError as error:
            found.append(FigureView(caption, title, 0, Markup(), f"not drawn: {error}"))
            continue
        found.append(FigureView(caption, title, figure.get_figwidth(), embed(figure, f"f{number}-", title)))
    return found


def embed(figure: Figure, prefix: str, title: str) -> Markup:
    """A figure as an element of an HTML page; ids start with ``prefix``, readers who do not see it hear ``title``.

    Its text stays text. What would reach beyond it (metadata, a style sheet for all elements) is left out.
    """
    root = ElementTree.fromstring(to_svg(figure))
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style")]:
            parent.remove(child)
    for element in root.iter():
        for name, value in element.attrib.items():
            element.set(name, _prefixed(name, value, prefix))
    for name in ("width", "height"):
        del root.attrib[name]
    root.set("role", "img")
    root.set("aria-label", title)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _prefixed(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return prefix + value
    if name == _HREF and value.startswith("#"):
        return f"#{prefix}{value[1:]}"
    return re.sub(r"url\(#", f"url(#{prefix}", value)

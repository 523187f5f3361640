"""Numbers and words in pictures: short, and cut to the room there is."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

CHARACTER_INCHES = 0.068
"""Width of a character of the figures' font size, on the wide side."""
SUPERTITLE_INCHES = 0.095
"""Width of a character of the figure's title."""
MOST_LINES = 5
"""Of a text; the rest is left out."""
MOST_ENTRY = 60
"""Characters of an entry of a legend, or of a name beside a point."""


def plain_number(value: float) -> str:
    """A tick's number: ``0.25``, ``4,096``, ``1e9``."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        text = f"{value:,.6g}" if abs(value) < 1e5 else f"{value:,.10g}"
        return "0" if text == "-0" else text
    return _exponent(f"{value:.6g}")


def short_number(value: float) -> str:
    """Three significant digits and at most two decimals; five characters or so, however large or small."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else ""
    exponent = math.floor(math.log10(abs(value)))
    if exponent >= 5 or exponent < -2:
        return _exponent(f"{value:.1e}")
    return f"{value:.{3 if exponent == -2 else max(0, min(2, 2 - exponent))}f}"


def _exponent(text: str) -> str:
    """``1.50e+09`` as ``1.5e9``."""
    digits, e, power = text.partition("e")
    digits = digits.rstrip("0").rstrip(".") if e and "." in digits else digits
    return f"{digits}e{int(power)}" if e else digits


def wrapped(text: str, inches: float, character: float = CHARACTER_INCHES) -> str:
    """Text in lines of at most ``inches``, at most :data:`MOST_LINES`; only words longer than a line are broken."""
    width = max(8, int(inches / character))
    return textwrap.fill(text, width, break_on_hyphens=False, max_lines=MOST_LINES, placeholder="…")


def legend_columns(names: Sequence[str], inches: float) -> int:
    """How many entries of a legend stand side by side in ``inches``."""
    entry = 0.6 + CHARACTER_INCHES * max((len(name) for name in names), default=0)
    return max(1, min(len(names), int(inches / entry)))

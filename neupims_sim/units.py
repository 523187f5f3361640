"""Quantities with units, as people write them in YAML, and conversions between clocks."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from neupims_sim.errors import shown

_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_NUMBER = re.compile(r"\s*([0-9][0-9_]{0,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?)\s*([A-Za-z]*)\s*")


def parse_bytes(value: Any) -> Any:
    """``"1 GiB"`` -> 1073741824. Integers pass through; anything else is returned for the caller's validator to refuse."""
    if not isinstance(value, str):
        return value
    match = _NUMBER.fullmatch(value)
    if match is None or match[2].upper() not in _BYTES | {"": 1}:
        raise ValueError(f"{shown(value)} is not a size; write a number of bytes or e.g. '1 MiB', '32 GB'")
    size = Fraction(match[1].replace("_", "")) * (_BYTES | {"": 1})[match[2].upper()]
    if size.denominator != 1:
        raise ValueError(f"{shown(value)} is not a whole number of bytes")
    return int(size)


def parse_image_size(value: Any) -> Any:
    """``224`` -> (224, 224), ``"768x1024"`` -> (768, 1024): height and width. Anything else is returned for the caller to refuse."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]{1,6})(?:x([0-9]{1,6}))?", value)
    if match is None:
        raise ValueError(f"{shown(value)} is neither a side nor HEIGHTxWIDTH, e.g. 224 or 768x1024")
    return int(match[1]), int(match[2] or match[1])


def convert_cycles(cycles: int, from_ghz: float, to_ghz: float) -> int:
    """Cycles of one clock as cycles of another, rounded up (the one place where clocks meet)."""
    if from_ghz == to_ghz:
        return cycles
    exact = cycles * to_ghz / from_ghz
    nearest = round(exact)
    return nearest if abs(exact - nearest) < 1e-9 * max(1.0, exact) else int(exact) + 1


ONE_ITEM = {"tokens": "token", "images": "image", "queries": "query", "traces": "trace"}
"""What one of the items is called that a run yields."""

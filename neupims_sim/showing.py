"""Objects in one short line, as an interactive session shows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sized
from numbers import Integral
from typing import Any

MOST = 240
"""Characters of an object's line."""
MOST_VALUE = 60
"""Characters of one value in it."""


class Shown:
    """A dataclass (with ``repr=False``) or a pydantic model whose ``repr`` is short.

    It has the fields in order, as far as there is room: a part by its name, a long value by its size; those that are None are left out.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return shown_object(type(self).__name__, _fields(self))

    def __str__(self) -> str:
        return repr(self)


def shown_object(kind: str, values: Mapping[str, Any]) -> str:
    """``Kind(name='x', layers=32, ...)``."""
    text = ""
    for name, value in values.items():
        if value is None:
            continue
        part = f"{', ' if text else ''}{name}={_shown(value)}"
        if len(kind) + len(text) + len(part) > MOST:
            text += ", ..."
            break
        text += part
    return f"{kind}({text})"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Shown):
        name = getattr(value, "name", None)
        return repr(name) if isinstance(name, str) else f"<{type(value).__name__}>"
    if isinstance(value, str | Integral):  # NumPy's integers, too
        text = repr(value) if isinstance(value, str) else str(value)
        return text if len(text) <= MOST_VALUE else f"{text[: MOST_VALUE - 3]}..."
    if isinstance(value, Sized):
        return f"<{len(value)} {'item' if len(value) == 1 else 'items'}>"
    return f"<{type(value).__name__}>"


def _fields(thing: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(thing):
        return {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
    return dict(vars(thing))

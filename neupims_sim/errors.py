"""The one exception for bad input. The command line prints it as one line and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong; the message names the file, the key, the value and what is allowed."""


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """``"allowed: a, b, c; did you mean b?"`` for a name that is not among ``allowed``."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"allowed: {', '.join(names)}" + (f"; did you mean {near[0]}?" if near else "")

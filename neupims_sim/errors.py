"""The one exception for bad input. The command line prints it as one line and exits with code 2."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong; the message names the file, the key, the value and what is allowed."""


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """``"allowed: a, b, c; did you mean b?"`` for a name that is not among ``allowed``."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"allowed: {', '.join(names)}" + (f"; did you mean {near[0]}?" if near else "")


def dotted_suggestion(name: str, allowed: Iterable[str], most: int = 3) -> str:
    """As :func:`suggestion`; of more than ``most`` names with the same first part there is ``"part.*"``, unless it is that of ``name``."""
    names = list(allowed)
    sizes = Counter(known.partition(".")[0] for known in names)
    sizes[name.partition(".")[0]] = 0
    short = {known if sizes[known.partition(".")[0]] <= most else f"{known.partition('.')[0]}.*" for known in names}
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"allowed: {', '.join(sorted(short))}" + (f"; did you mean {near[0]}?" if near else "")

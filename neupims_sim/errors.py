"""The one exception for bad input, how its message stays one line that can be read, and the one for results that cannot be.

The command line prints the message and exits with code 2.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

MOST_VALUE = 60
"""Characters of a value that a message repeats (`shown`)."""
MOST_WORD = 200
"""Characters of one word or one quoted text of a message, such as a path."""
MOST_NAMES = 400
"""Characters of a list of allowed names."""
MOST_PROBLEM = 900
"""Characters of one of several problems in a message."""
MOST_MESSAGE = 3_000
"""Characters of a whole message."""
MOST_PROBLEMS = 5
"""Problems that one message tells; of more there is the number."""

_QUOTED = re.compile(r"(?<!\w)(['\"])(?:\\.|(?!\1).)*?\1(?!\w)")
_WORD = re.compile(rf"\S{{{MOST_WORD + 1},}}")


class InputError(ValueError):
    """Something the user gave is wrong; the message names the file, the key, the value and what is allowed.

    It is one line of printable text, and what it repeats of the input is shortened (`clear_line`).
    """

    def __init__(self, message: str) -> None:
        super().__init__(clear_line(message))


class IneffectiveKeyWarning(UserWarning):
    """A key of the configuration was set that changes nothing."""


class InternalError(RuntimeError):
    """The program contradicts itself: a result that no device can have. Not the user's fault; the command line exits with 1."""


def clear_line(text: str) -> str:
    """A text as one line: long words, quoted texts and the whole are shortened, what cannot be printed is escaped."""
    text = shortened(text, 2 * MOST_MESSAGE)  # searching megabytes for quotes could take minutes
    text = " ".join(text.split("\n"))
    if not text.isprintable():
        text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    if len(text) > MOST_WORD:
        text = _QUOTED.sub(lambda match: shortened(match[0], MOST_WORD), text)
        text = _WORD.sub(lambda match: shortened(match[0], MOST_WORD), text)
    return shortened(text, MOST_MESSAGE)


def shortened(text: str, most: int = MOST_VALUE) -> str:
    """At most ``most`` characters of a text: its beginning and its end if it is longer."""
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - 3 - end]}...{text[len(text) - end :]}"


def shown(value: object, most: int = MOST_VALUE) -> str:
    """A value as messages repeat it: as Python writes it, on one line, shortened."""
    if getattr(value, "ndim", None) == 0 and callable(item := getattr(value, "item", None)):
        value = item()  # a number of NumPy, as that of Python that it is
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes; lists in lists in lists
        return f"<{type(value).__name__} of great size>"
    return shortened(" ".join(text.split()), most)


def joined(problems: Sequence[str], count: int = 0) -> str:
    """Several problems as one message: ``(1) ... (2) ...``; of many the first ones and the number of others.

    ``count``: how many there are, where not all of them are given.
    """
    problems, count = list(dict.fromkeys(problems)), max(count, len(problems))
    if count == 1:
        return problems[0]
    told = [
        f"({number}) {shortened(problem, MOST_PROBLEM)}"
        for number, problem in enumerate(problems[:MOST_PROBLEMS], start=1)
    ]
    more = f" (and {count - len(told):,} more)" if count > len(told) else ""
    return f"{count:,} errors: {' '.join(told)}{more}"


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """``"allowed: a, b, c; did you mean b?"`` for a name that is not among ``allowed``; of very many names the first ones."""
    names = sorted(allowed)
    return f"allowed: {_listed(names)}{_nearest(name, names)}"


def dotted_suggestion(name: str, allowed: Iterable[str], most: int = 3) -> str:
    """As :func:`suggestion`; of more than ``most`` names with the same first part there is ``"part.*"``, unless it is that of ``name``."""
    names = list(allowed)
    sizes = Counter(known.partition(".")[0] for known in names)
    sizes[name.partition(".")[0]] = 0
    short = {known if sizes[known.partition(".")[0]] <= most else f"{known.partition('.')[0]}.*" for known in names}
    return f"allowed: {_listed(sorted(short))}{_nearest(name, names)}"


def _listed(names: Sequence[str]) -> str:
    """Names with commas; those that `MOST_NAMES` characters have no room for are counted."""
    text = ""
    for number, name in enumerate(names):
        following = shortened(name) if number == 0 else f"{text}, {shortened(name)}"
        if len(following) > MOST_NAMES:
            return f"{text}, ... ({len(names):,} in all)"
        text = following
    return text


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name[:MOST_WORD], names[:1_000], n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""

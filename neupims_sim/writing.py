"""Files that appear whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neupims_sim.errors import InputError


@contextmanager
def replaced(path: Path, named: str | None = None) -> Iterator[Path]:
    """Yield a temporary name in the folder of ``path``, with the same suffix; what is written there becomes ``path`` at the end.

    After an exception ``path`` is as it was, and the temporary file is gone. A symbolic link at ``path`` is replaced, not
    followed, and nobody can have put one at the temporary name, because it cannot be foreseen.

    Parameters
    ----------
    named: what the message calls the file, such as the option that names it; the path unless given.

    Raises
    ------
    InputError: the file cannot be written: no such folder, no permission, no room.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{named or path}: cannot be written: {error.strerror or error}") from error


def write_text(path: Path, text: str, named: str | None = None) -> None:
    """Write a text file as a whole, UTF-8, line ends as they are; raises InputError as :func:`replaced` does."""
    with replaced(path, named) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")

"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    if not path.name:
        raise InputError(f"{named or path}: cannot be written: not the name of a file")
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


@contextmanager
def replaced_folder(path: Path, named: str | None = None) -> Iterator[Path]:
    """Yield a new temporary folder beside ``path``; at the end it becomes ``path`` in one step, and what was there is removed.

    The caller has made sure that nobody misses that. After an exception ``path`` is as it was, and the temporary folder is gone;
    a killed process leaves the old folder or the new one, and perhaps a hidden ``.<digits>`` beside it.

    Parameters
    ----------
    named: what the message calls the folder, such as the option that names it; the path unless given.

    Raises
    ------
    InputError: the folder cannot be written.
    """
    target = path.resolve()  # a link stays a link
    temporary = target.with_name(f".{secrets.token_hex(8)}")
    created = [parent for parent in target.parents if not parent.exists()]
    try:
        try:
            temporary.mkdir(parents=True)
            yield temporary
            try:
                temporary.rename(target)
            except OSError:  # something is there
                if not target.is_dir():
                    raise
                _exchange(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            with suppress(OSError):  # they are not empty, which is as it should be
                for parent in created:
                    parent.rmdir()
    except OSError as error:
        if isinstance(error.filename, str) and not Path(error.filename).is_relative_to(target.parent):
            raise  # it is about something else
        raise InputError(f"{named or path}: cannot be written: {error.strerror or error}") from error


_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Of linux/fcntl.h and linux/fs.h."""


def _exchange(one: Path, other: Path) -> None:
    """Let two folders change places: in one step where the system can do that (Linux), else the first takes the second's place."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(one), os.fsencode(other)
    if renameat2 is not None and renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return
    aside = one.with_name(f"{one.name}.old")
    other.rename(aside)
    try:
        one.rename(other)
    except OSError:
        aside.rename(other)
        raise
    aside.rename(one)

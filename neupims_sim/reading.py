"""Files of others, packed or not, read no further than a bound."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from neupims_sim.errors import InputError

MOST_BYTES = 2**36
"""Of a file when it is unpacked, 64 GiB; traces are read line by line."""
MOST_LINE_BYTES = 2**26
"""Of a line, 64 MiB: a million token ids take about 7."""
GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)
"""What reading a damaged ``.gz`` raises."""


def opened(path: Path, most_bytes: int | None = None) -> io.BufferedReader:
    """A file for reading bytes, unpacked if its name ends in ``.gz``.

    Raises InputError if it cannot be opened, and when more than ``most_bytes`` (:data:`MOST_BYTES`) are read of it. A damaged ``.gz``
    raises one of :data:`GZIP_ERRORS` when it is read.
    """
    try:
        file = cast(IO[bytes], gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb"))  # noqa: SIM115
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise InputError(f"{path}: cannot read: {getattr(error, 'strerror', None) or error}") from None
    return io.BufferedReader(_Bounded(file, path, MOST_BYTES if most_bytes is None else most_bytes), 2**20)


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, with their ends; raises InputError as :func:`opened` does, and for a line that is too long."""
    with opened(path) as file:
        number = 0
        while line := file.readline(MOST_LINE_BYTES + 1):
            number += 1
            if len(line) > MOST_LINE_BYTES:
                raise InputError(f"{path}:{number}: a line is longer than {MOST_LINE_BYTES:,} bytes")
            yield line


class _Bounded(io.RawIOBase):
    """Counts what is read."""

    def __init__(self, file: IO[bytes], path: Path, most_bytes: int) -> None:
        self._file, self._path, self._left, self._most = file, path, most_bytes, most_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            data = self._file.read(len(buffer))
        except GZIP_ERRORS:
            raise
        except OSError as error:
            raise InputError(f"{self._path}: cannot read: {error.strerror or error}") from None
        self._left -= len(data)
        if self._left < 0:
            raise InputError(
                f"{self._path}: more than {self._most:,} bytes when it is unpacked; that is the most that is read of it"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()

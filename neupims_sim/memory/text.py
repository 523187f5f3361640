"""Text files of other programs, read as their authors write them and no further than a bound."""

from __future__ import annotations

from pathlib import Path

from neupims_sim.config.files import label
from neupims_sim.errors import InputError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"


def read_lines(path: Path, most_bytes: int) -> list[str]:
    """The lines of a UTF-8 file, a byte order mark left out.

    Raises InputError for a file that cannot be read, is compressed, is longer than ``most_bytes`` or not UTF-8 (with the line).
    """
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise InputError(f"{label(path)}: cannot be read: {error.strerror or error}") from None
    refuse_compressed(path, content)
    if len(content) > most_bytes:
        raise InputError(
            f"{label(path)}: longer than {most_bytes:,} bytes, which is the most that is read of such a file"
        )
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{label(path)}:{line}: cannot be read: byte 0x{content[error.start]:02x} is not UTF-8 text"
        ) from None


def refuse_compressed(path: Path, begin: bytes) -> None:
    """Raise InputError if a file that begins so is compressed."""
    if begin.startswith(GZIP):
        raise InputError(f"{label(path)}: is compressed (gzip); unpack it first")

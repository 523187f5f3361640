"""Reading small CSV tables with a message that names the line of a mistake."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neupims_sim.errors import InputError


@dataclass(frozen=True, slots=True)
class Column:
    """A numeric column: integers unless ``real``, none below ``minimum``."""

    name: str
    minimum: int = 0
    maximum: int = 2**31 - 1
    real: bool = False
    optional: bool = False

    def parse(self, text: str) -> int | float:
        """The value of a cell. Raises ``ValueError`` with the reason."""
        try:
            value = float(text) if self.real else int(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{self.name}={text.strip()!r} is not {'a number' if self.real else 'an integer'}")
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{self.name}={text.strip()} must be from {self.minimum} to {self.maximum}")
        return value


def read_table(path: Path, columns: tuple[Column, ...]) -> tuple[dict[str, NDArray[Any]], list[int]]:
    """The named columns of a CSV file as int64 or float64 arrays, and the line number of each row.

    The first line is the header; blank lines and lines that start with ``#`` are skipped, further columns ignored.
    An optional column that is not there is absent from the result. Raises ``InputError("file:line: ...")``.
    """
    header: list[str] | None = None
    cells: list[list[int | float]] = []
    numbers: list[int] = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for row in reader:
                if not row or row[0].lstrip().startswith("#") or row == [""]:
                    continue
                try:
                    if header is None:
                        header = [name.strip() for name in row]
                        columns = _present(columns, header)
                        continue
                    if len(row) != len(header):
                        raise ValueError(f"{len(row)} cells, but the header has {len(header)}")
                    cells.append([column.parse(row[header.index(column.name)]) for column in columns])
                    numbers.append(reader.line_num)
                except ValueError as error:
                    raise InputError(f"{path}:{reader.line_num}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file: {error}") from None
    if not cells:
        raise InputError(f"{path}: no rows; expected the columns {', '.join(column.name for column in columns)}")
    values = zip(*cells, strict=True)
    return {
        column.name: np.array(value, dtype=np.float64 if column.real else np.int64)
        for column, value in zip(columns, values, strict=True)
    }, numbers


def _present(columns: tuple[Column, ...], header: list[str]) -> tuple[Column, ...]:
    for column in columns:
        if header.count(column.name) > 1:
            raise ValueError(f"column {column.name!r} occurs twice")
        if column.name not in header and not column.optional:
            raise ValueError(f"column {column.name!r} is missing; found {', '.join(header)}")
    return tuple(column for column in columns if column.name in header)

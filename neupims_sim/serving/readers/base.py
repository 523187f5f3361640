"""What all readers share: how a format is recognised, and the columns that come out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from neupims_sim.errors import InputError, suggestion
from neupims_sim.reading import GZIP_ERRORS, lines, opened
from neupims_sim.registry import Registry
from neupims_sim.serving.clock import TICKS_PER_S
from neupims_sim.showing import Shown

Int64Array = npt.NDArray[np.int64]
MOST_TOKENS = 2**31 - 1
"""Of a prompt or an output."""
MOST_SECONDS = 1e6
"""Of a trace, about 11 days; the clock of picoseconds ends at 106."""
MOST_CSV_BYTES = 2**33
"""Of a CSV file when it is unpacked, 8 GiB: its columns are read as a whole."""


@dataclass(frozen=True, repr=False)
class RequestTable(Shown):
    """Requests in file order.

    Attributes
    ----------
    number: int64 [N], row of the request in the file, from 0.
    arrival: int64 [N] ticks of the serving clock; None where the file has no times.
    prompt_tokens, output_tokens: int64 [N], at least 1.
    token_ids: of each prompt, or None.
    chunk_ids: of each prompt's chunks of ``chunk_tokens`` tokens, or None.
    after: int64 [N], index of the request that this one waits for, -1 for none; it arrives ``delay`` ticks after that one's end.
    notes: what the user should know about how the file was read.
    """

    number: Int64Array
    prompt_tokens: Int64Array
    output_tokens: Int64Array
    arrival: Int64Array | None = None
    token_ids: Sequence[Sequence[int]] | None = None
    chunk_ids: Sequence[Sequence[int]] | None = None
    chunk_tokens: int = 512
    after: Int64Array | None = None
    delay: Int64Array | None = None
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.number)

    def rows(self, chosen: Int64Array) -> RequestTable:
        """The requests at positions ``chosen``, in that order; of a session all that wait for one that is left out must be, too."""
        positions = chosen.tolist()
        new_position = np.full(len(self), -1)
        new_position[chosen] = np.arange(len(chosen))
        return replace(
            self,
            number=self.number[chosen],
            prompt_tokens=self.prompt_tokens[chosen],
            output_tokens=self.output_tokens[chosen],
            arrival=None if self.arrival is None else self.arrival[chosen],
            token_ids=None if self.token_ids is None else [self.token_ids[index] for index in positions],
            chunk_ids=None if self.chunk_ids is None else [self.chunk_ids[index] for index in positions],
            after=None
            if self.after is None
            else np.where(self.after[chosen] < 0, -1, new_position[self.after[chosen]]),
            delay=None if self.delay is None else self.delay[chosen],
        )

    @property
    def has_content(self) -> bool:
        """Whether it is known which prompts begin alike."""
        return self.token_ids is not None or self.chunk_ids is not None


class Reader(NamedTuple):
    """A format.

    columns: names that a file of this format has, in its CSV header or in its first JSON object.
    read: the requests of a file.
    """

    columns: frozenset[str]
    read: Callable[[Path], RequestTable]


def _own_reader(found: Any, what: str) -> Reader:
    if not isinstance(found, Reader):
        raise InputError(f"{what} is not a neupims_sim.serving.readers.Reader")
    return found


READERS: Registry[Reader] = Registry(
    "format of requests", "neupims_sim.serving.readers", key="serving.requests.format", adopt=_own_reader
)


def read_requests(path: str | Path, name: str | None) -> RequestTable:
    """The requests of a file; its format is ``name``, or the one whose columns it has (of several, the one with most).

    Raises
    ------
    InputError: the file cannot be read, has the columns of no format, or a wrong value; with file and line.
    """
    path = Path(path)
    if name is not None:
        return READERS[name].read(path)
    found = _columns(path)
    fitting = [known for known in READERS if READERS[known].columns <= found]
    if not fitting:
        known = "; ".join(f"{known}: {', '.join(sorted(READERS[known].columns))}" for known in READERS)
        raise InputError(f"{path}: columns {', '.join(sorted(found)[:20])} are of no known format ({known})")
    return READERS[max(fitting, key=lambda known: len(READERS[known].columns))].read(path)


def text_lines(path: Path) -> Iterator[str]:
    """Lines of a text file, unpacked if it ends in ``.gz``; raises InputError if it is not to be read."""
    number = 0
    try:
        for number, line in enumerate(lines(path)):
            yield line.decode("utf-8-sig" if number == 0 else "utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}:{number + 1}: not UTF-8 text") from None
    except GZIP_ERRORS as error:
        raise InputError(f"{path}: cannot read: not valid gzip data: {error}") from None


def _columns(path: Path) -> set[str]:
    first = next((line.strip() for line in text_lines(path) if line.strip()), "")
    if not first:
        raise InputError(f"{path}: no requests")
    if first.startswith("{"):
        return set(_object(first, path, 1))
    return {name.strip().strip('"') for name in first.split(",")}


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{path}:{number}: not a JSON object in one line") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}:{number}: not a JSON object in one line")
    return value


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every line that is not blank."""
    for number, line in enumerate(text_lines(path), 1):
        if line.strip():
            yield number, _object(line, path, number)


class Row:
    """One JSON object with checks that name file, line and key."""

    def __init__(self, values: dict[str, Any], path: Path, line: int) -> None:
        self._values = values
        self._where = f"{path}:{line}"

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def error(self, message: str) -> InputError:
        """An error in this line."""
        return InputError(f"{self._where}: {message}")

    def tokens(self, key: str) -> int:
        """A count of tokens, from 0."""
        value = self._value(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
            raise self.error(f"{key}={_short(value)} is not a number of tokens from 0 to {MOST_TOKENS}")
        return value

    def ticks(self, key: str, per_s: float) -> int:
        """A time, stated in 1 / per_s seconds, in ticks."""
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_SECONDS * per_s:
            raise self.error(f"{key}={_short(value)} is not a time from 0 to {MOST_SECONDS * per_s:g}")
        return round(value * (TICKS_PER_S / per_s))

    def numbers(self, key: str) -> list[int]:
        """A list of ids, integers."""
        value = self._value(key)
        if not isinstance(value, list) or not all(
            isinstance(item, int) and not isinstance(item, bool) for item in value
        ):
            raise self.error(f"{key}={_short(value)} is not a list of integers")
        return value

    def objects(self, key: str) -> list[dict[str, Any]]:
        """A list of objects, at least one."""
        value = self._value(key)
        if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
            raise self.error(f"{key}={_short(value)} is not a list of objects")
        return value

    def _value(self, key: str) -> Any:
        if key not in self._values:
            raise self.error(f"{key} is missing; {suggestion(key, self._values)}")
        return self._values[key]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class CsvColumns(NamedTuple):
    """Names of the columns of a CSV format, and how its times are written.

    times: the column as ticks from 0.
    """

    arrival: str
    prompt: str
    output: str
    times: Callable[[pd.Series[str]], npt.NDArray[np.float64]]


def read_csv(path: Path, columns: CsvColumns) -> RequestTable:
    """A CSV file; requests without a prompt or an output (a server that failed) are left out, and a note says how many."""
    wanted = [columns.arrival, columns.prompt, columns.output]
    try:
        table = pd.read_csv(
            opened(path, MOST_CSV_BYTES),
            usecols=lambda name: name.strip() in wanted,
            dtype=str,
            skipinitialspace=True,
            encoding="utf-8-sig",
        )
    except InputError:
        raise
    except GZIP_ERRORS as error:
        raise InputError(f"{path}: cannot read: not valid gzip data: {error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    except (ValueError, OverflowError) as error:  # pandas' own errors are ValueErrors
        raise InputError(f"{path}: not a table of comma-separated values: {_short(str(error))}") from None
    table.columns = table.columns.str.strip()
    for name in wanted:
        if name not in table:
            raise InputError(f"{path}: column {name!r} is missing; {suggestion(name, table.columns)}")
    if table.empty:
        raise InputError(f"{path}: no requests")
    prompt, output = (_tokens(table[name], path) for name in (columns.prompt, columns.output))
    seconds = columns.times(table[columns.arrival])
    bad = ~(np.isfinite(seconds) & (seconds >= 0) & (seconds <= MOST_SECONDS))
    if bad.any():
        _refuse(
            table[columns.arrival], int(bad.argmax()), path, f"a time from 0 to {MOST_SECONDS:,.0f} s after the first"
        )
    arrival = np.rint(seconds * TICKS_PER_S).astype(np.int64)
    return without_empty(RequestTable(np.arange(len(table)), prompt, output, arrival), path)


def without_empty(table: RequestTable, path: Path) -> RequestTable:
    """Leaves out requests with an empty prompt or output, with a note; raises InputError if none is left."""
    kept = (table.prompt_tokens > 0) & (table.output_tokens > 0)
    if kept.all():
        return table
    if not kept.any():
        raise InputError(f"{path}: no request has both a prompt and an output")
    if table.after is not None:
        row = int(table.number[int((~kept).argmax())])
        raise InputError(f"{path}: request {row} has no prompt or no output, and others of its session wait for it")
    note = f"{path}: {len(kept) - int(kept.sum()):,} of {len(kept):,} requests have no prompt or no output and are left out"
    return replace(table.rows(np.flatnonzero(kept)), notes=(*table.notes, note))


def seconds(column: pd.Series[str]) -> npt.NDArray[np.float64]:
    """Times that are numbers of seconds; NaN where they are none."""
    return np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)


def seconds_of_dates(column: pd.Series[str]) -> npt.NDArray[np.float64]:
    """Times that are dates, in seconds after the earliest; NaN where they are none."""
    dates = pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True)
    return np.asarray((dates - dates.min()).dt.total_seconds(), dtype=np.float64)


def _tokens(column: pd.Series[str], path: Path) -> Int64Array:
    values = np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
    bad = ~((values >= 0) & (values <= MOST_TOKENS) & (values == np.floor(values)))
    if bad.any():
        _refuse(column, int(bad.argmax()), path, f"a number of tokens from 0 to {MOST_TOKENS}")
    return values.astype(np.int64)


def _refuse(column: pd.Series[str], index: int, path: Path, expected: str) -> None:
    value = column.iloc[index]
    shown = "nothing" if pd.isna(value) else _short(value)
    raise InputError(f"{path}: row {index + 1}: {column.name}={shown} is not {expected}")

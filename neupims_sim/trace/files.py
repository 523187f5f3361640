"""Trace files: JSON lines, plain (``.jsonl``) or compressed (``.jsonl.gz``); a header, then an operator per line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from neupims_sim.config.bounds import MOST_SEED
from neupims_sim.errors import InputError, shown, suggestion
from neupims_sim.reading import GZIP_ERRORS, lines
from neupims_sim.trace.check import checked
from neupims_sim.trace.operators import ELEMENT_BYTES, VERSION, Operator, Tensor, Trace, TraceHeader
from neupims_sim.writing import replaced

FORMAT = "neupims_sim-trace"

_TYPE_NAMES = {int: "an integer", str: "a string", list: "a list", dict: "an object"}
_HEADER_TYPES = {"format": str, "version": int, "model": str, "phase": str, "batch": int, "dtype": str, "seed": int}
_OPERATOR_REQUIRED = {"id": int, "name": str, "op": str, "inputs": list, "outputs": list, "deps": list}
_OPERATOR_TYPES = _OPERATOR_REQUIRED | {"repeat": int, "request": int, "attrs": dict}
_TENSOR_TYPES = {"name": str, "shape": list, "dtype": str, "role": str}


class TraceStream(NamedTuple):
    """A trace being read: the header, and an iterator that checks and yields one operator at a time."""

    header: TraceHeader
    operators: Iterator[Operator]


def open_trace(path: str | Path) -> TraceStream:
    """Start reading a trace; a file larger than memory is fine.

    Raises ``InputError("file:line: ...")`` for the header at once, for an operator when the iteration gets there.
    """
    path = Path(path)
    lines = _numbered_objects(path)
    number, record = next(lines, (1, {}))
    try:
        header = _header(record)
    except ValueError as error:
        raise InputError(f"{path}:{number}: {error}") from None
    return TraceStream(header, _operators(path, lines))


def read_trace(path: str | Path) -> Trace:
    """A whole trace in memory. Raises ``InputError``."""
    header, operators = open_trace(path)
    return Trace(header, tuple(operators))


def check_trace(path: str | Path) -> int:
    """Read a trace to its end and return the number of operators. Raises ``InputError`` at the first mistake."""
    return sum(1 for _ in open_trace(path).operators)


def write_trace(path: str | Path, header: TraceHeader, operators: Iterable[Operator]) -> None:
    """Write a trace, checking it on the way. The file appears under its name only when it is complete.

    The bytes depend on the content alone. Raises ``InputError`` for a bad path, ``ValueError`` for a bad operator.
    """
    path = Path(path)
    compress = _is_compressed(path)
    with replaced(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            if compress:
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as compressed:
                    _write_lines(compressed, header, operators)
            else:
                _write_lines(file, header, operators)


def _write_lines(file: IO[bytes] | gzip.GzipFile, header: TraceHeader, operators: Iterable[Operator]) -> None:
    known: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    known |= {key: getattr(header, key) for key in _HEADER_TYPES if key not in known}
    file.write(_line(known | dict(header.attrs) | known))
    for op in checked(operators):
        record: dict[str, Any] = {"id": op.id, "name": op.name, "op": op.op}
        record["inputs"] = [_tensor_record(tensor) for tensor in op.inputs]
        record["outputs"] = [_tensor_record(tensor) for tensor in op.outputs]
        record |= {"deps": op.deps, "repeat": op.repeat}
        if op.request is not None:
            record["request"] = op.request
        if op.attrs:
            record["attrs"] = dict(op.attrs)
        file.write(_line(record))


def _tensor_record(tensor: Tensor) -> dict[str, Any]:
    return {key: getattr(tensor, key) for key in _TENSOR_TYPES}


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _is_compressed(path: Path) -> bool:
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise InputError(f"{path}: a trace file is named *.jsonl or *.jsonl.gz")
    return path.suffix == ".gz"


def _numbered_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and JSON object of each line that is not blank."""
    number = 0
    _is_compressed(path)
    try:
        for number, line in enumerate(lines(path), start=1):
            if line.strip():
                yield number, _object(f"{path}:{number}", line)
    except GZIP_ERRORS as error:
        raise InputError(f"{path}:{number + 1}: not valid gzip data: {error}") from None


def _object(where: str, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: not a JSON object")
    return record


def _header(record: dict[str, Any]) -> TraceHeader:
    if record.get("format") != FORMAT:
        raise ValueError(f"not a trace header: format is {shown(record.get('format'))}, expected {FORMAT!r}")
    _require("header", record, _HEADER_TYPES, _HEADER_TYPES)
    if record["version"] != VERSION:
        raise ValueError(f"header: version {shown(record['version'])} is not supported, expected {VERSION}")
    if record["batch"] < 1:
        raise ValueError(f"header: batch={shown(record['batch'])} must be at least 1")
    for key in ("batch", "seed"):
        if abs(record[key]) > MOST_SEED:
            raise ValueError(f"header: {key}={shown(record[key])} must be at most {MOST_SEED}")
    if record["dtype"] not in ELEMENT_BYTES:
        raise ValueError(
            f"header: unknown dtype {shown(record['dtype'])}; {suggestion(record['dtype'], ELEMENT_BYTES)}"
        )
    known = {key: record.pop(key) for key in _HEADER_TYPES}
    del known["format"], known["version"]
    return TraceHeader(**known, attrs=record)


def _operators(path: Path, records: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[Operator]:
    number = 0

    def parsed() -> Iterator[Operator]:
        nonlocal number
        for number, record in records:  # noqa: B007 (the enclosing function reports the line number)
            yield _operator(record)

    try:
        yield from checked(parsed())
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}:{number}: {error}") from None


def _operator(record: dict[str, Any]) -> Operator:
    _require("operator", record, _OPERATOR_TYPES, _OPERATOR_REQUIRED)
    unknown = record.keys() - _OPERATOR_TYPES.keys()
    if unknown:
        key = min(unknown)
        raise ValueError(f"operator {record['id']}: unknown key {shown(key)}; {suggestion(key, _OPERATOR_TYPES)}")
    where = f"operator {shown(record['id'])} ({shown(record['name'])})"
    deps = _integers(f"{where}: deps", record["deps"])
    inputs, outputs = (tuple(_tensor(where, item) for item in record[side]) for side in ("inputs", "outputs"))
    return Operator(**{**record, "deps": deps, "inputs": inputs, "outputs": outputs})


def _tensor(where: str, record: Any) -> Tensor:
    if not isinstance(record, dict):
        raise ValueError(f"{where}: tensor {shown(record)} is not an object")
    _require(f"{where}: tensor", record, _TENSOR_TYPES, _TENSOR_TYPES)
    shape = _integers(f"{where}: shape of {shown(record['name'])}", record["shape"])
    return Tensor(record["name"], shape, record["dtype"], record["role"])


def _integers(where: str, values: list[Any]) -> tuple[int, ...]:
    for value in values:
        if type(value) is not int:
            raise ValueError(f"{where}: {shown(value)} is not an integer")
    return tuple(values)


def _require(where: str, record: dict[str, Any], types: Mapping[str, type], required: Iterable[str]) -> None:
    """Raise ``ValueError`` unless ``record`` has the ``required`` keys and each known key has its type."""
    for key in required:
        if key not in record:
            raise ValueError(f"{where}: key {key!r} is missing")
    for key, expected in types.items():
        if key in record and type(record[key]) is not expected:
            raise ValueError(f"{where}: {key}={shown(record[key])} is not {_TYPE_NAMES[expected]}")

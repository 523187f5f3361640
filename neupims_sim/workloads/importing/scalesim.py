"""Topologies of SCALE-Sim (https://github.com/scalesim-project/SCALE-Sim): a CSV file, one layer per row.

    Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,
    Layer, M, N, K,

What a row means is what SCALE-Sim makes of it (its ``topology_utils.py``): columns by position, cells behind the last ignored; batch 1;
no padding, and as many positions of the filter along an axis as it takes to cover it: ceil((ifmap - filter) / stride) + 1,
the last of which may hang over the edge. A ninth cell is the stride along the width (version 2) or a sparsity ``N:M``
(version 3), of which only dense ones are taken. A layer with ``DP`` in its name is depth-wise: one convolution of one
channel after the other. In the GEMM form the fifth cell may be a number of equal products.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from neupims_sim.errors import InputError
from neupims_sim.trace import Tensor, Trace, TraceHeader
from neupims_sim.trace.kinds.convolution import window_positions
from neupims_sim.workloads.building import TraceBuilder
from neupims_sim.workloads.importing import IMPORTERS, ImportedTrace, Importer, ImportOptions
from neupims_sim.workloads.tables import Column

CONVOLUTION_COLUMNS = (
    "IFMAP Height",
    "IFMAP Width",
    "Filter Height",
    "Filter Width",
    "Channels",
    "Num Filter",
    "Strides",
)
GEMM_COLUMNS = ("M", "N", "K")
DTYPE = "float16"
"""The format knows no number format."""


class _Row(NamedTuple):
    name: str
    sizes: tuple[int, ...]
    extra: str
    """The cell behind the sizes, ``""`` if there is none."""


class ScaleSimImporter(Importer):
    """Layers in the order of the file, each of which waits for the one before."""

    def trace(self, path: Path, options: ImportOptions) -> ImportedTrace:
        numbered = _cells(path)
        number, header = next(numbered, (1, []))
        form, columns, append = _form(f"{path}:{number}", header)
        chain = _Chain()
        for number, cells in numbered:
            try:
                append(chain, _row(cells, columns))
            except ValueError as error:
                raise InputError(f"{path}:{number}: {error}") from None
        if not chain.builder.operators:
            raise InputError(f"{path}: no layers; expected rows below the header")
        attrs = {"imported_from": "scalesim", "form": form, "layers": len(chain.builder.operators)}
        return ImportedTrace(
            Trace(TraceHeader(path.stem, "encode", 1, DTYPE, attrs=attrs), tuple(chain.builder.operators))
        )


IMPORTERS.register("scalesim")(ScaleSimImporter())


class _Chain:
    """The trace so far: a layer takes what the one before gave, whatever its shape."""

    def __init__(self) -> None:
        self.builder = TraceBuilder(DTYPE)
        self._last: str | None = None

    def append(
        self,
        row: _Row,
        kind: str,
        source: tuple[int, ...],
        weights: tuple[int, int],
        shape: tuple[int, ...],
        **more: Any,
    ) -> None:
        plain = re.sub(r"[.\[]", "_", row.name)
        name = f"{plain}:{len(self.builder.operators)}"
        taken = self.builder.activation("input" if self._last is None else f"{self._last}.output", *source)
        inputs: tuple[Tensor, ...] = (taken, self.builder.weight(f"{name}_weight", *weights))
        self._last = self.builder.add(row.name, kind, inputs, shape, output=name, **more).name


def _gemm(chain: _Chain, row: _Row) -> None:
    m, n, k = row.sizes
    products = 1
    if row.extra and not _dense(row.extra):
        products = int(Column("batch", minimum=1).parse(row.extra))
    chain.append(row, "gemm", (m, k), (k, n), (m, n), repeat=products)


def _convolution(chain: _Chain, row: _Row) -> None:
    height, width, kernel_height, kernel_width, channels, filters, stride = row.sizes
    strides = (stride, stride)
    if row.extra and not _dense(row.extra):
        strides = (stride, int(Column("stride along the width", minimum=1).parse(row.extra)))
    repeat, depthwise = 1, {}
    if "DP" in row.name:
        repeat, channels, depthwise = channels, 1, {"depthwise": True}
    sides, kernel = (height, width), (kernel_height, kernel_width)
    for axis, side, window in zip(("Height", "Width"), sides, kernel, strict=True):
        if window > side:
            raise ValueError(f"Filter {axis}={window} is larger than IFMAP {axis}={side}")
    positions = tuple(-(-(a - b) // c) + 1 for a, b, c in zip(sides, kernel, strides, strict=True))
    depth = kernel_height * kernel_width * channels
    padding = _padding(sides, kernel, strides, positions)
    if padding is None:
        rows = positions[0] * positions[1]
        described = {"map": [channels, *sides], "kernel": list(kernel), "strides": list(strides)}
        attrs: dict[str, Any] = {"im2col": described} | depthwise
        chain.append(row, "gemm", (rows, depth), (depth, filters), (rows, filters), attrs=attrs, repeat=repeat)
    else:
        attrs = {"kernel": kernel_height, "stride": stride, "padding": padding} | depthwise
        shape = (1, filters, *positions)
        chain.append(row, "convolution", (1, channels, *sides), (depth, filters), shape, attrs=attrs, repeat=repeat)


def _padding(
    sides: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], positions: tuple[int, ...]
) -> int | None:
    """The padding with which the kind ``convolution`` has as many positions as SCALE-Sim; None where it cannot."""
    if kernel[0] != kernel[1] or strides[0] != strides[1]:
        return None
    for padding in range(min(kernel[0], strides[0])):
        if tuple(window_positions(side, kernel[0], strides[0], padding) for side in sides) == positions:
            return padding
    return None


_FORMS = {
    "convolution": (CONVOLUTION_COLUMNS, _convolution),
    "gemm": (GEMM_COLUMNS, _gemm),
}


def _form(where: str, header: list[str]) -> tuple[str, tuple[str, ...], Any]:
    names = [name.lower() for name in header[1:]]
    if names[:3] == ["m", "n", "k"]:
        return "gemm", *_FORMS["gemm"]
    if len(names) >= len(CONVOLUTION_COLUMNS) and names[0].startswith("ifmap"):
        return "convolution", *_FORMS["convolution"]
    expected = " or ".join(repr(", ".join(("Layer name", *columns))) for columns, _ in _FORMS.values())
    raise InputError(f"{where}: not the header of a SCALE-Sim topology; expected {expected}")


def _row(cells: list[str], columns: tuple[str, ...]) -> _Row:
    if len(cells) <= len(columns):
        raise ValueError(f"{len(cells)} cells; expected a name and {', '.join(columns)}")
    if not cells[0]:
        raise ValueError("the layer has no name")
    sizes = (int(Column(name, minimum=1).parse(cell)) for name, cell in zip(columns, cells[1:], strict=False))
    extra = cells[len(columns) + 1] if len(cells) > len(columns) + 1 else ""
    return _Row(cells[0], tuple(sizes), "" if extra.startswith("#") else extra)


def _dense(cell: str) -> bool:
    """Whether the cell is a sparsity that leaves everything. Raises ``ValueError`` for one that does not."""
    ratio = re.fullmatch(r"([0-9]+)\s*:\s*([0-9]+)", cell)
    if ratio is not None and int(ratio[1]) != int(ratio[2]):
        raise ValueError(f"sparsity {cell!r} is not supported; allowed: dense, e.g. 1:1")
    return ratio is not None


def _cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and stripped cells of each row that is not empty."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for row in reader:
                cells = [cell.strip() for cell in row]
                if any(cells):
                    yield reader.line_num, cells
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file: {error}") from None

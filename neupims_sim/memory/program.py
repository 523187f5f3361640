"""PIM programs: what the memory controller of one channel is asked to compute, as rows of an array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neupims_sim.config.memory import MemoryConfig
from neupims_sim.errors import InputError, shown
from neupims_sim.memory.text import read_lines
from neupims_sim.showing import Shown

GWRITE, TILE = 0, 1

FP16_BYTES = 2
"""Of an element that PIM multiplies, unless the configuration says otherwise."""


@dataclass(frozen=True, repr=False)
class PimProgram(Shown):
    """A sequence of macro-commands for one channel.

    Attributes
    ----------
    operations: int32 [n, 4], columns (kind, row, readouts, dots_per_readout).
        GWRITE copies row ``row`` of bank 0 into the channel's global vector buffer (readouts = dots = 0).
        TILE opens PIM row ``row`` in every bank, then per readout j does ``dots`` dot-products on the row's elements
        [j * dots * m, (j + 1) * dots * m), m multipliers per bank, against the same positions of the global buffer, and
        reads one accumulated result per bank.
    """

    operations: npt.NDArray[np.int32]

    @staticmethod
    def build(operations: Iterable[tuple[int, int, int, int]]) -> PimProgram:
        """From an iterable of (kind, row, readouts, dots) tuples; raises InputError for anything but four integers of 32 bits."""
        rows = list(operations)
        try:
            return PimProgram(np.array(rows, dtype=np.int32).reshape(len(rows), 4))
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(
                f"PIM program: each operation is (kind, row, readouts, dots), integers below 2^31: {error}"
            ) from None

    def __len__(self) -> int:
        return len(self.operations)

    @property
    def gwrites(self) -> int:
        """Number of GWRITE macro-commands."""
        return int(np.count_nonzero(self.operations[:, 0] == GWRITE))

    @property
    def tiles(self) -> int:
        """Number of TILE macro-commands."""
        return int(np.count_nonzero(self.operations[:, 0] == TILE))

    @property
    def dots(self) -> int:
        """Dot-product commands (each in every bank)."""
        tiles = self.operations[self.operations[:, 0] == TILE].astype(np.int64)
        return int((tiles[:, 2] * tiles[:, 3]).sum())

    def concatenate(self, other: PimProgram) -> PimProgram:
        """This program followed by ``other``."""
        return PimProgram(np.concatenate([self.operations, other.operations]))


def row_dots(memory: MemoryConfig, element_bytes: int = FP16_BYTES) -> int:
    """Dot-products over one row of a bank: as many as its elements fill, m multipliers at a time."""
    return max(1, memory.organization.row_bytes // (memory.pim.multipliers_per_bank * element_bytes))


def check_program(program: PimProgram, memory: MemoryConfig, element_bytes: int = FP16_BYTES) -> None:
    """Raise InputError unless a memory's PIM can run a program: there is something to do, and every operation has its arguments."""
    operations = program.operations
    if operations.ndim != 2 or operations.shape[1] != 4 or not np.issubdtype(operations.dtype, np.integer):
        raise InputError(
            f"PIM program: operations of shape {operations.shape}, {operations.dtype}; they are integers [n, 4]: kind, row, readouts, dots"
        )
    if len(operations) == 0:
        raise InputError("PIM program: it is empty; it needs at least one operation")
    kind, row, readouts, dots = operations.T.astype(np.int64)
    most = row_dots(memory, element_bytes)
    fits = (readouts >= 1) & (dots >= 1) & (readouts <= most) & (dots <= most) & (readouts * dots <= most)
    right = np.where(kind == TILE, fits, (kind == GWRITE) & (readouts == 0) & (dots == 0))
    right &= (row >= 0) & (row < memory.organization.rows)
    if not right.all():
        first = int(np.argmin(right))
        raise InputError(
            f"PIM program: operation {first}: {_problem(operations[first].tolist(), memory.organization.rows, most)}"
        )


def _problem(operation: Sequence[int], rows: int, most_dots: int) -> str:
    """What is wrong with the arguments of a macro-command; empty if nothing is."""
    kind, row, readouts, dots = operation
    if kind not in (GWRITE, TILE):
        return f"kind {kind}; allowed: {GWRITE} (GWRITE), {TILE} (TILE)"
    name = "GWRITE" if kind == GWRITE else "TILE"
    if not 0 <= row < rows:
        return f"{name} of row {row}; allowed: 0 to {rows - 1}"
    if kind == GWRITE:
        return f"GWRITE with readouts={readouts}, dots={dots}; allowed: 0 and 0" if readouts or dots else ""
    if readouts < 1 or dots < 1:
        return f"TILE of {readouts} readouts of {dots} dot-products; it needs at least one readout of one dot-product"
    if readouts * dots > most_dots:
        return (
            f"TILE of {readouts} readouts of {dots} dot-products, but a row holds {most_dots} dot-products in all; "
            f"allowed: readouts x dot-products of at most {most_dots}"
        )
    return ""


MOST_PROGRAM_BYTES = 1 << 28
"""The longest file of a PIM program: ten million macro-commands."""


def parse_program(path: str | Path, memory: MemoryConfig, element_bytes: int = FP16_BYTES) -> PimProgram:
    """Read ``GWRITE <row>`` / ``TILE <row> <readouts> <dots>`` lines for a memory.

    Raises InputError, with file and line, for a line of another form, and for what :func:`check_program` refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such PIM program file")
    most, rows = row_dots(memory, element_bytes), memory.organization.rows
    operations = []
    for number, line in enumerate(read_lines(path, MOST_PROGRAM_BYTES), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        shape = {"GWRITE": 1, "TILE": 3}.get(words[0])
        if shape is None or len(words) != 1 + shape or not all(_is_number(w) for w in words[1:]):
            raise InputError(
                f"{path}:{number}: {shown(line.strip())} is not a PIM macro-command; "
                "allowed: 'GWRITE <row>', 'TILE <row> <readouts> <dot_products_per_readout>' with non-negative integers"
            )
        values = [int(word) for word in words[1:]]
        operation = (GWRITE, values[0], 0, 0) if shape == 1 else (TILE, *values)
        if problem := _problem(operation, rows, most):
            raise InputError(f"{path}:{number}: {problem}")
        operations.append(operation)
    if not operations:
        raise InputError(f"{path}: the PIM program is empty; it needs at least one GWRITE or TILE line")
    return PimProgram.build(operations)  # type: ignore[arg-type]


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) <= 18


def format_program(program: PimProgram) -> str:
    """The text form that :func:`parse_program` reads."""
    return "".join(
        f"GWRITE {row}\n" if kind == GWRITE else f"TILE {row} {readouts} {dots}\n"
        for kind, row, readouts, dots in program.operations.tolist()
    )

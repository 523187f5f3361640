"""PIM programs: what the memory controller of one channel is asked to compute, as rows of an array."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neupims_sim.errors import InputError
from neupims_sim.showing import Shown

GWRITE, TILE = 0, 1


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
        """From an iterable of (kind, row, readouts, dots) tuples."""
        return PimProgram(np.array(list(operations), dtype=np.int32).reshape(-1, 4))

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


def parse_program(path: str | Path) -> PimProgram:
    """Read ``GWRITE <row>`` / ``TILE <row> <readouts> <dots>`` lines; raises InputError with file and line."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such PIM program file")
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        shape = {"GWRITE": 1, "TILE": 3}.get(words[0])
        if shape is None or len(words) != 1 + shape or not all(w.isdecimal() for w in words[1:]):
            raise InputError(
                f"{path}:{number}: {line.strip()!r} is not a PIM macro-command; "
                "allowed: 'GWRITE <row>', 'TILE <row> <readouts> <dot_products_per_readout>' with non-negative integers"
            )
        values = [int(w) for w in words[1:]]
        if words[0] == "TILE" and min(values[1:]) < 1:
            raise InputError(f"{path}:{number}: TILE needs at least one readout and one dot-product per readout")
        rows.append((GWRITE, values[0], 0, 0) if shape == 1 else (TILE, *values))
    return PimProgram.build(rows)  # type: ignore[arg-type]


def format_program(program: PimProgram) -> str:
    """The text form that :func:`parse_program` reads."""
    return "".join(
        f"GWRITE {row}\n" if kind == GWRITE else f"TILE {row} {readouts} {dots}\n"
        for kind, row, readouts, dots in program.operations.tolist()
    )

"""A log of issued commands as a table with a column per level of the hierarchy, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from neupims_sim.config.files import label
from neupims_sim.errors import InputError, shortened, suggestion
from neupims_sim.memory.device import LOG_FIELDS
from neupims_sim.memory.spec import (
    BANK,
    BANK_GROUP,
    COMMAND_LEVEL,
    COMMANDS,
    GEMV,
    PSEUDO_CHANNEL,
    RANK,
    ResolvedSpec,
)

if TYPE_CHECKING:
    import pandas as pd

Int64Array = npt.NDArray[np.int64]

_PLACES = (("pseudo_channel", PSEUDO_CHANNEL), ("rank", RANK), ("bank_group", BANK_GROUP), ("bank", BANK))


def command_table(spec: ResolvedSpec, log: Int64Array) -> pd.DataFrame:
    """One row per command: cycle, command, channel, rank, bank_group, bank (within its group), row, column.

    Beside them ``pseudo_channel`` where a channel has several, and ``dots`` (dot-products of a GEMV) where there is PIM. A
    cell is empty where a command does not address that level: the bank of a REF, say.

    ``log``: int64 [commands, LOG_FIELDS].
    """
    import pandas as pd  # here, because it is slow to load, and a run makes no table

    logged = dict(zip(LOG_FIELDS, log.T, strict=True))
    levels = command_levels(spec)[logged["command"]]
    table = pd.DataFrame(
        {
            "cycle": logged["cycle"],
            "command": np.array(COMMANDS)[logged["command"]],
            "channel": logged["channel"],
        }
    )
    rest = logged["bank"]
    for (name, level), size in zip(reversed(_PLACES), reversed(_sizes(spec)), strict=True):
        rest, index = np.divmod(rest, size)
        if name != "pseudo_channel" or size > 1:
            table.insert(3, name, _unless(levels < level, index))
    for name in ("row", "column"):
        table[name] = _unless(logged[name] < 0, logged[name])
    if spec.has_pim:
        table["dots"] = _unless(logged["command"] != GEMV, logged["tag"])
    return table


def command_levels(spec: ResolvedSpec) -> Int64Array:
    """Per command the level that it addresses."""
    levels = COMMAND_LEVEL | {"PIM_ACT": spec.pim_act_level}
    return np.array([levels[name] for name in COMMANDS])


def place_of(spec: ResolvedSpec, bank: int) -> tuple[int, int, int, int]:
    """(pseudo-channel, rank, bank group, bank of the group) of a bank of the channel."""
    place = []
    for size in reversed(_sizes(spec)):
        bank, index = divmod(bank, size)
        place.append(index)
    return place[3], place[2], place[1], place[0]


def _sizes(spec: ResolvedSpec) -> Sequence[int]:
    organization = spec.config.organization
    return organization.pseudo_channels, organization.ranks, organization.bank_groups, organization.banks_per_group


_MOST_EXACT = 2**53
"""Larger numbers in a table may not be those that stand there."""


def _unless(empty: npt.NDArray[np.bool_], values: Int64Array) -> pd.Series[int]:
    import pandas as pd  # here, because it is slow to load, and a run makes no table

    return pd.Series(values, dtype="Int64").mask(empty)


def read_commands(spec: ResolvedSpec, path: str | Path) -> Int64Array:
    """The log in a file that :func:`command_table` made, as CSV; a missing ``dots`` counts as the shortest GEMV.

    Raises InputError for a file that cannot be read, a missing column, an unknown command, and a place that the memory does not have.
    """
    import pandas as pd  # here, because it is slow to load, and a run makes no table

    path = Path(path)
    try:
        table = pd.read_csv(path, low_memory=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{label(path)}: cannot be read as a table of commands: {' '.join(str(error).split())}"
        ) from None
    log = np.full((len(table), len(LOG_FIELDS)), -1, dtype=np.int64)
    fields = dict(zip(LOG_FIELDS, log.T, strict=True))
    names = _column(table, "command", path)
    for line, name in enumerate(names, 2):
        if name not in COMMANDS:
            raise InputError(f"{label(path)}:{line}: unknown command {name!r}; {suggestion(str(name), COMMANDS)}")
    fields["command"][:] = [COMMANDS.index(name) for name in names]
    channels = spec.config.organization.channels
    fields["cycle"][:] = _numbers(table, "cycle", path, None)
    fields["channel"][:] = _numbers(table, "channel", path, channels)
    bank = np.zeros(len(table), dtype=np.int64)
    for (name, _), size in zip(_PLACES, _sizes(spec), strict=True):
        if name != "pseudo_channel" or size > 1:
            bank = bank * size + _numbers(table, name, path, size)
    fields["bank"][:] = bank
    for name in ("row", "column"):
        fields[name][:] = _unless_empty(table, name, path, -1)
    if spec.has_pim:
        dots = _unless_empty(table, "dots", path, spec.config.pim.pipeline_dots)
        fields["tag"][:] = np.where(fields["command"] == GEMV, dots, -1)
    return log


def _column(table: pd.DataFrame, name: str, path: Path) -> pd.Series[str]:
    if name not in table.columns:
        raise InputError(f"{label(path)}: no column {name!r}; {suggestion(name, map(str, table.columns))}")
    return table[name]


def _unless_empty(table: pd.DataFrame, name: str, path: Path, empty: int) -> Int64Array:
    """A column that may be missing, and have empty cells; these are ``empty``."""
    if name not in table.columns:
        return np.full(len(table), empty, dtype=np.int64)
    return np.where(table[name].isna(), empty, _numbers(table, name, path, None))


def _numbers(table: pd.DataFrame, name: str, path: Path, below: int | None) -> Int64Array:
    """A column of non-negative integers; an empty cell counts as 0."""
    import pandas as pd  # here, because it is slow to load, and a run makes no table

    values = pd.to_numeric(_column(table, name, path), errors="coerce").where(table[name].notna(), 0)
    wrong = values.isna() | (values < 0) | (values % 1 != 0)
    wrong |= values >= (_MOST_EXACT if below is None else below)
    if wrong.any():
        line = int(np.argmax(wrong)) + 2
        allowed = "non-negative integers" if below is None else f"0 to {below - 1}"
        raise InputError(
            f"{label(path)}:{line}: {name}={shortened(str(table[name].iloc[line - 2]))}; allowed: {allowed}"
        )
    return values.to_numpy(dtype=np.int64)

"""A memory table resolved to integers: what the compiled engine reads.

Nothing here knows a standard by name. The command vocabulary below fixes what a command *does* to the row buffers; when it
may issue is entirely in the table's constraint rows.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from neupims_sim.config.memory import Constraint, MemoryConfig
from neupims_sim.errors import InputError, suggestion

Int64Array = npt.NDArray[np.int64]

COMMANDS = ("ACT", "PRE", "RD", "WR", "REF", "GWRITE", "HEADER", "PIM_ACT", "PIM_PRE", "GEMV")
ACT, PRE, RD, WR, REF, GWRITE, HEADER, PIM_ACT, PIM_PRE, GEMV = range(len(COMMANDS))

CHANNEL, RANK, BANK_GROUP, BANK = range(4)
"""Levels of the hierarchy, from coarse to fine."""

OTHER_RANKS = 4
"""A row scope: the ranks of the channel other than that of the previous command."""

COMMAND_LEVEL = {
    "ACT": BANK, "PRE": BANK, "RD": BANK, "WR": BANK, "REF": RANK, "GWRITE": BANK,
    "HEADER": CHANNEL, "PIM_ACT": BANK_GROUP, "PIM_PRE": BANK, "GEMV": CHANNEL,
}  # fmt: skip
"""What a command addresses: one bank, the banks of a bank group, of a rank, or of the channel."""

_SCOPES = {"channel": CHANNEL, "rank": RANK, "bank_group": BANK_GROUP, "bank": BANK, "other_ranks": OTHER_RANKS}
_COLUMN_COMMANDS = {"RD", "WR", "GEMV", "GWRITE", "HEADER"}


class Row(NamedTuple):
    """One resolved constraint: previous -> next at ``level``, ``base + per_dot * dots`` cycles after the window-th last previous."""

    previous: int
    next: int
    level: int
    base: int
    per_dot: int
    window: int


@dataclass(frozen=True)
class ResolvedSpec:
    """Integer view of a :class:`MemoryConfig` for one preset.

    Attributes
    ----------
    rows: the constraints; a row's level is the coarsest of its scope and of what its two commands address, because a command
        that addresses a whole group is checked (and remembered) at that group.
    command_bus: per command, which command bus it takes for one cycle.
    """

    config: MemoryConfig
    rows: tuple[Row, ...]
    command_bus: tuple[int, ...]
    burst_cycles: int
    read_latency: int
    write_latency: int
    refresh_interval: int
    result_latency: tuple[int, int]
    """(base, per dot-product) cycles from a GEMV's issue to its result."""
    gwrite_latency: int

    @property
    def has_pim(self) -> bool:
        """Whether the table has PIM commands."""
        return self.config.row_buffers != "none"

    @property
    def dual(self) -> bool:
        """Whether banks have a PIM row buffer of their own."""
        return self.config.row_buffers == "dual"


def resolve(config: MemoryConfig, preset: str = "physical") -> ResolvedSpec:
    """Resolve a table: keep the rows whose tags are active, evaluate latencies, lift rows to the level where they are checked.

    Raises InputError for unknown commands, unknown or missing timing parameters and latencies that are not non-negative integers.
    """
    organization, timing = config.organization, dict(config.timing)
    names: dict[str, int] = timing | {"burst": organization.burst_cycles}
    tags = {preset, config.row_buffers}
    rows: list[Row] = []
    for constraint in config.constraints:
        if not set(constraint.when) <= tags:
            continue
        base, per_dot = _latency(config, constraint, names)
        for previous in constraint.previous:
            for following in constraint.next:
                rows.append(_row(config, constraint, previous, following, base, per_dot))
    separate = config.controller.separate_command_buses
    bus = tuple(int(separate and name in _COLUMN_COMMANDS) for name in COMMANDS)

    def parameter(name: str) -> int:
        if name not in timing:
            raise InputError(f"memory {config.name!r}: timing.{name} is missing; it states {_NEEDED[name]}")
        return timing[name]

    interval = parameter("tREFI") if config.controller.refresh != "off" else 0
    pim = config.row_buffers != "none"
    result = _linear(config, "pim.result_latency", config.pim.result_latency, names) if pim else (0, 0)
    if organization.banks > 64:
        raise InputError(f"memory {config.name!r}: {organization.banks} banks per channel; allowed: at most 64")
    return ResolvedSpec(
        config=config,
        rows=tuple(rows),
        command_bus=bus,
        burst_cycles=organization.burst_cycles,
        read_latency=parameter("CL") + organization.burst_cycles,
        write_latency=parameter("CWL") + organization.burst_cycles,
        refresh_interval=interval,
        result_latency=result,
        gwrite_latency=parameter("tGWRITE") if pim else 0,
    )


_NEEDED = {
    "CL": "the read latency", "CWL": "the write latency", "tREFI": "the refresh interval of a rank", "tGWRITE": "the length of a GWRITE",
}  # fmt: skip


def _row(config: MemoryConfig, constraint: Constraint, previous: str, following: str, base: int, per_dot: int) -> Row:
    for name in (previous, following):
        if name not in COMMANDS:
            raise InputError(
                f"memory {config.name!r}: constraints: unknown command {name!r}; {suggestion(name, COMMANDS)}"
            )
    scope = _SCOPES[constraint.scope]
    if scope == OTHER_RANKS:
        if CHANNEL in (COMMAND_LEVEL[previous], COMMAND_LEVEL[following]):
            raise InputError(
                f"memory {config.name!r}: constraints: scope other_ranks between {previous} and {following} has no meaning: "
                "one of them addresses the whole channel"
            )
        level = OTHER_RANKS
    else:
        level = min(scope, COMMAND_LEVEL[previous], COMMAND_LEVEL[following])
    if per_dot and previous != "GEMV":
        raise InputError(
            f"memory {config.name!r}: constraints: {previous} -> {following} uses 'dots', which only GEMV has"
        )
    if per_dot and constraint.window > 1:
        raise InputError(
            f"memory {config.name!r}: constraints: {previous} -> {following}: 'dots' and 'window' exclude each other"
        )
    return Row(COMMANDS.index(previous), COMMANDS.index(following), level, base, per_dot, constraint.window)


def _latency(config: MemoryConfig, constraint: Constraint, names: dict[str, int]) -> tuple[int, int]:
    where = f"constraints [{constraint.scope}, {' '.join(constraint.previous)}, {' '.join(constraint.next)}]"
    return _linear(config, where, constraint.latency, names)


def _linear(config: MemoryConfig, where: str, expression: str, names: dict[str, int]) -> tuple[int, int]:
    """Evaluate an expression as base + slope * dots."""
    at = [_evaluate(config, where, expression, names | {"dots": dots}) for dots in (0, 1, 2, 64)]
    slope = at[1] - at[0]
    if at[2] != at[0] + 2 * slope or at[3] != at[0] + 64 * slope or min(at) < 0:
        raise InputError(
            f"memory {config.name!r}: {where}: latency {expression!r} must be non-negative and linear in 'dots'; "
            f"it is {at[0]}, {at[1]}, {at[2]} for dots = 0, 1, 2"
        )
    return at[0], slope


def _evaluate(config: MemoryConfig, where: str, expression: str, names: dict[str, int]) -> int:
    """Integer arithmetic over timing parameters: + - * // and max, min."""

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=name):
                if name not in names:
                    raise InputError(
                        f"memory {config.name!r}: {where}: unknown timing {name!r}; {suggestion(name, names)}"
                    )
                return names[name]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return value(left) + value(right)
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                return value(left) - value(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return value(left) * value(right)
            case ast.BinOp(left=left, op=ast.FloorDiv(), right=right) if value(right) != 0:
                return value(left) // value(right)
            case ast.Call(func=ast.Name(id="max"), args=args, keywords=[]) if args:
                return max(value(a) for a in args)
            case ast.Call(func=ast.Name(id="min"), args=args, keywords=[]) if args:
                return min(value(a) for a in args)
        raise InputError(
            f"memory {config.name!r}: {where}: latency {expression!r} is not an expression of timing parameters, integers, + - * // max min"
        )

    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError:
        raise InputError(f"memory {config.name!r}: {where}: latency {expression!r} is not an expression") from None
    return value(tree.body)

"""A memory table resolved to integers: what the compiled engine reads.

Nothing here knows a standard by name. The command vocabulary below fixes what a command *does* to the row buffers; when it
may issue is entirely in the table's constraint rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from neupims_sim.config.expressions import ExpressionError, evaluate
from neupims_sim.config.memory import COMMANDS as COMMANDS
from neupims_sim.config.memory import Constraint, MemoryConfig
from neupims_sim.config.presets import row_tags
from neupims_sim.errors import InputError, suggestion
from neupims_sim.memory.policies import (
    PAGE_POLICIES,
    PIM_PRIORITIES,
    REFRESHES,
    SCHEDULING,
    PagePolicy,
    PimPriority,
    Scheduling,
)
from neupims_sim.registry import Registry
from neupims_sim.showing import Shown

Policy = TypeVar("Policy")
Int64Array = npt.NDArray[np.int64]

ACT, PRE, RD, WR, REF, GWRITE, HEADER, PIM_ACT, PIM_PRE, GEMV, REFPB, PREA = range(len(COMMANDS))

CHANNEL, PSEUDO_CHANNEL, RANK, BANK_GROUP, BANK = range(5)
"""Levels of the hierarchy, from coarse to fine."""

OTHER_RANKS = 5
"""A row scope: the ranks of the pseudo-channel other than that of the previous command."""

COMMAND_LEVEL = {
    "ACT": BANK, "PRE": BANK, "RD": BANK, "WR": BANK, "REF": RANK, "GWRITE": BANK, "HEADER": CHANNEL,
    "PIM_ACT": BANK_GROUP, "PIM_PRE": BANK, "GEMV": CHANNEL, "REFPB": BANK, "PREA": RANK,
}  # fmt: skip
"""What a command addresses: one bank, the banks of a bank group, of a rank, or of the channel. PIM_ACT addresses a rank
where the table says so (``pim.activates``); REFPB addresses ``organization.banks_per_refpb`` banks one by one."""

_SCOPES = {
    "channel": CHANNEL, "pseudo_channel": PSEUDO_CHANNEL, "rank": RANK, "bank_group": BANK_GROUP, "bank": BANK,
    "other_ranks": OTHER_RANKS,
}  # fmt: skip
_COLUMN_COMMANDS = {"RD", "WR", "GEMV", "GWRITE", "HEADER"}


class Row(NamedTuple):
    """One resolved constraint: previous -> next at ``level``, ``base + per_dot * dots`` cycles after the window-th last previous."""

    previous: int
    next: int
    level: int
    base: int
    per_dot: int
    window: int
    pool: int = 0
    """With a window: rows of one pool, those that one row of the table stands for, count their previous commands together."""


@dataclass(frozen=True, repr=False)
class ResolvedSpec(Shown):
    """Integer view of a :class:`MemoryConfig` for one preset.

    Attributes
    ----------
    rows: the constraints; a row's level is the coarsest of its scope and of what its two commands address, because a command
        that addresses a whole group is checked (and remembered) at that group.
    command_bus, command_cycles: per command, which command bus it takes, and for how many cycles. Times here count from the
        first of these cycles, those of the table from the last.
    refresh: the refresh command or None; its interval per rank is ``refresh_interval`` cycles.
    pim_act_level: what PIM_ACT addresses, BANK_GROUP or RANK.
    """

    config: MemoryConfig
    rows: tuple[Row, ...]
    command_bus: tuple[int, ...]
    command_cycles: tuple[int, ...]
    scheduling: Scheduling
    page_policy: PagePolicy
    pim_priority: PimPriority
    refresh: str | None
    pim_act_level: int
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
    tags = row_tags(config, preset)
    controller = config.controller
    levels = COMMAND_LEVEL | {"PIM_ACT": _SCOPES[config.pim.activates]}
    if config.model == "command" and not config.constraints:
        raise InputError(
            f"memory {config.name!r}: constraints is empty; without rows every command would be legal at once"
        )
    rows: list[Row] = []
    pool = 0
    for constraint in config.constraints:
        if not constraint.holds(tags):
            continue
        pool += constraint.window > 1
        base, per_dot = _latency(config, constraint, names)
        for previous in constraint.previous:
            for following in constraint.next:
                rows.append(
                    _row(
                        config,
                        constraint,
                        previous,
                        following,
                        (base, per_dot),
                        levels,
                        pool if constraint.window > 1 else 0,
                    )
                )
    for name in config.command_cycles:
        _check_command(config, "command_cycles", name)
    bus = tuple(int(controller.separate_command_buses and name in _COLUMN_COMMANDS) for name in COMMANDS)

    def parameter(name: str) -> int:
        if name not in timing:
            raise InputError(f"memory {config.name!r}: timing.{name} is missing; it states {_NEEDED[name]}")
        return timing[name]

    refresh = _policy(config, "refresh", REFRESHES).command
    interval = parameter("tREFI") if refresh else 0
    if refresh == "REFPB":
        interval = timing.get("tREFIpb", interval * organization.banks_per_refpb // organization.banks_per_rank)
    _check_refresh_rows(config, refresh, interval, rows)
    _check_pim_rows(config, rows)
    pim = config.row_buffers != "none"
    result = _linear(config, "pim.result_latency", config.pim.result_latency, names) if pim else (0, 0)
    return ResolvedSpec(
        config=config,
        rows=tuple(rows),
        command_bus=bus,
        command_cycles=tuple(config.command_cycles.get(name, 1) for name in COMMANDS),
        scheduling=_policy(config, "scheduling", SCHEDULING),
        page_policy=_policy(config, "page_policy", PAGE_POLICIES),
        pim_priority=_policy(config, "pim_priority", PIM_PRIORITIES),
        refresh=refresh,
        pim_act_level=levels["PIM_ACT"],
        burst_cycles=organization.burst_cycles,
        read_latency=config.command_cycles.get("RD", 1) - 1 + parameter("CL") + organization.burst_cycles,
        write_latency=config.command_cycles.get("WR", 1) - 1 + parameter("CWL") + organization.burst_cycles,
        refresh_interval=interval,
        result_latency=result,
        gwrite_latency=parameter("tGWRITE") if pim else 0,
    )


_NEEDED = {
    "CL": "the read latency", "CWL": "the write latency", "tREFI": "the refresh interval of a rank", "tGWRITE": "the length of a GWRITE",
}  # fmt: skip


def _policy(config: MemoryConfig, key: str, registry: Registry[Policy]) -> Policy:
    name = getattr(config.controller, key)
    try:
        return registry[name]
    except InputError as error:
        raise InputError(f"memory {config.name!r}: controller.{key}={name!r}: {error}") from None


def _check_command(config: MemoryConfig, where: str, name: str) -> None:
    if name not in COMMANDS:
        raise InputError(f"memory {config.name!r}: {where}: unknown command {name!r}; {suggestion(name, COMMANDS)}")


_PIM_ROWS = {
    "none": (),
    "single": (("PIM_ACT", "GEMV"), ("GEMV", "GEMV"), ("PIM_ACT", "PRE"), ("PRE", "PIM_ACT")),
    "dual": (("PIM_ACT", "GEMV"), ("GEMV", "GEMV"), ("PIM_ACT", "PIM_PRE"), ("PIM_PRE", "PIM_ACT")),
}
"""Rows without which PIM would take no time, by kind of row buffers."""


def _check_pim_rows(config: MemoryConfig, rows: Iterable[Row]) -> None:
    present = {(row.previous, row.next) for row in rows}
    for previous, following in _PIM_ROWS[config.row_buffers]:
        if (COMMANDS.index(previous), COMMANDS.index(following)) not in present:
            raise InputError(
                f"memory {config.name!r}: row_buffers={config.row_buffers!r} needs a row from {previous} to {following}; "
                "constraints has none"
            )


def _check_refresh_rows(config: MemoryConfig, refresh: str | None, interval: int, rows: Iterable[Row]) -> None:
    """A refresh that nothing makes wait would be free of charge."""
    if refresh is None:
        return
    if interval == 0:
        raise InputError(
            f"memory {config.name!r}: the refresh interval is 0 cycles; controller.refresh=off refreshes nothing"
        )
    command = COMMANDS.index(refresh)
    if not any(row.previous == command and row.next == ACT for row in rows):
        raise InputError(
            f"memory {config.name!r}: controller.refresh={config.controller.refresh!r} needs rows for {refresh}; "
            f"constraints has none from {refresh} to ACT"
        )


def _row(
    config: MemoryConfig,
    constraint: Constraint,
    previous: str,
    following: str,
    latency: tuple[int, int],
    levels: Mapping[str, int],
    pool: int,
) -> Row:
    for name in (previous, following):
        _check_command(config, "constraints", name)
    where = f"memory {config.name!r}: constraints: {previous} -> {following}"
    base, per_dot = latency
    scope = _SCOPES[constraint.scope]
    if scope == OTHER_RANKS:
        if CHANNEL in (levels[previous], levels[following]):
            raise InputError(f"{where}: scope other_ranks has no meaning, one of them addresses the whole channel")
        level = OTHER_RANKS
    else:
        level = min(scope, levels[previous], levels[following])
    if level == PSEUDO_CHANNEL and config.organization.pseudo_channels == 1:
        level = CHANNEL
    # Distances are between last cycles (JEDEC); commands are placed by their first. Windows remember last cycles.
    length = 1 if constraint.window > 1 else config.command_cycles.get(previous, 1)
    base = max(0, base + length - config.command_cycles.get(following, 1))
    if per_dot and previous != "GEMV":
        raise InputError(f"{where} uses 'dots', which only GEMV has")
    if per_dot and constraint.window > 1:
        raise InputError(f"{where}: 'dots' and 'window' exclude each other")
    return Row(COMMANDS.index(previous), COMMANDS.index(following), level, base, per_dot, constraint.window, pool)


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
    """Integer arithmetic over timing parameters."""

    def lookup(name: str) -> int:
        if name not in names:
            raise InputError(f"memory {config.name!r}: {where}: unknown timing {name!r}; {suggestion(name, names)}")
        return names[name]

    try:
        return evaluate(expression, lookup)
    except ExpressionError as error:
        raise InputError(f"memory {config.name!r}: {where}: latency {error}") from None

"""What a memory table amounts to: figures derived from it, its constraints in cycles, and the distances between commands."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neupims_sim.memory import legality
from neupims_sim.memory.spec import (
    ACT,
    BANK,
    BANK_GROUP,
    CHANNEL,
    COMMAND_LEVEL,
    COMMANDS,
    OTHER_RANKS,
    PRE,
    PSEUDO_CHANNEL,
    RANK,
    RD,
    ResolvedSpec,
)

if TYPE_CHECKING:
    import pandas as pd

IN_ORDER = ("ACT", "PRE", "PREA", "RD", "WR", "REF", "REFPB", "GWRITE", "HEADER", "PIM_ACT", "GEMV", "PIM_PRE")
"""Commands as people read them: of the memory row buffer, refresh, PIM."""


class Relation(NamedTuple):
    """Where two commands go, relative to each other."""

    title: str
    shared: int
    """The finest level of the hierarchy that contains both."""


RELATIONS = (
    Relation("same bank", BANK),
    Relation("same bank group, other bank", BANK_GROUP),
    Relation("same rank, other bank group", RANK),
    Relation("other rank", PSEUDO_CHANNEL),
    Relation("other pseudo-channel", CHANNEL),
)


class ActiveConstraint(NamedTuple):
    """A row of the table that holds under the preset and the row buffers in force."""

    scope: str
    previous: tuple[str, ...]
    next: tuple[str, ...]
    latency: str
    cycles: int
    cycles_per_dot: int
    """Added for every dot-product of the previous GEMV."""
    window: int
    when: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class DerivedFigures:
    """Figures that follow from a table.

    Bandwidths are peaks in 1e9 B/s, of the data bus and of all banks' PIM units (elements of 2 bytes; 0 without PIM). Read latencies are
    those of an idle memory, from the first command to the end of the burst: the row open, no row open, another row open.
    """

    channel_bandwidth_gbps: float
    bandwidth_gbps: float
    pim_bandwidth_gbps: float
    channel_bytes: int
    capacity_bytes: int
    page_bytes: int
    row_cycle_cycles: int
    """Between two activations of a bank."""
    open_row_read_cycles: int
    closed_row_read_cycles: int
    conflict_read_cycles: int
    refresh_share: float
    """Of the time in which a bank can do nothing else."""


def derived_figures(spec: ResolvedSpec) -> DerivedFigures:
    """The figures of a table; what it does not constrain counts as 0 cycles."""
    organization, pim = spec.config.organization, spec.config.pim
    channel = organization.pseudo_channels * organization.burst_bytes / spec.burst_cycles * organization.clock_ghz
    activate = _cycles(spec, ACT, RD)
    inside = 0.0
    if spec.has_pim and (dot := dot_product_cycles(spec)):
        inside = (
            organization.channels * organization.banks * pim.multipliers_per_bank * 2 / dot * organization.clock_ghz
        )
    return DerivedFigures(
        channel_bandwidth_gbps=channel,
        bandwidth_gbps=channel * organization.channels,
        pim_bandwidth_gbps=inside,
        channel_bytes=organization.channel_bytes,
        capacity_bytes=organization.capacity_bytes,
        page_bytes=organization.row_bytes,
        row_cycle_cycles=_cycles(spec, ACT, ACT),
        open_row_read_cycles=spec.read_latency,
        closed_row_read_cycles=activate + spec.read_latency,
        conflict_read_cycles=_cycles(spec, PRE, ACT) + activate + spec.read_latency,
        refresh_share=_refresh_share(spec),
    )


def dot_product_cycles(spec: ResolvedSpec) -> int:
    """Cycles of one dot-product, tDOT."""
    return spec.config.timing.get("tDOT", spec.result_latency[1])


def refresh_cycles(spec: ResolvedSpec, command: str) -> int:
    """Cycles that REF or REFPB keeps a bank closed."""
    return _cycles(spec, COMMANDS.index(command), ACT)


def _refresh_share(spec: ResolvedSpec) -> float:
    if spec.refresh is None:
        return 0.0
    organization = spec.config.organization
    turns = organization.banks_per_rank // organization.banks_per_refpb if spec.refresh == "REFPB" else 1
    return refresh_cycles(spec, spec.refresh) / (spec.refresh_interval * turns)


def _cycles(spec: ResolvedSpec, previous: int, following: int) -> int:
    """The distance of two commands to the same bank."""
    bases = [row.base for row in spec.rows if (row.previous, row.next, row.window) == (previous, following, 1)]
    return max(bases, default=0)


def active_constraints(spec: ResolvedSpec, preset: str) -> list[ActiveConstraint]:
    """The rows of the table that hold, in its order; ``preset`` is that for which the table was resolved."""
    resolved = iter(spec.rows)
    active = []
    lengths = spec.command_cycles
    for row in legality.active_constraints(spec.config, preset):
        first, *_ = islice(resolved, len(row.previous) * len(row.next))
        before = 1 if row.window > 1 else lengths[first.previous]
        cycles = first.base - before + lengths[first.next], first.per_dot
        active.append(
            ActiveConstraint(row.scope, row.previous, row.next, row.latency, *cycles, row.window, row.when, row.source)
        )
    return active


def declared_commands(spec: ResolvedSpec) -> list[str]:
    """The commands that constraints in force name."""
    named = {COMMANDS[command] for row in spec.rows for command in (row.previous, row.next)}
    return [name for name in IN_ORDER if name in named]


def relations(spec: ResolvedSpec) -> list[Relation]:
    """The relations that two commands on one channel can have in this organisation."""
    organization = spec.config.organization
    parts = {
        BANK: 2,
        BANK_GROUP: organization.banks_per_group,
        RANK: organization.bank_groups,
        PSEUDO_CHANNEL: organization.ranks,
        CHANNEL: organization.pseudo_channels,
    }
    return [relation for relation in RELATIONS if parts[relation.shared] > 1]


def minimum_distances(spec: ResolvedSpec, relation: Relation, dots: int) -> pd.DataFrame:
    """Least cycles from a command (index) to another (columns) in a relation; NaN where nothing constrains them.

    A command that addresses more than the relation tells apart (REF in "same rank, other bank group") is in "same bank" only.
    ``dots``: dot-products of the previous GEMV. Windows (tFAW) are no distance of two commands and are left out.
    """
    import pandas as pd  # here, because it is slow to load and a run does without

    levels = COMMAND_LEVEL | {"PIM_ACT": spec.pim_act_level}
    names = [name for name in declared_commands(spec) if relation.shared == BANK or levels[name] > relation.shared]
    table = pd.DataFrame(np.nan, index=names, columns=names)
    for row in spec.rows:
        applies = relation.shared == PSEUDO_CHANNEL if row.level == OTHER_RANKS else row.level <= relation.shared
        previous, following = COMMANDS[row.previous], COMMANDS[row.next]
        if applies and row.window == 1 and previous in names and following in names:
            cycles = row.base + row.per_dot * dots
            table.loc[previous, following] = np.nanmax([table.loc[previous, following], cycles])
    return table

"""The shipped memory tables with all their speed grades, and what their constraint rows say, read from the YAML rows alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from neupims_sim.config import MemoryConfig, load_memory
from neupims_sim.config.files import available
from neupims_sim.config.memory import Constraint
from neupims_sim.errors import InputError
from neupims_sim.memory.address import AddressMap
from neupims_sim.memory.legality import active_constraints, addressed_banks, latency_cycles
from neupims_sim.memory.spec import COMMANDS

TABLES = [name for name in available("memory") if load_memory(name).model == "command"]
GRADES = [(name, speed) for name in TABLES for speed in load_memory(name).speeds]


@cache
def grade(name: str, speed: str, refresh: str = "off") -> MemoryConfig:
    """One channel of a shipped memory."""
    return load_memory(name, overrides={"speed": speed, "organization.channels": 1, "controller.refresh": refresh})


def refreshes(config: MemoryConfig) -> list[str]:
    """The refresh policies that the table has rows for."""
    ends = {command for row in config.constraints for command in row.previous}
    return ["all_bank", "off", *(["per_bank"] if "REFPB" in ends else [])]


def refresh_interval(config: MemoryConfig) -> int:
    """Cycles between refresh commands of one rank."""
    organization, timing = config.organization, config.timing
    if config.controller.refresh == "per_bank":
        units = organization.banks_per_rank // organization.banks_per_refpb
        return timing.get("tREFIpb", timing["tREFI"] // units)
    return timing["tREFI"]


def first_of(config: MemoryConfig, *names: str) -> int:
    """The timing parameter under the first of its names that the table uses."""
    return next(config.timing[name] for name in names if name in config.timing)


def byte_of(config: MemoryConfig, bank: int, row: int) -> int:
    """Byte address, within its channel, of the first burst of a row."""
    organization = config.organization
    group, in_group = divmod(bank, organization.banks_per_group)
    rank, in_rank = divmod(group, organization.bank_groups)
    pseudo_channel, in_pseudo_channel = divmod(rank, organization.ranks)
    fields = {"ro": row, "pc": pseudo_channel, "ra": in_pseudo_channel, "bg": in_rank, "ba": in_group}
    shift = AddressMap.of(organization).shift
    return sum(value << shift[field] for field, value in fields.items()) * organization.burst_bytes


def local_of(config: MemoryConfig, banks: Sequence[int], rows: Sequence[int]) -> np.ndarray:
    """Local indices of the first bursts of some rows."""
    size = config.organization.burst_bytes
    return np.array([byte_of(config, bank, row) // size for bank, row in zip(banks, rows, strict=True)], dtype=np.int64)


# --- constraint rows ---


class Issued(NamedTuple):
    """A command of one channel."""

    cycle: int
    command: str
    bank: int
    dots: int = 0


def instances(config: MemoryConfig, scope: str, command: str, bank: int) -> set[int]:
    """Numbers of the instances of a scope that a command works in."""
    organization = config.organization
    size = {
        "bank": 1,
        "bank_group": organization.banks_per_group,
        "rank": organization.banks_per_rank,
        "other_ranks": organization.banks_per_rank,
        "pseudo_channel": organization.banks_per_rank * organization.ranks,
        "channel": organization.banks,
    }[scope]
    return {other // size for other in addressed_banks(config, command, bank)}


def shares(config: MemoryConfig, row: Constraint, before: Issued, command: str, bank: int) -> bool:
    """Whether the row holds between these two commands."""
    if before.command not in row.previous or command not in row.next:
        return False
    mine = instances(config, row.scope, before.command, before.bank)
    its = instances(config, row.scope, command, bank)
    if row.scope != "other_ranks":
        return bool(mine & its)
    ranks = config.organization.ranks
    return any(a != b and a // ranks == b // ranks for a in mine for b in its)


def length(config: MemoryConfig, previous: str, following: str) -> int:
    """From the distance of two commands' last cycles to that of their first."""
    return config.command_cycles.get(previous, 1) - config.command_cycles.get(following, 1)


def earliest_by(
    config: MemoryConfig, rows: Sequence[Constraint], issued: Sequence[Issued], command: str, bank: int
) -> int:
    """First cycle at which these rows allow a command after those issued; 0 if they say nothing."""
    earliest = 0
    for row in rows:
        cycles = sorted(
            before.cycle + latency_cycles(config, row.latency, before.dots) + length(config, before.command, command)
            for before in issued
            if shares(config, row, before, command, bank)
        )
        if len(cycles) >= row.window:
            earliest = max(earliest, cycles[-row.window])
    return earliest


class Variant(NamedTuple):
    """A table as it is resolved: which rows are active depends on the preset and on the kind of row buffers."""

    config: MemoryConfig
    preset: str
    label: str

    @property
    def rows(self) -> list[Constraint]:
        """The active rows."""
        return active_constraints(self.config, self.preset)


def variants(name: str) -> Iterator[Variant]:
    """Every grade, preset and kind of row buffers of a table, with two ranks per pseudo-channel."""
    table = load_memory(name)
    refresh = "per_bank" if "per_bank" in refreshes(table) else "all_bank"
    tags = {tag.removeprefix("not ") for row in table.constraints for tag in row.when}
    kinds = sorted({table.row_buffers} | (tags & {"single", "dual"}))
    for speed in table.speeds:
        for preset in ("physical", *sorted(tags & {"asplos24"})):
            for kind in kinds:
                overrides = {
                    "speed": speed,
                    "organization.ranks": 2,
                    # as many banks as before, where two ranks would be more than a channel may have
                    "organization.bank_groups": table.organization.bank_groups
                    // (2 if table.organization.banks > 32 else 1),
                    "row_buffers": kind,
                    "controller.refresh": refresh,
                }
                label = f"{speed}, {preset}, {kind}"
                try:
                    config = load_memory(name, preset, overrides)
                except InputError:  # the single banks of two ranks cannot be refreshed so often
                    config = load_memory(name, preset, overrides | {"timing.tREFI": 2 * table.timing["tREFI"]})
                yield Variant(config, preset, label)


def commands_of(config: MemoryConfig) -> list[str]:
    """Commands that the table has rows for."""
    named = {command for row in config.constraints for command in (*row.previous, *row.next)}
    return [command for command in COMMANDS if command in named]


def relations(config: MemoryConfig) -> list[int]:
    """A bank in each relation to bank 0: itself, then one that shares its group, its rank, its pseudo-channel, its channel."""
    organization = config.organization
    per_rank = organization.banks_per_rank
    banks = [0, 1, organization.banks_per_group, per_rank, per_rank * organization.ranks]
    return [bank for bank in banks if bank < organization.banks]

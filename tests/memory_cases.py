"""Memories, command logs and random work that the tests of the memory system share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from neupims_sim.config import MemoryConfig, load_memory
from neupims_sim.config.memory import Constraint
from neupims_sim.memory.device import LOG_FIELDS, CommandDevice, Counters
from neupims_sim.memory.legality import Violation, check_commands
from neupims_sim.memory.policies import CONTROLLER_POLICIES
from neupims_sim.memory.program import GWRITE, TILE, PimProgram, row_dots
from neupims_sim.memory.spec import COMMANDS, resolve

Log = npt.NDArray[np.int64]

TABLES = [
    ("hbm2", "physical", None),
    ("hbm2", "asplos24", None),
    ("hbm2_pim_dual", "physical", None),
    ("hbm2_pim_dual", "asplos24", None),
    ("hbm2_pim_dual", "physical", "single"),
    ("hbm2_pim_dual", "asplos24", "single"),
    ("hbm2_pim_dual", "physical", "none"),
    ("hbm2_pim_blocked", "physical", None),
    ("hbm2_pim_blocked", "asplos24", None),
    ("hbm2_pim_blocked", "physical", "dual"),
    ("hbm2_pim_blocked", "asplos24", "dual"),
]
"""Shipped memories as (name, preset, row_buffers override)."""


@cache
def memory(name: str, preset: str = "physical", row_buffers: str | None = None, channels: int = 1) -> MemoryConfig:
    """A shipped memory, with few channels so that a test is quick."""
    overrides: dict[str, object] = {"organization.channels": channels}
    if row_buffers is not None:
        overrides["row_buffers"] = row_buffers
    return load_memory(name, preset, overrides)


def commands(*entries: tuple[int, str, int] | tuple[int, str, int, int] | tuple[int, str, int, int, int]) -> Log:
    """A log of one channel from (cycle, command, bank[, row[, tag]])."""
    rows = []
    for cycle, command, bank, *rest in entries:
        row, tag = [*rest, *[-1] * (2 - len(rest))]
        rows.append((cycle, 0, COMMANDS.index(command), bank, row, -1, tag))
    return np.array(rows, dtype=np.int64).reshape(-1, len(LOG_FIELDS))


def broken_rules(config: MemoryConfig, log: Log, preset: str = "physical") -> list[str]:
    """The rules that a log breaks, in order."""
    return [violation.rule for violation in check_commands(config, log, preset=preset)]


# --- random work ---


@dataclass(frozen=True)
class Transfer:
    """A read (kind 0) or write (kind 1) of a byte range, submitted ``gap`` cycles after the work before it."""

    gap: int
    kind: int
    address: int
    size_bytes: int


@dataclass(frozen=True)
class Program:
    """PIM operations (kind, row, readouts, dots) per channel, submitted ``gap`` cycles after the work before it."""

    gap: int
    operations: dict[int, list[tuple[int, int, int, int]]]


Work = Transfer | Program

PIM_ROWS = range(16, 22)
MEMORY_ROWS = range(6)


def transfers(config: MemoryConfig, rows: Iterable[int], most_bytes: int = 8192) -> st.SearchStrategy[Transfer]:
    """Transfers that start at any byte of the given rows, of any bank; they may run on into the row after."""
    organization = config.organization
    assert organization.address_mapping.startswith("ro")
    stride = organization.banks * organization.row_bytes * organization.channels
    addresses = [st.integers(row * stride, (row + 1) * stride - 1) for row in rows]
    return st.builds(
        Transfer,
        st.sampled_from([0, 0, 1, 7, 50, 400]),
        st.sampled_from([0, 0, 1]),
        st.one_of(addresses),
        st.one_of(st.integers(1, 200), st.integers(1, most_bytes)),
    )


def programs(config: MemoryConfig, rows: Iterable[int]) -> st.SearchStrategy[Program]:
    """PIM programs on some channels; tiles and vectors come from the same rows."""
    row = st.sampled_from(list(rows))
    operation = st.one_of(
        st.tuples(st.just(GWRITE), row, st.just(0), st.just(0)),
        st.sampled_from([1, 2, 3, 5, 8]).flatmap(
            lambda readouts: st.tuples(
                st.just(TILE), row, st.just(readouts), st.integers(1, row_dots(config) // readouts)
            )
        ),
    )
    channels = st.integers(0, config.organization.channels - 1)
    operations = st.dictionaries(channels, st.lists(operation, min_size=1, max_size=6), min_size=1)
    return st.builds(Program, st.sampled_from([0, 1, 60, 1000]), operations)


def mixes(config: MemoryConfig, *, colliding: bool = False) -> st.SearchStrategy[list[Work]]:
    """Transfers and, where the memory can, PIM programs. ``colliding``: in the same rows."""
    kinds: list[st.SearchStrategy[Work]] = [transfers(config, MEMORY_ROWS)]
    if config.row_buffers != "none":
        kinds.append(programs(config, list(MEMORY_ROWS)[:3] if colliding else PIM_ROWS))
    work = st.one_of(kinds)
    return st.lists(work, min_size=1, max_size=12) | st.lists(work, min_size=15, max_size=40)


MORE_ROWS = [
    ["rank", "PREA", "REF ACT PIM_ACT", "tRP"],
    ["bank", "ACT PIM_ACT", "PREA", "tRAS"],
    ["bank", "RD", "PREA", "tRTP"],
    ["bank", "WR", "PREA", "CWL + burst + tWR"],
    ["bank", "GWRITE", "PREA", "tGWRITE"],
    ["channel", "GEMV", "PREA", "tDOT * dots + tRTP", {"when": ["single"]}],
    ["bank", "PRE PREA PIM_PRE", "REFPB", "tRP"],
    ["bank", "ACT PIM_ACT", "REFPB", "tRAS + tRP"],
    ["bank", "REFPB", "REFPB REF ACT PIM_ACT", "tRFC"],
    ["rank", "REFPB", "REFPB REF ACT", "tRRD_L"],
    ["rank", "REF", "REFPB", "tRFC"],
    ["rank", "ACT REFPB", "ACT REFPB", "tFAW", {"window": 4}],
]
"""Rows for PREA and for per-bank refreshes (as long as tRFC says)."""


def variants() -> st.SearchStrategy[tuple[MemoryConfig, str]]:
    """Shipped tables, with their presets, under organizations and controllers that nobody ships."""
    orders = st.permutations(["pc", "ra", "bg", "ba", "ch", "co"])
    overrides = {
        "organization.channels": st.sampled_from([1, 2, 4]),
        "organization.pseudo_channels": st.sampled_from([1, 1, 2]),
        "organization.ranks": st.sampled_from([1, 2, 4]),
        "organization.bank_groups": st.sampled_from([1, 2, 4]),
        "organization.banks_per_group": st.sampled_from([1, 2, 4]),
        "organization.burst_length": st.sampled_from([2, 4, 8]),
        "organization.address_mapping": orders.map(lambda fields: "ro" + "".join(fields)),
        "controller.row_hit_cap": st.sampled_from([1, 2, 16]),
        "controller.bank_queue_depth": st.sampled_from([1, 8, 128]),
        "controller.transaction_queue_depth": st.sampled_from([1, 4, 32]),
        "controller.max_outstanding_reads": st.sampled_from([1, 2, 96, 4096]),
        "drain": st.sampled_from([(1, 0), (8, 0), (8, 8), (32, 8)]),
        "controller.posted_writes": st.booleans(),
        "controller.separate_command_buses": st.booleans(),
        "controller.precharge_all": st.booleans(),
        "controller.page_timeout_cycles": st.sampled_from([1, 50, 400]),
        "controller.pim_max_wait_cycles": st.sampled_from([1, 100, 3000]),
        "pim.activates": st.sampled_from(["bank_group", "rank"]),
        "command_cycles": st.sampled_from([{}, {"ACT": 2}, {"RD": 2, "WR": 3}]),
        **{f"controller.{key}": st.sampled_from(list(policies)) for key, policies in CONTROLLER_POLICIES.items()},
    }

    def load(table: tuple[str, str, str | None], values: dict[str, object]) -> tuple[MemoryConfig, str]:
        name, preset, row_buffers = table
        if values["organization.pseudo_channels"] == 1:
            values["organization.address_mapping"] = str(values["organization.address_mapping"]).replace("pc", "")
        else:
            values["organization.ranks"] = 1
        if row_buffers:
            values["row_buffers"] = row_buffers
        values["controller.write_drain_high"], values["controller.write_drain_low"] = values.pop("drain")  # type: ignore[misc]
        values["timing.tRFC"] = 100 if values["controller.refresh"] == "per_bank" else 260
        config = load_memory(name, preset, values)
        more = [
            row
            for row in MORE_ROWS
            if "tGWRITE" in config.timing or not {"tGWRITE", "tDOT * dots + tRTP"} & set(row[3:4])
        ]
        return config.model_copy(
            update={"constraints": (*config.constraints, *map(Constraint.model_validate, more))}
        ), preset

    return st.builds(load, st.sampled_from(TABLES), st.fixed_dictionaries(overrides))


# --- running it ---


@dataclass
class Outcome:
    """What a device did with some work."""

    log: Log
    until: int
    """The cycle that the device reached."""
    submitted: list[tuple[int, int]] = field(default_factory=list)
    """Per work: (cycle, item)."""
    completed: list[tuple[int, int]] = field(default_factory=list)
    """(cycle, item), in the order in which the device reported them."""
    counters: Counters | None = None

    def named(self, *names: str) -> Log:
        """The log's entries of some commands."""
        return self.log[np.isin(self.log[:, 2], [COMMANDS.index(name) for name in names])]

    def completion(self, work: int) -> int:
        """When the work with this number completed; items are used again, so the first time after its submission."""
        submitted, item = self.submitted[work]
        return next(cycle for cycle, other in self.completed if other == item and cycle > submitted)


def run(
    config: MemoryConfig, preset: str, works: Sequence[Work], *, patience: int = 400_000, tail: int = 9000
) -> Outcome:
    """Submit the work at its cycles, run until all of it is complete and all commands are issued, then ``tail`` cycles more.

    Fails if that takes more than ``patience`` cycles after the last submission.
    """
    device = CommandDevice(resolve(config, preset), log=True)
    outcome = Outcome(np.zeros((0, len(LOG_FIELDS)), dtype=np.int64), 0)
    waiting: set[int] = set()

    def advance(limit: int) -> None:
        time, done = device.advance(limit)
        for item in done:
            assert item in waiting, f"item {item} completes at cycle {time} without being asked for"
            waiting.remove(item)
            outcome.completed.append((time, item))

    cycle = 0
    for work in works:
        cycle += work.gap
        while device.time < cycle:
            advance(cycle)
        if isinstance(work, Transfer):
            item = device.submit_transfer(work.kind, work.address, work.size_bytes)
        else:
            item = device.submit_programs({c: PimProgram.build(o) for c, o in work.operations.items()})
        assert item not in waiting, f"item {item} is given out twice"
        waiting.add(item)
        outcome.submitted.append((device.time, item))
    bursts = sum(len(asked_bursts(config, work)) for work in works if isinstance(work, Transfer))
    moved = 0
    while waiting or moved < bursts:
        assert device.time < cycle + patience, f"{len(waiting)} items and {bursts - moved} bursts are stuck"
        advance(device.time + tail)
        moved = device.counters().reads + device.counters().writes
    end = device.time + tail
    while device.time < end:
        advance(end)
    outcome.log, outcome.until, outcome.counters = device.take_log(), device.time, device.counters()
    return outcome


def asked_bursts(config: MemoryConfig, transfer: Transfer) -> list[tuple[int, int, int]]:
    """(channel, bank, row) of every burst of a transfer, by taking the fields off each address one after the other."""
    organization = config.organization
    sizes = {
        "ch": organization.channels,
        "pc": organization.pseudo_channels,
        "ra": organization.ranks,
        "bg": organization.bank_groups,
        "ba": organization.banks_per_group,
        "ro": organization.rows,
        "co": organization.row_bytes // organization.burst_bytes,
    }
    names = re.findall("..", organization.address_mapping)
    first = transfer.address // organization.burst_bytes
    last = (transfer.address + transfer.size_bytes - 1) // organization.burst_bytes
    asked = []
    for burst in range(first, last + 1):
        value = {}
        for name in reversed(names):
            burst, value[name] = divmod(burst, sizes[name])
        rank = value.get("pc", 0) * organization.ranks + value["ra"]
        bank = (rank * organization.bank_groups + value["bg"]) * organization.banks_per_group + value["ba"]
        asked.append((value["ch"], bank, value["ro"]))
    return asked


def asked_in_total(config: MemoryConfig, works: Sequence[Work], kind: int) -> Counter[tuple[int, int, int]]:
    """How often each (channel, bank, row) is to be read (kind 0) or written (kind 1)."""
    return Counter(
        burst
        for work in works
        if isinstance(work, Transfer) and work.kind == kind
        for burst in asked_bursts(config, work)
    )


def pim_operations(works: Sequence[Work], channel: int) -> list[tuple[int, int, int, int]]:
    """All PIM operations of one channel, in the order submitted."""
    return [operation for work in works if isinstance(work, Program) for operation in work.operations.get(channel, [])]


def describe(works: Sequence[Work], violations: Sequence[Violation]) -> str:
    """The message of a failed check: what was run and the first things wrong with it."""
    return "\n".join([*map(str, works), *map(str, violations[:5])])

"""What a memory table must keep beyond the types of its keys, before anything runs on it.

These are the promises of ``memory check`` that follow from the table alone: every name exists, bursts do not overlap on the data
bus, refresh leaves time for work, and no energy is negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from neupims_sim.config.expressions import ExpressionError, evaluate, expression_names
from neupims_sim.config.files import available
from neupims_sim.config.memory import COMMANDS, MAX_CYCLES, Constraint, MemoryConfig
from neupims_sim.config.presets import row_tags
from neupims_sim.errors import suggestion

Violation = tuple[tuple[str | int, ...], str]
"""The key path to blame (``("memory",)``: several values that do not go together), and a message."""

TABLE = ("memory",)


def memory_violations(memory: MemoryConfig, preset: str) -> Iterator[Violation]:
    """What is wrong with a table under a preset."""
    names = list(_unknown_names(memory))
    yield from names
    yield from _drain_violations(memory)
    yield from _current_violations(memory)
    if memory.model == "command" and memory.constraints and not names:
        yield from _command_violations(memory, preset)


def _unknown_names(memory: MemoryConfig) -> Iterator[Violation]:
    """Commands, tags and timing parameters that do not exist."""
    tags = [*available("presets"), "none", "single", "dual"]
    timings = [*memory.timing, "burst", "dots"]
    for name in memory.command_cycles:
        if name not in COMMANDS:
            yield (
                ("memory", "command_cycles", name),
                f"command_cycles: unknown command {name!r}; {suggestion(name, COMMANDS)}",
            )
    for index, row in enumerate(memory.constraints):
        for name in (*row.previous, *row.next):
            if name not in COMMANDS:
                problem = f"unknown command {name!r}; {suggestion(name, COMMANDS)}"
                yield ("memory", "constraints", index), f"constraints: {row.text}: {problem}"
        for tag in row.when:
            if tag.removeprefix("not ") not in tags:
                problem = f"when: unknown tag {tag!r}; {suggestion(tag, tags)}"
                yield ("memory", "constraints", index), f"constraints: {row.text}: {problem}"
        try:
            unknown = [name for name in expression_names(row.latency) if name not in timings]
        except ExpressionError as error:
            yield ("memory", "constraints", index), f"constraints: {row.text}: latency {error}"
            continue
        for name in unknown:
            problem = f"unknown timing {name!r}; {suggestion(name, timings)}"
            yield ("memory", "constraints", index), f"constraints: {row.text}: {problem}"


def _drain_violations(memory: MemoryConfig) -> Iterator[Violation]:
    controller = memory.controller
    if controller.write_drain_low > controller.write_drain_high:
        yield (
            TABLE,
            f"memory.controller.write_drain_low={controller.write_drain_low} is above "
            f"memory.controller.write_drain_high={controller.write_drain_high}: a drain would end before it begins",
        )


def _current_violations(memory: MemoryConfig) -> Iterator[Violation]:
    """Currents below those of standby, with which a command would give energy back (:mod:`neupims_sim.memory.energy`)."""
    power, timing = memory.power, memory.timing
    if power is None:
        return
    for name, least in (
        ("idd3n_ma", "idd2n_ma"),
        ("idd4r_ma", "idd3n_ma"),
        ("idd4w_ma", "idd3n_ma"),
        ("idd5ab_ma", "idd3n_ma"),
        *((("idd5pb_ma", "idd3n_ma"),) if power.idd5pb_ma else ()),
        ("pim_idd3n_ma", "pim_idd2n_ma"),
    ):
        value, standby = getattr(power, name), getattr(power, least)
        if value < standby:
            yield (
                ("memory", "power", name),
                f"memory.power.{name}={value:g} is below standby, memory.power.{least}={standby:g}: an energy would be negative",
            )
    tras, trp = timing.get("tRAS", 0), timing.get("tRP", 0)
    if (tras or trp) and power.idd0_ma * (tras + trp) < power.idd3n_ma * tras + power.idd2n_ma * trp:
        standby = (power.idd3n_ma * tras + power.idd2n_ma * trp) / (tras + trp)
        yield (
            ("memory", "power", "idd0_ma"),
            f"memory.power.idd0_ma={power.idd0_ma:g} is below standby, {standby:g} (memory.power.idd3n_ma={power.idd3n_ma:g} over tRAS, "
            f"memory.power.idd2n_ma={power.idd2n_ma:g} over tRP): an energy would be negative",
        )


# --- what follows from the constraint rows ---


class _Distances:
    """Least cycles between commands, by the rows in force; windows are left out, and a GEMV has its fewest dot-products."""

    def __init__(self, rows: Iterable[tuple[Constraint, int]], timing: Mapping[str, int]) -> None:
        self._timing = timing
        self._latency: dict[tuple[str, str, str], int] = {}
        self._names: dict[tuple[str, str], set[str]] = {}
        for row, cycles in rows:
            for previous in row.previous:
                for following in row.next if row.window == 1 else ():
                    key = row.scope, previous, following
                    self._latency[key] = max(cycles, self._latency.get(key, 0))
                    self._names.setdefault(key[1:], set()).update(expression_names(row.latency))

    def __call__(self, previous: str, following: str, *scopes: str) -> int:
        """The longest of the rows with one of ``scopes``; those of one bank unless given."""
        return max(self._latency.get((scope, previous, following), 0) for scope in scopes or _WITHIN["bank"])

    def timings(self, previous: str, following: str) -> str:
        """The timing parameters of the rows between two commands, as a message states them."""
        names = sorted(self._names.get((previous, following), set()) & self._timing.keys())
        return ", ".join(f"memory.timing.{name}={self._timing[name]}" for name in names)


_WITHIN = {
    "bank": ("bank", "bank_group", "rank", "pseudo_channel", "channel"),
    "bank group": ("bank_group", "rank", "pseudo_channel", "channel"),
    "rank": ("rank", "pseudo_channel", "channel"),
    "pseudo-channel": ("other_ranks", "pseudo_channel", "channel"),
}
"""Scopes of the rows that hold between two commands which have no more than this in common."""


def _command_violations(memory: MemoryConfig, preset: str) -> Iterator[Violation]:
    tags = row_tags(memory, preset)
    active = [(index, row) for index, row in enumerate(memory.constraints) if row.holds(tags)]
    names = {**memory.timing, "burst": memory.organization.burst_cycles, "dots": max(1, memory.pim.pipeline_dots)}
    rows: list[tuple[Constraint, int]] = []
    for index, row in active:
        try:
            cycles = evaluate(row.latency, names.__getitem__)
        except ExpressionError as error:
            yield ("memory", "constraints", index), f"constraints: {row.text}: latency {error}"
            continue
        if not 0 <= cycles <= MAX_CYCLES:
            problem = f"latency must be non-negative and at most {MAX_CYCLES} cycles; it is {cycles}"
            yield ("memory", "constraints", index), f"constraints: {row.text}: {problem}"
            continue
        rows.append((row, cycles))
    if len(rows) == len(active):
        distances = _Distances(rows, memory.timing)
        yield from _overlapping_bursts(memory, distances)
        yield from _endless_refresh(memory, distances)


def _overlapping_bursts(memory: MemoryConfig, distances: _Distances) -> Iterator[Violation]:
    """Column commands that may follow each other faster than their bursts pass over the data bus."""
    organization, timing = memory.organization, memory.timing
    latency = {"RD": timing.get("CL", 0), "WR": timing.get("CWL", 0)}
    sizes = {"rank": organization.bank_groups, "bank group": organization.banks_per_group, "bank": 2}
    least_shared = next(relation for relation, size in sizes.items() if size > 1)
    relations = {"one rank": ("rank", _WITHIN[least_shared])}
    if organization.ranks > 1:
        relations["two ranks"] = ("other_ranks", _WITHIN["pseudo-channel"])
    burst = organization.burst_cycles
    for relation, (scope, scopes) in relations.items():
        for previous, before in latency.items():
            for following, after in latency.items():
                needed, least = before + burst - after, distances(previous, following, *scopes)
                if least < needed:
                    yield (
                        TABLE,
                        f"memory.organization.burst_length={organization.burst_length}: bursts of {burst} cycles overlap on the data "
                        f"bus: {previous} to {following} in {relation} takes {least} cycles or more "
                        f"({distances.timings(previous, following) or 'no row'}); allowed: a shorter burst, or a row in "
                        f"memory.constraints, [{scope}, {previous}, {following}, ...], of at least {needed}",
                    )


def _endless_refresh(memory: MemoryConfig, distances: _Distances) -> Iterator[Violation]:
    """A refresh interval in which refreshing leaves no time to open a row and use it, or for the shortest work of PIM."""
    organization, timing = memory.organization, memory.timing
    command = {"all_bank": "REF", "per_bank": "REFPB"}.get(memory.controller.refresh)
    if command is None or "tREFI" not in timing:
        return
    ranks, units = organization.pseudo_channels * organization.ranks, 1
    interval = timing["tREFI"]
    if command == "REFPB":
        units = organization.banks_per_rank // organization.banks_per_refpb
        interval = timing.get("tREFIpb", interval // units)
    banks = organization.banks_per_rank // units
    closing = max(distances(column, "PRE") for column in ("ACT", "RD", "WR"))
    closing += max(1, distances("PRE", "PRE", *_WITHIN["rank"])) * (banks - 1) + distances("PRE", command)
    opening = max(distances("ACT", column) for column in ("RD", "WR"))
    needed = closing + distances(command, "ACT") + opening
    if interval == 0:
        problem = "the refresh interval is 0 cycles; controller.refresh=off refreshes nothing"
        yield TABLE, f"memory.timing.tREFI={timing['tREFI']}: {problem}"
        return
    what = f"memory.timing.tREFI={timing['tREFI']}, memory.controller.refresh={memory.controller.refresh}"
    if interval * units <= needed:
        yield (
            TABLE,
            f"{what}: refresh leaves no time: closing the rows of a bank, {command} and opening a row take {needed} cycles "
            f"({distances.timings(command, 'ACT')}), and a bank is refreshed every {interval * units}; allowed: more than {needed}",
        )
        return
    if command == "REFPB":
        each = ranks * (closing + max(1, distances(command, command, *_WITHIN["rank"])))
        if interval <= each:
            least = each if "tREFIpb" in timing else each * units
            yield (
                TABLE,
                f"{what}: refresh leaves no time: closing a bank and REFPB, in {ranks} ranks, take {each} cycles "
                f"({distances.timings(command, command)}), and they fall due every {interval}; allowed: more than {least}",
            )
    elif memory.row_buffers != "none":
        blocked, tile = distances("REF", "ACT"), _shortest_tile_cycles(memory, distances)
        room = interval // ranks - blocked
        if room <= tile:
            yield (
                TABLE,
                f"{what}: refresh leaves no time for PIM: between two refreshes of {ranks} ranks there are {room} cycles "
                f"({distances.timings('REF', 'ACT')}), and a tile of one result or a GWRITE takes up to {tile}; "
                f"allowed: more than {ranks * (tile + blocked)}",
            )


def _shortest_tile_cycles(memory: MemoryConfig, distances: _Distances) -> int:
    """From the first PIM_ACT to the last dot-product of a tile with one result; or a GWRITE with its row to be opened."""
    organization = memory.organization
    activations = organization.bank_groups if memory.pim.activates == "bank_group" else 1
    opening = distances("PIM_ACT", "PIM_ACT", *_WITHIN["rank"]) * (activations - 1) + distances("PIM_ACT", "GEMV")
    vector = distances("ACT", "GWRITE") + memory.timing.get("tGWRITE", 0)
    return max(opening + distances("GEMV", "GEMV"), vector)

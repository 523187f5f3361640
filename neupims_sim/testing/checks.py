"""The promises of a memory model, one function each.

A docstring is the promise, what the function yields are findings (nothing: the promise is kept).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import pairwise
from math import ceil

import numpy as np

from neupims_sim.config import MemoryConfig
from neupims_sim.config.memory_checks import memory_violations
from neupims_sim.errors import InputError
from neupims_sim.memory.device import Counters
from neupims_sim.memory.engine import READ, WRITE
from neupims_sim.memory.legality import check_commands
from neupims_sim.memory.policies import REFRESHES
from neupims_sim.memory.program import GWRITE, TILE
from neupims_sim.memory.spec import COMMANDS
from neupims_sim.testing.report import CheckResult, Finding
from neupims_sim.testing.subject import SkipError, Subject
from neupims_sim.testing.trial import Trial, TrialError
from neupims_sim.testing.work import Operation, Program, Transfer, Work

Findings = Iterator[Finding]
Check = Callable[[Subject], Findings]

CHECKS: list[Check] = []
"""All checks, in the order of a report."""

MOST_FINDINGS = 3
"""Findings of one check that a report shows."""

ROUNDING = 1 + 1e-9


def carry_out(check: Check, subject: Subject) -> CheckResult:
    """One check on one memory."""
    promise = " ".join((check.__doc__ or "").split()).rstrip(".")
    try:
        findings = list(dict.fromkeys(check(subject)))  # a promise broken in two trials may read the same
    except SkipError as reason:
        return CheckResult(check.__name__, promise, "skipped", note=str(reason))
    except TrialError as error:
        findings = [error.finding]
    if not findings:
        return CheckResult(check.__name__, promise, "passed")
    more = len(findings) - MOST_FINDINGS
    note = f"and {more} more" if more > 0 else ""
    return CheckResult(check.__name__, promise, "failed", tuple(findings[:MOST_FINDINGS]), note)


def _check(function: Check) -> Check:
    CHECKS.append(function)
    return function


@_check
def declaration(subject: Subject) -> Findings:
    """Capabilities agree with the table, by which tensors are placed and utilizations computed."""
    declared, organization = subject.capabilities, subject.config.organization
    for field in ("channels", "capacity_bytes"):
        value, expected = getattr(declared, field), getattr(organization, field)
        if value != expected:
            yield Finding(f"capabilities.{field}", f"{value}", f"{expected}, as in the table")
    buses = organization.channels * organization.pseudo_channels
    peak = buses * organization.burst_bytes / organization.burst_cycles
    if not 0 < declared.peak_bytes_per_cycle <= peak * ROUNDING:
        happened = f"{declared.peak_bytes_per_cycle:g} B/cycle"
        yield Finding(
            "capabilities.peak_bytes_per_cycle", happened, f"at most the {peak:g} B/cycle of the table's data bus"
        )
    if declared.dual_row_buffers and not declared.pim:
        yield Finding("capabilities", "dual_row_buffers without pim", "dual row buffers are PIM's")


@_check
def completion(subject: Subject) -> Findings:
    """Every transfer has an event of its own, which fires, and nothing raises."""
    yield from _troubles(subject, "completion")


@_check
def time(subject: Subject) -> Findings:
    """An event fires at least one cycle after the call, and time never goes back."""
    troubles = list(_troubles(subject, "time"))
    yield from troubles
    for trial in [] if troubles else subject.finished():
        yield from _instant(trial)


def _troubles(subject: Subject, check: str) -> Findings:
    for trial in (subject.transfers, subject.flood):
        if trial.trouble is not None and trial.trouble.check == check:
            yield trial.trouble.finding


def _instant(trial: Trial) -> Findings:
    for work, done in zip(trial.works, trial.done, strict=True):
        if done is not None and done <= work.cycle:
            yield Finding(str(work), f"complete at cycle {done}", f"cycle {work.cycle + 1} or later")


@_check
def conservation(subject: Subject) -> Findings:
    """Every burst that a transfer touches moves exactly once."""
    for trial in subject.finished():
        for kind, name in ((READ, "reads"), (WRITE, "writes")):
            asked, moved = trial.bursts(kind), getattr(trial.counters, name)
            if moved != asked:
                what = f"{len(trial.transfers(kind))} {name} that touch {asked} bursts of {subject.space.burst_bytes} B"
                yield Finding(what, f"counters().{name} = {moved}", f"{asked}")


@_check
def bandwidth(subject: Subject) -> Findings:
    """The declared bandwidth is never exceeded, over any stretch of time."""
    peak = subject.capabilities.peak_bytes_per_cycle
    for trial in subject.finished():
        # Posted writes complete before they move.
        kinds = (READ,) if subject.config.controller.posted_writes else (READ, WRITE)
        yield from _too_fast([*_completions(trial, kinds)], peak, "in all channels")


def _completions(trial: Trial, kinds: Sequence[int], channel: int | None = None) -> Iterator[tuple[int, int, int]]:
    """(cycle of the call, cycle of the event, bytes) of transfers, those to one channel if it is given."""
    for work, done in zip(trial.works, trial.done, strict=True):
        if isinstance(work, Transfer) and done is not None and work.kind in kinds and channel in (None, work.channel):
            yield work.cycle, done, work.size_bytes


def _too_fast(transfers: Sequence[tuple[int, int, int]], peak: float, where: str) -> Findings:
    """The stretch of time in which most is asked for and complete, if it is more than ``peak`` allows."""
    begin, end, size = np.array(transfers, dtype=np.int64).reshape(-1, 3).T
    worst = (peak * ROUNDING, 0, 0, 0)
    for start in np.unique(begin):
        within = np.flatnonzero(begin >= start)
        within = within[np.argsort(end[within], kind="stable")]
        moved, cycles = np.cumsum(size[within]), end[within] - start
        rates = moved / np.maximum(cycles, 1)
        at = int(np.argmax(rates))
        worst = max(worst, (float(rates[at]), int(start), int(moved[at]), int(cycles[at])))
    rate, first, total, took = worst
    if total:
        asked = f"{total} B in transfers {where} from cycle {first} on"
        happened = f"complete after {took} cycles: {rate:,.1f} B/cycle"
        yield Finding(asked, happened, f"{ceil(total / peak)} cycles or more: the declared peak is {peak:,.1f} B/cycle")


@_check
def capacity(subject: Subject) -> Findings:
    """The last byte can be read and written; a range that is empty or goes beyond is refused with InputError."""
    end = subject.capabilities.capacity_bytes
    yield from _accepted(subject, [Transfer(0, kind, end - 1, 1) for kind in (READ, WRITE)])
    beyond = [(end, 1), (end - 1, 2), (0, end + 1), (-1, 1), (0, 0), (0, -1)]
    yield from _refused(subject, [Transfer(0, kind, *span) for kind in (READ, WRITE) for span in beyond])


@_check
def channels(subject: Subject) -> Findings:
    """transfer_in_channel takes the declared channels, each with its share of capacity and bandwidth."""
    if not subject.has_channels:
        raise SkipError("takes no transfers to single channels, and has no PIM that needs them")
    count = subject.capabilities.channels
    share, peak = subject.capabilities.capacity_bytes // count, subject.capabilities.peak_bytes_per_cycle / count
    ends = sorted({0, count - 1})
    yield from _accepted(subject, [Transfer(0, READ, share - 1, 1, channel) for channel in ends])
    beyond = [(0, 1, -1), (0, 1, count), (share, 1, 0), (share - 1, 2, 0), (-1, 1, 0), (0, 0, 0)]
    yield from _refused(subject, [Transfer(0, READ, *where) for where in beyond])
    size = min(max(1, int(peak * 400)), share)
    trial = _finished(subject.trial([Transfer(0, READ, 0, size, channel) for channel in ends]))
    for channel in ends:
        yield from _too_fast([*_completions(trial, (READ,), channel)], peak, f"in channel {channel}")


def _finished(trial: Trial) -> Trial:
    if trial.trouble is not None:
        raise trial.trouble
    return trial


def _accepted(subject: Subject, works: Sequence[Work]) -> Findings:
    """Each on its own completes (which is no news where transfers do not complete at all)."""
    for work in works if subject.transfers.trouble is None else ():
        trial = subject.trial([work])
        if trial.trouble is not None:
            yield trial.trouble.finding


def _refused(subject: Subject, works: Sequence[Work]) -> Findings:
    """Each raises InputError and leaves no trace."""
    model = subject.idle()
    for work in works:
        before = copy.deepcopy(model.counters())
        try:
            work.start(model)
        except InputError:
            if model.counters() != before:
                yield Finding(str(work), "refused, but counted", "InputError, and nothing counted")
        except Exception as error:  # the model is a stranger's
            yield Finding(str(work), f"{type(error).__name__}: {error}", "InputError")
        else:
            yield Finding(str(work), "accepted", "InputError")


@_check
def counters(subject: Subject) -> Findings:
    """Counters only grow, are a new object each time, and agree with each other and with the command log."""
    for trial in (subject.transfers, subject.flood):
        if trial.trouble is not None and trial.trouble.check == "counters":
            raise trial.trouble
    for trial in subject.finished():
        yield from _shrinking(trial)
        yield from _aliased(trial)
        yield from _disagreeing(trial)


def _totals(values: Counters) -> dict[str, int]:
    """All counters, flat: ``reads``, ``commands[RD]``, ..."""
    flat: dict[str, int] = {}
    for field in fields(values):
        value = getattr(values, field.name)
        named = value if isinstance(value, dict) else {None: value}
        flat |= {field.name if key is None else f"{field.name}[{key}]": count for key, count in named.items()}
    return flat


def _shrinking(trial: Trial) -> Findings:
    for (before, _, old), (after, _, new) in pairwise(trial.samples):
        now = _totals(new)
        for name, value in _totals(old).items():
            if now.get(name, 0) < value:
                happened = f"{value} at cycle {before}, {now.get(name, 0)} at cycle {after}"
                yield Finding(f"counters().{name}", happened, "it never decreases")
                return


def _aliased(trial: Trial) -> Findings:
    for cycle, returned, then in trial.samples:
        if returned != then:
            happened = "what it returned has changed since, together with the model"
            yield Finding(f"counters() at cycle {cycle}", happened, "a new object each time")
            return


def _disagreeing(trial: Trial) -> Findings:
    totals, cycles = trial.counters, trial.memory_cycles
    asked = f"{len(trial.works)} transfers and PIM programs"
    for command, field in (("RD", "reads"), ("WR", "writes"), ("GEMV", "result_reads")):
        commands, count = totals.commands.get(command, None), getattr(totals, field)
        if commands is not None and commands != count:
            happened = f"commands[{command}] = {commands}, {field} = {count}"
            yield Finding(asked, f"counters(): {happened}", f"as many {command} as {field}")
    if len(trial.log):
        logged = np.bincount(trial.log[:, 2], minlength=len(COMMANDS)).tolist()
        for command, count in zip(COMMANDS, logged, strict=True):
            if totals.commands.get(command, 0) != count:
                happened = f"counters().commands[{command}] = {totals.commands.get(command, 0)}, {count} in the log"
                yield Finding(asked, happened, "counters and command log agree")
    if not totals.reads <= totals.read_latency_sum <= totals.reads * cycles:
        happened = f"counters().read_latency_sum = {totals.read_latency_sum}"
        expected = f"{totals.reads} to {totals.reads * cycles}: each takes 1 to {cycles} memory cycles"
        yield Finding(f"{totals.reads} bursts to be read", happened, expected)
    most_busy = trial.model.capabilities.channels * cycles if trial.programs else 0
    if not 0 <= totals.pim_busy_cycles <= most_busy:
        happened = f"counters().pim_busy_cycles = {totals.pim_busy_cycles}"
        yield Finding(asked, happened, f"0 to {most_busy}: channels with a PIM program times cycles")


@_check
def determinism(subject: Subject) -> Findings:
    """The same work takes the same cycles and gives the same counters every time."""
    for trial in subject.finished():
        again = _finished(subject.trial(trial.works))
        for work, first, second in zip(trial.works, trial.done, again.done, strict=True):
            if first != second:
                yield Finding(str(work), f"complete at cycle {first}, the second time at cycle {second}", "the same")
        totals, second_totals = _totals(trial.counters), _totals(again.counters)
        for name in sorted(totals.keys() | second_totals.keys()):
            if totals.get(name) != second_totals.get(name):
                happened = f"{totals.get(name)}, the second time {second_totals.get(name)}"
                yield Finding(f"counters().{name} after the same work", happened, "the same")


@_check
def clock(subject: Subject) -> Findings:
    """A device with another clock sees the same times in seconds, and the same bandwidth, rounded up to its own cycles."""
    subject.finished()
    works: list[Work] = [subject.space.much_at_once()[0], Transfer(0, READ, 0, 1)]
    reference = _finished(subject.trial(works)).done
    peak = subject.capabilities.peak_bytes_per_cycle * subject.clock_ghz
    for factor in (0.7, 2.6):
        ghz = factor * subject.clock_ghz
        seen = subject.idle(ghz).capabilities.peak_bytes_per_cycle * ghz
        if abs(seen / peak - 1) > ROUNDING - 1:
            asked = f"capabilities.peak_bytes_per_cycle of a device at {ghz:g} GHz"
            yield Finding(asked, f"{seen:,.1f} GB/s", f"{peak:,.1f} GB/s as at {subject.clock_ghz:g} GHz")
        for work, first, second in zip(works, reference, _finished(subject.trial(works, ghz)).done, strict=True):
            expected = (first or 0) * factor
            if abs((second or 0) - expected) > 2 * max(1.0, factor) + 0.01 * expected:
                happened = f"complete after {second} cycles = {(second or 0) / ghz:,.1f} ns"
                as_before = f"{expected / ghz:,.1f} ns as with {subject.clock_ghz:g} GHz: about {expected:.0f} cycles"
                yield Finding(f"{work}, of a device at {ghz:g} GHz", happened, as_before)


@_check
def pim(subject: Subject) -> Findings:
    """PIM programs complete and count what they state; without PIM they are refused with InputError."""
    count, rows, most = subject.capabilities.channels, subject.config.organization.rows, subject.space.row_dots
    tile: Operation = (TILE, rows - 1, 1, 1)
    if not subject.capabilities.pim:
        yield from _refused(subject, [Program(0, 0, (tile,))])
        return
    for trial in (subject.pim, *([subject.together] if subject.transfers.trouble is None else [])):
        if trial.trouble is not None:
            yield trial.trouble.finding
            continue
        yield from _instant(trial)
        yield from _miscounted(trial)
    bad: list[Operation] = [(TILE, rows, 1, 1), (TILE, -1, 1, 1), (TILE, 0, 1, most + 1), (TILE, 0, most + 1, 1)]
    bad += [(TILE, 0, 0, 1), (TILE, 0, 1, 0), (GWRITE, rows, 0, 0), (GWRITE, 0, 1, 1), (TILE + 1, 0, 1, 1)]
    wrong = [(count, (tile,)), (-1, (tile,)), (0, ()), *((0, (operation,)) for operation in bad)]
    yield from _refused(subject, [Program(0, channel, operations) for channel, operations in wrong])


def _miscounted(trial: Trial) -> Findings:
    totals, programs = trial.counters, trial.programs
    for name, stated, counted in (
        ("tiles", sum(program.tiles for program in programs), totals.tiles),
        ("dot_products", sum(program.dots for program in programs), totals.dot_products),
        ("result_reads", sum(int(program.operations[:, 2].sum()) for program in programs), totals.result_reads),
        ("commands[GWRITE]", gwrites := sum(p.gwrites for p in programs), totals.commands.get("GWRITE", gwrites)),
    ):
        if counted != stated:
            yield Finding(f"{len(programs)} PIM programs", f"counters().{name} = {counted}", f"{stated}, as they state")


@_check
def pim_time(subject: Subject) -> Findings:
    """A PIM program with more to do takes longer, and none starts before its release."""
    _needs_pim(subject)
    rows, most = subject.config.organization.rows, subject.space.row_dots
    row, other, results = rows - 1, max(0, rows - 2), min(2, most)
    short = _alone(subject, [(TILE, row, results, 1)])
    longer: dict[str, list[Operation]] = {
        "8 tiles instead of 1": [(TILE, (row, other)[index % 2], results, 1) for index in range(8)],
        "a GWRITE before its tile": [(GWRITE, row, 0, 0), (TILE, other, results, 1)],
    }
    if most > results:
        longer[f"{most} results instead of {results}"] = [(TILE, row, most, 1)]
    if (dots := most // results) > subject.config.pim.pipeline_dots:
        longer[f"{dots} dot-products per result instead of 1"] = [(TILE, row, results, dots)]
    for what, operations in longer.items():
        cycles = _alone(subject, operations)
        if cycles <= short:
            yield Finding(f"a PIM program with {what}", f"{cycles} cycles instead of {short}", "more cycles")
    release = 10 * short
    done = _alone(subject, [(TILE, row, results, 1)], release)
    if done <= release:
        yield Finding(f"a PIM program with release = {release}", f"complete at cycle {done}", "a later cycle")


def _needs_pim(subject: Subject) -> None:
    if not subject.capabilities.pim:
        raise SkipError("claims no PIM")
    if subject.pim.trouble is not None:
        raise SkipError("see pim")


def _alone(subject: Subject, operations: Sequence[Operation], release: int | None = None) -> int:
    """Cycles that a program takes on an idle memory."""
    return _finished(subject.trial([Program(0, 0, tuple(operations), release)])).done[0] or 0


@_check
def dual(subject: Subject) -> Findings:
    """With dual row buffers transfers complete while a PIM program runs on their channel."""
    if not subject.capabilities.dual_row_buffers:
        raise SkipError("claims no dual row buffers")
    _needs_pim(subject)
    rows, readouts = subject.config.organization.rows, min(4, subject.space.row_dots)
    dots = subject.space.row_dots // readouts
    program = Program(0, 0, tuple((TILE, rows - 1 - index % 2, readouts, dots) for index in range(24)))
    length = _alone(subject, program.operations)
    begin = length // 8
    transfers = [Transfer(begin, kind, 0, subject.space.burst_bytes, channel=0) for kind in (READ, WRITE)]
    trial = _finished(subject.trial([program, *transfers]))
    end, *completions = (done or 0 for done in trial.done)
    for work, done in zip(transfers, completions, strict=True):
        if done >= (begin + end) // 2:
            asked = f"{work}, during a PIM program of {length} cycles"
            happened = f"complete at cycle {done}; the program is at cycle {end}"
            yield Finding(asked, happened, f"before cycle {(begin + end) // 2}, half of what the program has left")


@_check
def legality(subject: Subject) -> Findings:
    """Every logged command is legal by the table's constraint rows, and ranks are refreshed."""
    finished = subject.finished()
    mixed = subject.together if subject.capabilities.pim and subject.together in finished else subject.transfers
    if not len(mixed.log):
        raise SkipError("keeps no command log")
    for trial in (mixed, subject.flood):
        yield from _illegal(subject, trial)


def _illegal(subject: Subject, trial: Trial) -> Findings:
    asked, until = f"{len(trial.works)} transfers and PIM programs", trial.memory_cycles
    for violation in check_commands(subject.config, trial.log, preset=subject.preset, until=until):
        yield Finding(asked, str(violation), "no command before the table allows it")


@_check
def refresh(subject: Subject) -> Findings:
    """Commands are legal and banks refreshed in time under every other refresh policy that the table has rows for."""
    if not subject.has_commands:
        raise SkipError("issues no commands by the policies of the table")
    subject.finished()
    tried = [other for policy in REFRESHES if (other := _other_refresh(subject, policy)) is not None]
    if not tried:
        raise SkipError("the table has rows for one policy only")
    for other in tried:
        trial = _finished(other.together if other.capabilities.pim else other.transfers)
        yield from _illegal(other, trial)


def _other_refresh(subject: Subject, policy: str) -> Subject | None:
    """The memory with another policy that refreshes; None where its table does not allow that."""
    command = REFRESHES[policy].command
    if command is None or policy == subject.config.controller.refresh:
        return None
    if not any(command in row.previous and "ACT" in row.next for row in subject.config.constraints):
        return None
    table = _with_refresh(subject.config, policy)
    return None if any(memory_violations(table, subject.preset)) else subject.of(table)


def _with_refresh(table: MemoryConfig, policy: str) -> MemoryConfig:
    """A table with another ``controller.refresh``."""
    return table.model_copy(update={"controller": table.controller.model_copy(update={"refresh": policy})})

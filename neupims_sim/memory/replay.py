"""Replay of a memory request trace and a PIM program, without a clock process: what ``neupims-sim memory replay`` runs.

A trace is text, ``0xADDRESS READ|WRITE CYCLE`` per line (the format of DRAMsim3): one burst at a byte address, offered from its cycle
on. Requests are offered in order, one per cycle, and the next waits until its channel has room. Empty lines and what follows a
``#`` are left out. The other words of DRAMsim3 are read as well: ``read``, ``P_MEM_RD``, ``P_FETCH``; ``write``, ``P_MEM_WR``, ``BOFF``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neupims_sim.compiling import kept
from neupims_sim.errors import InputError
from neupims_sim.memory.device import CommandDevice
from neupims_sim.memory.engine import READ, WRITE
from neupims_sim.memory.program import PimProgram
from neupims_sim.memory.spec import ResolvedSpec
from neupims_sim.memory.text import BYTE_ORDER_MARK, refuse_compressed
from neupims_sim.showing import Shown

Int64Array = npt.NDArray[np.int64]
Text = npt.NDArray[np.uint8]

WATCHDOG_CYCLES = 10_000_000
"""A longer time without any command for a request or for PIM, while some wait, is a stall (INV-8)."""

DRAIN_CYCLES = 1000
"""Steps in which writes that are complete but not yet in their banks are waited for."""

MOST_LINE_BYTES = 1 << 16
"""The longest line of a trace that may lie across two of the parts in which it is read."""

MOST_ADDRESS_DIGITS, MOST_CYCLE_DIGITS = 15, 12
"""Digits that a trace may use, hexadecimal and decimal."""


@dataclass(frozen=True, repr=False)
class Requests(Shown):
    """Reads and writes of one burst each, in the order in which they are offered; int64 arrays of one length.

    Attributes
    ----------
    address: byte addresses; a request moves the burst that holds its address.
    kind: READ or WRITE.
    cycle: memory cycles before which a request is not offered.
    """

    address: Int64Array
    kind: Int64Array
    cycle: Int64Array

    def __len__(self) -> int:
        return len(self.address)


@dataclass(frozen=True, repr=False)
class Replay(Shown):
    """What a memory did with requests and a PIM program. Cycles are the memory's, counted from 0."""

    cycles: int
    """Last completion of anything."""
    memory_cycles: int
    """Last completion of a request, 0 without any."""
    pim_cycles: int
    """Last result or GWRITE of the PIM program, 0 without one."""
    reads: int
    writes: int
    mean_read_latency_cycles: float
    """From acceptance by the controller to the end of the burst; 0 without reads."""
    bandwidth_gbps: float
    """Bytes of the requests / time until their last completion, 1e9 B/s."""
    commands: dict[str, int]
    """Issued commands by name, until the last write has reached its bank (posted writes complete before)."""
    wall_seconds: float
    """Time that the engine took, compiled."""
    log: Int64Array | None = None
    """[commands, ``device.LOG_FIELDS``] in order of time, if asked for."""


def replay_requests(
    spec: ResolvedSpec,
    requests: Requests | Iterable[Requests] | None = None,
    program: PimProgram | None = None,
    *,
    log: bool = False,
    per_channel: bool = False,
) -> Replay:
    """Run requests, and in parallel a PIM program on channel 0, until everything is complete.

    Requests come from one source, in order, one per cycle; with ``per_channel`` from a source for each channel, so that those of one
    channel do not wait for those of another. ``requests`` may come in parts (:func:`stream_requests`), which are taken when the
    memory needs them, so that a trace longer than the machine's memory can be replayed; the result does not depend on where it is cut.

    Raises InputError if there is nothing to run, for an address beyond the capacity, and for a PIM program that the memory cannot run.
    """
    parts = iter([requests] if isinstance(requests, Requests) else requests or [])
    _compile(spec)
    device = CommandDevice(spec, log=log)
    feed = _Feed(device, (part for part in parts if len(part)), per_channel)
    waiting = set() if program is None else {device.submit_programs({0: program})}
    feed.give(waiting)
    if not waiting:
        raise InputError("nothing to replay: give requests, a PIM program, or both")

    wall_seconds = _run(device, waiting, feed)

    counters = device.counters()
    bytes_moved = (feed.reads + feed.writes) * spec.config.organization.burst_bytes
    memory_cycles = counters.last_memory_cycle
    return Replay(
        cycles=max(memory_cycles, counters.last_pim_cycle),
        memory_cycles=memory_cycles,
        pim_cycles=counters.last_pim_cycle,
        reads=feed.reads,
        writes=feed.writes,
        mean_read_latency_cycles=counters.read_latency_sum / feed.reads if feed.reads else 0.0,
        bandwidth_gbps=bytes_moved / memory_cycles * spec.config.organization.clock_ghz if memory_cycles else 0.0,
        commands=counters.commands,
        wall_seconds=wall_seconds,
        log=_by_time(device.take_log()) if log else None,
    )


class _Feed:
    """Hands the parts of a trace to a device, one after the other."""

    def __init__(self, device: CommandDevice, parts: Iterator[Requests], per_channel: bool) -> None:
        self.reads = self.writes = 0
        """Requests given so far."""
        self.last_offer = 0
        """The latest cycle from which on one of them is offered."""
        self._device, self._parts, self._per_channel = device, parts, per_channel
        self._next = next(parts, None)

    def give(self, waiting: set[int]) -> None:
        """Give the next part, if there is one, and add its item to ``waiting``."""
        part, self._next = self._next, next(self._parts, None)
        if part is None:
            return
        _check_capacity(self._device.spec, part)
        address = self._device.address
        channel, local = address.split(part.address // address.burst_bytes)
        waiting.add(
            self._device.load_trace(
                local, part.kind, part.cycle, channel, per_channel=self._per_channel, more=self._next is not None
            )
        )
        reads = int(np.count_nonzero(part.kind == READ))
        self.reads += reads
        self.writes += len(part) - reads
        self.last_offer = max(self.last_offer, int(part.cycle.max()))


def _run(device: CommandDevice, waiting: set[int], feed: _Feed) -> float:
    """Advance until all items are complete and all requests have moved; returns the seconds that the engine took."""
    moved, work, since = 0, 0, 0
    seconds = 0.0
    while waiting or moved < feed.reads + feed.writes:
        begin = time.perf_counter()
        waiting -= set(device.advance(device.time + (WATCHDOG_CYCLES if waiting else DRAIN_CYCLES))[1])
        seconds += time.perf_counter() - begin
        if device.needs_trace:
            feed.give(waiting)
            continue
        counters = device.counters()
        moved, before = counters.reads + counters.writes, work
        work = moved + counters.result_reads + counters.commands["GWRITE"]
        if work != before:
            since = device.time
        elif device.time > max(since, feed.last_offer) + WATCHDOG_CYCLES:
            raise InputError(
                f"memory {device.spec.config.name!r} is stuck at cycle {device.time}: {feed.reads + feed.writes - moved} "
                f"requests have not moved and nothing was issued for them or for PIM in {WATCHDOG_CYCLES} cycles; its "
                "constraints or policies let nothing happen"
            )
    return seconds


def _check_capacity(spec: ResolvedSpec, requests: Requests) -> None:
    capacity = spec.config.organization.capacity_bytes
    beyond = np.flatnonzero((requests.address < 0) | (requests.address >= capacity))
    if len(beyond):
        raise InputError(
            f"memory {spec.config.name!r}: request {beyond[0]} is at {requests.address[beyond[0]]:#x}; "
            f"allowed: below {capacity:#x}, its capacity"
        )


def _by_time(log: Int64Array) -> Int64Array:
    """A log, which is in issue order per channel, in order of time, then channel."""
    return log[np.lexsort((log[:, 1], log[:, 0]))]


def _compile(spec: ResolvedSpec) -> None:
    """Have the engine compiled (or loaded from Numba's cache) before time is taken; it is the same for every table."""
    device = CommandDevice(spec)
    device.submit_transfer(READ, 0, 1)
    device.advance(1)


# --- traces ---


def read_requests(path: str | Path, capacity_bytes: int | None = None) -> Requests:
    """Read a trace file; raises InputError as :func:`stream_requests` does."""
    parts = list(stream_requests(path, capacity_bytes))
    return Requests(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("address", "kind", "cycle")))


def stream_requests(
    path: str | Path, capacity_bytes: int | None = None, *, block_bytes: int = 1 << 21
) -> Iterator[Requests]:
    """Read a trace file in parts of about ``block_bytes`` of text.

    Raises InputError, with file and line, for a line that is not a request (a last line that stops short included) and for an
    address at or beyond ``capacity_bytes``; with the file's name if it cannot be read or holds no request.
    """
    path = Path(path)
    lines = found = 0
    try:
        with path.open("rb") as file:
            refuse_compressed(path, file.peek(2))
            if file.peek(len(BYTE_ORDER_MARK)).startswith(BYTE_ORDER_MARK):
                file.read(len(BYTE_ORDER_MARK))
            while block := file.read(block_bytes):
                rest = file.readline(MOST_LINE_BYTES)
                if len(rest) == MOST_LINE_BYTES:
                    number = lines + block.count(b"\n") + 1
                    raise InputError(
                        f"{path}:{number}: a line of more than {MOST_LINE_BYTES} bytes is not a request; allowed: {_ALLOWED}"
                    )
                text = np.frombuffer(block + rest, dtype=np.uint8)
                requests = _parsed(path, text, lines, capacity_bytes)
                lines += int(np.count_nonzero(text == _NEWLINE))
                found += len(requests)
                yield requests
    except OSError as error:
        raise InputError(f"{path}: the trace cannot be read: {error.strerror or error}") from None
    if found == 0:
        raise InputError(f"{path}: the trace holds no request; allowed, one per line: {_ALLOWED}")


def _parsed(path: Path, text: Text, lines_before: int, capacity_bytes: int | None) -> Requests:
    # A line needs 10 characters at least ("0x0 READ 0").
    requests = np.empty((3, len(text) // 10 + 1), dtype=np.int64)
    count, line, at = _parse(text, requests[0], requests[1], requests[2])
    if line:
        raise InputError(f"{path}:{lines_before + line}: {_line(text, at)!r} is not a request; allowed: {_ALLOWED}")
    address, kind, cycle = requests[:, :count]
    if capacity_bytes is not None and count and int(address.max()) >= capacity_bytes:
        which = int(np.argmax(address >= capacity_bytes))
        raise InputError(
            f"{path}:{lines_before + _line_of(text, which)}: address {address[which]:#x} is beyond the memory; "
            f"allowed: below {capacity_bytes:#x}, its capacity"
        )
    return Requests(address, kind, cycle)


_ALLOWED = (
    f"'0xADDRESS READ|WRITE CYCLE', an address of at most {MOST_ADDRESS_DIGITS} hexadecimal digits and a cycle of at most "
    f"{MOST_CYCLE_DIGITS} decimal digits"
)
_READ, _READ_LOWER, _MEMORY_READ, _FETCH, _WRITE, _WRITE_LOWER, _MEMORY_WRITE, _WRITE_BACK = (
    np.frombuffer(word, dtype=np.uint8)
    for word in (b"READ", b"read", b"P_MEM_RD", b"P_FETCH", b"WRITE", b"write", b"P_MEM_WR", b"BOFF")
)
_TAB, _NEWLINE, _RETURN, _SPACE, _HASH, _ZERO, _NINE = b"\t\n\r #09"
_LOWER_X, _LOWER_A, _LOWER_F = b"xaf"
_TO_LOWER = 32


def _line(text: Text, at: int) -> str:
    """The line around a position, as an error message shows it."""
    begin = text[:at].tobytes().rfind(b"\n") + 1
    line = text[begin : begin + 200].tobytes().split(b"\n")[0].decode(errors="replace").strip()
    return line if len(line) <= 60 else line[:57] + "..."


def _line_of(text: Text, request: int) -> int:
    """The number of the line that holds a request."""
    lines = text.tobytes().split(b"\n")
    holding = (number for number, line in enumerate(lines, 1) if line.split(b"#")[0].strip())
    return next(number for which, number in enumerate(holding) if which == request)


@kept()
def _parse(text: Text, address: Int64Array, kind: Int64Array, cycle: Int64Array) -> tuple[int, int, int]:
    """Fill the arrays; returns (requests, 0, 0), or (requests before it, line number, position) of the first bad line."""
    size = len(text)
    at, line, count = 0, 0, 0
    while at < size:
        line += 1
        at = _skip_blanks(text, at)
        if not _at_end(text, at):
            begin = at
            if at + 1 >= size or text[at] != _ZERO or text[at + 1] | _TO_LOWER != _LOWER_X:
                return count, line, begin
            address[count], at = _number(text, at + 2, 16, MOST_ADDRESS_DIGITS)
            word = _skip_blanks(text, at)
            if at < 0 or word == at:
                return count, line, begin
            kind[count], at = _kind(text, word)
            if at < 0:
                return count, line, begin
            digits = _skip_blanks(text, at)
            if digits == at:
                return count, line, begin
            cycle[count], at = _number(text, digits, 10, MOST_CYCLE_DIGITS)
            if at < 0:
                return count, line, begin
            at = _skip_blanks(text, at)
            if not _at_end(text, at):
                return count, line, begin
            count += 1
        while at < size and text[at] != _NEWLINE:
            at += 1
        at += 1
    return count, 0, 0


@kept()
def _skip_blanks(text: Text, at: int) -> int:
    """The position of the next character of the line that is not blank; -1 stays -1."""
    while 0 <= at < len(text) and (text[at] == _SPACE or text[at] == _TAB or text[at] == _RETURN):
        at += 1
    return at


@kept()
def _at_end(text: Text, at: int) -> bool:
    """Whether nothing more is on the line."""
    return at >= len(text) or text[at] == _NEWLINE or text[at] == _HASH


@kept()
def _kind(text: Text, at: int) -> tuple[int, int]:
    """(READ or WRITE, position after the word); position -1 for another word."""
    for word in (_READ, _READ_LOWER, _MEMORY_READ, _FETCH):
        if _is_word(text, at, word):
            return READ, at + len(word)
    for word in (_WRITE, _WRITE_LOWER, _MEMORY_WRITE, _WRITE_BACK):
        if _is_word(text, at, word):
            return WRITE, at + len(word)
    return READ, -1


@kept()
def _is_word(text: Text, at: int, word: Text) -> bool:
    if at + len(word) > len(text):
        return False
    for index in range(len(word)):  # noqa: SIM110 (compiled)
        if text[at + index] != word[index]:
            return False
    return True


@kept()
def _number(text: Text, at: int, base: int, most_digits: int) -> tuple[int, int]:
    """(value, position after it); position -1 if there is no number or it has too many digits."""
    value, begin = 0, at
    while at < len(text):
        character = text[at]
        if _ZERO <= character <= _NINE:
            digit = character - _ZERO
        elif base == 16 and _LOWER_A <= character | _TO_LOWER <= _LOWER_F:
            digit = (character | _TO_LOWER) - _LOWER_A + 10
        else:
            break
        value = value * base + int(digit)
        at += 1
    return value, at if 0 < at - begin <= most_digits else -1

"""One case in a process of its own, with a bound on time and memory."""

from __future__ import annotations

import io
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from neupims_sim.cli import main

Outcome = Literal["fine", "refused", "stalled", "unclear", "traceback", "out of time", "out of memory"]
GOOD: tuple[Outcome, ...] = ("fine", "refused", "stalled")
"""``refused``: exit code 2 and one short line of printable text. ``stalled``: exit code 1 and the line that says who waits."""
BAD: tuple[Outcome, ...] = ("unclear", "traceback", "out of time", "out of memory")
"""``unclear``: an exit code that says nothing, or a message that is not one short line."""

SECONDS = 60
"""Of CPU; of the clock :data:`PATIENCE` times as many, for the machine may be busy."""
PATIENCE = 3
MEMORY_BYTES = 3 * 2**30
"""Of address space beyond what the program has when it starts."""
LONGEST_LINE = 3_100
SEEN_BYTES = 20_000
"""Of what a case prints; more is not looked at."""


@dataclass(frozen=True)
class Case:
    """A call of the program.

    Attributes
    ----------
    area: what it is about, for the table of counts.
    name: what is hostile about it.
    arguments: of the command line.
    files: written into the current folder first, by name; None is a folder.
    codes: exit codes that are fine.
    """

    area: str
    name: str
    arguments: tuple[str, ...]
    files: Mapping[str, bytes | None] = field(default_factory=dict)
    codes: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Result:
    """What became of a case."""

    case: Case
    outcome: Outcome
    seconds: float
    message: str
    """The end of what it printed to stderr."""


def warm_up(folder: Path) -> None:
    """Load and compile what cases need, so that their processes, which are copies of this one, have it."""
    trace = folder / "warm.txt"
    trace.write_text("0x40 READ 0\n")
    run = ["run", "neupims", "--set", "model={name: m, layers: 2, heads: 8, d_model: 256, d_ff: 256, vocabulary: 100}"]
    run += ["--set", "parallel.tensor=1", "--set", "workload.batch_size=2", "--out", str(folder / "warm")]
    for arguments in (run, ["memory", "replay", "hbm2", str(trace), "--channels", "1", "--json"], ["list", "plots"]):
        with redirect_stdout(io.StringIO()), suppress(SystemExit):
            main(arguments)


def execute(case: Case, seconds: int = SECONDS) -> Result:
    """Run a case in an empty folder."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        for path, content in case.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                (folder / path).mkdir()
            else:
                (folder / path).write_bytes(content)
        output = folder.with_name(f"{folder.name}-stderr")
        start = time.perf_counter()
        try:
            code = _forked(case.arguments, folder, output, seconds)
            with open(output, "rb") as file:
                message = file.read(SEEN_BYTES).decode(errors="replace")
        finally:
            output.unlink(missing_ok=True)
        return Result(case, _outcome(case, code, message), time.perf_counter() - start, message[-2_000:])


def _forked(arguments: tuple[str, ...], folder: Path, output: Path, seconds: int) -> int:
    """Exit code (negative: a signal) of the program in a copy of this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            _become(arguments, folder, output, seconds)
        finally:
            os._exit(70)
    descriptor = os.pidfd_open(child)
    try:
        ended, _, _ = select.select([descriptor], [], [], PATIENCE * seconds)
        if not ended:
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(descriptor)
    return os.waitstatus_to_exitcode(status) if ended else -signal.SIGKILL


def _become(arguments: tuple[str, ...], folder: Path, output: Path, seconds: int) -> None:
    """The program with its output in files; never returns."""
    os.setpgid(0, 0)
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", errors="backslashreplace")
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES, size + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code: object = 70
    try:
        main(list(arguments))
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 70)


def _outcome(case: Case, code: int, message: str) -> Outcome:
    if code in (-signal.SIGKILL, -signal.SIGXCPU):
        return "out of time"
    if "MemoryError" in message or "Cannot allocate memory" in message or "Unable to allocate" in message:
        return "out of memory"
    if "Traceback (most recent call last)" in message or code < 0 or code == 70:
        return "traceback"
    lines = [line for line in message.splitlines() if not line.startswith(("note:", "warning:"))]
    clear = (
        len(lines) == 1 and lines[0].startswith("error: ") and len(lines[0]) <= LONGEST_LINE and lines[0].isprintable()
    )
    if code == 2:
        return "refused" if clear else "unclear"
    if code == 1 and clear and lines[0].startswith("error: the simulation stalled"):
        return "stalled"
    return "fine" if code in case.codes else "unclear"

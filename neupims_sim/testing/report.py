"""What the conformance suite found, as data and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from neupims_sim.showing import Shown

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One broken promise."""

    asked: str
    happened: str
    expected: str

    def __str__(self) -> str:
        return f"  asked:    {self.asked}\n  happened: {self.happened}\n  expected: {self.expected}"


@dataclass(frozen=True)
class CheckResult:
    """What one check found."""

    name: str
    promise: str
    status: Status
    findings: tuple[Finding, ...] = ()
    note: str = ""
    """Why a check was skipped, or how many more findings there are."""

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.promise}", *map(str, self.findings)]
        return "\n".join([*lines, f"  ({self.note})"] if self.note else lines)


@dataclass(frozen=True, repr=False)
class ConformanceReport(Shown):
    """The results of all checks on one memory."""

    memory: str
    model: str
    preset: str
    results: tuple[CheckResult, ...]

    @property
    def failures(self) -> list[CheckResult]:
        """The checks that failed."""
        return [result for result in self.results if result.status == "failed"]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def summary(self) -> str:
        """One line."""
        what = f"memory {self.memory!r} (model {self.model!r}, preset {self.preset!r})"
        done = sum(result.status != "skipped" for result in self.results)
        return f"{what} passes {done} checks" if self.passed else f"{what} fails {len(self.failures)} of {done} checks"

    def __str__(self) -> str:
        return "\n\n".join([self.summary, *map(str, self.failures)])


class ConformanceError(AssertionError):
    """A memory model breaks a promise; the message is the report."""

    def __init__(self, report: ConformanceReport) -> None:
        super().__init__(str(report))
        self.report = report

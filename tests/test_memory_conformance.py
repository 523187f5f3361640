"""The conformance suite: what it passes, and that it names what is broken."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import simpy
from cli_cases import Captured, run
from hypothesis import given, settings
from memory_cases import variants

from neupims_sim.config import MemoryConfig, load_memory
from neupims_sim.config.files import read_yaml
from neupims_sim.errors import InputError
from neupims_sim.memory import MEMORY_MODELS, Capabilities, Counters, PimProgram
from neupims_sim.memory.models import (
    CommandMemory,
    IdealMemory,
    MemoryModel,
    SimEvent,
    SimulationStalled,
    build_memory,
)
from neupims_sim.testing import CheckResult, ConformanceError, check_memory_model

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = [
    (path.stem, preset)
    for path in sorted((ROOT / "configs" / "memory").glob("*.yaml"))
    for preset in ["physical", *(name for name in read_yaml(path).get("presets", {}) if name != "physical")]
]


@pytest.mark.parametrize(("name", "preset"), SHIPPED)
def test_every_shipped_memory_conforms(name: str, preset: str) -> None:
    report = check_memory_model(name, preset=preset)
    results = {result.name: result.status for result in report.results}
    pim = load_memory(name).row_buffers != "none"
    assert results["conservation"] == results["clock"] == results["pim"] == "passed"
    assert results["pim_time"] == ("passed" if pim else "skipped")


# --- a PIM model without commands, which conforms, and the memories that are made of it by breaking something ---


class Analytical(IdealMemory):
    """Bandwidth, latency and PIM programs of fixed cost: every operation takes 20 cycles, and 2 per dot-product."""

    def __init__(self, env: simpy.Environment, config: MemoryConfig, **options: Any) -> None:
        super().__init__(env, config, **options)
        self.channel_free = [0] * config.organization.channels
        self.pim_free = [0] * config.organization.channels

    def transfer_in_channel(self, kind: int, channel: int, address: int, size_bytes: int) -> SimEvent:
        bursts, organization = self.bursts(address, size_bytes, channel), self.config.organization
        self.channel_free[channel] = max(self.channel_free[channel], self.cycle) + bursts * organization.burst_cycles
        self.bus_free = max(self.bus_free, self.cycle) + bursts * organization.burst_cycles / organization.channels
        done = max(self.channel_free[channel], math.ceil(self.bus_free)) + self.config.ideal_latency_cycles
        self.count_bursts(kind, bursts, done - self.cycle)
        return self.event_at(done)

    def run_program(self, channel: int, program: PimProgram, release: Any = None) -> SimEvent:
        self.check_program(channel, program)
        start = max(self.pim_free[channel], self.cycle, 0 if release is None else int(release.max()))
        self.pim_free[channel] = start + self.program_cycles(program)
        self.count_program(program, self.program_cycles(program))
        return self.program_event(self.pim_free[channel])

    def program_cycles(self, program: PimProgram) -> int:
        return 20 * len(program) + 2 * program.dots

    def program_event(self, cycle: int) -> SimEvent:
        return self.event_at(cycle)


def test_a_model_without_commands_conforms() -> None:
    report = check_memory_model("hbm2_pim_dual", Analytical)
    assert [(result.name, result.note) for result in report.results if result.status != "passed"] == [
        ("legality", "keeps no command log"),
        ("refresh", "issues no commands by the policies of the table"),
    ]


class DeclaresTooMuch(Analytical):
    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, peak_bytes_per_cycle=super().capabilities.peak_bytes_per_cycle * 2)


class DeclaresAnotherSize(Analytical):
    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, capacity_bytes=super().capabilities.capacity_bytes // 2)


class ForgetsOne(Analytical):
    """The event of one transfer never fires."""

    asked = 0

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        event = super().transfer(kind, address, size_bytes)
        self.asked += 1
        return self.env.event() if self.asked == 20 else event


class TicksForever(Analytical):
    """Never answers, but keeps the clock busy."""

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        def tick() -> Generator[SimEvent, Any, None]:
            while True:
                yield self.env.timeout(10_000)

        super().transfer(kind, address, size_bytes)
        self.env.process(tick())
        return self.env.event()


class Spins(Analytical):
    """The clock never gets to the next cycle."""

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        def spin() -> Generator[SimEvent, Any, None]:
            while True:
                yield self.env.timeout(0)

        event = super().transfer(kind, address, size_bytes)
        self.env.process(spin())
        return event


class FiresTwice(Analytical):
    """The same event is fired by two processes."""

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        done = self.env.event()
        for event in (super().transfer(kind, address, size_bytes), self.env.timeout(1000)):
            assert event.callbacks is not None
            event.callbacks.append(lambda _: done.succeed())
        return done


class OneEventForAll(Analytical):
    event: SimEvent | None = None

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        event = super().transfer(kind, address, size_bytes)
        if self.event is None or self.event.processed:
            self.event = event
        return self.event


class ReturnsNothing(Analytical):
    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        super().transfer(kind, address, size_bytes)
        return None  # type: ignore[return-value]


class Crashes(Analytical):
    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        if size_bytes > 4096:
            raise IndexError("queue overflow")
        return super().transfer(kind, address, size_bytes)


class TakesNoTime(Analytical):
    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        super().transfer(kind, address, size_bytes)
        return self.env.timeout(0)


class CompleteBefore(Analytical):
    """The event has fired when it is returned."""

    def __init__(self, env: simpy.Environment, config: MemoryConfig, **options: Any) -> None:
        super().__init__(env, config, **options)
        self.fired = env.event()
        self.fired.callbacks = None

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        super().transfer(kind, address, size_bytes)
        return self.fired


class NegativeDelay(Analytical):
    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        super().transfer(kind, address, size_bytes)
        return self.env.timeout(-3)


class GoesBack(Analytical):
    """Puts an event into the past behind SimPy's back."""

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        super().transfer(kind, address, size_bytes)
        event = self.env.event()
        event._ok, event._value = True, None
        self.env.schedule(event, delay=-3 if self.env.now > 100 else 100)
        return event


class LosesBursts(Analytical):
    """An unaligned transfer moves its bytes, not the bursts that they touch."""

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        burst = self.config.organization.burst_bytes
        self.count_bursts(kind, size_bytes // burst - self.bursts(address, size_bytes), 0)
        return super().transfer(kind, address, size_bytes)


class MovesTwice(Analytical):
    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        self.count_bursts(kind, self.bursts(address, size_bytes), 1)
        return super().transfer(kind, address, size_bytes)


class TooFast(Analytical):
    """Latency only: everything is done 50 cycles later, whatever its size."""

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        super().transfer(kind, address, size_bytes)
        return self.event_at(self.cycle + 50)


class OverlapsTransfers(Analytical):
    """Each transfer on its own is slow enough; two at once share nothing."""

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        self.bus_free = 0
        return super().transfer(kind, address, size_bytes)


class NoEnd(Analytical):
    """Takes any address."""

    def bursts(self, address: int, size_bytes: int, channel: int | None = None) -> int:
        burst = self.config.organization.burst_bytes
        return max(1, -(-(address + size_bytes) // burst) - address // burst)


class AnotherError(Analytical):
    def bursts(self, address: int, size_bytes: int, channel: int | None = None) -> int:
        try:
            return super().bursts(address, size_bytes, channel)
        except InputError as error:
            raise IndexError(str(error)) from None


class RefusesTheLastByte(Analytical):
    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        return super().transfer(kind, address, size_bytes + 1)


class CountsWhatItRefuses(Analytical):
    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        self.count_bursts(kind, 1, 1)
        event = super().transfer(kind, address, size_bytes)
        self.count_bursts(kind, -1, 1)
        return event


class AnyChannel(Analytical):
    def transfer_in_channel(self, kind: int, channel: int, address: int, size_bytes: int) -> SimEvent:
        return super().transfer_in_channel(kind, channel % self.capabilities.channels, address, size_bytes)


class ChannelsShareNothing(Analytical):
    """One channel gets the bandwidth of all."""

    def transfer_in_channel(self, kind: int, channel: int, address: int, size_bytes: int) -> SimEvent:
        super().transfer_in_channel(kind, channel, address, size_bytes)
        return self.event_at(math.ceil(self.bus_free) + self.config.ideal_latency_cycles)


class PimWithoutChannels(Analytical):
    def transfer_in_channel(self, kind: int, channel: int, address: int, size_bytes: int) -> SimEvent:
        return MemoryModel.transfer_in_channel(self, kind, channel, address, size_bytes)


class LiveCounters(Analytical):
    """Hands out its own books."""

    def counters(self) -> Counters:
        return self.totals


class CountersShrink(Analytical):
    """Reads are forgotten for a while."""

    def counters(self) -> Counters:
        now = super().counters()
        return replace(now, reads=0, commands={}) if 500 < self.cycle < 600 else now


class CommandsDisagree(Analytical):
    def counters(self) -> Counters:
        now = super().counters()
        return replace(now, commands={"RD": now.reads, "WR": now.writes // 2})


class ReadsTakeNoTime(Analytical):
    def counters(self) -> Counters:
        return replace(super().counters(), read_latency_sum=0)


class AlwaysBusy(Analytical):
    def counters(self) -> Counters:
        return replace(super().counters(), pim_busy_cycles=self.cycle)


class DependsOnThePast(Analytical):
    """State of the class, not of the memory."""

    calls = itertools.count()

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        self.bus_free = max(self.bus_free, self.cycle) + next(self.calls) % 7
        return super().transfer(kind, address, size_bytes)


class RandomReads(Analytical):
    """The cycles are the same, the counters are not."""

    calls = itertools.count()

    def counters(self) -> Counters:
        now = super().counters()
        return replace(now, read_latency_sum=now.read_latency_sum + next(self.calls) * (now.reads > 0))


class IgnoresTheClock(Analytical):
    """Takes device cycles for memory cycles."""

    @property
    def cycle(self) -> int:
        return int(self.env.now)

    def event_at(self, cycle: int) -> SimEvent:
        return self.env.timeout(cycle - int(self.env.now))


class DeclaresMemoryCycles(Analytical):
    """Converts times, but not the bandwidth."""

    @property
    def capabilities(self) -> Capabilities:
        peak = super().capabilities.peak_bytes_per_cycle * self.clock_ghz / self.config.organization.clock_ghz
        return replace(super().capabilities, peak_bytes_per_cycle=peak)


class PimNeverCompletes(Analytical):
    def program_event(self, cycle: int) -> SimEvent:
        return self.env.event()


class PimCountsTilesOnly(Analytical):
    def count_program(self, program: PimProgram, busy_cycles: int) -> None:
        self.totals.tiles += program.tiles


class PimTakesNoTime(Analytical):
    def program_event(self, cycle: int) -> SimEvent:
        return self.env.timeout(0)


class PimTakesAnyRow(Analytical):
    def run_program(self, channel: int, program: PimProgram, release: Any = None) -> SimEvent:
        operations = program.operations % (2**31, self.config.organization.rows, 2**31, 2**31)
        return super().run_program(channel, PimProgram(operations.astype("int32")), release)


class PimIgnoresLength(Analytical):
    def program_cycles(self, program: PimProgram) -> int:
        return 100


class PimIgnoresRelease(Analytical):
    def run_program(self, channel: int, program: PimProgram, release: Any = None) -> SimEvent:
        return super().run_program(channel, program, None)


class PimWhereThereIsNone(Analytical):
    """Computes, but says that it cannot."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, pim=False, dual_row_buffers=False)

    def check_program(self, channel: int, program: PimProgram) -> None:
        pass


class DualInNameOnly(Analytical):
    """A transfer waits until the PIM of its channel is done."""

    def transfer_in_channel(self, kind: int, channel: int, address: int, size_bytes: int) -> SimEvent:
        if 0 <= channel < self.capabilities.channels:
            self.channel_free[channel] = max(self.channel_free[channel], self.pim_free[channel])
        return super().transfer_in_channel(kind, channel, address, size_bytes)


class ActivatesTooEarly(CommandMemory):
    """Its engine reads another table than it declares."""

    def __init__(self, env: simpy.Environment, config: MemoryConfig, **options: Any) -> None:
        timing = config.timing | {"tRCD": config.timing["tRCD"] - 1}
        super().__init__(env, config.model_copy(update={"timing": timing}), **options)
        self.config = config


class NeverRefreshes(CommandMemory):
    policies: tuple[str, ...] = ("all_bank",)

    def __init__(self, env: simpy.Environment, config: MemoryConfig, **options: Any) -> None:
        if config.controller.refresh not in self.policies:
            super().__init__(env, config, **options)
            return
        controller = config.controller.model_copy(update={"refresh": "off"})
        super().__init__(env, config.model_copy(update={"controller": controller}), **options)
        self.config = config


class RefreshesRanksOnly(NeverRefreshes):
    """It does not know REFPB, which the table has rows for."""

    policies = ("per_bank",)


class LogsHalf(CommandMemory):
    def take_log(self) -> Any:
        return super().take_log()[::2]


BROKEN: list[tuple[type[MemoryModel], str, str]] = [
    (DeclaresTooMuch, "declaration", "at most the 128 B/cycle of the table's data bus"),
    (DeclaresAnotherSize, "declaration", "capabilities.capacity_bytes"),
    (ForgetsOne, "completion", "1 of 120 events have not fired, and none for 40000 cycles"),
    (TicksForever, "completion", "have not fired, and none for 40000 cycles"),
    (Spins, "completion", "and no end"),
    (FiresTwice, "completion", "has already been triggered"),
    (OneEventForAll, "completion", "an event of its own for every call"),
    (ReturnsNothing, "completion", "the call returned None"),
    (Crashes, "completion capacity", "IndexError: queue overflow"),
    (TakesNoTime, "time bandwidth counters pim", "complete at cycle 50\n  expected: cycle 51 or later"),
    (CompleteBefore, "time", "the event has fired already"),
    (NegativeDelay, "time", "Negative delay -3"),
    (GoesBack, "time", "the clock went from cycle"),
    (LosesBursts, "conservation", "that touch"),
    (MovesTwice, "conservation", "counters().reads ="),
    (TooFast, "bandwidth counters", "the declared peak is 128.0 B/cycle"),
    (OverlapsTransfers, "bandwidth", "complete after"),
    (NoEnd, "capacity channels", "accepted\n  expected: InputError"),
    (AnotherError, "capacity channels", "happened: IndexError: memory"),
    (RefusesTheLastByte, "capacity conservation", "does not fit"),
    (CountsWhatItRefuses, "capacity", "refused, but counted"),
    (AnyChannel, "channels", "of channel 4, at cycle 0\n  happened: accepted"),
    (ChannelsShareNothing, "channels", "in channel 0"),
    (PimWithoutChannels, "channels completion dual", "has no channels of its own"),
    (LiveCounters, "counters", "what it returned has changed since"),
    (CountersShrink, "counters", "it never decreases"),
    (CommandsDisagree, "counters", "as many WR as writes"),
    (ReadsTakeNoTime, "counters", "read_latency_sum = 0"),
    (AlwaysBusy, "counters", "pim_busy_cycles"),
    (DependsOnThePast, "determinism clock", "the second time at cycle"),
    (RandomReads, "determinism", "counters().read_latency_sum after the same work"),
    (IgnoresTheClock, "clock", "ns as with 1 GHz"),
    (DeclaresMemoryCycles, "clock", "capabilities.peak_bytes_per_cycle of a device at 0.7 GHz"),
    (PimNeverCompletes, "pim", "PIM program of"),
    (PimCountsTilesOnly, "pim", "counters().dot_products = 0"),
    (PimTakesNoTime, "pim time pim_time dual", "complete at cycle 60\n  expected: cycle 61 or later"),
    (PimTakesAnyRow, "pim", "accepted\n  expected: InputError"),
    (PimIgnoresLength, "pim_time dual", "a PIM program with 8 tiles instead of 1"),
    (PimIgnoresRelease, "pim_time", "a PIM program with release ="),
    (PimWhereThereIsNone, "pim", "accepted\n  expected: InputError"),
    (DualInNameOnly, "dual", "half of what the program has left"),
    (ActivatesTooEarly, "legality refresh", "breaks [bank, ACT, RD WR, tRCD]"),
    (NeverRefreshes, "legality", "floor(T /"),
    (RefreshesRanksOnly, "refresh", "floor(T /"),
    (LogsHalf, "counters legality refresh", "counters and command log agree"),
]
"""Broken memories, the checks that fail, and a part of what the first of these says."""


def failures(model: type[MemoryModel], memory: str = "hbm2_pim_dual", **options: Any) -> list[CheckResult]:
    with pytest.raises(ConformanceError) as error:
        check_memory_model(memory, model, overrides={"organization.channels": 4}, patience_cycles=40_000, **options)
    report = error.value.report
    assert not report.passed
    assert str(report) == str(error.value)
    return report.failures


@pytest.mark.parametrize(("model", "checks", "message"), BROKEN, ids=[model.__name__ for model, _, _ in BROKEN])
def test_a_broken_model_fails_the_checks_of_what_it_breaks(model: type[MemoryModel], checks: str, message: str) -> None:
    failed = failures(model)
    assert sorted(result.name for result in failed) == sorted(checks.split())
    assert message in next(str(result) for result in failed if result.name == checks.split()[0])


def test_a_report_says_what_was_asked_what_happened_and_what_was_expected() -> None:
    with pytest.raises(ConformanceError) as error:
        check_memory_model("ideal", IgnoresTheClock, overrides={"organization.channels": 4})
    lines = str(error.value).splitlines()
    assert lines[0] == (
        "memory 'ideal memory' (model 'test_memory_conformance:IgnoresTheClock', preset 'physical') fails 1 of 11 checks"
    )
    assert lines[1:6] == [
        "",
        "clock: A device with another clock sees the same times in seconds, and the same bandwidth, rounded up to its own cycles",
        "  asked:    read of 8192 B at 0x0, at cycle 0, of a device at 0.7 GHz",
        "  happened: complete after 114 cycles = 162.9 ns",
        "  expected: 114.0 ns as with 1 GHz: about 80 cycles",
    ]
    assert lines[-1] == "  (and 1 more)"
    assert isinstance(error.value, AssertionError)


@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_ask_for_other_work(seed: int) -> None:
    assert check_memory_model("hbm2_pim_dual", overrides={"organization.channels": 2}, seed=seed).passed


@settings(max_examples=4)
@given(variants())
def test_legal_tables_that_nobody_ships_raise_no_false_alarm(variant: tuple[MemoryConfig, str]) -> None:
    table, preset = variant
    assert check_memory_model(table, preset=preset).passed


def test_a_memory_that_nobody_else_waits_beside_gives_up() -> None:
    """INV-8 without a watchdog: an event of the memory is all that there is, and it does not come."""
    env = simpy.Environment()
    table = load_memory("hbm2", overrides={"organization.channels": 1})
    memory = build_memory(env, table.model_copy(update={"timing": table.timing | {"tRCD": 10**10}}))
    done = memory.transfer(0, 0, 64)
    with pytest.raises(
        SimulationStalled, match=r"'HBM2 8 Gb x128': 1 transfers and PIM programs pending, none completed"
    ):
        env.run(until=done)


def test_a_path_and_a_resolved_table_can_be_checked_too() -> None:
    by_path = check_memory_model(ROOT / "configs" / "memory" / "ideal.yaml")
    assert check_memory_model(load_memory("ideal")) == check_memory_model("ideal")
    assert by_path == check_memory_model("ideal")


def test_what_cannot_be_built_is_bad_input_not_a_finding() -> None:
    with pytest.raises(InputError, match=r"unknown memory model 'idael'.*did you mean ideal\?"):
        check_memory_model("ideal", overrides={"model": "idael"})
    with pytest.raises(InputError, match=r"unknown timing .tRAS."):
        check_memory_model(load_memory("hbm2").model_copy(update={"timing": {}}))


# --- the command line ---


@MEMORY_MODELS.register("broken")
class Broken(TakesNoTime):
    """A broken model with a name."""


def test_the_command_prints_a_table_of_checks(capsys: Captured) -> None:
    code, output, progress = run(capsys, "memory", "check", "ideal")
    assert (code, progress) == (0, "")
    assert "conservation │ passed" in output
    assert "legality     │ skipped" in output
    assert output.splitlines()[-1] == "memory 'ideal memory' (model 'ideal', preset 'physical') passes 10 checks"


def test_a_memory_that_fails_ends_in_exit_code_1_with_the_findings(capsys: Captured) -> None:
    code, output, _ = run(capsys, "memory", "check", "ideal", "--set", "model=broken")
    assert code == 1
    assert "time         │ failed" in output
    assert "fails 3 of 11 checks" in output
    assert "  expected: cycle 51 or later" in output
    code, output, _ = run(capsys, "memory", "check", "ideal", "--set", "model=broken", "--json")
    report = json.loads(output)
    assert code == 1
    assert report["passed"] is False
    failed = {result["name"]: result["findings"] for result in report["results"] if result["status"] == "failed"}
    assert set(failed) == {"time", "bandwidth", "counters"}
    assert set(failed["time"][0]) == {"asked", "happened", "expected"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hbm22"], "did you mean hbm2?"),
        (["hbm2", "--preset", "fysical"], "did you mean physical?"),
        (["hbm2", "--set", "timing.tRCDD=1"], "did you mean tRCD?"),
        (["hbm2", "--set", "model=no.such.module:Model"], "No module named"),
    ],
)
def test_bad_input_of_the_command_is_one_line_and_exit_code_2(
    capsys: Captured, arguments: list[str], message: str
) -> None:
    code, output, error = run(capsys, "memory", "check", *arguments)
    assert (code, output) == (2, "")
    assert error.count("\n") == 1
    assert message in error

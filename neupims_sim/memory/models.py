"""What the rest of the simulator sees of a memory: transfers and PIM programs in, SimPy events out.

A model is a class registered under a name, offered by an installed package under the entry-point group
``neupims_sim.memory_models``, or named as ``package.module:Class``. :class:`CommandMemory` is the command-level engine;
:class:`IdealMemory` is bandwidth and latency, and the one to read before writing another. docs/extending-memory.md walks through it.
"""

from __future__ import annotations

import copy
import inspect
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

from neupims_sim.config.memory import MemoryConfig
from neupims_sim.errors import InputError
from neupims_sim.memory.device import LOG_FIELDS, CommandDevice, Counters
from neupims_sim.memory.engine import MAX_ITEMS, READ
from neupims_sim.memory.program import FP16_BYTES, PimProgram, check_program
from neupims_sim.memory.spec import COMMANDS, resolve
from neupims_sim.registry import Registry
from neupims_sim.units import convert_cycles

Int64Array = npt.NDArray[np.int64]
SimEvent = simpy.events.Event

PLUGIN_GROUP = "neupims_sim.memory_models"
"""Entry points that name a memory model of an installed package."""

ALONE_CYCLES = 100_000_000
"""Memory cycles without any completion after which a memory for which nobody else has a date gives up."""


class SimulationStalled(RuntimeError):
    """Nothing can make progress (INV-8); the message names who waits for what."""


@dataclass(frozen=True)
class Capabilities:
    """What a memory offers: the rest of the simulator plans with it, and the conformance suite holds a model to it."""

    channels: int
    """Channels that :meth:`MemoryModel.transfer_in_channel` and :meth:`MemoryModel.run_program` take, from 0."""
    capacity_bytes: int
    """Addresses of :meth:`MemoryModel.transfer` are below this; a channel has an equal share of it."""
    peak_bytes_per_cycle: float
    """All channels together, bytes per *device* cycle. No transfers move faster than this, over any stretch of time."""
    pim: bool
    """Whether :meth:`MemoryModel.run_program` works."""
    dual_row_buffers: bool
    """Whether transfers go on while a PIM program runs on the same channel."""


class MemoryModel(ABC):
    """One memory system in a simulation. Subclass it to add your own.

    A subclass implements :meth:`transfer`, and with PIM :meth:`transfer_in_channel` and :meth:`run_program`. They are called
    while the simulation runs, at its present cycle, any number of times before the first event has fired: what waits for
    what is the model's business. What the model does is counted by :meth:`count_bursts` and :meth:`count_program`.

    Time. The simulation counts cycles of the *device clock* (``clock_ghz``). The table (``config.timing``) and the counters
    are in cycles of the memory's own clock (``config.organization.clock_ghz``), and so should be everything in a model:
    :attr:`cycle` is the present and :meth:`event_at` makes an event for a later cycle; they convert, rounding up.

    Events. Every call returns an event of its own, which fires once, at least one device cycle later. Where that cycle is
    not known yet, return ``self.env.event()`` and have a process of the model (``self.env.process``) succeed it. Nothing may
    wait for ever: a run without completions is stopped after ``simulation.watchdog_cycles``.

    Bytes. A memory moves whole bursts: all that a range of bytes touches. :meth:`bursts` counts them and refuses a range
    that lies beyond the memory.

    Parameters
    ----------
    env: the simulation's clock, in device cycles.
    config: the memory table, with the preset's values.
    preset: name of the modelling assumptions (``physical`` is the default).
    clock_ghz: device clock.
    log: whether to keep a command log, where the model has commands.
    element_bytes: of the data that PIM multiplies.
    """

    def __init__(
        self,
        env: simpy.Environment,
        config: MemoryConfig,
        *,
        preset: str = "physical",
        clock_ghz: float = 1.0,
        log: bool = False,
        element_bytes: int = FP16_BYTES,
    ) -> None:
        self.env = env
        self.config = config
        self.preset = preset
        self.clock_ghz = clock_ghz
        self.log = log
        self.element_bytes = element_bytes
        self.totals = Counters(dict.fromkeys(COMMANDS, 0), 0, 0, 0, 0, 0, 0, 0, 0, 0)

    @property
    def capabilities(self) -> Capabilities:
        """What this memory offers: what its table says, and PIM only where the class can :meth:`run_program`."""
        organization = self.config.organization
        buses = organization.channels * organization.pseudo_channels
        per_memory_cycle = organization.burst_bytes / organization.burst_cycles * buses
        pim = self.config.row_buffers != "none" and type(self).run_program is not MemoryModel.run_program
        return Capabilities(
            channels=organization.channels,
            capacity_bytes=organization.capacity_bytes,
            peak_bytes_per_cycle=per_memory_cycle * organization.clock_ghz / self.clock_ghz,
            pim=pim,
            dual_row_buffers=pim and self.config.row_buffers == "dual",
        )

    @abstractmethod
    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        """Read (``READ``) or write (``WRITE``) a range of bytes; the event fires when its last burst is done.

        Raises InputError for a range beyond the capacity (:meth:`bursts` does).
        """

    def transfer_in_channel(self, kind: int, channel: int, address: int, size_bytes: int) -> SimEvent:
        """:meth:`transfer` within one channel: ``address`` counts the channel's own bytes. PIM operands are written so."""
        raise InputError(f"memory {self.config.name!r} (model {self.config.model!r}) has no channels of its own")

    def run_program(self, channel: int, program: PimProgram, release: Int64Array | None = None) -> SimEvent:
        """Run a PIM program on a channel; the event fires when its last result has arrived.

        ``release``: per operation, the *device* cycle before which it may not start.

        Raises InputError where it cannot (:meth:`check_program` does).
        """
        raise InputError(f"memory {self.config.name!r} (model {self.config.model!r}) has no PIM")

    def counters(self) -> Counters:
        """Totals from the start to the present, as a new object each time.

        ``reads`` and ``writes`` are bursts, ``commands`` counts what the model issues by name. When something is counted,
        between the call and its event, is up to the model.
        """
        return copy.deepcopy(self.totals)

    def take_log(self) -> Int64Array:
        """The commands since the last call, [n, ``LOG_FIELDS``]; none where the model has no commands or keeps no log."""
        return np.zeros((0, len(LOG_FIELDS)), dtype=np.int64)

    # --- for subclasses ---

    @property
    def cycle(self) -> int:
        """The present in cycles of the memory's clock: the first one that does not begin before the present device cycle."""
        return self._memory_cycle(int(self.env.now))

    def event_at(self, cycle: int) -> SimEvent:
        """An event that fires at a cycle of the memory's clock (at the first device cycle at which that is over)."""
        return self.env.timeout(self._device_cycle(cycle) - int(self.env.now))

    def bursts(self, address: int, size_bytes: int, channel: int | None = None) -> int:
        """Bursts that a range of bytes touches, of the memory or of one channel; raises InputError unless all of it exists."""
        capacity, burst = self.capabilities.capacity_bytes, self.config.organization.burst_bytes
        where = f"memory {self.config.name!r}"
        if channel is not None:
            channels = self.capabilities.channels
            if not 0 <= channel < channels:
                raise InputError(f"{where}: there is no channel {channel}; allowed: 0 to {channels - 1}")
            capacity, where = capacity // channels, f"{where}, channel {channel}"
        if size_bytes <= 0 or address < 0 or address + size_bytes > capacity:
            raise InputError(
                f"{where}: transfer of {size_bytes} B at address {address:#x} does not fit; "
                f"allowed: 1 B or more within {capacity} B"
            )
        return -(-(address + size_bytes) // burst) - address // burst

    def check_program(self, channel: int, program: PimProgram) -> None:
        """Raise InputError unless a PIM program can run on a channel: there is PIM, the channel, and every operation is possible."""
        channels = self.capabilities.channels
        if not self.capabilities.pim:
            raise InputError(f"memory {self.config.name!r} (model {self.config.model!r}) has no PIM")
        if not 0 <= channel < channels:
            raise InputError(
                f"memory {self.config.name!r}: PIM program for channel {channel}; allowed: 0 to {channels - 1}"
            )
        check_program(program, self.config, self.element_bytes)

    def count_bursts(self, kind: int, bursts: int, latency_cycles: int) -> None:
        """Count bursts read or written; each read took ``latency_cycles``, memory cycles from the call to its return."""
        totals = self.totals
        if kind == READ:
            totals.reads += bursts
            totals.read_latency_sum += bursts * latency_cycles
            totals.commands["RD"] += bursts
        else:
            totals.writes += bursts
            totals.commands["WR"] += bursts

    def count_program(self, program: PimProgram, busy_cycles: int) -> None:
        """Count a PIM program that occupied its channel for ``busy_cycles`` memory cycles."""
        totals, results = self.totals, int(program.operations[:, 2].sum())
        totals.tiles += program.tiles
        totals.dot_products += program.dots
        totals.result_reads += results
        totals.pim_busy_cycles += busy_cycles
        for command, count in (("GWRITE", program.gwrites), ("HEADER", program.tiles), ("GEMV", results)):
            totals.commands[command] += count

    def timing(self, name: str) -> int:
        """A timing parameter of the table, memory cycles; raises InputError if the table lacks it."""
        if name not in self.config.timing:
            raise InputError(
                f"memory {self.config.name!r}: timing.{name} is missing; model {self.config.model!r} needs it"
            )
        return self.config.timing[name]

    def _memory_cycle(self, device_cycle: int) -> int:
        """The first memory cycle that does not begin before a device cycle: when work handed over then can start."""
        return convert_cycles(device_cycle, self.clock_ghz, self.config.organization.clock_ghz)

    def _device_cycle(self, memory_cycle: int) -> int:
        """The first device cycle at which something that happens at a memory cycle is seen."""
        return convert_cycles(memory_cycle, self.config.organization.clock_ghz, self.clock_ghz)


def _own_model(found: Any, what: str) -> type[MemoryModel]:
    if not (isinstance(found, type) and issubclass(found, MemoryModel)):
        raise InputError(f"{what} is not a subclass of neupims_sim.memory.MemoryModel")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise InputError(f"{what} does not implement {missing}; see neupims_sim.memory.MemoryModel")
    return found


MEMORY_MODELS: Registry[type[MemoryModel]] = Registry(
    "memory model", key="memory.model", adopt=_own_model, group=PLUGIN_GROUP
)
"""Registered models, those of installed packages (which are imported when they are named), and ``package.module:Class``."""


class _AfterOthers(simpy.Event):
    """Fires in this cycle after every ordinary event of this cycle."""

    def __init__(self, env: simpy.Environment) -> None:
        super().__init__(env)
        self._ok = True
        self._value = None
        env.schedule(self, priority=simpy.events.EventPriority(2))


@MEMORY_MODELS.register("command")
class CommandMemory(MemoryModel):
    """Every command on every channel at a legal cycle, by the compiled engine.

    Co-simulation: the engine runs only to the next SimPy event or to its own first completion, whichever is earlier, so
    no channel passes a cycle at which somebody could hand it new work.
    """

    def __init__(self, env: simpy.Environment, config: MemoryConfig, **options: Any) -> None:
        super().__init__(env, config, **options)
        self._device = CommandDevice(resolve(config, self.preset), log=self.log, element_bytes=self.element_bytes)
        self._waiting: dict[int, SimEvent] = {}
        self._backlog: deque[tuple[Callable[[], int], SimEvent]] = deque()
        self._wake: SimEvent = env.event()
        env.process(self._run())

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        return self._submit(lambda: self._device.submit_transfer(kind, address, size_bytes))

    def transfer_in_channel(self, kind: int, channel: int, address: int, size_bytes: int) -> SimEvent:
        return self._submit(lambda: self._device.submit_channel_transfer(kind, channel, address, size_bytes))

    def run_program(self, channel: int, program: PimProgram, release: Int64Array | None = None) -> SimEvent:
        releases = None if release is None else {channel: self._to_memory(release)}
        return self._submit(lambda: self._device.submit_programs({channel: program}, releases))

    def counters(self) -> Counters:
        self._catch_up()
        return self._device.counters()

    def take_log(self) -> Int64Array:
        return self._device.take_log()

    def _submit(self, start: Callable[[], int]) -> SimEvent:
        event = self.env.event()
        if self._backlog or len(self._waiting) >= MAX_ITEMS - 1:
            self._backlog.append((start, event))
            return event
        self._start(start, event)
        if not self._wake.triggered:
            self._wake.succeed()
        return event

    def _start(self, start: Callable[[], int], event: SimEvent) -> None:
        self._catch_up()
        self._waiting[start()] = event

    def _catch_up(self) -> None:
        """Bring channels to the present: idle ones, and by the fraction of a cycle that two clocks may lie apart."""
        now = self.cycle
        while self._device.time < now:
            time, done = self._device.advance(now)
            for item in done:
                self._succeed_at(time, self._waiting.pop(item))

    def _succeed_at(self, memory_cycle: int, event: SimEvent) -> None:
        def fire() -> Generator[SimEvent, Any, None]:
            yield self.env.timeout(max(0, self._device_cycle(memory_cycle) - int(self.env.now)))
            event.succeed()

        self.env.process(fire())

    def _run(self) -> Generator[SimEvent, Any, None]:
        while True:
            if not self._waiting:
                self._wake = self.env.event()
                yield self._wake
            wake = self.env.peek()
            if wake <= self.env.now:
                yield _AfterOthers(self.env)
                continue
            alone = math.isinf(wake)
            time, done = self._device.advance(
                self._device.time + ALONE_CYCLES if alone else self._memory_cycle(int(wake))
            )
            finished = [self._waiting.pop(item) for item in done]  # now: the device may give their numbers to others
            if alone and not done:
                raise SimulationStalled(
                    f"memory {self.config.name!r}: {len(self._waiting)} transfers and PIM programs pending, "
                    f"none completed for {ALONE_CYCLES} cycles, and nothing else is to happen"
                )
            resume = self._device_cycle(time) if done else int(wake)
            if resume > self.env.now:
                yield self.env.timeout(resume - int(self.env.now))
            for event in finished:
                event.succeed()
            while self._backlog and len(self._waiting) < MAX_ITEMS - 1:
                self._start(*self._backlog.popleft())

    def _to_memory(self, cycles: Int64Array) -> Int64Array:
        ratio = self.config.organization.clock_ghz / self.clock_ghz
        return cycles if ratio == 1 else np.ceil(cycles * ratio).astype(np.int64)


@MEMORY_MODELS.register("ideal")
class IdealMemory(MemoryModel):
    """Transfers share the peak bandwidth in order of arrival and complete after a fixed latency. No PIM, no refresh."""

    def __init__(self, env: simpy.Environment, config: MemoryConfig, **options: Any) -> None:
        super().__init__(env, config, **options)
        self.bus_free = 0.0
        """Memory cycle from which the bus is free."""

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        bursts, organization = self.bursts(address, size_bytes), self.config.organization
        buses = organization.channels * organization.pseudo_channels
        self.bus_free = max(self.bus_free, self.cycle) + bursts * organization.burst_cycles / buses
        done = math.ceil(self.bus_free) + self.config.ideal_latency_cycles
        self.count_bursts(kind, bursts, done - self.cycle)
        return self.event_at(done)


def build_memory(env: simpy.Environment, config: MemoryConfig, **options: Any) -> MemoryModel:
    """The configured memory in a simulation (options as in :class:`MemoryModel`)."""
    return MEMORY_MODELS[config.model](env, config, **options)


__all__ = [
    "MEMORY_MODELS",
    "Capabilities",
    "CommandMemory",
    "IdealMemory",
    "MemoryModel",
    "SimulationStalled",
    "build_memory",
]

"""What the rest of the simulator sees of a memory: transfers and PIM programs in, SimPy events out.

A model is a class registered under a name, found through the entry-point group ``neupims_sim.memory_models``, or named
as ``package.module:Class``. :class:`CommandMemory` is the command-level engine; ``ideal`` is bandwidth and latency.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

from neupims_sim.config.memory import MemoryConfig
from neupims_sim.errors import InputError
from neupims_sim.memory.device import CommandDevice, Counters
from neupims_sim.memory.engine import MAX_ITEMS, NEVER, READ, WRITE
from neupims_sim.memory.program import PimProgram
from neupims_sim.memory.spec import resolve
from neupims_sim.registry import Registry
from neupims_sim.units import convert_cycles

Int64Array = npt.NDArray[np.int64]
SimEvent = simpy.events.Event


class SimulationStalled(RuntimeError):
    """Nothing can make progress (INV-8); the message names who waits for what."""


@dataclass(frozen=True)
class Capabilities:
    """What a memory offers."""

    channels: int
    capacity_bytes: int
    peak_bytes_per_cycle: float
    """All channels together, bytes per device cycle."""
    pim: bool
    dual_row_buffers: bool


class MemoryModel(ABC):
    """One memory system in a simulation.

    Parameters
    ----------
    env: the simulation's clock, in device cycles.
    config, preset: the memory table.
    clock_ghz: device clock; a memory with another clock converts here.
    log: whether to keep a command log, where the model has commands.
    watchdog_cycles: a longer time without any completion, with work pending, is a stall.
    """

    def __init__(
        self,
        env: simpy.Environment,
        config: MemoryConfig,
        *,
        preset: str = "physical",
        clock_ghz: float = 1.0,
        log: bool = False,
        watchdog_cycles: int = 100_000_000,
    ) -> None:
        self.env = env
        self.config = config
        self.preset = preset
        self.clock_ghz = clock_ghz
        self.watchdog_cycles = watchdog_cycles

    @property
    def capabilities(self) -> Capabilities:
        """What this memory offers."""
        organization = self.config.organization
        per_cycle = organization.burst_bytes / organization.burst_cycles * organization.channels
        return Capabilities(
            channels=organization.channels,
            capacity_bytes=organization.capacity_bytes,
            peak_bytes_per_cycle=per_cycle * organization.clock_ghz / self.clock_ghz,
            pim=self.config.row_buffers != "none",
            dual_row_buffers=self.config.row_buffers == "dual",
        )

    @abstractmethod
    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        """Read (READ) or write (WRITE) a byte range; the event fires when its last burst is done."""

    def transfer_in_channel(self, kind: int, channel: int, address: int, size_bytes: int) -> SimEvent:
        """The same within one channel: ``address`` counts the channel's own bytes."""
        raise InputError(f"memory model {self.config.model!r} has no channels of its own")

    def run_program(self, channel: int, program: PimProgram, release: Int64Array | None = None) -> SimEvent:
        """Run a PIM program on a channel; the event fires when its last result has arrived.

        ``release``: per operation, the device cycle before which it may not start.
        """
        raise InputError(f"memory {self.config.name!r} has no PIM")

    @abstractmethod
    def counters(self) -> Counters:
        """Totals so far."""

    def take_log(self) -> Int64Array:
        """The command log (``device.LOG_FIELDS``), empty where the model has none."""
        return np.zeros((0, 6), dtype=np.int64)


MEMORY_MODELS: Registry[type[MemoryModel]] = Registry("memory model")


def find_memory_model(name: str) -> type[MemoryModel]:
    """The model class of a registered name, an entry point, or ``package.module:Class``."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            model = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise InputError(f"memory.model={name!r} cannot be imported: {error}") from None
        if not (isinstance(model, type) and issubclass(model, MemoryModel)):
            raise InputError(f"memory.model={name!r} is not a subclass of neupims_sim.memory.MemoryModel")
        return model
    for entry in entry_points(group="neupims_sim.memory_models"):
        if entry.name == name:
            loaded: type[MemoryModel] = entry.load()
            return loaded
    return MEMORY_MODELS[name]


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
        self._device = CommandDevice(resolve(config, self.preset), log=bool(options.get("log", False)))
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
        now = self._memory_cycle(int(self.env.now))
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
        last_progress = 0
        while True:
            if not self._waiting:
                self._wake = self.env.event()
                yield self._wake
                last_progress = self._device.time
            if self.env.peek() <= self.env.now:
                yield _AfterOthers(self.env)
                continue
            limit = last_progress + self.watchdog_cycles
            wake = self.env.peek()
            if wake != float("inf"):
                limit = min(limit, self._memory_cycle(int(wake)))
            time, done = self._device.advance(limit)
            finished = [self._waiting.pop(item) for item in done]  # now: the device may give their numbers to others
            if done:
                last_progress = time
            elif time - last_progress >= self.watchdog_cycles:
                raise SimulationStalled(
                    f"memory {self.config.name!r}: {len(self._waiting)} transfers and PIM programs pending, "
                    f"none completed for {self.watchdog_cycles} cycles"
                )
            resume = self._device_cycle(time) if done else int(wake)
            if resume > self.env.now:
                yield self.env.timeout(resume - int(self.env.now))
            for event in finished:
                event.succeed()
            while self._backlog and len(self._waiting) < MAX_ITEMS - 1:
                self._start(*self._backlog.popleft())

    def _memory_cycle(self, device_cycle: int) -> int:
        """The first memory cycle that does not begin before a device cycle: when work handed over then can start."""
        return convert_cycles(device_cycle, self.clock_ghz, self.config.organization.clock_ghz)

    def _device_cycle(self, memory_cycle: int) -> int:
        """The first device cycle at which something that happens at a memory cycle is seen."""
        return convert_cycles(memory_cycle, self.config.organization.clock_ghz, self.clock_ghz)

    def _to_memory(self, cycles: Int64Array) -> Int64Array:
        ratio = self.config.organization.clock_ghz / self.clock_ghz
        return cycles if ratio == 1 else np.ceil(cycles * ratio).astype(np.int64)


@MEMORY_MODELS.register("ideal")
class IdealMemory(MemoryModel):
    """Transfers share the peak bandwidth in order of arrival and complete after a fixed latency. No PIM, no refresh."""

    def __init__(self, env: simpy.Environment, config: MemoryConfig, **options: Any) -> None:
        super().__init__(env, config, **options)
        self._bus_free = 0.0
        self._bytes = [0, 0]
        self._last = 0

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent:
        capacity = self.capabilities.capacity_bytes
        if size_bytes <= 0 or address < 0 or address + size_bytes > capacity:
            raise InputError(f"transfer of {size_bytes} B at {address:#x} does not fit in {capacity} B")
        self._bus_free = max(self._bus_free, float(self.env.now)) + size_bytes / self.capabilities.peak_bytes_per_cycle
        self._bytes[kind] += size_bytes
        done = int(np.ceil(self._bus_free)) + self.config.ideal_latency_cycles
        self._last = max(self._last, done)
        return self.env.timeout(done - int(self.env.now))

    def transfer_in_channel(self, kind: int, channel: int, address: int, size_bytes: int) -> SimEvent:
        return self.transfer(kind, address, size_bytes)

    def counters(self) -> Counters:
        burst = self.config.organization.burst_bytes
        bursts = [-(-size // burst) for size in self._bytes]
        return Counters(
            commands={"RD": bursts[READ], "WR": bursts[WRITE]},
            reads=bursts[READ],
            writes=bursts[WRITE],
            read_latency_sum=bursts[READ] * self.config.ideal_latency_cycles,
            dot_products=0,
            result_reads=0,
            tiles=0,
            pim_busy_cycles=0,
            last_memory_cycle=self._last,
            last_pim_cycle=0,
        )


def build_memory(env: simpy.Environment, config: MemoryConfig, **options: Any) -> MemoryModel:
    """The configured memory in a simulation (options as in :class:`MemoryModel`)."""
    return find_memory_model(config.model)(env, config, **options)


__all__ = [
    "MEMORY_MODELS",
    "NEVER",
    "Capabilities",
    "CommandMemory",
    "IdealMemory",
    "MemoryModel",
    "SimulationStalled",
    "build_memory",
    "find_memory_model",
]

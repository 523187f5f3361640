"""The NPU in a simulation: systolic arrays, vector units, scratchpad and DMA as SimPy resources.

A GEMM is a pipeline of tile steps. The loader takes operators in program order and runs ahead of the arrays as far as the
scratchpad has room, so that the next tile (or the next operator's weights) arrives while the current one computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import simpy

from neupims_sim.config.schema import NpuConfig

SimEvent = simpy.events.Event
Process = Generator[SimEvent, Any, None]
Int64Array = npt.NDArray[np.int64]

READ, WRITE = 0, 1


class Memory(Protocol):
    """What the NPU needs of a memory."""

    def transfer(self, kind: int, address: int, size_bytes: int) -> SimEvent: ...


class TileSteps(Protocol):
    """Tile steps of a GEMM in execution order, one entry per step."""

    @property
    def activation_bytes(self) -> Int64Array: ...
    @property
    def weight_bytes(self) -> Int64Array: ...
    @property
    def compute_cycles(self) -> Int64Array: ...
    @property
    def store_bytes(self) -> Int64Array: ...
    @property
    def macs(self) -> int: ...


class AttentionSteps(Protocol):
    """Steps of an attention in execution order, one entry per step, and the drain of the arrays after each product."""

    @property
    def room_bytes(self) -> Int64Array: ...
    @property
    def load_bytes(self) -> Int64Array: ...
    @property
    def logits_cycles(self) -> Int64Array: ...
    @property
    def softmax_cycles(self) -> Int64Array: ...
    @property
    def attend_cycles(self) -> Int64Array: ...
    @property
    def store_bytes(self) -> Int64Array: ...
    @property
    def drain_cycles(self) -> Int64Array: ...


class Region:
    """Consecutive bytes of memory that are read or written piece by piece, from the start again when the end is reached."""

    def __init__(self, address: int, size_bytes: int, granule: int = 64) -> None:
        self.address = address
        self.size_bytes = max(size_bytes, granule)
        self._granule = granule
        self._at = 0

    def take(self, size_bytes: int) -> tuple[int, int]:
        """(address, bytes) of the next piece, widened to whole granules."""
        size = min(
            -(-size_bytes // self._granule) * self._granule, -(-self.size_bytes // self._granule) * self._granule
        )
        if self._at + size > self.size_bytes:
            self._at = 0
        start = self._at
        self._at += size
        return self.address + start, size


def shares(amount: int, cycles: Int64Array) -> list[int]:
    """An amount in parts as large as the ``cycles`` of steps, which add up to it."""
    whole = max(1, int(cycles.sum()))
    ends = [amount * int(end) // whole for end in np.cumsum(cycles)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


BusyObserver = Callable[[str, str, int, int], None]
"""Called with (lane, name, start cycle, end cycle) for every piece of work."""


class Unit:
    """Systolic arrays, vector units or a link: a resource for one piece of work at a time that knows how much it has worked."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._resource = simpy.Resource(env)
        self._cycles = 0
        self._macs = 0
        self._now: tuple[int, int, int] | None = None
        """Start, cycles and multiply-accumulates of the work under way."""

    def hold(self, cycles: int, macs: int = 0) -> Process:
        """Wait for the unit, then work, and do so many multiply-accumulates evenly over that time."""
        with self._resource.request() as turn:
            yield turn
            self._now = int(self._env.now), cycles, macs
            yield self._env.timeout(cycles)
            self._now = None
            self._cycles += cycles
            self._macs += macs

    @property
    def busy_cycles(self) -> int:
        """Cycles in which it has worked, up to now."""
        return self._cycles + (0 if self._now is None else int(self._env.now) - self._now[0])

    @property
    def macs(self) -> int:
        """Multiply-accumulates, up to now."""
        if self._now is None:
            return self._macs
        start, cycles, macs = self._now
        return self._macs + macs * (int(self._env.now) - start) // cycles


class Npu:
    """Systolic arrays and vector units that share a scratchpad and a DMA to memory.

    Parameters
    ----------
    observe: told about every busy interval; timelines subscribe here.

    Attributes
    ----------
    arrays, vectors: the units.
    """

    def __init__(self, env: simpy.Environment, config: NpuConfig, memory: Memory, observe: BusyObserver) -> None:
        self.env = env
        self.config = config
        self._memory = memory
        self._observe = observe
        self.arrays = Unit(env)
        self.vectors = Unit(env)
        self.moved_bytes: Counter[str] = Counter()
        """Through the DMA, both ways, by name of the operator."""
        self._loader = simpy.PriorityResource(env)
        self._scratchpad = simpy.Container(env, capacity=config.scratchpad_bytes, init=config.scratchpad_bytes)

    def transfer(self, kind: int, address: int, size_bytes: int, name: str) -> SimEvent:
        """A DMA transfer; the event fires when it is done."""
        return self.env.process(self._dma(kind, address, size_bytes, name))

    def _dma(self, kind: int, address: int, size_bytes: int, name: str) -> Process:
        start = int(self.env.now)
        if self.config.dma_transfer_latency_cycles:
            yield self.env.timeout(self.config.dma_transfer_latency_cycles)
        yield self._memory.transfer(kind, address, size_bytes)
        self.moved_bytes[name] += size_bytes
        self._observe("DMA read" if kind == READ else "DMA write", name, start, int(self.env.now))

    def gemm(
        self,
        name: str,
        steps: TileSteps,
        *,
        weights: Region,
        activations: Region,
        output: Region,
        ready: SimEvent,
        weights_wait: bool = False,
        priority: int = 0,
    ) -> Process:
        """Run a GEMM; ends when the last output is stored.

        ``ready`` fires when the activations are there (in DRAM or in the scratchpad). Weights do not wait for it, unless
        ``weights_wait``: in a product of two activations the right matrix is a result too.
        Of the operators that wait for the NPU, the one with the lowest ``priority`` goes first, then the oldest.
        """
        count = len(steps.compute_cycles)
        loaded = simpy.Store(self.env)
        with self._loader.request(priority=priority) as turn:
            yield turn
            computing = self.env.process(self._compute(name, steps, loaded, output, ready))
            for step in range(count):
                weight, activation = int(steps.weight_bytes[step]), int(steps.activation_bytes[step])
                room = min(weight + activation, self.config.scratchpad_bytes)
                if room:
                    yield self._scratchpad.get(room)
                arrivals = []
                if weight:
                    if weights_wait and not ready.processed:
                        yield ready
                    arrivals.append(self.transfer(READ, *weights.take(weight), name))
                if activation:
                    if not ready.processed:
                        yield ready
                    arrivals.append(self.transfer(READ, *activations.take(activation), name))
                yield loaded.put((step, arrivals, room))
        yield computing

    def _compute(self, name: str, steps: TileSteps, loaded: simpy.Store, output: Region, ready: SimEvent) -> Process:
        stores: list[SimEvent] = []
        macs = shares(steps.macs, steps.compute_cycles)
        for _ in range(len(steps.compute_cycles)):
            step, arrivals, room = yield loaded.get()
            if not ready.processed:
                yield ready
            yield self.env.all_of(arrivals)
            yield from self._hold(self.arrays, "systolic arrays", name, int(steps.compute_cycles[step]), macs[step])
            if room:
                yield self._scratchpad.put(room)
            size = int(steps.store_bytes[step])
            if size:
                stores.append(self.transfer(WRITE, *output.take(size), name))
        yield self.env.all_of(stores)

    def attention(
        self,
        name: str,
        plan: AttentionSteps,
        *,
        source: Region,
        output: Region,
        ready: SimEvent,
        macs: int,
        priority: int = 0,
    ) -> Process:
        """Run an attention of so many multiply-accumulates; ends when the last output is stored. Its logits never leave the scratchpad.

        Steps take room and load in order, like the tiles of a GEMM and in turn with those; from there each goes its own way: arrays
        (logits), vector units (softmax), arrays (attend), store. So the arrays work on the next step's logits during a softmax.
        ``ready`` fires when queries, keys and values are there.
        """
        steps: list[SimEvent] = []
        products = shares(macs, np.stack([plan.logits_cycles, plan.attend_cycles], axis=1).ravel())
        with self._loader.request(priority=priority) as turn:
            yield turn
            if not ready.processed:
                yield ready
            for step in range(len(plan.load_bytes)):
                room = min(int(plan.room_bytes[step]), self.config.scratchpad_bytes)
                if room:
                    yield self._scratchpad.get(room)
                size = int(plan.load_bytes[step])
                arrival = self.transfer(READ, *source.take(size), name) if size else self.env.event().succeed()
                both = products[2 * step], products[2 * step + 1]
                steps.append(self.env.process(self._attention_step(name, plan, step, arrival, room, output, both)))
        yield self.env.all_of(steps)

    def _attention_step(
        self,
        name: str,
        plan: AttentionSteps,
        step: int,
        arrival: SimEvent,
        room: int,
        output: Region,
        macs: tuple[int, int],
    ) -> Process:
        drain = int(plan.drain_cycles[step])
        yield arrival
        yield from self._hold(self.arrays, "systolic arrays", name, int(plan.logits_cycles[step]), macs[0])
        yield self.env.timeout(drain)
        yield from self._hold(self.vectors, "vector units", name, int(plan.softmax_cycles[step]))
        yield from self._hold(self.arrays, "systolic arrays", name, int(plan.attend_cycles[step]), macs[1])
        yield self.env.timeout(drain)
        size = int(plan.store_bytes[step])
        if size:
            yield self.transfer(WRITE, *output.take(size), name)
        if room:
            yield self._scratchpad.put(room)

    def vector(
        self,
        name: str,
        cycles: int,
        *,
        loads: Sequence[tuple[Region, int]] = (),
        stores: Sequence[tuple[Region, int]] = (),
        ready: SimEvent,
        chunks: int = 8,
    ) -> Process:
        """Run a vector operator over its data in ``chunks``: load, compute and store overlap. Ends when all is stored."""
        if not ready.processed:
            yield ready
        total = sum(size for _, size in (*loads, *stores))
        chunks = max(1, min(chunks, total // 4096)) if total else 1
        arrivals = [
            [self.transfer(READ, *region.take(-(-size // chunks)), name) for region, size in loads]
            for _ in range(chunks)
        ]
        written: list[SimEvent] = []
        for chunk in range(chunks):
            yield self.env.all_of(arrivals[chunk])
            share = cycles * (chunk + 1) // chunks - cycles * chunk // chunks
            yield from self._hold(self.vectors, "vector units", name, share)
            written += [self.transfer(WRITE, *region.take(-(-size // chunks)), name) for region, size in stores]
        yield self.env.all_of(written)

    def _hold(self, unit: Unit, lane: str, name: str, cycles: int, macs: int = 0) -> Process:
        if cycles:
            yield from unit.hold(cycles, macs)
            self._observe(lane, name, int(self.env.now) - cycles, int(self.env.now))

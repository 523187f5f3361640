"""The NPU in a simulation: systolic arrays, vector units, scratchpad and DMA as SimPy resources.

A GEMM is a pipeline of tile steps. The loader takes operators in program order and runs ahead of the arrays as far as the
scratchpad has room, so that the next tile (or the next operator's weights) arrives while the current one computes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import simpy
from simpy.resources.resource import PriorityRequest

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
    def room_bytes(self) -> Int64Array: ...
    @property
    def freed_bytes(self) -> Int64Array: ...
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


class Progress:
    """How much of an operator's output is there: others may take it tile by tile."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._share = 0.0
        self._waiting: list[tuple[float, SimEvent]] = []

    def reach(self, share: float) -> None:
        """So much is there, 1 for all."""
        self._share = max(self._share, share)
        for wanted, event in self._waiting:
            if wanted <= self._share:
                event.succeed()
        self._waiting = [(wanted, event) for wanted, event in self._waiting if wanted > self._share]

    def reached(self, share: float) -> SimEvent:
        """Fires when so much is there."""
        event = self._env.event()
        if share <= self._share:
            event.succeed()
        else:
            self._waiting.append((share, event))
        return event


class Move(NamedTuple):
    """Bytes between memory and scratchpad, on behalf of an operator."""

    name: str
    region: Region
    size_bytes: int
    made_meanwhile: bool = False
    """Whether they are still being made when their reader starts."""


@dataclass
class Tiles:
    """The output of a GEMM for those who take it tile by tile.

    Attributes
    ----------
    share: of the output that is complete after each step.
    made: how much of it is there.
    loads: what they load besides. It passes by in pieces, each with the step that makes the tile, and takes no room.
    loaded: how much of that is there.
    """

    share: npt.NDArray[np.float64]
    made: Progress
    loads: Sequence[Move]
    loaded: Progress

    def parts(self, step: int) -> list[tuple[Move, int]]:
        """The bytes of each load that go with a step."""
        before = self.share[step - 1] if step else 0.0
        share = float(self.share[step] - before)
        return [(load, math.ceil(load.size_bytes * share)) for load in self.loads] if share else []


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

    def reserve(self, size_bytes: int, priority: int = 0) -> Process:
        """Take scratchpad for what stays there, in turn with the operators that load."""
        with self._loader.request(priority=priority) as turn:
            yield turn
            if size_bytes:
                yield self._scratchpad.get(size_bytes)

    def release(self, size_bytes: int) -> None:
        """Give back scratchpad that was reserved."""
        if size_bytes:
            self._scratchpad.put(size_bytes)

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
        reserve_bytes: int = 0,
        tiles: Tiles | None = None,
    ) -> Process:
        """Run a GEMM; ends when the last output is stored.

        ``ready`` fires when the activations are there (in DRAM or in the scratchpad). Weights do not wait for it, unless
        ``weights_wait``: in a product of two activations the right matrix is a result too.
        Of the operators that wait for the NPU, the one with the lowest ``priority`` goes first, then the oldest.
        """
        count = len(steps.compute_cycles)
        loaded = simpy.Store(self.env)
        beside = list[SimEvent]()
        with self._loader.request(priority=priority) as turn:
            yield turn
            if reserve_bytes:
                yield self._scratchpad.get(reserve_bytes)
            computing = self.env.process(self._compute(name, steps, loaded, output, ready, tiles))
            for step in range(count):
                weight, activation = int(steps.weight_bytes[step]), int(steps.activation_bytes[step])
                room = min(int(steps.room_bytes[step]), self.config.scratchpad_bytes)
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
                if tiles is not None and tiles.loads:
                    parts = tiles.parts(step)
                    beside += [self.transfer(READ, *load.region.take(size), load.name) for load, size in parts]
                    self.env.process(self._arrival(beside[:], tiles.loaded, float(tiles.share[step])))
                yield loaded.put((step, arrivals))
        yield computing

    def _compute(
        self,
        name: str,
        steps: TileSteps,
        loaded: simpy.Store,
        output: Region,
        ready: SimEvent,
        tiles: Tiles | None,
    ) -> Process:
        stores: list[SimEvent] = []
        macs = shares(steps.macs, steps.compute_cycles)
        for _ in range(len(steps.compute_cycles)):
            step, arrivals = yield loaded.get()
            if not ready.processed:
                yield ready
            yield self.env.all_of(arrivals)
            yield from self._hold(self.arrays, "systolic arrays", name, int(steps.compute_cycles[step]), macs[step])
            freed = min(int(steps.freed_bytes[step]), self.config.scratchpad_bytes)
            if freed:
                yield self._scratchpad.put(freed)
            size = int(steps.store_bytes[step])
            if size:
                stores.append(self.transfer(WRITE, *output.take(size), name))
            if tiles is not None:
                tiles.made.reach(float(tiles.share[step]))
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
        reserve_bytes: int = 0,
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
            if reserve_bytes:
                yield self._scratchpad.get(reserve_bytes)
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
        parts: Sequence[tuple[str, int]],
        *,
        loads: Sequence[Move] = (),
        stores: Sequence[Move] = (),
        ready: SimEvent,
        chunks: int = 8,
    ) -> Process:
        """Run operators of the vector units, each of ``parts`` (name, cycles) on every chunk of the same data.

        Load, compute and store of the ``chunks`` overlap. Ends when all is stored.
        """
        if not ready.processed:
            yield ready
        total = sum(move.size_bytes for move in (*loads, *stores))
        chunks = max(1, min(chunks, total // 4096)) if total else 1
        arrivals = [[self._move(READ, load, chunks) for load in loads] for _ in range(chunks)]
        written: list[SimEvent] = []
        for chunk in range(chunks):
            yield self.env.all_of(arrivals[chunk])
            yield from self._vector_chunk(parts, chunk, chunks)
            written += [self._move(WRITE, store, chunks) for store in stores]
        yield self.env.all_of(written)

    def vector_behind(
        self,
        parts: Sequence[tuple[str, int]],
        *,
        loads: Sequence[Move] = (),
        stores: Sequence[Move] = (),
        producers: Sequence[Progress],
        progress: Progress,
        stored: SimEvent,
        reserve_bytes: int = 0,
        priority: int = 0,
        chunks: int = 16,
    ) -> Generator[SimEvent, Any, int]:
        """:meth:`vector` that takes its input as ``producers`` make it, a chunk when so much of theirs is there.

        It loads in turn with the matrix products, ahead of its producers, but what these store themselves when all of that is
        ``stored``. ``progress`` is that of this operator. Returns when it began.
        """
        loaded = Progress(self.env)
        if loads or reserve_bytes:
            turn = self._loader.request(priority=priority)  # now, so that nobody who is asked later goes first
            self.env.process(self._load_chunks(turn, loads, stored, loaded, reserve_bytes, chunks))
        else:
            loaded.reach(1)
        written: list[SimEvent] = []
        began = 0
        for chunk in range(chunks):
            yield self.env.all_of([one.reached((chunk + 1) / chunks) for one in (*producers, loaded)])
            began = int(self.env.now) if chunk == 0 else began
            yield from self._vector_chunk(parts, chunk, chunks)
            self.release(sum(-(-load.size_bytes // chunks) for load in loads))
            written += [self._move(WRITE, store, chunks) for store in stores]
            progress.reach((chunk + 1) / chunks)
        yield self.env.all_of(written)
        return began

    def _load_chunks(
        self,
        turn: PriorityRequest,
        loads: Sequence[Move],
        stored: SimEvent,
        loaded: Progress,
        reserve_bytes: int,
        chunks: int,
    ) -> Process:
        with turn:
            yield turn
            if reserve_bytes:
                yield self._scratchpad.get(reserve_bytes)
            if any(load.made_meanwhile for load in loads) and not stored.processed:
                yield stored
            arrivals = []
            for chunk in range(chunks):
                room = sum(-(-load.size_bytes // chunks) for load in loads)
                if room:
                    yield self._scratchpad.get(room)
                arrivals += [self._move(READ, load, chunks) for load in loads]
                self.env.process(self._arrival(arrivals[:], loaded, (chunk + 1) / chunks))

    def _arrival(self, arrivals: Sequence[SimEvent], loaded: Progress, share: float) -> Process:
        """Tell that so much is there, once it is."""
        yield self.env.all_of(arrivals)
        loaded.reach(share)

    def _move(self, kind: int, move: Move, chunks: int) -> SimEvent:
        """Transfer a chunk's share."""
        return self.transfer(kind, *move.region.take(-(-move.size_bytes // chunks)), move.name)

    def _vector_chunk(self, parts: Sequence[tuple[str, int]], chunk: int, chunks: int) -> Process:
        for name, cycles in parts:
            share = cycles * (chunk + 1) // chunks - cycles * chunk // chunks
            yield from self._hold(self.vectors, "vector units", name, share)

    def _hold(self, unit: Unit, lane: str, name: str, cycles: int, macs: int = 0) -> Process:
        if cycles:
            yield from unit.hold(cycles, macs)
            self._observe(lane, name, int(self.env.now) - cycles, int(self.env.now))

"""Similarity search in PIM: queries against a database that lies in the banks of all channels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

from neupims_sim.config import BackgroundSearchConfig, Config, IndexConfig
from neupims_sim.mapping.pim_search import SearchLayout
from neupims_sim.mapping.placement import Placement
from neupims_sim.memory.device import serialized_releases
from neupims_sim.memory.program import PimProgram
from neupims_sim.npu import operation_cycles
from neupims_sim.simulation.device import Device, Int64Array, Process, SimEvent
from neupims_sim.simulation.observations import BACKGROUND_SEARCH
from neupims_sim.simulation.operators import OperatorRunner
from neupims_sim.simulation.parts import Part

IN_FLIGHT = 2
"""Queries of a batch that PIM has at a time, and programs of theirs that a channel has: one that runs, one to follow without a gap."""


@dataclass(frozen=True)
class SearchIndex:
    """A database spread evenly over the channels."""

    layout: SearchLayout
    vectors: tuple[int, ...]
    """In each channel."""

    @staticmethod
    def of(config: Config, index: IndexConfig) -> SearchIndex:
        """The configured database on the configured memory."""
        each, more = divmod(index.database, config.memory.organization.channels)
        vectors = tuple(each + (channel < more) for channel in range(config.memory.organization.channels))
        return SearchIndex(SearchLayout.on(config.memory, index.dimensions, config.npu.element_bytes), vectors)

    def rows(self, queries: int) -> dict[str, int]:
        """Rows of every channel that the database and so many queries take, for the placement."""
        return {
            "database": self.layout.database_rows(max(self.vectors)),
            "queries": self.layout.query_rows(queries),
        }


class PimSearch:
    """Compares queries with the database, one after the other.

    Parameters
    ----------
    slot: number of this stream's first query among those that have rows in memory (``SearchIndex.rows``).
    turn: where it stands among others who want PIM (``PimTurns``).
    name: of what it writes down.
    ahead: programs that a channel is given at a time; with 1 others can always come in between.
    """

    def __init__(
        self,
        device: Device,
        index: SearchIndex,
        placement: Placement,
        *,
        stream: int = 0,
        slot: int = 0,
        turn: int = 0,
        ahead: int = IN_FLIGHT,
        name: str = "search",
    ) -> None:
        self._device = device
        self._layout = index.layout
        self._vectors = {channel: count for channel, count in enumerate(index.vectors) if count}
        self._placement = placement
        self._slot = slot
        self._turn = turn
        self._stream = stream
        # Where one command per cycle leaves for the whole device, a query's commands follow those of the query before.
        self._ahead = 1 if device.config.memory.pim.device_serial_issue else ahead
        self._runner = OperatorRunner(device, stream, lambda tensor, layer: 0)
        self._compiled: dict[tuple[int, int], list[PimProgram]] = {}
        self._name = name
        self._searched = self._last_end = 0
        self.progress: list[tuple[int, int]] = []
        """(cycle, dot-products) of every program that has ended."""

    @cached_property
    def dots(self) -> int:
        """Dot-products of one query, all channels."""
        return sum(self._layout.counts(1, vectors).dots for vectors in self._vectors.values())

    def part(self, queries: int) -> Part:
        """The search of a batch of queries."""
        limit = max(IN_FLIGHT, self._device.config.simulation.queries)
        return Part("search", queries, min(queries, limit), self.batch)

    def batch(self, queries: int, finished: Callable[[], None]) -> Process:
        """Queries in order; ``finished`` is called when the best of each are known."""
        env, layout = self._device.env, self._layout
        batch = [_Query(number, env.event(), env.event(), len(self._vectors)) for number in range(queries)]
        for channel in self._vectors:
            env.process(self._channel(channel, batch))
        for query in batch:
            if query.number >= self._ahead:
                before = batch[query.number - self._ahead].done
                if not before.processed:
                    yield before
                finished()
            start, row = self._device.now, self._query_row(query.number)
            dot_bytes = layout.multipliers * layout.element_bytes
            yield env.all_of(
                [
                    self._device.write_row(channel, row + chunk, layout.chunk_dots(chunk) * dot_bytes)
                    for channel in self._vectors
                    for chunk in range(layout.chunks)
                ]
            )
            if self._device.config.memory.pim.device_serial_issue:
                whole = [(channel, self._programs(channel, query.number)[0]) for channel in self._vectors]
                query.releases = serialized_releases(whole, self._device.now)
            query.written.succeed(start)
        for query in batch[-self._ahead :]:
            if not query.done.processed:
                yield query.done
            finished()

    def _channel(self, channel: int, batch: Sequence[_Query]) -> Process:
        """The programs of all queries on one channel, ``ahead`` of them at a time."""
        env, running = self._device.env, deque[SimEvent]()
        for query in batch:
            if not query.written.processed:
                yield query.written
            for program in self._programs(channel, query.number):
                if len(running) == self._ahead:
                    before = running.popleft()
                    if not before.processed:
                        yield before
                running.append(env.process(self._program(channel, query, program)))
            env.process(self._select(channel, query, running[-1]))

    def _program(self, channel: int, query: _Query, program: PimProgram) -> Process:
        turn = self._turn, self._stream, query.number
        yield from self._device.pim.run(channel, program, turn, query.releases.get(channel))
        self.progress.append((self._device.now, program.dots))

    def _select(self, channel: int, query: _Query, last: SimEvent) -> Process:
        """Add the partial sums of a vector's rows, and compare each score with the worst of the best so far."""
        yield last
        device, vectors = self._device, self._vectors[channel]
        work = {"add": (self._layout.chunks - 1) * vectors, "compare": vectors}
        cycles = operation_cycles(work, device.config.npu.vector)
        yield from device.npu.vector([("ranks", cycles)], ready=device.env.event().succeed())
        query.channels_left -= 1
        if not query.channels_left:
            start = max(cast(int, query.written.value), self._last_end)
            flops = 2 * sum(self._vectors.values()) * self._layout.dimensions
            macs = device.count_pim_macs(self.dots)
            self._runner.record(self._searched, self._name, "PIM", start, macs, flops=flops)
            self._searched += 1
            self._last_end = device.now
            query.done.succeed()

    def _query_row(self, number: int) -> int:
        return self._placement.first_row("queries") + (self._slot + number % IN_FLIGHT) * self._layout.chunks

    def _programs(self, channel: int, number: int) -> list[PimProgram]:
        """What a channel runs for a query; in one piece where one command per cycle leaves for the whole device."""
        config, row = self._device.config, self._placement.first_row("database")
        if config.memory.pim.device_serial_issue:
            return [self._layout.program(1, self._vectors[channel], row, self._query_row(number))]
        key = self._vectors[channel], number % IN_FLIGHT
        if key not in self._compiled:
            tiles = config.mapping.search_program_tiles
            self._compiled[key] = self._layout.programs(key[0], row, self._query_row(number), tiles)
        return self._compiled[key]


@dataclass
class _Query:
    """A query of a batch on its way."""

    number: int
    written: SimEvent
    """It lies in the rows where GWRITE reads it; the value is when that began."""
    done: SimEvent
    channels_left: int
    releases: dict[int, Int64Array] = field(default_factory=dict)
    """Per channel, when its macro-commands may start, where they leave one by one."""


class BackgroundSearch:
    """Searches that go on beside other work, from the start of the run: a new query as soon as one has ended."""

    def __init__(
        self, device: Device, index: SearchIndex, placement: Placement, config: BackgroundSearchConfig
    ) -> None:
        self._device = device
        self._latencies: list[tuple[int, int]] = []
        turn = -1 if config.turn == "first" else 1 << 30
        self._searches = [
            PimSearch(
                device,
                index,
                placement,
                stream=number,
                slot=number * IN_FLIGHT,
                turn=turn,
                ahead=1,
                name=BACKGROUND_SEARCH,
            )
            for number in range(config.in_flight)
        ]
        for search in self._searches:
            device.env.process(self._follow(search))

    def _follow(self, search: PimSearch) -> Process:
        while True:
            start = self._device.now
            yield from search.batch(1, lambda: None)
            self._latencies.append((self._device.now, self._device.now - start))

    def metrics(self, first_cycle: int, last_cycle: int) -> dict[str, float | None]:
        """Queries per second (by the share of their dot-products that was done) and the mean latency of those that ended."""
        inside = [
            dots for search in self._searches for cycle, dots in search.progress if first_cycle < cycle <= last_cycle
        ]
        ended = [latency for cycle, latency in self._latencies if first_cycle < cycle <= last_cycle]
        seconds = (last_cycle - first_cycle) / (self._device.config.clock_ghz * 1e9)
        return {
            "queries_per_s": sum(inside) / self._searches[0].dots / seconds if seconds else None,
            "mean_latency_cycles": sum(ended) / len(ended) if ended else None,
        }

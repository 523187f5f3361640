"""Similarity search in PIM: queries against a database that lies in the banks of all channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from neupims_sim.config import BackgroundSearchConfig, Config, IndexConfig
from neupims_sim.mapping.pim_search import SearchLayout
from neupims_sim.mapping.placement import Placement
from neupims_sim.memory.device import serialized_releases
from neupims_sim.memory.program import PimProgram
from neupims_sim.npu import operation_cycles
from neupims_sim.simulation.device import Device, Int64Array, Process, SimEvent
from neupims_sim.simulation.operators import OperatorRunner
from neupims_sim.simulation.parts import Part

IN_FLIGHT = 2
"""Queries of a batch that PIM has at a time: one that is compared, and one that follows without a gap."""


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
    """

    def __init__(
        self, device: Device, index: SearchIndex, placement: Placement, *, stream: int = 0, slot: int = 0, turn: int = 0
    ) -> None:
        self._device = device
        self._index = index
        self._placement = placement
        self._slot = slot
        self._turn = turn
        self._stream = stream
        self._runner = OperatorRunner(device, stream, lambda tensor, layer: 0)
        self.progress: list[tuple[int, int]] = []
        """(cycle, dot-products) of every program that has ended."""

    @cached_property
    def dots(self) -> int:
        """Dot-products of one query, all channels."""
        return sum(self._index.layout.counts(1, vectors).dots for vectors in self._index.vectors if vectors)

    def part(self, queries: int) -> Part:
        """The search of a batch of queries."""
        limit = max(IN_FLIGHT, self._device.config.simulation.queries)
        return Part("search", queries, min(queries, limit), self.batch)

    def batch(self, queries: int, finished: Callable[[], None]) -> Process:
        """Queries in order, ``IN_FLIGHT`` at a time."""
        started: list[SimEvent] = []
        for number in range(queries):
            if number >= IN_FLIGHT:
                yield started[number - IN_FLIGHT]
                finished()
            started.append(self._device.env.process(self.query(number)))
        for event in started[-IN_FLIGHT:]:
            if not event.processed:
                yield event
            finished()

    def query(self, number: int) -> Process:
        """Write the query, run its programs on every channel, and select the best as results arrive."""
        device, layout = self._device, self._index.layout
        start = device.now
        query_row = self._placement.first_row("queries") + (self._slot + number % IN_FLIGHT) * layout.chunks
        size = layout.counts(1, 1).vector_bytes
        writes = [device.write_row(c, query_row, size) for c, vectors in enumerate(self._index.vectors) if vectors]
        yield device.env.all_of(writes)
        programs = {c: self._programs(vectors, query_row) for c, vectors in enumerate(self._index.vectors) if vectors}
        releases: dict[int, Int64Array] = {}
        if device.config.memory.pim.device_serial_issue:
            releases = serialized_releases([(c, program) for c, (program,) in programs.items()], device.now)
        channels = [self._channel(c, number, found, releases.get(c)) for c, found in programs.items()]
        yield device.env.all_of([device.env.process(channel) for channel in channels])
        macs = device.count_pim_macs(self.dots)
        self._runner.record(number, "search", "PIM", start, macs)

    def _channel(self, channel: int, number: int, programs: list[PimProgram], release: Int64Array | None) -> Process:
        device, layout, vectors = self._device, self._index.layout, self._index.vectors[channel]
        for program in programs:
            yield from device.pim.run(channel, program, (self._turn, self._stream, number), release)
            self.progress.append((device.now, program.dots))
        # partial sums of a vector's rows; then each score against the worst of the best so far
        work = {"add": (layout.chunks - 1) * vectors, "compare": vectors}
        cycles = operation_cycles(work, device.config.npu.vector)
        yield from device.npu.vector("ranks", cycles, ready=device.env.event().succeed())

    def _programs(self, vectors: int, query_row: int) -> list[PimProgram]:
        """What one channel runs for a query; in one piece where one command per cycle leaves for the whole device."""
        config, row = self._device.config, self._placement.first_row("database")
        if config.memory.pim.device_serial_issue:
            return [self._index.layout.program(1, vectors, row, query_row)]
        return self._index.layout.programs(vectors, row, query_row, config.mapping.search_program_tiles)


class BackgroundSearch:
    """Searches that go on beside other work, from the start of the run: a new query as soon as one has ended."""

    def __init__(
        self, device: Device, index: SearchIndex, placement: Placement, config: BackgroundSearchConfig
    ) -> None:
        self._device = device
        self._latencies: list[tuple[int, int]] = []
        turn = -1 if config.turn == "first" else 1 << 30
        self._searches = [
            PimSearch(device, index, placement, stream=number, slot=number * IN_FLIGHT, turn=turn)
            for number in range(config.in_flight)
        ]
        for search in self._searches:
            device.env.process(self._follow(search))

    def _follow(self, search: PimSearch) -> Process:
        while True:
            start = self._device.now
            yield from search.query(0)
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

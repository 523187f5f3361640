"""Image retrieval: the NPU extracts and reranks, PIM (or the NPU) searches, batches of queries follow one another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from neupims_sim.config import Config, ModelConfig, RetrievalConfig
from neupims_sim.config.checks import search_unit
from neupims_sim.mapping.placement import Placement
from neupims_sim.scheduling.interleaving import INTERLEAVINGS, Interleaving
from neupims_sim.simulation.device import Device, SimEvent
from neupims_sim.simulation.effort import check_effort
from neupims_sim.simulation.inference import TraceOnNpu
from neupims_sim.simulation.operators import timed
from neupims_sim.simulation.outcome import Outcome, RunRecorder
from neupims_sim.simulation.parts import Part, run_extrapolated, run_in_full
from neupims_sim.simulation.search import IN_FLIGHT, PimSearch, SearchIndex
from neupims_sim.trace import Operator, Trace
from neupims_sim.trace.check import MOST_REPEATS
from neupims_sim.workloads import generate_retrieval


def simulate_retrieval(device: Device) -> Outcome:
    """Batches of queries in steady state: the next is extracted while PIM searches for this one, if the policy interleaves.

    A block is one batch of queries. Without interleaving nothing overlaps, so that one batch says all, and repeated parts of it
    (layers, pairs of images, queries in PIM) are simulated only in part.
    """
    config = device.config
    workload = config.workload
    assert isinstance(workload, RetrievalConfig)
    interleaving = _interleaving(config, workload)
    policy = INTERLEAVINGS[interleaving]
    count = policy.sub_batches
    streams, index, placement = _placed(config, workload, count)
    runs = [
        QueryStream.of(device, stream, number, placement, index, workload.queries)
        for number, stream in enumerate(streams)
    ]
    if interleaving == "off":
        return _one_batch(device, runs[0], workload)
    recorder = RunRecorder(device)
    steps = _steps(config, policy)
    begin = device.totals()
    device.env.run(until=device.env.process(policy.run(device.env, runs, steps, recorder)))
    first, last, between = recorder.window(begin, steps)
    return Outcome(
        seen=device.seen,
        total=last.since(first).per(between * count),
        block=last.since(first).per(between * count),
        items=workload.queries,
        item="queries",
        batch_size=workload.queries,
        interleaving=interleaving,
        layers=1,
        simulated_layers=1,
        simulated_cycles=device.now,
        latency_cycles=_latency(device, count - 1, steps),
    )


def check_retrieval_fits(config: Config) -> None:
    """Raise ``InputError`` if the database and what else has to lie in memory do not fit; nothing is simulated."""
    assert isinstance(config.workload, RetrievalConfig)
    _placed(config, config.workload, INTERLEAVINGS[_interleaving(config, config.workload)].sub_batches)


def _placed(
    config: Config, workload: RetrievalConfig, count: int
) -> tuple[list[TraceOnNpu], SearchIndex | None, Placement]:
    """The operators of ``count`` batches of queries under way, the database if PIM searches it, and where everything lies."""
    on_pim, interleaving = search_unit(config) == "pim", _interleaving(config, workload)
    phases = _phases(retrieval_trace(config, workload), on_pim)
    steps = _steps(config, INTERLEAVINGS[interleaving])
    on_npu = [operator for phase in phases for operator in phase]
    if interleaving == "off":
        check_effort(config, on_npu, max(2, config.simulation.layers))
    else:
        check_effort(config, on_npu, MOST_REPEATS, steps * count)
    streams = [TraceOnNpu(config, phases, number, sub_batches=count) for number in range(count)]
    index = SearchIndex.of(config, workload) if on_pim else None
    tensors = {name: size for stream in streams for name, size in stream.tensors().items()}
    rows = {} if index is None else index.rows(IN_FLIGHT * count)
    if index is not None:
        tensors.pop("database", None)  # the NPU, too, reads the vectors in the rows where PIM finds them
    placement = Placement(config.memory.organization, tensors, streams[0].reserved_bytes(), row_regions=rows)
    return streams, index, placement


def _steps(config: Config, policy: Interleaving) -> int:
    """Batches of queries that are simulated in each stream."""
    return max(config.simulation.layers, policy.fewest_steps)


@dataclass(frozen=True)
class QueryStream:
    """Every other batch of queries (or every one): the phases of its steps, as ``scheduling.interleaving`` wants them."""

    device: Device
    index: int
    phases: tuple[tuple[Part, ...], tuple[Part, ...], tuple[Part, ...]]
    """Extraction, search, ranking."""

    @staticmethod
    def of(
        device: Device,
        on_npu: TraceOnNpu,
        number: int,
        placement: Placement,
        index: SearchIndex | None,
        queries: int,
    ) -> QueryStream:
        """Cut the trace around its search."""
        search: list[Part] = []
        if index is not None:
            slot = number * IN_FLIGHT
            search = [PimSearch(device, index, placement, stream=number, slot=slot).part(queries)]
        before, middle, after = on_npu.parts(device, placement)
        return QueryStream(device, number, (tuple(before), (*middle, *search), tuple(after)))

    def before(self, step: int) -> SimEvent:
        """Extract the descriptors of the step's queries."""
        return self._start("extract", 0, step)

    def middle(self, step: int) -> SimEvent:
        """Search the database."""
        return self._start("search", 1, step)

    def after(self, step: int) -> SimEvent:
        """Rerank what was found."""
        return self._start("rank", 2, step)

    def _start(self, name: str, phase: int, step: int) -> SimEvent:
        work = run_in_full(self.phases[phase])
        return self.device.env.process(timed(self.device, self.index, name, step, work))


def _one_batch(device: Device, stream: QueryStream, workload: RetrievalConfig) -> Outcome:
    stages = []
    for name, phase in zip("ABE", stream.phases, strict=True):
        start = device.now
        stages.append((name, run_extrapolated(device, phase)))
        device.seen.stages.append((name, start, device.now))
    total = device.totals()
    total = total.since(total)
    cycles: Counter[str] = Counter()
    for _, done in stages:
        total += done.total
        cycles.update(done.operator_cycles)
    parts = [part for phase in stream.phases for part in phase]
    return Outcome(
        seen=device.seen,
        total=total,
        block=total,
        items=workload.queries,
        item="queries",
        batch_size=workload.queries,
        interleaving="off",
        layers=sum(part.repeat for part in parts),
        simulated_layers=sum(part.simulated for part in parts),
        simulated_cycles=device.now,
        latency_cycles=round(total.cycle),
        stages={name: round(done.total.cycle) for name, done in stages},
        operator_cycles=cycles,
    )


def retrieval_trace(config: Config, workload: RetrievalConfig) -> Trace:
    """The operators of one batch of queries."""
    model = config.model
    extractor = None if isinstance(model, ModelConfig) or not workload.extract else model
    return generate_retrieval(
        database=workload.database,
        dimensions=workload.dimensions,
        queries=workload.queries,
        top_m=workload.top_m,
        rerank=workload.rerank,
        extract=extractor,
        image_size=workload.image_size,
        pooling=workload.pooling,
        dtype=config.npu.dtype,
    )


def _phases(trace: Trace, search_on_pim: bool) -> tuple[list[Operator], list[Operator], list[Operator]]:
    """What the NPU does before, as and after the search; nothing as the search where PIM does it."""
    names = [operator.name for operator in trace.operators]
    search, ranks = names.index("search"), names.index("ranks")
    operators = list(trace.operators)
    return operators[:search], [] if search_on_pim else operators[search : ranks + 1], operators[ranks + 1 :]


def _interleaving(config: Config, workload: RetrievalConfig) -> str:
    """``auto``: lockstep where PIM searches and the NPU has something to do meanwhile, else off."""
    setting = config.scheduling.interleaving
    if setting != "auto":
        return setting
    overlaps = search_unit(config) == "pim" and (workload.extract or workload.rerank != "none")
    return "lockstep" if overlaps else "off"


def _latency(device: Device, stream: int, steps: int) -> int:
    """Cycles of a batch from the start of its extraction to the end of its ranking: of the last that overlaps on both sides."""
    step = max(0, steps - 2)
    records = [record for record in device.seen.phases if record.layer == step and record.sub_batch == stream]
    return max(record.end_cycle for record in records) - min(record.start_cycle for record in records)

"""One device in a simulation: clock, memory, NPU, and the sub-batches that use them."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import simpy

from neupims_sim.config import Config
from neupims_sim.mapping.npu_attention import plan_npu_attention
from neupims_sim.mapping.operators import GemmWork, VectorWork, Work, map_phase, work_macs
from neupims_sim.mapping.pim_attention import AttentionLayout
from neupims_sim.mapping.placement import Placement
from neupims_sim.memory.device import serialized_releases
from neupims_sim.memory.models import MemoryModel
from neupims_sim.memory.program import PimProgram
from neupims_sim.npu import softmax_occupancy, vector_cycles
from neupims_sim.npu.device import WRITE, Npu, Region
from neupims_sim.trace import Operator, Tensor, Trace

SimEvent = simpy.events.Event
Process = Generator[SimEvent, Any, None]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class OperatorRecord:
    """When one operator of one sub-batch ran: from the end of what it depends on to its own end."""

    layer: int
    sub_batch: int
    request: int | None
    """Position in the batch, where the operator belongs to one request."""
    operator: str
    unit: str
    start_cycle: int
    end_cycle: int
    macs: int


@dataclass(frozen=True)
class PhaseRecord:
    """When a phase (QKV, MHA, Proj+FFN) of one sub-batch ran."""

    layer: int
    sub_batch: int
    phase: str
    start_cycle: int
    end_cycle: int


@dataclass
class Observations:
    """Everything that a run writes down; results and timelines are made of it."""

    operators: list[OperatorRecord] = field(default_factory=list)
    phases: list[PhaseRecord] = field(default_factory=list)
    stages: list[tuple[str, int, int]] = field(default_factory=list)
    """(name, start, end) of every stage."""
    under_way: dict[int, str] = field(default_factory=dict)
    """The phase that each sub-batch is in."""
    layer_cycles: list[int] = field(default_factory=list)
    """The moments between which identical steady-state layers pass."""
    npu_macs: int = 0
    pim_macs: int = 0
    vector_cycles: int = 0
    """Cycles in which the vector units worked."""


@dataclass(frozen=True)
class Phases:
    """The operators of one layer, cut at the attention."""

    before: tuple[Operator, ...]
    attention: tuple[Operator, ...]
    after: tuple[Operator, ...]

    @staticmethod
    def of(trace: Trace) -> Phases:
        """Operators of the repeated block; those with a request are the attention."""
        block = [operator for operator in trace.operators if operator.repeat > 1 or trace.header.attrs["layers"] == 1]
        per_request = [index for index, operator in enumerate(block) if operator.request is not None]
        first, last = per_request[0], per_request[-1]
        return Phases(tuple(block[:first]), tuple(block[first : last + 1]), tuple(block[last + 1 :]))

    def weights(self) -> dict[str, int]:
        """Bytes of each weight."""
        operators = (*self.before, *self.after)
        return {t.name: t.bytes for operator in operators for t in operator.inputs if t.role == "weight"}

    def activations(self) -> dict[str, int]:
        """Bytes of each activation that may go through memory."""
        sizes: dict[str, int] = {}
        for operator in (*self.before, *self.after):
            for tensor in (*operator.inputs, *operator.outputs):
                if tensor.role != "weight":
                    sizes[tensor.whole] = max(sizes.get(tensor.whole, 0), tensor.bytes)
        return sizes

    def context_tokens(self) -> dict[int, int]:
        """Context length of each request, from its attention."""
        return {
            operator.request: int(operator.attrs["context_tokens"])
            for operator in self.attention
            if operator.request is not None and operator.op == "attention_logits"
        }


class PimTurns:
    """Who may hand a channel its next PIM program: the older sub-batch's layer first.

    A channel gets at most two programs at a time, one to execute and one to follow it without a gap; the rest wait here,
    so that a sub-batch's attend does not queue behind all logits of the other sub-batch.
    """

    def __init__(self, env: simpy.Environment, memory: MemoryModel) -> None:
        self._memory = memory
        self._channels = [simpy.PriorityResource(env, capacity=2) for _ in range(memory.capabilities.channels)]

    def run(self, channel: int, program: PimProgram, priority: tuple[int, int], release: Int64Array | None) -> Process:
        """Run a program when its turn comes; ends with its last result."""
        with self._channels[channel].request(priority=priority) as turn:  # type: ignore[arg-type]
            yield turn
            yield self._memory.run_program(channel, program, release)


class SubBatchRun:
    """A sub-batch on a device: starts its phases and tells when they end.

    Parameters
    ----------
    requests: position of each of the sub-batch's requests in the whole batch.
    channels: channel of each, where attention runs in PIM.
    """

    def __init__(
        self,
        index: int,
        config: Config,
        env: simpy.Environment,
        memory: MemoryModel,
        pim: PimTurns,
        npu: Npu,
        phases: Phases,
        placement: Placement,
        layout: AttentionLayout | None,
        requests: Sequence[int],
        channels: Sequence[int],
        seen: Observations,
    ) -> None:
        self._index = index
        self._config = config
        self._env = env
        self._memory = memory
        self._pim = pim
        self._npu = npu
        self._placement = placement
        self._layout = layout
        self._requests = list(requests)
        self._channels = list(channels)
        self._contexts = list(phases.context_tokens().values())
        self._seen = seen
        bandwidth = memory.capabilities.peak_bytes_per_cycle
        block_input, block_output = phases.before[0].inputs[0], phases.after[-1].outputs[0]
        options = (config.npu, config.mapping, bandwidth)
        self._before = map_phase(phases.before, frozenset(), *options, frozenset({block_input.whole}))
        attended = next(t for t in phases.after[0].inputs if t.role == "activation")
        self._after = map_phase(phases.after, frozenset({block_output.whole}), *options, frozenset({attended.whole}))
        self._attended = attended
        self._probabilities = Region(placement.address(f"{index}.logits"), self._probability_bytes(sum(self._contexts)))

    def qkv(self, layer: int) -> SimEvent:
        """Start everything before the attention. It goes before waiting Proj+FFN operators: PIM needs its output."""
        return self._start("QKV", layer, self._phase(self._before, layer, priority=0))

    def proj_ffn(self, layer: int) -> SimEvent:
        """Start everything after the attention."""
        return self._start("Proj+FFN", layer, self._phase(self._after, layer, priority=1))

    def mha(self, layer: int) -> SimEvent:
        """Start the attention of all requests."""
        on_pim = self._config.attention_on == "pim"
        return self._start("MHA", layer, self._pim_attention(layer) if on_pim else self._npu_attention(layer))

    def _start(self, name: str, layer: int, work: Process) -> SimEvent:
        def timed() -> Process:
            start = int(self._env.now)
            self._seen.under_way[self._index] = f"{name} of layer {layer}"
            yield from work
            del self._seen.under_way[self._index]
            self._seen.phases.append(PhaseRecord(layer, self._index, name, start, int(self._env.now)))

        return self._env.process(timed())

    def _phase(self, works: Sequence[Work], layer: int, priority: int) -> Process:
        """Operators in program order; each waits for those it depends on, or (operator_drain) for the one before it."""
        done: dict[int, simpy.Process] = {}
        for work in works:
            dependencies = [done[d] for d in work.operator.deps if d in done]
            process = self._env.process(self._operator(work, layer, dependencies, priority))
            done[work.operator.id] = process
            if self._config.mapping.operator_drain:
                yield process
        yield self._env.all_of(done.values())

    def _operator(
        self, work: Work, layer: int, dependencies: Sequence[simpy.Process], priority: int
    ) -> Generator[SimEvent, Any, int]:
        """Run an operator of a phase; returns the cycle of its end."""
        asked = int(self._env.now)
        ready = self._env.all_of(dependencies)
        if isinstance(work, GemmWork):
            yield from self._npu.gemm(
                work.operator.name,
                work.plan,
                weights=Region(self._placement.address(f"{layer}.{work.weights.name}"), work.weights.bytes),
                activations=self._region(work.activations),
                output=self._region(work.output),
                ready=ready,
                priority=priority,
            )
            unit = "systolic arrays"
        else:
            yield from self._vector(work, ready)
            unit = "vector units" if work.cycles else "DMA"
        macs = work_macs(work)
        self._seen.npu_macs += macs
        start = max((cast(int, process.value) for process in dependencies), default=asked)
        self._record(layer, work.operator.name, unit, start, macs)
        return int(self._env.now)

    def _vector(self, work: VectorWork, ready: SimEvent) -> Process:
        yield from self._npu.vector(
            work.operator.name,
            work.cycles,
            loads=[(self._region(tensor), tensor.bytes) for tensor in work.loads],
            stores=[(self._region(tensor), tensor.bytes) for tensor in work.stores],
            ready=ready,
        )

    def _npu_attention(self, layer: int) -> Process:
        """K and V stream through the arrays; softmaxes run beside them."""
        start, model, shards = int(self._env.now), self._config.model, self._config.parallel.tensor
        plan = plan_npu_attention(
            self._contexts,
            model.heads // shards,
            model.kv_heads // shards,
            model.head_size,
            self._config.npu,
            self._config.mapping,
        )
        cache = Region(self._placement.address(f"{self._index}.kv_cache"), int(plan.weight_bytes.sum()))
        nothing = Region(0, 0)
        now = self._env.event().succeed()
        parts = [
            self._npu.gemm("attention", plan, weights=cache, activations=nothing, output=nothing, ready=now),
            self._npu.vector("softmax", plan.softmax_cycles, ready=now),
        ]
        yield self._env.all_of([self._env.process(part) for part in parts])
        if not self._config.mapping.keep_activations_on_chip:
            region = self._region(self._attended)
            yield self._npu.transfer(WRITE, *region.take(self._attended.bytes), "attention")
        self._seen.npu_macs += plan.macs
        self._record(layer, "attention", "systolic arrays", start, plan.macs)

    def _pim_attention(self, layer: int) -> Process:
        """Logits in PIM, softmax on the vector units, attend in PIM, per request or all requests step by step."""
        releases = self._releases(layer, "logits")
        logits = [self._env.process(self._logits(n, layer, releases)) for n in range(len(self._requests))]
        if self._config.scheduling.barrier == "operator":
            yield self._env.all_of(logits)
        releases = self._releases(layer, "attend")
        attends = [self._env.process(self._attend(n, layer, logits[n], releases)) for n in range(len(self._requests))]
        yield self._env.all_of(attends)

    def _logits(self, n: int, layer: int, releases: Mapping[int, Int64Array]) -> Process:
        start, channel, layout = int(self._env.now), self._channels[n], self._pim_layout
        tokens, rows = self._contexts[n], self._placement.rows(self._requests[n], layer)
        keep = self._config.mapping.keep_activations_on_chip
        if keep:  # otherwise the QKV GEMM has stored the query
            yield self._write_operand(channel, rows.query, int(layout.query_row_bytes().sum()))
        yield from self._pim.run(channel, layout.logits_program(tokens, rows), (layer, self._index), releases.get(n))
        self._count_pim(layer, "logits", start, layout.logits_counts(tokens).dots, self._requests[n])
        start = int(self._env.now)
        busy, latency = softmax_occupancy(self._config.npu.vector, rows=layout.heads, width=tokens)
        yield from self._npu.vector("softmax", busy, ready=self._env.event().succeed())
        if latency:
            yield self._env.timeout(latency)
        size = self._probability_bytes(tokens)
        if keep:
            yield self._write_operand(channel, rows.probability, int(layout.probability_row_bytes(tokens).sum()))
        else:
            yield self._npu.transfer(WRITE, *self._probabilities.take(size), "softmax")
        self._record(layer, "softmax", "vector units", start, 0, self._requests[n])

    def _attend(self, n: int, layer: int, logits: SimEvent, releases: Mapping[int, Int64Array]) -> Process:
        if not logits.processed:
            yield logits
        start, layout, tokens = int(self._env.now), self._pim_layout, self._contexts[n]
        rows = self._placement.rows(self._requests[n], layer)
        program, turn = layout.attend_program(tokens, rows), (layer, self._index)
        yield from self._pim.run(self._channels[n], program, turn, releases.get(n))
        self._count_pim(layer, "attend", start, layout.attend_counts(tokens).dots, self._requests[n])
        partial_sums = layout.segments(tokens) - 1
        if partial_sums:
            width = layout.heads * layout.head_size
            cycles = vector_cycles("add", self._config.npu.vector, rows=partial_sums, width=width)
            yield from self._npu.vector("add", cycles, ready=self._env.event().succeed())

    def _releases(self, layer: int, step: str) -> Mapping[int, Int64Array]:
        """Per request, when its macro-commands may start, where one PIM command per cycle leaves for the whole device."""
        if not self._config.memory.pim.device_serial_issue:
            return {}
        layout = self._pim_layout
        order = sorted(range(len(self._requests)), key=lambda n: (self._channels[n], n))
        programs: list[tuple[int, PimProgram]] = []
        for n in order:
            rows = self._placement.rows(self._requests[n], layer)
            compile_ = layout.logits_program if step == "logits" else layout.attend_program
            programs.append((n, compile_(self._contexts[n], rows)))
        return serialized_releases(programs, int(self._env.now))

    @property
    def _pim_layout(self) -> AttentionLayout:
        assert self._layout is not None, "attention on PIM has a layout"
        return self._layout

    def _write_operand(self, channel: int, row: int, size_bytes: int) -> SimEvent:
        """Write a GWRITE source vector into its channel, from its first row on."""
        organization = self._config.memory.organization
        address = row * organization.banks * organization.row_bytes
        return self._memory.transfer_in_channel(WRITE, channel, address, size_bytes)

    def _probability_bytes(self, tokens: int) -> int:
        heads = self._config.model.heads // self._config.parallel.tensor
        return heads * tokens * self._config.npu.element_bytes

    def _count_pim(self, layer: int, name: str, start: int, dots: int, request: int) -> None:
        organization = self._config.memory.organization
        macs = dots * organization.banks * self._config.memory.pim.multipliers_per_bank
        self._seen.pim_macs += macs
        self._record(layer, name, "PIM", start, macs, request)

    def _region(self, tensor: Tensor) -> Region:
        return Region(self._placement.address(f"{self._index}.{tensor.whole}"), tensor.bytes)

    def _record(self, layer: int, name: str, unit: str, start: int, macs: int, request: int | None = None) -> None:
        self._seen.operators.append(
            OperatorRecord(layer, self._index, request, name, unit, start, int(self._env.now), macs)
        )

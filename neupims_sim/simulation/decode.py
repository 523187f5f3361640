"""A sub-batch of a decoder on a device: its QKV, attention and Proj+FFN phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from neupims_sim.config import ModelConfig
from neupims_sim.mapping.npu_attention import (
    SplitAttention,
    StreamedAttention,
    plan_npu_attention,
    plan_split_attention,
)
from neupims_sim.mapping.operators import less_scratchpad
from neupims_sim.mapping.phases import MappedPhase, map_phase
from neupims_sim.mapping.pim_attention import AttentionLayout
from neupims_sim.mapping.placement import Placement
from neupims_sim.memory.device import serialized_releases
from neupims_sim.memory.program import PimProgram
from neupims_sim.npu import softmax_occupancy, vector_cycles
from neupims_sim.npu.device import READ, WRITE, Region
from neupims_sim.simulation.device import Device, Process, SimEvent
from neupims_sim.simulation.operators import OperatorRunner, timed
from neupims_sim.trace import Operator, Tensor, Trace, flops
from neupims_sim.trace.kinds import KINDS

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Phases:
    """The operators of one layer, cut at the attention.

    Attributes
    ----------
    handed_on: what ``before`` takes from the layer before.
    hidden: what a layer ends with, for the residual addition of the next one.
    """

    before: tuple[Operator, ...]
    attention: tuple[Operator, ...]
    after: tuple[Operator, ...]
    handed_on: Tensor
    hidden: Tensor

    @staticmethod
    def of(trace: Trace, fuse: bool) -> Phases:
        """Operators of the repeated block; those with a request are the attention.

        ``fuse``: the norm that a layer begins with goes with the last tiles of the layer before, which ends with it.
        """
        block = [operator for operator in trace.operators if operator.repeat > 1 or trace.header.attrs["layers"] == 1]
        per_request = [index for index, operator in enumerate(block) if operator.request is not None]
        first, last = per_request[0], per_request[-1]
        before, attention, after = block[:first], block[first : last + 1], block[last + 1 :]
        handed_on, hidden = before[0].inputs[0], after[-1].outputs[0]
        if fuse and len(before) > 1 and KINDS[before[0].op].per_tile:
            norm, *before = before
            handed_on = norm.outputs[0]
            after.append(replace(norm, inputs=(hidden, *norm.inputs[1:]), deps=(after[-1].id,)))
        return Phases(tuple(before), tuple(attention), tuple(after), handed_on, hidden)

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

    def attention_flops(self) -> dict[str, list[int]]:
        """FLOPs of each operator of the attention, by its name, request by request."""
        found: dict[str, list[int]] = {}
        for operator in self.attention:
            found.setdefault(operator.name, []).append(flops(operator))
        return found


class SubBatchRun:
    """A sub-batch on a device: starts its phases and tells when they end.

    Parameters
    ----------
    requests: position of each of the sub-batch's requests in its micro-batch.
    numbers: those of the requests in the workload.
    channels: channel of each, where attention runs in PIM.
    sub_batches: that share the scratchpad.
    """

    def __init__(
        self,
        index: int,
        device: Device,
        model: ModelConfig,
        phases: Phases,
        placement: Placement,
        layout: AttentionLayout | None,
        requests: Sequence[int],
        numbers: Sequence[int],
        channels: Sequence[int],
        sub_batches: int = 1,
    ) -> None:
        self._index = index
        self._device = device
        self._config = config = device.config
        self._env = device.env
        self._npu = device.npu
        self._heads = model.heads // config.parallel.tensor
        self._kv_heads = model.kv_heads // config.parallel.tensor
        self._head_size = model.head_size
        self._placement = placement
        self._layout = layout
        self._requests = list(requests)
        self._numbers = list(numbers)
        self._channels = list(channels)
        self._contexts = list(phases.context_tokens().values())
        self._attention_flops = phases.attention_flops()
        self._attended = next(t for t in phases.after[0].inputs if t.role == "activation")
        self._queries = phases.attention[0].inputs[0]
        self._before, self._after = self._map(phases, sub_batches)
        self._beside_attention = 0
        self._reserved = 0, 0
        """Scratchpad that an attention takes when it begins, and gives back at its end: the output replaces the queries."""
        if config.mapping.hold_residents:
            queries, attended = sum(self._before.left.values()), sum(self._after.resident.values())
            self._reserved = max(0, attended - queries), max(0, queries - attended)
            self._beside_attention = max(queries, attended)
            self._env.process(self._npu.reserve(sum(self._before.resident.values())))
        self._run = OperatorRunner(device, index, self._address)
        self._probabilities = Region(placement.address(f"{index}.logits"), self._probability_bytes(sum(self._contexts)))

    def _map(self, phases: Phases, sub_batches: int) -> tuple[MappedPhase, MappedPhase]:
        """Before and after the attention; what one leaves on the chip the other finds there, where both have room for it."""
        npu, mapping = self._config.npu, self._config.mapping
        if mapping.hold_residents:
            npu = less_scratchpad(npu, npu.scratchpad_bytes - npu.scratchpad_bytes // sub_batches)
        options = npu, mapping, self._device.memory.capabilities.peak_bytes_per_cycle
        on_pim = self._config.attention_on == "pim"
        # Operands of PIM go to its rows tile by tile.
        taken = frozenset({self._queries.whole} if on_pim and mapping.hold_residents else ())
        handed_on, hidden = phases.handed_on.whole, frozenset({phases.hidden.whole})
        stays = mapping.fuse or not mapping.hold_residents
        before = map_phase(phases.before, frozenset(), *options, frozenset({handed_on} if stays else ()), taken)
        stored = hidden if handed_on in before.resident else hidden | {handed_on}
        after = map_phase(phases.after, stored, *options, frozenset({self._attended.whole}))
        if mapping.hold_residents and handed_on in before.resident and handed_on not in after.left:
            before = map_phase(phases.before, frozenset(), *options, frozenset(), taken)
        return before, after

    def before(self, layer: int) -> SimEvent:
        """Start everything before the attention. It goes before waiting Proj+FFN operators: PIM needs its output."""
        return self._start("QKV", layer, self._run.run(self._before.works, layer, priority=0))

    def middle(self, layer: int) -> SimEvent:
        """Start the attention of all requests."""
        return self._start("MHA", layer, self._attention(layer))

    def after(self, layer: int) -> SimEvent:
        """Start everything after the attention."""
        return self._start("Proj+FFN", layer, self._run.run(self._after.works, layer, priority=1))

    def _attention(self, layer: int) -> Process:
        """The attention on its unit, and its room in the scratchpad."""
        on_pim = self._config.attention_on == "pim"
        taken, freed = self._reserved
        room = self._env.process(self._npu.reserve(taken)) if taken else None
        yield from self._pim_attention(layer) if on_pim else self._npu_attention(layer)
        if room is not None and not room.processed:
            yield room
        self._npu.release(freed)

    def _start(self, name: str, layer: int, work: Process) -> SimEvent:
        return self._env.process(timed(self._device, self._index, name, layer, work))

    def _address(self, tensor: Tensor, layer: int) -> int:
        owner = layer if tensor.role == "weight" else self._index
        return self._placement.address(f"{owner}.{tensor.name if tensor.role == 'weight' else tensor.whole}")

    def _npu_attention(self, layer: int) -> Process:
        """K and V stream through the arrays; softmaxes run beside them."""
        start = int(self._env.now)
        mapping = self._config.mapping
        if mapping.hold_residents and mapping.keep_activations_on_chip and not self._before.left:
            size = len(self._contexts) * self._heads * self._head_size * self._config.npu.element_bytes
            yield self._npu.transfer(READ, *self._run.region(self._queries).take(size), "attention")
        shard = self._contexts, self._heads, self._kv_heads, self._head_size
        cache_bytes = 2 * sum(self._contexts) * self._kv_heads * self._head_size * self._config.npu.element_bytes
        cache = Region(self._placement.address(f"{self._index}.kv_cache"), cache_bytes)
        nothing = Region(0, 0)
        now = self._env.event().succeed()
        plan: SplitAttention | StreamedAttention
        if self._config.mapping.npu_attention == "split":
            plan = plan_split_attention(*shard, less_scratchpad(self._config.npu, self._beside_attention))
            yield from self._npu.attention("attention", plan, source=cache, output=nothing, ready=now, macs=plan.macs)
        else:
            plan = plan_npu_attention(*shard, self._config.npu, self._config.mapping)
            parts = [
                self._npu.gemm("attention", plan, weights=cache, activations=nothing, output=nothing, ready=now),
                self._npu.vector([("softmax", plan.softmax_cycles)], ready=now),
            ]
            yield self._env.all_of([self._env.process(part) for part in parts])
        if self._attended.whole not in self._after.resident:
            region = self._run.region(self._attended)
            yield self._npu.transfer(WRITE, *region.take(self._attended.bytes), "attention")
        self._device.seen.npu_macs += plan.macs
        self._run.record(layer, "attention", "systolic arrays", start, plan.macs, flops=2 * plan.macs)

    def _pim_attention(self, layer: int) -> Process:
        """Logits in PIM, softmax on the vector units, attend in PIM, per request or all requests step by step."""
        releases = self._releases(layer, "logits")
        logits = [self._env.process(self._logits(n, layer, releases)) for n in range(len(self._requests))]
        if self._config.scheduling.barrier == "operator":
            yield self._env.all_of(logits)
        releases = self._releases(layer, "attend")
        attends = [self._env.process(self._attend(n, layer, logits[n], releases)) for n in range(len(self._requests))]
        yield self._env.all_of(attends)
        if self._config.mapping.keep_activations_on_chip and self._attended.whole not in self._after.resident:
            region = self._run.region(self._attended)
            yield self._npu.transfer(WRITE, *region.take(self._attended.bytes), "attend")

    def _logits(self, n: int, layer: int, releases: Mapping[int, Int64Array]) -> Process:
        start, channel, layout = int(self._env.now), self._channels[n], self._pim_layout
        tokens, rows = self._contexts[n], self._placement.rows(self._requests[n], layer)
        keep = self._config.mapping.keep_activations_on_chip
        if keep:  # otherwise the QKV GEMM has stored the query
            yield self._device.write_row(channel, rows.query, int(layout.query_row_bytes().sum()))
        yield from self._device.pim.run(
            channel, layout.logits_program(tokens, rows), (layer, self._index), releases.get(n)
        )
        self._count_pim(layer, "logits", start, layout.logits_counts(tokens).dots, n)
        start = int(self._env.now)
        busy, latency = softmax_occupancy(self._config.npu.vector, rows=layout.heads, width=tokens)
        yield from self._npu.vector([("softmax", busy)], ready=self._env.event().succeed())
        if latency:
            yield self._env.timeout(latency)
        size = self._probability_bytes(tokens)
        if keep:
            yield self._device.write_row(channel, rows.probability, int(layout.probability_row_bytes(tokens).sum()))
        else:
            yield self._npu.transfer(WRITE, *self._probabilities.take(size), "softmax")
        flops = self._attention_flops["softmax"][n]
        self._run.record(layer, "softmax", "vector units", start, 0, self._numbers[n], flops=flops)

    def _attend(self, n: int, layer: int, logits: SimEvent, releases: Mapping[int, Int64Array]) -> Process:
        if not logits.processed:
            yield logits
        start, layout, tokens = int(self._env.now), self._pim_layout, self._contexts[n]
        rows = self._placement.rows(self._requests[n], layer)
        program, turn = layout.attend_program(tokens, rows), (layer, self._index)
        yield from self._device.pim.run(self._channels[n], program, turn, releases.get(n))
        self._count_pim(layer, "attend", start, layout.attend_counts(tokens).dots, n)
        partial_sums = layout.segments(tokens) - 1
        if partial_sums:
            width = layout.heads * layout.head_size
            cycles = vector_cycles("add", self._config.npu.vector, rows=partial_sums, width=width)
            yield from self._npu.vector([("add", cycles)], ready=self._env.event().succeed())

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

    def _probability_bytes(self, tokens: int) -> int:
        return self._heads * tokens * self._config.npu.element_bytes

    def _count_pim(self, layer: int, name: str, start: int, dots: int, n: int) -> None:
        macs = self._device.count_pim_macs(dots)
        self._run.record(layer, name, "PIM", start, macs, self._numbers[n], flops=self._attention_flops[name][n])

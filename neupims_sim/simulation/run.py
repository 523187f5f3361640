"""One run: build the device, let the sub-batches pass through a few layers, and scale to the whole model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import simpy

from neupims_sim.config import Config, config_hash
from neupims_sim.errors import InputError
from neupims_sim.mapping.pim_attention import AttentionLayout
from neupims_sim.mapping.placement import PlacedRequest, Placement
from neupims_sim.memory.device import Counters
from neupims_sim.memory.energy import memory_energy_joules
from neupims_sim.memory.models import MemoryModel, build_memory
from neupims_sim.npu.device import Npu
from neupims_sim.npu.energy import npu_energy_joules
from neupims_sim.scheduling.channels import CHANNEL_ASSIGNMENTS, load_estimate
from neupims_sim.scheduling.interleaving import INTERLEAVINGS, resolve_interleaving
from neupims_sim.scheduling.partition import PARTITIONS
from neupims_sim.simulation.machine import Observations, Phases, PimTurns, SubBatchRun
from neupims_sim.simulation.policies import check_config_names
from neupims_sim.simulation.result import Result, memory_joules
from neupims_sim.simulation.timeline import Timeline
from neupims_sim.simulation.watchdog import Watchdog
from neupims_sim.trace import Trace
from neupims_sim.workloads import RequestBatch, generate_llm, request_batch

Int64Array = npt.NDArray[np.int64]

_SPARE_ROWS = 8
"""Rows per channel that channel assignment leaves free for what it cannot know yet: the padding of the tensors and the
logits buffers of sub-batches. The placement has the exact check."""


@dataclass(frozen=True)
class Snapshot:
    """The state of the counters at a moment between two identical layers."""

    cycle: int
    counters: Counters
    npu_macs: int
    pim_macs: int
    vector_cycles: int


@dataclass(frozen=True)
class Window:
    """A part of the run in which ``layers`` layers pass."""

    first: Snapshot
    last: Snapshot
    layers: int


@dataclass
class RunRecorder:
    """Collects stages and snapshots."""

    env: simpy.Environment
    memory: MemoryModel
    seen: Observations
    marks: list[Snapshot] = field(default_factory=list)

    def stage(self, name: str, start: int, end: int) -> None:
        """A stage has ended."""
        self.seen.stages.append((name, start, end))

    def mark(self) -> None:
        """A steady-state layer begins or ends here."""
        self.seen.layer_cycles.append(int(self.env.now))
        self.marks.append(self.snapshot())

    def snapshot(self) -> Snapshot:
        """The counters now."""
        seen = self.seen
        return Snapshot(int(self.env.now), self.memory.counters(), seen.npu_macs, seen.pim_macs, seen.vector_cycles)


def simulate(config: Config, timeline: Timeline | None = None) -> Result:
    """Simulate one iteration of the configured batch.

    ``timeline`` watches the run, which it does not change (INV-7), and can be written afterwards.

    Raises
    ------
    InputError: the configuration cannot be simulated (a batch that does not fit, unknown policies, ...).
    SimulationStalled: nothing can make progress (INV-8).
    """
    check_config_names(config)
    if config.workload.phase != "decode":
        raise InputError(
            f"workload.phase={config.workload.phase!r} can be traced but not simulated yet; allowed: decode"
        )
    if config.workload.lm_head:
        raise InputError("workload.lm_head=True can be traced but not simulated yet; allowed: False")
    whole = request_batch(config.workload, config.seed)
    requests = _micro_batch(whole, config.parallel.pipeline)
    layers = config.model.layers // config.parallel.pipeline
    on_pim = config.attention_on == "pim"
    interleaving = resolve_interleaving(
        config.scheduling.interleaving, len(requests.context_tokens), config.scheduling.auto_min_batch, on_pim
    )
    policy = INTERLEAVINGS[interleaving]
    simulated = min(layers, max(config.simulation.layers, policy.fewest_layers))
    layout = _layout(config) if on_pim else None

    env = simpy.Environment()
    model = build_memory(
        env,
        config.memory,
        preset=config.preset,
        clock_ghz=config.clock_ghz,
        log=timeline is not None,
    )
    seen = Observations()
    if timeline is not None:
        timeline.watch(config, model, seen)
    memory = Watchdog(model, config.simulation.watchdog_cycles, seen, timeline.busy if timeline is not None else None)
    npu = Npu(env, config.npu, memory, memory.busy)
    sub_batches, channels, placement = _prepare(config, requests, layout, layers, simulated, policy.sub_batches)
    pim = PimTurns(env, memory)
    runs = [
        SubBatchRun(
            index, config, env, memory, pim, npu, phases, placement, layout, members, channels[members].tolist(), seen
        )
        for index, (phases, members) in enumerate(sub_batches)
    ]
    recorder = RunRecorder(env, memory, seen)
    begin = recorder.snapshot()
    done = env.process(policy.run(env, runs, simulated, recorder))
    env.run(until=done)
    marks, periods = recorder.marks, len(recorder.marks) - 1
    if periods < 1:  # too few layers for a steady state: the whole run
        marks, periods = [begin, recorder.snapshot()], simulated
    window = Window(marks[0], marks[-1], periods)
    end = recorder.snapshot()
    return _result(config, requests, interleaving, layers, simulated, end, window, seen, len(whole.context_tokens))


def _micro_batch(whole: RequestBatch, pipeline: int) -> RequestBatch:
    """The first of ``pipeline`` equal micro-batches: in steady state each stage of the pipeline works on one."""
    size = -(-len(whole.context_tokens) // pipeline)
    channels = whole.channels
    return RequestBatch(whole.context_tokens[:size], None if channels is None else channels[:size])


def _layout(config: Config) -> AttentionLayout:
    shards = config.parallel.tensor
    return AttentionLayout.on(
        config.memory,
        config.model.kv_heads // shards,
        config.model.head_size,
        config.model.heads // config.model.kv_heads,
        config.npu.element_bytes,
    )


def _prepare(
    config: Config,
    requests: RequestBatch,
    layout: AttentionLayout | None,
    layers: int,
    simulated: int,
    sub_batches: int,
) -> tuple[list[tuple[Phases, list[int]]], Int64Array, Placement]:
    """Assign channels and sub-batches, generate a trace per sub-batch, and place all tensors.

    Returns the operators and the requests of each sub-batch, the channel of each request (all 0 where attention runs on
    the NPU), and the placement.
    """
    contexts = np.asarray(requests.context_tokens, dtype=np.int64)
    whole = Phases.of(_trace(config, contexts))
    kv_layers = layers if config.mapping.kv_capacity == "all_layers" else simulated
    block_weights = sum(whole.weights().values())
    tensors = {f"{layer}.{name}": size for layer in range(simulated) for name, size in whole.weights().items()}
    reserved = (kv_layers - simulated) * block_weights
    heads, kv_heads = (count // config.parallel.tensor for count in (config.model.heads, config.model.kv_heads))
    token_cache_bytes = 2 * kv_heads * config.model.head_size * config.npu.element_bytes
    if layout is None:
        channels = np.zeros_like(contexts)
        reserved += (kv_layers - 1) * int(contexts.sum()) * token_cache_bytes  # one layer's cache gets an address
    else:
        channels = _channels(config, requests, layout, kv_layers, simulated, sum(tensors.values()) + reserved, whole)
    sub_batch = np.zeros_like(contexts)
    if sub_batches > 1 and len(contexts) > 1:
        loads = np.zeros(len(contexts)) if layout is None else _loads(config, layout, contexts)
        sub_batch = PARTITIONS[config.scheduling.partition](channels, loads)
    groups = [np.flatnonzero(sub_batch == index) for index in range(sub_batches)]
    if any(len(group) == 0 for group in groups):
        raise InputError(
            f"scheduling.interleaving={config.scheduling.interleaving} needs at least two requests, not {len(contexts)}"
        )
    phases = [whole] if sub_batches == 1 else [Phases.of(_trace(config, contexts[group])) for group in groups]
    for index, (part, group) in enumerate(zip(phases, groups, strict=True)):
        tensors |= {f"{index}.{name}": size for name, size in part.activations().items()}
        tokens = int(contexts[group].sum())
        tensors[f"{index}.logits"] = tokens * heads * config.npu.element_bytes
        if layout is None:
            tensors[f"{index}.kv_cache"] = tokens * token_cache_bytes
    placed = (
        [PlacedRequest(int(c), int(t)) for c, t in zip(channels, contexts, strict=True)] if layout is not None else []
    )
    further = kv_layers - simulated
    placement = Placement(config.memory.organization, tensors, reserved, layout, placed, simulated, further)
    return [(part, group.tolist()) for part, group in zip(phases, groups, strict=True)], channels, placement


def _trace(config: Config, contexts: Int64Array) -> Trace:
    return generate_llm(config.model, contexts, tensor_parallel=config.parallel.tensor, seed=config.seed)


def _loads(config: Config, layout: AttentionLayout, contexts: Int64Array) -> npt.NDArray[np.float64]:
    scheduling = config.scheduling
    return load_estimate(layout, contexts, scheduling.load_gwrite_cycles, scheduling.load_tile_cycles)


def _channels(
    config: Config,
    requests: RequestBatch,
    layout: AttentionLayout,
    kv_layers: int,
    simulated: int,
    linear_bytes: int,
    whole: Phases,
) -> Int64Array:
    """Channels from the request file, else by the configured policy."""
    organization = config.memory.organization
    contexts = np.asarray(requests.context_tokens, dtype=np.int64)
    if requests.channels is not None:
        channels = np.asarray(requests.channels, dtype=np.int64)
        if len(channels) and channels.max() >= organization.channels:
            raise InputError(
                f"workload.requests={config.workload.requests!r}: ch_idx {channels.max()} does not exist; "
                f"allowed: 0 to {organization.channels - 1}"
            )
        return channels
    activations = 2 * sum(whole.activations().values())
    row_slice = organization.channels * organization.banks * organization.row_bytes
    rows = [
        layout.query_rows
        + layout.probability_rows(tokens)
        + simulated * (layout.key_rows(tokens) + layout.value_rows(tokens))
        + layout.cache_rows(tokens, kv_layers - simulated)
        for tokens in contexts.tolist()
    ]
    room = organization.rows - -(-(linear_bytes + activations) // row_slice) - _SPARE_ROWS
    assign = CHANNEL_ASSIGNMENTS[config.scheduling.channel_assignment]
    return assign(contexts, _loads(config, layout, contexts), organization.channels, np.array(rows), max(0, room))


def _result(
    config: Config,
    requests: RequestBatch,
    interleaving: str,
    layers: int,
    simulated: int,
    end: Snapshot,
    window: Window,
    seen: Observations,
    batch_size: int,
) -> Result:
    first, last, periods = window.first, window.last, window.layers
    block = (last.cycle - first.cycle) / periods
    cycles = end.cycle + round((layers - simulated) * block)
    seconds = cycles / (config.clock_ghz * 1e9)
    energy = _energy(config, end, window, layers - simulated)
    tokens = len(requests.context_tokens)
    stages: dict[str, int] = {}
    for name, start, stop in seen.stages:
        stages[name] = stop - start  # the last of its kind: steady state
    return Result(
        cycles=cycles,
        seconds=seconds,
        throughput_tokens_per_s=tokens / seconds,
        batch_size=batch_size,
        utilization=_utilization(config, first, last),
        traffic_bytes=_per_layer_traffic(config, first.counters, last.counters, periods),
        commands={
            name: round((last.counters.commands[name] - count) / periods)
            for name, count in first.counters.commands.items()
        },
        energy_joules=energy,
        average_power_w=sum(energy.values()) / seconds if energy else None,
        memory_power_w_per_channel=_memory_power(energy, seconds, config.memory.organization.channels),
        block_cycles=round(block),
        stages=stages,
        interleaving=interleaving,
        layers=layers,
        simulated_layers=simulated,
        simulated_cycles=end.cycle,
        mean_context_tokens=float(np.mean(requests.context_tokens)),
        config_hash=config_hash(config),
        observations=seen,
    )


def _energy(config: Config, end: Snapshot, window: Window, further_layers: int) -> dict[str, float]:
    """Energy by cause, J: of what was simulated, and of ``further_layers`` times a layer of the window. Nothing without ``power``."""
    if config.memory.power is None:
        return {}
    whole, first, last = (_snapshot_energy(config, snapshot) for snapshot in (end, window.first, window.last))
    scale = further_layers / window.layers
    return {cause: joules + scale * (last[cause] - first[cause]) for cause, joules in whole.items()}


def _snapshot_energy(config: Config, at: Snapshot) -> dict[str, float]:
    memory = config.memory
    memory_cycles = at.cycle * memory.organization.clock_ghz / config.clock_ghz
    dma_bytes = (at.counters.reads + at.counters.writes) * memory.organization.burst_bytes
    spent = npu_energy_joules(config.npu, macs=at.npu_macs, vector_cycles=at.vector_cycles, dma_bytes=dma_bytes)
    return memory_energy_joules(memory, at.counters, memory_cycles) | spent


def _memory_power(energy: Mapping[str, float], seconds: float, channels: int) -> float | None:
    """Average power of one channel, W."""
    return memory_joules(energy) / seconds / channels if energy else None


def _utilization(config: Config, first: Snapshot, last: Snapshot) -> dict[str, float]:
    """Shares of the peak in the steady-state window (docs/metrics.md)."""
    cycles = max(1, last.cycle - first.cycle)
    organization, systolic = config.memory.organization, config.npu.systolic
    memory_cycles = cycles * organization.clock_ghz / config.clock_ghz
    slots = organization.channels * memory_cycles
    before, after = first.counters, last.counters
    bursts = after.reads + after.writes - before.reads - before.writes
    dot_cycles = config.memory.timing.get("tDOT", 0)
    return {
        "npu": (last.npu_macs - first.npu_macs) / (cycles * systolic.arrays * systolic.rows * systolic.columns),
        "pim": (after.dot_products - before.dot_products) * dot_cycles / slots,
        "bandwidth": bursts * organization.burst_cycles / (slots * organization.pseudo_channels),
        "pim_busy": (after.pim_busy_cycles - before.pim_busy_cycles) / slots,
    }


def _per_layer_traffic(config: Config, before: Counters, after: Counters, periods: int) -> dict[str, int]:
    organization, pim = config.memory.organization, config.memory.pim
    dot_bytes = organization.banks * pim.multipliers_per_bank * config.npu.element_bytes
    return {
        "read": (after.reads - before.reads) * organization.burst_bytes // periods,
        "write": (after.writes - before.writes) * organization.burst_bytes // periods,
        "pim_internal": (after.dot_products - before.dot_products) * dot_bytes // periods,
    }

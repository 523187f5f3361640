"""A batch of requests to a language model: one decode iteration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from neupims_sim.config import Config, ModelConfig, WorkloadConfig
from neupims_sim.errors import InputError
from neupims_sim.mapping.pim_attention import AttentionLayout
from neupims_sim.mapping.placement import PlacedRequest, Placement
from neupims_sim.scheduling.channels import CHANNEL_ASSIGNMENTS, load_estimate
from neupims_sim.scheduling.interleaving import INTERLEAVINGS, resolve_interleaving
from neupims_sim.scheduling.partition import PARTITIONS
from neupims_sim.simulation.decode import Phases, SubBatchRun
from neupims_sim.simulation.device import Device
from neupims_sim.simulation.outcome import Outcome, RunRecorder
from neupims_sim.simulation.search import IN_FLIGHT, BackgroundSearch, SearchIndex
from neupims_sim.system.pipeline import Pipeline, micro_batch_size, micro_batches, transfer_cycles
from neupims_sim.trace import Trace
from neupims_sim.workloads import RequestBatch, generate_llm, request_batch

Int64Array = npt.NDArray[np.int64]

_SPARE_ROWS = 8
"""Rows per channel that channel assignment leaves free for what it cannot know yet: the padding of the tensors and the
logits buffers of sub-batches. The placement has the exact check."""


def simulate_llm(device: Device) -> Outcome:
    """One decode iteration of the configured batch.

    Raises ``InputError`` for what can be traced but not simulated, and for a batch that does not fit.
    """
    config, env = device.config, device.env
    model, workload = config.model, config.workload
    assert isinstance(model, ModelConfig)
    assert isinstance(workload, WorkloadConfig)
    batch = decoding_batch(config, workload)
    requests = batch.requests
    layers = model.layers // config.parallel.pipeline
    on_pim = config.attention_on == "pim"
    interleaving = resolve_interleaving(
        config.scheduling.interleaving, len(requests.context_tokens), config.scheduling.auto_min_batch, on_pim
    )
    policy = INTERLEAVINGS[interleaving]
    simulated = min(layers, max(config.simulation.layers, policy.fewest_steps))
    layout = _layout(config, model) if on_pim else None
    searching, rows = workload.background, dict[str, int]()
    if searching is not None:
        index = SearchIndex.of(config, searching)
        rows = index.rows(IN_FLIGHT * searching.in_flight)
    sub_batches, channels, placement = _prepare(
        config, model, batch, layout, layers, simulated, policy.sub_batches, rows
    )
    runs = [
        SubBatchRun(number, device, model, phases, placement, layout, members, channels[members].tolist())
        for number, (phases, members) in enumerate(sub_batches)
    ]
    recorder = RunRecorder(device)
    background = None if searching is None else BackgroundSearch(device, index, placement, searching)
    begin = device.totals()
    env.run(until=env.process(policy.run(env, runs, simulated, recorder)))
    end = device.totals()
    first, last, steps = recorder.window(begin, simulated)
    total = end.plus(first, last, (layers - simulated) / steps)
    stage_cycles = end.cycle + round((layers - simulated) * ((last.cycle - first.cycle) / steps))
    hidden_bytes = len(requests.context_tokens) * model.d_model * config.npu.element_bytes
    pipeline = Pipeline(
        stages=config.parallel.pipeline,
        micro_batches=batch.count,
        stage_cycles=stage_cycles,
        link_cycles=total.link_cycles,
        transfer_cycles=transfer_cycles(config, hidden_bytes),
    )
    total = replace(total, cycle=pipeline.cycles_per_micro_batch)
    return Outcome(
        total=total,
        block=last.since(first).per(steps),
        items=batch.mean_size,
        item="tokens",
        batch_size=batch.total_size,
        interleaving=interleaving,
        layers=layers,
        simulated_layers=simulated,
        simulated_cycles=int(end.cycle),
        latency_cycles=round(total.cycle),
        mean_context_tokens=float(np.mean(requests.context_tokens)),
        background={} if background is None else background.metrics(int(first.cycle), int(last.cycle)),
        pipeline=pipeline.to_json(),
    )


@dataclass(frozen=True)
class MicroBatch:
    """The batch that a stage of the pipeline works on in steady state; it stands for all ``count`` of them.

    Attributes
    ----------
    requests: of the largest one.
    count: of micro-batches in the pipeline.
    waiting_tokens: int64, contexts of the requests of all others.
    """

    requests: RequestBatch
    count: int
    waiting_tokens: Int64Array

    @property
    def total_size(self) -> int:
        """Requests of all micro-batches."""
        return len(self.requests.context_tokens) + len(self.waiting_tokens)

    @property
    def mean_size(self) -> float:
        """Requests per micro-batch."""
        return self.total_size / self.count


def decoding_batch(config: Config, workload: WorkloadConfig) -> MicroBatch:
    """The configured batch; raises ``InputError`` for what can be traced but not simulated, and for too few requests."""
    if workload.phase != "decode":
        raise InputError(f"workload.phase={workload.phase!r} can be traced but not simulated yet; allowed: decode")
    if workload.lm_head:
        raise InputError("workload.lm_head=True can be traced but not simulated yet; allowed: False")
    batch, count = request_batch(workload, config.seed), micro_batches(config)
    contexts, requests = np.asarray(batch.context_tokens, dtype=np.int64), len(batch.context_tokens)
    if config.parallel.batch == "per_stage":
        return MicroBatch(batch, count, np.tile(contexts, count - 1))
    if requests < count:
        raise InputError(
            f"workload.requests={workload.requests!r} holds {requests} requests, too few for {count} "
            "micro-batches (parallel.micro_batches, else parallel.pipeline)"
        )
    size, channels = micro_batch_size(requests, count), batch.channels
    first = RequestBatch(batch.context_tokens[:size], None if channels is None else channels[:size])
    return MicroBatch(first, count, contexts[size:])


def _layout(config: Config, model: ModelConfig) -> AttentionLayout:
    shards = config.parallel.tensor
    return AttentionLayout.on(
        config.memory,
        model.kv_heads // shards,
        model.head_size,
        model.heads // model.kv_heads,
        config.npu.element_bytes,
    )


def _prepare(
    config: Config,
    model: ModelConfig,
    batch: MicroBatch,
    layout: AttentionLayout | None,
    layers: int,
    simulated: int,
    sub_batches: int,
    row_regions: Mapping[str, int],
) -> tuple[list[tuple[Phases, list[int]]], Int64Array, Placement]:
    """Assign channels and sub-batches, generate a trace per sub-batch, and place all tensors.

    Returns the operators and the requests of each sub-batch, the channel of each request (all 0 where attention runs on
    the NPU), and the placement. ``row_regions`` are those of :class:`Placement`; K and V of the waiting micro-batches, which are
    taken to be spread evenly over the channels, become another one.
    """
    requests = batch.requests
    contexts = np.asarray(requests.context_tokens, dtype=np.int64)
    whole = Phases.of(_trace(config, model, contexts))
    kv_layers = layers if config.mapping.kv_capacity == "all_layers" else simulated
    block_weights = sum(whole.weights().values())
    tensors = {f"{layer}.{name}": size for layer in range(simulated) for name, size in whole.weights().items()}
    reserved = (kv_layers - simulated) * block_weights
    heads, kv_heads = (count // config.parallel.tensor for count in (model.heads, model.kv_heads))
    token_cache_bytes = 2 * kv_heads * model.head_size * config.npu.element_bytes
    waiting = batch.waiting_tokens if config.mapping.kv_capacity == "all_layers" else contexts[:0]
    if layout is None:
        channels = np.zeros_like(contexts)
        reserved += (kv_layers - 1) * int(contexts.sum()) * token_cache_bytes  # one layer's cache gets an address
        reserved += kv_layers * int(waiting.sum()) * token_cache_bytes
    else:
        organization = config.memory.organization
        if len(waiting):
            rows = sum(layout.cache_rows(tokens, kv_layers) for tokens in waiting.tolist())
            row_regions = {**row_regions, "K and V of waiting micro-batches": -(-rows // organization.channels)}
        region_bytes = sum(row_regions.values()) * organization.channels * organization.banks * organization.row_bytes
        linear_bytes = sum(tensors.values()) + reserved + region_bytes
        channels = _channels(config, requests, layout, kv_layers, simulated, linear_bytes, whole)
    sub_batch = np.zeros_like(contexts)
    if sub_batches > 1 and len(contexts) > 1:
        loads = np.zeros(len(contexts)) if layout is None else _loads(config, layout, contexts)
        sub_batch = PARTITIONS[config.scheduling.partition](channels, loads)
    groups = [np.flatnonzero(sub_batch == index) for index in range(sub_batches)]
    if any(len(group) == 0 for group in groups):
        raise InputError(
            f"scheduling.interleaving={config.scheduling.interleaving} needs at least two requests, not {len(contexts)}"
        )
    phases = [whole] if sub_batches == 1 else [Phases.of(_trace(config, model, contexts[group])) for group in groups]
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
    placement = Placement(
        config.memory.organization, tensors, reserved, layout, placed, simulated, further, row_regions
    )
    return [(part, group.tolist()) for part, group in zip(phases, groups, strict=True)], channels, placement


def _trace(config: Config, model: ModelConfig, contexts: Int64Array) -> Trace:
    return generate_llm(
        model, contexts, tensor_parallel=config.parallel.tensor, seed=config.seed, dtype=config.npu.dtype
    )


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
            assert isinstance(config.workload, WorkloadConfig)
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

"""A batch of requests to a language model: one decode iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from neupims_sim.config import Config, ModelConfig, WorkloadConfig
from neupims_sim.errors import InputError
from neupims_sim.mapping.pim_attention import AttentionLayout
from neupims_sim.mapping.placement import PlacedRequest, Placement, check_requests_fit
from neupims_sim.scheduling.channels import CHANNEL_ASSIGNMENTS, load_estimate
from neupims_sim.scheduling.interleaving import INTERLEAVINGS, resolve_interleaving
from neupims_sim.scheduling.partition import PARTITIONS
from neupims_sim.simulation.batches import DecodingBatch, MicroBatch, decoding_batch
from neupims_sim.simulation.decode import Phases, SubBatchRun
from neupims_sim.simulation.device import Device
from neupims_sim.simulation.effort import check_effort
from neupims_sim.simulation.observations import Observations
from neupims_sim.simulation.outcome import Outcome, RunRecorder
from neupims_sim.simulation.search import IN_FLIGHT, BackgroundSearch, SearchIndex
from neupims_sim.simulation.timeline import Timeline
from neupims_sim.simulation.totals import Totals, sum_of
from neupims_sim.system.pipeline import Pipeline, StageWork, transfer_cycles
from neupims_sim.trace import Trace
from neupims_sim.workloads import generate_llm

Int64Array = npt.NDArray[np.int64]

_SPARE_ROWS = 8
"""Rows per channel that channel assignment leaves free for what it cannot know yet: the padding of the tensors and the
logits buffers of sub-batches. The placement has the exact check."""


def simulate_llm(config: Config, timeline: Timeline | None) -> Outcome:
    """One decode iteration of the configured batch: every micro-batch that differs from the others on a device of its own.

    Raises ``InputError`` for what can be traced but not simulated, and for a batch that does not fit.
    """
    assert isinstance(config.workload, WorkloadConfig)
    batch = decoding_batch(config, config.workload)
    interleaving = _interleaving(config, batch)
    stages, seen = list[_Stage](), Observations()
    for number, micro_batch in enumerate(batch.micro_batches):
        device = Device.build(config, timeline if number == 0 else None)
        stages.append(_simulate_stage(device, _planned(config, batch, micro_batch, interleaving)))
        seen = device.seen if number == 0 else seen
    works = [stage.work for stage in stages]
    pipeline = Pipeline(config.parallel.pipeline, works)
    total = sum_of([(work.count, stage.total) for work, stage in zip(works, stages, strict=True)])
    shares = [work.count / batch.count for work in works]
    first = stages[0]
    return Outcome(
        total=replace(total, cycle=pipeline.iteration_cycles),
        block=sum_of([(share, stage.block) for share, stage in zip(shares, stages, strict=True)]),
        items=batch.size,
        item="tokens",
        batch_size=batch.size,
        interleaving=interleaving,
        layers=first.layers,
        simulated_layers=first.simulated_layers,
        simulated_cycles=sum(stage.simulated_cycles for stage in stages),
        latency_cycles=round(pipeline.iteration_cycles),
        mean_context_tokens=batch.total_tokens / batch.size,
        background=_mean_background([stage.background for stage in stages], shares),
        pipeline=pipeline.to_json(),
        stages=_mean_stages([stage.stages for stage in stages], shares),
        seen=seen,
    )


def check_llm_fits(config: Config) -> None:
    """Raise ``InputError`` where :func:`simulate_llm` would before it simulates anything: a batch that does not fit."""
    assert isinstance(config.workload, WorkloadConfig)
    batch = decoding_batch(config, config.workload)
    for micro_batch in batch.micro_batches:
        _planned(config, batch, micro_batch, _interleaving(config, batch))


def _interleaving(config: Config, batch: DecodingBatch) -> str:
    scheduling = config.scheduling
    return resolve_interleaving(
        scheduling.interleaving, batch.largest, scheduling.auto_min_batch, config.attention_on == "pim"
    )


@dataclass(frozen=True)
class _Plan:
    """What a micro-batch will do on a stage of the pipeline, and where everything lies.

    Attributes
    ----------
    layers: of the stage, of which ``simulated`` are.
    sub_batches: the operators and the requests of each.
    channels: of each request; all 0 where attention runs on the NPU.
    """

    micro_batch: MicroBatch
    interleaving: str
    layers: int
    simulated: int
    layout: AttentionLayout | None
    index: SearchIndex | None
    sub_batches: list[tuple[Phases, list[int]]]
    channels: Int64Array
    placement: Placement


def _planned(config: Config, batch: DecodingBatch, micro_batch: MicroBatch, interleaving: str) -> _Plan:
    model, workload = config.model, config.workload
    assert isinstance(model, ModelConfig)
    assert isinstance(workload, WorkloadConfig)
    layers, policy = model.layers // config.parallel.pipeline, INTERLEAVINGS[interleaving]
    simulated = min(layers, max(config.simulation.layers, policy.fewest_steps))
    layout = _layout(config, model) if config.attention_on == "pim" else None
    searching, rows = workload.background, dict[str, int]()
    index = None if searching is None else SearchIndex.of(config, searching)
    if searching is not None and index is not None:
        rows = index.rows(IN_FLIGHT * searching.in_flight)
    prepared = _prepare(config, model, batch, micro_batch, layout, layers, simulated, policy.sub_batches, rows)
    return _Plan(micro_batch, interleaving, layers, simulated, layout, index, *prepared)


@dataclass(frozen=True)
class _Stage:
    """A micro-batch on a stage of the pipeline.

    Attributes
    ----------
    total: all of its layers; ``block``: one of the steady state.
    stages: name and length of the last stage of each name: the steady state.
    """

    work: StageWork
    total: Totals
    block: Totals
    layers: int
    simulated_layers: int
    simulated_cycles: int
    background: Mapping[str, float | None]
    stages: Mapping[str, int]


def _simulate_stage(device: Device, plan: _Plan) -> _Stage:
    config, env, micro_batch = device.config, device.env, plan.micro_batch
    model, workload = config.model, config.workload
    assert isinstance(model, ModelConfig)
    assert isinstance(workload, WorkloadConfig)
    layers, simulated, policy = plan.layers, plan.simulated, INTERLEAVINGS[plan.interleaving]
    runs = [
        SubBatchRun(
            number,
            device,
            model,
            phases,
            plan.placement,
            plan.layout,
            members,
            micro_batch.requests[members].tolist(),
            plan.channels[members].tolist(),
            policy.sub_batches,
        )
        for number, (phases, members) in enumerate(plan.sub_batches)
    ]
    recorder = RunRecorder(device)
    background = None
    if workload.background is not None and plan.index is not None:
        background = BackgroundSearch(device, plan.index, plan.placement, workload.background)
    begin = device.totals()
    env.run(until=env.process(policy.run(env, runs, simulated, recorder)))
    end = device.totals()
    first, last, steps = recorder.window(begin, simulated)
    window = block = last.since(first).per(steps)
    if not policy.barriers and workload.background is None:
        block = _with_work_of(window, end.since(begin).per(simulated))
    total = sum_of([(1, end), (layers - simulated, block)])
    hidden_bytes = micro_batch.size * model.d_model * config.npu.element_bytes
    work = StageWork(
        count=micro_batch.count,
        stage_cycles=end.cycle + round((layers - simulated) * ((last.cycle - first.cycle) / steps)),
        link_cycles=total.link_cycles,
        transfer_cycles=transfer_cycles(config, hidden_bytes),
    )
    return _Stage(
        work,
        total,
        replace(block, npu_macs=window.npu_macs),  # arrays multiply in the window what its time allows
        layers,
        simulated,
        int(end.cycle),
        {} if background is None else background.metrics(int(first.cycle), int(last.cycle)),
        {name: stop - start for name, start, stop in device.seen.stages},
    )


def _with_work_of(block: Totals, layer: Totals) -> Totals:
    """``block`` with what its operators did taken from the mean ``layer`` of the run: layers are alike, and marks without barriers cut
    through operators of the sub-batch that is ahead."""
    operators = replace(block.operators, flops=layer.operators.flops, bytes=layer.operators.bytes)
    return replace(block, npu_macs=layer.npu_macs, operators=operators)


def _mean_stages(lengths: Sequence[Mapping[str, int]], shares: Sequence[float]) -> dict[str, int]:
    """Mean length of each, over micro-batches."""
    return {name: round(sum(w * one[name] for w, one in zip(shares, lengths, strict=True))) for name in lengths[0]}


def _mean_background(found: Sequence[Mapping[str, float | None]], shares: Sequence[float]) -> dict[str, float | None]:
    """Mean over micro-batches; None where one has no value."""
    means: dict[str, float | None] = {}
    for name in found[0]:
        values = [one[name] for one in found]
        known = [share * value for share, value in zip(shares, values, strict=True) if value is not None]
        means[name] = sum(known) if len(known) == len(values) else None
    return means


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
    batch: DecodingBatch,
    micro_batch: MicroBatch,
    layout: AttentionLayout | None,
    layers: int,
    simulated: int,
    sub_batches: int,
    row_regions: Mapping[str, int],
) -> tuple[list[tuple[Phases, list[int]]], Int64Array, Placement]:
    """Assign channels and sub-batches, generate a trace per sub-batch, and place all tensors.

    Returns the operators and the requests of each sub-batch, the channel of each request (all 0 where attention runs on
    the NPU), and the placement. ``row_regions`` are those of :class:`Placement`.
    """
    contexts = micro_batch.context_tokens
    trace = _trace(config, model, contexts)
    check_effort(config, trace.operators, simulated, steps=len(batch.micro_batches))
    whole = Phases.of(trace, config.mapping.fuse)
    kv_layers = layers if config.mapping.kv_capacity == "all_layers" else simulated
    block_weights = sum(whole.weights().values())
    tensors = {f"{layer}.{name}": size for layer in range(simulated) for name, size in whole.weights().items()}
    reserved = (kv_layers - simulated) * block_weights
    contents = {f"weights of {kv_layers} layers": kv_layers * block_weights}
    heads, kv_heads = (count // config.parallel.tensor for count in (model.heads, model.kv_heads))
    token_cache_bytes = 2 * kv_heads * model.head_size * config.npu.element_bytes
    waiting = batch.waiting(micro_batch) if config.mapping.kv_capacity == "all_layers" else []
    waiting_rows: Int64Array = np.zeros(config.memory.organization.channels, np.int64)
    if layout is None:
        channels = np.zeros_like(contexts)
        cached = [contexts, *(other.context_tokens for other in waiting)]
        cached_bytes = kv_layers * sum(int(tokens.sum()) for tokens in cached) * token_cache_bytes
        reserved += cached_bytes - int(contexts.sum()) * token_cache_bytes  # one layer's cache gets an address
        contents[f"K and V of {sum(map(len, cached))} requests in {kv_layers} layers"] = cached_bytes
    else:
        organization = config.memory.organization
        waiting_rows += _waiting_rows(layout, waiting, kv_layers, organization.channels)
        region_bytes = sum(row_regions.values()) * organization.channels * organization.banks * organization.row_bytes
        linear_bytes = sum(tensors.values()) + reserved + region_bytes
        channels = _channels(
            config, micro_batch, layout, kv_layers, simulated, linear_bytes, waiting_rows, whole, contents
        )
    sub_batch = np.zeros_like(contexts)
    if sub_batches > 1 and len(contexts) > 1:
        loads = np.zeros(len(contexts)) if layout is None else _loads(config, layout, contexts)
        sub_batch = PARTITIONS[config.scheduling.partition](channels, loads)
    groups = [np.flatnonzero(sub_batch == index) for index in range(sub_batches)]
    if any(len(group) == 0 for group in groups):
        raise InputError(
            f"scheduling.interleaving={config.scheduling.interleaving} needs at least two requests, not {len(contexts)}"
        )
    phases = [whole]
    if sub_batches > 1:
        phases = [Phases.of(_trace(config, model, contexts[group]), config.mapping.fuse) for group in groups]
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
    contents["activations"] = sum(tensors.values()) + reserved - sum(contents.values())
    placement = Placement(
        config.memory.organization,
        tensors,
        reserved,
        layout,
        placed,
        simulated,
        further,
        row_regions,
        waiting_rows,
        contents,
    )
    return [(part, group.tolist()) for part, group in zip(phases, groups, strict=True)], channels, placement


def _trace(config: Config, model: ModelConfig, contexts: Int64Array) -> Trace:
    return generate_llm(
        model, contexts, tensor_parallel=config.parallel.tensor, seed=config.seed, dtype=config.npu.dtype
    )


def _loads(config: Config, layout: AttentionLayout, contexts: Int64Array) -> npt.NDArray[np.float64]:
    scheduling = config.scheduling
    return load_estimate(layout, contexts, scheduling.load_gwrite_cycles, scheduling.load_tile_cycles)


def _waiting_rows(layout: AttentionLayout, waiting: Sequence[MicroBatch], layers: int, channels: int) -> Int64Array:
    """Rows of every channel that K and V of waiting micro-batches take: even shares, or where the file puts them."""
    rows = np.zeros(channels, np.int64)
    spread = 0
    for other in waiting:
        sizes = [layout.cache_rows(tokens, layers) for tokens in other.context_tokens.tolist()]
        if other.channels is None:
            spread += sum(sizes)
        else:
            np.add.at(rows, other.channels, sizes)
    return rows + -(-spread // channels)


def _channels(
    config: Config,
    micro_batch: MicroBatch,
    layout: AttentionLayout,
    kv_layers: int,
    simulated: int,
    linear_bytes: int,
    waiting_rows: Int64Array,
    whole: Phases,
    contents: Mapping[str, int],
) -> Int64Array:
    """Channels from the request file, else by the configured policy."""
    organization = config.memory.organization
    contexts = micro_batch.context_tokens
    if micro_batch.channels is not None:
        return micro_batch.channels
    activations = 2 * sum(whole.activations().values())
    row_slice = organization.channels * organization.banks * organization.row_bytes
    rows = [
        layout.query_rows
        + layout.probability_rows(tokens)
        + simulated * (layout.key_rows(tokens) + layout.value_rows(tokens))
        + layout.cache_rows(tokens, kv_layers - simulated)
        for tokens in contexts.tolist()
    ]
    taken = -(-(linear_bytes + activations) // row_slice) + int(waiting_rows.max())
    room = organization.rows - taken - _SPARE_ROWS
    held = {**contents, "activations and operands": linear_bytes + activations - sum(contents.values())}
    held["K and V of waiting micro-batches"] = int(waiting_rows.max()) * row_slice
    check_requests_fit(organization, contexts.tolist(), rows, room, held)
    assign = CHANNEL_ASSIGNMENTS[config.scheduling.channel_assignment]
    return assign(contexts, _loads(config, layout, contexts), organization.channels, np.array(rows), max(0, room))

"""A run on GPUs: the operator trace of any workload on the roofline of one device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from neupims_sim.config import (
    Config,
    GpuConfig,
    ImagesConfig,
    ModelConfig,
    RetrievalConfig,
    TraceFileConfig,
    WorkloadConfig,
    config_hash,
)
from neupims_sim.simulation.batches import decoding_batch
from neupims_sim.simulation.inference import images_trace
from neupims_sim.simulation.observations import Observations, OperatorRecord
from neupims_sim.simulation.result import Result
from neupims_sim.simulation.retrieval import retrieval_trace
from neupims_sim.system.gpu import (
    CACHE,
    Kernel,
    arithmetic_seconds,
    check_capacity,
    kernel_peak,
    kernel_seconds,
    kernels,
    resident_bytes,
)
from neupims_sim.system.pipeline import Pipeline, StageWork, transfer_cycles
from neupims_sim.trace import Trace, read_trace
from neupims_sim.workloads import generate_llm


def simulate_gpu(config: Config, gpu: GpuConfig) -> Result:
    """The configured workload on GPUs; raises ``InputError`` for what cannot be simulated or does not fit."""
    workload = config.workload
    if isinstance(workload, WorkloadConfig):
        return _decode(config, gpu, workload)
    if isinstance(workload, ImagesConfig):
        trace, item = images_trace(config), "images"
    elif isinstance(workload, RetrievalConfig):
        trace, item = retrieval_trace(config, workload), "queries"
    else:
        assert isinstance(workload, TraceFileConfig)
        trace, item = read_trace(workload.path), "traces"
    return _run_once(config, gpu, trace, item)


@dataclass(frozen=True)
class _Timed:
    """A kernel, the seconds of one launch, and those that its matrix products take at the peak of their format."""

    kernel: Kernel
    seconds: float
    least_seconds: float

    @property
    def bytes(self) -> int:
        return self.kernel.read_bytes + self.kernel.write_bytes


def _timed(config: Config, gpu: GpuConfig, trace: Trace) -> list[_Timed]:
    return [
        _Timed(kernel, kernel_seconds(kernel, gpu, config.parallel.link), arithmetic_seconds(kernel, gpu))
        for kernel in kernels(trace.operators)
    ]


def _decode(config: Config, gpu: GpuConfig, workload: WorkloadConfig) -> Result:
    """One decode iteration: the layers of a stage are alike, so one is timed and multiplied."""
    model, parallel = config.model, config.parallel
    assert isinstance(model, ModelConfig)
    batch = decoding_batch(config, workload)
    layers = model.layers // parallel.pipeline
    hertz = config.clock_ghz * 1e9
    works, block, seen = list[StageWork](), list[tuple[_Timed, float]](), list[_Timed]()
    for micro_batch in batch.micro_batches:
        trace = generate_llm(
            model, micro_batch.context_tokens, tensor_parallel=parallel.tensor, seed=config.seed, dtype=config.npu.dtype
        )
        needed = resident_bytes(trace.operators)
        all_tokens = batch.total_tokens / int(micro_batch.context_tokens.sum())
        needed[CACHE] = round(needed[CACHE] * all_tokens)
        check_capacity(gpu, {what: size // parallel.pipeline for what, size in needed.items()})
        layer = _timed(config, gpu, trace)
        on_link = sum(timed.seconds for timed in layer if timed.kernel.kind == "all_reduce")
        works.append(
            StageWork(
                count=micro_batch.count,
                stage_cycles=layers * sum(timed.seconds for timed in layer) * hertz,
                link_cycles=layers * on_link * hertz,
                transfer_cycles=transfer_cycles(config, trace.operators[-1].outputs[0].bytes),
            )
        )
        block += [(timed, micro_batch.count / batch.count) for timed in layer]
        seen = seen or layer
    pipeline = Pipeline(parallel.pipeline, works)
    return _result(
        config,
        gpu,
        block,
        seen,
        seconds=pipeline.iteration_cycles / hertz,
        layers=layers,
        blocks=layers * batch.count,
        items=batch.size,
        item="tokens",
        batch_size=batch.size,
        pipeline=pipeline,
        mean_context_tokens=batch.total_tokens / batch.size,
    )


def _run_once(config: Config, gpu: GpuConfig, trace: Trace, item: str) -> Result:
    check_capacity(gpu, resident_bytes(trace.operators))
    work = [(timed, float(timed.kernel.repeat)) for timed in _timed(config, gpu, trace)]
    seconds = sum(times * timed.seconds for timed, times in work)
    items = 1 if item == "traces" else trace.header.batch
    return _result(
        config,
        gpu,
        work,
        [timed for timed, _ in work],
        seconds=seconds,
        layers=1,
        blocks=1,
        items=items,
        item=item,
        batch_size=trace.header.batch,
    )


def _result(
    config: Config,
    gpu: GpuConfig,
    block: Sequence[tuple[_Timed, float]],
    seen: Sequence[_Timed],
    *,
    seconds: float,
    layers: int,
    blocks: int,
    items: float,
    item: str,
    batch_size: int,
    pipeline: Pipeline | None = None,
    mean_context_tokens: float | None = None,
) -> Result:
    """``block``: kernels and how often each runs in a block, a mean over micro-batches; ``seconds``: of the run, in which a device
    goes through so many ``blocks``; ``seen``: kernels to write down, one after the other."""
    hertz = config.clock_ghz * 1e9
    block_seconds = sum(times * timed.seconds for timed, times in block)
    read, written, least, on_link = (
        sum(times * amount for amount, times in amounts)
        for amounts in (
            [(timed.kernel.read_bytes, times) for timed, times in block],
            [(timed.kernel.write_bytes, times) for timed, times in block],
            [(timed.least_seconds, times) for timed, times in block],
            [(timed.seconds, times) for timed, times in block if timed.kernel.kind == "all_reduce"],
        )
    )
    operator_cycles: defaultdict[str, float] = defaultdict(float)
    for timed, times in block:
        operator_cycles[timed.kernel.name] += blocks * times * timed.seconds * hertz
    peaks = [kernel_peak(timed.kernel, gpu) for timed, _ in block if timed.kernel.macs]
    cycles = round(seconds * hertz)
    devices = config.parallel.devices
    return Result(
        devices=devices,
        cycles=cycles,
        seconds=seconds,
        throughput_tokens_per_s=items / seconds if item == "tokens" else None,
        throughput_per_s=items / seconds,
        item=item,
        latency_cycles=cycles,
        batch_size=batch_size,
        utilization={
            "npu": least / block_seconds,
            "bandwidth": (read + written) / (gpu.bandwidth_gbps * 1e9 * block_seconds),
            "link": on_link / block_seconds,
        },
        traffic_bytes={"read": int(devices * read), "write": int(devices * written)},
        commands={},
        energy_joules={},
        energy_per_item_joules=None,
        energy_per_token_joules=None,
        average_power_w=None,
        memory_power_w_per_channel=None,
        block_cycles=round(block_seconds * hertz),
        stages={},
        operator_cycles={name: round(count) for name, count in operator_cycles.items()},
        operator_flops=_by_name(block, lambda timed: devices * (2 * timed.kernel.macs or timed.kernel.vector_flops)),
        operator_bytes=_by_name(block, lambda timed: devices * timed.bytes),
        operator_busy_cycles=_by_name(block, lambda timed: timed.seconds * hertz),
        operator_unit={timed.kernel.name: "link" if timed.kernel.kind == "all_reduce" else "GPU" for timed, _ in block},
        peak={
            "npu_flops_per_s": devices * max(peaks, default=gpu.peak_flops.float16),
            "memory_bytes_per_s": devices * gpu.bandwidth_gbps * 1e9,
        },
        background={},
        interleaving="off",
        layers=layers,
        simulated_layers=layers,
        simulated_cycles=cycles,
        mean_context_tokens=mean_context_tokens,
        pipeline={} if pipeline is None else pipeline.to_json(),
        snapshots=1,
        throughput_ci95_per_s=None,
        config_hash=config_hash(config),
        observations=Observations(operators=_records(seen, hertz)),
    )


def _by_name(block: Sequence[tuple[_Timed, float]], amount: Callable[[_Timed], float]) -> dict[str, int]:
    """Sums over the kernels of each name."""
    sums: defaultdict[str, float] = defaultdict(float)
    for timed, times in block:
        sums[timed.kernel.name] += times * amount(timed)
    return {name: round(total) for name, total in sums.items()}


def _records(block: Sequence[_Timed], hertz: float) -> list[OperatorRecord]:
    """The kernels of one pass through the block, one after the other."""
    records, end = [], 0.0
    for timed in block:
        start, end = end, end + timed.seconds * hertz
        number = timed.kernel.operators[0].id
        records.append(
            OperatorRecord(0, 0, None, timed.kernel.name, "GPU", round(start), round(end), timed.kernel.macs, number)
        )
    return records

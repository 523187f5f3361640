"""One run: build the device, let the workload use it, and say what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from neupims_sim.config import Config, config_hash
from neupims_sim.errors import InputError, shown
from neupims_sim.simulation.device import Device
from neupims_sim.simulation.gpu import simulate_gpu
from neupims_sim.simulation.inference import check_trace_fits, simulate_images, simulate_trace_file
from neupims_sim.simulation.llm import check_llm_fits, simulate_llm
from neupims_sim.simulation.outcome import Outcome
from neupims_sim.simulation.policies import check_config_names
from neupims_sim.simulation.result import Result, memory_joules
from neupims_sim.simulation.retrieval import check_retrieval_fits, simulate_retrieval
from neupims_sim.simulation.sampling import mean_result, snapshot_seed
from neupims_sim.simulation.timeline import Timeline
from neupims_sim.simulation.totals import energy_joules, traffic_bytes, utilization
from neupims_sim.simulation.work import peaks

_ON_ONE_DEVICE: Mapping[str, Callable[[Device], Outcome]] = {
    "images": simulate_images,
    "retrieval": simulate_retrieval,
    "trace": simulate_trace_file,
}
"""What runs each kind of workload but language models, which may need several devices one after the other."""


def simulate(config: Config, timeline: Timeline | None = None) -> Result:
    """Simulate the configured workload: a decode iteration, an inference, a batch of queries, a trace.

    ``timeline`` watches the run, which it does not change (INV-7), and can be written afterwards; of several snapshots the
    first.

    Raises
    ------
    InputError: the configuration cannot be simulated (a batch that does not fit, unknown policies, ...).
    SimulationStalled: nothing can make progress (INV-8).
    """
    if not isinstance(config, Config):
        raise InputError(f"simulate: {shown(config)}: must be a Config, as load_config returns it")
    check_config_names(config)
    results = list[Result]()
    for snapshot in range(config.simulation.snapshots):
        drawn = config.model_copy(update={"seed": snapshot_seed(config.seed, snapshot)})
        results.append(_simulate_snapshot(drawn, timeline if snapshot == 0 else None))
    return replace(mean_result(results), config_hash=config_hash(config))


def check_fits(config: Config) -> None:
    """Raise InputError if :func:`simulate` would refuse the configuration before it simulates: work that does not fit.

    Takes milliseconds, so that a sweep can ask it of every point before it starts.
    """
    check_config_names(config)
    for snapshot in range(config.simulation.snapshots):
        drawn = config.model_copy(update={"seed": snapshot_seed(config.seed, snapshot)})
        if config.gpu is not None:
            simulate_gpu(drawn, config.gpu)  # closed forms
        else:
            _FITS[config.workload.kind](drawn)


_FITS: dict[str, Callable[[Config], None]] = {
    "llm": check_llm_fits,
    "images": check_trace_fits,
    "retrieval": check_retrieval_fits,
    "trace": check_trace_fits,
}


def _simulate_snapshot(config: Config, timeline: Timeline | None) -> Result:
    if config.gpu is not None:
        if timeline is not None:
            raise InputError(f"a timeline shows the units of NPU and PIM, not gpu={config.gpu.name!r}")
        return simulate_gpu(config, config.gpu)
    if config.workload.kind == "llm":
        return _result(config, simulate_llm(config, timeline))
    return _result(config, _ON_ONE_DEVICE[config.workload.kind](Device.build(config, timeline)))


def _result(config: Config, outcome: Outcome) -> Result:
    seen, block = outcome.seen, outcome.block
    cycles = round(outcome.total.cycle)
    if cycles < 1:  # a policy of somebody else may end before it has started anything
        raise InputError(f"scheduling.interleaving={config.scheduling.interleaving!r} ended without any work done")
    seconds = cycles / (config.clock_ghz * 1e9)
    devices, of_device = config.parallel.devices, energy_joules(config, outcome.total)
    energy = {cause: devices * joules for cause, joules in of_device.items()}
    per_item = sum(energy.values()) / outcome.items if energy else None
    rate = outcome.items / seconds
    decodes = outcome.item == "tokens"
    return Result(
        devices=devices,
        cycles=cycles,
        seconds=seconds,
        throughput_tokens_per_s=rate if decodes else None,
        throughput_per_s=rate,
        item=outcome.item,
        latency_cycles=outcome.latency_cycles,
        batch_size=outcome.batch_size,
        utilization=utilization(config, block),
        traffic_bytes={kind: int(devices * size) for kind, size in traffic_bytes(config, block).items()},
        commands=_rounded(block.counters.commands, devices),
        energy_joules=energy,
        energy_per_item_joules=per_item,
        energy_per_token_joules=per_item if decodes else None,
        average_power_w=sum(energy.values()) / seconds if energy else None,
        memory_power_w_per_channel=_memory_power(of_device, seconds, config.memory.organization.channels),
        block_cycles=round(block.cycle),
        stages=_stages(seen.stages) if outcome.stages is None else outcome.stages,
        operator_cycles=outcome.operator_cycles,
        operator_flops=_rounded(block.operators.flops, devices),
        operator_bytes=_rounded(block.operators.bytes, devices),
        operator_busy_cycles=_rounded(block.operators.busy_cycles),
        operator_unit=dict(seen.work.unit),
        peak={name: devices * peak for name, peak in peaks(config).items()},
        background=_of_all_devices(outcome.background, devices),
        interleaving=outcome.interleaving,
        layers=outcome.layers,
        simulated_layers=outcome.simulated_layers,
        simulated_cycles=outcome.simulated_cycles,
        mean_context_tokens=outcome.mean_context_tokens,
        pipeline=outcome.pipeline,
        snapshots=1,
        throughput_ci95_per_s=None,
        config_hash=config_hash(config),
        observations=seen,
    )


def _rounded(amounts: Mapping[str, float], devices: int = 1) -> dict[str, int]:
    return {name: round(devices * amount) for name, amount in amounts.items()}


def _of_all_devices(background: Mapping[str, float | None], devices: int) -> dict[str, float | None]:
    """Every device serves searches of its own."""
    rate = background.get("queries_per_s")
    return dict(background) if rate is None else {**background, "queries_per_s": devices * rate}


def _stages(stages: Sequence[tuple[str, int, int]]) -> dict[str, int]:
    """Length of the last stage of each name: the steady state."""
    return {name: stop - start for name, start, stop in stages}


def _memory_power(energy: Mapping[str, float], seconds: float, channels: int) -> float | None:
    """Average power of one channel, W; ``energy`` and ``channels`` of one device."""
    return memory_joules(energy) / seconds / channels if energy else None

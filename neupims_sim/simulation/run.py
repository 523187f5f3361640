"""One run: build the device, let the workload use it, and say what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from neupims_sim.config import Config, config_hash
from neupims_sim.errors import InputError, shown
from neupims_sim.simulation.device import Device
from neupims_sim.simulation.gpu import simulate_gpu
from neupims_sim.simulation.inference import simulate_images, simulate_trace_file
from neupims_sim.simulation.llm import simulate_llm
from neupims_sim.simulation.outcome import Outcome
from neupims_sim.simulation.policies import check_config_names
from neupims_sim.simulation.result import Result, memory_joules
from neupims_sim.simulation.retrieval import simulate_retrieval
from neupims_sim.simulation.sampling import mean_result, snapshot_seed
from neupims_sim.simulation.timeline import Timeline
from neupims_sim.simulation.totals import energy_joules, traffic_bytes, utilization
from neupims_sim.simulation.work import peaks

_WORKLOADS: Mapping[str, Callable[[Device], Outcome]] = {
    "llm": simulate_llm,
    "images": simulate_images,
    "retrieval": simulate_retrieval,
    "trace": simulate_trace_file,
}
"""What runs each kind of workload."""


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


def _simulate_snapshot(config: Config, timeline: Timeline | None) -> Result:
    if config.gpu is not None:
        if timeline is not None:
            raise InputError(f"a timeline shows the units of NPU and PIM, not gpu={config.gpu.name!r}")
        return simulate_gpu(config, config.gpu)
    device = Device.build(config, timeline)
    return _result(device, _WORKLOADS[config.workload.kind](device))


def _result(device: Device, outcome: Outcome) -> Result:
    config, seen, block = device.config, device.seen, outcome.block
    cycles = round(outcome.total.cycle)
    if cycles < 1:  # a policy of somebody else may end before it has started anything
        raise InputError(f"scheduling.interleaving={config.scheduling.interleaving!r} ended without any work done")
    seconds = cycles / (config.clock_ghz * 1e9)
    energy = energy_joules(config, outcome.total)
    rate = outcome.items / seconds
    return Result(
        cycles=cycles,
        seconds=seconds,
        throughput_tokens_per_s=rate if outcome.item == "tokens" else None,
        throughput_per_s=rate,
        item=outcome.item,
        latency_cycles=outcome.latency_cycles,
        batch_size=outcome.batch_size,
        utilization=utilization(config, block),
        traffic_bytes=traffic_bytes(config, block),
        commands={name: round(count) for name, count in block.counters.commands.items()},
        energy_joules=energy,
        average_power_w=sum(energy.values()) / seconds if energy else None,
        memory_power_w_per_channel=_memory_power(energy, seconds, config.memory.organization.channels),
        block_cycles=round(block.cycle),
        stages=_stages(seen.stages) if outcome.stages is None else outcome.stages,
        operator_cycles=outcome.operator_cycles,
        operator_flops=_rounded(block.operators.flops),
        operator_bytes=_rounded(block.operators.bytes),
        operator_busy_cycles=_rounded(block.operators.busy_cycles),
        operator_unit=dict(seen.work.unit),
        peak=peaks(config),
        background=outcome.background,
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


def _rounded(amounts: Mapping[str, float]) -> dict[str, int]:
    return {name: round(amount) for name, amount in amounts.items()}


def _stages(stages: Sequence[tuple[str, int, int]]) -> dict[str, int]:
    """Length of the last stage of each name: the steady state."""
    return {name: stop - start for name, start, stop in stages}


def _memory_power(energy: Mapping[str, float], seconds: float, channels: int) -> float | None:
    """Average power of one channel, W."""
    return memory_joules(energy) / seconds / channels if energy else None

"""All comparisons with golden tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neupims_sim.config.schema import SystolicConfig
from neupims_sim.memory.replay import Replay
from neupims_sim.npu import Gemm, array_occupancy
from neupims_sim.showing import Shown
from neupims_sim.sweeps import expand, read_sweep
from neupims_sim.validation.channel import (
    DRAM_CYCLES,
    RULES,
    dram_case,
    dram_spec,
    mixed_spec,
    pim_case,
    preset_spec,
)
from neupims_sim.validation.golden import read_golden
from neupims_sim.validation.systems import (
    DEMO,
    POWER_BATCH,
    PRESETS,
    SYSTEMS,
    DemoPoint,
    OnProgress,
    PowerPoint,
    block_cycles,
    check_requests,
    demo_points,
    power_points,
    unthrottled_throughput,
)


@dataclass(frozen=True)
class Comparison:
    """A figure of somebody else's, and ours."""

    case: str
    metric: str
    golden: float
    ours: float

    @property
    def difference(self) -> float:
        """(ours - golden) / golden."""
        return (self.ours - self.golden) / self.golden


@dataclass(frozen=True)
class PimComparison(Comparison):
    """``ours`` is under preset ``asplos24``, which makes the assumptions of the golden figure."""

    physical: int
    shares: tuple[tuple[str, int], ...]
    """Cycles from ``asplos24`` to ``physical`` by the rule that changes them, in the order of ``RULES``; they add up."""


@dataclass(frozen=True)
class BlockComparison(Comparison):
    """``ours`` is under preset ``asplos24``. ``metric``: a stage, or ``total``."""

    physical: int


@dataclass(frozen=True, repr=False)
class Validation(Shown):
    """Everything that was compared. ``blocks`` is None where no request batches were given."""

    systolic: list[Comparison]
    dram: list[Comparison]
    pim: list[PimComparison]
    blocks: list[BlockComparison] | None
    demo: list[DemoPoint]
    unthrottled: dict[int, float]
    """NPU+PIM under asplos24 without its limit on PIM commands: 1000 tokens/s by batch size."""
    power: list[PowerPoint]
    published_power: dict[str, float]
    """mW of a channel by kind of memory."""


def count_steps(requests: Path | None) -> int:
    """How often :func:`validate` calls ``on_progress``."""
    points = sum(1 for _ in expand(read_sweep(DEMO), DEMO))
    blocks = 2 * len(read_golden("block_cycles")) if requests is not None else 0
    channels = len(read_golden("dram_channel_cycles")) + len(read_golden("pim_channel_cycles"))
    return 2 + channels + blocks + points + len(demo_batches())


def validate(
    requests: Path | None = None, workers: int | None = None, on_progress: OnProgress = lambda done: None
) -> Validation:
    """Run every comparison.

    Parameters
    ----------
    requests: folder with the request batches of ``block_cycles.csv``; without it those are not compared.
    workers: processes for the demo's points; as many as CPUs unless given.
    on_progress: called after every step.

    Raises
    ------
    InputError: a golden table or a request batch is missing.
    """
    blocks = read_golden("block_cycles")
    if requests is not None:
        check_requests(requests, {row["requests"] for row in blocks})
    systolic = compare_systolic()
    on_progress("systolic arrays")
    return Validation(
        systolic=systolic,
        dram=compare_dram(on_progress),
        pim=compare_pim(on_progress),
        blocks=None if requests is None else compare_blocks(blocks, requests, on_progress),
        demo=demo_points(read_golden("fig12_gpt3_7b_sharegpt"), workers, on_progress),
        unthrottled=_unthrottled(on_progress),
        power=_power(on_progress),
        published_power={row["memory"]: float(row["milliwatts_per_channel"]) for row in read_golden("memory_power")},
    )


def compare_systolic() -> list[Comparison]:
    """One array, stall-free, as SCALE-Sim counts it."""
    found = []
    for row in read_golden("systolic_array_cycles"):
        rows, columns = map(int, row["array"].split("x"))
        systolic = SystolicConfig.model_validate(
            {
                "arrays": 1,
                "rows": rows,
                "columns": columns,
                "dataflow": row["dataflow"],
                "preload": "serial",
                "convention": "scale_sim",
            }
        )
        gemm = Gemm(int(row["M"]), int(row["K"]), int(row["N"]))
        case = f"{gemm.m} x {gemm.k} x {gemm.n}, {row['dataflow']}, {row['array']}"
        found.append(Comparison(case, "cycles", int(row["cycles"]), array_occupancy(gemm, systolic).cycles))
    return found


def compare_dram(on_progress: OnProgress = lambda done: None) -> list[Comparison]:
    """One plain channel: the reads that DRAMsim3 completed in a fixed time, replayed to the last."""
    found = []
    for row in read_golden("dram_channel_cycles"):
        reads, trace = int(row["reads"]), row["trace"]
        run = dram_case(trace, reads).run(dram_spec())
        found += [
            Comparison(trace, "cycles", DRAM_CYCLES, run.memory_cycles),
            Comparison(trace, "activates", int(row["activates"]), run.commands["ACT"]),
            Comparison(trace, "refreshes", int(row["refreshes"]), run.commands["REF"]),
            Comparison(
                trace, "mean read latency", float(row["mean_read_latency_cycles"]), run.mean_read_latency_cycles
            ),
            Comparison(trace, "GB/s", float(row["bandwidth_gbps"]), run.bandwidth_gbps),
        ]
        on_progress(f"DRAM channel: {trace}")
    return found


def compare_pim(on_progress: OnProgress = lambda done: None) -> list[PimComparison]:
    """One PIM channel under both presets, and which rule makes the difference."""
    found = []
    for row in read_golden("pim_channel_cycles"):
        case, buffers = pim_case(row["workload"]), row["row_buffers"]
        runs = [case.run(mixed_spec(buffers, RULES[:count])) for count in range(len(RULES) + 1)]
        asplos24, physical = (case.run(preset_spec(buffers, preset)) for preset in ("asplos24", "physical"))
        for metric in ("pim_cycles", "memory_cycles"):
            if not row[metric]:
                continue
            ours = _cycles(asplos24, metric)
            steps = [_cycles(run, metric) for run in runs]
            shares = tuple(
                (rule.name, after - before)
                for rule, before, after in zip(RULES, steps[:-1], steps[1:], strict=True)
                if after != before
            )
            name = f"{buffers}: {row['workload']}"
            found.append(PimComparison(name, metric, int(row[metric]), ours, _cycles(physical, metric), shares))
        on_progress(f"PIM channel: {row['row_buffers']}, {row['workload']}")
    return found


def compare_blocks(
    rows: list[dict[str, str]], requests: Path, on_progress: OnProgress = lambda done: None
) -> list[BlockComparison]:
    """Whole devices, one decoder block, stage by stage where the golden table has stages."""
    found = []
    for row in rows:
        case = f"{row['system']}, {row['requests']}" + (", interleaved" if row["interleaving"] == "on" else "")
        runs = {}
        for preset in ("asplos24", "physical"):
            runs[preset] = block_cycles(row, preset, requests)
            on_progress(f"block, {preset}: {case}")
        found += [
            BlockComparison(case, metric, int(row[metric]), runs["asplos24"][metric], runs["physical"][metric])
            for metric in (*"ABCDEF", "total")
            if row[metric]
        ]
    return found


def demo_batches() -> list[int]:
    """The batch sizes of the demo."""
    return [int(size) for size in read_sweep(DEMO).grid["workload.batch_size"]]


def _unthrottled(on_progress: OnProgress) -> dict[int, float]:
    found = {}
    for size in demo_batches():
        found[size] = unthrottled_throughput(size)
        on_progress(f"demo: NPU+PIM without its limit on PIM commands, batch size {size}")
    return found


def _power(on_progress: OnProgress) -> list[PowerPoint]:
    found = power_points(SYSTEMS, PRESETS, POWER_BATCH)
    on_progress("power of the memory")
    return found


def _cycles(run: Replay, metric: str) -> int:
    return run.pim_cycles if metric == "pim_cycles" else run.memory_cycles

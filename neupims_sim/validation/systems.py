"""Whole systems: the blocks that the published artifact simulated, and the points of the demo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from neupims_sim.config import load_config
from neupims_sim.errors import InputError
from neupims_sim.simulation import simulate
from neupims_sim.simulation.result import memory_joules
from neupims_sim.sweeps import Progress, load_results, sweep

DEMO = "quickstart"
"""The sweep of ``make demo``."""

SYSTEMS = ("npu_only", "npu_pim", "neupims")
PRESETS = ("asplos24", "physical")
POWER_BATCH = 256
"""Requests of the batch whose power is compared."""
POWER_DEVICES = 4
"""Tensor-parallel devices of the system that decodes it."""

OnProgress = Callable[[str], None]
"""Called after every step of a long comparison with what was done."""


def check_requests(folder: Path, names: set[str]) -> None:
    """Raise InputError unless ``folder`` has a request batch of every name."""
    missing = [f"{name}.csv" for name in sorted(names) if not (folder / f"{name}.csv").is_file()]
    if missing:
        raise InputError(f"--requests {folder}: no {', '.join(missing)}; docs/validation.md says where they come from")


def block_cycles(row: dict[str, str], preset: str, folder: Path) -> dict[str, int]:
    """Stages and total of the decoder block that a row of ``block_cycles.csv`` describes.

    The total is the block's steady-state time, or, of interleaved sub-batches, the sum of the stages A to F.
    """
    system = row["system"].removesuffix("_unthrottled")
    settings: dict[str, Any] = {
        "preset": preset,
        "workload.requests": str(folder / f"{row['requests']}.csv"),
        "scheduling.interleaving": {"on": "lockstep", "off": "off"}[row["interleaving"]],
        # The artifact simulates one block; the K and V of all 32 layers of these batches would not fit.
        "mapping.kv_capacity": "simulated_layers",
    }
    if system != row["system"]:
        settings["memory.pim.device_serial_issue"] = False
    result = simulate(load_config(system, settings))
    total = sum(result.stages.values()) if row["interleaving"] == "on" else result.block_cycles
    return {**result.stages, "total": total}


class DemoPoint(NamedTuple):
    """One bar of the demo's figure, 1000 tokens/s."""

    preset: str
    batch_size: int
    system: str
    throughput: float
    published: float | None
    """The bar of the paper, where there is one."""


def demo_points(bars: list[dict[str, str]], workers: int | None, on_progress: OnProgress) -> list[DemoPoint]:
    """The points of ``make demo``, simulated again, with the published bars beside them."""

    def show(progress: Progress) -> None:
        if progress.error:
            raise RuntimeError(f"{progress.last}: {progress.error}")
        if progress.last:
            on_progress(f"demo: {progress.last}")

    with TemporaryDirectory() as folder:
        sweep(DEMO, folder, workers, on_progress=show)
        _, table = load_results(folder)
    published = {(bar["system"], int(bar["batch_size"])): float(bar["kilotokens_per_s"]) for bar in bars}
    return [
        DemoPoint(
            row["preset"],
            int(row["workload.batch_size"]),
            row["system"],
            row["throughput_tokens_per_s"] / 1000,
            published.get((row["system"], int(row["workload.batch_size"]))),
        )
        for row in table.to_dict("records")
    ]


class PowerPoint(NamedTuple):
    """The memory of one simulated system."""

    preset: str
    system: str
    milliwatts_per_channel: float
    millijoules_per_iteration: float
    """Of the memory of all devices."""


def power_points(systems: Sequence[str], presets: Sequence[str], batch_size: int) -> list[PowerPoint]:
    """Power and energy of the memory in a decode iteration of GPT3-7B on ShareGPT."""
    found = []
    for preset in presets:
        for system in systems:
            settings = {"preset": preset, "model": "gpt3-7b", "workload": "sharegpt", "workload.batch_size": batch_size}
            settings |= {"parallel.tensor": POWER_DEVICES}
            result = simulate(load_config(system, settings))
            joules = memory_joules(result.energy_joules)
            found.append(PowerPoint(preset, system, 1e3 * (result.memory_power_w_per_channel or 0), 1e3 * joules))
    return found


def unthrottled_throughput(batch_size: int) -> float:
    """NPU+PIM under ``asplos24`` without its limit of one PIM command per cycle for the whole device, 1000 tokens/s."""
    settings = {
        "preset": "asplos24",
        "model": "gpt3-7b",
        "workload": "sharegpt",
        "workload.batch_size": batch_size,
        "memory.pim.device_serial_issue": False,
    }
    return simulate(load_config("npu_pim", settings)).throughput_per_s / 1000

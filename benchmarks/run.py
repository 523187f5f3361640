"""Speed of the memory engine and of whole runs: ``python benchmarks/run.py [--save]``, or ``make bench``.

Prints, per case, the median over some repeats, and its ratio to ``baseline.json``. ``--save`` makes this run the baseline; its
figures hold for the machine that it names only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from neupims_sim import load_config, simulate
from neupims_sim.config import load_memory
from neupims_sim.memory import READ, WRITE, CommandDevice, PimProgram, Requests, replay_requests, resolve
from neupims_sim.memory.program import GWRITE, TILE

BASELINE = Path(__file__).parent / "baseline.json"
REPEATS = 7
MIB = 1 << 20


def replay(burst: np.ndarray, channels: int = 1) -> float:
    """Reads of HBM2 per second."""
    spec = resolve(load_memory("hbm2", "physical", {"organization.channels": channels}))
    zero = np.zeros(len(burst), dtype=np.int64)
    return len(burst) / replay_requests(spec, Requests(burst.astype(np.int64) * 64, zero, zero)).wall_seconds


def peak_megabytes(reads: int) -> float:
    """Resident memory, at its largest, of a process that replays so many reads, given in parts."""
    spec = resolve(load_memory("hbm2", "physical", {"organization.channels": 32}))

    def parts(size: int = 1 << 18) -> Iterator[Requests]:
        for begin in range(0, reads, size):
            burst = np.arange(begin, min(begin + size, reads))
            zero = np.zeros_like(burst)
            yield Requests(burst * 64, zero, zero)

    replay_requests(spec, parts())
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's memory too
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024


def device(preset: str, *, transfers: bool, programs: bool) -> float:
    """Commands per second of 32 channels with PIM: 2 MiB transfers, a fifth of them writes, and attention-like programs."""
    device = CommandDevice(resolve(load_memory("hbm2_pim_dual", preset), preset))
    waiting = set()
    for start in range(4 if programs else 0):
        operations = []
        for step in range(60):
            operations += [(GWRITE, step, 0, 0)]
            operations += [(TILE, 1000 + 240 * start + 4 * step + tile, 1, 19) for tile in range(4)]
        program = PimProgram.build(operations)
        waiting.add(device.submit_programs(dict.fromkeys(range(32), program)))
    for number in range(160 if transfers else 0):
        kind = WRITE if number % 5 == 4 else READ
        waiting.add(device.submit_transfer(kind, (8 << 30) + number * 2 * MIB, 2 * MIB))
    begin = time.perf_counter()
    while waiting:
        waiting -= set(device.advance(device.time + 10_000_000)[1])
    seconds = time.perf_counter() - begin
    return sum(device.counters().commands.values()) / seconds


CASES: dict[str, tuple[str, Callable[[], float]]] = {
    "replay sequential": ("reads/s", lambda: replay(np.arange(1_000_000))),
    "replay sequential, 32 channels": ("reads/s", lambda: replay(np.arange(4_000_000), 32)),
    "replay random": ("reads/s", lambda: replay(np.random.default_rng(0).integers(0, 1 << 24, 500_000))),
    "replay same-bank conflicts": ("reads/s", lambda: replay(np.arange(200_000) * 512 % (1 << 24))),
    "32 channels, transfers": ("commands/s", lambda: device("asplos24", transfers=True, programs=False)),
    "32 channels, PIM": ("commands/s", lambda: device("asplos24", transfers=False, programs=True)),
    "32 channels, both, asplos24": ("commands/s", lambda: device("asplos24", transfers=True, programs=True)),
    "32 channels, both, physical": ("commands/s", lambda: device("physical", transfers=True, programs=True)),
}


def whole_run(system: str, **settings: object) -> float:
    """Seconds of one simulation, the configuration loaded already."""
    config = load_config(system, {key.replace("__", "."): value for key, value in settings.items()})
    begin = time.perf_counter()
    simulate(config)
    return time.perf_counter() - begin


RUNS: dict[str, Callable[[], float]] = {
    "decode, GPT3-7B, 512 requests": lambda: whole_run("neupims", workload__batch_size=512),
    "inference, ViT-B/16, 64 images": lambda: whole_run("npu_only", model="vit-b16", workload="images"),
    "search of 1 M vectors, PIM": lambda: whole_run("neupims", workload="search_1m"),
    "search of 1 M vectors, NPU": lambda: whole_run("npu_only", workload="search_1m"),
}
"""Simulations whose wall time is told."""
RUN_REPEATS = 3


def machine() -> str:
    """What the figures depend on most."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        processor = names[0].split(":")[1].strip() if names else processor
    return f"{processor}, {os.cpu_count()} CPUs, Python {platform.python_version()}"


def main() -> None:
    """Run all cases; the first run of each warms caches and is left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="make this run the baseline")
    save = parser.parse_args().save
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {"machine": "none", "medians": {}}
    print(f"machine   {machine()}\nbaseline  {baseline['machine']}\n")
    print(f"{'case':30s}{'median':>16s}{'spread':>9s}{'ratio':>8s}")
    medians = {}
    for name, (unit, case) in CASES.items():
        case()
        rates = [case() for _ in range(REPEATS)]
        medians[name] = statistics.median(rates)
        spread = (max(rates) - min(rates)) / medians[name]
        ratio = f"{medians[name] / baseline['medians'][name]:8.2f}" if name in baseline["medians"] else ""
        print(f"{name:30s}{medians[name] / 1e6:7.2f} M{unit:10s}{spread:6.0%}{ratio}", flush=True)
    for name, run in RUNS.items():
        run()
        seconds = [run() for _ in range(RUN_REPEATS)]
        medians[name] = statistics.median(seconds)
        ratio = f"{medians[name] / baseline['medians'][name]:8.2f}" if name in baseline["medians"] else ""
        spread = (max(seconds) - min(seconds)) / medians[name]
        print(f"{name:30s}{medians[name]:14.2f} s {spread:9.0%}{ratio}", flush=True)
    with get_context("spawn").Pool(1) as fresh:
        print(f"{'peak memory, 10 M reads':30s}{fresh.apply(peak_megabytes, (10_000_000,)):7.0f} MB")
    if save:
        rounded = {name: round(median, 2) for name, median in medians.items()}
        BASELINE.write_text(json.dumps({"machine": machine(), "medians": rounded}, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""A sweep's results folder and a run directory to write reports about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neupims_sim.config import Config, dump_config, load_config
from neupims_sim.simulation import Timeline, simulate, write_run
from neupims_sim.sweeps import sweep

BATCHES = (8, 16, 32, 128)
EVIL = "<script>throw new Error('ran')</script>"
ERROR = "the batch <img src=x onerror=alert(1)> does not fit"
SWEEP = f"""
name: small
title: "What does {EVIL} do?"
base: {{preset: physical, model: gpt3-7b, workload: sharegpt, model.layers: 4}}
variants:
  device:
    plain: {{system: npu_only}}
    "{EVIL}": {{system: neupims}}
grid:
  workload.batch_size: [{", ".join(map(str, BATCHES))}]
metrics: [throughput_tokens_per_s, cycles, interleaving]
derive: {{share: cycles / 7}}
labels:
  device: {{name: Device}}
  workload.batch_size: {{name: Requests}}
plot:
  - {{kind: lines, x: workload.batch_size, y: throughput_tokens_per_s, hue: device}}
  - {{kind: lines, x: workload.batch_size, y: cycles, hue: device, title: Second}}
  - {{kind: throughput_bars, metric: nothing}}
tables:
  - {{title: Throughput, rows: device, columns: workload.batch_size, value: throughput_tokens_per_s}}
"""


def fake(config: Config) -> dict[str, Any]:
    """A made-up result; the plain device fails with 128 requests. Unlike as text, 1,100.00 is greater than 999.00 as a number."""
    batch, plain = config.workload.batch_size, config.system == "npu_only"
    if batch == 128 and plain:
        raise ValueError(ERROR)
    throughput = {8: 999_000, 16: 1_100_000, 32: 20_000, 128: 3_000}[batch] + (0.25 if plain else 0)
    return {
        "throughput_tokens_per_s": throughput,
        "cycles": 1000 * batch,
        "interleaving": "off" if plain else "lockstep",
    }


def write_sweep(folder: Path) -> Path:
    """The results folder of the sweep above, run with `fake`."""
    file = folder / "sweep-file.yaml"
    file.write_text(SWEEP)
    sweep(file, folder / "results", workers=1, run_point=fake)
    return folder / "results"


def write_real_run(directory: Path, seconds: float = 1.5) -> Path:
    """The run directory, with a timeline, of a small run."""
    config = load_config("neupims", {"workload.batch_size": 8, "memory": "ideal", "attention_on": "npu"})
    watcher = Timeline()
    write_run(simulate(config, watcher), config, directory, seconds, watcher)
    assert (directory / "config.yaml").read_text() == dump_config(config)
    return directory

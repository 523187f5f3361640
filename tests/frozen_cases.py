"""Configurations whose results may never change: those of the frozen presets, ``asplos24`` and ``physical_2024``.

``python tests/frozen_cases.py > tests/golden/frozen_presets.json`` records them. That was done with the commit that the
file names, before anything of ``physical`` was revised (there ``physical_2024`` was still called ``physical``).
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from simulation_cases import small

from neupims_sim.config import Config, load_config
from neupims_sim.simulation import Result, simulate

PRESETS = ("asplos24", "physical_2024")

GROUPED = {"model.kv_heads": 2, "model.norm": "rmsnorm", "model.ffn": "gated", "model.activation": "silu"}
GROUPED |= {"model.position": "rotary", "model.bias": False}
LOCKSTEP, DATAFLOW = ({"scheduling.interleaving": name} for name in ("lockstep", "dataflow"))
SCRATCHPAD = {"npu.scratchpad_bytes": "1 MiB", "npu.accumulator_bytes": "2 MiB"}

CASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "npu only": ("npu_only", {}),
    "npu only, short contexts": ("npu_only", {"workload.dataset": "alpaca", "workload.batch_size": 40}),
    "npu only, grouped queries, two devices": ("npu_only", GROUPED | {"parallel.tensor": 2}),
    "npu only, long contexts": ("npu_only", {"workload.context_tokens": 1900, "workload.batch_size": 5}),
    "npu only, little room": ("npu_only", SCRATCHPAD | {"workload.batch_size": 96}),
    "npu only, slow device": ("npu_only", {"clock_ghz": 0.7}),
    "npu only, link": (
        "npu_only",
        {"parallel.tensor": 4, "parallel.link": {"topology": "ring", "bandwidth_gbps": 100}},
    ),
    "npu only, other arrays": (
        "npu_only",
        {"npu.systolic.arrays": 3, "npu.systolic.rows": 64, "npu.systolic.columns": 32},
    ),
    "one row buffer": ("npu_pim", {}),
    "one row buffer, longest first": ("npu_pim", {"scheduling.channel_assignment": "gmlbp", "workload.batch_size": 33}),
    "one row buffer, grouped queries": ("npu_pim", GROUPED),
    "one row buffer, wide heads": ("npu_pim", {"model.heads": 2, "model.kv_heads": 2, "model.head_size": 512}),
    "dual": ("neupims", {}),
    "dual, lockstep": ("neupims", LOCKSTEP),
    "dual, dataflow": ("neupims", DATAFLOW),
    "dual, lockstep, balanced": ("neupims", LOCKSTEP | {"scheduling.partition": "balanced", "workload.batch_size": 50}),
    "dual, lockstep, grouped queries": ("neupims", GROUPED | LOCKSTEP),
    "dual, lockstep, two devices": ("neupims", LOCKSTEP | {"parallel.tensor": 2, "workload.batch_size": 64}),
    "dual, long contexts": ("neupims", {"workload.context_tokens": 1100, "workload.batch_size": 9}),
    "dual, operator barrier": ("neupims", LOCKSTEP | {"scheduling.barrier": "operator"}),
    "dual, one request": ("neupims", {"workload.batch_size": 1}),
    "dual, little room": ("neupims", LOCKSTEP | SCRATCHPAD | {"workload.batch_size": 96}),
    "dual, auto": ("neupims", {"workload.batch_size": 256, "model.layers": 2, "workload.dataset": "alpaca"}),
    "dual, heads that fill no row": ("neupims", {"model.d_model": 800, "model.heads": 10, "model.d_ff": 3200}),
    "dual, background search": ("neupims", {"workload.background": {"database": 2000, "dimensions": 512, "top_m": 10}}),
}
"""What a case is called: system and settings on top of ``simulation_cases.SMALL``."""

IMAGES = {"model": "vit-s16", "workload": "images", "workload.batch_size": 2, "model.layers": 3}
QUERIES = {"workload": "retrieval_1m", "workload.database": 9000, "workload.extract": False, "simulation.queries": 2}
VISION_CASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "vit": ("npu_only", IMAGES),
    "vit, pooling in PIM": ("neupims", IMAGES | {"workload.pooling": "average", "pooling_on": "pim"}),
    "resnet": (
        "npu_only",
        {"model": "resnet50", "workload": "images", "workload.batch_size": 1, "workload.image_size": 64},
    ),
    "search": ("npu_only", QUERIES),
    "search in PIM": ("neupims", QUERIES | {"workload.queries": 2, "workload.rerank": "none"}),
}
"""The same on top of nothing."""


def frozen_config(preset: str, case: str) -> Config:
    """The configuration of a case."""
    if case in VISION_CASES:
        system, settings = VISION_CASES[case]
        return load_config(system, {"preset": preset, **settings})
    system, settings = CASES[case]
    return small(system, {"preset": preset, **settings})


def figures(result: Result) -> dict[str, Any]:
    """What is compared: cycles, and a digest of everything that one device did, whose figures are the recorded ones."""
    done = {
        "stages": result.stages,
        "commands": {name: count // result.devices for name, count in sorted(result.commands.items()) if count},
        "traffic": {kind: size // result.devices for kind, size in result.traffic_bytes.items()},
        "operators": [
            [r.layer, r.sub_batch, r.request, r.operator, r.unit, r.start_cycle, r.end_cycle, r.macs]
            for r in result.observations.operators
        ],
    }
    digest = hashlib.sha256(json.dumps(done).encode()).hexdigest()
    return {"simulated_cycles": result.simulated_cycles, "block_cycles": result.block_cycles, "digest": digest[:16]}


def record(of: Mapping[str, str]) -> dict[str, Any]:
    """The figures of all cases; ``of``: what each preset is called where this runs."""
    return {
        preset: {case: figures(simulate(frozen_config(name, case))) for case in (*CASES, *VISION_CASES)}
        for preset, name in of.items()
    }


if __name__ == "__main__":
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    recorded = record(dict(arg.split("=") for arg in sys.argv[1:]) or {preset: preset for preset in PRESETS})
    print(json.dumps({"commit": commit.stdout.strip()} | recorded, indent=1))

"""Simulations that nobody waits for are refused before they start."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from neupims_sim.config import load_config
from neupims_sim.errors import InputError
from neupims_sim.simulation import check_fits, simulate
from neupims_sim.simulation.effort import MOST_BURSTS, MOST_EXECUTIONS

SMALL: dict[str, Any] = {
    "model": {"name": "m", "layers": 8, "heads": 8, "d_model": 256, "d_ff": 256, "vocabulary": 100},
    "parallel": {"tensor": 1, "pipeline": 1},
    "workload.batch_size": 4,
    "workload.warmup.iterations": 20,
}
VIT: dict[str, Any] = {
    "model": {"name": "v", "family": "vit", "layers": 2, "heads": 4, "d_model": 256, "d_ff": 128, "patch": 16},
}
RETRIEVAL = VIT | {
    "workload": {"name": "r", "kind": "retrieval", "database": 20000, "dimensions": 256, "top_m": 20, "image_size": 64}
}
IMAGES = VIT | {"workload": {"name": "i", "kind": "images", "batch_size": 2, "image_size": 64}}


def trace_of_one_product(path: Path, size: int, repeat: int = 1) -> Path:
    """[size, size] x [size, size]."""
    tensors = [
        {"name": name, "shape": [size, size], "dtype": "float16", "role": role}
        for name, role in (("x", "activation"), ("w", "weight"), ("y", "activation"))
    ]
    header = {
        "format": "neupims_sim-trace", "version": 1, "model": "m", "phase": "encode", "batch": 1, "dtype": "float16", "seed": 0,
    }  # fmt: skip
    product = {"id": 0, "name": "y", "op": "gemm", "inputs": tensors[:2], "outputs": tensors[2:], "deps": []}
    path.write_text(f"{json.dumps(header)}\n{json.dumps(product | {'repeat': repeat})}\n")
    return path


def test_a_product_of_terabytes_is_refused_at_once(tmp_path: Path) -> None:
    path = trace_of_one_product(tmp_path / "t.jsonl", 2**20)
    config = load_config("npu_only", {"workload": {"name": "t", "kind": "trace", "path": str(path)}})
    start = time.perf_counter()
    with pytest.raises(
        InputError, match=r"would simulate 1.03e\+11 bursts of DRAM, which takes hours; allowed: 1e\+10"
    ):
        simulate(config)
    assert time.perf_counter() - start < 3


def test_layers_that_are_not_simulated_do_not_count(tmp_path: Path) -> None:
    path = trace_of_one_product(tmp_path / "t.jsonl", 64, repeat=1_000_000)
    config = load_config("npu_only", {"workload": {"name": "t", "kind": "trace", "path": str(path)}})
    assert simulate(config).layers == 1_000_000


@pytest.mark.parametrize(
    ("system", "settings", "key"),
    [
        ("neupims", SMALL, "workload.batch_size"),
        ("npu_only", SMALL, "workload.batch_size"),
        ("npu_only", IMAGES, "workload.batch_size"),
        ("neupims", RETRIEVAL, "workload.queries"),
        ("neupims", RETRIEVAL | {"scheduling.interleaving": "off"}, "workload.queries"),
    ],
)
def test_every_kind_of_workload_is_estimated(
    system: str, settings: dict[str, Any], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(system, settings)
    check_fits(config)
    for bound, what in (("MOST_BURSTS", "bursts of DRAM"), ("MOST_EXECUTIONS", "operators")):
        with monkeypatch.context() as patched:
            patched.setattr(f"neupims_sim.simulation.effort.{bound}", 10)
            with pytest.raises(InputError, match=rf"{what}, which takes hours; allowed: 1e\+01. Smaller: {key}"):
                simulate(config)
            with pytest.raises(InputError, match=what):
                check_fits(config)


def test_snapshots_and_layers_count(monkeypatch: pytest.MonkeyPatch) -> None:
    enough = 10
    while not fits(SMALL, enough, monkeypatch):
        enough *= 2
    for more in ({"simulation.snapshots": 3}, {"simulation.layers": 8}, {"workload.batch_size": 64}):
        assert not fits(SMALL | more, enough, monkeypatch)


def fits(settings: dict[str, Any], executions: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr("neupims_sim.simulation.effort.MOST_EXECUTIONS", executions)
    try:
        check_fits(load_config("neupims", settings))
    except InputError:
        return False
    return True


def test_the_bounds_are_far_beyond_what_people_simulate() -> None:
    """The largest published evaluation of NeuPIMs moves some 10^8 bursts in 10^4 operators."""
    assert (MOST_BURSTS, MOST_EXECUTIONS) == (10**10, 4 * 10**6)
    check_fits(load_config("neupims", {"model": "gpt3-175b", "preset": "asplos24", "workload.batch_size": 512}))

"""``neupims-sim serve``: files, JSON, the search for a rate, and one line for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from serving_cases import golden, write_golden_requests, write_requests

from neupims_sim import load_config
from neupims_sim.cli import main
from neupims_sim.serving import find_rate, serve
from neupims_sim.sweeps import sweep

COST = [
    "--set",
    "serving.cost.model=constant",
    "--set",
    "serving.cost.seconds=1.0",
    "--set",
    "serving.scheduler.num_gpu_blocks=200",
]
DRAWN = "serving.requests={format: random, input_tokens: 64, output_tokens: 16, range_ratio: 0.5, count: 200}"


def run(*arguments: str) -> int:
    """Exit code of the program."""
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "npu_only", *arguments])
    return int(stopped.value.code or 0)


def test_files_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = golden("plain")
    write_golden_requests(expected["requests"], tmp_path / "R.jsonl")
    options = [f"--set=serving.scheduler.{name}={value}" for name, value in expected["options"].items()]
    out = tmp_path / "run"
    assert (
        run("--requests", str(tmp_path / "R.jsonl"), "--iterations", "--json", "--out", str(out), *COST, *options) == 0
    )
    lines = [json.loads(line) for line in (out / "iterations.jsonl").read_text().splitlines()]
    assert [(line["start_s"], line["tokens"]) for line in lines] == [
        (step["step"], step["tokens"]) for step in expected["steps"]
    ]
    result = json.loads((out / "result.json").read_text())
    assert json.loads(capsys.readouterr().out) == result
    requests = pd.read_csv(out / "requests.csv")
    assert len(requests) == result["serving"]["completed"] == len(expected["requests"])
    assert requests["ttft_s"].mean() == pytest.approx(result["serving"]["ttft_mean_s"])
    assert (requests["produced_tokens"] == requests["output_tokens"]).all()
    assert load_config(out / "config.yaml").serving.requests.path == str(tmp_path / "R.jsonl")
    assert run("--requests", str(tmp_path / "R.jsonl"), "--out", str(out), *COST, *options) == 0
    assert "time to first token" in capsys.readouterr().out


def test_goodput_counts_requests_within_every_limit(tmp_path: Path) -> None:
    write_requests([(0, 16, 1), (0, 16, 5), (0, 16, 11)], tmp_path / "requests.csv")
    settings = {
        "serving.requests.path": str(tmp_path / "requests.csv"),
        "serving.cost": {"model": "constant", "seconds": 1.0},
        "serving.scheduler.num_gpu_blocks": 100,
        "serving.limits": {"tpot_s": 1.0, "e2e_s": 5.0},
    }
    metrics = serve(load_config("npu_only", settings)).metrics
    assert metrics["duration_s"] == 11.0
    assert metrics["goodput_per_s"] == pytest.approx(2 / 11)
    assert metrics["requests_per_s"] == pytest.approx(3 / 11)
    assert metrics["itl_mean_s"] == 1.0


def test_find_rate_ends_at_the_limit() -> None:
    """One request at a time, 1 s each: the mean wait of M/D/1 is 0.5 s at a load of one half."""
    settings = {
        "serving.requests": {"format": "random", "input_tokens": 8, "output_tokens": 1, "count": 4000},
        "serving.arrivals": {"kind": "poisson", "rate": 7.0},
        "serving.cost": {"model": "constant", "seconds": 1.0},
        "serving.scheduler": {"max_num_seqs": 1, "num_gpu_blocks": 100},
    }
    found = find_rate(load_config("npu_only", settings), {"ttft_mean": 1.5}, seeds=2, tolerance=0.01)
    assert found.rate == pytest.approx(0.5, rel=0.05)
    assert found.ci95 is not None
    for seed, rate in found.rates.items():
        verdicts = [(run_rate, kept) for run_seed, run_rate, kept in found.runs if run_seed == seed]
        assert max(run_rate for run_rate, kept in verdicts if kept) == rate
        assert min(run_rate for run_rate, kept in verdicts if not kept) <= rate * 1.01
    assert found.result.metrics["ttft_mean_s"] <= 1.5


def test_find_rate_prints_the_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--set", DRAWN, "--set", "serving.arrivals={kind: poisson, rate: 1}", "--out", str(tmp_path / "run")]
    assert run(*COST, *arguments, "--find-rate", "ttft_p99:5 tpot_p99:1.5", "--seeds", "1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["find_rate"]["rate_per_s"] > 0
    assert found["serving"]["ttft_p99_s"] <= 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--requests", "nowhere.csv"], "nowhere.csv: cannot read"),
        ([], "no requests; give a file"),
        (["--set", DRAWN], "serving.arrivals.kind says when"),
        (["--set", DRAWN, "--set", "serving.arrivals={kind: poisson, rate: 0}"], "serving.arrivals.rate"),
        (["--set", "serving.scheduler.policy=vllm"], "unknown scheduler 'vllm'"),
        (["--set", "serving.cost.model=constnat"], "did you mean constant?"),
        (["--find-rate", "ttft:1"], "unknown metric"),
        (["--find-rate", "ttft_p99"], "METRIC:SECONDS"),
        (["--find-rate", "ttft_p99:0"], "METRIC:SECONDS"),
        (
            ["--set", DRAWN, "--set", "serving.arrivals.kind=all_at_once", "--find-rate", "ttft_p99:1"],
            "varies serving.arrivals.rate",
        ),
        (
            ["--set", DRAWN, "--set", "serving.arrivals={kind: poisson, rate: 1}", "--find-rate", "ttft_p99:0.5"],
            "not kept at any rate",
        ),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*COST, *arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("seed ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not list(tmp_path.iterdir())


def test_sweeps_serve(tmp_path: Path) -> None:
    """A configuration that describes requests is served; axes and metrics are keys of ``serving``."""
    (tmp_path / "rates.yaml").write_text(
        """
name: rates
base:
  system: npu_only
  serving:
    requests: {format: random, input_tokens: 32, output_tokens: 8, count: 50}
    arrivals: {kind: poisson}
    cost: {model: constant, seconds: 0.1}
    scheduler: {num_gpu_blocks: 100}
grid:
  serving.arrivals.rate: [0.1, 10.0]
metrics: [serving.ttft_p99_s, serving.steady_state.requests_per_s]
"""
    )
    table = sweep(tmp_path / "rates.yaml", tmp_path / "out", workers=1)
    assert table["status"].tolist() == ["ok", "ok"]
    assert table["serving.ttft_p99_s"].is_monotonic_increasing


def test_policies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["list", "policies", "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert listed["serving.scheduler.policy"] == ["orca", "static", "vllm_v1"]
    assert {"constant", "linear"} <= set(listed["serving.cost.model"])

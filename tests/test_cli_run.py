"""``run`` and ``trace`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_cases import Captured, run
from simulation_cases import SMALL, SilentMemory, small, small_options

from neupims_sim.config import config_hash
from neupims_sim.trace import read_trace

OPTIONS = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results go to the working directory."""
    monkeypatch.chdir(tmp_path)


def test_run_json_prints_result_json_and_writes_the_directory(capsys: Captured) -> None:
    code, out, err = run(capsys, "run", "neupims", *OPTIONS, "--json", "--out", "here", "--timeline")
    assert (code, err) == (0, "results in here\n")
    assert out == Path("here/result.json").read_text()
    result = json.loads(out)
    assert {
        "cycles",
        "seconds",
        "throughput_tokens_per_s",
        "batch_size",
        "utilization",
        "traffic_bytes",
    } <= result.keys()
    assert {"commands", "block_cycles", "stages"} <= result.keys()
    assert set(result["utilization"]) >= {"npu", "pim", "bandwidth"}
    assert set(result["traffic_bytes"]) == {"read", "write", "pim_internal"}
    names = {"config.yaml", "result.json", "operators.csv", "provenance.json", "timeline.json.gz"}
    assert {path.name for path in Path("here").iterdir()} == names


def test_run_prints_a_table_and_names_the_directory_after_the_configuration(capsys: Captured) -> None:
    code, out, _ = run(capsys, "run", "neupims", *OPTIONS)
    assert code == 0
    for word in ("throughput", "tokens/s", "block", "stage A", "utilization pim", "traffic read", "batch 16"):
        assert word in out
    assert Path(f"results/run-neupims-{config_hash(small())}/result.json").is_file()


def test_a_written_configuration_runs_again_to_the_same_result(capsys: Captured) -> None:
    run(capsys, "run", "npu_pim", *OPTIONS, "--out", "one")
    assert run(capsys, "run", "one/config.yaml", "--out", "two")[0] == 0
    assert Path("one/result.json").read_bytes() == Path("two/result.json").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "model.layerz=2"], ["model.layerz=2", "unknown key", "did you mean layers?"]),
        (["--set", "parallel.tensor=3"], ["parallel.tensor=3", "model.heads=8"]),
        (["--set", "model=gpt3-7b", "--set", "workload.batch_size=4096"], ["does not fit"]),
        (["--set", "npu.scratchpad_bytes=1024"], ["GEMM 16 x 1024", "npu.scratchpad_bytes=1024"]),
        (["--set", "workload.requests=bad.csv"], ["ch_idx 99", "allowed: 0 to 7"]),
        (["--set", "workload.requests=none.csv"], ["none.csv", "no such file"]),
        (["--set", "scheduling.partition=balancd"], ["scheduling.partition='balancd'", "did you mean balanced?"]),
        (["--set", "scheduling.channel_assignment=gmlb"], ["did you mean gmlbp?"]),
        (["--set", "npu.systolic.sharing=splitn"], ["did you mean split_n?"]),
        (["--set", "memory.model=comand"], ["memory.model='comand'", "did you mean command?"]),
        (["--set", "memory.model=no.module:Class"], ["memory.model='no.module:Class'", "cannot be imported"]),
        (["--timeline-window", "9:3"], ["--timeline-window '9:3'", "START:END"]),
        (["--timeline-window", "999999999:1999999999"], ["timeline window", "simulated cycles"]),
        (["--out", "bad.csv"], ["--out bad.csv", "not a directory"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("--") else "",
)
def test_bad_input_of_run_is_one_line_and_exit_code_2(capsys: Captured, arguments: list[str], words: list[str]) -> None:
    Path("bad.csv").write_text("seq_len,ch_idx\n100,0\n50,99\n")
    stated = dict(word.split("=", 1) for word in arguments if "=" in word)
    options = [word for key, value in small_options(stated).items() for word in ("--set", f"{key}={value}")]
    code, out, err = run(capsys, "run", "neupims", *options, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("config", "words"), [("neupimss", ["did you mean neupims?"]), ("none.yaml", ["none.yaml", "no such file"])]
)
def test_a_configuration_that_does_not_exist(capsys: Captured, config: str, words: list[str]) -> None:
    code, out, err = run(capsys, "run", config)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert all(word in err for word in words)


def test_a_stall_is_exit_code_1_with_its_message(capsys: Captured) -> None:
    model = f"memory.model={SilentMemory.__module__}:{SilentMemory.__name__}"
    code, out, err = run(
        capsys, "run", "npu_only", *OPTIONS, "--set", model, "--set", "simulation.watchdog_cycles=10000", "--out", "x"
    )
    assert (code, out) == (1, "")
    assert err.startswith("error: the simulation stalled: nothing has completed since cycle ")
    assert "sub-batch 0 is in QKV of layer 0" in err
    assert not Path("x").exists()


def test_a_trace_is_written_shown_and_checked(capsys: Captured) -> None:
    code, out, _ = run(capsys, "trace", "llm", "neupims", *OPTIONS, "-o", "t.jsonl.gz")
    count = len(read_trace("t.jsonl.gz").operators)
    assert (code, out) == (0, f"t.jsonl.gz: {count} operators\n")
    assert run(capsys, "trace", "check", "t.jsonl.gz") == (0, f"t.jsonl.gz: ok, {count} operators\n", "")
    code, out, _ = run(capsys, "trace", "show", "t.jsonl.gz")
    assert code == 0
    assert all(word in out for word in ("qkv", "attention_logits", "GFLOP", "total", "batch 16"))
    shown = json.loads(run(capsys, "trace", "show", "t.jsonl.gz", "--json")[1])
    assert shown["header"]["batch"] == 16
    assert shown["total"]["flops"] == sum(row["flops"] for row in shown["operators"])


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_trace_llm_follows_the_configuration(capsys: Captured, phase: str) -> None:
    more = ["--set", f"workload.phase={phase}", "--set", "workload.lm_head=true", "--set", "parallel.tensor=2"]
    assert run(capsys, "trace", "llm", "npu_only", *OPTIONS, *more, "-o", "t.jsonl")[0] == 0
    trace = read_trace("t.jsonl")
    assert (trace.header.phase, trace.header.batch) == (phase, 16)
    assert {"lm_head", "ffn_all_reduce"} <= {operator.name for operator in trace.operators}


def test_a_malformed_trace_line_is_named(capsys: Captured) -> None:
    run(capsys, "trace", "llm", "neupims", *OPTIONS, "-o", "t.jsonl")
    lines = Path("t.jsonl").read_text().splitlines()
    lines[2] = lines[2].replace('"op":', '"opp":')
    Path("t.jsonl").write_text("\n".join(lines) + "\n")
    for command in ("check", "show"):
        code, out, err = run(capsys, "trace", command, "t.jsonl")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("error: t.jsonl:3: ")
    assert run(capsys, "trace", "check", "none.jsonl")[0] == 2
    assert run(capsys, "trace", "llm", "neupims", *OPTIONS, "-o", "t.txt")[0] == 2

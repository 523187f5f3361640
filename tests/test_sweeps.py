"""Sweeps: how a file expands, what is stored, and what survives failures and interruptions."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cli_cases import run

from neupims_sim.config import Config, config_hash, load_config
from neupims_sim.errors import InputError
from neupims_sim.sweeps import Progress, expand, load_results, read_sweep, sweep
from neupims_sim.sweeps.database import Reader
from neupims_sim.sweeps.execution import Task
from neupims_sim.sweeps.processes import execute_in_processes
from neupims_sim.sweeps.store import read_tracebacks

SWEEP = """
name: small
base: {preset: physical, workload: {dataset: sharegpt}, model.layers: 4}
grid:
  system: [npu_only, neupims]
  workload.batch_size: [8, 16, 32]
metrics: [throughput_tokens_per_s, utilization.npu, cycles]
"""


def fake(config: Config) -> dict[str, Any]:
    """A made-up result, quickly."""
    batch = config.workload.batch_size
    return {"throughput_tokens_per_s": batch / 3, "utilization": {"npu": 0.1 * batch}, "cycles": 100 * batch}


def fake_that_fails_at_16(config: Config) -> dict[str, Any]:
    if config.workload.batch_size == 16:
        raise InputError("the batch does not fit:\n16 > 15") if config.system == "neupims" else RuntimeError("a bug")
    return fake(config)


def fake_whose_process_dies_at_16(config: Config) -> dict[str, Any]:
    if config.workload.batch_size == 16:
        os._exit(9)
    return fake(config)


def fake_that_must_not_run(config: Config) -> dict[str, Any]:
    raise AssertionError("a finished point runs again")


def slow_fake(config: Config) -> dict[str, Any]:
    time.sleep(0.3 if config.workload.batch_size == 8 else 600)
    return fake(config)


def count_finished(out: Path) -> int:
    try:
        return len(load_results(out)[1])
    except InputError:
        return 0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SWEEP)
    return path


def edited(file: Path, old: str, new: str) -> Path:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    return file


# --- the file ---


def test_last_axis_varies_fastest(file: Path) -> None:
    points = list(expand(read_sweep(file), ""))
    assert [(p.axes["system"], p.axes["workload.batch_size"]) for p in points] == [
        ("npu_only", 8),
        ("npu_only", 16),
        ("npu_only", 32),
        ("neupims", 8),
        ("neupims", 16),
        ("neupims", 32),
    ]


def test_point_is_the_configuration_that_the_keys_say(file: Path) -> None:
    point = list(expand(read_sweep(file), ""))[4]
    assert point.config == load_config("neupims", {"model.layers": 4, "workload.batch_size": 16})
    assert point.hash == config_hash(point.config)


def test_quickstart_compares_three_systems_at_three_batch_sizes_under_both_presets() -> None:
    points = list(expand(read_sweep("quickstart"), ""))
    assert len({point.hash for point in points}) == 3 * 3 * 2
    assert {point.config.preset for point in points} == {"physical", "asplos24"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("workload.batch_size", "workload.batch_sise", ["workload.batch_sise=8", "unknown key", "mean batch_size?"]),
        ("[8, 16, 32]", "[8, 16, -32]", ["point system='npu_only' workload.batch_size=-32", "greater than 0"]),
        ("[npu_only, neupims]", "[npu_only, neupimz]", ["system='neupimz'", "mean neupims?"]),
        ("model.layers: 4", "attention_on: pim", ["system='npu_only'", "has no PIM"]),
        ("[8, 16, 32]", "8", ["grid.workload.batch_size=8", "list"]),
        ("[8, 16, 32]", "[]", ["grid.workload.batch_size=[]", "at least 1"]),
        ("metrics:", "metrix:", ["metrix=", "mean metrics?"]),
        ("dataset: sharegpt", "batch_size: 64", ["workload.batch_size", "base", "grid"]),
        ("  system: [npu_only, neupims]\n", "", ["base.system is missing"]),
        ("name: small", "name: ../small", ["name='../small'"]),
    ],
)
def test_bad_sweep_is_one_line_that_names_file_key_and_value_before_anything_runs(
    file: Path, tmp_path: Path, old: str, new: str, told: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        sweep(edited(file, old, new), tmp_path / "out", workers=1, run_point=fake_that_must_not_run)
    message = str(caught.value)
    assert "\n" not in message
    assert all(text in message for text in [str(file), *told]), message
    assert not (tmp_path / "out").exists()


def test_unknown_sweep_is_told_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"quickstrat: no such sweep file.*mean quickstart\?"):
        read_sweep("quickstrat")


# --- the results ---


def test_table_has_a_row_per_point_in_order_and_the_folder_every_result(file: Path, tmp_path: Path) -> None:
    table = sweep(file, tmp_path / "out", workers=1, run_point=fake)
    assert list(table.columns) == [
        *("point", "status", "error", "system", "workload.batch_size"),
        *("throughput_tokens_per_s", "utilization.npu", "cycles"),
    ]
    points = list(expand(read_sweep(file), ""))
    assert list(table["point"]) == [point.hash for point in points]
    assert list(table["cycles"]) == [800, 1600, 3200] * 2
    assert set(table["status"]) == {"ok"}
    with Reader(tmp_path / "out") as reader:
        assert {row.hash: row.result for row in reader.rows()} == {point.hash: fake(point.config) for point in points}
    definition, stored = load_results(tmp_path / "out")
    assert definition == read_sweep(file)
    pd.testing.assert_frame_equal(stored, table)


def test_inv7_same_bytes_with_one_worker_and_two(file: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        sweep(file, tmp_path / str(workers), workers, run_point=fake_that_fails_at_16)
    stored = []
    for folder in (tmp_path / "1", tmp_path / "2"):
        with Reader(folder) as reader:
            stored.append([row._replace(traceback="") for row in reader.rows()])
    assert stored[0] == stored[1]
    assert (tmp_path / "1/points.csv").read_bytes() == (tmp_path / "2/points.csv").read_bytes()


def test_failing_point_is_recorded_and_the_others_go_on(file: Path, tmp_path: Path) -> None:
    table = sweep(file, tmp_path / "out", workers=1, run_point=fake_that_fails_at_16)
    assert list(table["status"]) == ["ok", "failed", "ok"] * 2
    assert list(table["error"]) == ["", "RuntimeError: a bug", "", "", "the batch does not fit: 16 > 15", ""]
    text = (tmp_path / "out/points.csv").read_text()
    assert ",neupims,32,10.666666666666666,3.2,3200\n" in text, "an integer stays one beside an empty cell"
    traces = read_tracebacks(tmp_path / "out")
    assert list(traces) == [table["point"][1]]
    assert "RuntimeError: a bug" in traces[table["point"][1]]


def test_failed_points_run_again_only_on_request_and_finished_ones_never(file: Path, tmp_path: Path) -> None:
    sweep(file, tmp_path / "out", workers=1, run_point=fake_that_fails_at_16)
    ran = []

    def counted(config: Config) -> dict[str, Any]:
        ran.append((config.system, config.workload.batch_size))
        return fake(config)

    seen: list[Progress] = []
    sweep(file, tmp_path / "out", workers=1, run_point=counted, on_progress=seen.append)
    assert ran == []
    assert seen == [Progress(total=6, reused=6, done=6, failed=2)]
    table = sweep(file, tmp_path / "out", workers=1, run_point=counted, retry_failed=True)
    assert ran == [("npu_only", 16), ("neupims", 16)]
    assert set(table["status"]) == {"ok"}
    assert read_tracebacks(tmp_path / "out") == {}
    sweep(file, tmp_path / "whole", workers=1, run_point=fake)
    assert (tmp_path / "out/points.csv").read_bytes() == (tmp_path / "whole/points.csv").read_bytes()


def test_a_longer_axis_runs_only_the_new_points(file: Path, tmp_path: Path) -> None:
    sweep(file, tmp_path / "out", workers=1, run_point=fake)
    seen: list[Progress] = []
    sweep(edited(file, "[8, 16", "[4, 8, 16"), tmp_path / "out", 1, fake, seen.append)
    assert [(p.reused, p.done, p.total) for p in seen] == [(6, 6, 8), (6, 7, 8), (6, 8, 8)]
    assert seen[1].last == "system=npu_only, workload.batch_size=4"


def test_equal_points_run_once(file: Path, tmp_path: Path) -> None:
    ran = []
    table = sweep(edited(file, "[8, 16, 32]", "[8, 8]"), tmp_path / "out", 1, lambda c: ran.append(c) or fake(c))  # type: ignore[func-returns-value]
    assert len(ran) == 2
    assert len(table) == 4


def test_worker_process_that_dies_fails_only_its_point(file: Path, tmp_path: Path) -> None:
    table = sweep(file, tmp_path / "out", workers=2, run_point=fake_whose_process_dies_at_16)
    assert list(table["status"]) == ["ok", "failed", "ok"] * 2
    assert "worker process died" in table["error"][1]


def test_metric_in_no_result_is_told_and_nothing_is_lost(file: Path, tmp_path: Path) -> None:
    edited(file, "utilization.npu", "utilization.npo")
    with pytest.raises(InputError, match=r"metrics: 'utilization.npo': in no result.*mean utilization.npu\?"):
        sweep(file, tmp_path / "out", workers=1, run_point=fake)
    edited(file, "utilization.npo", "utilization.npu")
    assert len(sweep(file, tmp_path / "out", workers=1, run_point=fake_that_must_not_run)) == 6


def test_interrupted_sweep_keeps_what_has_finished(file: Path, tmp_path: Path) -> None:
    def interrupted(config: Config) -> dict[str, Any]:
        if config.system == "neupims":
            raise KeyboardInterrupt
        return fake(config)

    with pytest.raises(KeyboardInterrupt):
        sweep(file, tmp_path / "out", workers=1, run_point=interrupted)
    assert list(load_results(tmp_path / "out")[1]["workload.batch_size"]) == [8, 16, 32]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_sweep_keeps_finished_points_and_leaves_no_process(file: Path, tmp_path: Path, how: int) -> None:
    out = tmp_path / "out"
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_sweeps import slow_fake\n"
        "from neupims_sim.sweeps import sweep\n"
        "if __name__ == '__main__': sweep(sys.argv[2], sys.argv[3], 2, slow_fake)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(file), str(out)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while count_finished(out) == 0 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)  # the next point is under way
        if how == signal.SIGINT:
            os.killpg(process.pid, how)  # as a terminal does
        else:
            process.kill()
        process.communicate(timeout=30)  # ends when the workers, too, have closed their end
    finished = load_results(out)[1]
    assert list(finished["workload.batch_size"]) == [8]
    ran = []
    table = sweep(file, out, workers=1, run_point=lambda c: ran.append(c.workload.batch_size) or fake(c))  # type: ignore[func-returns-value]
    assert (len(table), sorted(ran)) == (6, [8, 16, 16, 32, 32])


def test_closing_an_execution_does_not_wait_for_points_that_have_not_started() -> None:
    config = load_config("neupims", {"workload.batch_size": 8})
    tasks = (Task(number, config.model_dump_json()) for number in range(100))
    outcomes = execute_in_processes(slow_fake, tasks, workers=2)
    while next(outcomes)[1] is None:
        pass
    start = time.monotonic()
    outcomes.close()
    assert time.monotonic() - start < 10


# --- the command line ---


@pytest.mark.parametrize(("run_point", "code"), [(fake, 0), (fake_that_fails_at_16, 1)])
def test_command_prints_the_table_on_stdout_and_progress_on_stderr(
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    run_point: Any,
    code: int,
) -> None:
    monkeypatch.setattr("neupims_sim.cli.sweep.run_sweep", functools.partial(sweep, run_point=run_point))
    status, out, err = run(capsys, "sweep", file, "--workers", 1, "--out", tmp_path / "out")
    assert status == code
    assert "NeuPIMs" in out
    assert "1000 tokens/s" in out
    assert "[0/6] 0 points stored" in err
    assert ("RuntimeError: a bug" in err) == (code == 1)
    assert run(capsys, "results", tmp_path / "out", "--csv", tmp_path / "copy.csv")[:2] == (0, out)
    assert (tmp_path / "copy.csv").read_bytes() == (tmp_path / "out/points.csv").read_bytes()


def test_results_of_another_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "results", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "not the results folder of a sweep" in err

"""Sweeps under fire: killed processes, full disks, two sweeps on one store, stores of others, clusters that do not answer."""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from cli_cases import run

from neupims_sim.config import Config, load_config
from neupims_sim.errors import InputError
from neupims_sim.simulation import check_fits, simulate
from neupims_sim.sweeps import Progress, load_results, sweep
from neupims_sim.sweeps.cluster import execute_on_cluster
from neupims_sim.sweeps.database import FILE, Store
from neupims_sim.sweeps.store import count_other_code

POINTS = 40
SWEEP = f"""
name: small
base: {{system: neupims, workload.batch_size: 8}}
grid:
  model.layers: [1, 2]
repeats: {POINTS // 2}
metrics: [cycles]
"""
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import test_sweep_faults
from neupims_sim.errors import InputError
from neupims_sim.sweeps import sweep

if __name__ == "__main__":
    options = {"dask": sys.argv[5]} if len(sys.argv) > 5 else {"workers": int(sys.argv[4])}
    try:
        sweep(sys.argv[2], sys.argv[3], run_point=test_sweep_faults.slow, **options)
    except InputError as error:
        sys.exit(str(error))
"""


def fake(config: Config) -> dict[str, Any]:
    return {"cycles": 1000 * config.model.layers + config.seed, "padding": "x" * 500}


def slow(config: Config) -> dict[str, Any]:
    time.sleep(0.03)
    return fake(config)


def kills_its_worker(config: Config) -> dict[str, Any]:
    if config.seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return fake(config)


def kills_its_worker_once(config: Config) -> dict[str, Any]:
    """Seed 3 kills its process where no marker is left from an earlier attempt."""
    marker = Path(os.environ["MARKER"]) / str(config.model.layers)
    if config.seed == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return fake(config)


def must_not_run(config: Config) -> dict[str, Any]:
    raise AssertionError("a finished point runs again")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SWEEP)
    return path


@pytest.fixture
def undisturbed(file: Path, tmp_path: Path) -> bytes:
    """``points.csv`` of a sweep to which nothing happens."""
    sweep(file, tmp_path / "undisturbed", workers=1, run_point=fake)
    return (tmp_path / "undisturbed/points.csv").read_bytes()


def start(file: Path, out: Path, *options: object) -> subprocess.Popen[bytes]:
    """The sweep in a process of its own, with slow points."""
    script = file.with_name("script.py")
    script.write_text(SCRIPT)
    command = [sys.executable, script, Path(__file__).parent, file, out, *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.PIPE)


def finished(out: Path) -> int:
    try:
        return len(load_results(out)[1])
    except InputError:
        return 0


def wait_until_finished(out: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while finished(out) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert finished(out) >= count, process.communicate()[1].decode()


def assert_sound(out: Path) -> None:
    with sqlite3.connect(out / FILE) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    database.close()


def assert_completes(file: Path, out: Path, expected: bytes) -> None:
    """Resuming loses nothing, repeats nothing, and ends as an undisturbed sweep does."""
    assert_sound(out)
    kept = finished(out)
    ran = []
    sweep(file, out, 1, lambda config: ran.append(config.seed) or fake(config))  # type: ignore[func-returns-value]
    assert len(ran) == POINTS - kept
    assert (out / "points.csv").read_bytes() == expected
    assert_sound(out)


# --- processes that die ---


@pytest.mark.parametrize("seed", range(2))
def test_sweep_that_is_killed_at_any_moment_goes_on_where_it_was(
    file: Path, tmp_path: Path, undisturbed: bytes, seed: int
) -> None:
    moments = random.Random(seed)
    out = tmp_path / "out"
    with start(file, out, 2) as process:
        wait_until_finished(out, moments.randrange(1, POINTS // 2), process)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.communicate(timeout=30)  # ends when the workers, too, have closed their end
    assert finished(out) < POINTS
    assert_completes(file, out, undisturbed)


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 2), (signal.SIGHUP, 1)])
def test_signal_that_ends_a_sweep_leaves_its_table_and_one_store(
    file: Path, tmp_path: Path, undisturbed: bytes, number: int, workers: int
) -> None:
    out = tmp_path / "out"
    with start(file, out, workers) as process:
        wait_until_finished(out, 3, process)
        process.send_signal(number)
        process.communicate(timeout=30)
    assert {path.name for path in out.iterdir()} == {"points.csv", "store.sqlite", "sweep.yaml"}
    rows = (out / "points.csv").read_text().splitlines()
    assert len(rows) == 1 + finished(out) >= 4
    assert {path.name for path in out.iterdir()} == {"points.csv", "store.sqlite", "sweep.yaml"}, "reading leaves files"
    assert_completes(file, out, undisturbed)


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGHUP, 129, "SIGHUP"), (signal.SIGINT, 130, "interrupted")],
)
def test_command_that_a_signal_ends_says_so_in_one_line(
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
    told: str,
) -> None:
    def signalled(config: Config) -> dict[str, Any]:
        os.kill(os.getpid(), number)
        time.sleep(1)
        return fake(config)

    monkeypatch.setattr("neupims_sim.cli.sweep.run_sweep", functools.partial(sweep, run_point=signalled))
    status, out, err = run(capsys, "sweep", file, "--workers", 1, "--out", tmp_path / "out")
    assert (status, out) == (code, "")
    assert told in err.splitlines()[-1]
    assert err.splitlines()[-1].endswith("the same command goes on")


def test_signal_that_is_ignored_stays_ignored(file: Path, tmp_path: Path) -> None:
    """As ``nohup`` has it."""
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        sweep(file, tmp_path / "out", 1, lambda config: os.kill(os.getpid(), signal.SIGHUP) or fake(config))  # type: ignore[func-returns-value]
    finally:
        signal.signal(signal.SIGHUP, old)
    assert finished(tmp_path / "out") == POINTS


def test_point_that_kills_its_worker_twice_is_told_as_killed_and_retried_by_name(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    table = sweep(file, out, workers=2, run_point=kills_its_worker)
    assert (
        list(table["error"][table["status"] == "failed"])
        == ["killed: the worker process died 2 times at this point (SIGKILL; out of memory?)"] * 2
    )
    monkeypatch.setattr("neupims_sim.cli.sweep.run_sweep", functools.partial(sweep, run_point=fake))
    code, _, err = run(capsys, "sweep", file, "--workers", 1, "--out", out, "--retry-failed")
    assert code == 0
    assert "failed, runs again: 2 points: killed: " in err
    assert "[model.layers=1, seed=3; model.layers=2, seed=3]" in err
    assert "2 points run, 38 reused, 0 failed" in err


def test_point_whose_worker_is_killed_is_tried_again(
    file: Path, tmp_path: Path, undisturbed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKER", str(tmp_path))
    table = sweep(file, tmp_path / "out", workers=2, run_point=kills_its_worker_once)
    assert set(table["status"]) == {"ok"}
    assert (tmp_path / "2").exists(), "no worker was killed"
    assert (tmp_path / "out/points.csv").read_bytes() == undisturbed
    assert_sound(tmp_path / "out")


@pytest.fixture
def scheduler() -> Iterator[tuple[str, list[int], subprocess.Popen[str]]]:
    """A Dask cluster of two workers in a process of its own: address, process ids of the workers, the process."""
    pytest.importorskip("distributed")
    program = (
        "import sys\n"
        "from distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:\n"
        "        pids = [worker.pid for worker in cluster.workers.values()]\n"
        "        print(cluster.scheduler_address, *pids, flush=True)\n"
        "        sys.stdin.read()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        address, *pids = process.stdout.readline().split()
        yield address, [int(pid) for pid in pids], process
        process.communicate(timeout=30)


def test_points_of_a_dask_worker_that_is_killed_run_on_the_others(
    file: Path, tmp_path: Path, undisturbed: bytes, scheduler: tuple[str, list[int], Any]
) -> None:
    address, pids, _ = scheduler
    out = tmp_path / "out"
    with start(file, out, 0, address) as process:
        wait_until_finished(out, 5, process)
        os.kill(pids[0], signal.SIGKILL)
        message = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 0, message
    assert (out / "points.csv").read_bytes() == undisturbed
    assert_sound(out)


def test_lost_dask_cluster_is_told_and_the_sweep_goes_on_here(
    file: Path, tmp_path: Path, undisturbed: bytes, scheduler: tuple[str, list[int], Any]
) -> None:
    address, _, cluster = scheduler
    out = tmp_path / "out"
    with start(file, out, 0, address) as process:
        wait_until_finished(out, 5, process)
        cluster.kill()
        message = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1
    assert "the scheduler is gone" in message
    assert_completes(file, out, undisturbed)


@pytest.mark.parametrize("error", [CancelledError, ConnectionResetError("reset by peer")], ids=["cancelled", "reset"])
def test_scheduler_that_ends_while_it_is_asked_something_is_told_too(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    pytest.importorskip("distributed")
    client = Mock(nthreads=Mock(side_effect=error), close=Mock(side_effect=error), run=Mock(return_value={}))
    monkeypatch.setattr("neupims_sim.sweeps.cluster._connect", lambda address: client)
    with pytest.raises(InputError, match=r"^--dask tcp://here:1: the scheduler is gone; .*$"):
        list(execute_on_cluster(fake, iter([]), "tcp://here:1"))
    client.close.assert_called_once()


def test_worker_with_other_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    client = Mock(run=Mock(return_value={"tcp://there:2": "0123abcd"}))
    monkeypatch.setattr("neupims_sim.sweeps.cluster._connect", lambda address: client)
    with pytest.raises(
        InputError, match=r"worker tcp://there:2 has code 0123abcd of neupims_sim, this is .*same version"
    ):
        list(execute_on_cluster(must_not_run, iter([]), "tcp://here:1"))
    client.submit.assert_not_called()


def test_worker_with_other_code_that_joins_later_ends_the_sweep(
    monkeypatch: pytest.MonkeyPatch, file: Path, tmp_path: Path, scheduler: tuple[str, list[int], Any]
) -> None:
    monkeypatch.setattr("neupims_sim.sweeps.cluster._check_workers", lambda client, address: None)
    monkeypatch.setattr("neupims_sim.sweeps.cluster.code_version", lambda: "0123abcd")
    with pytest.raises(InputError, match=r"^--dask \S+: .*code.*; install the same version on every worker$"):
        sweep(file, tmp_path / "out", run_point=must_not_run, dask=scheduler[0])


# --- the store ---


def test_second_sweep_on_a_store_is_refused_in_one_line(file: Path, tmp_path: Path, undisturbed: bytes) -> None:
    out = tmp_path / "out"
    with start(file, out, 2) as process:
        wait_until_finished(out, 1, process)
        with pytest.raises(InputError, match=rf"^\S+out: another sweep .*process {process.pid} on .*another --out$"):
            sweep(file, out, workers=1, run_point=must_not_run)
        message = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 0, message
    assert (out / "points.csv").read_bytes() == undisturbed
    assert_sound(out)


def test_store_of_another_version_is_refused_in_one_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    sweep(file, out, workers=1, run_point=fake)
    with sqlite3.connect(out / FILE) as database:
        database.execute("UPDATE meta SET value = '99' WHERE key = 'store_version'")
    database.close()
    for command in (("sweep", file, "--out", out), ("results", out)):
        code, _, err = run(capsys, *command)
        assert (code, err.count("\n")) == (2, 1)
        assert "store of version 99" in err
        assert "version 2" in err


def test_folder_with_a_file_per_point_is_a_store_of_version_1(file: Path, tmp_path: Path) -> None:
    (tmp_path / "out/points").mkdir(parents=True)
    with pytest.raises(InputError, match="a store of version 1"):
        sweep(file, tmp_path / "out", workers=1, run_point=must_not_run)


def test_file_that_is_no_store_is_refused_in_one_line(file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / FILE).write_text("not a database " * 100)
    with pytest.raises(InputError, match=r"^\S+store.sqlite: not the store of a sweep, or damaged.*$"):
        sweep(file, tmp_path / "out", workers=1, run_point=must_not_run)


def test_points_of_other_code_are_told_and_run_again(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for module in ("running", "store"):
        monkeypatch.setattr(f"neupims_sim.sweeps.{module}.code_version", lambda: "0" * 16)
    sweep(file, out, workers=1, run_point=fake)
    assert count_other_code(out) == 0
    monkeypatch.undo()
    assert f"{POINTS} of these points are of other code" in run(capsys, "results", out)[2]
    ran = []
    sweep(file, out, 1, lambda config: ran.append(config.seed) or fake(config))  # type: ignore[func-returns-value]
    assert len(ran) == POINTS
    assert count_other_code(out) == 0


def test_changed_content_of_a_requests_file_is_another_point(tmp_path: Path) -> None:
    requests = tmp_path / "requests.csv"
    requests.write_text("seq_len\n10\n")
    file = tmp_path / "small.yaml"
    file.write_text(f"name: small\nbase: {{system: neupims, workload.requests: {requests}}}\nmetrics: [cycles]\n")
    ran = []
    for content in ("seq_len\n10\n", "seq_len\n20\n", "seq_len\n20\n"):
        if requests.read_text() != content:
            requests.write_text(content)
        sweep(file, tmp_path / "out", 1, lambda config: ran.append(config) or fake(config))  # type: ignore[func-returns-value]
    assert len(ran) == 2


# --- disks that fill up ---


def test_full_disk_is_one_line_and_loses_nothing(file: Path, tmp_path: Path, undisturbed: bytes) -> None:
    """No file may grow further: SQLite sees what it sees on a full disk."""
    out = tmp_path / "out"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = 0

    def fills_the_disk(config: Config) -> dict[str, Any]:
        nonlocal size
        if config.seed == 5:
            size = max(path.stat().st_size for path in out.iterdir())
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
        return fake(config) | {"padding": "x" * 100_000}

    try:
        with pytest.raises(InputError, match=r"^[^\n]*the disk is full or fails[^\n]*the same command goes on$"):
            sweep(file, out, 1, fills_the_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert finished(out) == 5
    assert_completes(file, out, undisturbed)


def test_full_file_system_is_one_line_and_loses_nothing(file: Path, tmp_path: Path, undisturbed: bytes) -> None:
    small = tmp_path / "disk"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted here")
    out = small / "out"
    try:

        def large(config: Config) -> dict[str, Any]:
            return fake(config) | {"padding": "x" * 100_000}

        with pytest.raises(InputError, match=r"^[^\n]*(disk is full|cannot be written)[^\n]*the same command goes on$"):
            sweep(file, out, 1, large)
        kept = finished(out)
        assert 0 < kept < POINTS
        assert_sound(out)
        subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True)
        assert_completes(file, out, undisturbed)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_folder_that_cannot_be_made_is_one_line(file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match=r"^--out \S+out: cannot be written: File exists$"):
        sweep(file, tmp_path / "out", workers=1, run_point=must_not_run)


# --- bad input ---


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("model.layers", "model.layrs", ["point model.layrs=1", "unknown key", "mean layers?"]),
        ("model.layers: [1, 2]", "parallel.tensor: [1, 3]", ["point parallel.tensor=3", "does not divide", "allowed:"]),
    ],
)
def test_bad_axis_is_one_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, told: list[str]
) -> None:
    file.write_text(SWEEP.replace(old, new))
    code, out, err = run(capsys, "sweep", file, "--out", tmp_path / "out")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert all(text in err for text in [str(file.name), *told]), err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://127.0.0.1"])
def test_dask_address_that_does_not_answer_is_one_line_within_seconds(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("neupims_sim.sweeps.cluster.CONNECT_SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(InputError, match=rf"^--dask {address}: no Dask scheduler answers [^\n]*$"):
        sweep(file, tmp_path / "out", run_point=must_not_run, dask=address)
    assert time.monotonic() - start < 10


def test_dask_without_its_package_is_one_line(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"--dask needs the package distributed: pip install 'neupims-sim\[dask\]'"):
        sweep(file, tmp_path / "out", run_point=must_not_run, dask="tcp://127.0.0.1:1")


# --- points that do not fit ---


def test_points_that_do_not_fit_fail_before_any_other_runs_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "s.yaml", tmp_path / "out"
    file.write_text(
        "name: s\nmetrics: [cycles]\nbase: {workload.batch_size: 4, workload.context_tokens: 16}\n"
        "grid:\n  system: [neupims, npu_only, gpu_a100]\n  model.layers: [2, 2000]\n"
    )
    monkeypatch.setattr("neupims_sim.simulation.simulate", lambda config: Mock(to_json=lambda: {"cycles": 1}))
    seen: list[Progress] = []
    table = sweep(file, out, 1, on_progress=seen.append)
    assert list(table["status"]) == ["ok", "failed"] * 3
    assert [progress.done for progress in seen if not progress.stage] == [0, 3, 4, 5, 6]
    (unfit,) = [progress.unfit for progress in seen if progress.unfit]
    assert [failure.place.split(", ")[1] for failure in unfit] == ["model.layers=2000"] * 3
    code, _, err = run(capsys, "sweep", file, "--workers", 1, "--out", tmp_path / "again")
    assert code == 1
    assert err.count("does not fit, the others go on: ") >= 1
    assert "failed: " not in err
    assert (tmp_path / "again/points.csv").read_bytes() == (out / "points.csv").read_bytes()


@pytest.mark.parametrize("system", ["neupims", "npu_only", "npu_pim", "gpu_a100"])
def test_what_the_check_refuses_the_simulation_refuses_alike(system: str) -> None:
    for layers in (1, 2000):
        config = load_config(system, {"model.layers": layers, "workload.batch_size": 4, "workload.context_tokens": 16})
        told = []
        for function in (check_fits, simulate) if layers > 1 else (check_fits,):
            try:
                function(config)
            except InputError as error:
                told.append(str(error))
        assert len(told) == (2 if layers > 1 else 0)
        assert len(set(told)) <= 1


# --- damaged stores ---


def damaged(out: Path, change: str) -> None:
    with sqlite3.connect(out / FILE) as database:
        database.execute(f"UPDATE points SET {change} WHERE id = 3")
    database.close()


@pytest.mark.parametrize(
    "change",
    [
        "result = substr(result, 1, 20)",
        "result = NULL",
        "result = '[1, 2]'",
        "result = CAST(x'7b22ff22' AS TEXT)",
        "config = substr(config, 1, 20), result = ''",
    ],
)
def test_damaged_result_is_told_and_runs_again_and_the_others_stay(
    file: Path, tmp_path: Path, undisturbed: bytes, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    out = tmp_path / "out"
    sweep(file, out, 1, fake)
    damaged(out, change)
    table = load_results(out)[1]
    assert list(table["status"]) == ["ok"] * 2 + ["failed"] + ["ok"] * (POINTS - 3)
    assert table["error"][2].startswith("damaged: the stored result cannot be read (")
    code, shown, err = run(capsys, "results", out)
    assert (code, shown.count("\n") > POINTS - 1) == (0, True)
    assert "failed: model.layers=1, seed=2: damaged: " in err
    notes: list[str] = []
    ran = []
    sweep(
        file,
        out,
        1,
        lambda config: ran.append(config.seed) or fake(config),  # type: ignore[func-returns-value]
        lambda progress: notes.extend(progress.notes),
    )
    assert ran == [2]
    assert len(notes) == 1
    assert notes[0].startswith("damaged in the store, runs again: model.layers=1, seed=2: ")
    assert (out / "points.csv").read_bytes() == undisturbed


def test_result_on_a_damaged_page_is_told_and_the_others_are_read(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sweep(file, out, 1, lambda config: fake(config) | {"padding": f"<{config.seed}>" * 20_000})
    content = bytearray((out / FILE).read_bytes())
    for page in range(0, len(content), 4096):
        if b"<3>" * 1000 in content[page : page + 4096]:
            content[page : page + 4] = b"\xff" * 4  # the number of the page on which the text goes on
    (out / FILE).write_bytes(content)
    table = load_results(out)[1]
    assert 1 <= (table["status"] == "failed").sum() <= 2
    assert (table["status"] == "ok").sum() >= POINTS - 2
    assert set(table["error"]) == {
        "",
        "damaged: the stored result cannot be read (database disk image is malformed); the same sweep runs it again",
    }
    ran = []
    sweep(file, out, 1, lambda config: ran.append(config.seed) or fake(config))
    assert set(ran) == {3}
    assert_sound(out)


# --- files that others put in the way ---


@pytest.mark.parametrize(
    "name", ["store.lock", "store.sqlite", "store.sqlite-wal", "store.sqlite-shm", "store.sqlite-journal"]
)
@pytest.mark.parametrize("target", ["victim", "nowhere"])
def test_symbolic_link_in_the_place_of_a_store_file_is_refused_and_its_target_untouched(
    file: Path, tmp_path: Path, name: str, target: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "victim").write_text("precious")
    (out / name).symlink_to(tmp_path / target)
    with pytest.raises(InputError, match=rf"^[^\n]*{name}[^\n]* is a symbolic link[^\n]*$"):
        sweep(file, out, 1, must_not_run)
    assert (tmp_path / "victim").read_text() == "precious"
    assert {path.name for path in out.iterdir()} == {name}
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["points.csv", "sweep.yaml"])
def test_symbolic_link_in_the_place_of_an_exported_file_is_replaced(file: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "victim").write_text("precious")
    (out / name).symlink_to(tmp_path / "victim")
    sweep(file, out, 1, fake)
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (out / name).is_symlink()


def test_file_with_the_name_of_the_lock_is_neither_written_nor_removed(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "victim").write_text("precious")
    (out / "store.lock").hardlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match=r"store\.lock: not the lock of a sweep; remove it"):
        sweep(file, out, 1, must_not_run)
    assert (tmp_path / "victim").read_text() == (out / "store.lock").read_text() == "precious"


def test_lock_that_a_killed_sweep_has_left_is_taken_over(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "store.lock").write_text("process 1 on elsewhere")
    sweep(file, out, 1, fake)
    assert not (out / "store.lock").exists()


def _locks_often(directory: str) -> int:
    """How often this process got the lock; fails if it had it together with another."""
    got = 0
    marker = Path(directory) / "marker"
    for _ in range(300):
        try:
            with Store(Path(directory)):
                marker.touch(exist_ok=False)
                marker.unlink()
                got += 1
        except InputError as error:
            if "another sweep is writing" not in str(error):
                raise
    return got


def test_lock_has_one_owner_at_a_time_though_its_file_comes_and_goes(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, multiprocessing.get_context("fork")) as pool:
        assert sum(pool.map(_locks_often, [str(tmp_path)] * 3)) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["store.sqlite"]


def test_store_is_free_again_after_its_sweep(tmp_path: Path) -> None:
    for _ in range(2):
        with Store(tmp_path / "out"):
            pass

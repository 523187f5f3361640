"""Run directories: written as a whole or not at all, named after their configuration, listed by ``results``."""

from __future__ import annotations

import ctypes
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_cases import Captured, run

from neupims_sim import writing
from neupims_sim.config import config_hash, dump_config, load_config
from neupims_sim.errors import InputError
from neupims_sim.simulation import directory as module
from neupims_sim.simulation import run_directory
from neupims_sim.writing import replaced_folder

QUICK = ("gpu_a100", "--set", "workload.batch_size=4")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def content(folder: Path | str) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


# --- as a whole ---


def test_a_run_replaces_an_earlier_one_as_a_whole(capsys: Captured) -> None:
    assert run(capsys, "run", *QUICK, "--out", "here")[0] == 0
    Path("here/report.html").write_text("of the earlier run")
    assert run(capsys, "run", *QUICK, "--set", "seed=1", "--out", "here")[0] == 0
    assert set(content("here")) == {"config.yaml", "result.json", "operators.csv", "provenance.json"}
    stored = json.loads(Path("here/result.json").read_text())
    assert stored["config_hash"] == config_hash(load_config("here/config.yaml"))
    assert [path.name for path in Path().iterdir()] == ["here"]


@pytest.mark.parametrize("killed_in", ["environment", "check_run_directory", "_exchange"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_killed_run_leaves_what_was_there(capsys: Captured, killed_in: str, exists: bool) -> None:
    """Not a file of the new run beside one of the old."""
    config = load_config("gpu_a100")
    if exists:
        run(capsys, "run", *QUICK, "--out", "here")
    elif killed_in == "_exchange":
        pytest.skip("nothing to exchange")
    before = content("here")
    child = os.fork()
    if child == 0:
        calls = 0

        def end(*_: object) -> None:
            nonlocal calls
            calls += 1
            if killed_in != "check_run_directory" or calls == 2:  # once before the run, once before it is put in place
                os._exit(77)

        setattr(writing if killed_in == "_exchange" else module, killed_in, end)
        with run_directory(Path("here"), config) as folder:
            (folder / "result.json").write_text("{}")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 77
    assert content("here") == before
    assert Path("here").exists() == exists
    assert run(capsys, "run", *QUICK, "--out", "here")[0] == 0, "the next run is not in the way of what is left"


@pytest.mark.parametrize("system", ["this", "without an exchange", "that refuses it"])
def test_a_folder_is_replaced_on_every_system(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    class Library:
        def renameat2(self, *_: object) -> int:
            return -1

    if system != "this":
        monkeypatch.setattr(ctypes, "CDLL", lambda _: object() if system == "without an exchange" else Library())
    Path("here").mkdir()
    Path("here/old").touch()
    with replaced_folder(Path("here")) as folder:
        (folder / "new").touch()
    assert set(content("here")) == {"new"}
    assert [path.name for path in Path().iterdir()] == ["here"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if target.name == "here" and not self.name.endswith(".old"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    Path("here").mkdir()
    Path("here/old").touch()
    with (
        pytest.raises(InputError, match="here: cannot be written: No space left on device"),
        replaced_folder(Path("here")),
    ):
        pass
    assert set(content("here")) == {"old"}
    assert [path.name for path in Path().iterdir()] == ["here"]


def test_a_link_to_a_directory_stays_a_link(capsys: Captured) -> None:
    Path("there").mkdir()
    Path("link").symlink_to("there")
    assert run(capsys, "run", *QUICK, "--out", "link")[0] == 0
    assert Path("link").is_symlink()
    assert (Path("there") / "result.json").is_file()


def test_a_failure_leaves_no_folder_that_it_has_made() -> None:
    with pytest.raises(RuntimeError), replaced_folder(Path("a/b/c")):
        raise RuntimeError
    assert not list(Path().iterdir())


# --- what is somebody's ---


def notes(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def own_configuration(folder: Path) -> None:
    (folder / "config.yaml").write_text("include: neupims\n")


def saved_configuration(folder: Path) -> None:
    """Of ``config show``: it begins as that of a run does."""
    (folder / "config.yaml").write_text(dump_config(load_config("gpu_a100")))


def folder_of_that_name(folder: Path) -> None:
    (folder / "timeline.json.gz").mkdir()


def own_result(folder: Path) -> None:
    (folder / "result.json").write_text("{}")


def own_folder(folder: Path) -> None:
    (folder / "timeline").mkdir()


@pytest.mark.parametrize(
    "put", [notes, own_configuration, saved_configuration, own_result, own_folder, folder_of_that_name]
)
@pytest.mark.parametrize("beside_a_run", [False, True])
def test_a_folder_with_something_else_is_refused_before_anything_is_simulated(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, put: Callable[[Path], None], beside_a_run: bool
) -> None:
    Path("here").mkdir()
    if beside_a_run:
        if put in (own_configuration, saved_configuration, own_result):
            pytest.skip("that is a run")
        run(capsys, "run", *QUICK, "--out", "here")
    put(Path("here"))
    before = content("here")
    monkeypatch.setattr("neupims_sim.simulation.simulate", lambda *_: pytest.fail("simulated"))
    code, out, err = run(capsys, "run", *QUICK, "--out", "here")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: --out here: holds ")
    assert "name another folder" in err
    assert content("here") == before


def test_what_somebody_puts_there_while_it_runs_stays(capsys: Captured) -> None:
    Path("here").mkdir()
    with (
        pytest.raises(InputError, match=r"here: holds notes\.txt"),
        run_directory(Path("here"), load_config("gpu_a100")),
    ):
        notes(Path("here"))
    assert set(content("here")) == {"notes.txt"}
    assert [path.name for path in Path().iterdir()] == ["here"]


@pytest.mark.parametrize(
    ("out", "words"),
    [
        (".", "within it"),
        ("..", "holds"),
        ("../file", "not a directory"),
        ("../file/below", "cannot be written"),
        ("/proc/x/y", "cannot be written"),
        ("/", "within it"),
    ],
)
def test_a_folder_that_cannot_be_replaced_is_refused_before_anything_is_simulated(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, out: str, words: str
) -> None:
    monkeypatch.setattr("neupims_sim.simulation.simulate", lambda *_: pytest.fail("simulated"))
    Path("file").touch()
    os.mkdir("empty")
    os.chdir("empty")
    code, _, err = run(capsys, "run", *QUICK, "--out", out)
    assert (code, err.count("\n")) == (2, 1)
    assert words in err


# --- names, and the list of runs ---


def test_a_directory_is_named_after_the_configuration(capsys: Captured) -> None:
    Path("mine.yaml").write_text("include: gpu_a100\nworkload: {batch_size: 4}\n")
    code, out, _ = run(capsys, "run", "mine.yaml", "--set", "seed=7")
    assert code == 0
    assert out.startswith("mine (gpu_a100): gpt3-7b, batch 4")
    (directory,) = Path("results").iterdir()
    assert directory.name == f"run-mine-{config_hash(load_config('mine.yaml', {'seed': 7}))}"
    provenance = json.loads((directory / "provenance.json").read_text())
    assert (provenance["configuration"], provenance["overrides"]) == ("mine", ["seed=7"])
    run(capsys, "report", directory)
    assert "<title>mine, " in (directory / "report.html").read_text()
    assert run(capsys, "run", directory / "config.yaml", "--set", "seed=8")[0] == 0
    (again,) = (path for path in Path("results").iterdir() if path != directory)
    assert again.name.startswith("run-mine-")
    assert json.loads((again / "provenance.json").read_text())["overrides"] == ["seed=7", "seed=8"]


def test_results_lists_runs_and_sweeps_with_configuration_date_and_figure(capsys: Captured) -> None:
    assert run(capsys, "results") == (0, "", "no runs or sweeps in results\n")
    run(capsys, "run", *QUICK)
    run(capsys, "run", "gpu_h100", "--set", "workload.batch_size=4", "--out", "results/deeper/one")
    Path("tiny.yaml").write_text("name: tiny\nbase: {system: gpu_a100}\ngrid: {seed: [0, 1]}\n")
    run(capsys, "sweep", "tiny.yaml", "--workers", 1)
    damaged = Path("results/run-bad")
    damaged.mkdir()
    (damaged / "config.yaml").write_text("system: odd\n")
    (damaged / "result.json").write_text("{")
    (damaged / "provenance.json").write_text("[]")
    code, out, err = run(capsys, "results")
    assert (code, err) == (0, "")
    rows = [re.split(r"\s*│\s*", line.strip("│ \n")) for line in out.splitlines() if "results" in line]
    shown = {folder: (configuration, figure) for folder, configuration, _, figure in rows}
    assert len(re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d", out)) == 4
    assert shown["results/deeper/one"][0] == "gpu_h100 --set workload.batch_size=4"
    assert " tokens/s" in shown["results/deeper/one"][1]
    assert shown["results/tiny"] == ("sweep tiny", "2 points")
    assert shown["results/run-bad"][0] == "odd"
    assert shown["results/run-bad"][1].startswith("damaged: result.json")
    assert any(name.startswith("results/run-gpu_a100-") for name in shown)
    assert "throughput" in run(capsys, "results", "results/tiny")[1].lower()
    assert run(capsys, "results", "results/deeper")[1].count("tokens/s") == 1
    code, _, err = run(capsys, "results", "--where", "cycles > 1")
    assert (code, err) == (2, "error: results: --where is about a sweep; name its folder\n")

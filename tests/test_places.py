"""Where named files are looked for, and copies of them to start from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cli_cases import Captured, run

from neupims_sim.config import available, config_hash, load_config, load_memory
from neupims_sim.config.files import KINDS, LENGTHS, places, shipped
from neupims_sim.errors import InputError
from neupims_sim.sweeps import read_sweep
from neupims_sim.sweeps.identity import code_version
from neupims_sim.sweeps.page import find_experiment
from neupims_sim.workloads import load_lengths

ROOT = Path(__file__).parents[1]
COPIES = [(kind, name) for kind in KINDS for name in available(kind)]
LENGTH_TABLE = "percentile,prompt_tokens,output_tokens\n0,10,1\n100,20,9\n"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEUPIMS_SIM_PATH", raising=False)


def put(path: Path | str, text: str) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_folder_of_configs_is_one_that_names_are_looked_for_in() -> None:
    assert {path.name for path in (ROOT / "configs").iterdir()} == set(KINDS)
    assert shipped() == ROOT


@pytest.mark.parametrize("configs", ["", "configs/"], ids=["plain", "with configs"])
def test_folders_of_the_environment_variable_have_every_kind_of_file(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, configs: str
) -> None:
    put(f"one/{configs}systems/mine.yaml", "include: npu_only\nmodel: tiny\nworkload: few\nmemory: slow\nnpu: small\n")
    put(f"one/{configs}models/tiny.yaml", "base: gpt3-7b\nlayers: 2\n")
    put(f"two/{configs}memory/slow.yaml", "base: hbm2\norganization: {channels: 16}\n")
    put(f"two/{configs}npu/small.yaml", "base: neupims_npu\nsystolic: {arrays: 2}\n")
    put(f"two/{configs}workloads/few.yaml", "dataset: brief\nbatch_size: 4\n")
    put(f"two/{configs}presets/guess.yaml", "base: physical\nmapping: {write_kv: false}\n")
    put("two/traces/lengths/brief.csv", LENGTH_TABLE)
    put(f"two/{configs}sweeps/few.yaml", "name: few\nbase: {system: mine}\ngrid: {seed: [0]}\n")
    put("two/experiments/ours/sweep.yaml", "name: ours\n")
    monkeypatch.setenv("NEUPIMS_SIM_PATH", os.pathsep.join([str(Path("one").absolute()), "two"]))
    config = load_config("mine", {"preset": "guess"})
    assert (config.model.layers, config.memory.organization.channels, config.npu.systolic.arrays) == (2, 16, 2)
    assert not config.mapping.write_kv
    assert load_lengths("brief").prompt_tokens.tolist() == [10, 20]
    assert "few" in available("sweeps")
    assert "ours" in available("experiments")
    assert "mine" in run(capsys, "list", "systems")[1]


def test_the_working_directory_wins_over_the_variable_and_the_variable_over_what_is_shipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put("there/models/gpt3-7b.yaml", "base: gpt3-13b\nlayers: 2\n")
    put("later/models/gpt3-7b.yaml", "base: gpt3-13b\nlayers: 3\n")
    monkeypatch.setenv("NEUPIMS_SIM_PATH", os.pathsep.join(["there", "", "later"]))
    assert load_config("npu_only").model.layers == 2
    put("configs/models/gpt3-7b.yaml", "base: gpt3-13b\nlayers: 1\n")
    assert load_config("npu_only").model.layers == 1
    assert places("models")[0] == Path("configs/models").absolute()


def test_a_folder_of_the_variable_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("NEUPIMS_SIM_PATH", "nowhere")
    code, out, err = run(capsys, "config", "show", "npu_only")
    assert (code, out) == (2, "")
    assert err == "error: environment variable NEUPIMS_SIM_PATH: nowhere: no such folder\n"


def test_a_users_file_in_a_folder_of_the_variable_wins_over_the_preset_unless_it_lies_in_a_folder_of_a_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "include: npu_only\nmapping: {write_kv: true}\npreset: asplos24\n"
    monkeypatch.setenv("NEUPIMS_SIM_PATH", ".")
    assert load_config(put("own.yaml", text)).mapping.write_kv
    assert load_config(put("configs/own.yaml", text)).mapping.write_kv
    assert not load_config(put("systems/own.yaml", text)).mapping.write_kv


# --- config new ---


@pytest.mark.parametrize(("kind", "name"), COPIES, ids=lambda value: value)
def test_a_copy_means_what_the_shipped_file_means(capsys: Captured, kind: str, name: str) -> None:
    code, out, err = run(capsys, "config", "new", f"{kind}/{name}")
    assert (code, err) == (0, "")
    copy = Path(f"{name}.yaml")
    assert copy.read_bytes() == (ROOT / "configs" / kind / copy).read_bytes()
    assert out.startswith(f"{copy}: a copy of {kind}/{name}")
    if kind == "systems":
        for preset in available("presets"):
            assert config_hash(load_config(copy, {"preset": preset})) == config_hash(
                load_config(name, {"preset": preset})
            )
    elif kind == "memory":
        assert load_memory(f"./{copy}") == load_memory(name)
    elif kind not in ("presets", "sweeps"):
        assert run(capsys, "config", "check", copy) == (0, f"{copy}: ok\n", "")


def test_a_plain_name_is_enough_and_a_table_of_lengths_needs_its_kind(capsys: Captured) -> None:
    assert run(capsys, "config", "new", "neupims")[1].endswith("use: neupims-sim run neupims.yaml\n")
    assert "--set workload=./alpaca.yaml" in run(capsys, "config", "new", "alpaca")[1]
    assert "traces/lengths/NAME.csv" in run(capsys, "config", "new", f"{LENGTHS}/alpaca")[1]
    assert {path.name for path in Path().iterdir()} == {"neupims.yaml", "alpaca.yaml", "alpaca.csv"}


def test_a_copied_experiment_can_be_run_by_its_folder(capsys: Captured) -> None:
    assert "neupims-sim experiment search" in run(capsys, "config", "new", "vision/search")[1]
    assert sorted(path.name for path in Path("search").iterdir()) == ["README.md", "sweep.yaml"]


@pytest.mark.parametrize("link", [False, True])
def test_nothing_is_overwritten(capsys: Captured, link: bool) -> None:
    copy = Path("neupims.yaml")
    copy.symlink_to("missing") if link else copy.write_text("mine")
    code, out, err = run(capsys, "config", "new", "neupims")
    assert (code, out) == (2, "")
    assert err == "error: config new 'neupims': neupims.yaml exists already; move it away first\n"
    assert not Path("missing").exists()
    Path("vision").mkdir()
    Path("search").mkdir()
    assert run(capsys, "config", "new", "vision/search")[0] == 2


@pytest.mark.parametrize(
    ("name", "near"),
    [("nuepims", "neupims"), ("systems/neupimss", "systems/neupims"), ("fig13_ablaton", "fig13_ablation"), ("", None)],
)
def test_a_name_that_there_is_not_is_one_line(capsys: Captured, name: str, near: str | None) -> None:
    code, out, err = run(capsys, "config", "new", name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert near is None or f"did you mean {near}?" in err
    assert not list(Path().iterdir())


def test_a_name_of_two_kinds_must_be_told_apart(capsys: Captured) -> None:
    put("configs/models/neupims.yaml", "base: gpt3-7b\n")
    code, _, err = run(capsys, "config", "new", "neupims")
    assert code == 2
    assert "there is systems/neupims and models/neupims; say which" in err


# --- experiments by name ---


def test_an_experiment_is_found_by_name_from_anywhere(capsys: Captured) -> None:
    assert find_experiment("fig13_ablation") == (ROOT / "experiments" / "fig13_ablation", False)
    assert (
        find_experiment("experiments/vision/search/")
        == find_experiment("vision/search")
        == (ROOT / "experiments" / "vision" / "search", False)
    )
    shutil.copytree(ROOT / "experiments" / "presets", "experiments/fig13_ablation")
    assert find_experiment("fig13_ablation") == (Path("experiments/fig13_ablation").resolve(), True)
    shutil.copytree(ROOT / "experiments" / "presets", "fig13_ablation")
    assert find_experiment("fig13_ablation") == (Path("fig13_ablation"), True)
    Path("interleaving").mkdir()  # somebody's folder of that name, without a sweep
    assert find_experiment("interleaving")[0] == ROOT / "experiments" / "interleaving"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fig13_ablaton", ["neither a folder nor an experiment", "did you mean fig13_ablation?"]),
        ("vision/serch", ["did you mean vision/search?"]),
        ("a.txt", ["is a file; an experiment is a folder"]),
        ("", ["an experiment is a folder with sweep.yaml"]),
    ],
)
def test_an_experiment_that_there_is_not_is_one_line(capsys: Captured, name: str, words: list[str]) -> None:
    Path("a.txt").touch()
    code, out, err = run(capsys, "experiment", name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert all(word in err for word in words)


def test_a_shipped_experiment_writes_its_page_to_the_results(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site = tmp_path / "site" / "neupims_sim"
    for folder in ("configs", "traces"):
        shutil.copytree(ROOT / folder, site / "shipped" / folder)
    put(site / "shipped/experiments/tiny/sweep.yaml", "name: tiny\nbase: {system: gpu_a100}\ngrid: {seed: [0, 1]}\n")
    put(site / "shipped/experiments/tiny/README.md", "# Tiny\n<!-- tables -->\n<!-- /tables -->\n")
    code_version()  # that of the code, which this process keeps
    monkeypatch.setattr("neupims_sim.__file__", str(site / "__init__.py"))
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    for name in ("tiny", str(site / "shipped/experiments/tiny")):
        shutil.rmtree("results", ignore_errors=True)
        code, out, err = run(capsys, "experiment", name, "--workers", 1)
        assert code == 0, err
        assert "results/tiny/README.md" in out
        assert "2 points" in Path("results/tiny/README.md").read_text()
    assert before == {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}


def test_lists_have_every_kind(capsys: Captured) -> None:
    for kind, name in (("sweeps", "quickstart"), ("experiments", "vision/search"), ("lengths", "alpaca")):
        code, out, _ = run(capsys, "list", kind)
        assert code == 0
        assert name in out


def test_a_missing_sweep_names_what_there_is() -> None:
    with pytest.raises(InputError, match="quickstart"):
        read_sweep("quickstrat")

"""When a stored point is used again: its configuration, the code, and everything else that its run reads are the same."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neupims_sim.config import Config, config_hash, load_config
from neupims_sim.config.files import available
from neupims_sim.config.identity import Dumper
from neupims_sim.config.variations import Variations
from neupims_sim.errors import InputError
from neupims_sim.sweeps import expand, read_sweep, sweep
from neupims_sim.sweeps.modules import files_of_module

Runs = Callable[[], int]

LENGTHS = "percentile,prompt_tokens,output_tokens\n0,10,20\n100,50,{}\n"
MEMORY = """
from neupims_sim.memory.models import IdealMemory

class Mine(IdealMemory):
    pass
"""


def fake(config: Config) -> dict[str, Any]:
    return {"cycles": 1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, the modules in which are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def runs_of(base: str) -> Runs:
    """How many points run of a sweep of one, when it is swept once more."""
    Path("s.yaml").write_text(f"name: s\nbase: {{system: neupims, {base}}}\nmetrics: [cycles]\n")

    def again() -> int:
        ran = []
        sweep("s.yaml", "out", 1, lambda config: ran.append(config) or fake(config))  # type: ignore[func-returns-value]
        return len(ran)

    return again


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(textwrap.dedent(text))


# --- files ---


def test_point_runs_again_when_the_length_table_of_its_dataset_changes(folder: Path) -> None:
    write("traces/lengths/mine.csv", LENGTHS.format(90))
    again = runs_of("workload.dataset: mine")
    assert [again(), again()] == [1, 0]
    write("traces/lengths/mine.csv", LENGTHS.format(95))
    assert [again(), again()] == [1, 0]
    write("traces/lengths/mine.csv", LENGTHS.format(90))
    assert again() == 0, "the results of the first table are still there"


def test_length_table_of_the_user_before_the_shipped_one_of_the_same_name_is_another_point(folder: Path) -> None:
    again = runs_of("workload.dataset: sharegpt")
    assert [again(), again()] == [1, 0]
    write("traces/lengths/sharegpt.csv", LENGTHS.format(90))
    assert [again(), again()] == [1, 0]
    write("traces/lengths/other.csv", LENGTHS.format(90))
    assert again() == 0, "nobody reads that one"


@pytest.mark.parametrize(
    ("base", "file", "before", "after"),
    [
        ("workload.requests: r.csv", "r.csv", "seq_len\n10\n", "seq_len\n20\n"),
        ("workload: {name: t, kind: trace, path: t.jsonl}", "t.jsonl", "{}\n", "{} \n"),
    ],
)
def test_point_runs_again_when_a_file_that_its_configuration_names_changes(
    folder: Path, base: str, file: str, before: str, after: str
) -> None:
    write(file, before)
    again = runs_of(base)
    assert [again(), again()] == [1, 0]
    write(file, after)
    assert [again(), again()] == [1, 0]


# --- modules ---


def package() -> None:
    """A memory model in a package of several modules, which uses one beside it and a file of data."""
    write("mine/__init__.py", "")
    write("mine/memory.py", f"from mine.tables import LATENCY\nimport helpers\n{MEMORY}")
    write("mine/tables.py", "LATENCY = 1\n")
    write("mine/late.py", "X = 1\n")
    write("mine/data/table.json", "{}")
    write("helpers.py", "def read():\n    import deeper\n    return open('numbers.txt').read()\n")
    write("deeper.py", "Y = 1\n")
    write("numbers.txt", "1 2 3")
    write("unrelated.py", "Z = 1\n")


@pytest.mark.parametrize(
    ("file", "runs"),
    [
        ("mine/memory.py", 1),
        ("mine/tables.py", 1),
        ("mine/late.py", 1),
        ("mine/data/table.json", 1),
        ("helpers.py", 1),
        ("deeper.py", 1),
        ("numbers.txt", 1),
        ("unrelated.py", 0),
    ],
)
def test_point_runs_again_when_anything_of_a_plug_in_changes(folder: Path, file: str, runs: int) -> None:
    package()
    again = runs_of("memory.model: 'mine.memory:Mine'")
    assert [again(), again()] == [1, 0]
    write(file, Path(file).read_text() + "\n")
    assert [again(), again()] == [runs, 0]


def test_modules_of_a_plug_in_are_its_package_and_what_it_imports_from_outside_the_installation(folder: Path) -> None:
    package()
    sys.path.append(str(folder))
    found = {path.relative_to(folder.resolve()).as_posix() for path in files_of_module("mine.memory")}
    assert found == {
        *("mine/__init__.py", "mine/memory.py", "mine/tables.py", "mine/late.py", "mine/data/table.json"),
        *("helpers.py", "deeper.py", "numbers.txt"),
    }
    assert files_of_module("neupims_sim.memory.models") == files_of_module("no_such_module") == []


def test_policy_of_ones_own_counts_as_a_memory_model_does(folder: Path) -> None:
    write(
        "mine.py",
        "import numpy as np\ndef assign(context_tokens, loads, channels, rows, room):\n    return np.zeros(8, int)\n",
    )
    again = runs_of("workload.batch_size: 8, scheduling.channel_assignment: 'mine:assign'")
    assert [again(), again()] == [1, 0]
    write("mine.py", Path("mine.py").read_text() + "# changed\n")
    assert [again(), again()] == [1, 0]


def test_changed_plug_in_is_imported_anew_in_the_same_process(folder: Path) -> None:
    write("mine.py", f"{MEMORY}    LATENCY = 10\n")
    seen = []

    def look(config: Config) -> dict[str, Any]:
        from neupims_sim.memory import MEMORY_MODELS

        seen.append(MEMORY_MODELS[config.memory.model].LATENCY)  # type: ignore[attr-defined]
        return fake(config)

    Path("s.yaml").write_text("name: s\nbase: {system: neupims, memory.model: 'mine:Mine'}\nmetrics: [cycles]\n")
    for latency in (10, 2000, 2000):
        write("mine.py", f"{MEMORY}    LATENCY = {latency}\n")
        sweep("s.yaml", "out", 1, look)
    assert seen == [10, 2000]


# --- configurations that differ in values only ---


def test_points_of_all_shipped_sweeps_are_what_loading_each_on_its_own_gives() -> None:
    files = [*available("sweeps").values(), *(path / "sweep.yaml" for path in available("experiments").values())]
    assert len(files) > 5
    for file in files:
        definition = read_sweep(file).quick_form()
        for point in expand(definition, ""):
            assert point.hash == config_hash(point.config)
            assert json.loads(point.dumped.text) == point.config.model_dump(mode="json")


KEYS: dict[str, st.SearchStrategy[Any]] = {
    "system": st.sampled_from(["neupims", "npu_only", "npu_pim", "gpu_a100"]),
    "preset": st.sampled_from(["physical", "asplos24"]),
    "model": st.sampled_from(["gpt3-7b", "gpt3-13b", "llama-3-8b"]),
    "seed": st.integers(-1, 3),
    "model.layers": st.integers(-1, 8),
    "model.heads": st.sampled_from([32, 40, 7]),
    "parallel.tensor": st.sampled_from([1, 2, 3, 4]),
    "parallel.pipeline": st.sampled_from([1, 2]),
    "workload.batch_size": st.sampled_from([8, 64, 0, "many"]),
    "workload.context_tokens": st.sampled_from([None, 100]),
    "memory": st.sampled_from(["hbm2", "hbm3", "ddr4"]),
    "memory.organization.channels": st.sampled_from([16, 32]),
    "memory.timing.tRCD": st.sampled_from([10, "14 ns"]),
    "memory.organization.clock_ghz": st.sampled_from([0.8, 1.0]),
    "scheduling.interleaving": st.sampled_from(["off", "lockstep", "of"]),
    "npu.systolic.arrays": st.sampled_from([1, 8]),
    "attention_on": st.sampled_from(["npu", "pim"]),
    "simulation.snapshots": st.sampled_from([1, 2]),
}


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_variations_load_what_load_config_does_and_refuse_it_alike(data: st.DataObject) -> None:
    variations, dumper = Variations(), Dumper()
    keys = data.draw(st.lists(st.sampled_from(list(KEYS)), max_size=6, unique=True), "keys")
    for _ in range(3):
        overrides = {key: data.draw(KEYS[key], key) for key in keys}
        system = overrides.pop("system", "neupims")
        try:
            expected: Config | str = load_config(system, overrides)
        except InputError as error:
            expected = str(error)
        try:
            loaded: Config | str = variations.load(system, overrides)
        except InputError as error:
            loaded = str(error)
        assert loaded == expected
        if isinstance(loaded, Config):
            assert dumper.dump(loaded).hash == config_hash(loaded)


def test_ten_thousand_points_are_expanded_without_reading_a_file_for_each(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("s.yaml").write_text(
        "name: s\nbase: {system: neupims}\nmetrics: [cycles]\n"
        "grid: {workload.batch_size: {range: [1, 100, 1]}, seed: {range: [0, 99, 1]}}\n"
    )
    definition, read = read_sweep("s.yaml"), []
    original = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, *args, **options: read.append(path) or original(path, *args, **options)
    )  # type: ignore[func-returns-value]
    assert sum(1 for _ in expand(definition, "")) == 10_000
    assert len(read) < 100
    assert os.getcwd() == str(folder)

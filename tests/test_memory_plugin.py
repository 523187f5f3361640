"""Memories of other packages: how they are found, the example package, and the page that explains it."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from cli_cases import Captured, run

from neupims_sim.cli import main
from neupims_sim.config import available, load_memory
from neupims_sim.config.files import label
from neupims_sim.errors import InputError
from neupims_sim.memory import MEMORY_MODELS
from neupims_sim.memory.models import IdealMemory

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "memory_plugin"
PAGE = ROOT / "docs" / "extending-memory.md"

SMALL = ["--set", "model.layers=2", "--set", "workload.batch_size=8", "--set", "model.d_model=1024"]
SMALL += ["--set", "model.heads=8", "--set", "model.d_ff=4096", "--set", "parallel.tensor=1"]


# --- the example package ---


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip has installed the example into, without a network."""
    source, target = tmp_path_factory.mktemp("source") / "memory_plugin", tmp_path_factory.mktemp("installed")
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))  # pip builds in the folder
    options = [
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
        "--target",
        str(target),
    ]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *options, str(source)], check=True)
    return target


@pytest.fixture
def example(installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The example as if it were installed here; the working folder is empty."""
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.chdir(tmp_path)
    return installed


def test_an_installed_package_brings_tables_that_have_names(example: Path, capsys: Captured) -> None:
    assert available("memory")["ddr3"] == example / "example_memories" / "configs" / "memory" / "ddr3.yaml"
    assert load_memory("ddr3", overrides={"speed": "1866M"}).timing["tRCD"] == 13
    code, output, _ = run(capsys, "memory", "list", "--json")
    listed = json.loads(output)
    assert code == 0
    assert listed["ddr3"]["peak_gbps"] == pytest.approx(4 * 12.8)
    assert listed["cxl"]["model"] == "cxl"
    assert listed["cxl"]["capacity_gib"] == 256


def test_the_class_of_an_installed_package_is_imported_when_it_is_named(example: Path, capsys: Captured) -> None:
    assert MEMORY_MODELS["cxl"].__module__ == "example_memories.cxl"
    assert "cxl" in MEMORY_MODELS
    assert list(MEMORY_MODELS) == sorted(MEMORY_MODELS)
    _, output, _ = run(capsys, "list", "policies", "--json")
    assert {"command", "cxl", "ideal"} <= set(json.loads(output)["memory.model"])


@pytest.mark.parametrize("memory", ["ddr3", "cxl"])
def test_the_example_memories_conform(example: Path, capsys: Captured, memory: str) -> None:
    code, output, _ = run(capsys, "memory", "check", memory, "--json")
    assert code == 0
    assert json.loads(output)["passed"]


def test_a_full_simulation_runs_on_both_memories(example: Path, capsys: Captured) -> None:
    results = {}
    for memory in ("ddr3", "cxl"):
        code, output, _ = run(capsys, "run", "npu_only", "--set", f"memory={memory}", *SMALL, "--out", memory, "--json")
        assert code == 0
        results[memory] = json.loads(output)
        assert 0 < results[memory]["utilization"]["bandwidth"] <= 1
    assert results["ddr3"]["traffic_bytes"]["read"] == results["cxl"]["traffic_bytes"]["read"] > 0
    assert results["cxl"]["cycles"] < results["ddr3"]["cycles"], "120 GB/s of reads against 51"


def test_the_latency_of_the_link_is_the_tables(example: Path, capsys: Captured) -> None:
    cycles = []
    for latency in (320, 32_000):
        options = ["--set", "memory=cxl", "--set", f"memory.timing.tLINK={latency}", *SMALL]
        cycles.append(
            json.loads(run(capsys, "run", "npu_only", *options, "--out", f"{latency}", "--json")[1])["cycles"]
        )
    assert cycles[1] > cycles[0] + 2 * (32_000 - 320) // 8


def test_the_tests_of_the_example_pass_in_a_process_of_their_own(installed: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_the_project_does_not_install_its_examples() -> None:
    assert "neupims_sim*" in (ROOT / "setup.cfg").read_text()
    assert not list(EXAMPLE.parent.glob("**/neupims_sim*"))


# --- discovery ---


def install(folder: Path, name: str, entry_points: str, files: dict[str, str] | None = None) -> None:
    """What pip leaves of a package: its files, its metadata and its entry points."""
    information = folder / f"{name}-1.2.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (information / "entry_points.txt").write_text(entry_points)
    for path, text in (files or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder where packages can be installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    modules = set(sys.modules)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for module in set(sys.modules) - modules:
        del sys.modules[module]


MODELS = "[neupims_sim.memory_models]\n"
CONFIGS = "[neupims_sim.configs]\n"


def test_an_unknown_model_is_told_the_nearest_name_of_all_packages(site: Path) -> None:
    install(site, "fancy", MODELS + "reram = fancy:ReRam\n")
    with pytest.raises(InputError, match=r"unknown memory model 'reran'; allowed: .*command.*; did you mean reram\?"):
        MEMORY_MODELS["reran"]
    with pytest.raises(InputError, match=r"did you mean command\?$"):
        MEMORY_MODELS["comand"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"cannot be imported: ModuleNotFoundError: No module named 'fancy'"),
        ("import no_such_library\n", r"cannot be imported: ModuleNotFoundError: No module named 'no_such_library'"),
        ("1 / 0\n", r"cannot be imported: ZeroDivisionError"),
        ("", r"cannot be imported: AttributeError: .*'ReRam'"),
        ("class ReRam:\n    pass\n", r"is not a subclass of neupims_sim\.memory\.MemoryModel"),
        ("def ReRam():\n    pass\n", r"is not a subclass of neupims_sim\.memory\.MemoryModel"),
        (
            "from neupims_sim.memory import MemoryModel\n\nclass ReRam(MemoryModel):\n    pass\n",
            r"does not implement transfer; see neupims_sim\.memory\.MemoryModel",
        ),
    ],
)
def test_a_model_that_cannot_be_used_names_its_package(site: Path, text: str | None, message: str) -> None:
    install(site, "fancy", MODELS + "reram = fancy:ReRam\n", {} if text is None else {"fancy.py": text})
    with pytest.raises(InputError, match=r"^memory\.model='reram' \(fancy:ReRam of package fancy 1\.2\) " + message):
        MEMORY_MODELS["reram"]
    with pytest.raises(InputError, match=r"^memory\.model='fancy:ReRam' " + message):
        MEMORY_MODELS["fancy:ReRam"]
    assert "reram" in list(MEMORY_MODELS), "a package that fails does not disturb the others"


def test_a_name_that_two_packages_offer_is_refused(site: Path) -> None:
    for name in ("fancy", "plain"):
        install(site, name, MODELS + f"reram = {name}:ReRam\n")
    with pytest.raises(InputError, match=r"'reram' is offered by fancy and plain; name one as package\.module:name"):
        MEMORY_MODELS["reram"]


def test_no_package_can_change_what_a_shipped_name_means(site: Path) -> None:
    files = {"fancy/configs/memory/ideal.yaml": "base: hbm2\n", "fancy/__init__.py": "1 / 0\n"}
    install(site, "fancy", MODELS + "ideal = fancy:Ideal\n" + CONFIGS + "fancy = fancy.configs\n", files)
    assert MEMORY_MODELS["ideal"] is IdealMemory
    assert load_memory("ideal").model == "ideal"


def test_the_tables_of_a_package_are_found_without_importing_it(site: Path) -> None:
    files = {"fancy/configs/memory/reram.yaml": "base: hbm2\nname: ReRAM\n", "fancy/__init__.py": "1 / 0\n"}
    install(site, "fancy", CONFIGS + "fancy = fancy.configs\n", files)
    assert load_memory("reram").name == "ReRAM"
    with pytest.raises(InputError, match=r"did you mean reram\?"):
        load_memory("rerom")


def test_a_users_own_file_wins_over_that_of_a_package(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "fancy", CONFIGS + "fancy = fancy\n", {"fancy/memory/reram.yaml": "base: hbm2\nname: theirs\n"})
    assert load_memory("reram").name == "theirs"
    (tmp_path / "configs" / "memory").mkdir(parents=True)
    (tmp_path / "configs" / "memory" / "reram.yaml").write_text("base: hbm2\nname: mine\n")
    monkeypatch.chdir(tmp_path)
    assert load_memory("reram").name == "mine"
    assert label(available("memory")["reram"]) == str(Path("configs", "memory", "reram.yaml"))


@pytest.mark.parametrize("value", ["fancy.config", "fency.configs"])
def test_a_package_whose_folder_is_missing_is_named(site: Path, value: str) -> None:
    install(site, "fancy", CONFIGS + f"mine = {value}\n", {"fancy/configs/memory/reram.yaml": "base: hbm2\n"})
    with pytest.raises(InputError, match=rf"package fancy: entry point 'mine' in group .*: no folder '{value}'"):
        available("memory")


# --- the page ---


def snippets() -> list[tuple[str, str]]:
    """(language, text) of every fenced block of the page."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_page_is_short() -> None:
    assert len(PAGE.read_text().splitlines()) < 150


def test_every_snippet_of_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written, commands run and their output compared, in order, in a folder that was empty."""
    monkeypatch.chdir(tmp_path)
    languages = []
    for language, text in snippets():
        languages.append(language)
        if language == "console":
            for command, expected in commands(text):
                output = shell(command, monkeypatch)
                assert re.fullmatch(expected, output), f"{command}\n{output}"
        elif language == "toml":
            shipped = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
            assert tomllib.loads(text)["project"]["entry-points"] == shipped["project"]["entry-points"]
        else:
            path = Path(text.splitlines()[0].removeprefix("# "))
            assert path.suffix == {"python": ".py", "yaml": ".yaml"}[language]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    assert set(languages) == {"console", "python", "toml", "yaml"}


def test_the_page_and_the_example_agree(tmp_path: Path, example: Path) -> None:
    """The table of the page is that of the package, which has more comments, a page of power figures and a name for its grade."""
    written = next(text for _, text in snippets() if text.startswith("# configs/memory/ddr3.yaml"))
    (tmp_path / "ddr3.yaml").write_text(written)
    same = {"organization", "timing", "constraints"}
    for overrides in ({}, {"speed": "1866M"}):
        ours, packed = (load_memory(name, overrides=overrides) for name in (tmp_path / "ddr3.yaml", "ddr3"))
        assert ours.model_dump(include=same) == packed.model_dump(include=same)


def commands(text: str) -> Iterator[tuple[str, str]]:
    """(command, pattern of its output) of a console block, where ``...`` stands for anything."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        lines = output.rstrip("\n").split("\n")
        pattern = "".join("(?s:.*)" if line == "..." else _pattern(line) + "\n" for line in lines)
        yield command, pattern


def _pattern(line: str) -> str:
    return ".*".join(re.escape(part) for part in line.split("...")) + " *"


def shell(command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command of the page prints; neupims-sim runs in this process, which is quicker."""
    words = shlex.split(command)
    if words[0].startswith("PYTHONPATH="):
        monkeypatch.syspath_prepend(words.pop(0).removeprefix("PYTHONPATH="))
    if words[0] != "neupims-sim":
        paths = os.pathsep.join([".", str(ROOT)])
        words[0] = {"python": sys.executable}[words[0]]
        return subprocess.run(
            words, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=True
        ).stdout
    output = io.StringIO()
    with pytest.raises(SystemExit), redirect_stdout(output), redirect_stderr(output):
        main(words[1:])
    return output.getvalue()

"""The wheel and the source distribution: what pip installs runs in an empty folder, and the sources have everything for the tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def tracked() -> list[str]:
    """Files of the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    if not (ROOT / ".git").exists():  # in an unpacked source distribution
        pytest.skip("needs the repository")
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and a source distribution of the repository, made from a copy of its files."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    program = "import sys, setuptools.build_meta as b; out = sys.argv[1]; b.build_wheel(out); b.build_sdist(out)"
    subprocess.run([sys.executable, "-c", program, out], cwd=source, capture_output=True, text=True, check=True)
    return out


@pytest.fixture(scope="module")
def site(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an installation of the wheel has, and nobody may change."""
    site = tmp_path_factory.mktemp("site")
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return site


def test_the_wheel_has_every_configuration_length_table_and_experiment(site: Path) -> None:
    shipped = site / "neupims_sim" / "shipped"
    found = {path.relative_to(shipped).as_posix() for path in shipped.rglob("*") if path.is_file()}
    here = set(tracked())
    assert {name for name in here if name.startswith(("configs/", "traces/"))} <= found
    assert {name for name in here if name.startswith("experiments/") and name.endswith("sweep.yaml")} <= found
    assert found <= here


def test_the_source_distribution_has_every_file_of_the_repository(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
    assert set(tracked()) <= packed


def test_an_installed_wheel_runs_in_an_empty_folder_and_is_not_written_to(site: Path, tmp_path: Path) -> None:
    """Without compiled code here; ``.ci/run`` installs the wheel and simulates."""
    program = """
import json, sys
from neupims_sim.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as stop:
        assert not stop.code, arguments
"""
    commands = [
        ["list", "systems"],
        ["list", "experiments"],
        ["config", "show", "npu_only"],
        ["config", "new", "gpu_a100"],
        ["run", "gpu_a100.yaml"],
        ["memory", "list"],
        ["trace", "llm", "npu_only", "-o", "trace.jsonl"],
        ["sweep", "tiny.yaml", "--workers", "1"],
        ["plot", "results/tiny"],
        ["report", "results/tiny"],
    ]
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\nbase: {system: gpu_a100}\ngrid: {workload.batch_size: [8, 16]}\n"
        "plot: {kind: lines, x: workload.batch_size, y: throughput_tokens_per_s}\n"
    )
    before = snapshot(site)
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, json.dumps(commands)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site), "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for word in ("neupims", "npu_pim", "vision/search", "clock_ghz", "hbm3_pim_dual", "throughput"):
        assert word in done.stdout
    assert str(site) in done.stdout  # the files that `list` shows
    assert (tmp_path / "results" / "tiny" / "report.html").is_file()
    assert snapshot(site) == before


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

"""Compiled functions are kept in files; whatever happens to the files, the function does what its source says."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numba
import pytest

from neupims_sim import compiling

SOURCE = """
from neupims_sim.compiling import kept
from kernel_constants import SCALE, PAIR

@kept()
def inner(x):
    return SCALE * x + PAIR[1]

@kept(error_model="numpy")
def outer(x):
    return inner(x) + 1
"""


class Kernel:
    """A module with two compiled functions, loaded anew every time, as a new process would."""

    def __init__(self, folder: Path, log: pytest.LogCaptureFixture) -> None:
        self.folder, self.log = folder, log
        self.write(SOURCE)
        self.constants(SCALE=3, PAIR=(0, 10))

    def write(self, source: str) -> None:
        (self.folder / "kernel.py").write_text(source)

    def constants(self, **values: object) -> None:
        module = ModuleType("kernel_constants")
        vars(module).update(values)
        sys.modules["kernel_constants"] = module

    def __call__(self, x: int = 5) -> tuple[int, list[str]]:
        """``outer(x)``, and what is said meanwhile."""
        for memory in (compiling._told, compiling._damaged, compiling._known_folders):
            memory.cache_clear() if hasattr(memory, "cache_clear") else memory.clear()  # type: ignore[attr-defined]
        self.log.clear()
        spec = importlib.util.spec_from_file_location("kernel", self.folder / "kernel.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["kernel"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.outer(x), [record.getMessage() for record in self.log.records if record.name == "neupims_sim"]

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.rglob("*.nbc"))


@pytest.fixture
def kernel(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    folder = tmp_path / "package"
    folder.mkdir()
    yield Kernel(folder, caplog)
    sys.modules.pop("kernel", None)
    sys.modules.pop("kernel_constants", None)


def test_the_first_run_says_that_it_compiles_and_the_second_loads(kernel: Kernel) -> None:
    value, lines = kernel()
    assert value == 26
    assert len(lines) == 1
    assert lines[0].startswith("compiling, once, which takes up to a minute; kept in ")
    assert lines[0].endswith(str(kernel.folder / "__pycache__"))
    files = {path: path.stat().st_mtime_ns for path in kernel.files}
    assert sorted(path.name.partition("-")[0] for path in files) == ["kernel.inner", "kernel.outer"]
    assert kernel() == (26, [])
    assert {path: path.stat().st_mtime_ns for path in kernel.files} == files


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def flipped(path: Path) -> None:
    """One bit of the machine code, which pickle would not notice."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def checksum_alone(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:32])


def other_pickle(path: Path) -> None:
    """Well formed, but not what Numba has written."""
    content = pickle.dumps(("a", "b"))
    path.write_bytes(compiling.hashlib.sha256(content).digest() + content)


def folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage", [truncated, empty, garbage, flipped, checksum_alone, other_pickle, folder_in_its_place]
)
def test_a_damaged_file_is_told_once_and_compiled_again(kernel: Kernel, damage: Callable[[Path], None]) -> None:
    kernel()
    for path in kernel.files:
        damage(path)
    value, lines = kernel()
    assert value == 26
    assert len(lines) == 1
    assert " is damaged; compiling, once" in lines[0]
    assert kernel() == (26, []), "compiled elsewhere where the file cannot be replaced"


@pytest.mark.parametrize("change", ["source", "constant", "tuple", "numba", "python"])
def test_code_of_another_version_is_not_used(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    kernel()
    before = kernel.files
    expected = 26
    if change == "source":
        kernel.write(SOURCE.replace("+ 1", "+ 2"))
        expected = 27
    elif change == "constant":
        kernel.constants(SCALE=4, PAIR=(0, 10))
        expected = 31
    elif change == "tuple":
        kernel.constants(SCALE=3, PAIR=(0, 20))
        expected = 36
    elif change == "numba":
        monkeypatch.setattr(numba, "__version__", "0.1")
    else:
        monkeypatch.setattr(sys.implementation, "cache_tag", "cpython-999")
    value, lines = kernel()
    assert (value, len(lines)) == (expected, 1)
    assert len(kernel.files) == (4 if change == "python" else 2), "of one Python only the newest files stay"
    assert not set(before) <= set(kernel.files) or change == "python"
    assert kernel() == (expected, [])


def test_a_package_that_cannot_be_written_has_its_code_in_a_folder_of_the_user(kernel: Kernel, tmp_path: Path) -> None:
    (kernel.folder / "__pycache__").touch()  # a folder cannot be made there
    value, lines = kernel()
    assert value == 26
    assert f"kept in {tmp_path / 'caches' / 'neupims_sim'}" in lines[0]
    assert len(list((tmp_path / "caches" / "neupims_sim").rglob("*.nbc"))) == 2
    assert kernel() == (26, [])


@pytest.mark.parametrize("home", ["file", "missing"])
def test_without_any_folder_it_still_runs(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    (kernel.folder / "__pycache__").touch()
    (tmp_path / "file").touch()
    monkeypatch.delenv("XDG_CACHE_HOME")
    if home == "file":
        monkeypatch.setenv("HOME", str(tmp_path / "file"))
    else:
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    for _ in range(2):
        value, lines = kernel()
        assert value == 26
        assert len(lines) == 1
        assert "and every time, for it cannot be kept: NUMBA_CACHE_DIR may name a folder" in lines[0]


def test_numba_cache_dir_is_the_place_if_it_can_be_written(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "chosen"))
    assert f"kept in {tmp_path / 'chosen'}" in kernel()[1][0]
    assert len(list((tmp_path / "chosen").rglob("*.nbc"))) == 2
    assert kernel() == (26, [])
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/dev/null/x")
    assert kernel() == (26, []), "what is beside the source will do"


def test_a_full_disk_does_not_stop_it(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert kernel()[0] == 26
    assert not kernel.files
    assert not [path for path in (kernel.folder / "__pycache__").iterdir() if path.name.startswith(".")]


def test_the_line_is_on_stderr_and_of_several_workers_one_says_it(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "kernel_constants.py").write_text("SCALE, PAIR = 3, (0, 10)\n")
    (tmp_path / "main.py").write_text(
        "import multiprocessing, os\n"
        "def work(number):\n"
        "    os.environ['NUMBA_CACHE_DIR'] = f'{os.path.dirname(__file__)}/{number}'\n"
        "    import kernel\n"
        "    assert kernel.outer(5) == 26\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    workers = [context.Process(target=work, args=(number,)) for number in range(2)]\n"
        "    [worker.start() for worker in workers]\n"
        "    [worker.join() for worker in workers]\n"
        "    print([worker.exitcode for worker in workers])\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(kernel.folder), *sys.path])}
    command = [sys.executable, str(tmp_path / "main.py")]
    for said in (1, 0):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == "[0, 0]\n"
        assert done.stderr.count("\n") == done.stderr.count("compiling, once") == said


def test_threads_compile_as_one(kernel: Kernel) -> None:
    kernel()
    module = sys.modules["kernel"]
    values: list[float] = []
    threads = [threading.Thread(target=lambda: values.append(module.outer(1.5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == [15.5] * 4

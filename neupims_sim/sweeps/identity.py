"""What a stored result depends on besides its configuration: the simulator's code, and the files that the configuration names."""

from __future__ import annotations

import hashlib
import inspect
from functools import cache, lru_cache
from pathlib import Path

import neupims_sim
from neupims_sim.config import Config, TraceFileConfig, WorkloadConfig
from neupims_sim.memory.models import MEMORY_MODELS


@cache
def code_version() -> str:
    """16 hexadecimal digits of the SHA-256 of the package's Python files, as they were when this process first asked."""
    root = Path(neupims_sim.__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def inputs_version(config: Config) -> str:
    """The same of the files that a configuration names: requests, trace, the module of somebody's memory model. "" without any."""
    digests = [_file_version(path, path.stat().st_mtime_ns) for path in _inputs(config)]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16] if digests else ""


def _inputs(config: Config) -> list[Path]:
    workload, files = config.workload, list[Path]()
    if isinstance(workload, WorkloadConfig) and workload.requests is not None:
        files.append(Path(workload.requests))
    if isinstance(workload, TraceFileConfig):
        files.append(Path(workload.path))
    model = MEMORY_MODELS[config.memory.model]
    source = None if model.__module__.split(".")[0] == neupims_sim.__name__ else inspect.getsourcefile(model)
    return files if source is None else [*files, Path(source)]


@lru_cache(maxsize=1024)
def _file_version(path: Path, modified_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

"""What a stored result depends on besides its configuration: the simulator's code, and whatever a run reads beyond it.

That is every file that the configuration names (requests, traces), the length table of its dataset, and the modules of policies
and memory models that are not ours (`neupims_sim.sweeps.modules`). YAML files count by the configuration that they resolve to.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from operator import attrgetter
from pathlib import Path

import neupims_sim
from neupims_sim.config import Config
from neupims_sim.config.files import LENGTHS, available
from neupims_sim.simulation import POLICIES
from neupims_sim.sweeps.modules import files_of_module, forget_changed

_FULL_NAME = re.compile(r"(\w+(?:\.\w+)*):[\w.]*")
"""``package.module:name``."""


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


class Inputs:
    """The inputs of many configurations. Every file is read once: make a new one to see what has changed."""

    def __init__(self) -> None:
        self._files: dict[str, list[Path]] = {}
        """Of every text of a configuration that has been seen."""
        self._digests: dict[Path, str] = {}
        self._lengths = available(LENGTHS)

    def version(self, config: Config, texts: Iterable[tuple[str, str]]) -> str:
        """16 hexadecimal digits of the SHA-256 of all that a run reads; "" if it reads nothing.

        ``texts``: every text in the configuration with its key.
        """
        files: dict[Path, None] = {}
        for key, text in texts:
            files |= dict.fromkeys(self._files_of(key, text))
        for key, registry in POLICIES.items():
            module = registry.module(attrgetter(key)(config))
            files |= dict.fromkeys(self._files_of(key, f"{module}:") if module else ())
        if not files:
            return ""
        digests = sorted(f"{'/'.join(path.parts[-2:])} {self._digest(path)}" for path in files)
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]

    def _files_of(self, key: str, text: str) -> list[Path]:
        """The files that a text in a configuration stands for: it names one, a dataset, or a module."""
        known = f"{key}={text}" if key == "dataset" else text
        if known not in self._files:
            module = _FULL_NAME.fullmatch(text)
            if key == "dataset" and text in self._lengths:
                self._files[known] = [self._lengths[text]]
            elif module is not None:
                self._files[known] = files_of_module(module[1])
                forget_changed({path: self._digest(path) for path in self._files[known]})
            else:
                self._files[known] = [Path(text)] if _is_file(text) else []
        return self._files[known]

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            try:
                self._digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:  # whoever needs it will say so
                self._digests[path] = type(error).__name__
        return self._digests[path]


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name
        return False

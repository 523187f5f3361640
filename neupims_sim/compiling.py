"""Functions that Numba compiles, and the files in which they are kept, so that only the first run waits for it.

Numba's own files (``cache=True``) are trusted blindly, and only changes of the function's source file make them obsolete. Here a
file has a checksum in front: one that is damaged is compiled again, which is told; and its name says what it was compiled from:
source file, constants of the module (imported ones too), signature, processor, versions of Numba and Python.

Files lie beside the source as Python's own compiled files do, or, where nothing can be written there, in a folder of the user;
NUMBA_CACHE_DIR names another one. Where nothing can be written at all, every process compiles.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import pickle
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numba
from numba import njit
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

SUFFIX = ".nbc"
PATH_VARIABLE = "NUMBA_CACHE_DIR"
"""The environment variable with the folder in which Numba keeps compiled code, if the user says so."""

_DIGEST = hashlib.sha256().digest_size
"""Bytes of the checksum that a file begins with."""

_logger = logging.getLogger("neupims_sim")
_told: set[str] = set()
"""What this process has said; it says nothing twice."""
_damaged: list[Path] = []
"""Files that this process could not use."""


def kept(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: a function that is compiled at its first call (`numba.njit` with ``options``), or loaded from its file."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = njit(**options)(function)
        dispatcher._cache = _Files(function)  # as njit(cache=True) does with Numba's own
        return dispatcher

    return decorate


class _Files:
    """The files of one function, one per signature. The methods are those that Numba calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._source = Path(function.__code__.co_filename)

    @property
    def cache_path(self) -> str:
        return str(self._source.parent / "__pycache__")

    def flush(self) -> None:
        """Forget everything; nobody needs that here."""

    def load_overload(self, signature: Any, target: Any) -> Any:
        """What was compiled for a signature; None if it has to be compiled, which is told."""
        target.refresh()
        with _told_only(f"{self._name}: compiled code cannot be looked for"):
            name = self._file_name(signature, target.codegen())
            for path in (folder / name for folder in _folders(self._source)):
                content = _read(path)
                if content is None:
                    continue
                try:
                    return CompileResult._rebuild(target, *pickle.loads(content))
                except Exception:  # well written, but by something else
                    _damaged.append(path)
        _tell_compiling(_folders(self._source))
        return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep what was compiled, in the first folder in which that is possible."""
        if compiled.library.has_dynamic_globals:  # addresses of this process
            return
        with _told_only(f"{self._name}: compiled code cannot be kept"):
            name = self._file_name(signature, compiled.codegen)
            content = dumps(compiled._reduce())
            for folder in _folders(self._source):
                if _write(folder / name, content):
                    self._remove_obsolete(folder)
                    return

    @cached_property
    def _name(self) -> str:
        """``engine.advance-cpython-311``: one function, and the Python that runs it."""
        return f"{self._source.stem}.{self._function.__qualname__}-{sys.implementation.cache_tag}"

    @cached_property
    def _version(self) -> str:
        """Of everything that the function is compiled from, but for its signature and the processor.

        The constants are those of the whole module when a function is first called, for functions of the module are compiled
        into each other.
        """
        constants = {
            name: value
            for name, value in vars(sys.modules[self._function.__module__]).items()
            if _is_constant(value) and not name.startswith("__")
        }
        parts = numba.__version__, hashlib.sha256(self._source.read_bytes()).hexdigest(), sorted(constants.items())
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def _file_name(self, signature: Any, codegen: Any) -> str:
        key = hashlib.sha256(repr((signature, codegen.magic_tuple())).encode()).hexdigest()[:16]
        return f"{self._name}-{self._version}-{key}{SUFFIX}"

    def _remove_obsolete(self, folder: Path) -> None:
        """Delete what other versions of the function have left."""
        for path in folder.glob(f"{self._name}-*{SUFFIX}"):
            if not path.name.startswith(f"{self._name}-{self._version}-"):
                with suppress(OSError):
                    path.unlink()


def _is_constant(value: object) -> bool:
    """Whether Numba compiles a global into a function as it is."""
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    return isinstance(value, int | float | str | bytes)


def _folders(source: Path) -> list[Path]:
    """Where compiled code of a source file may lie, the place that is preferred first."""
    return _known_folders(source.parent, os.environ.get(PATH_VARIABLE), os.environ.get("XDG_CACHE_HOME"))


@cache
def _known_folders(parent: Path, chosen: str | None, caches: str | None) -> list[Path]:
    unique = f"{parent.name}_{hashlib.sha256(os.fsencode(parent)).hexdigest()[:16]}"
    folders = [parent / "__pycache__"]
    with suppress(RuntimeError):  # there is no home
        folders.append(Path(caches or Path.home() / ".cache").absolute() / "neupims_sim" / unique)
    if not chosen:
        return folders
    folder = Path(chosen).absolute() / unique
    return [folder] if _is_writable(folder) else [folder, *folders]


def _read(path: Path) -> bytes | None:
    """The content behind the checksum of a file; None if there is none that can be trusted."""
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        stored = b""
    content = stored[_DIGEST:]
    if hashlib.sha256(content).digest() == stored[:_DIGEST]:
        return content
    _damaged.append(path)
    return None


def _write(path: Path, content: bytes) -> bool:
    """Write a file as a whole, its checksum in front; False if that is not possible."""
    temporary = path.with_name(f".{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _is_writable(folder: Path) -> bool:
    trial = folder / f".{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError:
        return False
    return True


def _tell_compiling(folders: list[Path]) -> None:
    """Say, once, that it takes a while, and where the compiled code will be."""
    if "compiling" in _told:
        return
    folder = next((folder for folder in folders if _is_writable(folder)), None)
    why = f"{_damaged[0]} is damaged; " if _damaged else ""
    if folder is None:
        text = f"compiling, which takes up to a minute, and every time, for it cannot be kept: {PATH_VARIABLE} may name a folder for it"
    else:
        text = f"compiling, once, which takes up to a minute; kept in {folder}"
    _tell("compiling", why + text)


@contextmanager
def _told_only(problem: str) -> Iterator[None]:
    """Whatever goes wrong with files of compiled code, there is still the source."""
    try:
        yield
    except Exception as error:
        _tell("problem", f"{problem}: {type(error).__name__}: {' '.join(str(error).split())}")


def _tell(subject: str, text: str) -> None:
    """A line on stderr, unless the program that uses this package has other plans with its log; of several processes one says it."""
    if subject in _told:
        return
    _told.add(subject)
    if multiprocessing.parent_process() is None or multiprocessing.current_process().name.endswith("-1"):
        _logger.warning("%s", text)

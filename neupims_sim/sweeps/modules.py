"""The files that somebody else's module consists of: its package, what these modules import, and what they name.

Found in the source, without running it, so that it is the same in every process and before a run as after it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import neupims_sim

OWN = neupims_sim.__name__
"""Our modules have a digest of their own."""
MAX_DATA_BYTES = 64 * 2**20
"""Larger files of a package that are not Python are left out."""
_IMPORTERS = ("import_module", "__import__")


def files_of_module(name: str) -> list[Path]:
    """The files of a dotted module, sorted.

    All of its top-level package (data, too), the modules outside the Python installation that they import, wherever in them, and files
    that a text in them names, relative to the working directory or to the module. Empty for a module of ours, and for none.
    """
    found: set[Path] = set()
    _add(name.partition(".")[0], found, set(), named=True)
    return sorted(found)


_known: dict[Path, str] = {}
"""Digests of the files of somebody else's modules, as this process last saw them."""


def forget_changed(digests: Mapping[Path, str]) -> None:
    """Let modules whose files have changed since this process last saw them be imported anew when they are named again.

    All that ``digests`` has are forgotten then, for they may hold names of each other.
    """
    changed = any(_known.get(path, digest) != digest for path, digest in digests.items())
    _known.update(digests)
    if not changed:
        return
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is not None and file.endswith(".py") and Path(file).resolve() in digests:
            del sys.modules[name]


def _add(package: str, found: set[Path], seen: set[str], named: bool = False) -> None:
    """Add the files of a top-level package, and of those that it imports; of the installation only one that is ``named``."""
    if package in seen or package == OWN or package in sys.stdlib_module_names:
        return
    seen.add(package)
    for path in _files(package, named):
        if path in found:
            continue
        found.add(path)
        if path.suffix == ".py":
            imported, texts = _contents(path)
            found |= {file for text in texts for file in _named_files(text, path.parent)}
            for other in imported:
                _add(other, found, seen)


def _files(package: str, named: bool) -> Iterator[Path]:
    try:
        spec = find_spec(package)
    except (ImportError, ValueError, AttributeError):
        return
    if spec is None:
        return
    if spec.submodule_search_locations is None:
        places = [Path(spec.origin)] if spec.origin is not None and Path(spec.origin).is_file() else []
    else:
        places = [Path(location) for location in spec.submodule_search_locations]
    for place in map(Path.resolve, places):
        if not named and _is_installed(place.parent):
            continue
        for path in [place] if place.is_file() else place.rglob("*"):
            hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(place).parts)
            if not hidden and path.is_file() and (path.suffix == ".py" or path.stat().st_size <= MAX_DATA_BYTES):
                yield path


@cache
def _is_installed(folder: Path) -> bool:
    """Whether the packages in a folder have been installed there, rather than written."""
    return folder.name in ("site-packages", "dist-packages") or any(folder.glob("*.dist-info"))


def _contents(path: Path) -> tuple[set[str], set[str]]:
    """Top-level names of what a module imports, and the texts in it that may name a file."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return set(), set()
    imported, texts = set[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            imported.add(node.module)
        elif isinstance(node, ast.Call) and node.args and _called(node.func) in _IMPORTERS:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                imported.add(name.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) < 1000:
            texts.add(node.value)
    return {name.partition(".")[0] for name in imported if not name.startswith(".")}, texts


def _called(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _named_files(text: str, folder: Path) -> Iterator[Path]:
    for path in (Path(text), folder / text):
        try:
            if path.is_file():
                yield path.resolve()
        except (OSError, ValueError):
            continue

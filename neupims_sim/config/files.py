"""Where named files lie, how a name finds one, and what a file says.

A root is a folder with a folder per kind of file (``memory``, ``systems``, ...). Roots of the user come first: ``./configs`` and
the folders in the environment variable NEUPIMS_SIM_PATH (each of them may have a ``configs`` folder instead); then what the
program ships; then what installed packages offer under the entry-point group ``neupims_sim.configs`` (its value is the dotted
name of a package folder). The first root with a name wins. ``experiments`` and ``traces/lengths`` may lie beside ``configs``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import neupims_sim
from neupims_sim.config import yaml_text
from neupims_sim.errors import InputError, shown, suggestion

PLUGIN_GROUP = "neupims_sim.configs"
"""Entry points that name a configuration root within an installed package."""

PATH_VARIABLE = "NEUPIMS_SIM_PATH"
"""The environment variable with folders of the user, separated as in PATH."""

KINDS = ("systems", "models", "memory", "npu", "workloads", "presets", "sweeps")
"""Folders of a root; what lies in them are YAML files."""
EXPERIMENTS, LENGTHS = "experiments", "traces/lengths"
BESIDE = (EXPERIMENTS, LENGTHS)
"""Folders that may also lie beside ``configs``."""


def shipped() -> Path:
    """The folder of ``configs``, ``traces`` and ``experiments``: within an installed package, beside one in its repository."""
    package = Path(neupims_sim.__file__).resolve().parent
    inside = package / "shipped"
    return inside if inside.is_dir() else package.parent


def roots(beside: bool = False) -> list[Path]:
    """Roots that exist, the one that wins first; with ``beside`` also the folders in which ``configs`` lies."""
    ours = [shipped() / "configs", *([shipped()] if beside else []), *_plugin_roots(tuple(sys.path))]
    return _existing([*_user_roots(beside), *ours])


def places(kind: str) -> list[Path]:
    """The folders that hold what can be named of one kind (``"systems"``, ``"traces/lengths"``, ...), the one that wins first."""
    return _existing(root / kind for root in roots(kind in BESIDE))


def is_users(path: Path, kind: str) -> bool:
    """Whether something that can be named lies in a folder of the user, rather than in what somebody has installed."""
    return any(path.is_relative_to(place) for place in _existing(root / kind for root in _user_roots(kind in BESIDE)))


def _user_roots(beside: bool) -> list[Path]:
    folders = [root for folder in _user_folders() for root in (folder / "configs", folder)]
    return [Path.cwd() / "configs", *([Path.cwd()] if beside else []), *folders]


def _existing(folders: Iterable[Path]) -> list[Path]:
    return list(dict.fromkeys(folder.resolve() for folder in folders if folder.is_dir()))


def _user_folders() -> list[Path]:
    """The folders in NEUPIMS_SIM_PATH; raises InputError if one is missing."""
    stated = os.environ.get(PATH_VARIABLE, "").split(os.pathsep)
    folders = [Path(os.path.expanduser(text)) for text in stated if text]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"environment variable {PATH_VARIABLE}: {label(folder)}: no such folder")
    return folders


@cache
def _plugin_roots(search_path: tuple[str, ...]) -> tuple[Path, ...]:
    """The roots of installed packages, in order of the entry points' names. ``search_path`` is where these are looked for."""
    entries = entry_points(group=PLUGIN_GROUP)
    return tuple(_plugin_root(entry) for entry in sorted(entries, key=lambda entry: entry.name))


def _plugin_root(entry: EntryPoint) -> Path:
    """The folder that an entry point names, found without importing anything of the package."""
    package, *folders = entry.value.split(".")
    spec = find_spec(package)
    for location in (spec and spec.submodule_search_locations) or ():
        root = Path(location, *folders)
        if root.is_dir():
            return root.resolve()
    owner = f"package {entry.dist.name}" if entry.dist else "an installed package"
    raise InputError(
        f"{owner}: entry point {entry.name!r} in group {PLUGIN_GROUP}: no folder {entry.value!r}; "
        "it must be the dotted name of a folder within the package"
    )


def library_folder(path: Path) -> str | None:
    """``"systems"`` for a file in a folder of systems that names are looked for in, and so on; None for a user's own file."""
    folder = path.parent.resolve()
    return folder.name if folder.name in KINDS and folder in places(folder.name) else None


def available(kind: str) -> dict[str, Path]:
    """What can be named of one kind, by name: files by their stem, experiments (folders) by their path in ``experiments``."""
    found: dict[str, Path] = {}
    for place in reversed(places(kind)):
        if kind == EXPERIMENTS:
            folders = [file.parent for pattern in ("*", "*/*") for file in place.glob(f"{pattern}/sweep.yaml")]
            found |= {folder.relative_to(place).as_posix(): folder for folder in folders}
        else:
            found |= {path.stem: path for path in place.glob("*.csv" if kind == LENGTHS else "*.yaml")}
    return dict(sorted(found.items()))


def find_named(folder: str, name: str, directory: Path, where: str) -> Path:
    """The file that ``name`` means: a stem in ``folder``, or a path (relative to ``directory``).

    Raises InputError, starting with ``where`` (file and key), if there is none.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = directory / os.path.expanduser(name)
        if not os.path.isfile(path):
            raise InputError(f"{where}: no such file (looked in {label(directory)})")
        return path
    files = available(folder)
    if name not in files:
        raise InputError(f"{where}: no such file in configs/{folder}; {suggestion(name, files)}")
    return files[name]


def find_include(name: str, including: Path) -> Path:
    """The file that an ``include`` means: a path relative to the including file, ``folder/stem`` in a root, or a system."""
    bases = [including.parent, *(base for root in roots() for base in (root, root / "systems"))]
    for base in bases:
        for path in (base / name, base / f"{name}.yaml"):
            if os.path.isfile(path):
                return path
    raise InputError(
        f"{label(including)}: include={name!r}: no such file; give a path relative to this file, or folder/stem in configs; "
        f"systems {suggestion(name.removeprefix('systems/'), available('systems'))}"
    )


def label(path: Path) -> str:
    """A path as messages show it: relative to the working directory if it lies below."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file (empty if the file is)."""
    return parse_yaml(read_text(path, yaml_text.MOST_CHARACTERS), label(path))


def read_text(path: Path, most: int = 2**30) -> str:
    """The text of a file in UTF-8, with or without byte order mark; raises InputError if there is none.

    ``most``: characters that are read of it at most, and one more, for which whoever has this bound refuses it.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read(most + 1)
    except UnicodeDecodeError:
        raise InputError(f"{label(path)}: cannot be read: not UTF-8 text") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise InputError(f"{label(path)}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """The mapping in a text; messages start with ``source``."""
    tree = yaml_text.parse(text, source)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError(f"{source}: holds {shown(tree)}, a mapping of keys to values is needed")
    return dict(tree)

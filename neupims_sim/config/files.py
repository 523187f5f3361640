"""Where configuration files lie, how a name finds one, and how YAML is read.

A configuration root is a folder with a folder per kind of file (``memory``, ``systems``, ...): ``./configs`` (if it exists), the
``configs`` folder beside the package, and what installed packages offer under the entry-point group
``neupims_sim.configs`` (its value is the dotted name of a package folder). The first wins.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Hashable, Mapping, Sequence
from functools import cache, lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

import neupims_sim
from neupims_sim.errors import InputError, suggestion

PLUGIN_GROUP = "neupims_sim.configs"
"""Entry points that name a configuration root within an installed package."""

_BOOL_TAG = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    """YAML with the booleans of version 1.2 (``off`` is a word, as in ``interleaving: off``), and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            if isinstance(key.value, str) and key.tag != "tag:yaml.org,2002:merge":
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag not in (_BOOL_TAG, "tag:yaml.org,2002:timestamp")]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL_TAG, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def roots() -> list[Path]:
    """Configuration roots that exist, the one that wins first."""
    own = (Path.cwd() / "configs", Path(neupims_sim.__file__).resolve().parents[1] / "configs")
    found = [root.resolve() for root in own if root.is_dir()]
    return list(dict.fromkeys([*found, *_plugin_roots(tuple(sys.path))]))


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
    """``"systems"`` for a file in the ``systems`` folder of a root, and so on; None for a user's own file."""
    for root in roots():
        if path.resolve().is_relative_to(root):
            return path.resolve().relative_to(root).parts[0]
    return None


def available(folder: str) -> dict[str, Path]:
    """Files of one folder of the roots (``"systems"``, ``"models"``, ...), by stem."""
    found: dict[str, Path] = {}
    for root in reversed(roots()):
        found |= {path.stem: path for path in sorted((root / folder).glob("*.yaml"))}
    return dict(sorted(found.items()))


def find_named(folder: str, name: str, directory: Path, where: str) -> Path:
    """The file that ``name`` means: a stem in ``folder``, or a path (relative to ``directory``).

    Raises InputError, starting with ``where`` (file and key), if there is none.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = directory / name
        if not path.is_file():
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
            if path.is_file():
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
    return parse_yaml(read_text(path), label(path))


def read_text(path: Path) -> str:
    """The text of a file; raises InputError if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{label(path)}: cannot be read: {_one_line(error)}") from error


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """The mapping in a text; messages start with ``source``."""
    try:
        tree = _parsed(text)
    except yaml.YAMLError as error:
        raise InputError(f"{source}: {_yaml_problem(error)}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError(f"{source}: holds {_shown(tree)}, a mapping of keys to values is needed")
    return _string_keys(tree)


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    """What a YAML text says. Parsing dominates the loading of a configuration, and a sweep loads the same few files often."""
    return yaml.load(text, _Loader)


def parse_overrides(overrides: Sequence[str] | Mapping[str, Any]) -> list[tuple[tuple[str, ...], Any]]:
    """``["a.b=1 MiB"]`` or ``{"a.b": "1 MiB"}`` as key paths and values, names of files before details of their content.

    So ``model.layers=2`` holds on top of ``model=gpt3-13b`` in either order; of two values of one key the later wins.
    """
    pairs: list[tuple[str, Any]] = []
    if isinstance(overrides, Mapping):
        pairs = list(overrides.items())
    elif isinstance(overrides, str):
        raise TypeError("overrides is a sequence of 'key=value' strings or a mapping, not one string")
    else:
        for text in overrides:
            key, equals, value = text.partition("=")
            if not equals:
                raise InputError(f"--set {text!r}: write key=value, e.g. model.layers=2")
            try:
                pairs.append((key.strip(), yaml.load(value, _Loader)))
            except yaml.YAMLError as error:
                raise InputError(f"--set {key.strip()}={value!r}: {_yaml_problem(error)}") from error
    parsed = []
    for key, value in pairs:
        parts = tuple(key.split("."))
        if not all(parts):
            raise InputError(f"--set {key!r}: an empty key; write e.g. model.layers=2")
        parsed.append((parts, _string_keys(value) if isinstance(value, Mapping) else value))
    return sorted(parsed, key=lambda item: len(item[0]) - (item[0][-1] == "base"))


def _string_keys(tree: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): _string_keys(value) if isinstance(value, Mapping) else value for key, value in tree.items()}


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}: {problem}" if mark and problem else f"not valid YAML: {_one_line(error)}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

"""From YAML files, a preset and overrides to one typed tree.

Every source of values is a `Layer`. Layers are sorted by precedence, merged key by key, and validated; because the
layers stay at hand, an error can name the file that stated the value. From weakest to strongest:

1. the named files of ``npu``, ``memory``, ``model`` and ``workload`` (a ``base`` before the file that builds on it),
   and the ``parallel`` degrees that a model file suggests;
2. files of the configuration folders (``configs/systems/*.yaml`` and what they include, later includes win);
3. the preset: first what the memory file states for it under ``presets``, then ``configs/presets/<preset>.yaml``,
   then its ``by_system`` entries for the systems included above;
4. the user's own files, that is files outside the configuration folders (an including file wins over the included);
5. overrides (``--set``).

A preset therefore wins over what a shipped system says, and everything that users write themselves wins over the preset.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from neupims_sim.config.checks import violations
from neupims_sim.config.effects import Ineffective, ineffective
from neupims_sim.config.explain import explain
from neupims_sim.config.files import (
    available,
    find_include,
    find_named,
    label,
    library_folder,
    read_yaml,
)
from neupims_sim.config.memory import MemoryConfig, TimingError
from neupims_sim.config.memory_checks import memory_violations
from neupims_sim.config.overrides import Override, Overrides, parse_overrides, source_of
from neupims_sim.config.presets import preset_chain, read_preset
from neupims_sim.config.schema import (
    Config,
    ImagesConfig,
    ModelConfig,
    NpuConfig,
    ResnetConfig,
    RetrievalConfig,
    TraceFileConfig,
    VitConfig,
    WorkloadConfig,
)
from neupims_sim.errors import MOST_PROBLEMS, IneffectiveKeyWarning, InputError, joined, shown, suggestion

Tree = dict[str, Any]
Rank = Literal["named", "library", "preset", "user", "set"]
Schema = TypeVar("Schema", bound=BaseModel)
Model = TypeVar("Model", ModelConfig, VitConfig, ResnetConfig)

NAMED_SECTIONS: dict[str, str] = {"npu": "npu", "memory": "memory", "model": "models", "workload": "workloads"}
"""Sections whose value may be the name of a file, and the folder of these files."""
PRESET_SECTIONS = ("organization", "timing", "controller", "pim", "power")
"""What a memory file may state per preset; timing rows are chosen by their ``when`` tags instead."""
SPEED_SECTIONS = ("organization", "timing", "command_cycles", "power")
"""What a memory file may state per speed grade."""
_SECTION_SCHEMAS: dict[str, tuple[type[BaseModel], ...]] = {
    "npu": (NpuConfig,),
    "memory": (MemoryConfig,),
    "model": (ModelConfig, VitConfig, ResnetConfig),
    "workload": (WorkloadConfig, ImagesConfig, RetrievalConfig, TraceFileConfig),
}
"""The schemas that a section may have, the default first; :data:`_TAGS` says which it is."""
_TAGS = {"model": "family", "workload": "kind"}
_RANKS: tuple[Rank, ...] = ("named", "library", "preset", "user", "set")
DEFAULT_PRESET = "physical"
MOST_IN_A_ROW = 20
"""Of files, each of which builds on the next."""
MOST_INCLUDED = 100
"""Files that one file includes, and those that they include."""


def load_config(path_or_stem: str | Path, overrides: Overrides = ()) -> Config:
    """The resolved, validated configuration of one run.

    Parameters
    ----------
    path_or_stem: a YAML file, or the stem of a file in ``configs/systems`` (``"neupims"``).
    overrides: ``["model.layers=2", ...]``, as ``--set`` takes them, or ``{"model.layers": 2, ...}``. They win over everything.

    A file may ``include`` others: paths relative to itself, or ``folder/stem`` below ``configs``. ``npu``, ``memory``,
    ``model`` and ``workload`` are each a name (a stem in their folder, or a path), a mapping on top of the name given by
    a weaker source, a mapping with ``base: name``, or a complete table with a ``name`` of its own. A new name or table
    drops what weaker sources, other than the preset, set in that section. Rows of ``memory.constraints`` in a file are
    appended to those below it; overrides replace the table.

    Precedence, weakest first: named files, shipped systems and their includes, the preset, the user's own files,
    overrides (see the module's docstring). ``preset`` is taken from the strongest source that states it.

    Raises
    ------
    InputError: one line with the source, the key path, the value, what is allowed and the nearest valid name; of several errors
        each with a number. Also for an override whose
        place another statement has taken (``workload.batch_size`` beside ``workload.requests``).

    Warns
    -----
    IneffectiveKeyWarning: of a key of the overrides, or of the user's file, that changes nothing for this system, with the reason.
    """
    config, unused = load_telling(path_or_stem, overrides)
    for one in unused:
        warnings.warn(f"{one.source} {one.text}", IneffectiveKeyWarning, stacklevel=2)
    return config


def load_telling(path_or_stem: str | Path, overrides: Overrides = ()) -> tuple[Config, list[Ineffective]]:
    """:func:`load_config`, and the keys that change nothing in place of warnings."""
    tree, layers, source = resolve(path_or_stem, overrides)
    for section in _TAGS:
        if section in tree:
            tree[section] = _validated_section(section, tree[section], layers, source)
    config = _validated(Config, tree, layers, source)
    _refuse(violations(config), layers, source)
    who, unused = source_of(overrides), ineffective(config, parse_overrides(overrides))
    if contradicting := [f"{who}: {one.text}" for one in unused if one.contradicts]:
        raise InputError(joined(contradicting))
    own = ineffective(config, _own_settings(layers, source))
    return config, [*(one._replace(source=f"{source}:") for one in own), *(one._replace(source=who) for one in unused)]


def _own_settings(layers: Iterable[Layer], source: str) -> list[Override]:
    """What the file of this name states itself, if it is a user's and not a complete configuration."""
    return [
        Override((key,), value)
        for layer in layers
        if layer.rank == "user" and layer.source == source
        if not all(_is_complete(layer.tree.get(section, {})) for section in NAMED_SECTIONS)
        for key, value in layer.tree.items()
    ]


def resolve(
    path_or_stem: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> tuple[Tree, list[Layer], str]:
    """What :func:`load_config` validates: the merged tree, the layers that it comes from, and the name of the first source."""
    path = _config_path(path_or_stem)
    stated = [*_read_files(path, ()), *_override_layers(overrides)]
    stated = [Layer(label(path), {"system": path.stem}, "named", path.parent), *sorted(stated, key=_precedence)]
    preset = _preset_name(stated)
    layers = sorted([*stated, *_preset_layers(preset, _system_names(stated))], key=_precedence)
    for section in NAMED_SECTIONS:
        layers = _resolve_section(layers, section, preset, default_name=path.stem)
    layers += _located_files(layers)
    if _merged(layers).get("workload", {}).get("kind", "llm") != "llm":  # what a language model suggests is for itself
        layers = [_without(layer, "parallel") if layer.rank == "named" else layer for layer in layers]
    return _merged(layers), layers, label(path)


def load_section(
    section: str,
    name_or_path: str | Path,
    preset: str = DEFAULT_PRESET,
    overrides: Overrides = (),
) -> BaseModel:
    """One of the named sections alone (``"npu"``, ``"memory"``, ``"model"``, ``"workload"``).

    ``overrides`` are relative to the section (``controller.row_hit_cap=1``). Of a preset only what a memory file states
    for it applies.
    """
    if not isinstance(section, str) or section not in NAMED_SECTIONS:
        raise InputError(f"section {shown(section)}: no such section; {suggestion(str(section), NAMED_SECTIONS)}")
    if not isinstance(preset, str) or preset not in available("presets"):
        raise InputError(
            f"preset={shown(preset)}: no such file in configs/presets; {suggestion(str(preset), available('presets'))}"
        )
    name = _path_text(name_or_path)
    layers = [Layer("", {section: name}, "library", Path.cwd())]
    for layer in _override_layers(overrides):
        layers.append(replace(layer, tree={section: layer.tree}, depth=1))
    layers = _resolve_section(layers, section, preset, default_name=name)
    loaded = _validated_section(section, _merged(layers)[section], layers, name)
    if isinstance(loaded, MemoryConfig):
        _refuse(memory_violations(loaded, preset), layers, name)
    return loaded


def load_memory(name_or_path: str | Path, preset: str = DEFAULT_PRESET, overrides: Overrides = ()) -> MemoryConfig:
    """A memory alone, with the assumptions that its file states for ``preset``."""
    memory = load_section("memory", name_or_path, preset, overrides)
    assert isinstance(memory, MemoryConfig)
    return memory


def load_model(name_or_path: str | Path, family: type[Model]) -> Model:
    """A model alone; raises InputError unless it is of the ``family``."""
    model = load_section("model", name_or_path)
    if isinstance(model, family):
        return model
    known = [name for name in available("models") if isinstance(load_section("model", name), family)]
    raise InputError(f"model={name_or_path} is of another family; {suggestion(str(name_or_path), known)}")


def check_file(path: str | Path) -> list[tuple[BaseModel, str]]:
    """Validate any file of the configuration folders, or a user's own of the same kind; raises InputError.

    Returns what it amounts to, each with the preset that it was loaded for.

    The kind is that of the folder it lies in (a memory file is checked under every preset and speed grade that it
    states, a preset with every system); elsewhere it is told from the keys.
    """
    path = Path(_path_text(path))
    if not os.path.isfile(path):
        raise InputError(f"{label(path)}: no such file")
    tree = read_yaml(path)
    if path.parent.name == "presets":
        known = available("presets").get(path.stem)
        if known is None or not known.samefile(path):
            raise InputError(f"{label(path)}: a preset is found in a configs/presets folder only; put the file there")
        return [(load_config(system, {"preset": path.stem}), path.stem) for system in available("systems")]
    section = _section_of(path, tree)
    if section is None:
        config = load_config(path)
        return [(config, config.preset)]
    variants: list[tuple[str, dict[str, Any]]] = [(DEFAULT_PRESET, {})]
    if section == "memory":
        stated = {key: value for key in ("presets", "speeds") if isinstance(value := tree.get(key), dict)}
        variants += [(preset, {}) for preset in stated.get("presets", {})]
        variants += [(DEFAULT_PRESET, {"speed": speed}) for speed in stated.get("speeds", {})]
    return [(load_section(section, path.absolute(), preset, values), preset) for preset, values in variants]


# --- sources ---


@dataclass(frozen=True)
class Layer:
    """Values that one source states.

    source: file, or ``--set``, as messages name it.
    tree: the values, from the root of the configuration.
    rank: which precedence the source has.
    directory: what relative paths in it are relative to.
    depth: leading keys of ``tree`` that the source itself does not write (1 in a file that is one section).
    named_by: who named the file, where a section is one.
    """

    source: str
    tree: Tree
    rank: Rank
    directory: Path
    depth: int = 0
    named_by: Layer | None = None

    @property
    def cause(self) -> Layer:
        """Whose choice the values are: that of users who named a file."""
        named_by = self.named_by
        return self if named_by is None or named_by.rank not in ("user", "set") else named_by


def _precedence(layer: Layer) -> int:
    return _RANKS.index(layer.rank)


def _config_path(path_or_stem: str | Path) -> Path:
    path = Path(_path_text(path_or_stem))
    if os.path.isfile(path):
        return path
    systems = available("systems")
    if str(path_or_stem) in systems:
        return systems[str(path_or_stem)]
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise InputError(f"{path}: no such file; systems in configs/systems {suggestion(path.stem, systems)}")
    raise InputError(f"{path}: neither a file nor a system; {suggestion(str(path), systems)}")


def _read_files(path: Path, including: tuple[Path, ...]) -> list[Layer]:
    """The layers of a file: those that it includes, then itself."""
    resolved = path.resolve()
    if resolved in including:
        chain = " -> ".join(label(file) for file in (*including, resolved))
        raise InputError(f"{label(including[-1])}: include goes in a circle: {chain}")
    if len(including) == MOST_IN_A_ROW:
        raise InputError(
            f"{label(path)}: more than {MOST_IN_A_ROW} files include one another, the first {label(including[0])}"
        )
    tree = read_yaml(path)
    names = tree.pop("include", [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{label(path)}: include={shown(names)}: must be a file name or a list of file names")
    layers: list[Layer] = []
    for name in names:
        layers += _read_files(find_include(name, path), (*including, resolved))
        if len(layers) > MOST_INCLUDED:
            raise InputError(f"{label(path)}: include leads to more than {MOST_INCLUDED} files")
    folder = library_folder(path)
    if folder == "systems":
        tree.setdefault("system", path.stem)
    return [*layers, Layer(label(path), tree, "user" if folder is None else "library", path.parent)]


def _override_layers(overrides: Sequence[str] | Mapping[str, Any]) -> list[Layer]:
    layers = []
    source = source_of(overrides)
    for override in parse_overrides(overrides):
        if override.keys == ("include",):
            raise InputError(
                f"{source} include={shown(override.value)}: only a file can include; write one that includes both"
            )
        layers.append(Layer(source, override.tree, "set", Path.cwd()))
    return layers


def _preset_name(layers: Iterable[Layer]) -> str:
    name, source = DEFAULT_PRESET, "default"
    for layer in layers:
        if "preset" in layer.tree:
            name, source = layer.tree["preset"], layer.source
    presets = available("presets")
    if not isinstance(name, str) or name not in presets:
        raise InputError(
            f"{source}: preset={shown(name)}: no such file in configs/presets; {suggestion(str(name), presets)}"
        )
    return name


def _system_names(layers: Iterable[Layer]) -> list[str]:
    """Every system that the configuration builds on, the most general first."""
    names = (layer.tree.get("system") for layer in layers)
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


def _preset_layers(preset: str, systems: Iterable[str]) -> list[Layer]:
    layers = []
    for stated in preset_chain(preset):
        path, tree = read_preset(stated)
        by_system = tree.pop("by_system", {})
        if not isinstance(by_system, dict) or not all(isinstance(values, dict) for values in by_system.values()):
            raise InputError(f"{label(path)}: by_system={shown(by_system)}: must map names of systems to settings")
        for name in by_system:
            if name not in available("systems"):
                raise InputError(
                    f"{label(path)}: by_system.{name}: no such system; {suggestion(name, available('systems'))}"
                )
        layers.append(Layer(label(path), tree | {"preset": preset}, "preset", path.parent))
        for name in systems:
            if name in by_system:
                layers.append(Layer(f"{label(path)} (by_system.{name})", by_system[name], "preset", path.parent))
    return layers


# --- named sections ---


def _resolve_section(layers: list[Layer], section: str, preset: str, default_name: str) -> list[Layer]:
    """Replace the name of a section's file by the layers of that file; names are gone afterwards."""
    base: tuple[str, Layer] | None = None
    stated: list[Layer] = []
    for layer in layers:
        name, values = _split_base(layer, section)
        if name is not None or _is_complete(values):
            base = (name, layer) if name is not None else None
            # What weaker sources said was about another file. A preset's assumptions are about any.
            stated = [old if old.rank == "preset" else _without(old, section) for old in stated]
        stated.append(layer if section not in layer.tree else replace(layer, tree=layer.tree | {section: values}))
    if base is None:
        named = [Layer(default_name, {section: {"name": default_name}}, "named", Path.cwd())]
        if not any(section in layer.tree for layer in stated if layer.rank != "preset"):
            return [_without(layer, section) for layer in stated]  # nobody chose one: validation says so
    else:
        name, layer = base
        named = _read_named(section, name, layer.directory, _key(layer, section, name), ())
        named = [replace(file, named_by=layer) for file in named]
    layers = [*named, *stated]
    if section == "memory":
        layers = _with_speed_layers(layers)
        layers = [*_memory_preset_layers(layers, preset), *layers]
        _check_timing_overrides(layers)
    return sorted(layers, key=_precedence)


def _split_base(layer: Layer, section: str) -> tuple[str | None, Tree]:
    """The name that a layer gives to a section (if it does), and the values that it states besides."""
    value = layer.tree.get(section, {})
    if isinstance(value, str):
        return value, {}
    if not isinstance(value, dict):
        raise InputError(f"{_key(layer, section, value)}: must be a name or a mapping")
    values = {key: item for key, item in value.items() if key != "base"}
    base = value.get("base")
    if "base" in value and not isinstance(base, str):
        raise InputError(f"{layer.source}: {section}.base={shown(base)}: must be the name of a file")
    return base, values


def _is_complete(values: Tree) -> bool:
    """Whether a mapping is a whole section rather than changes to one: it brings a name of its own, and more."""
    return "name" in values and len(values) > 1


def _read_named(section: str, name: str, directory: Path, where: str, chain: tuple[Path, ...]) -> list[Layer]:
    """The layers of a section's file, its bases first."""
    path = find_named(NAMED_SECTIONS[section], name, directory, where)
    if path.resolve() in chain:
        raise InputError(f"{where}: base goes in a circle: {' -> '.join(label(p) for p in (*chain, path.resolve()))}")
    if len(chain) == MOST_IN_A_ROW:
        raise InputError(
            f"{label(path)}: more than {MOST_IN_A_ROW} files are the base of one another, the first {label(chain[0])}"
        )
    tree = read_yaml(path)
    layers = []
    if "base" in tree:
        base = tree.pop("base")
        here = f"{label(path)}: base={shown(base)}"
        if not isinstance(base, str):
            raise InputError(f"{here}: must be the name of a file")
        layers = _read_named(section, base, path.parent, here, (*chain, path.resolve()))
    if section == "model" and "parallel" in tree:
        layers.append(Layer(label(path), {"parallel": tree.pop("parallel")}, "named", path.parent))
    return [*layers, Layer(label(path), {section: {"name": path.stem} | tree}, "named", path.parent, depth=1)]


def _with_speed_layers(layers: Sequence[Layer]) -> list[Layer]:
    """The layers, each file's settings for the speed grade in force right behind it."""
    chosen: Layer | None = None
    for layer in layers:
        if "speed" in layer.tree.get("memory", {}):
            chosen = layer
    speed = chosen.tree["memory"]["speed"] if chosen else None
    found: list[Layer] = []
    known: list[str] = []
    for layer in layers:
        found.append(layer)
        speeds = _settings_by_name(layer, "speeds", SPEED_SECTIONS)
        known += speeds
        if isinstance(speed, str) and speed in speeds:
            found.append(replace(layer, tree={"memory": speeds[speed]}, source=f"{layer.source} (speeds.{speed})"))
    if chosen and speed and speed not in known:
        keys = "memory.speed" if chosen.depth == 0 else "speed"
        raise InputError(
            f"{chosen.source}: {keys}={shown(speed)}: no such speed grade; {suggestion(str(speed), known)}"
        )
    return found


def _memory_preset_layers(layers: Sequence[Layer], preset: str) -> list[Layer]:
    """What the memory's own table says for the preset (those that it builds on before it); weaker than ``configs/presets``,
    because those stand behind it."""
    found = []
    chain = preset_chain(preset)
    for layer in layers:
        presets = _settings_by_name(layer, "presets", PRESET_SECTIONS)
        for name in presets:
            if name not in available("presets"):
                where = f"{layer.source}: {'.'.join(('memory', 'presets')[layer.depth :])}"
                raise InputError(f"{where}.{name}: no such preset; {suggestion(name, available('presets'))}")
        for name in chain:
            if name in presets:
                source = f"{layer.source} (presets.{name})"
                found.append(replace(layer, tree={"memory": presets[name]}, rank="preset", source=source))
    return found


def _settings_by_name(layer: Layer, key: str, sections: Sequence[str]) -> dict[str, Tree]:
    """What a memory table states per speed grade or per preset: name -> values of some of its sections."""
    named = layer.tree.get("memory", {}).get(key, {})
    where = f"{layer.source}: {'.'.join(('memory', key)[layer.depth :])}"
    if not isinstance(named, dict):
        raise InputError(f"{where}={shown(named)}: must map names of {key} to settings")
    for name, settings in named.items():
        if not isinstance(settings, dict):
            raise InputError(f"{where}.{name}={shown(settings)}: must be a mapping of sections")
        for section in settings:
            if section not in sections:
                raise InputError(f"{where}.{name}.{section}: unknown key; {suggestion(section, sections)}")
    return named


def _check_timing_overrides(layers: Sequence[Layer]) -> None:
    """An override of single timing parameters may change those of the table, not invent one."""
    known: set[str] = set()
    for layer in layers:
        memory = layer.tree.get("memory", {})
        timing = memory.get("timing", {})
        if not isinstance(timing, dict):
            return  # validation says so
        if layer.rank != "set" or len(memory) > 1:
            known |= timing.keys()
            continue
        for key, value in timing.items():
            if key not in known:
                raise InputError(
                    f"{layer.source}: memory.timing.{key}={shown(value)}: unknown timing parameter; {suggestion(key, known)}"
                )


def _without(layer: Layer, section: str) -> Layer:
    return replace(layer, tree={key: value for key, value in layer.tree.items() if key != section})


def _section_of(path: Path, tree: Tree) -> str | None:
    """Which section a file holds by itself; None for a configuration."""
    folders = {folder: section for section, folder in NAMED_SECTIONS.items()}
    folder = library_folder(path) or path.parent.name
    if folder in folders:
        return folders[folder]
    shared = {
        section: max(len(tree.keys() & schema.model_fields.keys()) for schema in schemas)
        for section, schemas in _SECTION_SCHEMAS.items()
    }
    best = max(shared, key=lambda section: shared[section])
    return best if shared[best] > len(tree.keys() & (Config.model_fields.keys() | {"include"})) else None


# --- merging and validating ---


def _merged(layers: Iterable[Layer]) -> Tree:
    tree: Tree = {}
    for layer in layers:
        tree = merge(tree, layer.tree, append_constraints=layer.rank != "set")
    return tree


def merge(below: Mapping[str, Any], above: Mapping[str, Any], append_constraints: bool = True) -> Tree:
    """``above`` on top of ``below``: mappings are merged, everything else is replaced, timing ``constraints`` are appended."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(old, value, append_constraints)
        elif append_constraints and key == "constraints" and isinstance(old, list) and isinstance(value, list):
            merged[key] = [*old, *value]
        else:
            merged[key] = value
    return merged


def _located_files(layers: Sequence[Layer]) -> list[Layer]:
    """Files that the workload names: relative to the working directory, else to the file that names them."""
    found = []
    for key in ("requests", "path"):
        value = _merged(layers).get("workload", {}).get(key)
        if not isinstance(value, str) or Path(value).exists():
            continue
        origin = _strongest(layers, ("workload", key))
        assert origin is not None
        beside = origin.directory / value
        if beside.exists():
            found.append(replace(origin, tree={"workload": {key: str(beside)}}, depth=0))
    return found


def _validated_section(section: str, tree: Any, layers: Sequence[Layer], source: str) -> BaseModel:
    """A section by the schema of its family or kind."""
    default, *others = _SECTION_SCHEMAS[section]
    if others and isinstance(tree, dict) and (tag := _TAGS[section]) in tree:
        schemas = {get_args(schema.model_fields[tag].annotation)[0]: schema for schema in (default, *others)}
        if not isinstance(tree[tag], str) or tree[tag] not in schemas:
            origin = _strongest(layers, (section, tag)) or _unknown(source)
            keys = _dotted((section, tag)[origin.depth :])
            raise InputError(
                f"{origin.source}: {keys}={shown(tree[tag])}: not an option; {suggestion(str(tree[tag]), schemas)}"
            )
        _check_same_tag(section, schemas[tree[tag]], tree, layers)
        return _validated(schemas[tree[tag]], tree, layers, source, (section,))
    return _validated(default, tree, layers, source, (section,))


def _check_same_tag(section: str, schema: type[BaseModel], tree: Tree, layers: Sequence[Layer]) -> None:
    """A kind or family that an override or a file of the user gives to a section whose file is of another one."""
    tag = _TAGS[section]
    giver, foreign = _strongest(layers, (section, tag)), [key for key in tree if key not in schema.model_fields]
    owner = None if not foreign else _strongest(layers, (section, foreign[0]))
    if giver is None or owner is None or owner.named_by is None or giver.named_by is not None:
        return
    default = _SECTION_SCHEMAS[section][0].model_fields[tag].default
    names = [
        name
        for name, path in available(NAMED_SECTIONS[section]).items()
        if read_yaml(path).get(tag, default) == tree[tag]
    ]
    raise InputError(
        f"{giver.source}: {section}.{tag}={tree[tag]!r}: {owner.source} is of another {tag}; name a {section} of this one "
        f"({', '.join(names) or 'none is shipped'}), or give a whole table with a name of its own"
    )


def _validated(
    schema: type[Schema], tree: Tree, layers: Sequence[Layer], source: str, prefix: tuple[str, ...] = ()
) -> Schema:
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    told = []
    for problem in problems[:MOST_PROBLEMS]:
        keys, cause = (*prefix, *problem["loc"]), problem.get("ctx", {}).get("error")
        if isinstance(cause, TimingError):
            keys, message = (*keys, *cause.keys), str(cause)
        else:
            message = explain(schema, problem, prefix)
        if problem["type"] == "missing":
            origin = _origin_of_missing(layers, keys, source)
        else:
            origin = _origin(layers, keys, source, _dotted(keys) + message)
        told.append((origin.source, (_dotted(keys[origin.depth :]) + message).lstrip(".: ")))
    raise InputError(_told(told, len(problems) if len(problems) > MOST_PROBLEMS else 0))


def _refuse(violations: Iterable[tuple[tuple[str | int, ...], str]], layers: Sequence[Layer], source: str) -> None:
    """Raise InputError with the violations (key path, message), if there are any."""
    told = [(_origin(layers, keys, source, message).source, message) for keys, message in violations]
    if told:
        raise InputError(_told(told))


def _told(problems: Sequence[tuple[str, str]], count: int = 0) -> str:
    """Problems, each with its source, as one message (``count`` as in :func:`joined`); a source that all share stands once."""
    sources = {source for source, _ in problems}
    if len(sources) == 1:
        return f"{sources.pop()}: {joined([problem for _, problem in problems], count)}"
    return joined([f"{source}: {problem}" for source, problem in problems], count)


_NAMED_KEY = re.compile(r"(?<![\w.'\"])([a-z]\w*(?:\.\w+)*)=")
"""``model.heads`` in ``model.heads=32``."""


def _origin(layers: Sequence[Layer], keys: Sequence[str | int], source: str, message: str) -> Layer:
    """Who is to blame for what is wrong at ``keys``: the strongest of the sources of the keys that ``message`` states.

    A file that users named beside others is their choice: then they are to blame, not the file.
    """
    if tuple(keys[:2]) == ("memory", "constraints") and len(keys) > 2 and isinstance(keys[2], int):
        return _origin_of_constraint(layers, keys[2])
    named = [tuple(key.split(".")) for key in _NAMED_KEY.findall(message)] or [tuple(keys)]
    stating = [layer for key in named if (layer := _stating(layers, key)) is not None]
    if not stating:
        return next(
            (layer for n in range(len(keys), 0, -1) if (layer := _strongest(layers, keys[:n]))), _unknown(source)
        )
    causes = {id(layer.cause): layer.cause for layer in stating}
    return max(stating if len(causes) == 1 else causes.values(), key=_precedence)


def _stating(layers: Sequence[Layer], keys: Sequence[str | int]) -> Layer | None:
    """The strongest layer that states a value at ``keys``, or else the file of the section, whose silence means the default."""
    files = [layer for layer in layers if layer.named_by is not None]
    return _strongest(layers, keys) or (_strongest(files, keys[:1]) if len(keys) > 1 else None)


def _strongest(layers: Sequence[Layer], keys: Sequence[str | int]) -> Layer | None:
    """The strongest layer that states a value at ``keys``."""
    for layer in reversed(layers):
        node: Any = layer.tree
        for key in keys:
            node = node.get(key, _ABSENT) if isinstance(node, dict) else _ABSENT
        if node is not _ABSENT:
            return layer
    return None


def _origin_of_missing(layers: Sequence[Layer], keys: Sequence[str | int], source: str) -> Layer:
    """Who states the section in which a key is missing: a file rather than an override, unless that put another in its place."""
    files = [layer for layer in layers if layer.rank not in ("preset", "set")]
    replaced = _strongest(layers, keys) is not None
    for length in range(len(keys) - 1, 0, -1):
        found = None if replaced else _strongest(files, keys[:length])
        if (found := found or _strongest(layers, keys[:length])) is not None:
            return found
    return _unknown(source)


def _unknown(source: str) -> Layer:
    return Layer(source, {}, "user", Path.cwd())


_ABSENT = object()


def _origin_of_constraint(layers: Sequence[Layer], index: int) -> Layer:
    stating = [layer for layer in layers if "constraints" in layer.tree.get("memory", {})]
    if stating[-1].rank == "set":
        return stating[-1]
    rows = 0
    for layer in stating:
        rows += len(layer.tree["memory"]["constraints"])
        if index < rows:
            break
    return layer


def _dotted(keys: Sequence[str | int]) -> str:
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def _key(layer: Layer, key: str, value: object) -> str:
    return f"{layer.source}: {key}={shown(value)}".removeprefix(": ")


def _path_text(path: object) -> str:
    """A path or name as text; raises InputError for anything else."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{shown(path)}: must be the name of a file or of a shipped one, not a {type(path).__name__}")
    return str(path)

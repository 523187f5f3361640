"""Operator traces made of model files of other tools. A format is one importer in one file of this folder, found by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from neupims_sim.config import ModelConfig, VitConfig, yaml_text
from neupims_sim.config.bounds import Count, Tokens, require
from neupims_sim.errors import InputError
from neupims_sim.registry import Registry
from neupims_sim.trace import Trace, checked


@dataclass(frozen=True)
class ImportOptions:
    """What the file does not say. An importer refuses what it has no use for."""

    batch: int | None = None
    """Requests or images, 1 unless given."""
    context: int | None = None
    """Tokens of each request of a language model: in the cache (decode), in the prompt (prefill)."""
    phase: str | None = None
    """``decode`` or ``prefill`` of a language model."""
    tensor: int | None = None
    """Tensor-parallel devices of a language model."""
    image_size: tuple[int, int] | None = None
    """Height and width of images, pixels."""
    shape: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of inputs that the file leaves open."""

    def given(self) -> list[str]:
        """The names of the options that are given."""
        return [option.name for option in fields(self) if getattr(self, option.name) not in (None, {})]


class ImportedTrace(NamedTuple):
    """A trace, and what it cannot take over from its file."""

    trace: Trace
    notes: tuple[str, ...] = ()


class ImportedModel(NamedTuple):
    """A model description, and what it cannot take over from its file."""

    model: ModelConfig | VitConfig
    notes: tuple[str, ...] = ()


class Importer:
    """Reads one format."""

    options: ClassVar[tuple[str, ...]] = ()
    """Names of :class:`ImportOptions` that it takes."""

    def trace(self, path: Path, options: ImportOptions) -> ImportedTrace:
        """The trace of one iteration or inference. Raises ``InputError`` with file and key."""
        raise NotImplementedError

    def model(self, path: Path) -> ImportedModel:
        """The file as a model description. Raises ``InputError``, always where the format describes operators only."""
        raise InputError(
            f"{path}: this format lists operators and gives a trace; allowed output: *.jsonl or *.jsonl.gz"
        )


def _own_importer(found: Any, what: str) -> Importer:
    if not isinstance(found, Importer):
        raise InputError(f"{what} is not an instance of neupims_sim.workloads.importing.Importer")
    return found


IMPORTERS: Registry[Importer] = Registry("format", __name__, key="trace import: FORMAT", adopt=_own_importer)
"""Every importer by the name of its format."""


def import_trace(format_name: str, path: str | Path, options: ImportOptions | None = None) -> ImportedTrace:
    """The trace of a model file, valid as ``trace.checked`` says. Same file and options, same trace.

    Raises ``InputError`` for an unknown format, an option that the format does not take, and whatever is wrong with the file.
    """
    importer, path, options = IMPORTERS[format_name], Path(path), options or ImportOptions()
    for name in options.given():
        if name not in importer.options:
            allowed = ", ".join(map(_flag, importer.options)) or "none"
            raise InputError(f"{_flag(name)} is not for the format {format_name}; allowed: {allowed}")
    for name, kind in (("batch", Count), ("context", Tokens), ("tensor", Count)):
        value = getattr(options, name)
        if value is not None:
            require(_flag(name), value, kind)
    imported = importer.trace(path, options)
    try:
        for _ in checked(imported.trace.operators):
            pass
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return imported


def import_model(format_name: str, path: str | Path) -> ImportedModel:
    """The model description in a file. Raises ``InputError``."""
    return IMPORTERS[format_name].model(Path(path))


def model_yaml(imported: ImportedModel, origin: str) -> str:
    """The description as a file that a configuration may name as its ``model``; ``origin`` and the notes head it."""
    model = imported.model
    values = model.model_dump(mode="json", exclude={"name"})
    if isinstance(model, ModelConfig):
        derived = {"family": "decoder", "kv_heads": model.heads, "head_size": model.d_model // model.heads}
        values = {key: value for key, value in values.items() if key not in derived or value != derived[key]}
    head = "".join(f"# {line}\n" for line in (origin, *imported.notes))
    return head + yaml_text.dump(values)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"

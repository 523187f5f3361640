"""What people call columns (axes, metrics, derived columns) and the values of axes, in tables and pictures."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from numbers import Real
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from neupims_sim.config.bounds import Number, Whole
from neupims_sim.errors import InputError


class Label(NamedTuple):
    """A column as it is shown: its name, the unit, the factor from the stored value to that unit, decimals."""

    name: str
    unit: str = ""
    factor: float = 1.0
    decimals: int = 0

    def __str__(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name


class LabelSettings(BaseModel):
    """What a sweep file says about a column; the rest stays as it is by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    unit: str | None = None
    factor: Annotated[float, Number(-1e30, 1e30)] | None = None
    """From the stored value to the unit."""
    decimals: Annotated[int, Whole(0, 15)] | None = None
    """In tables."""


class Family(NamedTuple):
    """The columns of one section of ``result.json``."""

    whole: Label
    """All of them together; each has this unit."""
    member: str
    """Name of one of them, with its key in place of ``{}``."""


_METRICS = {
    "throughput_tokens_per_s": Label("Throughput", "1000 tokens/s", 1e-3, 2),
    "throughput_per_s": Label("Throughput", "1/s", 1, 2),
    "throughput_ci95_per_s": Label("95 % half-width of throughput", "1/s", 1, 2),
    "latency_cycles": Label("Latency", "1000 cycles", 1e-3, 1),
    "utilization.npu": Label("NPU utilization", "%", 100, 1),
    "utilization.pim": Label("PIM utilization", "%", 100, 1),
    "utilization.bandwidth": Label("Bandwidth utilization", "%", 100, 1),
    "cycles": Label("Cycles", "million", 1e-6, 3),
    "block_cycles": Label("Block time", "1000 cycles", 1e-3, 1),
    "seconds": Label("Time", "ms", 1e3, 3),
    "batch_size": Label("Batch size"),
    "devices": Label("Devices"),
    "average_power_w": Label("Average power", "W", 1, 1),
    "energy_per_item_joules": Label("Energy per item", "mJ", 1e3, 2),
    "energy_per_token_joules": Label("Energy per token", "mJ", 1e3, 2),
    "memory_power_w_per_channel": Label("Memory power per channel", "mW", 1e3, 0),
    "traffic_bytes.read": Label("Read", "GB", 1e-9, 3),
    "traffic_bytes.write": Label("Written", "GB", 1e-9, 3),
    "traffic_bytes.pim_internal": Label("Read inside PIM", "GB", 1e-9, 3),
}
_METRICS |= {
    "background.queries_per_s": Label("Background searches", "queries/s", 1, 1),
    "background.mean_latency_cycles": Label("Latency of background searches", "1000 cycles", 1e-3, 1),
    "pipeline.stages": Label("Pipeline stages"),
    "pipeline.micro_batches": Label("Micro-batches"),
    "pipeline.simulated_micro_batches": Label("Simulated micro-batches"),
    "pipeline.stage_cycles": Label("Time of a pipeline stage", "1000 cycles", 1e-3, 1),
    "pipeline.longest_stage_cycles": Label("Longest time of a pipeline stage", "1000 cycles", 1e-3, 1),
    "pipeline.transfer_cycles": Label("Transfer between pipeline stages", "1000 cycles", 1e-3, 1),
    "pipeline.iteration_cycles": Label("Time of an iteration", "1000 cycles", 1e-3, 1),
    "pipeline.drained_iteration_cycles": Label("Time of a drained iteration", "1000 cycles", 1e-3, 1),
    "peak.npu_flops_per_s": Label("Peak of the NPU", "TFLOP/s", 1e-12, 1),
    "peak.vector_flops_per_s": Label("Peak of the vector units", "TFLOP/s", 1e-12, 3),
    "peak.pim_flops_per_s": Label("Peak of PIM", "TFLOP/s", 1e-12, 1),
    "peak.memory_bytes_per_s": Label("Peak bandwidth", "GB/s", 1e-9, 0),
    "peak.pim_bytes_per_s": Label("Peak bandwidth inside PIM", "GB/s", 1e-9, 0),
}
_FAMILIES = {
    "utilization": Family(Label("Utilization", "%", 100, 1), "Utilization of {}"),
    "traffic_bytes": Family(Label("Traffic", "GB", 1e-9, 3), "Traffic, {}"),
    "stages": Family(Label("Length of stages", "1000 cycles", 1e-3, 1), "Stage {}"),
    "energy_joules": Family(Label("Energy", "mJ", 1e3, 2), "Energy {}"),
    "commands": Family(Label("Commands"), "{} commands"),
    "operator_cycles": Family(Label("Time of operators", "1000 cycles", 1e-3, 1), "Time of {}"),
    "operator_busy_cycles": Family(Label("Busy time of operators", "1000 cycles", 1e-3, 1), "Busy time of {}"),
    "operator_flops": Family(Label("Work of operators", "GFLOP", 1e-9, 3), "Work of {}"),
    "operator_bytes": Family(Label("Traffic of operators", "MB", 1e-6, 3), "Traffic of {}"),
}
_ABBREVIATIONS = {"npu": "NPU", "pim": "PIM", "mac": "MAC"}
_AXES = {"system": "System", "preset": "Preset", "model": "Model", "workload": "Workload",
    "parallel.tensor": "Tensor-parallel devices", "parallel.pipeline": "Pipeline stages"}  # fmt: skip
_VALUES = {"npu_only": "NPU-only", "npu_pim": "NPU+PIM", "neupims": "NeuPIMs"}


@dataclass(frozen=True)
class Labels:
    """The labels of one sweep: what its file states, and for the rest the defaults."""

    axes: Collection[str] = ()
    stated: Mapping[str, LabelSettings] = field(default_factory=dict)
    """By column."""
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Text of an axis's value, by axis and by the value as text."""
    text_axes: Collection[str] = ()
    """Axes whose values are labels, not numbers."""

    def column(self, name: str) -> Label:
        """How to show a column; one that is not known keeps its key and value."""
        default = Label(_axis_name(name)) if name in self.axes else _metric_label(name)
        stated = self.stated.get(name, LabelSettings())
        return default._replace(**stated.model_dump(exclude_none=True))

    def together(self, columns: Sequence[str]) -> Label:
        """What several columns are that share an axis: their family, or the words that all their names end or begin with.

        Raises InputError if they have not all the same unit.
        """
        shown = [self.column(name) for name in columns]
        if len({(label.unit, label.factor) for label in shown}) > 1:
            stated = ", ".join(f"{name} ({label.unit})" for name, label in zip(columns, shown, strict=True))
            raise InputError(f"columns of one axis need one unit and factor, and these differ: {stated}")
        families = {_family(name) for name in columns}
        family = families.pop() if len(families) == 1 else None
        name = family.whole.name if family is not None else _common_words([label.name for label in shown])
        return shown[0]._replace(name=name or "Value")

    def member(self, name: str) -> str:
        """A column among others of its family: by the name that the sweep file states, or the last part of its key."""
        stated = self.stated.get(name, LabelSettings()).name
        if stated is not None or _family(name) is None or name in _METRICS:
            return stated or self.column(name).name
        return _words(name.partition(".")[2])

    def value(self, axis: str, value: Any) -> str:
        """A value of an axis: by its name, in the axis's unit, or else as `value_label` has it."""
        if (name := self._name(axis, value)) is not None:
            return name
        label = self.column(axis)
        if label.factor != 1 and isinstance(value, Real):
            number = float(value) * label.factor
            return f"{number:,.{label.decimals}f}" if label.decimals else f"{number:,.6g}"
        return value_label(value_key(value))

    def has_name(self, axis: str, value: Any) -> bool:
        """Whether ``names`` of the sweep file has a text for this value."""
        return self._name(axis, value) is not None

    def _name(self, axis: str, value: Any) -> str | None:
        key, is_text = value_key(value), axis in self.text_axes
        names = self.names.get(axis, {})
        return next((text for written, text in names.items() if written_key(written, is_text) == key), None)


def value_label(value: Any) -> str:
    """``"NeuPIMs"`` for ``neupims``; a value that is not known as it is."""
    return _VALUES.get(str(value), str(value))


def value_key(value: Any) -> str:
    """One text for a value whether it comes from YAML or from a table: 1 and 1.0 are ``"1"``.

    A text is itself: the labels ``1``, ``01`` and ``1.0`` are three. What is neither number nor text (null, a list) is its JSON,
    as in ``points.csv``.
    """
    if isinstance(value, str | bool | int | np.bool_):
        return str(value)
    if value is None or isinstance(value, list | Mapping):
        return json.dumps(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return str(int(number)) if number.is_integer() else str(number)


def written_key(text: str, is_text: bool) -> str:
    """:func:`value_key` of the value that a key or a cell writes: on an axis of numbers ``1.0`` is 1, on one of labels it is ``1.0``."""
    try:
        return text if is_text else value_key(float(text))
    except ValueError:
        return text


def is_one_of(value: Any, stated: Any) -> bool:
    """Whether a value is the one that is stated, or one of a list of them."""
    return value_key(value) in map(value_key, stated if isinstance(stated, list) else [stated])


def _metric_label(metric: str) -> Label:
    if metric in _METRICS:
        return _METRICS[metric]
    family = _family(metric)
    if family is not None:
        key = metric.partition(".")[2]
        words = key if metric.startswith("commands.") else _words(key)
        return family.whole._replace(name=family.member.format(words))
    return Label(metric, decimals=3)


def _words(key: str) -> str:
    """``"NPU scratchpad"`` for ``npu_scratchpad``."""
    return " ".join(_ABBREVIATIONS.get(word, word) for word in key.split("_"))


def _family(metric: str) -> Family | None:
    prefix, _, key = metric.partition(".")
    return _FAMILIES.get(prefix) if key else None


def _common_words(names: Sequence[str]) -> str:
    """The words that all names end with, or else begin with, as a name of its own."""
    words = [name.split() for name in names]
    ending = _common([name[::-1] for name in words])[::-1]
    text = " ".join(ending or _common(words))
    return text[:1].upper() + text[1:]


def _common(lists: Sequence[Sequence[str]]) -> list[str]:
    """The first entries that all lists share."""
    return [entries[0] for entries in takewhile(lambda entries: len(set(entries)) == 1, zip(*lists, strict=False))]


def _axis_name(axis: str) -> str:
    """``"Batch size"`` for ``workload.batch_size``."""
    return _AXES.get(axis, axis.rsplit(".", 1)[-1].replace("_", " ").capitalize())

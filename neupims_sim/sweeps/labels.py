"""What people call columns (axes, metrics, derived columns) and the values of axes, in tables and pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field


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
    factor: float | None = None
    """From the stored value to the unit."""
    decimals: Annotated[int, Field(ge=0)] | None = None
    """In tables."""


_METRICS = {
    "throughput_tokens_per_s": Label("Throughput", "1000 tokens/s", 1e-3, 2),
    "utilization.npu": Label("NPU utilization", "%", 100, 1),
    "utilization.pim": Label("PIM utilization", "%", 100, 1),
    "utilization.bandwidth": Label("Bandwidth utilization", "%", 100, 1),
    "cycles": Label("Cycles", "million", 1e-6, 3),
    "block_cycles": Label("Block time", "1000 cycles", 1e-3, 1),
    "seconds": Label("Time", "ms", 1e3, 3),
    "batch_size": Label("Batch size"),
    "average_power_w": Label("Average power", "W", 1, 1),
    "memory_power_w_per_channel": Label("Memory power per channel", "mW", 1e3, 0),
    "traffic_bytes.read": Label("Read", "GB", 1e-9, 3),
    "traffic_bytes.write": Label("Written", "GB", 1e-9, 3),
    "traffic_bytes.pim_internal": Label("Read inside PIM", "GB", 1e-9, 3),
}
_AXES = {"system": "System", "preset": "Preset", "model": "Model", "workload": "Workload"}
_VALUES = {"npu_only": "NPU-only", "npu_pim": "NPU+PIM", "neupims": "NeuPIMs"}


@dataclass(frozen=True)
class Labels:
    """The labels of one sweep: what its file states, and for the rest the defaults."""

    axes: Collection[str] = ()
    stated: Mapping[str, LabelSettings] = field(default_factory=dict)
    """By column."""
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Text of an axis's value, by axis and by the value as text."""

    def column(self, name: str) -> Label:
        """How to show a column; one that is not known keeps its key and value."""
        default = Label(_axis_name(name)) if name in self.axes else _metric_label(name)
        stated = self.stated.get(name, LabelSettings())
        return default._replace(**stated.model_dump(exclude_none=True))

    def value(self, axis: str, value: Any) -> str:
        """A value of an axis: by its name, in the axis's unit, or else as `value_label` has it."""
        names = {value_key(key): text for key, text in self.names.get(axis, {}).items()}
        if (key := value_key(value)) in names:
            return names[key]
        label = self.column(axis)
        if label.factor != 1 and isinstance(value, Real):
            number = float(value) * label.factor
            return f"{number:,.{label.decimals}f}" if label.decimals else f"{number:,.6g}"
        return value_label(key)

    def has_name(self, axis: str, value: Any) -> bool:
        """Whether ``names`` of the sweep file has a text for this value."""
        return value_key(value) in map(value_key, self.names.get(axis, {}))


def value_label(value: Any) -> str:
    """``"NeuPIMs"`` for ``neupims``; a value that is not known as it is."""
    return _VALUES.get(str(value), str(value))


def value_key(value: Any) -> str:
    """One text for a value whether it comes from YAML or from a table: 1, 1.0 and "1.0" are ``"1"``."""
    if isinstance(value, bool | int):
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return str(int(number)) if number.is_integer() else str(number)


def is_one_of(value: Any, stated: Any) -> bool:
    """Whether a value is the one that is stated, or one of a list of them."""
    return value_key(value) in map(value_key, stated if isinstance(stated, list) else [stated])


def _metric_label(metric: str) -> Label:
    if metric in _METRICS:
        return _METRICS[metric]
    if metric.startswith("stages."):
        return Label(f"Stage {metric.split('.')[1]}", "1000 cycles", 1e-3, 1)
    if metric.startswith("energy_joules."):
        return Label(f"Energy {metric.split('.')[1].replace('_', ' ')}", "mJ", 1e3, 2)
    if metric.startswith("commands."):
        return Label(f"{metric.split('.')[1]} commands")
    return Label(metric, decimals=3)


def _axis_name(axis: str) -> str:
    """``"Batch size"`` for ``workload.batch_size``."""
    return _AXES.get(axis, axis.rsplit(".", 1)[-1].replace("_", " ").capitalize())

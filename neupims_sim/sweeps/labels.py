"""What people call metrics, axes and their values, in tables and pictures."""

from __future__ import annotations

from typing import Any, NamedTuple


class Label(NamedTuple):
    """A metric as it is shown: its name, the unit, the factor from the stored value to that unit, decimals."""

    name: str
    unit: str = ""
    factor: float = 1.0
    decimals: int = 0

    def __str__(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name


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


def metric_label(metric: str) -> Label:
    """How to show a metric; one that is not known keeps its key and value."""
    if metric in _METRICS:
        return _METRICS[metric]
    if metric.startswith("stages."):
        return Label(f"Stage {metric.split('.')[1]}", "1000 cycles", 1e-3, 1)
    if metric.startswith("energy_joules."):
        return Label(f"Energy {metric.split('.')[1].replace('_', ' ')}", "mJ", 1e3, 2)
    if metric.startswith("commands."):
        return Label(f"{metric.split('.')[1]} commands")
    return Label(metric, decimals=3)


def axis_label(axis: str) -> str:
    """``"Batch size"`` for ``workload.batch_size``."""
    return _AXES.get(axis, axis.rsplit(".", 1)[-1].replace("_", " ").capitalize())


def value_label(value: Any) -> str:
    """``"NeuPIMs"`` for ``neupims``; a value that is not known as it is."""
    return _VALUES.get(str(value), str(value))

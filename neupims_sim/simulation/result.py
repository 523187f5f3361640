"""What one run yields, and how it is written to a run directory."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from neupims_sim.config import Config
from neupims_sim.errors import InternalError
from neupims_sim.showing import Shown
from neupims_sim.simulation.directory import OPERATORS, RESULT, TIMELINE, Origin, run_directory
from neupims_sim.simulation.observations import Observations, OperatorRecord
from neupims_sim.simulation.timeline import Timeline


@dataclass(frozen=True, repr=False)
class Result(Shown):
    """One simulated workload on the whole system, all ``devices``; every metric is defined in ``docs/metrics.md``."""

    devices: int
    cycles: int
    seconds: float
    throughput_tokens_per_s: float | None
    throughput_per_s: float
    item: str
    latency_cycles: int
    batch_size: int
    utilization: Mapping[str, float]
    traffic_bytes: Mapping[str, int]
    commands: Mapping[str, int]
    energy_joules: Mapping[str, float]
    energy_per_item_joules: float | None
    energy_per_token_joules: float | None
    average_power_w: float | None
    memory_power_w_per_channel: float | None
    block_cycles: int
    stages: Mapping[str, int]
    operator_cycles: Mapping[str, int]
    operator_flops: Mapping[str, int]
    operator_bytes: Mapping[str, int]
    operator_busy_cycles: Mapping[str, int]
    operator_unit: Mapping[str, str]
    peak: Mapping[str, float]
    background: Mapping[str, float | None]
    interleaving: str
    layers: int
    simulated_layers: int
    simulated_cycles: int
    mean_context_tokens: float | None
    pipeline: Mapping[str, int]
    snapshots: int
    throughput_ci95_per_s: float | None
    config_hash: str
    observations: Observations = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raise InternalError for shares outside [0, 1], and for times, rates and energies that are not finite and positive."""
        for unit, share in self.utilization.items():
            if not -_ROUNDING <= share <= 1 + _ROUNDING:
                raise _impossible(f"utilization.{unit}", share, "a share from 0 to 1")
        amounts = {f"energy_joules.{cause}": joules for cause, joules in self.energy_joules.items()}
        amounts |= {name: getattr(self, name) for name in ("seconds", "throughput_per_s", "average_power_w")}
        for name, amount in amounts.items():
            if amount is not None and not 0 <= amount < math.inf:
                raise _impossible(name, amount, "finite and not negative")

    def to_json(self) -> dict[str, Any]:
        """The content of ``result.json``."""
        values = {key: value for key, value in vars(self).items() if key != "observations"}
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}


_ROUNDING = 1e-9
"""Of a share that is the quotient of two sums."""


def _impossible(name: str, value: float, possible: str) -> InternalError:
    return InternalError(
        f"{name}={value:.6g} must be {possible}; this is a fault of the simulator: please report it with the configuration "
        "(`neupims-sim config show` with the same arguments)"
    )


def memory_joules(energy: Mapping[str, float]) -> float:
    """The part of ``energy_joules`` that the memory and its PIM spend: everything but the NPU."""
    return sum(joules for cause, joules in energy.items() if not cause.startswith("npu_"))


def write_run(
    result: Result,
    config: Config,
    directory: Path,
    wall_seconds: float,
    timeline: Timeline | None = None,
    origin: Origin | None = None,
) -> None:
    """Write a run directory (`neupims_sim.simulation.directory`): config.yaml, result.json, operators.csv, provenance.json.

    With ``timeline`` also timeline.json.gz. Raises InputError if one cannot be written; the directory is then as it was.
    """
    with run_directory(directory, config, wall_seconds, origin) as folder:
        (folder / RESULT).write_text(json.dumps(result.to_json(), indent=2) + "\n", encoding="utf-8", newline="")
        with (folder / OPERATORS).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(OperatorRecord.__dataclass_fields__), lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(record) for record in result.observations.operators)
        if timeline is not None:
            timeline.write(folder / TIMELINE)

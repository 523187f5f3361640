"""What the pages of experiments/ say about published figures, from the tables beside them, which are those of this code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from neupims_sim.simulation import simulate
from neupims_sim.sweeps import expand, read_sweep

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def points(experiment: str, **only: object) -> pd.DataFrame:
    """The committed table of an experiment; of its points those with these values."""
    table = pd.read_csv(EXPERIMENTS / experiment / "points.csv")
    assert set(table["status"]) == {"ok"}
    for axis, value in only.items():
        table = table[table[axis] == value]
    return table


@pytest.mark.parametrize(
    ("experiment", "place"),
    [
        (
            "fig12_throughput",
            {"device": "NeuPIMs", "workload": "alpaca", "model": "gpt3-7b", "workload.batch_size": 64},
        ),
        (
            "fig12_throughput",
            {"device": "GPU-only", "workload": "sharegpt", "model": "gpt3-175b", "workload.batch_size": 512},
        ),
        ("fig14_parallelism", {"devices": "30B (4, 4)", "batch": "split", "policy": "off"}),
        ("table4_utilization", {"batch": "per stage", "device": "NPU+PIM"}),
        (
            "table5_energy",
            {
                "device": "NPU+PIM",
                "preset": "physical_2024",
                "workload": "sharegpt",
                "model": "gpt3-7b",
                "workload.batch_size": 64,
            },
        ),
        ("presets", {"step": "+ links", "device": "NPU-only", "workload.batch_size": 64}),
        ("memory_models", {"device": "GDDR6 AiM", "workload.batch_size": 16}),
    ],
)
def test_the_committed_tables_are_those_of_this_code(experiment: str, place: dict[str, Any]) -> None:
    """One point of each; where this fails, run the experiments again and read their pages."""
    sweep = read_sweep(EXPERIMENTS / experiment / "sweep.yaml")
    (point,) = (point for point in expand(sweep, experiment) if point.axes == place)
    (row,) = points(experiment, **place).to_dict("records")
    assert simulate(point.config).throughput_per_s == pytest.approx(row["throughput_tokens_per_s"], rel=1e-9)


def test_figure_12_of_neupims() -> None:
    bars = pd.concat([points("fig12_throughput", device="NPU+PIM"), points("fig12_throughput", device="NeuPIMs")])
    assert len(bars) == 80
    assert bars["absolute_deviation"].mean() <= 0.15
    assert bars["absolute_deviation"].max() <= 0.40
    assert points("fig12_throughput", device="NeuPIMs")["speedup"].mean() == pytest.approx(1.6, rel=0.1)


def test_figure_13_of_neupims() -> None:
    table = points("fig13_ablation")
    assert table["deviation"].abs().max() <= 0.20
    ratios = table.pivot_table(index="variant", columns="workload.batch_size", values=["speedup", "published_speedup"])
    for batch in (128, 256, 384, 512):
        ours, published = (
            ratios[kind][batch].sort_values().index.tolist() for kind in ("speedup", "published_speedup")
        )
        assert ours == published
    assert ratios["speedup"][64]["+ SBI"] == pytest.approx(1, abs=0.01)  # published 1.05


def test_figure_14_of_neupims() -> None:
    bars = points("fig14_parallelism", batch="split", policy="from 128 up").set_index("devices")
    assert len(bars) == 8
    missed = bars[bars["absolute_deviation"] > 0.25]
    assert missed.index.tolist() == ["175B (8, 8)"]


def test_what_of_table_4_comes_out() -> None:
    """Six of eight figures within 10 points; neither the NPU of NeuPIMs nor, per stage, the bandwidth of NPU-only."""
    found = points("table4_utilization", batch="per stage").set_index("device")
    assert abs(found.loc["NPU+PIM", "bandwidth_points"]) <= 0.1
    assert abs(found.loc["NPU+PIM", "npu_points"]) <= 0.1
    assert abs(found.loc["NeuPIMs", "bandwidth_points"]) <= 0.1
    assert abs(found.loc["NPU+PIM", "pim_tile_points"]) <= 0.1
    assert abs(found.loc["NeuPIMs", "pim_tile_points"]) <= 0.1
    assert abs(found.loc["NPU-only, pipelined", "npu_points"]) <= 0.1
    assert found.loc["NeuPIMs", "npu_points"] < -0.2
    assert found.loc["NPU-only, pipelined", "bandwidth_points"] < -0.1


def test_the_last_step_but_one_of_presets_is_physical_as_it_was() -> None:
    sweep = read_sweep(EXPERIMENTS / "presets/sweep.yaml")
    own = {"scheduling.channel_assignment": "gmlbp"}
    steps = [settings | {"preset": settings["preset"]} for settings in sweep.variants["step"].values()]
    assert steps[0] == {"preset": "asplos24"}
    assert steps[-2] == {"preset": "physical_2024"} | own

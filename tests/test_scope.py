"""One scope for a result: the whole system. Energies and shares that cannot be never get into one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_cases import Captured, run
from simulation_cases import small

import neupims_sim.simulation.run
from neupims_sim.config import load_config
from neupims_sim.errors import InternalError
from neupims_sim.plots.drawing import make_figure
from neupims_sim.report.runs import read_run_page
from neupims_sim.simulation import Result, simulate
from neupims_sim.sweeps import load_whole_results, sweep
from neupims_sim.sweeps.tables import to_markdown

SYSTEMS = ("npu_only", "npu_pim", "neupims")


def of(system: str, tensor: int = 1, pipeline: int = 1, **extra: Any) -> Result:
    chosen = {"parallel.tensor": tensor, "parallel.pipeline": pipeline, "scheduling.interleaving": "off", **extra}
    return simulate(small(system, chosen))


# --- the scope of figures ---


@pytest.mark.parametrize("system", SYSTEMS)
def test_more_devices_spend_about_the_same_energy_on_a_token(system: str) -> None:
    """The work is the same, whoever does it; only what every device of a group repeats comes on top (norms, activations)."""
    one, *others = (of(system, tensor) for tensor in (1, 2, 4))
    for other in others:
        assert other.energy_per_token_joules == pytest.approx(one.energy_per_token_joules, rel=0.06)
        assert other.traffic_bytes["read"] == pytest.approx(one.traffic_bytes["read"], rel=0.02)
        assert other.traffic_bytes["pim_internal"] == one.traffic_bytes["pim_internal"]
        for name in ("qkv", "projection", "ffn1", "ffn2"):
            assert other.operator_flops[name] == one.operator_flops[name]
        assert other.peak == {name: other.devices * peak for name, peak in one.peak.items()}


@pytest.mark.parametrize("system", [*SYSTEMS, "gpu_h100"])
@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (4, 1), (2, 2)])
def test_figures_of_a_result_fit_together(system: str, tensor: int, pipeline: int) -> None:
    result = of(system, tensor, pipeline)
    config = small(system)
    assert result.devices == tensor * pipeline
    assert result.throughput_per_s == pytest.approx(result.batch_size / result.seconds)
    if system == "gpu_h100":
        assert result.energy_per_token_joules is None
    else:
        joules = sum(result.energy_joules.values())
        assert (
            result.energy_per_token_joules == result.energy_per_item_joules == pytest.approx(joules / result.batch_size)
        )
        assert result.average_power_w == pytest.approx(result.throughput_per_s * joules / result.batch_size)
        memory = sum(amount for cause, amount in result.energy_joules.items() if not cause.startswith("npu_"))
        channels = config.memory.organization.channels * result.devices
        assert result.memory_power_w_per_channel == pytest.approx(memory / result.seconds / channels)
    block_s = result.block_cycles * 1e-9
    moved = result.traffic_bytes["read"] + result.traffic_bytes["write"]
    assert moved / block_s / result.peak["memory_bytes_per_s"] == pytest.approx(
        result.utilization["bandwidth"], rel=0.01
    )
    matrices = ("qkv", "projection", "ffn1", "ffn2", *(["attention"] if "attention" in result.operator_flops else []))
    done = sum(result.operator_flops[name] for name in matrices)
    assert done / block_s / result.peak["npu_flops_per_s"] == pytest.approx(result.utilization["npu"], rel=0.01)


def test_stages_of_a_pipeline_work_at_once() -> None:
    """Two stages read the weights of two layers in the time of a block, for half of the requests each."""
    one, two = of("npu_only"), of("npu_only", pipeline=2)
    weights = one.operator_bytes["ffn1"]
    assert two.operator_bytes["ffn1"] == pytest.approx(2 * weights, rel=0.1)
    assert two.operator_flops["ffn1"] == one.operator_flops["ffn1"]


def test_an_image_and_a_query_have_their_energy_too() -> None:
    images = simulate(load_config("npu_only", {"model": "vit-s16", "workload": "images", "workload.batch_size": 2}))
    assert images.energy_per_item_joules == pytest.approx(sum(images.energy_joules.values()) / 2)
    assert (images.devices, images.energy_per_token_joules) == (1, None)


# --- what people see ---


def test_the_table_of_a_run_says_how_many_devices_and_only_what_the_system_has(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small_run = ("--set", "model.layers=4", "--set", "workload.batch_size=8", "--out", "here")
    _, out, _ = run(capsys, "run", "npu_only", *small_run, "--set", "parallel.pipeline=2")
    assert "8 devices (tensor 4 x pipeline 2)" in out
    names = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    assert len(names) == len(set(names))
    assert {"time per output token", "energy per token", "energy in total", "average power", "iteration"} <= set(names)
    assert not [name for name in names if "pim" in name or "link" in name]
    page = read_run_page(Path("here"), Path("page.html"))
    assert page.title.endswith("8 devices")
    assert {"Devices": "8"}.items() <= {fact.name: fact.text for fact in page.facts}.items()
    _, out, _ = run(capsys, "run", "gpu_a100", *small_run)
    assert "4 devices (tensor 4)" in out
    for word in ("pim", "busy", "vector", "energy", " link", "0.00"):
        assert word not in out
    _, out, _ = run(capsys, "run", "neupims", *small_run, "--set", "parallel.tensor=1")
    assert "1 device\n" in out
    assert "utilization pim busy" in out


SWEEP = """
name: two
title: Two systems
base: {system: npu_only, model: {layers: 2, d_model: 256, heads: 4, d_ff: 512}, memory: {model: ideal}}
grid: {parallel.tensor: [%s], workload.batch_size: [4, 8]}
metrics: [throughput_tokens_per_s, energy_per_token_joules]
tables: [{title: Speed, rows: parallel.tensor, columns: workload.batch_size, value: throughput_tokens_per_s}]
"""


@pytest.mark.parametrize(("tensor", "words"), [("2", "2 devices"), ("1, 4", "1 to 4 devices")])
def test_tables_and_titles_of_a_sweep_say_how_many_devices(
    tensor: str, words: str, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "two.yaml").write_text(SWEEP % tensor)
    table = sweep(tmp_path / "two.yaml", tmp_path / "out", workers=1)
    expected = [int(n) for n in tensor.split(", ") for _ in range(2)]
    assert list(table["devices"]) == expected
    definition, whole = load_whole_results(tmp_path / "out")
    assert to_markdown(definition, whole).startswith(f"**Speed** (1000 tokens/s; columns: Batch size; {words})")
    figure = make_figure(definition, whole, "throughput_bars", {"x": "workload.batch_size", "hue": "parallel.tensor"})
    assert figure.get_suptitle() == f"Two systems, {words}"
    _, out, _ = run(capsys, "results", str(tmp_path / "out"))
    assert f"Two systems, {words}" in out
    assert ("Devices" in out) == (len(set(expected)) > 1)
    assert run(capsys, "report", str(tmp_path / "out"), "-o", str(tmp_path / "page.html"))[0] == 0
    assert words in (tmp_path / "page.html").read_text()


def test_an_axis_may_be_called_devices(tmp_path: Path) -> None:
    text = SWEEP.replace("parallel.tensor: [%s], ", "") + "variants: {devices: {few: {parallel.tensor: 1}}}\n"
    (tmp_path / "own.yaml").write_text(text.replace("rows: parallel.tensor", "rows: devices"))
    table = sweep(tmp_path / "own.yaml", tmp_path / "out", workers=1)
    assert list(table["devices"]) == ["few", "few"]


# --- what is never a result ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"utilization": {"bandwidth": 1.88}}, r"utilization.bandwidth=1.88 must be a share from 0 to 1"),
        ({"utilization": {"npu": -0.1}}, r"utilization.npu=-0.1"),
        ({"utilization": {"npu": math.nan}}, r"utilization.npu=nan"),
        ({"energy_joules": {"memory_read": -1.0}}, r"energy_joules.memory_read=-1 must be finite and not negative"),
        ({"energy_joules": {"memory_read": math.inf}}, r"energy_joules.memory_read=inf"),
        ({"average_power_w": math.nan}, r"average_power_w=nan"),
        ({"throughput_per_s": math.inf}, r"throughput_per_s=inf"),
    ],
    ids=str,
)
def test_a_result_that_cannot_be_is_an_internal_error(change: dict[str, Any], words: str) -> None:
    result = of("npu_only")
    with pytest.raises(InternalError, match=words):
        replace(result, **change)


def test_an_internal_error_is_one_line_and_exit_code_1(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(neupims_sim.simulation.run, "utilization", lambda *_: {"bandwidth": 1.88})
    code, out, err = run(capsys, "run", "npu_only", "--set", "model.layers=2", "--set", "workload.batch_size=4")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("internal error: utilization.bandwidth=1.88")
    assert "report it with the configuration" in err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("dataflow", ["ws", "is"])
def test_busy_arrays_do_not_multiply_more_than_they_can(dataflow: str) -> None:
    """Products and all-reduces count by their time, also where a window of `dataflow` cuts them."""
    arrays = {
        "npu.systolic.arrays": 1,
        "npu.systolic.rows": 32,
        "npu.systolic.columns": 16,
        "npu.systolic.dataflow": dataflow,
    }
    links = {"parallel.tensor": 2, "parallel.link": {"topology": "ring", "bandwidth_gbps": 0.1}}
    work = {"workload.context_tokens": 16, "workload.batch_size": 130, "simulation.layers": 1}
    for extra in (arrays | {"workload.batch_size": 512}, links):
        chosen = {"preset": "asplos24", "scheduling.interleaving": "dataflow", **work, **extra}
        result = simulate(small("neupims", chosen))
        assert max(result.utilization.values()) > 0.95
        assert max(result.utilization.values()) <= 1


def test_json_has_no_nan() -> None:
    json.dumps(of("npu_only").to_json(), allow_nan=False)

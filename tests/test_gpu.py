"""The GPU as a roofline: kernels of a trace, their times, whole runs, and the comparison with measurements."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_cases import Captured, run
from hypothesis import given, settings
from hypothesis import strategies as st

from neupims_sim.config import Config, GpuConfig, LinkConfig, ModelConfig, load_config, load_model
from neupims_sim.errors import InputError
from neupims_sim.simulation import Result, Timeline, simulate
from neupims_sim.system.gpu import Kernel, kernel_seconds, kernels, resident_bytes
from neupims_sim.trace import Trace, macs, write_trace
from neupims_sim.workloads import generate_llm

GPU = GpuConfig.model_validate(
    {"name": "round", "peak_flops": 100e12, "bandwidth_gbps": 1000, "capacity_bytes": 10**9, "kernel_launch_s": 1e-6}
)
FREE = LinkConfig()
CONTEXTS = (100, 37, 512)


def block(contexts: tuple[int, ...] = CONTEXTS, tensor: int = 1, model: str = "gpt3-7b") -> Trace:
    return generate_llm(load_model(model, ModelConfig), np.array(contexts), tensor_parallel=tensor)


def by_name(trace: Trace) -> Mapping[str, Kernel]:
    return {kernel.name: kernel for kernel in kernels(trace.operators)}


def seconds(kernel: Kernel, gpu: GpuConfig = GPU, link: LinkConfig = FREE) -> float:
    return kernel_seconds(kernel, gpu, link)


# --- kernels ---


def test_a_block_is_one_kernel_per_operator_and_one_for_all_attention() -> None:
    assert list(by_name(block())) == [
        *("attention_norm", "qkv", "kv_append", "attention", "projection", "attention_add"),
        *("ffn_norm", "ffn1", "gelu", "ffn2", "ffn_add"),
    ]


def test_attention_reads_queries_keys_and_values_and_keeps_its_logits() -> None:
    """Per request: query and result of d_model elements, K and V of context x d_model, 2 B each; 2 d_model macs per token."""
    attention, tokens = by_name(block())["attention"], sum(CONTEXTS)
    assert attention.read_bytes == 2 * 4096 * (len(CONTEXTS) + 2 * tokens)
    assert attention.write_bytes == 2 * 4096 * len(CONTEXTS)
    assert attention.macs == 2 * 4096 * tokens


def test_all_work_of_the_trace_is_in_its_kernels() -> None:
    """INV-3."""
    trace = block(tensor=4)
    assert sum(kernel.macs for kernel in kernels(trace.operators)) == sum(map(macs, trace.operators))
    assert [op for kernel in kernels(trace.operators) for op in kernel.operators] == list(trace.operators)


def test_a_gemm_bound_by_memory_by_hand() -> None:
    """Batch 3: 4096 x 12288 weights, biases, inputs and outputs over 1000 GB/s, and a launch of 1 us."""
    size = 2 * (4096 * 12288 + 12288 + 3 * 4096 + 3 * 12288)
    assert seconds(by_name(block())["qkv"]) == pytest.approx(size / 1e12 + 1e-6)


def test_a_gemm_bound_by_arithmetic_by_hand() -> None:
    """1024 requests: 2 x 1024 x 4096 x 12288 FLOPs at half of 100 TFLOP/s, and a launch of 1 us."""
    gpu = GPU.model_copy(update={"gemm_efficiency": 0.5})
    kernel = by_name(block((1,) * 1024))["qkv"]
    assert seconds(kernel, gpu) == pytest.approx(2 * 1024 * 4096 * 12288 / 50e12 + 1e-6)


@pytest.mark.parametrize(
    ("efficiency", "slower"),
    [("gemm", "ffn1"), ("attention", "attention"), ("elementwise", "gelu")],
)
def test_an_efficiency_slows_its_class_and_no_other(efficiency: str, slower: str) -> None:
    gpu = GPU.model_copy(update={f"{efficiency}_efficiency": 0.25, "kernel_launch_s": 0.0})
    best = GPU.model_copy(update={"kernel_launch_s": 0.0})
    found = {name: seconds(kernel, gpu) / seconds(kernel, best) for name, kernel in by_name(block()).items()}
    assert found[slower] == pytest.approx(4)
    for name in {"ffn1", "attention", "gelu"} - {slower}:
        assert found[name] == pytest.approx(1)


def test_an_all_reduce_takes_its_link_or_nothing() -> None:
    """3 x 4096 x 2 B on 4 devices at 24.576 GB/s: 6 steps of 0.25 us, and a launch of 1 us."""
    kernel = by_name(block(tensor=4))["ffn_all_reduce"]
    assert seconds(kernel, link=LinkConfig(topology="ring", bandwidth_gbps=24.576)) == pytest.approx(2.5e-6)
    assert seconds(kernel) == 0


@given(
    batch=st.integers(1, 300),
    context=st.integers(1, 2000),
    faster=st.floats(1, 10),
    efficiency=st.floats(0.1, 1),
)
@settings(max_examples=25, deadline=None)
def test_the_roofline_bounds_every_kernel(batch: int, context: int, faster: float, efficiency: float) -> None:
    """INV-5 and INV-6: never faster than arithmetic or memory alone; more bandwidth is never slower."""
    updates = {f"{name}_efficiency": efficiency for name in ("gemm", "attention", "elementwise")}
    gpu = GPU.model_copy(update=updates)
    better = gpu.model_copy(update={"bandwidth_gbps": faster * gpu.bandwidth_gbps})
    for kernel in kernels(block((context,) * batch).operators):
        time = seconds(kernel, gpu)
        assert time >= 2 * kernel.macs / gpu.peak_flops.float16
        assert time >= (kernel.read_bytes + kernel.write_bytes) / (gpu.bandwidth_gbps * 1e9)
        assert seconds(kernel, better) <= time


def test_weights_stay_on_the_device_once_per_layer() -> None:
    matrices, vectors = 12 * 4096**2, 9 * 4096 + 4 * 4096
    assert resident_bytes(block().operators) == {
        "weights": 32 * 2 * (matrices + vectors),
        "K and V": 32 * 2 * 2 * 4096 * sum(CONTEXTS),
        "state": 0,
    }


# --- runs ---


def gpu_config(system: str = "gpu_a100", **extra: Any) -> Config:
    return load_config(system, {"workload.batch_size": 64, **extra})


def test_an_iteration_is_the_sum_of_its_kernels() -> None:
    config = gpu_config()
    result = simulate(config)
    assert config.gpu is not None
    by_layer = sum(record.end_cycle - record.start_cycle for record in result.observations.operators)
    assert result.block_cycles == by_layer
    assert result.seconds == pytest.approx(32 * result.block_cycles * 1e-9, rel=1e-4)
    assert result.throughput_tokens_per_s == pytest.approx(64 / result.seconds)
    assert sum(result.operator_cycles.values()) == pytest.approx(result.cycles, rel=1e-4)
    assert 0 < result.utilization["npu"] < result.utilization["bandwidth"] < 1
    assert result.commands == result.energy_joules == result.stages == {}


def test_shares_of_the_peak_by_hand() -> None:
    config = gpu_config()
    result = simulate(config)
    assert config.gpu is not None
    moved = sum(result.traffic_bytes.values())
    assert result.utilization["bandwidth"] == pytest.approx(moved / (4 * 1555e9 * result.block_cycles * 1e-9), rel=1e-4)
    done = sum(record.macs for record in result.observations.operators)
    assert result.utilization["npu"] == pytest.approx(2 * done / (312e12 * result.block_cycles * 1e-9), rel=1e-4)


def test_the_h100_is_faster_and_more_devices_are_too() -> None:
    a100, h100 = (simulate(gpu_config(system)) for system in ("gpu_a100", "gpu_h100"))
    assert h100.throughput_per_s > a100.throughput_per_s
    two, four = (simulate(gpu_config(**{"parallel.tensor": n})) for n in (2, 4))
    assert four.throughput_per_s > two.throughput_per_s
    assert four.traffic_bytes["read"] / 4 < two.traffic_bytes["read"] / 2


def test_a_link_costs_a_gpu_time() -> None:
    link = {"parallel.link": {"topology": "ring", "bandwidth_gbps": 300}}
    free, ring = (simulate(gpu_config(**extra)) for extra in ({}, link))
    reduced = 2 * (6 * 64 * 4096 * 2 / 4 / 300e9 + 0.5e-6) * 1e9
    assert ring.block_cycles - free.block_cycles == pytest.approx(reduced, abs=1)
    assert ring.utilization["link"] == pytest.approx(reduced / ring.block_cycles, rel=0.01)


def test_all_reduces_are_work_of_the_link() -> None:
    links = {"parallel.link.topology": "ring", "parallel.link.bandwidth_gbps": 300}
    units = simulate(gpu_config("gpu_a100", **{"parallel.tensor": 4}, **links)).operator_unit
    assert {name for name, unit in units.items() if unit == "link"} == {"projection_all_reduce", "ffn_all_reduce"}
    assert set(units.values()) == {"link", "GPU"}


def test_a_pipeline_of_gpus_gives_a_micro_batch_per_stage_time() -> None:
    result = simulate(gpu_config(**{"parallel.pipeline": 2}))
    assert result.layers == 16
    assert result.throughput_per_s == pytest.approx(32 / (16 * result.block_cycles * 1e-9), rel=1e-4)


def test_weights_and_caches_beyond_the_memory_are_refused_with_the_numbers() -> None:
    """INV-9: GPT3-7B has 12.9 GB of weights in its blocks and 0.5 MiB of K and V per token."""
    config = gpu_config(**{"parallel.tensor": 1, "workload.batch_size": 512, "workload.dataset": "sharegpt"})
    with pytest.raises(InputError, match=r"'a100_40gb_sxm' needs [\d,]+ B and has 42,949,672,960 B: 12,[\d,]+ B of w"):
        simulate(config)
    assert simulate(gpu_config("gpu_h100", **{"parallel.tensor": 4})).throughput_per_s > 0


def test_every_stage_keeps_the_caches_of_all_micro_batches() -> None:
    """512 contexts in 8 layers, 16 KiB per token and layer: about 20 GB, of which a micro-batch is a quarter."""
    stages = {"parallel.tensor": 1, "parallel.pipeline": 4, "workload.batch_size": 512}
    mean_context = simulate(gpu_config("gpu_h100", **stages)).mean_context_tokens
    assert mean_context is not None
    caches = int(512 * mean_context * 8 * 16 * 1024)
    with pytest.raises(InputError, match="does not fit"):
        simulate(gpu_config("gpu_h100", **stages, **{"gpu.capacity_bytes": caches}))


@pytest.mark.parametrize(
    ("overrides", "item"),
    [
        ({"model": "vit-b16", "workload": "images", "workload.batch_size": 8}, "images"),
        ({"model": "resnet50", "workload": "images", "workload.batch_size": 2}, "images"),
        ({"model": "resnet50", "workload": "search_1m"}, "queries"),
        ({"model": "resnet50", "workload": "retrieval_1m", "workload.image_size": "256x256"}, "queries"),
    ],
    ids=str,
)
def test_images_and_retrieval_run_on_a_gpu(overrides: dict[str, Any], item: str) -> None:
    result = simulate(load_config("gpu_a100", overrides))
    assert result.item == item
    assert result.throughput_per_s == pytest.approx(result.batch_size / result.seconds)
    assert 0 < result.utilization["npu"] <= 1
    assert 0 < result.utilization["bandwidth"] <= 1
    assert sum(result.operator_cycles.values()) == pytest.approx(result.cycles, rel=1e-3)


def test_a_search_reads_the_whole_database() -> None:
    result = simulate(load_config("gpu_a100", {"model": "resnet50", "workload": "search_1m"}))
    assert result.traffic_bytes["read"] > 2 * 2048 * 10**6
    assert result.seconds > 2 * 2048 * 10**6 / 1555e9
    with pytest.raises(InputError, match=r"does not fit.* of state"):
        simulate(load_config("gpu_a100", {"model": "resnet50", "workload": "search_1m", "workload.database": 10**8}))


def test_a_trace_file_is_repeated_as_it_says(tmp_path: Path) -> None:
    trace = block()
    write_trace(tmp_path / "t.jsonl", trace.header, trace.operators)
    table = {"name": "mine", "kind": "trace", "path": str(tmp_path / "t.jsonl")}
    result = simulate(load_config("gpu_a100", {"workload": table}))
    gpu = load_config("gpu_a100").gpu
    assert gpu is not None
    expected = 32 * sum(seconds(kernel, gpu) for kernel in kernels(trace.operators))
    assert result.seconds == pytest.approx(expected)
    assert result.item == "traces"


def test_snapshots_and_repeated_runs_give_the_same_bytes() -> None:
    """INV-7."""
    results = [simulate(gpu_config(**{"simulation.snapshots": 4})) for _ in range(2)]
    assert json.dumps(results[0].to_json()) == json.dumps(results[1].to_json())
    assert results[0].throughput_ci95_per_s is not None
    assert 0 < results[0].throughput_ci95_per_s < results[0].throughput_per_s


def test_npu_and_memory_say_nothing_on_a_gpu() -> None:
    def metrics(result: Result) -> dict[str, Any]:
        return result.to_json() | {"config_hash": ""}

    one, other = (simulate(gpu_config(**extra)) for extra in ({}, {"memory": "hbm3", "npu.systolic.arrays": 1}))
    assert metrics(one) == metrics(other)


@pytest.mark.parametrize(
    ("system", "peaks"), [("gpu_a100", (624e12, 312e12, 19.5e12)), ("gpu_h100", (1978.9e12, 989.4e12, 67e12))]
)
def test_a_gpu_moves_the_bytes_and_has_the_peak_of_the_number_format(system: str, peaks: tuple[float, ...]) -> None:
    results = [simulate(gpu_config(system, **{"npu.element_bytes": size})) for size in (1, 2, 4)]
    assert tuple(result.peak["npu_flops_per_s"] / 4 for result in results) == peaks
    moved = [sum(result.traffic_bytes.values()) for result in results]
    assert moved == [moved[0], 2 * moved[0], 4 * moved[0]]
    launches = 32 * 11 * 0.5e-6  # 64 requests: bound by memory but for the launch of 11 kernels per layer
    assert results[1].seconds - launches == pytest.approx(2 * (results[0].seconds - launches))
    for result, peak in zip(results, peaks, strict=True):
        done = 2 * sum(record.macs for record in result.observations.operators)
        assert result.utilization["npu"] == pytest.approx(done / (peak * result.block_cycles * 1e-9), rel=1e-4)


def test_a_format_that_a_gpu_does_not_compute_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"overrides: npu.element_bytes=1: gpu 'x' has no gpu.peak_flops.float8; allowed: 2"
    ):
        load_config("gpu_h100", {"gpu.name": "x", "gpu.peak_flops": 1e14, "npu.element_bytes": 1})
    trace = generate_llm(load_model("gpt3-7b", ModelConfig), CONTEXTS, dtype="int8")
    write_trace(tmp_path / "t.jsonl", trace.header, trace.operators)
    table = {"name": "mine", "kind": "trace", "path": str(tmp_path / "t.jsonl")}
    assert simulate(load_config("gpu_a100", {"workload": table})).peak["npu_flops_per_s"] == 624e12
    with pytest.raises(InputError, match=r"qkv: gpu 'a100_40gb_sxm' has no gpu\.peak_flops\.int8"):
        simulate(load_config("gpu_a100", {"workload": table, "gpu.peak_flops": 312e12}))


def test_a_wide_format_is_not_narrowed_to_that_of_the_weights() -> None:
    """8-bit weights of fp16 activations are multiplied in fp16."""
    operators = [
        replace(op, inputs=tuple(replace(t, dtype="int8") if t.role == "weight" else t for t in op.inputs))
        for op in block().operators
    ]
    assert {kernel.dtype for kernel in kernels(operators) if kernel.macs} == {"float16"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"gpu.peak_flop": 1}, "did you mean peak_flops"),
        ({"gpu.gemm_efficiency": 1.5}, "gemm_efficiency=1.5"),
        ({"gpu.capacity_bytes": "40 apples"}, "40 apples"),
        ({"gpu.bandwidth_gbps": 0}, "bandwidth_gbps=0"),
    ],
    ids=str,
)
def test_bad_gpus_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config("gpu_a100", overrides)


def test_a_gpu_has_no_timeline() -> None:
    with pytest.raises(InputError, match="timeline"):
        simulate(gpu_config(), Timeline())


def test_the_command_line_runs_a_gpu(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "run", "gpu_a100", "--set", "simulation.snapshots=3")
    assert code == 0
    assert "95 % confidence, 3 snapshots" in out
    code, out, _ = run(capsys, "run", "gpu_a100", "--json", "--out", "here")
    assert (code, out) == (0, Path("here/result.json").read_text())
    assert run(capsys, "run", "here/config.yaml", "--out", "there")[0] == 0
    assert Path("there/result.json").read_text() == out


# --- comparison with measurements ---


@pytest.fixture(scope="module")
def comparison() -> ModuleType:
    path = Path(__file__).parents[1] / "experiments" / "gpu_validation" / "compare.py"
    spec = importlib.util.spec_from_file_location("gpu_compare", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WHERE = {"date": "2000-01-01", "device": "Synthetic", "driver": "0", "torch": "0"}
SHAPE = {"model": "gpt3-7b", "tensor": 4, "batch": 64}


@pytest.fixture
def measurements(tmp_path: Path) -> Path:
    """A GPU that reaches half of the H100's roofline in GEMMs and a quarter in attention."""
    gpu = load_config("gpu_h100").gpu
    assert gpu is not None
    bare, rows = gpu.model_copy(update={"kernel_launch_s": 0.0}), []
    for context, names in ((1, ("qkv", "projection", "ffn1", "ffn2")), (256, ("attention",))):
        found = by_name(block((context,) * 64, tensor=4))
        for name in names:
            reached = 0.25 if name == "attention" else 0.5
            row = {"context": context, "kernel": name, "seconds": seconds(found[name], bare) / reached}
            rows.append(WHERE | SHAPE | row)
    path = tmp_path / "measured.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_measurements_are_compared_with_the_roofline(
    comparison: ModuleType, measurements: Path, tmp_path: Path
) -> None:
    assert comparison.main([str(measurements), "gpu_h100", "--out", str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert dict(zip(table["kernel"], table["fraction"].round(6), strict=True)) == {
        **dict.fromkeys(("qkv", "projection", "ffn1", "ffn2"), 0.5),
        "attention": 0.25,
    }
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert "Measured on Synthetic (driver 0, PyTorch 0) on 2000-01-01" in page
    assert "| attention | 1 | 0.25 | 0.25 | 0.25 |" in page
    assert (tmp_path / "out" / "comparison.pdf").stat().st_size > 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("date,device\n1,2\n", "column 'driver' is missing"),
        (",".join([*WHERE, *SHAPE, "context,kernel,seconds"]) + "\n", "there must be rows"),
        (
            ",".join([*WHERE, *SHAPE, "context,kernel,seconds"]) + "\n0,0,0,0,gpt3-7b,4,64,1,qk,1\n",
            "kernel 'qk' is not",
        ),
    ],
    ids=["column", "empty", "kernel"],
)
def test_bad_measurements_are_one_line_and_exit_code_2(
    comparison: ModuleType, tmp_path: Path, capsys: Captured, text: str, message: str
) -> None:
    (tmp_path / "bad.csv").write_text(text)
    assert comparison.main([str(tmp_path / "bad.csv"), "gpu_h100"]) == 2
    assert message in capsys.readouterr().err


def test_a_system_without_a_gpu_is_refused(comparison: ModuleType, measurements: Path, capsys: Captured) -> None:
    assert comparison.main([str(measurements), "neupims"]) == 2
    assert "no GPU system" in capsys.readouterr().err

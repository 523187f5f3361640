"""One run, from a configuration to a Result."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from simulation_cases import small

import neupims_sim
from neupims_sim.config import Config, load_config
from neupims_sim.errors import InputError
from neupims_sim.simulation import POLICIES, Result, check_config_names, simulate, write_run
from neupims_sim.validation.golden import read_golden


def test_the_package_offers_its_three_functions() -> None:
    assert neupims_sim.load_config is load_config
    assert neupims_sim.simulate is simulate
    assert callable(neupims_sim.sweep)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = neupims_sim.nonsense


@pytest.mark.parametrize("interleaving", ["off", "lockstep", "dataflow"])
def test_every_interleaving_ends_and_does_the_same_work(interleaving: str) -> None:
    off = simulate(small(settings={"scheduling.interleaving": "off", "simulation.layers": 4}))
    result = simulate(small(settings={"scheduling.interleaving": interleaving, "simulation.layers": 4}))
    assert result.interleaving == interleaving
    assert result.observations.npu_macs == off.observations.npu_macs
    assert result.observations.pim_macs == off.observations.pim_macs
    assert list(result.stages) == {"off": list("ABE"), "lockstep": list("ABCDEF"), "dataflow": []}[interleaving]


@pytest.mark.parametrize("interleaving", ["off", "lockstep", "dataflow"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_models_with_too_few_layers_for_a_steady_state_are_simulated_whole(interleaving: str, layers: int) -> None:
    result = simulate(small(settings={"model.layers": layers, "scheduling.interleaving": interleaving}))
    assert result.layers == layers
    assert result.block_cycles > 0
    assert 0 < result.utilization["bandwidth"] <= 1
    assert result.cycles >= result.simulated_cycles
    assert result.cycles == result.simulated_cycles or layers > result.simulated_layers


@pytest.mark.parametrize("interleaving", ["off", "lockstep"])
@pytest.mark.parametrize("preset", ["physical", "asplos24"])
def test_more_simulated_layers_give_the_same_answer(interleaving: str, preset: str) -> None:
    settings = {
        "preset": preset,
        "scheduling.interleaving": interleaving,
        "model.layers": 8,
        "workload.batch_size": 64,
    }
    two, four, all_ = (simulate(small(settings=settings | {"simulation.layers": n})) for n in (2, 4, 8))
    assert two.simulated_layers < four.simulated_layers < all_.simulated_layers
    for result in (two, four):
        assert result.block_cycles == pytest.approx(all_.block_cycles, rel=0.01)
        assert result.cycles == pytest.approx(all_.cycles, rel=0.01)


@pytest.mark.parametrize("preset", ["physical", "asplos24"])
def test_neupims_is_faster_than_npu_pim_is_faster_than_the_npu_alone(preset: str) -> None:
    """GPT3-7B, ShareGPT, batch 256: the claim that the demo shows."""
    systems = ("neupims", "npu_pim", "npu_only")
    throughput = [
        simulate(load_config(system, {"preset": preset, "workload.batch_size": 256})).throughput_tokens_per_s
        for system in systems
    ]
    assert throughput[0] > throughput[1] > throughput[2]


def test_a_request_need_not_wait_for_the_others() -> None:
    """``barrier: request`` gives freedom; it may not cost more than noise."""
    by_request, by_operator = (
        simulate(small(settings={"scheduling.barrier": barrier, "workload.batch_size": 64}))
        for barrier in ("request", "operator")
    )
    assert by_request.cycles <= 1.02 * by_operator.cycles
    assert by_request.observations.pim_macs == by_operator.observations.pim_macs


@pytest.mark.parametrize("system", ["neupims", "npu_only"])
def test_grouped_queries_run(system: str) -> None:
    config = load_config(system, {"model": "llama-3-8b", "model.layers": 2, "workload.batch_size": 16})
    assert config.model.kv_heads < config.model.heads
    result = simulate(config)
    assert result.throughput_tokens_per_s > 0


def test_tensor_parallel_devices_have_a_share_of_the_work() -> None:
    one, two = (simulate(small(settings={"parallel.tensor": n, "workload.batch_size": 32})) for n in (1, 2))
    assert two.observations.npu_macs * 2 == one.observations.npu_macs
    assert two.cycles < one.cycles


def test_a_pipeline_stage_has_a_share_of_layers_and_requests() -> None:
    result = simulate(small(settings={"parallel.pipeline": 2, "workload.batch_size": 32}))
    assert result.layers == 2
    assert result.batch_size == 32
    assert result.throughput_tokens_per_s == pytest.approx(32 / result.seconds)


@pytest.mark.parametrize(
    "settings",
    [
        {"clock_ghz": 0.7},
        {"clock_ghz": 1.3},
        {"memory.organization.clock_ghz": 1.2},
        {"memory.organization.clock_ghz": 0.75, "scheduling.interleaving": "lockstep"},
    ],
    ids=str,
)
def test_device_and_memory_may_have_clocks_of_any_ratio(settings: dict[str, Any]) -> None:
    result = simulate(small(settings=settings))
    assert result.seconds == pytest.approx(result.cycles / (settings.get("clock_ghz", 1.0) * 1e9))


def test_the_unit_of_time_does_not_matter() -> None:
    slow, fast = (
        simulate(small(settings={"clock_ghz": ghz, "memory.organization.clock_ghz": ghz})) for ghz in (1.0, 2.0)
    )
    assert slow.cycles == fast.cycles
    assert slow.seconds == 2 * fast.seconds


def test_the_ideal_memory_is_not_slower_than_commands() -> None:
    ideal, command = (simulate(small("npu_only", {"memory.model": model})) for model in ("ideal", "command"))
    assert ideal.cycles <= command.cycles
    assert ideal.observations.npu_macs == command.observations.npu_macs


@pytest.mark.parametrize(
    ("key", "name", "nearest"),
    [
        ("scheduling.partition", "balancd", "balanced"),
        ("scheduling.channel_assignment", "gmlb", "gmlbp"),
        ("npu.systolic.sharing", "splitn", "split_n"),
        ("memory.model", "comand", "command"),
    ],
)
def test_a_misspelt_policy_is_refused_with_the_nearest_name(key: str, name: str, nearest: str) -> None:
    assert key in POLICIES
    config = small(settings={key: name})
    with pytest.raises(InputError, match=rf"{key}='{name}'.*did you mean {nearest}\?"):
        check_config_names(config)
    with pytest.raises(InputError, match="did you mean"):
        simulate(config)


@pytest.mark.parametrize("settings", [{"workload.phase": "prefill"}, {"workload.lm_head": True}], ids=str)
def test_what_is_not_simulated_yet_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="can be traced but not simulated yet"):
        simulate(small(settings=settings))


def test_one_request_cannot_be_interleaved() -> None:
    with pytest.raises(InputError, match="needs at least two requests"):
        simulate(small(settings={"workload.batch_size": 1, "scheduling.interleaving": "lockstep"}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Result, Path]:
    config = small(settings={"scheduling.interleaving": "lockstep"})
    result = simulate(config)
    directory = tmp_path_factory.mktemp("run")
    write_run(result, config, directory, 1.5)
    return config, result, directory


def test_a_run_directory_tells_what_was_run_and_what_came_out(finished: tuple[Config, Result, Path]) -> None:
    config, result, directory = finished
    assert {path.name for path in directory.iterdir()} == {
        "config.yaml",
        "result.json",
        "operators.csv",
        "provenance.json",
    }
    assert Config.model_validate(yaml.safe_load((directory / "config.yaml").read_text())) == config
    stored = json.loads((directory / "result.json").read_text())
    assert stored == json.loads(json.dumps(result.to_json()))
    provenance = json.loads((directory / "provenance.json").read_text())
    assert provenance["neupims_sim"] == neupims_sim.__version__
    assert provenance["wall_seconds"] == 1.5
    assert provenance["config_hash"] == stored["config_hash"]


def test_operators_run_after_what_they_depend_on(finished: tuple[Config, Result, Path]) -> None:
    _, _, directory = finished
    with (directory / "operators.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = {
        (row["layer"], row["sub_batch"], row["operator"], row["request"]): (
            int(row["start_cycle"]),
            int(row["end_cycle"]),
        )
        for row in rows
    }
    assert len(steps) == len(rows)
    for (layer, sub_batch, name, request), (start, end) in steps.items():
        assert start <= end
        before = {"softmax": "logits", "attend": "softmax"}.get(name)
        if before:
            assert steps[layer, sub_batch, before, request][1] <= start
        before = {"ffn1": "ffn_norm", "ffn2": "gelu"}.get(name)
        if before:
            assert steps[layer, sub_batch, before, ""][1] <= start
        tiles_of = {"gelu": "ffn1", "kv_append": "qkv", "ffn_norm": "projection"}.get(name)
        if tiles_of:
            assert steps[layer, sub_batch, tiles_of, ""][1] <= end


def starts_and_ends(result: Result, operator: str, layer: int = 0) -> tuple[list[int], list[int]]:
    """(start, end) cycles of an attention step of all requests of sub-batch 0, in order of the request."""
    records = [r for r in result.observations.operators if (r.operator, r.layer, r.sub_batch) == (operator, layer, 0)]
    records.sort(key=lambda record: record.request if record.request is not None else -1)
    return [record.start_cycle for record in records], [record.end_cycle for record in records]


def test_operator_barrier_no_request_attends_before_every_request_has_its_probabilities() -> None:
    settings = {"scheduling.interleaving": "off", "workload.batch_size": 64}
    result = simulate(small(settings=settings | {"scheduling.barrier": "operator"}))
    assert min(starts_and_ends(result, "attend")[0]) >= max(starts_and_ends(result, "softmax")[1])


def test_request_barrier_a_request_attends_when_its_own_probabilities_are_there() -> None:
    settings = {"scheduling.interleaving": "off", "workload.batch_size": 64}
    result = simulate(small(settings=settings | {"scheduling.barrier": "request"}))
    attends, softmaxes = starts_and_ends(result, "attend")[0], starts_and_ends(result, "softmax")[1]
    assert all(attend >= softmax for attend, softmax in zip(attends, softmaxes, strict=True))
    assert min(attends) < max(softmaxes)


@pytest.mark.parametrize(
    ("system", "requests", "interleaving", "golden", "stages"),
    [
        ("neupims", 32, "off", ("neupims", "sharegpt_32"), "AE"),
        ("npu_pim", 32, "off", ("npu_pim", "sharegpt_32"), "AE"),
        ("npu_pim", 512, "off", ("npu_pim", "sharegpt_512_clb_0"), "AE"),
        ("neupims", 512, "lockstep", ("neupims", "sharegpt_512_clb_0"), "AF"),
    ],
)
def test_stages_without_attention_take_as_long_as_in_the_published_artifact(
    system: str, requests: int, interleaving: str, golden: tuple[str, str], stages: str
) -> None:
    """Stages of GEMMs only depend on how many requests there are, so any batch of that size may be compared.

    Within 15 %; ``docs/validation.md`` has all stages, with the artifact's own batches.
    """
    row = next(row for row in read_golden("block_cycles") if (row["system"], row["requests"]) == golden)
    settings = {
        "preset": "asplos24",
        "workload.batch_size": requests,
        "scheduling.interleaving": interleaving,
    }
    result = simulate(load_config(system, settings))
    for stage in stages:
        assert result.stages[stage] == pytest.approx(int(row[stage]), rel=0.15), stage

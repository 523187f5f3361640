"""A key that changes nothing is told, one that contradicts another statement refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from neupims_sim import load_config
from neupims_sim.cli import main
from neupims_sim.config import dump_config
from neupims_sim.config.variations import Variations
from neupims_sim.errors import IneffectiveKeyWarning, InputError
from neupims_sim.sweeps import expand, read_sweep
from neupims_sim.sweeps.points import UnusedKeys


def told(system: str, overrides: dict[str, Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_config(system, overrides)
    return [str(one.message) for one in caught if issubclass(one.category, IneffectiveKeyWarning)]


@pytest.fixture
def requests(tmp_path: Path) -> str:
    (tmp_path / "batch.csv").write_text("seq_len\n50\n70\n")
    return str(tmp_path / "batch.csv")


@pytest.mark.parametrize("key", ["batch_size", "dataset", "warmup.iterations"])
def test_what_a_file_of_requests_has_taken_the_place_of_is_refused(requests: str, key: str, tmp_path: Path) -> None:
    value = "alpaca" if key == "dataset" else 7
    expected = f"workload.{key} changes nothing: workload.requests='{requests}' states the requests"
    with pytest.raises(InputError, match=f"^overrides: {expected}"):
        load_config("npu_only", {"workload.requests": requests, f"workload.{key}": value})
    (tmp_path / "mine.yaml").write_text(
        f"include: npu_only\nworkload:\n  base: sharegpt\n  requests: {requests}\n  batch_size: 9\n"
    )
    assert load_config(tmp_path / "mine.yaml").workload.requests == requests
    with pytest.raises(InputError, match=f"^--set: {expected}"):
        load_config(tmp_path / "mine.yaml", [f"workload.{key}={value}"])
    drawn = load_config(tmp_path / "mine.yaml", {"workload.requests": None, f"workload.{key}": value})
    assert drawn.workload.requests is None


def test_lengths_that_are_stated_are_not_drawn() -> None:
    with pytest.raises(
        InputError, match=r"workload\.dataset changes nothing: workload\.context_tokens=9 is the length"
    ):
        load_config("npu_only", {"workload.context_tokens": 9, "workload.dataset": "alpaca"})


@pytest.mark.parametrize(
    ("system", "overrides", "expected"),
    [
        ("gpu_h100", {"npu.systolic.arrays": 4}, "npu.systolic.arrays changes nothing: gpu=h100_80gb_sxm runs instead"),
        ("gpu_h100", {"scheduling": {"interleaving": "off"}}, "scheduling.interleaving changes nothing: gpu="),
        ("gpu_h100", {"memory": "hbm3"}, "memory changes nothing: gpu="),
        ("npu_only", {"memory.pim.multipliers_per_bank": 8}, "nothing runs in PIM"),
        ("npu_only", {"scheduling.channel_assignment": "round_robin"}, "no attention of requests runs in PIM"),
        ("neupims", {"scheduling.interleaving": "off", "scheduling.partition": "balanced"}, "the batch is not divided"),
        ("neupims", {"parallel.tensor": 1, "parallel.link.topology": "none"}, "there is one device"),
        ("neupims", {"parallel.link.topology": "none", "parallel.link.latency_ns": 5}, "links are free"),
        ("neupims", {"parallel.batch": "per_stage"}, "there is one micro-batch"),
        ("gpu_h100", {"npu.energy.sram_pj_per_byte": 5}, "gpu=h100_80gb_sxm runs instead"),
        ("gpu_h100", {"simulation.layers": 5}, "gpu=h100_80gb_sxm runs instead"),
        ("gpu_h100", {"gpu.peak_flops.float8": 1e15}, "the number format is float16"),
        ("gpu_h100", {"gpu.peak_flops": 1e15, "npu.element_bytes": 2, "model.vocabulary": 9}, "neither embedding nor"),
        ("npu_only", {"npu.energy.mac_pj.float8": 1}, "the number format is float16"),
        ("npu_only", {"npu.element_bytes": 1, "npu.energy.mac_pj": 1}, "the number format is float8"),
        ("npu_only", {"memory.power.dot_product_pj_per_byte": 1}, "nothing runs in PIM"),
        (
            "npu_only",
            {"memory.organization.row_bytes": 2048},
            "row_bytes changes no currents: memory.power has those of",
        ),
        ("npu_pim", {"memory.power.pim_idd3n_ma": 1}, "memory.row_buffers=single, not dual"),
        ("npu_only", {"memory.power.idd5pb_ma": 100}, "memory.controller.refresh="),
        ("npu_only", {"memory.controller.page_timeout_cycles": 1}, "memory.controller.page_policy=open"),
        ("neupims", {"memory.controller.pim_max_wait_cycles": 1}, "memory.controller.pim_priority=pim_first"),
        ("npu_only", {"memory.ideal_latency_cycles": 1}, "memory.model=command"),
        ("npu_only", {"memory.model": "ideal", "memory.timing.tRP": 9}, "memory.model=ideal knows"),
        ("npu_pim", {"scheduling.load_tile_cycles": 9}, "neither channel assignment nor partition goes by load"),
        ("npu_only", {"scheduling.load_tile_cycles": 9}, "no attention of requests runs in PIM"),
        ("neupims", {"mapping.npu_attention": "serial"}, "no attention of requests runs on the NPU"),
        ("neupims", {"mapping.search_program_tiles": 9}, "nothing is searched"),
        ("neupims", {"simulation.queries": 9}, "no batch of queries is simulated"),
        ("neupims", {"search_on": "npu"}, "nothing is searched"),
        ("neupims", {"workload.context_tokens": 9, "seed": 1}, "all requests are alike"),
        ("neupims", {"scheduling.request_order": "file"}, "there is no file of requests"),
        ("npu_only", {"workload": "search_1m", "model.layers": 1}, "workload.extract=false: no model runs"),
        ("neupims", {"workload": "search_1m", "npu.systolic.arrays": 1}, "search in PIM alone leaves the arrays idle"),
    ],
)
def test_a_key_without_effect_is_told_with_the_reason(system: str, overrides: dict[str, Any], expected: str) -> None:
    (message,) = [text for text in told(system, overrides) if expected in text]
    assert message.startswith("overrides ")


@pytest.mark.parametrize(
    ("system", "overrides"),
    [
        ("gpu_h100", {"workload.batch_size": 4, "npu.element_bytes": 2, "model": "gpt3-13b"}),
        ("neupims", {"memory.pim.multipliers_per_bank": 8, "scheduling.partition": "balanced"}),
        ("npu_only", {"workload": "search_1m", "search_on": "pim", "memory": "hbm2_pim_dual"}),
        ("neupims", {"parallel.pipeline": 2, "parallel.batch": "per_stage"}),
        ("npu_only", {"workload.requests": None, "workload.batch_size": 4}),
        ("gpu_h100", {"gpu.peak_flops": 1e15, "parallel.link": {"topology": "ring", "bandwidth_gbps": 9}}),
        ("gpu_a100", {"npu.element_bytes": 1, "gpu.peak_flops.int8": 1e15}),
        ("npu_only", {"memory.model": "ideal", "memory.power.vdd_v": 1.1}),
        ("npu_only", {"memory.organization.row_bytes": 2048, "memory.power.idd0_ma": 90}),
        ("npu_only", {"memory.organization.row_bytes": 2048, "memory.power": None}),
        ("npu_only", {"npu.element_bytes": 1, "npu.energy.mac_pj.float8": 1}),
        ("npu_only", {"workload": "search_1m", "workload.rerank": "cvnet", "workload.image_size": 64}),
        ("neupims", {"scheduling.partition": "balanced", "scheduling.load_tile_cycles": 9}),
    ],
)
def test_keys_with_effect_are_not_told(system: str, overrides: dict[str, Any]) -> None:
    assert told(system, overrides) == []


def test_a_file_tells_what_it_states_itself(tmp_path: Path) -> None:
    """Not what it includes, which may have other uses, nor a complete configuration, which has every key."""
    (tmp_path / "common.yaml").write_text("include: gpu_h100\nscheduling: {barrier: operator}\n")
    (tmp_path / "mine.yaml").write_text(
        "include: common.yaml\nmodel: gpt3-13b\nmapping: {write_kv: false}\nmemory: hbm3\n"
    )
    messages = told(str(tmp_path / "mine.yaml"), {})
    assert [message.split(" changes ")[0] for message in sorted(messages)] == [
        f"{tmp_path / 'mine.yaml'}: {key}" for key in ("mapping.write_kv", "memory")
    ]
    (tmp_path / "whole.yaml").write_text(dump_config(load_config("gpu_h100")))
    assert told(str(tmp_path / "whole.yaml"), {}) == []


def test_the_command_line_tells_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["config", "show", "gpu_h100", "--set", "mapping.write_kv=false"])
    assert stopped.value.code in (0, None)
    err = capsys.readouterr().err
    assert err == "note: --set mapping.write_kv changes nothing: gpu=h100_80gb_sxm runs instead of NPU and PIM\n"


def test_channels_of_a_file_take_the_place_of_an_assignment(tmp_path: Path) -> None:
    for head, expected in (("seq_len,ch_idx\n5,0\n6,1\n", 1), ("seq_len\n5\n6\n", 0)):
        (tmp_path / "batch.csv").write_text(head)
        chosen = {"workload.requests": str(tmp_path / "batch.csv"), "scheduling.channel_assignment": "gmlbp"}
        assert len([text for text in told("neupims", chosen) if "states channels (ch_idx)" in text]) == expected


def test_a_key_that_changes_nothing_at_any_point_of_a_sweep_is_told(tmp_path: Path) -> None:
    base = "{system: %s, model.layers: 2, npu.systolic.arrays: 4, memory.organization.channels: 8}"
    for number, (system, grid, expected) in enumerate(
        [
            (
                "gpu_h100",
                "{mapping.write_kv: [true, false]}",
                ["mapping.write_kv", "memory.organization.channels", "npu.s"],
            ),
            ("npu_only", "{mapping.write_kv: [true, false]}", []),
            ("npu_only", "{seed: [1, 2], scheduling.partition: [balanced]}", ["scheduling.partition"]),
        ]
    ):
        path = tmp_path / f"{number}.yaml"
        path.write_text(f"name: s\nbase: {base % system}\ngrid: {grid}\nmetrics: [cycles]\n")
        unused = UnusedKeys()
        assert len(list(expand(read_sweep(path), "s", unused))) == 2
        notes = sorted(unused.notes())
        assert [note.startswith(f"note: {key}") for note, key in zip(notes, expected, strict=True)] == [True] * len(
            notes
        )
    path.write_text("name: s\nbase: {model.layers: 2, npu.systolic.arrays: 4}\ngrid: {system: [gpu_h100, npu_only]}\n")
    unused = UnusedKeys()
    assert len(list(expand(read_sweep(path), "s", unused))) == 2
    assert unused.notes() == ()


def test_sweeps_cross_systems_without_notes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        variations = Variations()
        for arrays in (4, 8):
            variations.load("gpu_h100", {"npu.systolic.arrays": arrays})

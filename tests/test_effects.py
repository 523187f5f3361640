"""A key that changes nothing is told, one that contradicts another statement refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from neupims_sim import load_config
from neupims_sim.cli import main
from neupims_sim.config.variations import Variations
from neupims_sim.errors import IneffectiveKeyWarning, InputError


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
    ],
)
def test_keys_with_effect_are_not_told(system: str, overrides: dict[str, Any]) -> None:
    assert told(system, overrides) == []


def test_the_command_line_tells_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["config", "show", "gpu_h100", "--set", "mapping.write_kv=false"])
    assert stopped.value.code in (0, None)
    err = capsys.readouterr().err
    assert err == "note: --set mapping.write_kv changes nothing: gpu=h100_80gb_sxm runs instead of NPU and PIM\n"


def test_sweeps_cross_systems_without_notes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        variations = Variations()
        for arrays in (4, 8):
            variations.load("gpu_h100", {"npu.systolic.arrays": arrays})

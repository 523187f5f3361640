"""Schedulers: golden schedules of vLLM, and what continuous, iteration-level and static batching mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from serving_cases import CASES, golden, served, write_golden_requests


@pytest.mark.parametrize("case", CASES)
def test_vllm_v1_schedules_what_vllm_does(case: str, tmp_path: Path) -> None:
    expected = golden(case)
    write_golden_requests(expected["requests"], tmp_path / "requests.jsonl")
    options = {"enable_prefix_caching": False} | expected["options"]
    _, iterations = served(tmp_path / "requests.jsonl", tmp_path, **options)
    assert [iteration["start_s"] for iteration in iterations] == [step["step"] for step in expected["steps"]]
    for iteration, step in zip(iterations, expected["steps"], strict=True):
        assert {key: iteration[key] for key in ("tokens", "preempted", "finished", "cached")} == {
            key: step[key] for key in ("tokens", "preempted", "finished", "cached")
        }, step["step"]


def test_prefix_caching_is_on_where_token_ids_are_known(tmp_path: Path) -> None:
    expected = golden("prefix_caching")
    write_golden_requests(expected["requests"], tmp_path / "requests.jsonl")
    options = {name: value for name, value in expected["options"].items() if name != "enable_prefix_caching"}
    result, iterations = served(tmp_path / "requests.jsonl", tmp_path, **options)
    assert len(iterations) == len(expected["steps"])
    assert result.metrics["prefix_cache_hit_rate"] > 0


def _tokens(iterations: list[dict[str, Any]]) -> list[dict[str, int]]:
    return [iteration["tokens"] for iteration in iterations]


def test_prompt_is_cut_to_the_budget_and_answers_with_its_last_chunk(tmp_path: Path) -> None:
    result, iterations = served([(0, 100, 20)], tmp_path, max_num_batched_tokens=64)
    assert _tokens(iterations)[:3] == [{"0": 64}, {"0": 36}, {"0": 1}]
    assert len(iterations) == 21
    assert result.metrics["ttft_mean_s"] == 2.0


def test_orca_takes_whole_prompts_at_every_iteration(tmp_path: Path) -> None:
    requests = [(0, 1900, 3), (0, 40, 2), (1, 50, 1)]
    _, iterations = served(requests, tmp_path, policy="orca", max_num_seqs=2, max_num_batched_tokens=64)
    assert _tokens(iterations) == [{"0": 1900, "1": 40}, {"0": 1, "1": 1}, {"0": 1, "2": 50}]


def test_orca_sets_room_aside_for_whole_requests(tmp_path: Path) -> None:
    requests = [(0, 16, 33), (0, 16, 17)]
    result, iterations = served(requests, tmp_path, policy="orca", num_gpu_blocks=5)
    assert _tokens(iterations)[32:34] == [{"0": 1}, {"1": 16}]
    assert result.metrics["preemptions"] == 0


def test_static_batch_waits_until_it_is_full_and_runs_to_its_end(tmp_path: Path) -> None:
    requests = [(0, 10, 1), (5, 10, 3), (6, 10, 1), (7, 10, 1)]
    _, iterations = served(requests, tmp_path, policy="static", max_num_seqs=2)
    assert [iteration["start_s"] for iteration in iterations] == [5.0, 6.0, 7.0, 8.0]
    assert _tokens(iterations) == [{"0": 10, "1": 10}, {"1": 1}, {"1": 1}, {"2": 10, "3": 10}]


def test_static_batch_does_not_wait_for_requests_that_never_come(tmp_path: Path) -> None:
    result, _ = served([(0, 10, 1), (5, 10, 3), (6, 10, 1)], tmp_path, policy="static", max_num_seqs=2)
    assert result.metrics["completed"] == 3
    drawn = {"format": "random", "input_tokens": 10, "output_tokens": 4, "count": 7}
    loop = {"kind": "closed_loop", "concurrency": 2}
    result, _ = served([], tmp_path, {"requests": drawn, "arrivals": loop}, policy="static", max_num_seqs=4)
    assert result.metrics["completed"] == 7

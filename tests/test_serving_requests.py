"""Request files in the formats that people have, and arrivals."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_cases import served, write_requests

from neupims_sim import load_config
from neupims_sim.config import ServingConfig
from neupims_sim.errors import InputError
from neupims_sim.serving.readers import READERS, read_requests
from neupims_sim.serving.requests import plan_requests

S = 10**12
FILES: dict[str, str] = {
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n",
    "azure_multimodal": "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2025-01-02 00:00:01.5,1,700,10\n"
    "2025-01-02 00:00:01.552,0,70,8\n",
    "burstgpt": (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,a,1.5,ChatGPT,472,18,490,Conversation log\n45,b,2,GPT-4,1087,0,1087,API log\n118,c,1,ChatGPT,417,276,693,API log\n"
    ),
    "table": "arrival_s,prompt_tokens,output_tokens\n0.25,100,20\n1.5,7,1\n",
    "splitwise": (
        "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n0,2,0,0.25,1,100,20\n1,2,0,1.5,1,7,1\n"
    ),
    "mooncake": (
        '{"timestamp": 0, "input_length": 600, "output_length": 52, "hash_ids": [46, 47]}\n'
        '{"timestamp": 3052, "input_length": 1100, "output_length": 26, "hash_ids": [46, 47, 48]}\n'
    ),
    "llmservingsim": (
        '{"input_toks": 3, "output_toks": 2, "arrival_time_ns": 1500000000, "input_tok_ids": [9, 8, 7]}\n'
        '{"input_toks": 1, "output_toks": 4, "arrival_time_ns": 2000000000, "input_tok_ids": [9]}\n'
    ),
    "llmservingsim_sessions": (
        '{"session_id": "a", "arrival_time_ns": 1000000000, "sub_requests": '
        '[{"input_toks": 3, "output_toks": 2, "tool_duration_ns": 500000000},'
        ' {"input_toks": 9, "output_toks": 2}]}\n{"input_toks": 1, "output_toks": 4, "arrival_time_ns": 2000000000}\n'
    ),
}
EXPECTED: dict[str, tuple[list[float], list[int], list[int]]] = {
    "azure": ([0, 0.052], [4808, 3180], [10, 8]),
    "azure_multimodal": ([0, 0.052], [700, 70], [10, 8]),
    "burstgpt": ([5, 118], [472, 417], [18, 276]),
    "table": ([0.25, 1.5], [100, 7], [20, 1]),
    "splitwise": ([0.25, 1.5], [100, 7], [20, 1]),
    "mooncake": ([0, 3.052], [600, 1100], [52, 26]),
    "llmservingsim": ([1.5, 2.0], [3, 1], [2, 4]),
    "llmservingsim_sessions": ([1.0, 1.0, 2.0], [3, 9, 1], [2, 2, 4]),
}


def test_every_reader_has_a_case() -> None:
    assert set(READERS) == set(FILES)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["named", "guessed", "packed"])
def test_formats_are_read(name: str, how: str, tmp_path: Path) -> None:
    path = tmp_path / "requests"
    path.write_text(FILES[name])
    if how == "packed":
        path = tmp_path / "requests.gz"
        path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + FILES[name].encode()))
    table = read_requests(path, name if how == "named" else None)
    arrival, prompt, output = EXPECTED[name]
    assert table.arrival is not None
    assert table.arrival.tolist() == [round(time * S) for time in arrival]
    assert table.prompt_tokens.tolist() == prompt
    assert table.output_tokens.tolist() == output


def test_burstgpt_v1_1_lacks_two_columns_and_failures_keep_the_numbers_of_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "burst.csv"
    path.write_text("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n1,x,4,0,4,y\n2,x,4,3,7,y\n")
    table = read_requests(path, None)
    assert table.number.tolist() == [1]
    assert table.notes == (f"{path}: 1 of 2 requests have no prompt or no output and are left out",)


def test_requests_of_a_session_arrive_when_the_tool_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "sessions.jsonl"
    path.write_text(FILES["llmservingsim_sessions"])
    result, _ = served(path, tmp_path)
    # 3 prompt tokens at 1 s, two outputs at 2 and 3 s, then half a second of tool
    assert (result.records["ended"][0], result.records["arrived"][1]) == (3 * S, 3.5 * S)
    assert result.metrics["completed"] == 3


def test_mooncake_prefixes_are_shared_by_their_hashes(tmp_path: Path) -> None:
    path = tmp_path / "mooncake.jsonl"
    path.write_text(FILES["mooncake"])
    _, iterations = served(path, tmp_path, max_num_batched_tokens=4096)
    # The second chunk of the first prompt has 88 tokens, 5 blocks of 16; of these the second request finds 512 + 80.
    assert [iteration["cached"] for iteration in iterations if iteration["cached"]] == [{"1": 512 + 80}]


def test_unsorted_times_are_sorted_with_a_note_and_numbers_stay(tmp_path: Path) -> None:
    path = write_requests([(2, 5, 1), (0, 6, 1)], tmp_path / "requests.csv")
    result, iterations = served(path, tmp_path)
    assert [iteration["tokens"] for iteration in iterations] == [{"1": 6}, {"0": 5}]
    assert any("not in order of arrival" in note for note in result.notes)


WRONG: dict[str, tuple[str, str]] = {
    "unknown columns": ("a,b\n1,2\n", "columns a, b are of no known format"),
    "empty": ("", "no requests"),
    "header only": ("arrival_s,prompt_tokens,output_tokens\n", "no requests"),
    "negative time": ("arrival_s,prompt_tokens,output_tokens\n-1,2,3\n", "row 1: arrival_s='-1' is not a time"),
    "no number": (
        "arrival_s,prompt_tokens,output_tokens\n1,2,3\n2,x,3\n",
        "row 2: prompt_tokens='x' is not a number of tokens",
    ),
    "half a token": (
        "arrival_s,prompt_tokens,output_tokens\n1,2.5,3\n",
        "prompt_tokens='2.5' is not a number of tokens",
    ),
    "infinite": ("arrival_s,prompt_tokens,output_tokens\ninf,2,3\n", "arrival_s='inf' is not a time"),
    "missing cell": ("arrival_s,prompt_tokens,output_tokens\n1,2\n", "output_tokens=nothing is not"),
    "bad date": ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,1\n", "TIMESTAMP='yesterday' is not a time"),
    "no object": ('{"input_toks": 3, "output_toks": 2, "arrival_time_ns": 0}\n[1]\n', ":2: not a JSON object"),
    "missing key": (
        '{"input_toks": 3, "output_toks": 2, "arrival_time_ns": 0}\n{"input_toks": 3}\n',
        ":2: arrival_time_ns is missing",
    ),
    "bool": (
        '{"input_toks": true, "output_toks": 2, "arrival_time_ns": 0}\n',
        "input_toks=True is not a number of tokens",
    ),
    "ids of another number": (
        '{"input_toks": 3, "output_toks": 2, "arrival_time_ns": 0, "input_tok_ids": [1]}\n',
        "input_tok_ids has 1 ids, but input_toks=3",
    ),
    "too many chunks": (
        '{"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": [1, 2]}\n',
        "hash_ids has 2 chunks",
    ),
    "nothing to do": ("arrival_s,prompt_tokens,output_tokens\n1,2,0\n", "no request has both a prompt and an output"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_one_line(case: str, tmp_path: Path) -> None:
    text, message = WRONG[case]
    path = tmp_path / "requests"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_requests(path, None)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00arrival")
    (tmp_path / "broken.gz").write_bytes(gzip.compress(b"arrival_s,prompt_tokens")[:-9])
    for name in ("binary", "broken.gz", "nowhere.csv", "."):
        with pytest.raises(InputError, match=r"cannot read|not UTF-8"):
            read_requests(tmp_path / name, None)


def _plan(**serving: Any) -> list[int]:
    arrival = plan_requests(ServingConfig.model_validate(serving), seed=1).table.arrival
    assert arrival is not None
    return list(arrival.tolist())


DRAWN = {"format": "random", "input_tokens": 100, "output_tokens": 10, "count": 20_000}


def test_arrivals_have_the_rate_and_burstiness_that_are_asked_for() -> None:
    poisson = np.diff(_plan(requests=DRAWN, arrivals={"kind": "poisson", "rate": 4.0})) / S
    assert poisson.mean() == pytest.approx(0.25, rel=0.02)
    assert poisson.std() == pytest.approx(0.25, rel=0.03)
    bursty = np.diff(_plan(requests=DRAWN, arrivals={"kind": "gamma", "rate": 4.0, "burstiness": 0.25})) / S
    assert bursty.mean() == pytest.approx(0.25, rel=0.05)
    assert bursty.std() == pytest.approx(0.5, rel=0.05)
    same = _plan(requests=DRAWN, arrivals={"kind": "gamma", "rate": 4.0, "burstiness": 1.0})
    assert same == _plan(requests=DRAWN, arrivals={"kind": "poisson", "rate": 4.0})
    assert _plan(requests=DRAWN | {"count": 3}, arrivals={"kind": "constant", "rate": 4.0}) == [0, S // 4, S // 2]
    assert _plan(requests=DRAWN | {"count": 3}, arrivals={"kind": "all_at_once"}) == [0, 0, 0]


def test_random_lengths_are_uniform_from_the_ratio_to_the_whole() -> None:
    config = ServingConfig.model_validate(
        {"requests": DRAWN | {"range_ratio": 0.8}, "arrivals": {"kind": "all_at_once"}}
    )
    table = plan_requests(config, seed=0).table
    assert sorted(set(table.prompt_tokens.tolist())) == list(range(80, 101))
    assert table.prompt_tokens.mean() == pytest.approx(90, rel=0.01)
    assert sorted(set(table.output_tokens.tolist())) == [8, 9, 10]


def test_replay_scales_times(tmp_path: Path) -> None:
    path = write_requests([(0, 5, 1), (3, 6, 1)], tmp_path / "requests.csv")
    assert _plan(requests={"path": str(path)}, arrivals={"kind": "replay", "time_scale": 0.5}) == [0, 1.5 * S]
    assert _plan(requests={"path": str(path), "count": 1}) == [0]


def test_a_closed_loop_keeps_its_concurrency(tmp_path: Path) -> None:
    options = {"requests": DRAWN | {"count": 50}, "arrivals": {"kind": "closed_loop", "concurrency": 7}}
    result, iterations = served([], tmp_path, options)
    assert max(len(iteration["tokens"]) for iteration in iterations) == 7
    assert all(len(iteration["tokens"]) == 7 for iteration in iterations[:-20])
    arrived, ended = result.records["arrived"], result.records["ended"]
    assert max(int(((arrived <= time) & (time < ended)).sum()) for time in arrived) == 7


@pytest.mark.parametrize(
    ("serving", "message"),
    [
        ({}, "no requests; give a file"),
        ({"requests": {"format": "random", "count": 3}}, "serving.requests.input_tokens is missing"),
        ({"requests": {"input_tokens": 3}}, "serving.requests.input_tokens has no effect"),
        ({"requests": DRAWN}, "serving.arrivals.kind says when requests arrive"),
        ({"requests": DRAWN, "arrivals": {"kind": "poisson"}}, "serving.arrivals.rate is missing"),
        ({"requests": DRAWN, "arrivals": {"kind": "poisson", "rate": 0}}, "greater than 0"),
        ({"requests": DRAWN, "arrivals": {"kind": "all_at_once", "rate": 3}}, "serving.arrivals.rate has no effect"),
        ({"requests": DRAWN, "arrivals": {"kind": "replay"}}, "needs a file with arrival times"),
        ({"requests": DRAWN, "arrivals": {"kind": "poisson", "rate": 1e-9}}, "would take longer than"),
        ({"requests": {"path": "x.csv", "format": "csv"}}, "unknown format of requests 'csv'"),
        ({"requests": DRAWN | {"path": "x.csv"}}, "it reads no file"),
    ],
)
def test_wrong_settings_are_one_line(serving: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, ValueError), match=message):
        plan_requests(ServingConfig.model_validate(serving), seed=0)


def test_configuration_errors_name_the_key() -> None:
    with pytest.raises(InputError, match=r"serving\.arrivals\.rate"):
        load_config("npu_only", {"serving.arrivals": {"kind": "poisson"}})


def test_requests_that_can_never_run_are_refused_and_counted(tmp_path: Path) -> None:
    requests = [(0, 10, 5), (0, 2000, 100), (1, 200, 20), (2, 10, 5)]
    result, _ = served(requests, tmp_path, num_gpu_blocks=9)
    assert (result.metrics["completed"], result.metrics["refused"]) == (2, 2)
    assert [note.partition(" refused")[0] for note in result.notes] == ["1 request", "1 request"]
    assert "longer than model.max_positions=2048" in result.notes[0]
    assert "8 blocks of 16 tokens" in result.notes[1]
    assert json.dumps(result.to_json())

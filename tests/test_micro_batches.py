"""Micro-batches of a pipeline: alike, each distinct one simulated, whatever the order of a request file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation_cases import small

from neupims_sim.config import Config, load_config
from neupims_sim.errors import InputError
from neupims_sim.scheduling.micro_batches import micro_batches_of_alike_load
from neupims_sim.simulation import Result, simulate
from neupims_sim.simulation.batches import DecodingBatch, decoding_batch

Rows = list[tuple[int, int]]
"""(context, channel) of each request."""


def write_rows(path: Path, rows: Rows, channels: bool) -> str:
    lines = [f"{context},{channel}" if channels else f"{context}" for context, channel in rows]
    path.write_text("\n".join(["seq_len,ch_idx" if channels else "seq_len", *lines]) + "\n")
    return str(path)


def batch_of(config: Config) -> DecodingBatch:
    return decoding_batch(config, config.workload)


# --- which requests go together ---


@given(
    rows=st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 3)), min_size=1, max_size=60), count=st.integers(1, 9)
)
def test_micro_batches_have_alike_requests_tokens_and_channels(rows: Rows, count: int) -> None:
    contexts, channels = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    for known in (None, channels):
        found = micro_batches_of_alike_load(contexts, count, known)
        assert sorted(np.concatenate(found)) == list(range(len(rows)))
        sizes, tokens = [len(members) for members in found], [int(contexts[members].sum()) for members in found]
        assert max(sizes) - min(sizes) <= 1
        assert max(tokens) - min(tokens) <= contexts.max()
        for channel in range(4):
            spread = [int((channels[members] == channel).sum()) for members in found]
            assert known is None or max(spread) - min(spread) <= 2


@given(rows=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2)), min_size=2, max_size=40), data=st.data())
def test_who_goes_with_whom_does_not_depend_on_the_order(rows: Rows, data: st.DataObject) -> None:
    def contents(rows: Rows) -> list[Counter[tuple[int, int]]]:
        contexts, channels = (np.array(column, np.int64) for column in zip(*rows, strict=True))
        return [Counter(rows[r] for r in members) for members in micro_batches_of_alike_load(contexts, 2, channels)]

    assert contents(rows) == contents(data.draw(st.permutations(rows)))


def test_alike_micro_batches_are_simulated_once(tmp_path: Path) -> None:
    """Halves of 50 and 2000 tokens, in whatever order, are two times 16 of each; three requests are a pair and one."""
    for contexts in ([50] * 32 + [2000] * 32, [2000] * 32 + [50] * 32, [50, 2000] * 32):
        path = write_rows(tmp_path / "halves.csv", [(context, 0) for context in contexts], channels=False)
        (one,) = batch_of(small("npu_only", {"workload.requests": path, "parallel.pipeline": 2})).micro_batches
        assert (one.count, sorted(one.context_tokens)) == (2, [50] * 16 + [2000] * 16)
    path = write_rows(tmp_path / "three.csv", [(7, 0)] * 3, channels=False)
    found = batch_of(small("npu_only", {"workload.requests": path, "parallel.pipeline": 2})).micro_batches
    assert [(one.size, one.count) for one in found] == [(2, 1), (1, 1)]


def test_requests_keep_their_numbers_in_the_file(tmp_path: Path) -> None:
    """``request`` in operators.csv is the row of the file, whatever the order in which they came."""
    rows = [(10 * number + 10, 0) for number in range(9)]
    path = write_rows(tmp_path / "batch.csv", rows, channels=False)
    for stages in (1, 2):
        batch = batch_of(small("neupims", {"workload.requests": path, "parallel.pipeline": stages}))
        found = {n: c for one in batch.micro_batches for n, c in zip(one.requests, one.context_tokens, strict=True)}
        assert found == {number: context for number, (context, _) in enumerate(rows)}
    result = simulate(small("neupims", {"workload.requests": path}))
    macs = {r.request: r.macs for r in result.observations.operators if r.operator == "logits"}
    assert sorted(macs, key=lambda request: (macs[request], request)) == list(range(9))


# --- whole runs ---


@settings(max_examples=12, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(1, 900), st.integers(0, 1)), min_size=4, max_size=9),
    system=st.sampled_from(["npu_only", "npu_pim", "neupims", "gpu_h100"]),
    stages=st.sampled_from([1, 2]),
    channels=st.booleans(),
    other=st.sampled_from(
        [
            {},
            {"scheduling.partition": "balanced"},
            {"parallel.micro_batches": 3},
            {"preset": "asplos24", "parallel.batch": "split", "parallel.micro_batches": 2},
        ]
    ),
    data=st.data(),
)
def test_throughput_does_not_depend_on_the_order_of_the_file(
    rows: Rows, system: str, stages: int, channels: bool, other: dict[str, Any], data: st.DataObject
) -> None:
    """Nor does anything else in result.json."""

    def metrics(rows: Rows) -> str:
        with TemporaryDirectory() as folder:
            path = write_rows(Path(folder) / "batch.csv", rows, channels)
            chosen = {
                "workload.requests": path,
                "memory.organization.channels": 2,
                "parallel.pipeline": stages,
                **other,
            }
            chosen["model.layers"] = 2
            if system == "neupims" and "parallel.micro_batches" not in other:
                chosen["scheduling.interleaving"] = "lockstep"
            return json.dumps(simulate(small(system, chosen)).to_json() | {"config_hash": ""})

    assert metrics(rows) == metrics(data.draw(st.permutations(rows)))


def test_a_published_trace_is_a_servers_slots_in_their_order_under_asplos24(tmp_path: Path) -> None:
    """As in the artifact: rows with a channel of their own. Rows without one are in no order under any preset."""
    rows = [(context, context % 4) for context in (30, 10, 20, 40)]
    orders = {}
    for channels in (True, False):
        path = write_rows(tmp_path / "batch.csv", rows, channels)
        for preset in ("asplos24", "physical"):
            (one,) = batch_of(small("neupims", {"workload.requests": path, "preset": preset})).micro_batches
            orders[channels, preset] = one.requests.tolist()
    assert orders[True, "asplos24"] == [0, 1, 2, 3]
    assert orders[False, "asplos24"] == orders[False, "physical"]


def both_halves(system: str, path: Path, extra: dict[str, Any]) -> Result:
    rows = [(context, 0) for context in [50] * 8 + [2000] * 8]
    chosen = {"workload.requests": write_rows(path, rows, channels=False), "parallel.pipeline": 2}
    return simulate(small(system, chosen | extra))


@pytest.mark.parametrize("system", ["npu_only", "npu_pim", "neupims", "gpu_h100"])
def test_an_iteration_takes_as_long_as_its_micro_batches(system: str, tmp_path: Path) -> None:
    """Between the times of all short and of all long contexts; reading K and V, both take half of it."""
    result = both_halves(system, tmp_path / "both.csv", {})
    short, long = (
        simulate(small(system, {"parallel.pipeline": 2, "workload.batch_size": 16, "workload.context_tokens": tokens}))
        for tokens in (50, 2000)
    )
    assert short.cycles < result.cycles < long.cycles
    if system in ("npu_pim", "neupims"):
        return
    moved = [r.traffic_bytes["read"] for r in (short, result, long)]
    assert moved[1] == pytest.approx((moved[0] + moved[2]) / 2, rel=0.02)


def test_figures_are_those_of_all_micro_batches(tmp_path: Path) -> None:
    """5 requests are 3 and 2: an iteration is both, and a block their mean."""
    rows = [(context, 0) for context in (900, 700, 500, 300, 100)]
    path = write_rows(tmp_path / "five.csv", rows, channels=False)
    chosen = {"workload.requests": path, "parallel.pipeline": 2, "scheduling.interleaving": "off"}
    result = simulate(small("npu_only", chosen))
    batch = batch_of(small("npu_only", chosen))
    alone = []
    for one in batch.micro_batches:
        path = write_rows(tmp_path / "one.csv", [(int(c), 0) for c in one.context_tokens], channels=False)
        settings = {**chosen, "workload.requests": path, "parallel.pipeline": 1, "model.layers": 2}
        alone.append(simulate(small("npu_only", settings)))
    assert result.cycles == pytest.approx(sum(r.cycles for r in alone), rel=0.01)  # rows of a file are drawn anew
    macs = sum(result.operator_flops[name] for name in ("qkv", "projection", "ffn1", "ffn2"))
    expected = sum(r.operator_flops[name] for r in alone for name in ("qkv", "projection", "ffn1", "ffn2"))
    assert macs == 2 * expected / 2  # two devices, the mean of two micro-batches
    assert result.energy_joules["npu_mac"] == pytest.approx(2 * sum(r.energy_joules["npu_mac"] for r in alone))
    assert result.mean_context_tokens == 500
    assert result.batch_size == 5


def test_waiting_micro_batches_take_room_in_the_channels_of_the_file(tmp_path: Path) -> None:
    """INV-9: 12 requests on one channel do not fit, though a micro-batch of them does, and 12 on four channels do."""
    rows = {"spread": [(1500, n % 4) for n in range(12)], "crowded": [(1500, 0)] * 12}
    chosen = {"parallel.pipeline": 2, "memory.organization.channels": 4, "memory.organization.rows": 4096}
    paths = {name: write_rows(tmp_path / f"{name}.csv", found, channels=True) for name, found in rows.items()}
    assert simulate(small("neupims", {**chosen, "workload.requests": paths["spread"]})).batch_size == 12
    with pytest.raises(InputError, match="B of K and V of waiting micro-batches"):
        simulate(small("neupims", {**chosen, "workload.requests": paths["crowded"]}))


def test_a_channel_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "batch.csv", [(10, 8), (10, 0)], channels=True)
    with pytest.raises(InputError, match=r"ch_idx 8 does not exist; allowed: 0 to 7"):
        simulate(small("neupims", {"workload.requests": path}))
    assert simulate(small("npu_only", {"workload.requests": path})).batch_size == 2  # it has no use for them


def test_the_preset_of_the_paper_draws_one_batch_for_every_stage() -> None:
    config = load_config("neupims", {"preset": "asplos24", "model": "gpt3-30b", "workload.batch_size": 6})
    (one,) = batch_of(config).micro_batches
    assert (one.size, one.count) == (6, 2)

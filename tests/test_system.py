"""Devices joined: links, pipelines of micro-batches, and several snapshots of a batch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st
from simulation_cases import SMALL, small

from neupims_sim.config import LinkConfig, load_config
from neupims_sim.errors import InputError
from neupims_sim.simulation import Result, simulate
from neupims_sim.simulation.sampling import mean_result, snapshot_seed, student_t_975
from neupims_sim.system.link import Link, all_reduce_seconds, send_seconds
from neupims_sim.system.pipeline import Pipeline, StageWork

RING = LinkConfig(topology="ring", bandwidth_gbps=16, latency_ns=100)
TREE = LinkConfig(topology="tree", bandwidth_gbps=16, latency_ns=100)
RING_SETTINGS: Mapping[str, Any] = {"parallel.link": {"topology": "ring", "bandwidth_gbps": 16, "latency_ns": 100}}

LINKS = st.builds(
    LinkConfig,
    topology=st.sampled_from(["ring", "tree"]),
    bandwidth_gbps=st.floats(1, 1000),
    latency_ns=st.floats(0, 1e4),
)


# --- links ---


def test_ring_all_reduce_by_hand() -> None:
    """4 devices, 64,000 B: 6 steps of 16,000 B at 16 GB/s (1 us) and 100 ns."""
    assert all_reduce_seconds(RING, 4, 64_000) == pytest.approx(6 * 1.1e-6)


def test_tree_all_reduce_by_hand() -> None:
    """5 to 8 devices are 3 levels up and 3 down, each the whole 64,000 B (4 us) and 100 ns."""
    assert all_reduce_seconds(TREE, 8, 64_000) == pytest.approx(6 * 4.1e-6)
    assert all_reduce_seconds(TREE, 5, 64_000) == all_reduce_seconds(TREE, 8, 64_000)


def test_one_device_and_free_links_take_no_time() -> None:
    assert all_reduce_seconds(RING, 1, 64_000) == all_reduce_seconds(TREE, 1, 64_000) == 0
    assert all_reduce_seconds(LinkConfig(), 8, 64_000) == send_seconds(LinkConfig(), 64_000) == 0


@given(link=LINKS, devices=st.integers(2, 64), size=st.integers(1, 10**9), faster=st.floats(1, 100))
def test_all_reduces_keep_the_laws_of_links(link: LinkConfig, devices: int, size: int, faster: float) -> None:
    """More bandwidth is never slower, more data never faster, and no device sends less than (n - 1) / n of it each way."""
    better = link.model_copy(update={"bandwidth_gbps": link.bandwidth_gbps * faster})
    seconds = all_reduce_seconds(link, devices, size)
    assert all_reduce_seconds(better, devices, size) <= seconds * (1 + 1e-12)
    assert all_reduce_seconds(link, devices, 2 * size) >= seconds
    assert seconds >= (1 - 1e-12) * 2 * (devices - 1) / devices * size / (link.bandwidth_gbps * 1e9)


def test_a_device_has_one_link_that_collectives_take_in_turn() -> None:
    env, busy = simpy.Environment(), []
    link = Link(env, RING, 1.0, lambda lane, name, start, end: busy.append((lane, name, start, end)))
    for name in ("first", "second"):
        env.process(link.all_reduce(name, 2, 32_000, ready=env.event().succeed()))
    env.run()
    assert busy == [("link", "first", 0, 2200), ("link", "second", 2200, 4400)]


def all_reduces(result: Result) -> list[tuple[int, int]]:
    """(start, end) of each."""
    return [(r.start_cycle, r.end_cycle) for r in result.observations.operators if r.operator.endswith("_all_reduce")]


def test_an_all_reduce_of_a_run_takes_its_link_as_long_as_by_hand() -> None:
    """16 requests x 1024 x 2 B on 2 devices: 2 steps of 16,384 B at 16 GB/s and 100 ns are 2,248 cycles of 1 GHz."""
    settings = {"parallel.tensor": 2, "scheduling.interleaving": "off"}
    free, ring = (simulate(small(settings=settings | extra)) for extra in ({}, RING_SETTINGS))
    assert {end - start for start, end in all_reduces(ring)} == {2248}
    assert {end - start for start, end in all_reduces(free)} == {0}
    assert free.block_cycles < ring.block_cycles <= free.block_cycles + 2 * 2248
    assert ring.utilization["link"] == pytest.approx(2 * 2248 / ring.block_cycles, rel=1e-4)
    assert free.utilization["link"] == 0
    assert ring.observations.npu_macs == free.observations.npu_macs


def test_all_reduces_overlap_with_attention_of_the_other_sub_batch() -> None:
    settings = {"parallel.tensor": 2, "scheduling.interleaving": "lockstep"}
    result = simulate(small(settings=settings | RING_SETTINGS))
    in_pim = [(r.start_cycle, r.end_cycle) for r in result.observations.operators if r.unit == "PIM"]
    assert any(start < stop and begin < end for begin, end in all_reduces(result) for start, stop in in_pim)


def test_a_faster_link_is_never_slower_and_a_very_fast_one_is_free() -> None:
    def cycles(gbps: float) -> int:
        link = {"topology": "tree", "bandwidth_gbps": gbps}
        settings = {"parallel.tensor": 4, "scheduling.interleaving": "off", "parallel.link": link}
        return simulate(small(settings=settings)).cycles

    times = [cycles(gbps) for gbps in (1, 10, 1e9)]
    assert times == sorted(times, reverse=True)
    free = simulate(small(settings={"parallel.tensor": 4, "scheduling.interleaving": "off"})).cycles
    assert times[-1] == pytest.approx(free, rel=0.001)


# --- pipelines ---


def pipeline(stages: int, micro_batches: int, stage: float = 100, link: float = 0, transfer: float = 0) -> Pipeline:
    return Pipeline(stages, [StageWork(micro_batches, stage, link, transfer)])


def per_micro_batch(pipeline: Pipeline) -> float:
    """Cycles between two micro-batches that leave the pipeline in steady state."""
    return pipeline.iteration_cycles / pipeline.micro_batches


def test_a_full_pipeline_gives_a_micro_batch_per_stage_time() -> None:
    assert per_micro_batch(pipeline(4, 4)) == 100
    assert per_micro_batch(pipeline(4, 8)) == 100
    assert pipeline(4, 8).iteration_cycles == 800


def test_too_few_micro_batches_leave_stages_idle() -> None:
    assert per_micro_batch(pipeline(4, 1)) == 400
    assert per_micro_batch(pipeline(4, 2)) == 200


def test_an_iteration_from_empty_to_empty_has_the_bubble() -> None:
    assert pipeline(4, 8).drained_iteration_cycles == (8 + 4 - 1) * 100


def test_transfers_hide_behind_enough_micro_batches() -> None:
    """4 stages and 3 transfers are 460 cycles: 4 micro-batches feel it, 5 do not."""
    assert per_micro_batch(pipeline(4, 4, transfer=20)) == 115
    assert per_micro_batch(pipeline(4, 5, transfer=20)) == 100


def test_a_slow_link_limits_the_pipeline() -> None:
    assert per_micro_batch(pipeline(2, 8, link=70, transfer=50)) == 120


@given(
    stages=st.integers(1, 6), works=st.lists(st.integers(1, 100), min_size=1, max_size=10), transfer=st.integers(0, 150)
)
def test_the_formula_is_what_a_pipeline_does(stages: int, works: list[int], transfer: int) -> None:
    """Micro-batches go round: one at a time on a stage and on the link behind it, from the last stage back to the first.

    The formula is exact where all of them compute longer than they send, or all shorter, else it is an upper bound.
    """
    if stages == 1:
        transfer = 0
    found = Pipeline(stages, [StageWork(1, stage, 0, transfer) for stage in works])
    period = going_round(stages, works, transfer)
    assert period <= found.iteration_cycles * (1 + 1e-9)
    if transfer <= min(works) or transfer >= max(works):
        assert period == pytest.approx(found.iteration_cycles, rel=1e-9)
    order = sorted(works)
    assert (
        Pipeline(stages, [StageWork(1, stage, 0, transfer) for stage in order]).iteration_cycles
        == found.iteration_cycles
    )


def going_round(stages: int, works: list[int], transfer: int) -> float:
    """Cycles between two iterations, after 60 of them, over 60 more."""
    micro_batches = len(works)
    iterations, arrival = 60, [0.0] * micro_batches
    free, wire = [0.0] * stages, [0.0] * stages
    for iteration in range(2 * iterations):
        if iteration == iterations:
            begin = max(arrival)
        for batch in range(micro_batches):
            at = arrival[batch]
            for number in range(stages):
                at = free[number] = max(at, free[number]) + works[batch]
                if number < stages - 1:
                    at = wire[number] = max(at, wire[number]) + transfer
            arrival[batch] = at
    return (max(arrival) - begin) / iterations


PIPELINE: Mapping[str, Any] = {"parallel.pipeline": 2, "workload.batch_size": 32, "scheduling.interleaving": "off"}


def test_the_throughput_of_a_run_is_that_of_the_whole_pipeline() -> None:
    """With free links: requests / (M stage times), or / (S stage times) where there are fewer micro-batches than stages."""
    for count in (1, 2, 4):
        result = simulate(small(settings={**PIPELINE, "parallel.micro_batches": count}))
        stage, longest = result.pipeline["stage_cycles"], result.pipeline["longest_stage_cycles"]
        expected = 32 / (max(count * stage, 2 * longest) * 1e-9)
        assert result.throughput_tokens_per_s == pytest.approx(expected, rel=1e-5)
        assert result.throughput_tokens_per_s == pytest.approx(32 / result.seconds)
        assert result.pipeline["micro_batches"] == result.pipeline["simulated_micro_batches"] == count
        assert (result.layers, result.devices) == (2, 2)
        assert result.observations.npu_macs * count == pytest.approx(MACS_OF_32, rel=1e-9)


MACS_OF_32 = 32 * 2 * 12 * 1024**2
"""QKV, projection and FFN of 32 requests in the 2 simulated layers of a stage."""


def test_as_many_micro_batches_as_stages_unless_given() -> None:
    given_, default = (simulate(small(settings={**PIPELINE, **extra})) for extra in ({"parallel.micro_batches": 2}, {}))
    assert given_.to_json() | {"config_hash": ""} == default.to_json() | {"config_hash": ""}


def test_the_longest_micro_batch_goes_through_all_stages() -> None:
    """33 requests are 17 and 16: none is back at the first stage before it has passed both."""
    result = simulate(small(settings={**PIPELINE, "workload.batch_size": 33}))
    assert result.throughput_per_s == pytest.approx(33 / result.seconds)
    stage, longest = result.pipeline["stage_cycles"], result.pipeline["longest_stage_cycles"]
    assert stage < longest
    assert result.cycles == result.pipeline["iteration_cycles"] == 2 * longest


def test_a_batch_per_stage_is_a_whole_batch_split_over_as_many_times_the_requests() -> None:
    settings = {**PIPELINE, "workload.batch_size": 16}
    per_stage = simulate(small(settings={**settings, "parallel.batch": "per_stage"}))
    one_stage = simulate(small(settings={**settings, "parallel.pipeline": 1}))
    assert per_stage.batch_size == 32
    assert per_stage.mean_context_tokens == one_stage.mean_context_tokens
    assert per_stage.block_cycles == one_stage.block_cycles
    assert per_stage.throughput_per_s == pytest.approx(16 / (per_stage.pipeline["stage_cycles"] * 1e-9))


@pytest.mark.parametrize("system", ["neupims", "npu_only"])
def test_every_stage_has_room_for_the_caches_of_all_micro_batches(system: str) -> None:
    """INV-9: of 400 micro-batches one has addresses, but the others are in memory, too."""
    rows = {"memory.organization.rows": 4096, "mapping.kv_capacity": "all_layers", "parallel.batch": "per_stage"}
    settings = {**PIPELINE, **rows, "workload.warmup.max_context_tokens": 512}
    fits = simulate(small(system, {**settings, "parallel.micro_batches": 2, "workload.batch_size": 8}))
    assert fits.batch_size == 16
    with pytest.raises(InputError, match="does not fit"):
        simulate(small(system, {**settings, "parallel.micro_batches": 400, "workload.batch_size": 8}))
    simulate(small(system, {**settings, "parallel.micro_batches": 400, "workload.batch_size": 8} | FIRST_LAYERS_ONLY))


FIRST_LAYERS_ONLY = {"mapping.kv_capacity": "simulated_layers"}


def test_stages_send_activations_over_the_link() -> None:
    """16 requests x 1024 x 2 B at 16 GB/s and 100 ns: 2,148 cycles; two micro-batches wait for it once per iteration."""
    free, ring = (simulate(small(settings={**PIPELINE, **extra})) for extra in ({}, RING_SETTINGS))
    assert ring.pipeline["transfer_cycles"] == 2148
    assert ring.pipeline["stage_cycles"] == free.pipeline["stage_cycles"]
    assert ring.pipeline["iteration_cycles"] == free.pipeline["iteration_cycles"] + 2148
    assert ring.throughput_per_s < free.throughput_per_s


def test_a_file_with_fewer_requests_than_micro_batches_is_refused(tmp_path: Path) -> None:
    (tmp_path / "batch.csv").write_text("seq_len\n100\n")
    settings = {"parallel.pipeline": 2, "workload.requests": str(tmp_path / "batch.csv")}
    with pytest.raises(InputError, match="holds 1 requests, too few for 2 micro-batches"):
        simulate(small(settings=settings))


# --- snapshots ---


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (9, 2.2622), (100, 1.9840)])
def test_student_t_as_in_tables(degrees: int, quantile: float) -> None:
    assert student_t_975(degrees) == pytest.approx(quantile, abs=5e-5)


@pytest.fixture(scope="module")
def three() -> tuple[Result, list[Result]]:
    """Three snapshots, and each alone."""
    settings = {"memory.model": "ideal", "scheduling.interleaving": "off", "seed": 5}
    together = simulate(small("npu_only", {**settings, "simulation.snapshots": 3}))
    alone = [simulate(small("npu_only", {**settings, "seed": snapshot_seed(5, n)})) for n in range(3)]
    return together, alone


def test_metrics_are_means_over_snapshots(three: tuple[Result, list[Result]]) -> None:
    together, alone = three
    assert together.throughput_per_s == pytest.approx(mean(r.throughput_per_s for r in alone))
    assert together.cycles == round(mean(r.cycles for r in alone))
    assert together.mean_context_tokens == pytest.approx(mean(r.mean_context_tokens or 0 for r in alone))
    assert together.traffic_bytes["read"] == round(mean(r.traffic_bytes["read"] for r in alone))
    assert together.operator_unit.keys() == together.operator_flops.keys() == alone[0].operator_flops.keys()
    assert len({r.mean_context_tokens for r in alone}) == 3
    assert together.snapshots == 3


def test_the_confidence_interval_by_hand(three: tuple[Result, list[Result]]) -> None:
    """t(2) = 4.3027 standard errors."""
    together, alone = three
    half = 4.3027 * stdev(r.throughput_per_s for r in alone) / math.sqrt(3)
    assert together.throughput_ci95_per_s == pytest.approx(half, rel=1e-4)


def test_one_snapshot_is_the_run_of_its_seed(three: tuple[Result, list[Result]]) -> None:
    _, alone = three
    assert snapshot_seed(5, 0) == 5
    assert mean_result(alone[:1]) is alone[0]
    assert (alone[0].snapshots, alone[0].throughput_ci95_per_s) == (1, None)
    assert len({snapshot_seed(seed, n) for seed in range(10) for n in range(10)}) == 100


def test_snapshots_are_the_same_bytes_every_time(three: tuple[Result, list[Result]]) -> None:
    """INV-7."""
    settings = {"memory.model": "ideal", "scheduling.interleaving": "off", "seed": 5, "simulation.snapshots": 3}
    assert json.dumps(simulate(small("npu_only", settings)).to_json()) == json.dumps(three[0].to_json())


# --- configuration ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parallel.link.topology": "ring"}, "needs parallel.link.bandwidth_gbps"),
        ({"parallel.link.topology": "rings"}, "did you mean ring"),
        ({"parallel.link.bandwidth_gbps": 0}, "bandwidth_gbps=0"),
        ({"parallel.micro_batches": 17}, "workload.batch_size=16 is smaller than parallel.micro_batches=17"),
        ({"parallel.micro_batches": 0}, "micro_batches=0"),
        ({"simulation.snapshots": 0}, "snapshots=0"),
        ({"model": "vit-b16", "workload": "images", "simulation.snapshots": 2}, "draws nothing at random"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    drop = SMALL if "model" not in settings else {}
    with pytest.raises(InputError, match=message):
        load_config("neupims", {**drop, **settings})


def test_a_request_file_has_no_snapshots(tmp_path: Path) -> None:
    (tmp_path / "batch.csv").write_text("seq_len\n100\n50\n")
    settings = {"workload.requests": str(tmp_path / "batch.csv"), "simulation.snapshots": 2}
    with pytest.raises(InputError, match=r"simulation.snapshots=2.*workload.requests is one batch"):
        small(settings=settings)

"""Vision on the device: inference of images, retrieval, operator traces, and searches beside decoding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neupims_sim import load_config, simulate
from neupims_sim.config import Config, VitConfig, load_model
from neupims_sim.errors import InputError
from neupims_sim.mapping.allocation import Lifetime, allocate, lifetimes
from neupims_sim.mapping.pim_pooling import PoolingLayout
from neupims_sim.mapping.pim_search import SearchLayout
from neupims_sim.mapping.placement import Placement
from neupims_sim.simulation import Result, Timeline
from neupims_sim.simulation.device import Device
from neupims_sim.simulation.inference import TraceOnNpu
from neupims_sim.simulation.observations import OperatorRecord
from neupims_sim.simulation.parts import Part, run_extrapolated
from neupims_sim.trace import Operator, Tensor, TraceHeader, macs, write_trace
from neupims_sim.workloads import generate_retrieval, generate_vit

VIT = {"model": "vit-s16", "workload": "images", "workload.batch_size": 2}
SEARCH = {
    "model": "vit-s16",
    "workload": "search_1m",
    "workload.database": 20_000,
    "workload.dimensions": 384,
    "workload.top_m": 100,
}
LARGER = SEARCH | {"workload.database": 500_000}
RETRIEVAL = LARGER | {"workload.extract": True, "workload.image_size": 224, "workload.rerank": "superglobal"}


def config(system: str, *settings: dict[str, Any], **more: Any) -> Config:
    merged: dict[str, Any] = {}
    for part in settings:
        merged |= part
    return load_config(system, merged | {key.replace("__", "."): value for key, value in more.items()})


def run(system: str, *settings: dict[str, Any], **more: Any) -> Result:
    return simulate(config(system, *settings, **more))


def executed_macs(system: str, result: Result, *settings: dict[str, Any]) -> float:
    arrays = config(system, *settings).npu.systolic
    return result.utilization["npu"] * result.block_cycles * arrays.arrays * arrays.rows * arrays.columns


# Images and traces


@pytest.mark.parametrize("model", ["vit-s16", "resnet50"])
@pytest.mark.parametrize("head", ["classifier", "descriptor"])
def test_inference_keeps_the_bounds(model: str, head: str) -> None:
    """INV-5: no faster than the arrays' peak nor than reading all weights once; utilizations are shares."""
    settings = VIT | {"model": model, "workload.head": head, "workload.image_size": 224}
    result = run("npu_only", settings)
    resolved = config("npu_only", settings)
    arrays = resolved.npu.systolic
    assert result.cycles >= executed_macs("npu_only", result, settings) / (arrays.arrays * arrays.rows * arrays.columns)
    assert all(0 <= share <= 1 for share in result.utilization.values())
    weights = 2 * 22e6 if model == "vit-s16" else 2 * 23e6
    peak = resolved.memory.organization.channels * 32  # bytes per cycle
    assert result.traffic_bytes["read"] >= 0.95 * weights
    assert result.cycles >= (result.traffic_bytes["read"] + result.traffic_bytes["write"]) / peak


def test_every_product_of_an_inference_is_executed_once() -> None:
    """INV-3, with the layers that are not simulated."""
    trace = generate_vit(load_model("vit-s16", VitConfig), batch=2)
    done = executed_macs("npu_only", run("npu_only", VIT), VIT)
    assert done == pytest.approx(sum(op.repeat * macs(op) for op in trace.operators), rel=1e-6)


@pytest.mark.parametrize("settings", [VIT, VIT | {"model": "resnet50"}], ids=["vit", "resnet"])
def test_two_layers_stand_for_all(settings: dict[str, Any]) -> None:
    some, all_ = run("npu_only", settings), run("npu_only", settings, simulation__layers=100)
    assert some.simulated_cycles < all_.simulated_cycles == all_.cycles
    assert some.cycles == pytest.approx(all_.cycles, rel=0.01)
    assert sum(some.energy_joules.values()) == pytest.approx(sum(all_.energy_joules.values()), rel=0.01)
    assert some.traffic_bytes["read"] == pytest.approx(all_.traffic_bytes["read"], rel=0.01)
    for name, cycles in all_.operator_cycles.items():
        assert some.operator_cycles[name] == pytest.approx(cycles, abs=0.01 * all_.cycles), name


def test_a_trace_file_runs_as_what_it_was_made_of(tmp_path: Path) -> None:
    trace = generate_vit(load_model("vit-s16", VitConfig), batch=2)
    write_trace(tmp_path / "t.jsonl", trace.header, trace.operators)
    settings = {"workload": {"name": "t", "kind": "trace", "path": str(tmp_path / "t.jsonl")}}
    from_file, images = run("npu_only", settings), run("npu_only", VIT)
    assert from_file.cycles == images.cycles
    assert (from_file.item, images.item) == ("traces", "images")
    assert images.throughput_per_s == pytest.approx(2 / images.seconds)
    assert images.throughput_tokens_per_s is None


def test_powers_make_pooling_dearer_and_groups_do_not() -> None:
    """GGeM has one exponent per group instead of one in all: the same work."""
    cycles = {
        pooling: run("npu_only", VIT, workload__pooling=pooling).operator_cycles.get("pooling", 0)
        for pooling in ("cls", "average", "max", "gem", "ggem")
    }
    assert cycles["cls"] == 0
    assert cycles["average"] < cycles["gem"]
    assert cycles["ggem"] == pytest.approx(cycles["gem"], rel=0.02)


def test_pooling_in_pim_is_the_same_inference_but_for_the_pooling() -> None:
    on_vector = run("neupims", VIT, workload__pooling="ggem")
    on_pim = run("neupims", VIT, workload__pooling="ggem", pooling_on="pim")
    assert on_pim.commands["GEMV"] > 0 == on_vector.commands["GEMV"]
    assert on_pim.commands["GWRITE"] == 2  # two images, on two channels, one GWRITE each
    rest = on_pim.cycles - on_pim.operator_cycles["pooling"]
    assert rest == pytest.approx(on_vector.cycles - on_vector.operator_cycles["pooling"], rel=0.01)


# Retrieval


def test_search_in_pim_keeps_the_bound_of_its_dot_products() -> None:
    result, resolved = run("neupims", SEARCH), config("neupims", SEARCH)
    layout = SearchLayout.on(resolved.memory, 384, 2)
    dots = layout.counts(1, -(-20_000 // 32)).dots
    assert result.cycles >= dots * resolved.memory.timing["tDOT"]
    assert result.utilization["pim"] == pytest.approx(dots * resolved.memory.timing["tDOT"] / result.cycles, rel=0.01)


def test_search_on_the_npu_reads_the_database_once() -> None:
    result = run("npu_only", SEARCH, workload__queries=8)
    assert result.traffic_bytes["read"] == pytest.approx(20_000 * 384 * 2, rel=0.01)
    assert result.cycles >= 20_000 * 384 * 2 / 1024


def test_four_queries_stand_for_all() -> None:
    some = run("neupims", LARGER, workload__queries=12)
    all_ = run("neupims", LARGER, workload__queries=12, simulation__queries=12)
    assert some.simulated_cycles < all_.simulated_cycles
    assert some.cycles == pytest.approx(all_.cycles, rel=0.01)
    assert some.commands["GEMV"] == pytest.approx(all_.commands["GEMV"], rel=0.01)


def test_the_size_of_search_programs_hardly_matters_alone() -> None:
    whole = run("neupims", LARGER, mapping__search_program_tiles=100_000)
    pieces = run("neupims", LARGER, mapping__search_program_tiles=16)
    assert whole.cycles <= pieces.cycles < 1.15 * whole.cycles
    assert pieces.commands["GWRITE"] == 31 * whole.commands["GWRITE"]  # each piece loads its part of the query again
    assert pieces.commands["GEMV"] == whole.commands["GEMV"]


@pytest.mark.parametrize("rerank", ["superglobal", "rrt", "cvnet"])
def test_reranking_does_the_products_of_its_trace(rerank: str) -> None:
    settings = SEARCH | {"workload.database": 50, "workload.top_m": 12, "workload.rerank": rerank}
    settings |= {"workload.image_size": "96x128"}
    result = run("npu_only", settings)
    trace = generate_retrieval(database=50, dimensions=384, top_m=12, rerank=rerank, image_size=(96, 128))
    expected = sum(op.repeat * macs(op) for op in trace.operators if op.op != "weighted_mean")  # on the vector units
    assert executed_macs("npu_only", result, settings) == pytest.approx(expected, rel=1e-6)
    assert result.stages["B"] + result.stages["E"] == pytest.approx(result.cycles, abs=2)


@pytest.mark.parametrize("interleaving", ["lockstep", "dataflow"])
def test_queries_overlap(interleaving: str) -> None:
    """In lockstep a batch takes at least the longer side; without barriers two extractions can fill each other's gaps."""
    serial = run("neupims", RETRIEVAL, scheduling__interleaving="off")
    result = run("neupims", RETRIEVAL, scheduling__interleaving=interleaving)
    stages = serial.stages
    assert serial.cycles == pytest.approx(sum(stages.values()), abs=2)
    longer = max(stages["A"] + stages["E"], stages["B"]) if interleaving == "lockstep" else stages["B"]
    assert 0.99 * longer < result.cycles < 1.01 * serial.cycles
    assert result.latency_cycles >= result.cycles
    assert result.throughput_per_s == pytest.approx(1 / result.seconds)
    assert result.commands["GEMV"] == pytest.approx(serial.commands["GEMV"], rel=0.02)


def test_auto_interleaves_queries_where_both_units_have_work() -> None:
    assert run("neupims", RETRIEVAL).interleaving == "lockstep"
    assert run("neupims", SEARCH).interleaving == "off"
    assert run("npu_only", RETRIEVAL).interleaving == "off"


def test_search_hides_behind_extraction_with_dual_row_buffers_only() -> None:
    """With one row buffer PIM owns a channel while it searches, so that extraction cannot go on."""
    lockstep = {"scheduling.interleaving": "lockstep"}
    cycles = {
        (system, mode): run(system, RETRIEVAL | settings).cycles
        for system in ("neupims", "npu_pim")
        for mode, settings in (("off", {"scheduling.interleaving": "off"}), ("lockstep", lockstep))
    }
    gain = {system: cycles[system, "off"] / cycles[system, "lockstep"] for system in ("neupims", "npu_pim")}
    assert gain["neupims"] > 1.2
    assert gain["neupims"] > gain["npu_pim"]


def test_runs_are_reproducible_and_a_timeline_changes_nothing(tmp_path: Path) -> None:
    """INV-7."""
    for settings in (RETRIEVAL, VIT | {"workload.pooling": "gem", "pooling_on": "pim"}):
        timeline = Timeline()
        resolved = config("neupims", settings)
        watched = simulate(resolved, timeline)
        assert json.dumps(watched.to_json()) == json.dumps(simulate(resolved).to_json())
        timeline.write(tmp_path / "t.json.gz")
        assert (tmp_path / "t.json.gz").stat().st_size > 1000


def test_latency_does_not_depend_on_how_many_steps_are_simulated() -> None:
    settings = RETRIEVAL | {"scheduling.interleaving": "lockstep"}
    few, many = run("neupims", settings), run("neupims", settings, simulation__layers=6)
    assert few.latency_cycles == pytest.approx(many.latency_cycles, rel=0.03)
    assert few.latency_cycles > 1.5 * few.cycles  # two batches are on the way


def test_queries_of_two_streams_have_rows_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, regions = set(), {}
    write_row, place = Device.write_row, Placement.__init__

    def written(device: Device, channel: int, row: int, size_bytes: int) -> Any:
        rows.add(row)
        return write_row(device, channel, row, size_bytes)

    def placed(placement: Placement, *arguments: Any, **options: Any) -> None:
        regions.update(options["row_regions"])
        place(placement, *arguments, **options)

    monkeypatch.setattr(Device, "write_row", written)
    monkeypatch.setattr(Placement, "__init__", placed)
    run("neupims", RETRIEVAL, workload__queries=2)
    assert len(rows) == 4 == regions["queries"]  # a descriptor of 384 numbers takes one row


def test_every_similarity_is_summed_and_compared_on_the_vector_units() -> None:
    """2048 vectors per channel, four partial sums each: 6144 additions and 2048 comparisons on 1024 lanes, 8 cycles of latency."""
    settings = SEARCH | {"workload.database": 65_536, "workload.dimensions": 2048}
    assert vector_cycles(run("neupims", settings)) == pytest.approx(32 * (6 + 2 + 8))


def test_searches_in_turn_add_up_to_the_run() -> None:
    result = run("neupims", SEARCH, workload__queries=4)
    assert 0.9 * result.cycles < result.operator_cycles["search"] <= result.cycles


def test_a_database_in_pim_lies_in_memory_once() -> None:
    settings = SEARCH | {"workload.database": 5_000_000, "workload.rerank": "superglobal", "workload.top_m": 10}
    assert (
        run("neupims", settings, workload__top_m=10).stages["E"] > 0
    )  # twice 3.8 GB per 32 channels would still fit ...
    with pytest.raises(InputError, match="database"):
        run("neupims", settings, workload__database=60_000_000)


def test_number_formats_change_the_traffic() -> None:
    reads = [run("npu_only", VIT, npu__element_bytes=size).traffic_bytes["read"] for size in (1, 2, 4)]
    assert reads[1] == pytest.approx(2 * reads[0], rel=0.2)
    assert reads[2] == pytest.approx(2 * reads[1], rel=0.2)


# Parts


def test_the_first_repetition_does_not_stand_for_the_others() -> None:
    device = Device.build(config("npu_only", VIT))

    def work(count: int, finished: Any) -> Any:
        for number in range(count):
            yield device.env.timeout(1000 if number == 0 else 100)
            device.seen.operators.append(OperatorRecord(number, 0, None, "x", "", 0, 1000 if number == 0 else 100, 0))
            finished()

    done = run_extrapolated(device, [Part("warm", 10, 3, work), Part("single", 1, 1, work)])
    assert done.total.cycle == 1000 + 9 * 100 + 1000
    assert done.operator_cycles == {"x": 1000 + 9 * 100 + 1000}


def gemm_trace(path: Path, repeat: int = 1, role: Any = "weight", size: int = 1024) -> dict[str, Any]:
    """A workload that is one product, whose right matrix belongs to the layer."""
    left, right, out = Tensor("x", (size, size)), Tensor("w", (size, size), role=role), Tensor("y", (size, size))
    write_trace(
        path, TraceHeader("one", "encode", 1), [Operator(0, "mm", "gemm", (left, right), (out,), repeat=repeat)]
    )
    return {"workload": {"name": "t", "kind": "trace", "path": str(path)}}


def test_results_are_stored(tmp_path: Path) -> None:
    assert run("npu_only", gemm_trace(tmp_path / "t.jsonl")).traffic_bytes["write"] >= 2 * 1024**2


@pytest.mark.parametrize("role", ["weight", "kv_cache"])
def test_layers_that_are_not_simulated_need_room_too(tmp_path: Path, role: str) -> None:
    """INV-9: 10,000 layers of 8 MB."""
    assert run("npu_only", gemm_trace(tmp_path / "t.jsonl", 100, role, 2048)).cycles > 0
    with pytest.raises(InputError, match="does not fit"):
        run("npu_only", gemm_trace(tmp_path / "t.jsonl", 10_000, role, 2048))


def test_a_layer_has_its_own_weights(tmp_path: Path) -> None:
    on_npu = TraceOnNpu(config("npu_only", VIT), [generate_vit(load_model("vit-s16", VitConfig)).operators])
    assert {"0.qkv.weight", "1.qkv.weight"} <= set(on_npu.tensors())
    assert "1.classifier.weight" not in on_npu.tensors()


def test_a_trace_without_work_is_one_line(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.jsonl", TraceHeader("nothing", "encode", 1), [])
    with pytest.raises(InputError, match="nothing: the trace has nothing to do"):
        run("npu_only", {"workload": {"name": "t", "kind": "trace", "path": str(tmp_path / "t.jsonl")}})


def vector_cycles(result: Result) -> float:
    """Cycles in which the vector units worked."""
    return result.utilization["vector_busy"] * result.block_cycles


def test_pooling_in_pim_takes_powers_writes_all_tokens_and_counts_its_products() -> None:
    settings = VIT | {"workload.batch_size": 64, "pooling_on": "pim", "model.layers": 2}
    average, gem = (run("neupims", settings, workload__pooling=pooling) for pooling in ("average", "gem"))
    elements = 64 * 196 * 384
    powers = vector_cycles(gem) - vector_cycles(average)
    assert powers >= elements / 1024 * 10  # a comparison and a power each
    on_vector = run("neupims", settings, workload__pooling="average", pooling_on="vector")
    assert average.traffic_bytes["write"] - on_vector.traffic_bytes["write"] >= elements * 2
    (record,) = [record for record in average.observations.operators if record.operator == "pooling"]
    layout = PoolingLayout.on(config("neupims", VIT).memory, 196, 384, 2)
    assert record.macs == 32 * layout.counts(2).dots * 32 * 16


# Searches beside decoding

DECODE = {"model.layers": 4, "workload.batch_size": 32}
BACKGROUND = DECODE | {
    "workload.background.database": 500_000,
    "workload.background.dimensions": 384,
    "workload.background.top_m": 10,
}


def test_a_search_in_the_background_slows_decoding_and_is_slowed() -> None:
    alone, both = run("neupims", DECODE), run("neupims", BACKGROUND)
    search = run("neupims", LARGER)
    assert alone.background == {}
    assert both.cycles > alone.cycles
    rate = both.background["queries_per_s"]
    assert rate is not None
    assert 0 < rate < both.devices * search.throughput_per_s
    assert both.background["mean_latency_cycles"] > search.cycles  # type: ignore[operator]


def test_whose_turn_comes_first_is_slowed_less() -> None:
    # several long programs want each channel
    crowded = BACKGROUND | {"workload.batch_size": 128, "mapping.search_program_tiles": 512}
    first = run("neupims", crowded, workload__background__turn="first")
    last = run("neupims", crowded, workload__background__turn="last")
    assert first.cycles > last.cycles
    assert first.background["queries_per_s"] > last.background["queries_per_s"]  # type: ignore[operator]


# Placement


@given(
    st.lists(
        st.tuples(st.integers(1, 5000), st.integers(0, 30), st.integers(0, 10)).map(
            lambda drawn: (drawn[0], drawn[1], drawn[1] + drawn[2])
        ),
        min_size=1,
        max_size=30,
    )
)
def test_tensors_that_live_at_the_same_time_do_not_overlap(drawn: list[tuple[int, int, int]]) -> None:
    lives = [Lifetime(str(number), *values) for number, values in enumerate(drawn)]
    allocation = allocate(lives, 64)
    blocks = [(life, allocation.offsets[life.name], allocation.offsets[life.name] + life.size_bytes) for life in lives]
    for number, (life, start, end) in enumerate(blocks):
        assert start % 64 == 0
        assert end <= allocation.size_bytes
        for other, other_start, other_end in blocks[:number]:
            together = life.first <= other.last and other.first <= life.last
            assert not together or end <= other_start or other_end <= start
    alive = [sum(life.size_bytes for life in lives if life.first <= now <= life.last) for now in range(41)]
    assert max(alive) <= allocation.size_bytes <= sum(-(-life.size_bytes // 64) * 64 for life in lives)


def test_results_and_inputs_live_as_long_as_somebody_may_read_them() -> None:
    trace = generate_vit(load_model("vit-s16", VitConfig), batch=2)
    lives = {life.name: life for life in lifetimes(trace.operators)}
    end = len(trace.operators)
    assert lives["classifier"].last == end
    assert lives["images"].first == 0
    assert lives["attend"].size_bytes == 2 * 197 * 384 * 2  # both images' parts
    assert lives["qkv"].size_bytes == 3 * lives["attend"].size_bytes
    assert not any(name.endswith("weight") for name in lives)


# Bad input


@pytest.mark.parametrize(
    ("system", "settings", "message"),
    [
        ("npu_only", {"model": "vit-b16"}, "model='vit-b16' is a vit; workload 'sharegpt' (kind llm) runs decoder: "),
        (
            "npu_only",
            {"workload": "images"},
            "model='gpt3-7b' is a decoder; workload 'images' (kind images) runs vit or",
        ),
        (
            "npu_only",
            VIT | {"workload.image_size": 230},
            "workload.image_size=230x230 is not a multiple of the patch, 16",
        ),
        ("npu_only", VIT | {"workload.image_size": "big"}, "'big' is neither a side nor HEIGHTxWIDTH"),
        ("npu_only", VIT | {"workload.pooling": "ggem", "workload.groups": 5}, "workload.groups=5 does not divide"),
        ("npu_only", VIT | {"workload.groups": 6}, "workload.groups=6 is for pooling=ggem only"),
        ("npu_only", VIT | {"workload.poling": "gem"}, "workload.poling='gem': unknown key; allowed: batch_size"),
        ("npu_only", VIT | {"workload.kind": "image"}, "workload.kind='image': not an option; allowed: images, llm"),
        ("npu_only", VIT | {"model.patch": 0}, "model.patch=0: must be greater than 0"),
        ("npu_only", VIT | {"parallel.tensor": 4}, "parallel.tensor=4 divides language models only"),
        (
            "npu_only",
            VIT | {"pooling_on": "pim", "workload.pooling": "gem"},
            "pooling_on='pim', but memory 'HBM2 8 Gb x128' has",
        ),
        ("neupims", VIT | {"pooling_on": "pim", "workload.pooling": "max"}, "pooling_on='pim' sums over tokens"),
        ("neupims", RETRIEVAL | {"pooling_on": "pim"}, "pooling_on='pim' is for workloads of kind images and trace"),
        ("neupims", SEARCH | {"workload.top_m": 30_000}, "top_m=30000 is more than database=20000 vectors"),
        ("neupims", RETRIEVAL | {"workload.dimensions": 512}, "workload.dimensions=512, but vit-s16 gives"),
        ("npu_only", SEARCH | {"search_on": "pim"}, "search_on='pim', but memory 'HBM2 8 Gb x128' has no PIM"),
        (
            "neupims",
            {"workload": {"name": "t", "kind": "trace", "path": "no.jsonl"}},
            "workload.path='no.jsonl': no such",
        ),
        ("npu_only", VIT | {"model": "resnet50", "workload.pooling": "gem"}, "workload.pooling='gem' is for a vit"),
        ("neupims", VIT | {"model": "resnet50", "pooling_on": "pim"}, "pooling_on='pim' sums over the tokens of a vit"),
        (
            "neupims",
            VIT | {"scheduling.interleaving": "lockstep"},
            "workload kind images goes in one piece; allowed: off",
        ),
        ("neupims", SEARCH | {"parallel.tensor": 2}, "parallel.tensor=2 divides language models only"),
        ("neupims", RETRIEVAL | {"search_on": "npu", "scheduling.interleaving": "lockstep"}, "needs search_on='pim'"),
        ("npu_only", VIT | {"npu.element_bytes": 3}, "npu.element_bytes=3: not an option; allowed: 1, 2, 4"),
        (
            "npu_pim",
            BACKGROUND | {"preset": "asplos24"},
            "memory.pim.device_serial_issue=True lets a query through as one",
        ),
        ("npu_only", BACKGROUND, "workload.background: searches beside other work run in PIM only"),
    ],
)
def test_what_does_not_go_together_is_one_line(system: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        load_config(system, settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_database_that_does_not_fit_is_refused_with_the_numbers() -> None:
    """INV-9."""
    for system in ("neupims", "npu_only"):
        with pytest.raises(InputError, match=r"does not fit: channel 0 needs [\d,]+ B and has 1,073,741,824 B"):
            run(system, SEARCH, workload__database=60_000_000)


def test_few_candidates_for_superglobal_are_refused() -> None:
    with pytest.raises(InputError, match="top=5 must be at least 10"):
        run("neupims", RETRIEVAL, workload__top_m=5)

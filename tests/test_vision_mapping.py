"""Vision models as work of the NPU: every operator maps, no work is lost, nothing is on the chip that does not fit or was never there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from neupims_sim.config import ResnetConfig, VitConfig, load_config, load_memory, load_model
from neupims_sim.config.schema import NpuConfig, SystolicConfig
from neupims_sim.errors import InputError
from neupims_sim.mapping.full_attention import AttentionPlan, AttentionShape, plan_attention
from neupims_sim.mapping.gemm import plan_gemm
from neupims_sim.mapping.operators import AttentionWork, GemmWork, LinkWork, VectorWork, Work, work_macs
from neupims_sim.mapping.phases import map_phase
from neupims_sim.mapping.products import product_of
from neupims_sim.memory.models import IdealMemory
from neupims_sim.npu import Gemm, share_gemm
from neupims_sim.npu.device import Npu, Region
from neupims_sim.trace import Operator, Tensor, Trace, macs
from neupims_sim.trace.kinds import KINDS, flops, vector_operations
from neupims_sim.workloads import generate_llm, generate_resnet, generate_retrieval, generate_vit

CONFIG = load_config("npu_only")
NPU = CONFIG.npu
BANDWIDTH = 1024.0
SCRATCHPADS = [2**18, 2**20, 8 * 2**20, 64 * 2**20]


@cache
def trace(name: str) -> Trace:
    """A trace of every kind of vision workload, of a size that covers all paths."""
    vit, resnet = load_model("vit-b16", VitConfig), load_model("resnet50", ResnetConfig)
    if name.startswith("vit"):
        return generate_vit(vit, batch=int(name[3:]), pooling="ggem")
    if name.startswith("resnet"):
        return generate_resnet(resnet, batch=int(name[6:]))
    if name == "extract":
        return generate_retrieval(database=500, top_m=20, queries=2, extract=resnet, image_size=(224, 224))
    return generate_retrieval(database=300, top_m=15, queries=2, rerank=name, image_size=(224, 320))


NAMES = ["vit1", "vit4", "resnet1", "extract", "superglobal", "cvnet", "rrt"]


UNFUSED = {"fuse": False, "hold_residents": False, "gemm_loops": "least_traffic"}
"""Every operator on its own, as ``physical_2024`` has it."""


def works(name: str, keep: bool = True, npu: NpuConfig = NPU, fuse: bool = False) -> list[Work]:
    mapping = CONFIG.mapping.model_copy(update={"keep_activations_on_chip": keep, **({} if fuse else UNFUSED)})
    return list(map_phase(trace(name).operators, frozenset(), npu, mapping, BANDWIDTH).works)


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_inv3_every_operator_is_done_once(name: str, fuse: bool) -> None:
    mapped, operators = works(name, fuse=fuse), trace(name).operators
    assert [operator.id for work in mapped for operator in work.operators] == [operator.id for operator in operators]
    assert sum(map(work_macs, mapped)) == sum(map(macs, operators))
    for work in mapped:
        assert work_macs(work) == sum(map(macs, work.operators))


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_inv5_no_unit_beats_its_peak(name: str, fuse: bool) -> None:
    array_peak = NPU.systolic.arrays * NPU.systolic.rows * NPU.systolic.columns
    lanes = NPU.vector.units * NPU.vector.lanes
    for work in works(name, fuse=fuse):
        if isinstance(work, GemmWork):
            assert work.plan.total_compute_cycles * array_peak >= work_macs(work)
        elif isinstance(work, AttentionWork):
            assert work.plan.array_cycles * array_peak >= work_macs(work)
            assert work.plan.softmax_cycles.sum() * lanes >= sum(map(flops, work.operators[1::3]))
        else:
            assert isinstance(work, VectorWork)
            for op, cycles in zip(work.operators, work.cycles, strict=True):
                assert cycles * lanes >= sum(vector_operations(op).values()) + 2 * macs(op)


@pytest.mark.parametrize("name", NAMES)
def test_inv5_without_activations_on_chip_everything_moves_at_least_once(name: str) -> None:
    for work in works(name, keep=False):
        operators = work.operators
        if isinstance(work, AttentionWork):
            wanted = [t for op in operators[::3] for t in op.inputs] + [op.inputs[1] for op in operators[2::3]]
            loaded, stored = int(work.plan.load_bytes.sum()), int(work.plan.store_bytes.sum())
            assert stored == sum(op.outputs[0].bytes for op in operators[2::3])
            assert loaded >= sum(tensor.bytes for tensor in wanted)
        elif isinstance(work, GemmWork):
            assert work.plan.total_activation_bytes >= work.activations.bytes
            assert work.plan.total_weight_bytes >= work.weights.bytes
            assert work.plan.total_store_bytes == work.output.bytes
        else:
            read = sum(
                size for role, size in KINDS[work.operator.op].read_bytes(work.operator).items() if role != "weight"
            )
            assert sum(tensor.bytes for tensor in work.loads) >= read
            assert work.stores == work.operator.outputs


def reads(work: Work) -> Iterator[tuple[Tensor, bool]]:
    """Every input of a work that is not a parameter, and whether it comes from memory."""
    if isinstance(work, AttentionWork):
        operands = [t for op in work.operators[::3] for t in op.inputs] + [op.inputs[1] for op in work.operators[2::3]]
        yield from ((tensor, bool(work.plan.load_bytes.any())) for tensor in operands)
    elif isinstance(work, GemmWork):
        yield work.activations, bool(work.plan.activation_bytes.any())
        yield work.weights, bool(work.plan.weight_bytes.any())
        yield from ((tensor, True) for tensor in work.beside)
    else:
        loads = {tensor.name for tensor in work.loads}
        read = [tensor for op in work.operators for tensor in op.inputs]
        yield from ((tensor, tensor.name in loads) for tensor in read if tensor.role != "weight")


def outputs(work: Work) -> Sequence[Tensor]:
    """What a work makes, by the names that the trace gives."""
    if isinstance(work, AttentionWork):
        return [op.outputs[0] for op in work.operators[2::3]]
    return [tensor for op in work.operators for tensor in op.outputs]


def stores(work: Work) -> Sequence[Tensor]:
    if isinstance(work, VectorWork):
        return work.stores
    return outputs(work) if work.plan.store_bytes.any() else ()


def overlap(a: str, b: str) -> bool:
    """Whether one is a view of the other."""
    return a == b or a.startswith((f"{b}.", f"{b}[")) or b.startswith((f"{a}.", f"{a}["))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([*NAMES, "resnet4"]), st.sampled_from(SCRATCHPADS), st.booleans(), st.booleans())
def test_what_is_read_from_memory_was_stored(name: str, scratchpad: int, double: bool, fuse: bool) -> None:
    npu = NPU.model_copy(update={"scratchpad_bytes": scratchpad, "double_buffered": double})
    made: set[str] = set()
    stored: set[str] = set()
    for work in works(name, npu=npu, fuse=fuse):
        for tensor, from_memory in reads(work):
            if from_memory:
                needed = {other for other in made if overlap(other, tensor.name)}
                assert needed <= stored, (work.operators[0].name, tensor.name)
        made |= {tensor.name for tensor in outputs(work)}
        stored |= {tensor.name for tensor in stores(work)}


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([*NAMES, "resnet4"]), st.sampled_from(SCRATCHPADS))
def test_inv9_what_waits_on_the_chip_and_what_is_computed_fit_together(name: str, scratchpad: int) -> None:
    npu = NPU.model_copy(update={"scratchpad_bytes": scratchpad})
    mapped = works(name, npu=npu)
    waiting = np.zeros(len(mapped), dtype=np.int64)
    read = [list(reads(work)) for work in mapped]
    for index, work in enumerate(mapped):
        for output in outputs(work):
            for later in range(index + 1, len(mapped)):
                found = [from_memory for tensor, from_memory in read[later] if overlap(tensor.name, output.name)]
                if found:
                    waiting[index + 1 : later + 1] += 0 if any(found) else output.bytes
                    break
    for work, held in zip(mapped, waiting.tolist(), strict=True):
        own = 0
        if isinstance(work, AttentionWork):
            own = 2 * int(work.plan.room_bytes.max())
        elif isinstance(work, GemmWork):
            tile, plan = work.plan.tile, work.plan
            streamed = tile.m * tile.k * bool(plan.activation_reads) + tile.k * tile.n * bool(plan.weight_reads)
            own = 2 * streamed * npu.element_bytes
        assert held + own <= scratchpad, work.operators[0].name


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([*NAMES, "resnet4"]), st.sampled_from(SCRATCHPADS), st.booleans())
def test_every_piece_of_work_finds_the_scratchpad_that_it_takes_in_turn(
    name: str, scratchpad: int, double: bool
) -> None:
    """What stays is reserved and given back, and the tiles fit beside it, so that nobody waits for ever."""
    npu = NPU.model_copy(update={"scratchpad_bytes": scratchpad, "double_buffered": double})
    mapping = CONFIG.mapping
    phase = map_phase(trace(name).operators, frozenset(), npu, mapping, BANDWIDTH)
    held = 0
    for work in phase.works:
        held += work.reserve_bytes
        peak = 0
        if isinstance(work, GemmWork):
            freed = np.concatenate([[0], np.cumsum(work.plan.freed_bytes)[:-1]])
            peak = int((np.cumsum(work.plan.room_bytes) - freed).max())
            assert work.plan.room_bytes.sum() == work.plan.freed_bytes.sum()
        elif isinstance(work, AttentionWork):
            peak = int(work.plan.room_bytes.max())
        assert held + peak <= scratchpad, work.operators[0].name
        held -= work.release_bytes
        assert held >= 0
    assert held == sum(phase.left.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_fused_operator_reads_tiles_and_what_passes_between_them_never_moves(name: str) -> None:
    for product, behind in itertools.pairwise(works(name, keep=False, fuse=True)):
        if not isinstance(product, GemmWork) or not isinstance(behind, VectorWork):
            continue
        if not {tensor.whole for tensor in product.operator.outputs} & {
            tensor.whole for tensor in behind.operator.inputs
        }:
            continue
        if not KINDS[behind.operator.op].per_tile:
            continue
        inside = {tensor.name for op in behind.operators for tensor in op.outputs} | {product.output.name}
        assert behind.follows
        assert behind.loads == ()
        assert not {tensor.name for tensor in product.beside} & inside


def test_what_a_language_model_fuses() -> None:
    """Norms go with the addition before them, activations with their product, the cache with the QKV product."""
    config = load_config("npu_only", {"model": "llama-3-8b", "model.layers": 1, "parallel.tensor": 2})
    decode = generate_llm(config.model, np.array([64, 100]), tensor_parallel=2)
    before = [op for op in decode.operators if op.name in ("qkv", "rotary", "kv_append")]
    last = max(number for number, op in enumerate(decode.operators) if op.request is not None)
    after = decode.operators[last + 1 :]
    mapped = [
        work
        for operators in (before, after)
        for work in map_phase(operators, frozenset({"ffn_add"}), NPU, CONFIG.mapping, BANDWIDTH).works
    ]
    assert [[op.name for op in work.operators] for work in mapped] == [
        ["qkv"], ["rotary", "kv_append"],
        ["projection"], ["projection_all_reduce"], ["attention_add", "ffn_norm"],
        ["gate"], ["up"], ["silu_multiply"], ["down"], ["ffn_all_reduce"], ["ffn_add"],
    ]  # fmt: skip
    assert [work.follows for work in mapped if isinstance(work, VectorWork)] == [True] * 4
    assert isinstance(mapped[3], LinkWork)


@pytest.mark.parametrize("name", [*NAMES, "resnet4"])
def test_less_moves_where_more_stays(name: str) -> None:
    moved = [
        sum(traffic(work) for work in works(name, npu=NPU.model_copy(update={"scratchpad_bytes": scratchpad})))
        for scratchpad in SCRATCHPADS
    ]
    assert moved == sorted(moved, reverse=True)
    assert sum(map(traffic, works(name))) < sum(map(traffic, works(name, keep=False)))


def traffic(work: Work) -> int:
    if isinstance(work, GemmWork):
        return work.plan.traffic_bytes
    if isinstance(work, AttentionWork):
        return int(work.plan.load_bytes.sum() + work.plan.store_bytes.sum())
    return sum(tensor.bytes for tensor in (*work.loads, *work.stores))


def test_images_share_the_rounds_of_the_arrays() -> None:
    """4 images of 12 heads on 8 arrays: 6 rounds. A head's logits are two folds of 197 rows, its attend too."""
    (work,) = (work for work in works("vit4") if isinstance(work, AttentionWork))
    assert len(work.operators) == 3 * 4
    assert work.plan.shape == AttentionShape(4, 12, 12, 197, 197, 64)
    assert work.plan.heads.tolist() == [8] * 6
    assert set(work.plan.logits_cycles) == set(work.plan.attend_cycles) == {2 * 197}
    assert set(work.plan.softmax_cycles) == {8 * 197 // 8 * (2 * 8 + 6) + 8}
    qkv = next(op for op in trace("vit4").operators if op.name == "qkv")
    assert work.deps == {qkv.id}
    assert not work.plan.load_bytes.any()
    assert not work.plan.store_bytes.any()
    (stored,) = (work for work in works("vit4", keep=False) if isinstance(work, AttentionWork))
    assert (stored.source.name, stored.source.bytes) == ("qkv", qkv.outputs[0].bytes)
    assert (stored.output.name, stored.output.bytes) == ("attend", 4 * 197 * 768 * 2)


def test_prompts_of_a_language_model_map_too() -> None:
    """A causal mask hides half of the pairs; tiles are whole. Prompts of the same length are planned together."""
    config = load_config("npu_only", {"model.layers": 1})
    prefill = generate_llm(config.model, np.array([64, 64, 100]), phase="prefill")
    mapped = map_phase(prefill.operators, frozenset(), config.npu, config.mapping, BANDWIDTH).works
    attention = [work for work in mapped if isinstance(work, AttentionWork)]
    assert [work.plan.shape.images for work in attention] == [2, 1]
    assert sum(map(work_macs, mapped)) == sum(map(macs, prefill.operators))
    heads, size = config.model.heads, config.model.head_size
    assert work_macs(attention[1]) == 2 * heads * size * (100 * 101 // 2)


def test_attention_without_its_softmax_is_refused() -> None:
    operators = [op for op in trace("vit1").operators if op.op != "softmax"]
    with pytest.raises(
        InputError, match=r"logits.*softmax, attention_attend in a row, not attention_logits, attention"
    ):
        map_phase(operators, frozenset(), NPU, CONFIG.mapping, BANDWIDTH)


# Matrix products


def operator(kind: str, inputs: list[tuple[int, ...]], *outputs: tuple[int, ...], **attrs: object) -> Operator:
    weights = {1, 2} if kind.endswith("convolution") else set()
    tensors = [
        Tensor(f"in{n}", shape, role="weight" if n in weights else "activation") for n, shape in enumerate(inputs)
    ]
    results = [Tensor(f"out{n}", shape) for n, shape in enumerate(outputs)]
    return Operator(0, kind, kind, tuple(tensors), tuple(results), attrs=attrs)


def test_an_operator_that_multiplies_is_a_gemm_of_as_many_macs() -> None:
    for name in NAMES:
        for op in trace(name).operators:
            product = product_of(op)
            if product is not None:
                assert product.times * product.gemm.macs == macs(op), op.name
            elif macs(op):
                assert op.op in ("attention_logits", "attention_attend", "weighted_mean")


@pytest.mark.parametrize(
    ("op", "shape", "times"),
    [
        (operator("gemm", [(3, 5), (5, 7)], (3, 7)), (3, 5, 7), 1),
        (
            operator("convolution", [(2, 3, 8, 8), (27, 16)], (2, 16, 4, 4), kernel=3, stride=2, padding=1),
            (2 * 16, 27, 16),
            1,
        ),
        (
            operator(
                "center_pivot_convolution", [(1, 3, 4, 4, 5, 5), (27, 8), (27, 8), (8,), (8,)], (1, 8, 4, 4, 5, 5)
            ),
            (400, 54, 8),
            1,
        ),
        (operator("correlation", [(2, 6, 3, 4), (2, 6, 5, 5)], (2, 1, 3, 4, 5, 5)), (12, 6, 25), 2),
        (operator("similarity", [(2, 6), (30, 6)], (2, 30)), (2, 6, 30), 1),
        (operator("similarity", [(30, 6)], (30, 30)), (30, 6, 30), 1),
        (operator("batched_gemm", [(12, 3, 5), (4, 5, 7)], (12, 3, 7)), (3, 5, 7), 12),
        (operator("batched_gemm", [(12, 3, 5), (1, 5, 7)], (12, 3, 7)), (36, 5, 7), 1),
    ],
    ids=lambda value: getattr(value, "op", ""),
)
def test_products_of_matrices(op: Operator, shape: tuple[int, int, int], times: int) -> None:
    product = product_of(op)
    assert product is not None
    assert (product.gemm, product.times) == (shape, times)


def test_what_is_no_matrix_product_is_none() -> None:
    assert product_of(operator("relu", [(2, 6)], (2, 6), alpha=0.0)) is None


def test_several_products_do_the_work_of_each_and_fill_the_arrays_once() -> None:
    op = operator("batched_gemm", [(12, 100, 64), (12, 64, 100)], (12, 100, 100))
    (work,) = map_phase([op], frozenset({"out0"}), NPU, CONFIG.mapping, BANDWIDTH).works
    assert isinstance(work, GemmWork)
    one = plan_gemm(100, 64, 100, NPU, bandwidth_bytes_per_cycle=BANDWIDTH)
    latency = share_gemm(Gemm(100, 64, 100), NPU.systolic).occupancy.latency_cycles
    assert one.steps == 1
    assert work.plan.total_compute_cycles == 12 * one.total_compute_cycles - 11 * latency
    assert work_macs(work) == macs(op)
    assert work.plan.traffic_bytes == sum(tensor.bytes for tensor in (*op.inputs, *op.outputs))


def test_a_convolution_reads_its_map_not_the_gathered_matrix() -> None:
    resnet = works("resnet4", keep=False)
    found = 0
    for work in resnet:
        if isinstance(work, GemmWork) and work.operator.op == "convolution":
            product = product_of(work.operator)
            assert product is not None
            gathered = plan_gemm(*product.gemm, NPU, bandwidth_bytes_per_cycle=BANDWIDTH)
            assert work.plan.tile == gathered.tile
            assert work.plan.total_activation_bytes == work.plan.activation_reads * work.activations.bytes
            found += work.plan.total_activation_bytes < gathered.total_activation_bytes
    assert found


def test_the_right_matrix_of_two_activations_may_be_on_the_chip_and_waits_for_its_producer() -> None:
    mapped = {work.operators[0].name: work for work in works("superglobal")}
    search, score = mapped["search"], mapped["score1"]
    assert isinstance(search, GemmWork)
    assert isinstance(score, GemmWork)
    assert (search.weights_wait, score.weights_wait) == (False, True)
    assert search.plan.total_weight_bytes == 300 * 2048 * 2
    assert score.plan.total_weight_bytes == 0


def test_a_lookup_moves_the_rows_that_it_takes() -> None:
    (found, _) = (work for work in works("rrt") if work.operators[0].name == "local_candidates")
    assert isinstance(found, VectorWork)
    assert found.cycles == (0,)
    assert max(tensor.bytes for tensor in found.loads) == 15 * 500 * 128 * 2


def test_products_of_a_weighted_mean_are_a_multiply_and_an_add_each() -> None:
    (first, _) = (work for work in works("superglobal") if work.operators[0].name == "refine")
    assert isinstance(first, VectorWork)
    lanes = NPU.vector.units * NPU.vector.lanes
    macs_, rows = 15 * 10 * 2048, 15
    multiplies, adds, divides = macs_ + rows * 9, macs_ + rows * 10, rows * 2048
    assert sum(first.cycles) == -(-multiplies // lanes) + -(-adds // lanes) + 4 * -(-divides // lanes) + 8


def test_a_second_output_is_stored_and_the_first_only_where_needed() -> None:
    top = operator("top_m", [(4, 50)], (4, 5), (4, 5))
    use = Operator(1, "use", "relu", (top.outputs[0],), (Tensor("y", (4, 5)),), attrs={"alpha": 0.0})
    unfused = CONFIG.mapping.model_copy(update=UNFUSED)
    for later, stored in ((frozenset[str](), ["out1"]), (frozenset({"out0"}), ["out0", "out1"])):
        work, _ = map_phase([top, use], later, NPU, unfused, BANDWIDTH).works
        assert isinstance(work, VectorWork)
        assert [tensor.name for tensor in work.stores] == stored


def test_what_nobody_reads_in_a_phase_stays_for_whoever_comes_after_it_or_is_stored() -> None:
    top = operator("top_m", [(4, 50)], (4, 5), (4, 5))
    phase = map_phase([top], frozenset({"out1"}), NPU, CONFIG.mapping, BANDWIDTH)
    (work,) = phase.works
    assert isinstance(work, VectorWork)
    assert [tensor.name for tensor in work.stores] == ["out1"]
    assert phase.left == {"out0": 4 * 5 * 2}
    assert work.reserve_bytes == 4 * 5 * 2


# Steps of an attention

shapes = st.builds(
    lambda images, kv, group, tokens, context, size: AttentionShape(images, kv * group, kv, tokens, context, size),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([8, 32, 64, 80]),
)
npus = st.builds(
    NpuConfig,
    name=st.just("test"),
    systolic=st.builds(SystolicConfig, arrays=st.sampled_from([1, 3, 8]), dataflow=st.sampled_from(["ws", "os", "is"])),
    scratchpad_bytes=st.sampled_from([2**18, 2**20, 8 * 2**20]),
    double_buffered=st.booleans(),
)
residents = st.frozensets(st.sampled_from(["queries", "keys", "values", "output"]))


@settings(max_examples=80, deadline=None)
@given(shapes, npus, residents)
def test_steps_hold_every_row_of_every_head_once_and_fit(
    shape: AttentionShape, npu: NpuConfig, on_chip: frozenset
) -> None:
    plan = plan_attention(shape, npu, on_chip)
    done = np.zeros((shape.products, shape.rows), dtype=int)
    for first_head, heads, first_row, rows in zip(plan.first_head, plan.heads, plan.first_row, plan.rows, strict=True):
        done[first_head : first_head + heads, first_row : first_row + rows] += 1
    assert (done == 1).all()
    size = npu.element_bytes
    logits = plan.heads * plan.rows * shape.context * size
    held = plan.load_bytes + logits + plan.store_bytes
    assert (plan.room_bytes == held).all()
    assert plan.room_bytes.max() <= npu.scratchpad_bytes // (2 if npu.double_buffered else 1)
    query_bytes = shape.products * shape.rows * shape.head_size * size
    cache_bytes = shape.products * shape.context * shape.head_size * size
    least = {"queries": query_bytes, "keys": cache_bytes, "values": cache_bytes}
    assert plan.load_bytes.sum() >= sum(value for name, value in least.items() if name not in on_chip)
    assert plan.store_bytes.sum() == (0 if "output" in on_chip else query_bytes)
    peak = npu.systolic.arrays * npu.systolic.rows * npu.systolic.columns
    pairs = shape.products * shape.rows * shape.context
    assert plan.array_cycles * peak >= 2 * pairs * shape.head_size


def test_a_head_that_does_not_fit_is_cut_into_rows() -> None:
    npu = NPU.model_copy(update={"scratchpad_bytes": 2**20})
    plan = plan_attention(AttentionShape(1, 2, 2, 1000, 1000, 64), npu)
    assert set(plan.heads) == {1}
    assert plan.rows.tolist() == ([112] * 8 + [104]) * 2
    assert plan.load_bytes.sum() == 2 * 64 * 2 * (1000 + 9 * 2 * 1000)


def test_a_row_that_does_not_fit_is_refused_with_the_numbers() -> None:
    npu = NPU.model_copy(update={"scratchpad_bytes": 2**18})
    with pytest.raises(InputError, match=r"needs 258256 B of the 131072 B .* npu.scratchpad_bytes=262144"):
        plan_attention(AttentionShape(1, 1, 1, 1000, 1000, 64), npu)


@pytest.mark.parametrize("heads", [1, 2, 12, 24])
def test_fewer_heads_than_arrays_share_them(heads: int) -> None:
    """Of the arrays none is idle where heads divide them, so that time is at most that of whole rounds."""
    plan = plan_attention(AttentionShape(1, heads, heads, 197, 197, 64), NPU)
    assert plan.array_cycles <= -(-heads // 8) * 4 * 197
    assert plan_attention(AttentionShape(2, heads, heads, 197, 197, 64), NPU).array_cycles >= plan.array_cycles


# Attention on the clock


def simulated(plan: AttentionPlan, npu: NpuConfig, priority_work: bool = False) -> tuple[int, float, dict[str, int]]:
    """(cycles, bytes per cycle, busy cycles per lane) with a memory of bandwidth and latency only."""
    env = simpy.Environment()
    memory = IdealMemory(env, load_memory("ideal"))
    busy: dict[str, int] = {}

    def observe(lane: str, name: str, start: int, end: int) -> None:
        busy[lane] = busy.get(lane, 0) + end - start

    device = Npu(env, npu, memory, observe)
    source, output = (
        Region(2**20 * n, int(size)) for n, size in ((1, plan.load_bytes.sum()), (64, plan.store_bytes.sum()))
    )
    ready = env.timeout(100)
    env.run(env.process(device.attention("attention", plan, source=source, output=output, ready=ready, macs=0)))
    return int(env.now) - 100, memory.capabilities.peak_bytes_per_cycle, busy


@settings(max_examples=25, deadline=None)
@given(shapes, npus, st.sampled_from([frozenset(), frozenset({"queries", "keys", "values", "output"})]))
def test_inv5_simulated_attention_lies_between_its_slowest_part_and_the_sum(
    shape: AttentionShape, npu: NpuConfig, on_chip: frozenset
) -> None:
    plan = plan_attention(shape, npu, on_chip)
    cycles, bandwidth, busy = simulated(plan, npu)
    moved = (plan.load_bytes.sum() + plan.store_bytes.sum()) / bandwidth
    arrays, vector = plan.array_cycles, int(plan.softmax_cycles.sum())
    assert (busy["systolic arrays"], busy["vector units"]) == (arrays, vector)
    assert cycles >= max(arrays, vector, moved)
    latency = load_memory("ideal").ideal_latency_cycles + 4
    assert cycles <= arrays + vector + moved + int(2 * plan.drain_cycles.sum()) + 2 * latency * plan.steps


def test_a_softmax_overlaps_with_the_logits_of_the_next_step() -> None:
    plan = plan_attention(AttentionShape(8, 12, 12, 197, 197, 64), NPU)
    cycles, _, _ = simulated(plan, NPU)
    vector = int(plan.softmax_cycles.sum())
    assert cycles < 1.05 * vector < vector + plan.array_cycles


def test_a_product_of_two_activations_loads_neither_before_they_are_there() -> None:
    env = simpy.Environment()
    started: list[int] = []
    memory = IdealMemory(env, load_memory("ideal"))
    device = Npu(env, NPU, memory, lambda lane, name, start, end: started.append(start))
    plan = plan_gemm(64, 64, 64, NPU, bandwidth_bytes_per_cycle=BANDWIDTH)
    regions = {name: Region(2**16 * n, 2**14) for n, name in enumerate(("weights", "activations", "output"))}
    env.run(env.process(device.gemm("g", plan, **regions, ready=env.timeout(5000), weights_wait=True)))
    assert min(started) == 5000

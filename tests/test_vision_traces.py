"""Vision models and retrieval as traces: totals against published ones and against formulas written out here."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_cases import Captured, run
from hypothesis import given
from hypothesis import strategies as st

from neupims_sim.config import ResnetConfig, VitConfig, load_model
from neupims_sim.errors import InputError
from neupims_sim.trace import (
    KINDS,
    Operator,
    Role,
    Tensor,
    Trace,
    checked,
    flops,
    macs,
    read_bytes,
    read_trace,
    write_bytes,
    write_trace,
)
from neupims_sim.trace.kinds.convolution import im2col
from neupims_sim.workloads import generate_resnet, generate_retrieval, generate_vit
from neupims_sim.workloads.building import TraceBuilder


def vit(name: str) -> VitConfig:
    return load_model(name, VitConfig)


def resnet(name: str) -> ResnetConfig:
    return load_model(name, ResnetConfig)


vit_names = st.sampled_from(["vit-s16", "vit-b16", "vit-l16", "vit-h14"])
VIT_SHAPES = {"vit-s16": (12, 384, 16), "vit-b16": (12, 768, 16), "vit-l16": (24, 1024, 16), "vit-h14": (32, 1280, 14)}


def tensor(*shape: int, role: Role = "activation", dtype: str = "float16") -> Tensor:
    return Tensor("x", shape, dtype, role)


def operator(op: str, inputs: list[Tensor], *outputs: Tensor, **attrs: Any) -> Operator:
    return Operator(0, op, op, tuple(inputs), outputs, attrs=attrs)


def named(trace: Trace, *names: str) -> list[Operator]:
    return [op for op in trace.operators if op.name in names]


def one(trace: Trace, name: str) -> Operator:
    (op,) = named(trace, name)
    return op


def total_macs(trace: Trace) -> int:
    return sum(op.repeat * macs(op) for op in trace.operators)


def weights(trace: Trace) -> dict[str, int]:
    """Parameters of each distinct weight; a repeated layer has its own."""
    return {t.name: op.repeat * t.elements for op in trace.operators for t in op.inputs if t.role == "weight"}


def ancestors(trace: Trace, op: Operator) -> set[int]:
    """Ids of everything that must end before ``op``."""
    found: set[int] = set()
    waiting = list(op.deps)
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += trace.operators[number].deps
    return found


# What the kinds count

EXAMPLES = {
    "convolution": operator(
        "convolution",
        [tensor(2, 3, 7, 9), tensor(27, 5, role="weight"), tensor(5, role="weight")],
        tensor(2, 5, 4, 5),
        kernel=3,
        stride=2,
        padding=1,
    ),
    "center_pivot_convolution": operator(
        "center_pivot_convolution",
        [tensor(1, 2, 4, 4, 6, 6), *2 * [tensor(18, 5, role="weight")], *2 * [tensor(5, role="weight")]],
        tensor(1, 5, 2, 2, 3, 3),
        kernel=3,
        stride=2,
        padding=1,
    ),
    "correlation": operator("correlation", [tensor(2, 8, 3, 4), tensor(2, 8, 5, 6)], tensor(2, 1, 3, 4, 5, 6)),
    "average_pool": operator("average_pool", [tensor(2, 5, 8)], tensor(2, 8)),
    "max_pool": operator("max_pool", [tensor(2, 8, 3, 4)], tensor(2, 8)),
    "group_gem": operator("group_gem", [tensor(2, 5, 8), tensor(4, role="weight")], tensor(2, 8)),
    "gem_plus": operator("gem_plus", [tensor(2, 8, 3, 4)], tensor(2, 8), p=4.6),
    "regional_gem": operator("regional_gem", [tensor(2, 8, 3, 4)], tensor(2, 8, 3, 4), p=2.5, window=5),
    "scale_gem": operator("scale_gem", [tensor(3, 2, 8)], tensor(2, 8)),
    "window_max_pool": operator(
        "window_max_pool", [tensor(2, 8, 7, 9)], tensor(2, 8, 4, 5), kernel=3, stride=2, padding=1
    ),
    "relu": operator("relu", [tensor(2, 8)], tensor(2, 8), alpha=0.014),
    "token_sequence": operator("token_sequence", [tensor(8, 6), tensor(1, 6), tensor(5, 6)], tensor(10, 6)),
    "group_norm": operator("group_norm", [tensor(2, 8, 3), tensor(8), tensor(8)], tensor(2, 8, 3), groups=4),
    "l2_normalize": operator("l2_normalize", [tensor(2, 8, 3, 4)], tensor(2, 8, 3, 4)),
    "resize": operator("resize", [tensor(1, 8, 3, 4)], tensor(1, 8, 6, 8)),
    "similarity": operator("similarity", [tensor(3, 8), tensor(20, 8, role="state")], tensor(3, 20)),
    "top_m": operator("top_m", [tensor(3, 20)], tensor(3, 4, dtype="int32"), tensor(3, 4)),
    "weighted_mean": operator(
        "weighted_mean", [tensor(20, 8), tensor(20, 4, dtype="int32"), tensor(20, 4)], tensor(20, 8), beta=0.15
    ),
    "max_of_rows": operator("max_of_rows", [tensor(20, 8), tensor(1, 4, dtype="int32")], tensor(1, 8)),
    "mean": operator("mean", [tensor(1, 20), tensor(1, 20)], tensor(1, 20)),
}
FLOPS = {
    "convolution": 2 * (2 * 4 * 5) * 27 * 5,
    "center_pivot_convolution": 5 * 36 * (2 * 2 * 18 + 1),
    "correlation": 2 * 2 * 12 * 30 * 8,
    "average_pool": 80 + 16,
    "max_pool": 192,
    "group_gem": 3 * 80 + 2 * 16,
    "gem_plus": 3 * 192 + 2 * 16,
    "regional_gem": 192 * (1 + 25 + 1 + 1 + 2),
    "scale_gem": 48,
    "window_max_pool": 2 * 8 * 20 * 9,
    "relu": 16,
    "token_sequence": 60,
    "group_norm": 7 * 48 + 4 * 2 * 4,
    "l2_normalize": 3 * 192 + 2 * 24,
    "resize": 9 * 8 * 48,
    "similarity": 2 * 3 * 20 * 8,
    "top_m": 60,
    "weighted_mean": 2 * 20 * 4 * 8 + 20 * (3 + 4) + 20 * 8,
    "max_of_rows": 32,
    "mean": 40,
}


@pytest.mark.parametrize("kind", sorted(EXAMPLES))
def test_flops_of_a_kind_agree_with_a_hand_calculation(kind: str) -> None:
    (op,) = checked([EXAMPLES[kind]])
    assert flops(op) == FLOPS[kind]
    assert KINDS[kind].__doc__


def test_a_convolution_is_the_gemm_of_its_windows() -> None:
    assert im2col(EXAMPLES["convolution"]) == (2 * 4 * 5, 27, 5)
    assert read_bytes(EXAMPLES["convolution"]) == {"activation": 2 * 2 * 3 * 63, "weight": 2 * (27 * 5 + 5)}


def test_pairs_of_vectors_are_read_once() -> None:
    gram = operator("similarity", [tensor(20, 8)], tensor(20, 20))
    assert flops(gram) == 2 * 20 * 20 * 8
    assert read_bytes(gram) == {"activation": 2 * 20 * 8}


def test_maximum_of_rows_reads_only_those() -> None:
    assert read_bytes(EXAMPLES["max_of_rows"]) == {"activation": 4 * 8 * 2 + 4 * 4}


def test_interpolation_along_four_axes_takes_fifteen_steps() -> None:
    op = operator("resize", [tensor(1, 1, 2, 2, 2, 2)], tensor(1, 1, 3, 3, 3, 3))
    assert flops(op) == 15 * 3 * 81


@pytest.mark.parametrize(
    "wrong",
    [
        replace(EXAMPLES["convolution"], attrs={"kernel": 3, "stride": 1, "padding": 1}),
        replace(EXAMPLES["convolution"], attrs={"kernel": 3, "stride": 0, "padding": 1}),
        replace(EXAMPLES["convolution"], outputs=(tensor(2, 4, 4, 5),)),
        replace(EXAMPLES["center_pivot_convolution"], outputs=(tensor(1, 5, 2, 2, 2, 3),)),
        operator("correlation", [tensor(2, 8, 3, 4), tensor(2, 7, 5, 6)], tensor(2, 1, 3, 4, 5, 6)),
        operator("average_pool", [tensor(2, 8)], tensor(8)),
        operator("max_pool", [tensor(2, 8, 3, 4)], tensor(2, 3)),
        operator("group_gem", [tensor(2, 5, 8), tensor(3)], tensor(2, 8)),
        replace(EXAMPLES["gem_plus"], attrs={"p": 0.0}),
        replace(EXAMPLES["gem_plus"], attrs={"p": math.nan}),
        replace(EXAMPLES["regional_gem"], attrs={"p": -1.0, "window": 5}),
        replace(EXAMPLES["regional_gem"], attrs={"p": 2.5, "window": 4}),
        replace(EXAMPLES["regional_gem"], attrs={"p": 2.5, "window": 7}),
        operator("scale_gem", [tensor(3, 2, 8)], tensor(3, 8)),
        operator("token_sequence", [tensor(8, 6), tensor(1, 6), tensor(5, 6)], tensor(9, 6)),
        operator("token_sequence", [tensor(8, 6), tensor(1, 5), tensor(5, 6)], tensor(10, 6)),
        replace(EXAMPLES["group_norm"], attrs={"groups": 3}),
        operator("l2_normalize", [tensor(8)], tensor(8)),
        operator("resize", [tensor(1, 8, 3, 4)], tensor(1, 7, 3, 4)),
        operator("similarity", [tensor(3, 8), tensor(20, 9)], tensor(3, 20)),
        operator("top_m", [tensor(3, 20)], tensor(3, 21), tensor(3, 21)),
        operator("top_m", [tensor(3, 20)], tensor(3, 4), tensor(3, 5)),
        operator("weighted_mean", [tensor(20, 8), tensor(20, 4), tensor(20, 5)], tensor(20, 8), beta=0.15),
        operator("max_of_rows", [tensor(3, 8), tensor(1, 4)], tensor(1, 8)),
        operator("mean", [tensor(1, 20), tensor(1, 19)], tensor(1, 20)),
    ],
)
def test_shapes_that_do_not_fit_the_kind_are_refused(wrong: Operator) -> None:
    with pytest.raises(ValueError, match=r"^operator 0 \("):
        list(checked([wrong]))


# Published totals


@pytest.mark.parametrize(
    ("model", "parameters", "gmacs"),
    [
        # DeiT-S: Touvron et al., arXiv 2012.12877, table 1 (22 M); Liu et al. (Swin), arXiv 2103.14030, table 1 (4.6 G)
        ("vit-s16", 22.1e6, 4.6),
        # torchvision's model pages, num_params and "GFLOPS" (which are MACs)
        ("vit-b16", 86_567_656, 17.56),
        ("vit-l16", 304_326_632, 61.55),
        ("vit-h14", 632_045_800, 167.29),
    ],
)
def test_vit_totals_are_the_published_ones(model: str, parameters: float, gmacs: float) -> None:
    trace = generate_vit(vit(model))
    assert sum(weights(trace).values()) == pytest.approx(parameters, rel=0.003)
    assert total_macs(trace) / 1e9 == pytest.approx(gmacs, rel=0.001)


def test_more_pixels_are_more_positions() -> None:
    """torchvision's ViT-H/14 fine-tuned at 518 pixels: 633,470,440 parameters, 1,016.72 GMACs."""
    trace = generate_vit(vit("vit-h14"), image_size=(518, 518))
    assert sum(weights(trace).values()) == 633_470_440
    assert total_macs(trace) / 1e9 == pytest.approx(1016.72, rel=0.001)


@pytest.mark.parametrize(
    ("model", "parameters", "normalized", "gmacs"),
    [
        # torchvision's model pages (num_params, "GFLOPS"); channels that are normalized: shift and gain become one bias
        ("resnet50", 25_557_032, 26_560, 4.09),
        ("resnet101", 44_549_160, 52_672, 7.80),
    ],
)
def test_resnet_totals_are_the_published_ones(model: str, parameters: int, normalized: int, gmacs: float) -> None:
    trace = generate_resnet(resnet(model))
    assert sum(weights(trace).values()) == parameters - normalized
    assert normalized < 0.01 * parameters
    assert total_macs(trace) / 1e9 == pytest.approx(gmacs, rel=0.001)


# Vision transformers


@given(model=vit_names, rows=st.integers(1, 20), columns=st.integers(1, 20), batch=st.integers(1, 3))
def test_work_and_parameters_of_a_vit_follow_the_formula(model: str, rows: int, columns: int, batch: int) -> None:
    layers, width, patch = VIT_SHAPES[model]
    patches = rows * columns
    tokens = patches + 1
    trace = generate_vit(vit(model), image_size=(rows * patch, columns * patch), batch=batch)
    encoder = layers * (12 * tokens * width**2 + 2 * tokens**2 * width)
    assert total_macs(trace) == batch * (patches * 3 * patch**2 * width + encoder + 1000 * width)
    # per layer QKV 3, projection 1, FFN 8 width^2; 9 width of biases, 4 of norms
    encoder = layers * (12 * width**2 + 13 * width)
    embedding = 3 * patch**2 * width + width + width + tokens * width
    assert sum(weights(trace).values()) == embedding + encoder + 2 * width + 1001 * width - width + 1000


def test_a_vit_has_its_operators_in_order() -> None:
    trace = generate_vit(vit("vit-b16"), batch=2, pooling="ggem")
    per_image = ["logits", "softmax", "attend"]
    block = ["attention_norm", "qkv", *2 * per_image, "projection", "attention_add"]
    block += ["ffn_norm", "ffn1", "gelu", "ffn2", "ffn_add"]
    names = ["patch_embedding", "tokens", *block, "final_norm", "pooling", "classifier"]
    assert [op.name for op in trace.operators] == names
    assert [op.repeat for op in trace.operators] == [1, 1, *len(block) * [12], 1, 1, 1]


def test_an_image_waits_only_for_itself_and_the_projection_for_all() -> None:
    trace = generate_vit(vit("vit-s16"), batch=3)
    (qkv,) = named(trace, "qkv")
    for image in range(3):
        own = [op for op in trace.operators if op.request == image]
        assert [op.name for op in own] == ["logits", "softmax", "attend"]
        assert [op.deps for op in own] == [(qkv.id,), (qkv.id + 3 * image + 1,), (qkv.id, qkv.id + 3 * image + 2)]
    assert one(trace, "projection").deps == tuple(op.id for op in named(trace, "attend"))
    assert one(trace, "attention_add").deps == (one(trace, "tokens").id, one(trace, "projection").id)


def test_attention_is_full() -> None:
    trace = generate_vit(vit("vit-b16"))
    assert [macs(op) for op in named(trace, "logits", "attend")] == 2 * [197 * 197 * 768]


@pytest.mark.parametrize(
    ("pooling", "work", "exponents"),
    [
        ("average", 196 * 768 + 768, 0),
        ("max", 196 * 768, 0),
        ("gem", 3 * 196 * 768 + 2 * 768, 1),
        ("ggem", 3 * 196 * 768 + 2 * 768, 12),
    ],
)
def test_pooling_adds_one_operator_over_the_patches(pooling: str, work: int, exponents: int) -> None:
    plain, trace = generate_vit(vit("vit-b16"), batch=2), generate_vit(vit("vit-b16"), batch=2, pooling=pooling)
    op = one(trace, "pooling")
    assert not named(plain, "pooling")
    assert op.inputs[0].shape == (2, 196, 768)
    assert flops(op) == 2 * work
    assert op.deps == (one(trace, "final_norm").id,)
    assert one(trace, "classifier").deps == (op.id,)
    assert total_macs(trace) == total_macs(plain)
    assert sum(weights(trace).values()) - sum(weights(plain).values()) == exponents


def test_groups_default_to_the_heads_and_may_be_any_divisor_of_the_channels() -> None:
    assert generate_vit(vit("vit-l16"), pooling="ggem").header.attrs["groups"] == 16
    trace = generate_vit(vit("vit-l16"), pooling="ggem", groups=512)
    assert one(trace, "pooling").inputs[1].shape == (512,)


# ResNets


def test_a_bottleneck_stage_by_hand() -> None:
    """Stage 2 of ResNet-50 at 224 pixels: the stride is in the 3x3, the other three blocks are alike."""
    trace = generate_resnet(resnet("resnet50"))
    shapes = {name: im2col(one(trace, f"stage2_block1_{name}")) for name in ("conv1", "conv2", "conv3", "shortcut")}
    assert shapes == {
        "conv1": (56 * 56, 256, 128),
        "conv2": (28 * 28, 9 * 128, 128),
        "conv3": (28 * 28, 128, 512),
        "shortcut": (28 * 28, 256, 512),
    }
    assert im2col(one(trace, "stage2_block2_conv1")) == (28 * 28, 512, 128)
    assert one(trace, "stage2_block2_conv1").repeat == 3
    assert not named(trace, "stage2_block2_shortcut")
    assert im2col(one(trace, "stem")) == (112 * 112, 147, 64)
    assert one(trace, "stem_pooling").outputs[0].shape == (1, 64, 56, 56)


def test_the_shortcut_and_the_last_convolution_meet_in_the_add() -> None:
    trace = generate_resnet(resnet("resnet50"))
    expected = sorted(one(trace, f"stage3_block1_{name}").id for name in ("conv3", "shortcut"))
    assert list(one(trace, "stage3_block1_add").deps) == expected
    entry = one(trace, "stage3_block1_relu3").id
    assert entry in one(trace, "stage3_block2_add").deps


@given(height=st.integers(1, 400), width=st.integers(1, 400))
def test_any_image_size_gives_a_map_at_stride_32(height: int, width: int) -> None:
    trace = generate_resnet(resnet("resnet50"), image_size=(height, width))
    assert one(trace, "average").inputs[0].shape == (1, 2048, math.ceil(height / 32), math.ceil(width / 32))


def test_the_extractor_sees_three_scales_with_the_same_weights() -> None:
    plain = generate_resnet(resnet("resnet101"))
    trace = generate_resnet(resnet("resnet101"), image_size=(768, 1024), batch=2, head="descriptor")
    sizes = [op.outputs[0].shape[2:] for op in named(trace, "stem")]
    assert sizes == [(272, 362), (384, 512), (543, 724)]  # halves of 543 x 724, 768 x 1024, 1086 x 1448
    assert [op.outputs[0].shape[2:] for op in named(trace, "resize")] == [(543, 724), (1086, 1448)]
    backbone = sum(weights(plain).values()) - (2048 * 1000 + 1000)
    assert sum(weights(trace).values()) == backbone + 2048 * 2048 + 2048
    assert len({t.name for op in trace.operators for t in op.outputs}) == len(trace.operators)
    assert one(trace, "scale_gem").deps == tuple(op.id for op in named(trace, "scale_norm"))
    assert trace.operators[-1].outputs[0].shape == (2, 2048)


def test_relup_ends_the_blocks_of_the_first_three_stages_only() -> None:
    trace = generate_resnet(resnet("resnet50"), head="descriptor")
    alphas = {op.name: op.attrs["alpha"] for op in trace.operators if op.op == "relu"}
    ends = {f"stage{stage}_block{block}_relu3" for stage in (1, 2, 3) for block in (1, 2)}
    assert {name for name, alpha in alphas.items() if alpha} == ends
    assert {alphas[name] for name in ends} == {0.014}
    assert not any(op.attrs["alpha"] for op in generate_resnet(resnet("resnet50")).operators if op.op == "relu")


def test_the_descriptor_goes_through_the_steps_of_superglobal() -> None:
    trace = generate_resnet(resnet("resnet50"), image_size=(224, 224), head="descriptor")
    tail = ["regional_gem", "gem_plus", "gem_norm", "whitening", "scale_norm"]
    assert [op.name for op in trace.operators if op.attrs.get("scale") == 1.0][-5:] == tail
    names = [op.name for op in trace.operators]
    assert names[-7:] == [*tail, "scale_gem", "descriptors"]
    assert one(trace, "descriptors").op == "l2_normalize"


# Retrieval


def test_search_reads_the_database_once_for_all_queries() -> None:
    trace = generate_retrieval(database=1000, dimensions=64, queries=7, top_m=50, rerank="none")
    search, ranks = trace.operators
    assert macs(search) == 7 * 64 * 1000
    assert read_bytes(search) == {"activation": 2 * 7 * 64, "state": 2 * 64 * 1000}
    assert write_bytes(ranks) == {"activation": 7 * 50 * (4 + 2)}
    assert ranks.deps == (search.id,)


@given(queries=st.integers(1, 4), top=st.integers(10, 60), more=st.integers(0, 40), size=st.integers(1, 64))
def test_superglobal_compares_all_pairs_of_the_candidates(queries: int, top: int, more: int, size: int) -> None:
    trace = generate_retrieval(database=top + more, dimensions=size, queries=queries, top_m=top)
    search = queries * size * (top + more)
    # all pairs; ten neighbours of each; S1 and S2
    assert total_macs(trace) - search == queries * (top * top * size + top * 10 * size + 2 * top * size)
    for query in range(queries):
        own = [op for op in trace.operators if op.request == query]
        assert own[-1].name == "order"
        assert own[-1].outputs[0].shape == (1, top)
        assert {trace.operators[number].request for number in ancestors(trace, own[-1])} == {None, query}
        assert ancestors(trace, own[-1]) == {0, 1} | {op.id for op in own[:-1]}


@pytest.mark.parametrize("rerank", ["superglobal", "rrt", "cvnet"])
def test_queries_do_not_wait_for_each_other(rerank: str) -> None:
    trace = generate_retrieval(database=500, queries=3, top_m=20, rerank=rerank)
    for query in range(3):
        own = [op for op in trace.operators if op.request == query]
        assert ancestors(trace, own[-1]) == {0, 1} | {op.id for op in own[:-1]}


def test_extraction_feeds_search_and_reranking() -> None:
    trace = generate_retrieval(database=500, top_m=20, extract=resnet("resnet50"), image_size=(224, 224))
    descriptors = one(trace, "descriptors")
    assert one(trace, "search").deps == (descriptors.id,)
    assert descriptors.id in one(trace, "score1").deps
    alone = generate_resnet(resnet("resnet50"), image_size=(224, 224), head="descriptor")
    assert trace.operators[: len(alone.operators)] == alone.operators


def test_reranking_transformer_looks_at_1004_tokens_of_each_pair() -> None:
    trace = generate_retrieval(database=1000, top_m=100, rerank="rrt")
    search, remap = 2048 * 1000, (100 + 1) * 2048 * 128
    layer = 1004 * (4 * 128**2 + 2 * 128 * 1024) + 2 * 1004**2 * 128
    assert total_macs(trace) == search + remap + 100 * (6 * layer + 128)
    assert one(trace, "logits").inputs[0].shape == (100 * 4, 1004, 32)
    block = 4 * 128**2 + 4 * 128 + 2 * 128 * 1024 + 1024 + 128 + 4 * 128
    assert sum(weights(trace).values()) == 6 * block + (2048 + 1) * 128 + 2 * 128 + 129
    assert read_bytes(one(trace, "local_candidates"))["state"] == 100 * 500 * 128 * 2


def test_cvnet_correlates_nine_pairs_of_sizes_per_candidate() -> None:
    """Stage-3 maps of 12 x 16 positions, and 8 x 11 and 6 x 8: sides times the roots of 1/2 and 1/4."""
    trace = generate_retrieval(database=1000, top_m=100, rerank="cvnet", image_size=(192, 256))
    positions = [6 * 8, 8 * 11, 12 * 16]
    correlations = named(trace, "correlation")
    assert sum(macs(op) for op in correlations) == 256 * sum(positions) ** 2
    assert {op.repeat for op in correlations} == {100}
    compressions = named(trace, "candidate_compress")
    assert sum(macs(op) for op in compressions) == 9 * 1024 * 256 * sum(positions)
    assert {op.repeat for op in named(trace, "query_compress")} == {1}
    sizes = [(6, 8), (6, 8), (3, 4), (3, 4), (3, 4), (2, 2), (2, 2), (2, 2), (2, 2)]
    channels = [9, 16, 16, 32, 32, 32, 64, 64, 64, 128]
    by_hand = [
        (h * w) ** 2 * inner * outer * 2 * kernel**2
        for (h, w), inner, outer, kernel in zip(sizes, channels[:-1], channels[1:], [5, *8 * [3]], strict=True)
    ]
    assert [macs(op) for op in trace.operators if op.op == "center_pivot_convolution"] == by_hand
    assert read_bytes(one(trace, "local_candidates"))["state"] == 1024 * 12 * 16 * 2


# Files, command line, bad input

TRACES = {
    "vit": generate_vit(vit("vit-s16"), batch=2, pooling="gem"),
    "resnet": generate_resnet(resnet("resnet101"), head="descriptor"),
    **{
        rerank: generate_retrieval(database=300, queries=2, top_m=15, rerank=rerank, image_size=(224, 320))
        for rerank in ("superglobal", "cvnet", "rrt", "none")
    },
}


@pytest.mark.parametrize("name", sorted(TRACES))
def test_a_written_trace_reads_back_identical(tmp_path: Path, name: str) -> None:
    path = tmp_path / "t.jsonl.gz"
    write_trace(path, TRACES[name].header, TRACES[name].operators)
    assert read_trace(path) == TRACES[name]


@pytest.mark.parametrize("name", sorted(TRACES))
def test_only_weights_state_and_the_models_input_have_no_producer(name: str) -> None:
    """Every other input is found among the outputs: no dependency is lost to a misspelt name."""
    produced: set[str] = set()
    for op in TRACES[name].operators:
        for found in op.inputs:
            known = found.whole in produced or found.role in ("weight", "state")
            assert known or found.whole in ("images", "descriptors"), (op.name, found.name)
        produced |= {t.whole for t in op.outputs}


@pytest.mark.parametrize(
    ("arguments", "model"),
    [
        (["vit", "vit-b16", "--image-size", "384", "--batch", 2, "--pooling", "ggem", "--groups", 6], "vit-b16"),
        (["resnet", "resnet50", "--image-size", "256x224", "--head", "descriptor"], "resnet50"),
        (["retrieval", "--database", 5000, "--queries", 2, "--top", 30, "--extract", "resnet50"], "retrieval"),
        (["retrieval", "--rerank", "cvnet"], "retrieval"),
    ],
)
def test_a_trace_is_made_shown_and_checked(capsys: Captured, tmp_path: Path, arguments: list[Any], model: str) -> None:
    path = tmp_path / "t.jsonl"
    code, out, _ = run(capsys, "trace", *arguments, "-o", path)
    assert code == 0
    count = len(read_trace(path).operators)
    assert out == f"{path}: {count} operators\n"
    assert run(capsys, "trace", "check", path) == (0, f"{path}: ok, {count} operators\n", "")
    code, out, _ = run(capsys, "trace", "show", path)
    assert code == 0
    assert f": {model} " in " ".join(out.split())  # a long path breaks the title into lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vit", "vit-b32"], "did you mean vit-b16?"),
        (["vit", "vit-b16", "--image-size", "230"], "image_size=230x230 is not a positive multiple of the patch, 16"),
        (["vit", "vit-h14", "--image-size", "224x225"], "image_size=224x225 is not a positive multiple"),
        (["vit", "vit-b16", "--image-size", "0"], "image_size=0x0 is not a positive multiple"),
        (["vit", "vit-b16", "--image-size", "big"], "--image-size 'big' is neither a side nor HEIGHTxWIDTH"),
        (["vit", "vit-b16", "--batch", "0"], "batch=0 must be at least 1"),
        (["vit", "vit-b16", "--pooling", "gemm"], "unknown pooling 'gemm'; allowed: average, cls, gem, ggem, max; did"),
        (["vit", "vit-b16", "--pooling", "ggem", "--groups", "7"], "groups=7 does not divide the 768 channels"),
        (["vit", "vit-b16", "--pooling", "ggem", "--groups", "0"], "groups=0 does not divide the 768 channels"),
        (["vit", "vit-b16", "--pooling", "gem", "--groups", "6"], "groups=6 is for pooling=ggem only"),
        (["resnet", "resnet5"], "did you mean resnet50?"),
        (["resnet", "vit-b16"], "model=vit-b16 is of another family; allowed: resnet101, resnet50"),
        (["resnet", "resnet50", "--head", "description"], "did you mean descriptor?"),
        (["resnet", "resnet50", "--head", "descriptor", "--image-size", "90"], "image_size=90x90: at scale 0.7071"),
        (["retrieval", "--database", "300"], "top=400 is more than the database=300 vectors"),
        (["retrieval", "--top", "9"], "top=9 must be at least 10"),
        (["retrieval", "--top", "0"], "top=0 must be at least 1"),
        (["retrieval", "--queries", "0"], "queries=0 must be at least 1"),
        (["retrieval", "--dimensions", "-1"], "dimensions=-1 must be at least 1"),
        (["retrieval", "--rerank", "cvnett"], "unknown rerank 'cvnett'; allowed: cvnet, none, rrt, superglobal; did"),
        (["retrieval", "--rerank", "cvnet", "--image-size", "0x5"], "is too small for rerank=cvnet"),
        (["retrieval", "--extract", "resnet18"], "did you mean resnet10"),
        (["retrieval", "--extract", "resnet50", "--dimensions", "512"], "gives 2048 dimensions, not dimensions=512"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    capsys: Captured, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, out, err = run(capsys, "trace", *arguments, "-o", tmp_path / "t.jsonl")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.iterdir())


def test_the_checker_refuses_an_exponent_of_zero(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_trace(path, TRACES["resnet"].header, TRACES["resnet"].operators)
    path.write_text(path.read_text().replace('"p":4.6', '"p":0.0', 1))
    with pytest.raises(InputError, match=r"operator \d+ \('gem_plus'\): attrs.p=0.0 must be greater than 0"):
        read_trace(path)


def test_a_view_is_known_by_every_tensor_that_contains_it() -> None:
    """``qkv[1].q`` waits for ``qkv[1]`` alone, ``qkv`` for all of its parts."""
    builder = TraceBuilder("float16")
    parts = [builder.add("qkv", "gelu", (Tensor("x", (4,)),), (4,), request=number) for number in range(2)]
    builder.add("view", "gelu", (builder.activation(f"{parts[1].name}.q", 4),), (4,))
    builder.add("whole", "gelu", (builder.activation("qkv", 8),), (8,))
    assert [op.deps for op in builder.operators] == [(), (), (1,), (0, 1)]

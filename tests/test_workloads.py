"""Workloads: decoder blocks against closed forms, and request lengths against the datasets they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neupims_sim.config import ModelConfig, WorkloadConfig, available, load_section
from neupims_sim.config.files import LENGTHS
from neupims_sim.config.schema import WarmupConfig
from neupims_sim.errors import InputError
from neupims_sim.trace import Operator, Trace, checked, flops, macs, read_bytes, write_bytes
from neupims_sim.workloads import (
    block_parameters,
    generate_llm,
    load_lengths,
    parameters,
    read_lengths,
    read_request_batch,
    read_request_stream,
    request_batch,
    stream,
    warmed_up_batch,
    warmed_up_contexts,
)


def gpt(layers: int = 32, heads: int = 32, d_model: int = 4096, **other: Any) -> ModelConfig:
    values = {"d_ff": 4 * d_model, "vocabulary": 50304} | other
    return ModelConfig(name="gpt", layers=layers, heads=heads, d_model=d_model, **values)


def llama(**other: Any) -> ModelConfig:
    values: dict[str, Any] = {
        "name": "llama",
        "layers": 32,
        "heads": 32,
        "d_model": 4096,
        "d_ff": 11008,
        "vocabulary": 32000,
        "norm": "rmsnorm",
        "ffn": "gated",
        "activation": "silu",
        "position": "rotary",
        "bias": False,
    }
    return ModelConfig(**values | other)


def named(trace: Trace, *names: str) -> list[Operator]:
    return [op for op in trace.operators if op.name in names]


def gemm_macs(trace: Trace) -> int:
    return sum(macs(op) for op in trace.operators if op.op == "gemm")


def attention_macs(trace: Trace) -> int:
    return sum(macs(op) for op in named(trace, "logits", "attend"))


def weight_elements(trace: Trace) -> int:
    """Parameters of one layer of everything in the trace."""
    return sum(t.elements for op in trace.operators for t in op.inputs if t.role == "weight")


@st.composite
def small_models(draw: st.DrawFn) -> ModelConfig:
    kv_heads = 4 * draw(st.integers(1, 3))
    shape = {
        "layers": draw(st.integers(1, 4)),
        "heads": kv_heads * draw(st.integers(1, 4)),
        "kv_heads": kv_heads,
        "head_size": 2 * draw(st.integers(1, 8)),
        "d_model": draw(st.integers(1, 100)),
        "d_ff": 4 * draw(st.integers(1, 50)),
        "vocabulary": 4 * draw(st.integers(1, 50)),
    }
    return gpt(**shape) if draw(st.booleans()) else llama(**shape)


batches = st.lists(st.integers(1, 200), min_size=1, max_size=5).map(np.array)


# Decoder blocks


@pytest.mark.parametrize(
    ("name", "published", "tolerance"),
    [
        ("gpt3-7b", 6.7e9, 0.01),
        ("gpt3-13b", 13e9, 0.02),
        ("gpt3-30b", 30e9, 0.02),
        ("gpt3-175b", 175e9, 0.01),
        ("llama-2-7b", 6.738e9, 0.001),
        ("llama-3-8b", 8.030e9, 0.001),
    ],
)
def test_parameter_counts_of_the_shipped_models_are_the_published_ones(
    name: str, published: float, tolerance: float
) -> None:
    model = load_section("model", name)
    assert isinstance(model, ModelConfig)
    assert parameters(model) == pytest.approx(published, rel=tolerance)


def test_gpt_block_has_12_d_model_squared_weights_and_13_d_model_in_vectors() -> None:
    assert block_parameters(gpt()) == 12 * 4096**2 + 13 * 4096
    assert block_parameters(gpt(bias=False)) == 12 * 4096**2 + 4 * 4096
    assert block_parameters(llama()) == 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096


@given(model=small_models(), contexts=batches)
def test_weights_of_the_trace_are_the_parameters_of_the_model(model: ModelConfig, contexts: np.ndarray) -> None:
    assert weight_elements(generate_llm(model, contexts)) == block_parameters(model)
    whole = generate_llm(model, contexts, lm_head=True)
    stored = sum(op.repeat * t.elements for op in whole.operators for t in op.inputs if t.role == "weight")
    tied = model.vocabulary * model.d_model if model.position == "learned" else 0
    assert stored - tied == parameters(model)


@given(batch=st.integers(1, 40), context=st.integers(1, 300))
def test_decode_gemms_take_24_d_model_squared_flops_per_token(batch: int, context: int) -> None:
    trace = generate_llm(gpt(heads=4, d_model=64), np.full(batch, context))
    assert 2 * gemm_macs(trace) == 2 * batch * 12 * 64**2


@given(model=small_models(), contexts=batches)
def test_decode_attention_reads_each_cached_token_once(model: ModelConfig, contexts: np.ndarray) -> None:
    trace = generate_llm(model, contexts)
    for request, context in enumerate(contexts):
        mine = [op for op in trace.operators if op.request == request]
        assert [op.name for op in mine] == ["logits", "softmax", "attend"]
        read = sum(read_bytes(op).get("kv_cache", 0) for op in mine)
        assert read == 2 * model.kv_heads * model.head_size * context * 2
        assert sum(macs(op) for op in mine) == 2 * model.heads * model.head_size * context
    (append,) = named(trace, "kv_append")
    assert write_bytes(append) == {"kv_cache": 2 * len(contexts) * model.kv_heads * model.head_size * 2}


@given(
    model=small_models(),
    contexts=batches,
    devices=st.sampled_from([2, 4]),
    phase=st.sampled_from(["decode", "prefill"]),
)
def test_tensor_parallel_shards_sum_to_the_whole(
    model: ModelConfig, contexts: np.ndarray, devices: int, phase: Any
) -> None:
    whole = generate_llm(model, contexts, phase=phase, lm_head=True)
    shard = generate_llm(model, contexts, phase=phase, lm_head=True, tensor_parallel=devices)
    assert devices * gemm_macs(shard) == gemm_macs(whole)
    assert devices * attention_macs(shard) == attention_macs(whole)
    for name in ("logits", "attend", "kv_append"):
        sums = [
            sum((read_bytes(op) | write_bytes(op)).get("kv_cache", 0) for op in named(trace, name))
            for trace in (whole, shard)
        ]
        assert sums[0] == devices * sums[1]
    reduced = [op.name for op in shard.operators if op.op == "all_reduce"]
    assert reduced == ["embedding_all_reduce", "projection_all_reduce", "ffn_all_reduce"]
    assert not any(op.op == "all_reduce" for op in whole.operators)


@given(model=small_models(), prompts=batches)
def test_prefill_attention_is_the_sum_of_decoding_the_prompt(model: ModelConfig, prompts: np.ndarray) -> None:
    steps = np.concatenate([np.arange(1, prompt + 1) for prompt in prompts])
    prefill, decode = generate_llm(model, prompts, phase="prefill"), generate_llm(model, steps)
    assert attention_macs(prefill) == attention_macs(decode)
    assert gemm_macs(prefill) == gemm_macs(decode)
    assert sum(map(flops, named(prefill, "softmax"))) == sum(map(flops, named(decode, "softmax")))


def test_grouped_query_attention_divides_the_cache_by_the_group_size() -> None:
    def cache_bytes(model: ModelConfig) -> int:
        return sum(read_bytes(op).get("kv_cache", 0) for op in generate_llm(model, np.array([100])).operators)

    assert cache_bytes(llama(kv_heads=32)) == 4 * cache_bytes(llama(kv_heads=8))


@given(model=small_models(), contexts=batches, devices=st.sampled_from([1, 2]), head=st.booleans())
def test_generated_traces_satisfy_the_checker(
    model: ModelConfig, contexts: np.ndarray, devices: int, head: bool
) -> None:
    for phase in ("decode", "prefill"):
        trace = generate_llm(model, contexts, phase=phase, tensor_parallel=devices, lm_head=head, seed=5)
        assert list(checked(trace.operators)) == list(trace.operators)
        assert (trace.header.phase, trace.header.batch, trace.header.seed) == (phase, len(contexts), 5)


def test_gpt_block_has_its_operators_in_order() -> None:
    trace = generate_llm(gpt(), np.array([5, 9]), tensor_parallel=4, lm_head=True)
    attention = "attention_norm qkv kv_append logits softmax attend logits softmax attend projection"
    ffn = "ffn_norm ffn1 gelu ffn2 ffn_all_reduce ffn_add"
    assert " ".join(op.name for op in trace.operators) == (
        f"embedding embedding_all_reduce {attention} projection_all_reduce attention_add {ffn} final_norm lm_head"
    )
    assert {op.name for op in trace.operators if op.repeat == 1} == {
        "embedding",
        "embedding_all_reduce",
        "final_norm",
        "lm_head",
    }
    assert {op.repeat for op in trace.operators} == {1, 32}


def test_llama_block_has_its_operators_in_order() -> None:
    names = [op.name for op in generate_llm(llama(), np.array([5])).operators]
    attention = "attention_norm qkv rotary kv_append logits softmax attend projection attention_add"
    assert " ".join(names) == f"{attention} ffn_norm gate up silu_multiply down ffn_add"


def test_a_request_waits_only_for_itself_and_the_projection_for_all() -> None:
    trace = generate_llm(gpt(), np.array([5, 9, 7]))
    by_id = {op.id: op for op in trace.operators}

    def waits_for(op: Operator) -> set[tuple[str, int | None]]:
        return {(by_id[dep].name, by_id[dep].request) for dep in op.deps}

    for request, op in enumerate(named(trace, "softmax")):
        assert waits_for(op) == {("logits", request)}
    for request, op in enumerate(named(trace, "attend")):
        assert waits_for(op) == {("softmax", request), ("kv_append", None)}
    for op in named(trace, "logits"):
        assert waits_for(op) == {("qkv", None), ("kv_append", None)}
    (projection,) = named(trace, "projection")
    assert waits_for(projection) == {("attend", request) for request in range(3)}


def test_prefill_needs_the_logits_of_the_last_tokens_only() -> None:
    (head,) = named(generate_llm(gpt(), np.array([30, 40]), phase="prefill", lm_head=True), "lm_head")
    assert head.outputs[0].shape == (2, 50304)


@pytest.mark.parametrize(
    ("model", "contexts", "options", "message"),
    [
        (gpt(), [5], {"tensor_parallel": 3}, "model.heads=32 is not a multiple of parallel.tensor=3"),
        (llama(kv_heads=2), [5], {"tensor_parallel": 4}, "model.kv_heads=2 is not a multiple"),
        (gpt(vocabulary=50257), [5], {"tensor_parallel": 2, "lm_head": True}, "model.vocabulary=50257"),
        (gpt(), [], {}, "no request"),
        (gpt(), [5, 0], {}, "request 1: a context of 0 tokens"),
        (gpt(), [2049], {}, "from 1 to model.max_positions=2048"),
        (gpt(kv_heads=5), [5], {}, "model.heads=32 is not a multiple of model.kv_heads=5"),
        (gpt(ffn="gated"), [5], {}, "model.ffn=gated with model.activation=gelu"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(
    model: ModelConfig, contexts: list[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        generate_llm(model, np.array(contexts, dtype=np.int64), **options)


# Request lengths

DATASETS = [("alpaca", 12, 56, 68), ("sharegpt", 80, 296, 301)]


@pytest.mark.parametrize(("dataset", "prompt_mean", "output_mean", "_context"), DATASETS)
def test_sampled_lengths_have_the_means_of_the_dataset(
    dataset: str, prompt_mean: int, output_mean: int, _context: int
) -> None:
    prompt, output = load_lengths(dataset).sample(1_000_000, stream(0, "test"))
    assert prompt.mean() == pytest.approx(prompt_mean, rel=0.03)
    assert output.mean() == pytest.approx(output_mean, rel=0.01)
    assert output.min() >= 1
    assert abs(np.corrcoef(prompt, output)[0, 1]) < 0.01


@pytest.mark.parametrize(("dataset", "_prompt", "_output", "context_mean"), DATASETS)
def test_warmed_up_batches_have_the_published_mean_context(
    dataset: str, _prompt: int, _output: int, context_mean: int
) -> None:
    workload = WorkloadConfig(name="test", dataset=dataset, batch_size=512)
    means = [warmed_up_batch(workload, seed).mean() for seed in range(10)]
    assert np.mean(means) == pytest.approx(context_mean, rel=0.05)
    assert means == pytest.approx([context_mean] * 10, rel=0.15)


def test_warm_up_in_jumps_is_the_same_as_token_by_token(tmp_path: Path) -> None:
    """The literal simulation, on lengths without randomness: prompt 3, output 5."""
    path = tmp_path / "fixed.csv"
    path.write_text("percentile,prompt_tokens,output_tokens\n0,3,5\n100,3,5\n")
    lengths, generated = read_lengths(path), 1
    for iteration in range(40):
        contexts = warmed_up_contexts(lengths, 4, iteration, 7, stream(0, "test"))
        assert contexts.tolist() == [min(3 + generated, 7)] * 4
        generated = generated + 1 if generated < 5 else 1


def test_contexts_stay_within_the_cap_and_are_never_empty() -> None:
    workload = WorkloadConfig(name="test", batch_size=4096, warmup=WarmupConfig(max_context_tokens=1000))
    contexts = warmed_up_batch(workload, 1)
    assert contexts.shape == (4096,)
    assert contexts.min() >= 1
    assert contexts.max() == 1000


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_requests_can_all_be_alike(phase: Any) -> None:
    batch = request_batch(WorkloadConfig(name="test", phase=phase, batch_size=3, context_tokens=77), seed=0)
    assert (batch.context_tokens.tolist(), batch.channels) == ([77, 77, 77], None)


def test_same_seed_same_batch_and_purposes_are_independent() -> None:
    workload = WorkloadConfig(name="test")
    assert warmed_up_batch(workload, 3).tolist() == warmed_up_batch(workload, 3).tolist()
    assert warmed_up_batch(workload, 3).tolist() != warmed_up_batch(workload, 4).tolist()
    assert stream(0, "one").random() != stream(0, "other").random()


def test_a_length_table_in_the_working_directory_is_found_by_its_stem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "traces" / "lengths"
    folder.mkdir(parents=True)
    (folder / "mine.csv").write_text("percentile,prompt_tokens,output_tokens\n0,10,1\n100,20,9\n")
    monkeypatch.chdir(tmp_path)
    assert {"alpaca", "mine", "sharegpt"} <= set(available(LENGTHS))
    prompt, output = load_lengths("mine").sample(1000, stream(0, "test"))
    assert (prompt.min(), prompt.max(), output.min(), output.max()) == (10, 20, 1, 9)
    with pytest.raises(InputError, match=r"workload\.dataset='mime' .* did you mean mine\?"):
        load_lengths("mime")


def test_prefill_draws_prompts() -> None:
    batch = request_batch(WorkloadConfig(name="test", phase="prefill", batch_size=2000), 0)
    assert batch.channels is None
    assert batch.context_tokens.min() >= 1
    assert batch.context_tokens.mean() < 150


# Request files


def test_a_request_file_overrides_the_dataset(tmp_path: Path) -> None:
    path = tmp_path / "batch.csv"
    path.write_text("seq_len,ch_idx\n2048,26\n 17 , 0\n\n")
    batch = request_batch(WorkloadConfig(name="test", requests=str(path)), 0)
    assert batch.context_tokens.tolist() == [2048, 17]
    assert batch.channels is not None
    assert batch.channels.tolist() == [26, 0]


def test_channels_may_be_absent(tmp_path: Path) -> None:
    path = tmp_path / "batch.csv"
    path.write_text("seq_len\r\n5\r\n")
    assert read_request_batch(path).channels is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": no rows; expected the columns seq_len, ch_idx"),
        ("seq_len,ch_idx\n", ": no rows"),
        ("length,ch_idx\n1,2\n", ":1: column 'seq_len' is missing; found length, ch_idx"),
        ("seq_len,seq_len\n1,2\n", ":1: column 'seq_len' occurs twice"),
        ("# note\nseq_len,ch_idx\n1,2\n2.5,0\n", ":4: seq_len='2.5' is not an integer"),
        ("seq_len\n\n0\n", ":3: seq_len=0 must be from 1 to 2147483647"),
        ("seq_len\n99999999999\n", ":2: seq_len=99999999999 must be from 1"),
        ("seq_len,ch_idx\n1,-1\n", ":2: ch_idx=-1 must be from 0"),
        ("seq_len,ch_idx\n1\n", ":2: 1 cells, but the header has 2"),
        ("seq_len,ch_idx\n1,\n", ":2: ch_idx='' is not an integer"),
    ],
)
def test_a_wrong_request_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "batch.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_request_batch(path)
    assert str(caught.value).startswith(f"{path}{message}")


def test_unreadable_request_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read: No such file"):
        read_request_batch(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_request_batch(tmp_path / "binary.csv")


def test_a_request_stream_is_read_in_order_of_arrival(tmp_path: Path) -> None:
    path = tmp_path / "stream.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,10,20\n0.5,11,21\n")
    requests = read_request_stream(path)
    assert requests.arrival_s.tolist() == [0.0, 0.5]
    assert requests.prompt_tokens.tolist() == [10, 11]
    assert requests.output_tokens.tolist() == [20, 21]
    path.write_text("arrival_s,prompt_tokens,output_tokens\n1,10,20\n0.5,11,21\n")
    with pytest.raises(InputError, match=":3: arrival_s is smaller"):
        read_request_stream(path)
    path.write_text("arrival_s,prompt_tokens,output_tokens\nnan,10,20\n")
    with pytest.raises(InputError, match=":2: arrival_s='nan' is not a number"):
        read_request_stream(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0,1,1\n90,2,2\n", "percentiles go from 0 to 90"),
        ("0,1,1\n100,2,2\n100,2,3\n", ":4: percentiles must increase"),
        ("0,5,1\n50,4,2\n100,6,2\n", ":3: percentiles must increase from row to row, and lengths not decrease"),
        ("0,1,0\n100,2,2\n", ":2: output_tokens=0 must be from 1"),
    ],
)
def test_a_wrong_length_table_is_refused(tmp_path: Path, rows: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("percentile,prompt_tokens,output_tokens\n" + rows)
    with pytest.raises(InputError, match=message):
        read_lengths(path)

"""Operator traces: what each kind counts, what the file format accepts, and what the checker refuses."""

from __future__ import annotations

import gzip
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neupims_sim.errors import InputError
from neupims_sim.trace import (
    KINDS,
    Operator,
    Tensor,
    TraceHeader,
    check_trace,
    checked,
    flops,
    macs,
    open_trace,
    read_bytes,
    read_trace,
    summarize,
    total,
    write_bytes,
    write_trace,
)

HEADER = TraceHeader(model="toy", phase="decode", batch=1, attrs={"note": "extra keys travel"})
sizes = st.integers(1, 300)


def tensor(*shape: int, role: Any = "activation", name: str = "x", dtype: str = "float16") -> Tensor:
    return Tensor(name, shape, dtype, role)


def operator(op: str, inputs: list[Tensor], *outputs: Tensor, number: int = 0, **attrs: Any) -> Operator:
    return Operator(number, op, op, tuple(inputs), outputs, attrs=attrs)


def gemm(m: int = 4, k: int = 8, n: int = 16, number: int = 0) -> Operator:
    return operator("gemm", [tensor(m, k), tensor(k, n, role="weight")], tensor(m, n), number=number)


def logits(heads: int, kv_heads: int, new: int, context: int, size: int, causal: bool = True) -> Operator:
    keys = tensor(kv_heads, context, size, role="kv_cache")
    out = tensor(heads, new, context)
    return operator("attention_logits", [tensor(heads, new, size), keys], out, context_tokens=context, causal=causal)


def attend(heads: int, kv_heads: int, new: int, context: int, size: int) -> Operator:
    inputs = [tensor(heads, new, context), tensor(kv_heads, context, size, role="kv_cache")]
    out = tensor(heads, new, size)
    return operator("attention_attend", inputs, out, context_tokens=context, causal=True)


EXAMPLES = {
    "gemm": gemm(),
    "embedding": operator(
        "embedding", [tensor(3, dtype="int32"), tensor(50, 8, role="weight"), tensor(9, 8, role="weight")], tensor(3, 8)
    ),
    "attention_logits": logits(4, 2, 1, 7, 8),
    "attention_attend": attend(4, 2, 1, 7, 8),
    "softmax": operator("softmax", [tensor(4, 1, 7)], tensor(4, 1, 7), causal=True),
    "kv_append": operator("kv_append", [tensor(3, 2, 8), tensor(3, 2, 8)], tensor(2, 3, 2, 8, role="kv_cache")),
    "layernorm": operator(
        "layernorm", [tensor(3, 8), tensor(8, role="weight"), tensor(8, role="weight")], tensor(3, 8)
    ),
    "rmsnorm": operator("rmsnorm", [tensor(3, 8), tensor(8, role="weight")], tensor(3, 8)),
    "gelu": operator("gelu", [tensor(3, 8)], tensor(3, 8)),
    "silu_multiply": operator("silu_multiply", [tensor(3, 8), tensor(3, 8)], tensor(3, 8)),
    "rotary": operator("rotary", [tensor(3, 4, 8), tensor(3, 2, 8)], tensor(3, 4, 8), tensor(3, 2, 8)),
    "add": operator("add", [tensor(3, 8), tensor(3, 8)], tensor(3, 8)),
    "all_reduce": operator("all_reduce", [tensor(3, 8)], tensor(3, 8), devices=4),
}
FLOPS = {
    "gemm": 2 * 4 * 8 * 16,
    "embedding": 3 * 8,
    "attention_logits": 2 * 4 * 8 * 7,
    "attention_attend": 2 * 4 * 8 * 7,
    "softmax": 5 * 4 * 7,
    "kv_append": 0,
    "layernorm": 3 * (7 * 8 + 4),
    "rmsnorm": 3 * (4 * 8 + 3),
    "gelu": 9 * 24,
    "silu_multiply": 4 * 24,
    "rotary": 3 * 3 * 6 * 8,
    "add": 24,
    "all_reduce": 18,
}


# What the kinds count


@pytest.mark.parametrize("kind", sorted(FLOPS))
def test_flops_of_a_kind_agree_with_a_hand_calculation(kind: str) -> None:
    (op,) = checked([EXAMPLES[kind]])
    assert flops(op) == FLOPS[kind]


def test_every_kind_of_a_decoder_is_known_and_described() -> None:
    assert set(EXAMPLES) <= set(KINDS)
    assert all(KINDS[kind].__doc__ for kind in KINDS)


@given(m=sizes, k=sizes, n=sizes)
def test_gemm_reads_each_matrix_once(m: int, k: int, n: int) -> None:
    op = gemm(m, k, n)
    assert flops(op) == 2 * m * k * n
    assert read_bytes(op) == {"activation": 2 * m * k, "weight": 2 * k * n}
    assert write_bytes(op) == {"activation": 2 * m * n}


def test_embedding_reads_one_row_per_token_not_the_table() -> None:
    assert read_bytes(EXAMPLES["embedding"]) == {"activation": 3 * 4, "weight": 2 * 3 * 8 * 2}


def test_kv_append_writes_keys_and_values() -> None:
    assert write_bytes(EXAMPLES["kv_append"]) == {"kv_cache": 2 * 3 * 2 * 8 * 2}


@given(kv_heads=st.integers(1, 8), group=st.integers(1, 8), context=sizes, size=st.integers(1, 128))
def test_grouped_queries_multiply_work_but_not_cache_bytes(kv_heads: int, group: int, context: int, size: int) -> None:
    op = logits(kv_heads * group, kv_heads, 1, context, size)
    assert macs(op) == group * macs(logits(kv_heads, kv_heads, 1, context, size))
    assert read_bytes(op)["kv_cache"] == 2 * kv_heads * context * size


@given(new=st.integers(1, 60), older=st.integers(0, 60), size=st.integers(1, 16))
def test_causal_prefill_is_the_sum_of_decoding_its_tokens(new: int, older: int, size: int) -> None:
    context = older + new
    steps = range(older + 1, context + 1)
    assert macs(logits(2, 1, new, context, size)) == sum(macs(logits(2, 1, 1, step, size)) for step in steps)
    assert macs(attend(2, 1, new, context, size)) == sum(macs(attend(2, 1, 1, step, size)) for step in steps)
    assert macs(logits(2, 1, new, context, size, causal=False)) == 2 * new * context * size


def test_summary_adds_layers_and_requests() -> None:
    operators = [replace(gemm(number=number), repeat=3) for number in range(2)]
    (row,) = summarize(operators)
    assert (row["name"], row["op"], row["count"], row["flops"]) == ("gemm", "gemm", 6, 6 * FLOPS["gemm"])
    assert row["weight_bytes"] == 6 * 2 * 8 * 16
    assert row["activation_bytes"] == 6 * 2 * (4 * 8 + 4 * 16)
    assert total([row, row])["flops"] == 12 * FLOPS["gemm"]


# The file


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_a_written_trace_reads_back_identical(tmp_path: Path, name: str) -> None:
    operators = tuple(
        replace(op, id=number, deps=tuple(range(number)), repeat=2, request=number or None)
        for number, op in enumerate(EXAMPLES.values())
    )
    write_trace(tmp_path / "new" / name, HEADER, operators)
    trace = read_trace(tmp_path / "new" / name)
    assert trace.header == HEADER
    assert trace.operators == operators
    assert check_trace(tmp_path / "new" / name) == len(operators)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_the_same_trace_is_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    for path in (first, second):
        write_trace(path, HEADER, [gemm()])
    assert first.read_bytes() == second.read_bytes()


def test_a_failed_write_leaves_the_old_trace(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_trace(path, HEADER, [gemm()])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="used twice"):
        write_trace(path, HEADER, [gemm(), gemm()])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_operators_before_a_mistake_are_delivered_before_it_is_found(tmp_path: Path) -> None:
    """Reader and writer hold one operator at a time."""
    path = tmp_path / "t.jsonl"
    write_trace(path, HEADER, (gemm(number=number) for number in range(1000)))
    with open(path, "a") as file:
        file.write("not JSON\n")
    operators = open_trace(path).operators
    assert sum(1 for _ in itertools.islice(operators, 1000)) == 1000
    with pytest.raises(InputError, match=":1002: not valid JSON"):
        next(operators)


# What is refused


def lines_of(*operators: Operator, tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "good.jsonl"
    write_trace(path, HEADER, operators)
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_lines(tmp_path: Path, records: list[Any]) -> str:
    """The message about a trace of these records; it must be one line that names the file."""
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records))
    with pytest.raises(InputError) as caught:
        check_trace(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}:")
    return message.removeprefix(f"{path}:")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"op": "gem"}, "3: operator 1 ('gemm'): unknown operator kind 'gem'; allowed: "),
        ({"op": "gem"}, "did you mean gemm?"),
        ({"deps": [1]}, "deps names 1, which is not the id of an earlier operator"),
        ({"deps": ["0"]}, "deps: '0' is not an integer"),
        ({"id": 0}, "id 0 is used twice"),
        ({"id": 1.5}, "id=1.5 is not an integer"),
        ({"id": True}, "id=True is not an integer"),
        ({"name": "a\nb", "repeat": 0}, "repeat=0 must be at least 1"),
        ({"request": -1}, "request=-1 must not be negative"),
        ({"inputs": []}, "0 inputs, but gemm takes 2 to 3"),
        ({"outputs": []}, "0 outputs, but gemm has 1"),
        ({"inputs": ["x", "y"]}, "tensor 'x' is not an object"),
        ({"atts": {}}, "unknown key 'atts'; allowed: "),
        ({"attrs": []}, "attrs=[] is not an object"),
    ],
)
def test_a_wrong_operator_is_named_with_its_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    records = lines_of(gemm(), gemm(number=1), tmp_path=tmp_path)
    records[2] |= change
    found = check_lines(tmp_path, records)
    assert found.startswith("3: ")
    assert message in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [8, 17]}, "output 'x' has shape [4, 16], expected [4, 17]"),
        ({"shape": [9, 16]}, "[4, 8] x [9, 16]: inner dimensions 8 and 9 differ"),
        ({"shape": [8]}, "right matrix 'x' has shape [8], expected [K, N]"),
        ({"shape": [0, 16]}, "shape [0, 16] must be one or more positive integers"),
        ({"shape": []}, "shape [] must be one or more positive integers"),
        ({"shape": [8, 16.0]}, "16.0 is not an integer"),
        ({"dtype": "float15"}, "unknown dtype 'float15'; allowed: "),
        ({"role": "weights"}, "did you mean weight?"),
    ],
)
def test_a_wrong_tensor_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    records = lines_of(gemm(), tmp_path=tmp_path)
    records[1]["inputs"][1] |= change
    assert message in check_lines(tmp_path, records)


@pytest.mark.parametrize("key", ["id", "name", "op", "inputs", "outputs", "deps"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    records = lines_of(gemm(), tmp_path=tmp_path)
    del records[1][key]
    assert check_lines(tmp_path, records) == f"2: operator: key {key!r} is missing"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "1: not a trace header: format is 'other', expected 'neupims_sim-trace'"),
        ({"version": 99}, "1: header: version 99 is not supported, expected 1"),
        ({"batch": 0}, "1: header: batch=0 must be at least 1"),
        ({"dtype": "fp16"}, "1: header: unknown dtype 'fp16'"),
        ({"model": 7}, "1: header: model=7 is not a string"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (header,) = lines_of(tmp_path=tmp_path)
    assert check_lines(tmp_path, [header | change]).startswith(message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "2: not valid JSON: "),
        ("[1]", "2: not a JSON object"),
        ("[" * 100_000, "2: not valid JSON: "),
        ('{"id": ' + "9" * 5000 + "}", "2: not valid JSON: "),
    ],
)
def test_a_line_that_is_no_object_is_refused(tmp_path: Path, line: str, message: str) -> None:
    (header,) = lines_of(tmp_path=tmp_path)
    assert check_lines(tmp_path, [header, line]).startswith(message)


@pytest.mark.parametrize("kind", ["attention_logits", "softmax", "all_reduce"])
def test_a_missing_attribute_is_named(kind: str) -> None:
    with pytest.raises(ValueError, match=r"attrs\.\w+ is missing; expected of type"):
        list(checked([replace(EXAMPLES[kind], attrs={})]))


@pytest.mark.parametrize(
    "wrong",
    [
        replace(logits(4, 2, 1, 7, 8), attrs={"context_tokens": 8, "causal": True}),
        logits(4, 3, 1, 7, 8),
        logits(4, 2, 9, 7, 8),
        operator("layernorm", [tensor(3, 8), tensor(8), tensor(7)], tensor(3, 8)),
        operator("add", [tensor(3, 8), tensor(3, 7)], tensor(3, 8)),
        operator("rotary", [tensor(3, 4, 7), tensor(3, 2, 7)], tensor(3, 4, 7), tensor(3, 2, 7)),
        operator("kv_append", [tensor(3, 2, 8), tensor(3, 2, 8)], tensor(3, 2, 8)),
        operator("embedding", [tensor(3), tensor(50, 8), tensor(9, 7)], tensor(3, 8)),
        operator("softmax", [tensor(4, 1, 7)], tensor(4, 1, 8), causal=True),
        operator("all_reduce", [tensor(3, 8)], tensor(3, 8), devices=0),
    ],
)
def test_shapes_that_do_not_fit_the_kind_are_refused(wrong: Operator) -> None:
    with pytest.raises(ValueError, match=r"^operator 0 \("):
        list(checked([wrong]))


def test_an_empty_file_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    assert check_lines(tmp_path, []).startswith("1: not a trace header")
    with pytest.raises(InputError, match="cannot read: No such file"):
        check_trace(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"named \*\.jsonl or \*\.jsonl\.gz"):
        check_trace(tmp_path / "trace.json")


def test_damaged_compression_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    write_trace(path, HEADER, [gemm(number=number) for number in range(500)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="not valid gzip data"):
        check_trace(path)
    path.write_text("plain text")
    with pytest.raises(InputError, match="not valid gzip data"):
        check_trace(path)
    path.write_bytes(gzip.compress(b"\xff\xfe\x00"))
    with pytest.raises(InputError, match="not valid JSON"):
        check_trace(path)

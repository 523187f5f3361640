"""``trace import``: files of Hugging Face, SCALE-Sim and ONNX as traces and model descriptions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_cases import Captured, run
from hypothesis import given
from hypothesis import strategies as st
from onnx_cases import Model, resnet, vit

from neupims_sim.config import ModelConfig, ResnetConfig, VitConfig, load_config, load_section
from neupims_sim.errors import InputError
from neupims_sim.trace import (
    KINDS,
    Operator,
    Tensor,
    Trace,
    check_trace,
    checked,
    flops,
    macs,
    read_trace,
    summarize,
    total,
)
from neupims_sim.trace.kinds.imported import batched_gemm_shape
from neupims_sim.workloads import generate_llm, generate_resnet, generate_vit, parameters
from neupims_sim.workloads.importing import IMPORTERS, ImportOptions, import_model, import_trace

GOLDEN = Path(__file__).parent / "golden" / "import"


def imported(format_name: str, path: Path, **options: Any) -> Trace:
    return import_trace(format_name, path, ImportOptions(**options)).trace


def totals(trace: Trace) -> dict[str, int]:
    return total(summarize(trace.operators))


def work(trace: Trace) -> list[int]:
    """Multiply-accumulates of every matrix product in order, repeated layers written out."""
    layers: list[int] = []
    block: list[int] = []
    repeat = 1
    for op in [*trace.operators, replace(trace.operators[-1], op="relu", repeat=0)]:
        if op.repeat != repeat:
            layers += block * repeat
            block, repeat = [], op.repeat
        block += [macs(op)] if op.repeat and macs(op) else []
    return layers


def refused(capsys: Captured, tmp_path: Path, *arguments: object) -> str:
    """The one line that an import answers; nothing is written."""
    output = tmp_path / "refused.jsonl"
    code, out, err = run(capsys, "trace", "import", *arguments, "-o", output)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert not list(tmp_path.glob("*refused*"))
    return err.removeprefix("error: ").rstrip("\n")


# All formats


@pytest.mark.parametrize(
    ("format_name", "name"),
    [
        ("huggingface", "gpt2.json"),
        ("huggingface", "llama-3-8b.json"),
        ("huggingface", "vit-base.json"),
        ("scalesim", "layers.csv"),
        ("scalesim", "gemm.csv"),
    ],
)
def test_an_imported_trace_is_valid_and_the_same_every_time(
    capsys: Captured, tmp_path: Path, format_name: str, name: str
) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    for output in (first, second):
        code, out, _ = run(capsys, "trace", "import", format_name, GOLDEN / name, "-o", output)
        assert (code, out) == (0, f"{output}: {check_trace(output)} operators\n")
    assert first.read_bytes() == second.read_bytes()
    assert str(GOLDEN.parent).encode() not in first.read_bytes()
    assert read_trace(first).header.attrs["imported_from"] == format_name


def test_formats_are_found_by_name(capsys: Captured, tmp_path: Path) -> None:
    assert list(IMPORTERS) == ["huggingface", "onnx", "scalesim"]
    message = refused(capsys, tmp_path, "onxx", "model.onnx")
    assert message == "unknown format 'onxx'; allowed: huggingface, onnx, scalesim; did you mean onnx?"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("scalesim", "{}/gemm.csv", "--batch", 2), "--batch is not for the format scalesim; allowed: none"),
        (
            ("huggingface", "{}/gpt2.json", "--shape", "x=1"),
            "--shape is not for the format huggingface; allowed: --batch",
        ),
        (("huggingface", "{}/gpt2.json", "--batch", 0), "--batch 0 must be at least 1"),
        (("huggingface", "{}/gpt2.json", "--phase", "train"), "--phase 'train'; allowed: decode, prefill"),
        (("huggingface", "{}/gpt2.json", "--context", 2000), "gpt2.json: request 0: a context of 2000 tokens is not"),
        (("huggingface", "{}/gpt2.json", "--tensor", 5), "gpt2.json: model.heads=12 is not a multiple of"),
        (("huggingface", "{}/gpt2.json", "--image-size", 224), "--image-size is not for a language model (gpt2)"),
        (("huggingface", "{}/vit-base.json", "--context", 5), "--context is not for a vision model (vit-base)"),
        (("huggingface", "{}/vit-base.json", "--image-size", "a"), "--image-size 'a' is neither a side nor"),
        (("huggingface", "{}/vit-base.json", "--image-size", 225), "image_size=225x225 is not a positive multiple"),
        (("onnx", "x.onnx", "--shape", "images"), "--shape 'images': write INPUT=SHAPE"),
        (("onnx", "x.onnx", "--shape", "images=0x3"), "--shape 'images=0x3': every side must be at least 1"),
        (("onnx", "x.onnx", "--shape", "a=1", "--shape", "a=2"), "the shape of 'a' is given twice"),
        (("huggingface", "{}/none.json"), "none.json: cannot read: No such file"),
        (("scalesim", "{}/none.csv"), "none.csv: cannot read: No such file"),
        (("onnx", "{}/none.onnx"), "none.onnx: cannot read: No such file"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(
    capsys: Captured, tmp_path: Path, arguments: tuple[object, ...], expected: str
) -> None:
    filled = [str(argument).replace("{}", str(GOLDEN)) for argument in arguments]
    assert expected in refused(capsys, tmp_path, *filled)


def test_the_name_of_the_output_says_what_is_written(capsys: Captured, tmp_path: Path) -> None:
    source = GOLDEN / "gpt2.json"
    for output, expected in (("x.txt", "*.jsonl or *.jsonl.gz, or a model"), (".", "must be a trace")):
        code, _, err = run(capsys, "trace", "import", "huggingface", source, "-o", output)
        assert code == 2
        assert expected in err
    output = tmp_path / "x.yaml"
    code, _, err = run(capsys, "trace", "import", "huggingface", source, "-o", output, "--batch", 2)
    assert (code, err.count("--batch")) == (2, 1)
    code, _, err = run(capsys, "trace", "import", "scalesim", GOLDEN / "gemm.csv", "-o", output)
    assert code == 2
    assert err.endswith("this format lists operators and gives a trace; allowed output: *.jsonl or *.jsonl.gz\n")
    assert not output.exists()


# Hugging Face


def written(path: Path, name: str, **changes: Any) -> Path:
    """A configuration of the golden folder with some keys changed, without those that are ``...``."""
    values = json.loads((GOLDEN / f"{name}.json").read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))
    return path


@pytest.mark.parametrize(("phase", "tensor"), [("decode", 1), ("decode", 4), ("prefill", 2)])
def test_llama_3_8b_is_the_shipped_model(phase: Any, tensor: int) -> None:
    shipped = load_section("model", "llama-3-8b")
    assert isinstance(shipped, ModelConfig)
    contexts = np.full(3, 700)
    expected = generate_llm(shipped, contexts, phase=phase, tensor_parallel=tensor, dtype="bfloat16")
    options = {"batch": 3, "context": 700, "phase": phase, "tensor": tensor}
    trace = imported("huggingface", GOLDEN / "llama-3-8b.json", **options)
    assert trace.operators == expected.operators
    assert (trace.header.phase, trace.header.batch, trace.header.dtype) == (phase, 3, "bfloat16")


def test_gpt2_has_the_published_parameters() -> None:
    model, notes = import_model("huggingface", GOLDEN / "gpt2.json")
    assert isinstance(model, ModelConfig)
    assert parameters(model) == 124_439_808
    assert notes == ()
    assert imported("huggingface", GOLDEN / "gpt2.json").header.attrs["tokens"] == 1


def test_vit_base_is_the_shipped_model() -> None:
    shipped = load_section("model", "vit-b16")
    assert isinstance(shipped, VitConfig)
    trace = imported("huggingface", GOLDEN / "vit-base.json", batch=4)
    assert trace.operators == generate_vit(shipped, batch=4).operators
    larger = imported("huggingface", GOLDEN / "vit-base.json", image_size=(384, 256))
    assert larger.operators == generate_vit(shipped, image_size=(384, 256)).operators


@pytest.mark.parametrize("name", ["gpt2", "llama-3-8b", "vit-base"])
def test_a_model_description_is_the_model(capsys: Captured, tmp_path: Path, name: str) -> None:
    output = tmp_path / f"{name}.yaml"
    code, out, _ = run(capsys, "trace", "import", "huggingface", GOLDEN / f"{name}.json", "-o", output)
    assert (code, out) == (0, f"{output}\n")
    assert load_section("model", output) == import_model("huggingface", GOLDEN / f"{name}.json").model
    assert output.read_text().startswith(f"# Imported from {name}.json (huggingface).\n")


def test_a_model_description_can_be_simulated(capsys: Captured, tmp_path: Path) -> None:
    output = tmp_path / "own.yaml"
    run(capsys, "trace", "import", "huggingface", GOLDEN / "llama-3-8b.json", "-o", output)
    config = load_config("neupims", [f"model={output}"])
    assert (config.model.name, config.model.family) == ("own", "decoder")
    assert config.model.kv_heads == 8


def test_gpt_neox_tells_what_it_changes(tmp_path: Path) -> None:
    keys: dict[str, Any] = {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_attention_heads": 16,
        "vocab_size": 50304,
    }
    keys |= {"num_hidden_layers": 24, "max_position_embeddings": 2048, "hidden_act": "gelu", "rotary_pct": 0.25}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "gpt_neox", "_name_or_path": "EleutherAI/pythia-1.4b", **keys}))
    model, notes = import_model("huggingface", path)
    assert model.name == "pythia-1.4b"
    assert [note.split("=")[0] for note in notes] == ["rotary_pct", "use_parallel_residual"]


def test_the_bias_of_some_layers_is_a_note(capsys: Captured, tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", "llama-3-8b", model_type="qwen2", sliding_window=4096, use_sliding_window=False)
    assert "biases of q, k and v are left out" in import_model("huggingface", path).notes[0]
    path = written(tmp_path / "b.json", "llama-3-8b", attention_bias=True)
    code, _, err = run(capsys, "trace", "import", "huggingface", path, "-o", tmp_path / "b.jsonl")
    assert (code, err) == (0, "note: the biases of attention_bias are left out: a model has all biases or none\n")


GPT_NEOX = {
    "model_type": "gpt_neox",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 16,
    "vocab_size": 50304,
    "num_hidden_layers": 24,
    "max_position_embeddings": 2048,
    "hidden_act": "gelu",
}
OPT = {
    "model_type": "opt",
    "hidden_size": 768,
    "ffn_dim": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "vocab_size": 50272,
    "max_position_embeddings": 2048,
    "activation_function": "gelu",
}


@pytest.mark.parametrize("key", ["num_key_value_heads", "head_dim", "sliding_window"])
@pytest.mark.parametrize("base", ["gpt2", GPT_NEOX, OPT], ids=["gpt2", "gpt_neox", "opt"])
def test_a_key_that_the_class_does_not_read_changes_nothing(
    base: str | dict[str, Any], key: str, tmp_path: Path
) -> None:
    stated = json.loads((GOLDEN / f"{base}.json").read_text()) if isinstance(base, str) else base
    for name, values in (("plain", stated), ("more", stated | {key: 2})):
        (tmp_path / f"{name}.json").write_text(json.dumps(values | {"_name_or_path": "model"}))
    plain, more = (import_model("huggingface", tmp_path / f"{name}.json") for name in ("plain", "more"))
    assert more.model == plain.model
    assert set(more.notes) - set(plain.notes) == {
        f"{key} changes nothing: the class of {stated['model_type']} does not read it"
    }


def test_absent_and_null_kv_heads_mean_what_the_class_means(tmp_path: Path) -> None:
    heads: dict[tuple[str, object], int] = {
        ("llama", ...): 32,
        ("llama", None): 32,
        ("mistral", ...): 8,
        ("mistral", None): 32,
        ("mistral", 4): 4,
        ("qwen2", ...): 32,
    }
    for (model_type, value), expected in heads.items():
        path = written(tmp_path / "a.json", "llama-3-8b", model_type=model_type, num_key_value_heads=value)
        model = import_model("huggingface", path).model
        assert isinstance(model, ModelConfig)
        assert model.kv_heads == expected, (model_type, value)


def test_mistral_without_kv_heads_has_its_published_size(tmp_path: Path) -> None:
    sizes = {"intermediate_size": 14336, "max_position_embeddings": 32768, "rope_theta": 1e6}
    path = written(
        tmp_path / "a.json", "llama-3-8b", model_type="mistral", num_key_value_heads=..., vocab_size=32768, **sizes
    )
    model = import_model("huggingface", path).model
    assert isinstance(model, ModelConfig)
    assert parameters(model) == 7_248_023_552


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("llama-3-8b", {"model_type": ...}, "key 'model_type' is missing; allowed: gpt2, gpt_neox, llama"),
        ("llama-3-8b", {"model_type": "lama"}, 'model_type="lama"; allowed: deit, gpt2, gpt_neox, llama'),
        ("llama-3-8b", {"model_type": ["llama"]}, 'model_type=["llama"]; allowed: gpt2'),
        ("llama-3-8b", {"hidden_size": ...}, "key 'hidden_size' is missing; allowed: an integer from 1"),
        ("llama-3-8b", {"hidden_size": True}, "hidden_size=true; allowed: an integer from 1"),
        ("llama-3-8b", {"hidden_size": 4096.0}, "hidden_size=4096.0; allowed: an integer"),
        ("llama-3-8b", {"hidden_size": float("nan")}, "hidden_size=NaN; allowed: an integer"),
        ("llama-3-8b", {"num_hidden_layers": -1}, "num_hidden_layers=-1; allowed: an integer from 1"),
        ("llama-3-8b", {"num_hidden_layers": 10**30}, "num_hidden_layers=1000000000000000000000000000000; allowed"),
        ("llama-3-8b", {"num_hidden_layers": "32"}, 'num_hidden_layers="32"; allowed: an integer'),
        (
            "llama-3-8b",
            {"num_attention_heads": 33, "num_key_value_heads": 3},
            "hidden_size=4096; allowed: a multiple of",
        ),
        (
            "llama-3-8b",
            {"num_key_value_heads": 5},
            "num_key_value_heads=5; allowed: a divisor of num_attention_heads=32",
        ),
        ("llama-3-8b", {"hidden_act": "gelu"}, 'hidden_act="gelu"; allowed: silu, swish'),
        ("llama-3-8b", {"attention_bias": 1}, "attention_bias=1; allowed: true or false"),
        (
            "llama-3-8b",
            {"model_type": "mistral", "sliding_window": 4096},
            "sliding_window=4096; allowed: null, or at least max_position_emb",
        ),
        (
            "llama-3-8b",
            {"model_type": "mistral", "num_attention_heads": 36, "head_dim": 128, "num_key_value_heads": ...},
            "key 'num_key_value_heads' is missing; allowed: a divisor of num_attention_heads=36; absent it is 8",
        ),
        ("llama-3-8b", {"partial_rotary_factor": "x"}, 'partial_rotary_factor="x"; allowed: a number'),
        ("llama-3-8b", {"num_local_experts": 8}, "num_local_experts=8; allowed: null or 0 or 1"),
        ("llama-3-8b", {"quantization_config": {"bits": 4}}, 'quantization_config={"bits": 4}; allowed: null'),
        ("llama-3-8b", {"is_encoder_decoder": True}, "is_encoder_decoder=true; allowed: null or false"),
        ("llama-3-8b", {"torch_dtype": "int4"}, 'torch_dtype="int4"; allowed: bfloat16, float16, float32'),
        ("gpt2", {"activation_function": "relu"}, 'activation_function="relu"; allowed: gelu, gelu_fast'),
        ("gpt2", {"n_embd": 770}, "n_embd=770; allowed: a multiple of n_head=12"),
        ("vit-base", {"patch_size": [16, 8]}, "patch_size=[16, 8]; allowed: a square"),
        ("vit-base", {"patch_size": [16]}, "patch_size=[16]; allowed: a positive integer or two"),
        ("vit-base", {"image_size": ...}, "key 'image_size' is missing; allowed: a positive integer or two"),
        ("vit-base", {"image_size": False}, "image_size=false; allowed: a positive integer"),
        ("vit-base", {"num_channels": 1}, "num_channels=1; allowed: null or 3"),
        ("vit-base", {"qkv_bias": False}, "qkv_bias=false; allowed: null or true"),
        ("vit-base", {"hidden_act": "quick_gelu"}, 'hidden_act="quick_gelu"; allowed'),
        ("vit-base", {"id2label": []}, "id2label=[]; allowed: an object that is not empty"),
    ],
)
def test_what_a_model_cannot_express_names_the_key(
    capsys: Captured, tmp_path: Path, name: str, changes: dict[str, Any], expected: str
) -> None:
    path = written(tmp_path / "config.json", name, **changes)
    message = refused(capsys, tmp_path, "huggingface", path)
    assert message.startswith(f"{path}: {expected}")


def test_opt_with_relu_is_refused(capsys: Captured, tmp_path: Path) -> None:
    keys = {
        "hidden_size": 768,
        "ffn_dim": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "vocab_size": 50272,
    }
    path = tmp_path / "opt.json"
    path.write_text(
        json.dumps({"model_type": "opt", "max_position_embeddings": 2048, "activation_function": "relu", **keys})
    )
    message = refused(capsys, tmp_path, "huggingface", path)
    assert message.startswith(f'{path}: activation_function="relu"; allowed: gelu')


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ":1: not valid JSON: Expecting value at column 1"),
        (b'{\n"a": 1,}', ":2: not valid JSON"),
        (b"[1]", ": not a JSON object"),
        (b"[" * 100_000, ": not valid JSON"),
        (b"\xff\xfe\x00", ": not UTF-8 text"),
        (b'{"a": ' + b"9" * 5000 + b"}", ": not valid JSON"),
    ],
)
def test_malformed_json_is_one_line(capsys: Captured, tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert refused(capsys, tmp_path, "huggingface", path).startswith(f"{path}{expected}")


# SCALE-Sim


def test_convolutions_have_the_work_that_scale_sim_counts() -> None:
    """The last filter position may hang over the edge: ceil((ifmap - filter) / stride) + 1 of them."""
    trace = imported("scalesim", GOLDEN / "layers.csv")
    expected = {
        "ResNet50_Conv1": 110 * 110 * (7 * 7 * 3) * 64,
        "AlexNet_Conv2": 23 * 23 * (5 * 5 * 96) * 256,
        "Conv4_dw": 56 * 56 * (3 * 3),
        "Conv_DP": 32 * (26 * 26 * (3 * 3)),
        "Wide": 10 * 6 * (7 * 4) * 8,
        "Two.strides": 5 * 4 * (3 * 3 * 4) * 8,
        "FC6": 2048 * 1000,
    }
    assert {op.name: op.repeat * macs(op) for op in trace.operators} == expected
    kinds = ["convolution"] * 4 + ["gemm"] * 2 + ["convolution"]
    assert [op.op for op in trace.operators] == kinds


def test_convolutions_that_are_not_square_are_gemms_over_gathered_windows() -> None:
    wide, strided = (op for op in imported("scalesim", GOLDEN / "layers.csv").operators if op.op == "gemm")
    assert wide.attrs == {"im2col": {"map": [4, 10, 12], "kernel": [1, 7], "strides": [1, 1]}}
    assert [tensor.shape for tensor in wide.inputs] == [(60, 28), (28, 8)]
    assert strided.attrs["im2col"]["strides"] == [2, 3]


def test_a_square_convolution_reads_its_map_once() -> None:
    first = imported("scalesim", GOLDEN / "layers.csv").operators[0]
    assert first.inputs[0].shape == (1, 3, 224, 224)
    assert first.outputs[0].shape == (1, 64, 110, 110)


def test_layers_wait_for_the_one_before() -> None:
    trace = imported("scalesim", GOLDEN / "layers.csv")
    assert [op.deps for op in trace.operators] == [(), *((number,) for number in range(6))]


def test_gemm_rows_are_m_n_k_and_a_batch() -> None:
    trace = imported("scalesim", GOLDEN / "gemm.csv")
    assert work(trace)[0] == 128 * 1536 * 512
    assert [(op.inputs[0].shape, op.inputs[1].shape, op.repeat) for op in trace.operators] == [
        ((128, 512), (512, 1536), 1),
        ((128, 64), (64, 128), 8),
        ((128, 512), (512, 512), 1),
    ]


@given(
    side=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    data=st.data(),
    channels=st.integers(1, 5),
    filters=st.integers(1, 5),
    strides=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_any_convolution_keeps_its_work(
    tmp_path_factory: pytest.TempPathFactory,
    side: tuple[int, int],
    data: st.DataObject,
    channels: int,
    filters: int,
    strides: tuple[int, int],
) -> None:
    kernel = tuple(data.draw(st.integers(1, one)) for one in side)
    path = tmp_path_factory.getbasetemp() / "topology.csv"
    cells = ("layer", *side, *kernel, channels, filters, *strides)
    path.write_text(f"Layer, IFMAP Height, IFMAP Width, a, b, c, d, e,\n{','.join(map(str, cells))},\n")
    trace = imported("scalesim", path)
    rows, columns = (-(-(a - b + c) // c) for a, b, c in zip(side, kernel, strides, strict=True))
    assert work(trace) == [rows * columns * kernel[0] * kernel[1] * channels * filters]


CONVOLUTION = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ":1: not the header of a SCALE-Sim topology; expected 'Layer name, IFMAP Height"),
        ("Layer,M,K,N,\na,1,2,3,\n", ":1: not the header"),
        ("a,1,2,3,\n", ":1: not the header"),
        ("Layer,M,N,K,\n", ": no layers; expected rows below the header"),
        ("Layer,M,N,K,\na,1,2\n", ":2: 3 cells; expected a name and M, N, K"),
        ("Layer,M,N,K,\n\na,1,x,3,\n", ":3: N='x' is not an integer"),
        ("Layer,M,N,K,\na,1,2.5,3,\n", ":2: N='2.5' is not an integer"),
        ("Layer,M,N,K,\na,1,2,0,\n", ":2: K=0 must be from 1"),
        ("Layer,M,N,K,\n,1,2,3,\n", ":2: the layer has no name"),
        ("Layer,M,N,K,\na,1,2,3,x,\n", ":2: batch='x' is not an integer"),
        (CONVOLUTION + "a,5,5,7,3,1,1,1,\n", ":2: Filter Height=7 is larger than IFMAP Height=5"),
        (CONVOLUTION + "a,5,5,3,7,1,1,1,\n", ":2: Filter Width=7 is larger than IFMAP Width=5"),
        (CONVOLUTION + "a,5,5,3,3,1,1,0,\n", ":2: Strides=0 must be from 1"),
        (CONVOLUTION + "a,5,5,3,3,1,1,1,2:4,\n", ":2: sparsity '2:4' is not supported; allowed: dense, e.g. 1:1"),
        (CONVOLUTION + "a,5,5,3,3,1,1,1,x,\n", ":2: stride along the width='x' is not an integer"),
        (CONVOLUTION + "a,5,5,3,3,1,1,99999999999,\n", ":2: Strides=99999999999 must be from 1"),
    ],
)
def test_malformed_topologies_name_the_line(capsys: Captured, tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "topology.csv"
    path.write_text(text)
    assert refused(capsys, tmp_path, "scalesim", path).startswith(f"{path}{expected}")


def test_a_topology_that_is_no_text_is_one_line(capsys: Captured, tmp_path: Path) -> None:
    path = tmp_path / "topology.csv"
    path.write_bytes(b"Layer,M,N,K,\n\xff\xff,1,2,3,\n")
    assert refused(capsys, tmp_path, "scalesim", path) == f"{path}: not UTF-8 text"


# ONNX


def onnx_trace(model: Model, tmp_path: Path, *outputs: str, **options: Any) -> Trace:
    return imported("onnx", model.save(tmp_path / "model.onnx", *outputs), **options)


def test_an_onnx_vit_has_the_work_of_ours(tmp_path: Path) -> None:
    shape = {"layers": 3, "heads": 4, "d_model": 64, "d_ff": 160, "patch": 8}
    expected = generate_vit(
        VitConfig(name="small", family="vit", classes=10, **shape), image_size=(32, 32), batch=2, dtype="float32"
    )
    trace = onnx_trace(vit(3, 4, 64, 160, 8, 32, 10, 2), tmp_path)
    attention = {"attention_logits", "attention_attend"}
    per_block = [macs(op) for op in expected.operators if op.repeat == 3 and op.op not in attention]
    products = [op for op in trace.operators if macs(op)]
    for block in range(3):
        mine = [op for op in products if op.name.startswith(f"block{block}.")]
        batched = [op for op in mine if op.op == "batched_gemm"]
        assert [macs(op) for op in mine if op.op == "gemm"] == [one for one in per_block if one]
        assert [batched_gemm_shape(op) for op in batched] == [(8, 17, 16, 17), (8, 17, 17, 16)]
        assert sum(map(macs, batched)) == sum(macs(op) for op in expected.operators if op.op in attention)
    assert sum(map(macs, products)) == sum(op.repeat * macs(op) for op in expected.operators)
    scaled = 3 * (2 * 4 * 17 * 17)
    assert totals(trace)["flops"] == totals(expected)["flops"] + scaled
    assert totals(trace)["weight_bytes"] == totals(expected)["weight_bytes"] + 3 * 4


def test_an_onnx_vit_becomes_few_kinds(tmp_path: Path) -> None:
    trace = onnx_trace(vit(1, 4, 64, 160, 8, 32, 10, 2), tmp_path)
    assert Counter(op.op for op in trace.operators) == {
        "convolution": 1,
        "concatenate": 1,
        "add": 2,
        "elementwise": 2,
        "layernorm": 3,
        "gemm": 5,
        "batched_gemm": 2,
        "softmax": 1,
        "gelu": 1,
    }
    assert (trace.header.model, trace.header.phase, trace.header.batch) == ("model", "encode", 2)
    assert trace.header.attrs == {"imported_from": "onnx", "opset": 20, "inputs": {"images": [2, 3, 32, 32]}}
    assert trace.header.dtype == "float32"


def test_biases_belong_to_their_products(tmp_path: Path) -> None:
    trace = onnx_trace(vit(1, 4, 64, 160, 8, 32, 10, 2), tmp_path)
    assert all(len(op.inputs) == 3 for op in trace.operators if op.op == "gemm")


def test_every_operator_waits_for_what_it_reads(tmp_path: Path) -> None:
    """Views keep the dependency: in a ViT each operator but the first leads back to the patches."""
    trace = onnx_trace(vit(1, 4, 64, 160, 8, 32, 10, 2), tmp_path)
    logits = next(op for op in trace.operators if op.name == "block0.logits")
    assert {trace.operators[number].name for number in logits.deps} == {"block0.qkv/MatMul"}
    attend = next(op for op in trace.operators if op.name == "block0.attend")
    assert {trace.operators[number].op for number in attend.deps} == {"softmax", "gemm"}
    assert all(op.deps for op in trace.operators[1:])


def test_an_onnx_resnet_50_has_the_work_of_ours(tmp_path: Path) -> None:
    blocks = (3, 4, 6, 3)
    expected = generate_resnet(
        ResnetConfig(name="resnet50", family="resnet", blocks=blocks), image_size=(96, 64), batch=2, dtype="float32"
    )
    model = resnet(blocks, 1000, 64, 2)
    trace = onnx_trace(model, tmp_path)
    square = generate_resnet(
        ResnetConfig(name="resnet50", family="resnet", blocks=blocks), image_size=(64, 64), batch=2, dtype="float32"
    )
    assert Counter(work(trace)) == Counter(work(square))
    assert totals(trace) == totals(square)
    model.inputs.clear()
    model.input("images", "batch", 3, None, None)
    assert totals(onnx_trace(model, tmp_path, shape={"images": (2, 3, 96, 64)})) == totals(expected)


def test_weights_that_are_computed_from_weights_are_weights(tmp_path: Path) -> None:
    model = Model()
    x = model.input("x", 4, 8)
    weight = model.add("Transpose", model.weight("w", 16, 8), perm=[1, 0])
    model.add("MatMul", x, weight)
    (op,) = onnx_trace(model, tmp_path).operators
    assert (op.op, op.inputs[1].role, op.inputs[1].shape) == ("gemm", "weight", (8, 16))


def test_shapes_are_computed_on_the_way(tmp_path: Path) -> None:
    """Shape, Gather, Div, Concat, Reshape: as exporters split heads."""
    model = Model()
    x = model.input("x", "batch", 6, 8)
    two = model.constant("two", [2])
    sides = [model.add("Gather", model.add("Shape", x), model.constant(f"axis{axis}", [axis])) for axis in range(3)]
    target = model.add("Concat", *sides[:2], two, model.add("Div", sides[2], two), axis=0)
    heads = model.add("Reshape", x, target)
    model.add("Softmax", heads, axis=-1)
    (op,) = onnx_trace(model, tmp_path, shape={"x": (3, 6, 8)}).operators
    assert op.inputs[0].shape == (18, 2, 4)


def test_keys_that_heads_share_are_read_once(tmp_path: Path) -> None:
    """Grouped-query attention: 2 key heads expanded to 8."""
    model = Model()
    queries, keys = model.input("q", 1, 8, 5, 16), model.input("k", 1, 2, 16, 7)
    axes, wide, flat = (
        model.constant(name, values)
        for name, values in (("axes", [2]), ("wide", [1, 2, 4, 16, 7]), ("flat", [1, 8, 16, 7]))
    )
    keys = model.add("Reshape", model.add("Expand", model.add("Unsqueeze", keys, axes), wide), flat)
    model.add("MatMul", queries, keys)
    (op,) = onnx_trace(model, tmp_path).operators
    assert [tensor.shape for tensor in op.inputs] == [(8, 5, 16), (2, 16, 7)]
    assert macs(op) == 8 * 5 * 16 * 7


def test_a_convolution_that_is_not_square_is_a_gemm(tmp_path: Path) -> None:
    model = Model()
    x = model.input("x", 2, 3, 10, 12)
    product = model.add("Conv", x, model.weight("w", 8, 3, 1, 5), kernel_shape=[1, 5], strides=[1, 2])
    model.add("Add", product, model.weight("b", 8, 1, 1))
    (op,) = onnx_trace(model, tmp_path).operators
    assert (op.op, macs(op), len(op.inputs)) == ("gemm", 2 * 10 * 4 * (3 * 5) * 8, 3)
    assert op.attrs["im2col"] == {"map": [3, 10, 12], "kernel": [1, 5], "strides": [1, 2]}


def test_same_padding_of_another_exporter_is_a_convolution(tmp_path: Path) -> None:
    model = Model()
    x = model.input("x", 1, 3, 224, 224)
    model.add("Conv", x, model.weight("w", 8, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER")
    (op,) = onnx_trace(model, tmp_path).operators
    assert (op.op, op.outputs[0].shape) == ("convolution", (1, 8, 112, 112))


def test_a_bias_is_folded_past_views_and_questions_for_the_shape(tmp_path: Path) -> None:
    model = Model()
    product = model.add("MatMul", model.input("x", 6, 4), model.weight("w", 4, 8))
    reshaped = model.add("Reshape", product, model.constant("shape", [2, 3, 8]))
    model.add("Add", reshaped, model.weight("b", 8), name="sum")
    model.add("ConstantOfShape", model.add("Shape", product), name="mask")
    model.add("Mul", "sum", model.add("Reshape", "mask", "shape"))
    gemm, product_of_both = onnx_trace(model, tmp_path).operators
    assert [tensor.shape for tensor in gemm.inputs] == [(6, 4), (4, 8), (8,)]
    assert product_of_both.deps == (0,)


def test_a_sum_that_is_no_bias_stays_a_sum(tmp_path: Path) -> None:
    """Of two activations; of a product that others read too; along another axis than the columns."""
    for case in ("activation", "read twice", "other axis", "output"):
        model = Model()
        x = model.input("x", 6, 6)
        product = model.add("MatMul", x, model.weight("w", 6, 6))
        other = x if case == "activation" else model.weight("b", *((6, 1) if case == "other axis" else (6,)))
        added = model.add("Add", product, other)
        if case == "read twice":
            model.add("Mul", added, product)
        outputs = (product, added) if case == "output" else ()
        kinds = [op.op for op in onnx_trace(model, tmp_path, *outputs).operators]
        sums = ["add"] if case == "activation" else ["elementwise"] * (2 if case == "read twice" else 1)
        assert kinds == ["gemm", *sums], case


def test_a_batch_norm_without_convolution_is_two_operations_per_element(tmp_path: Path) -> None:
    model = Model()
    x = model.input("x", 2, 4, 5, 5)
    model.add("BatchNormalization", x, *(model.weight(name, 4) for name in "abcd"))
    (op,) = onnx_trace(model, tmp_path).operators
    assert flops(op) == 2 * (2 * 4 * 5 * 5)


LAYERNORM_IN_PIECES = 3 * (7 * 8 + 3) + 3
"""FLOPs of [3, 8]: per element 7; per row two divides, a sum with epsilon and a square root."""


def test_a_layernorm_in_pieces_counts_as_one(tmp_path: Path) -> None:
    model = Model(opset=13)
    x = model.input("x", 1, 3, 8)
    centred = model.add("Sub", x, model.add("ReduceMean", x, axes=[-1]))
    square = model.add("Pow", centred, model.constant("two", 2.0, np.float32))
    variance = model.add("Add", model.add("ReduceMean", square, axes=[-1]), model.constant("eps", 1e-5, np.float32))
    scaled = model.add("Div", centred, model.add("Sqrt", variance))
    model.add("Add", model.add("Mul", scaled, model.weight("g", 8)), model.weight("b", 8))
    assert totals(onnx_trace(model, tmp_path))["flops"] == LAYERNORM_IN_PIECES


@pytest.mark.parametrize(
    ("op", "attributes", "expected", "kind"),
    [
        ("ReduceMean", {"axes": [2, 3]}, 2 * 4 * 25 + 8, "average_pool"),
        ("ReduceMax", {"axes": [-1, -2]}, 2 * 4 * 25, "max_pool"),
        ("ReduceSum", {}, 200, "reduction"),
        ("GlobalAveragePool", {}, 2 * 4 * 25 + 8, "average_pool"),
        ("GlobalMaxPool", {}, 2 * 4 * 25, "max_pool"),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [1, 1]}, 2 * 4 * 16 * 4, "window_max_pool"),
        ("MaxPool", {"kernel_shape": [1, 2]}, 2 * 4 * 20 * 2, "reduction"),
        ("AveragePool", {"kernel_shape": [2, 2]}, 2 * 4 * 16 * (4 + 1), "reduction"),
        ("Relu", {}, 200, "relu"),
        ("Sigmoid", {}, 600, "elementwise"),
        ("Erf", {}, 200, "elementwise"),
        ("Sqrt", {}, 200, "elementwise"),
        ("Softmax", {"axis": 1}, 5 * 200, "softmax"),
    ],
)
def test_vector_operators_count_what_they_do(
    tmp_path: Path, op: str, attributes: dict[str, Any], expected: int, kind: str
) -> None:
    model = Model(opset=13 if op != "ReduceSum" else 11)
    model.add(op, model.input("x", 2, 4, 5, 5), **attributes)
    (made,) = onnx_trace(model, tmp_path).operators
    assert (made.op, flops(made)) == (kind, expected)
    assert sum(KINDS[kind].vector_operations(made).values()) == expected


def test_tokens_are_looked_up_and_parts_are_views(tmp_path: Path) -> None:
    model = Model()
    ids = model.input("ids", 2, 7, dtype=onnx.TensorProto.INT64)
    hidden = model.add("Gather", model.weight("table", 100, 16), ids)
    last = model.add("Slice", hidden, *(model.constant(f"c{at}", [at]) for at in (6, 7, 1)))
    model.add("Relu", last)
    looked_up, relu = onnx_trace(model, tmp_path).operators
    assert (looked_up.op, looked_up.outputs[0].shape) == ("embedding", (14, 16))
    assert relu.inputs[0].name.startswith(f"{looked_up.outputs[0].name}.")
    assert (relu.inputs[0].shape, relu.deps) == ((2, 1, 16), (0,))


def test_functions_of_the_file_are_opened(tmp_path: Path) -> None:
    model = Model()
    body = [onnx.helper.make_node("Relu", ["a"], ["b"])]
    opsets = [onnx.helper.make_opsetid("", 20)]
    model.functions.append(onnx.helper.make_function("own", "Twice", ["a"], ["b"], body, opsets))
    model.domains.append("own")
    model.add("Twice", model.input("x", 2, 3), domain="own")
    assert [op.op for op in onnx_trace(model, tmp_path).operators] == ["relu"]


def test_unsupported_operators_are_told_in_one_line(capsys: Captured, tmp_path: Path) -> None:
    model = Model()
    model.domains.append("com.microsoft")
    x = model.input("x", 1, 4, 8, 8)
    x = model.add("Conv", x, model.weight("w", 4, 1, 3, 3), name="depthwise", group=4)
    x = model.add("HardSwish", x, name="h1")
    x = model.add("HardSwish", x, name="h2")
    x = model.add("FusedGelu", x, name="f", domain="com.microsoft")
    model.add("NonZero", x, name="nz")
    path = model.save(tmp_path / "model.onnx")
    message = refused(capsys, tmp_path, "onnx", path)
    assert message.startswith(
        f"{path}: unsupported operators: Conv with group=4 (1x, first at node 'depthwise'), "
        "HardSwish (2x, first at node 'h1'), com.microsoft.FusedGelu (1x, first at node 'f'), "
        "NonZero (1x, first at node 'nz'); supported: Abs, Add, And, AveragePool"
    )


def gather_at_computed_indices(model: Model) -> None:
    model.add("Gather", model.input("x", 2, 3), model.input("i", 1, dtype=onnx.TensorProto.INT64))


def layernorm_without_bias(model: Model) -> None:
    model.add("LayerNormalization", model.input("x", 2, 3), model.weight("g", 3))


def gemm_with_alpha(model: Model) -> None:
    model.add("Gemm", model.input("x", 2, 3), model.weight("w", 3, 4), alpha=2.0)


def open_dimension(model: Model) -> None:
    model.add("Relu", model.input("x", "batch", 3))


def open_rank(model: Model) -> None:
    model.inputs.append(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None))
    model.add("Relu", "x")


def double(model: Model) -> None:
    model.add("Relu", model.input("x", 2, dtype=onnx.TensorProto.DOUBLE))


def circle(model: Model) -> None:
    model.nodes.append(onnx.helper.make_node("Add", [model.input("x", 2), "b"], ["a"], name="first"))
    model.nodes.append(onnx.helper.make_node("Relu", ["a"], ["b"], name="second"))


def twice(model: Model) -> None:
    model.input("x", 2)
    model.nodes += [onnx.helper.make_node("Relu", ["x"], ["y"], name=name) for name in ("first", "second")]


def wrong_shapes(model: Model) -> None:
    model.add("MatMul", model.input("x", 2, 3), model.weight("w", 4, 5), name="product")


def runtime_shape(model: Model) -> None:
    model.add("Reshape", model.input("x", 6), model.input("s", 2, dtype=onnx.TensorProto.INT64), name="reshape")


def values_elsewhere(model: Model) -> None:
    model.add("Reshape", model.input("x", 6), model.weight("s", 2, dtype=onnx.TensorProto.INT64), name="reshape")


def only_constants(model: Model) -> None:
    model.add("Relu", model.weight("w", 3))


def subgraph(model: Model) -> None:
    x = model.input("x", 2)
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])
    body = onnx.helper.make_graph([onnx.helper.make_node("Relu", [x], ["y"])], "body", [], [y])
    model.add("If", model.constant("c", True, np.bool_), name="if", then_branch=body, else_branch=body)


def nothing(model: Model) -> None:
    model.inputs.clear()


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (gather_at_computed_indices, "unsupported operators: Gather at computed indices (1x"),
        (layernorm_without_bias, "unsupported operators: LayerNormalization without bias"),
        (gemm_with_alpha, "unsupported operators: Gemm with alpha or beta"),
        (subgraph, "unsupported operators: If (1x, first at node 'if')"),
        (open_dimension, "input 'x': dimension 0 is open ([batch, 3]); give --shape x=1x3, for example"),
        (open_rank, "input 'x' has no shape; give --shape x="),
        (double, "node 'Relu_0' (Relu): 'x' is of type double; allowed: float, float16"),
        (circle, "node 'first' (Add): reads 'b', which no earlier node gives"),
        (twice, "node 'second' (Relu): gives 'y', which is there already"),
        (wrong_shapes, "node 'product' (MatMul): [ShapeInferenceError] Incompatible dimensions"),
        (runtime_shape, "node 'reshape' (Reshape): the shape of 'reshape' is only known at run time"),
        (values_elsewhere, "node 'reshape' (Reshape): the shape of 'reshape' is only known at run time"),
        (only_constants, "nothing in it computes anything from the inputs"),
        (nothing, "not an ONNX model: no nodes"),
    ],
)
def test_a_wrong_onnx_model_is_one_line(capsys: Captured, tmp_path: Path, build: Any, expected: str) -> None:
    model = Model()
    build(model)
    path = model.save(tmp_path / "model.onnx", "y")
    assert refused(capsys, tmp_path, "onnx", path).startswith(f"{path}: {expected}")


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x00\x01hello" * 30, b'{"irVersion": 9}'])
def test_a_file_that_is_no_onnx_model_is_one_line(capsys: Captured, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert refused(capsys, tmp_path, "onnx", path).startswith(f"{path}: not an ONNX model: ")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("y=1x3", "--shape y: no such input; allowed: x"),
        ("x=2x4", "input 'x': --shape x=2x4, but the file has [batch, 3]"),
        ("x=2", "input 'x': --shape x=2, but the file has [batch, 3]"),
    ],
)
def test_a_given_shape_must_fit_the_input(capsys: Captured, tmp_path: Path, shape: str, expected: str) -> None:
    model = Model()
    open_dimension(model)
    path = model.save(tmp_path / "model.onnx")
    assert refused(capsys, tmp_path, "onnx", path, "--shape", shape).startswith(f"{path}: {expected}")
    code, _, _ = run(capsys, "trace", "import", "onnx", path, "-o", tmp_path / "x.jsonl", "--shape", "x=2x3")
    assert (code, check_trace(tmp_path / "x.jsonl")) == (0, 1)


def test_without_the_onnx_package_a_line_says_what_to_install(tmp_path: Path) -> None:
    path = vit(1, 2, 16, 32, 8, 16, 10, 1).save(tmp_path / "model.onnx")
    program = (
        "import sys; sys.modules['onnx'] = None; from neupims_sim.cli import main; "
        f"main(['trace', 'import', 'onnx', {str(path)!r}, '-o', {str(tmp_path / 'x.jsonl')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the format onnx needs the package onnx; install it with: pip install onnx\n"


def test_an_onnx_import_gives_the_same_bytes_every_time(capsys: Captured, tmp_path: Path) -> None:
    path = vit(2, 2, 16, 32, 8, 16, 10, 1).save(tmp_path / "model.onnx")
    for name in ("a.jsonl", "b.jsonl"):
        assert run(capsys, "trace", "import", "onnx", path, "-o", tmp_path / name)[0] == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert str(tmp_path).encode() not in (tmp_path / "a.jsonl").read_bytes()


# Kinds


def operator(op: str, inputs: list[tuple[int, ...]], output: tuple[int, ...], **attrs: Any) -> Operator:
    return Operator(0, op, op, tuple(Tensor("x", shape) for shape in inputs), (Tensor("y", output),), attrs=attrs)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (operator("batched_gemm", [(6, 2, 3), (2, 3, 4)], (6, 2, 4)), 2 * 6 * 2 * 3 * 4),
        (operator("elementwise", [(2, 3), (3,)], (2, 3), operations={"add": 1, "tanh": 2}), 18),
        (operator("reduction", [(2, 12)], (2, 1), operation="add", window=12, mean=True), 2 * 12 + 2),
        (operator("reduction", [(2, 12)], (2, 1), operation="compare", window=12, mean=False), 2 * 12),
        (operator("concatenate", [(2, 3), (1, 3)], (3, 3)), 0),
    ],
)
def test_kinds_of_imported_models_count(op: Operator, expected: int) -> None:
    assert list(checked([op])) == [op]
    assert flops(op) == expected


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (operator("batched_gemm", [(4, 2, 3), (1, 3, 4)], (6, 2, 4)), "4 matrices cannot be shared by a batch of 6"),
        (operator("batched_gemm", [(6, 2, 3), (6, 5, 4)], (6, 2, 4)), "has shape [6, 5, 4], expected [6, 3, 4]"),
        (operator("batched_gemm", [(6, 2, 3), (6, 3, 4)], (6, 4, 2)), "expected [6, 2, 4]"),
        (operator("elementwise", [(2, 3)], (2, 3), operations={"sine": 1}), "unknown operation 'sine'"),
        (operator("elementwise", [(2, 3)], (2, 3), operations={"add": 0}), "add=0 must be an integer of at least 1"),
        (operator("elementwise", [(4,)], (2, 3), operations={"add": 1}), "[4], which cannot be broadcast to [2, 3]"),
        (operator("reduction", [(4,)], (1,), operation="add", window=0, mean=True), "attrs.window=0 must be at least"),
        (operator("reduction", [(4,)], (1,), operation="pow", window=4, mean=True), "attrs.operation='pow'"),
        (operator("reduction", [(4,)], (1,), operation="compare", window=4, mean=True), "needs attrs.operation='add'"),
        (operator("concatenate", [(4,), (3,)], (6,)), "7 elements do not fit in an output of 6"),
    ],
)
def test_kinds_of_imported_models_are_checked(op: Operator, expected: str) -> None:
    with pytest.raises(ValueError, match="operator 0") as error:
        list(checked([op]))
    assert expected in str(error.value)
    assert not isinstance(error.value, InputError)

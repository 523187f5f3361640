"""``config.json`` of Hugging Face models: decoders and vision transformers.

The keys are those of the configuration classes of the transformers library
(https://huggingface.co/docs/transformers, one page per model type). What changes the work and has no place in the model
description is an error; what changes it little or only in order is a note.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TypeGuard

import numpy as np

from neupims_sim.config import ModelConfig, VitConfig
from neupims_sim.errors import InputError, suggestion
from neupims_sim.workloads.importing import IMPORTERS, ImportedModel, ImportedTrace, Importer, ImportOptions
from neupims_sim.workloads.llm import generate_llm
from neupims_sim.workloads.vit import generate_vit

DEFAULT_CONTEXT = 1024
"""Tokens per request, unless given."""
PHASES: tuple[Literal["decode", "prefill"], ...] = ("decode", "prefill")
DTYPES = ("float16", "bfloat16", "float32")
GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh")
SILU = ("silu", "swish")
LARGEST = 2**31 - 1

_SIZES = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "d_model": "hidden_size",
    "d_ff": "intermediate_size",
    "vocabulary": "vocab_size",
    "max_positions": "max_position_embeddings",
}
_GPT2_SIZES = {
    "layers": "n_layer",
    "heads": "n_head",
    "d_model": "n_embd",
    "d_ff": "n_inner",
    "vocabulary": "vocab_size",
    "max_positions": "n_positions",
}


@dataclass(frozen=True)
class Decoder:
    """How one model type writes a decoder."""

    sizes: Mapping[str, str]
    """Key of each size of ``ModelConfig``."""
    gated: bool
    """RMSNorm and SwiGLU, or LayerNorm and a plain FFN."""
    rotary: bool
    activation: str = "hidden_act"
    """Key of the activation."""
    grouped: bool = False
    """Whether the class reads ``num_key_value_heads`` and ``head_dim``; where it does not they change nothing."""
    kv_heads: int | None = None
    """KV heads where ``num_key_value_heads`` is absent; as many as heads unless given. null means as many as heads."""
    window: bool = False
    """Whether the class reads ``sliding_window``."""
    biases: Mapping[str, bool] | None = None
    """Keys that say whether linear layers have biases, with their defaults; None: all have."""
    notes: tuple[str, ...] = ()


_LLAMA = Decoder(_SIZES, gated=True, rotary=True, grouped=True, biases={"attention_bias": False, "mlp_bias": False})
DECODERS: Mapping[str, Decoder] = {
    "gpt2": Decoder(_GPT2_SIZES, gated=False, rotary=False, activation="activation_function"),
    "gpt_neox": Decoder(_SIZES, gated=False, rotary=True, biases={"attention_bias": True}),
    "llama": _LLAMA,
    "mistral": replace(_LLAMA, biases={}, kv_heads=8, window=True),
    "opt": Decoder(
        _SIZES | {"d_ff": "ffn_dim"},
        gated=False,
        rotary=False,
        activation="activation_function",
        biases={"enable_bias": True},
    ),
    "qwen2": replace(
        _LLAMA, biases={}, kv_heads=32, notes=("the biases of q, k and v are left out: a model has all biases or none",)
    ),
}
VISION = ("vit", "deit")
MODEL_TYPES = (*DECODERS, *VISION)


class Json(NamedTuple):
    """The object in a file, read key by key; whatever is wrong is an ``InputError`` with file and key."""

    path: Path
    values: Mapping[str, Any]

    def integer(self, key: str, default: int | None = None) -> int:
        """A positive integer; ``default`` where the key is absent or null."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if not _is_size(value):
            self.refuse(key, f"an integer from 1 to {LARGEST}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.values.get(key, default)
        if type(value) not in (int, float) or not 0 <= value <= LARGEST:
            self.refuse(key, "a number that is not negative")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if type(value) is not bool:
            self.refuse(key, "true or false")
        return bool(value)

    def choice(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if value not in allowed:
            near = suggestion(str(value), allowed) if isinstance(value, str) else f"allowed: {', '.join(allowed)}"
            raise InputError(f"{self.path}: {self._given(key)}; {near}")
        return str(value)

    def sides(self, key: str) -> tuple[int, int]:
        """Height and width: an integer, or a list of two."""
        value = self.values.get(key)
        pair = value if isinstance(value, list) else [value, value]
        if len(pair) == 2 and _is_size(pair[0]) and _is_size(pair[1]):
            return pair[0], pair[1]
        return self.refuse(key, "a positive integer or two")

    def only(self, key: str, *allowed: Any) -> None:
        """Refuse a key that is present with another value than those ``allowed``."""
        value = self.values.get(key)
        if value is not None and not any(type(value) is type(one) and value == one for one in allowed):
            self.refuse(key, " or ".join(["null", *map(json.dumps, allowed)]))

    def refuse(self, key: str, allowed: str) -> NoReturn:
        """Raise ``InputError`` for the value of ``key``."""
        raise InputError(f"{self.path}: {self._given(key)}; allowed: {allowed}")

    def _given(self, key: str) -> str:
        if key not in self.values:
            return f"key {key!r} is missing"
        text = json.dumps(self.values[key])
        return f"{key}={text if len(text) <= 60 else text[:57] + '...'}"


def _is_size(value: object) -> TypeGuard[int]:
    return type(value) is int and 1 <= value <= LARGEST


class HuggingFaceImporter(Importer):
    """The work of the whole model; embedding and LM head of decoders are left out, as ``trace llm`` leaves them out by default."""

    options = ("batch", "context", "phase", "tensor", "image_size")

    def trace(self, path: Path, options: ImportOptions) -> ImportedTrace:
        config = read_json(path)
        model, notes = _model(config)
        vision = isinstance(model, VitConfig)
        for name in ("context", "phase", "tensor") if vision else ("image_size",):
            if name in options.given():
                kind = "a vision model" if vision else "a language model"
                raise InputError(f"{path}: --{name.replace('_', '-')} is not for {kind} ({model.name})")
        dtype = config.choice("torch_dtype" if "torch_dtype" in config.values else "dtype", DTYPES, "float16")
        try:
            if isinstance(model, VitConfig):
                size = options.image_size or config.sides("image_size")
                trace = generate_vit(model, image_size=size, batch=options.batch or 1, dtype=dtype)
            else:
                contexts = np.full(options.batch or 1, options.context or DEFAULT_CONTEXT)
                trace = generate_llm(
                    model, contexts, phase=_phase(options.phase), tensor_parallel=options.tensor or 1, dtype=dtype
                )
        except InputError as error:
            raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
        attrs = {"imported_from": "huggingface", "model_type": config.values["model_type"]}
        header = replace(trace.header, attrs={**trace.header.attrs, **attrs})
        return ImportedTrace(replace(trace, header=header), notes)

    def model(self, path: Path) -> ImportedModel:
        return _model(read_json(path))


IMPORTERS.register("huggingface")(HuggingFaceImporter())


def read_json(path: Path) -> Json:
    """The object in a JSON file. Raises ``InputError``."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: not a JSON object")
    return Json(path, values)


def _phase(given: str | None) -> Literal["decode", "prefill"]:
    for phase in PHASES:
        if phase == (given or "decode"):
            return phase
    raise InputError(f"--phase {given!r}; {suggestion(str(given), PHASES)}")


def _model(config: Json) -> ImportedModel:
    model_type = config.choice("model_type", MODEL_TYPES)
    for key in ("is_encoder_decoder", "add_cross_attention"):
        config.only(key, False)
    config.only("quantization_config")
    for key in ("num_experts", "num_local_experts"):
        config.only(key, 0, 1)
    return _vision(config, model_type) if model_type in VISION else _decoder(config, model_type)


def _name(config: Json) -> str:
    """The last part of the name that the file gives itself, else its stem, else (``config.json``) the model type."""
    name = config.values.get("_name_or_path")
    last = Path(name).name if isinstance(name, str) else ""
    stem = config.path.stem
    return last or (stem if stem != "config" else str(config.values["model_type"]))


def _decoder(config: Json, model_type: str) -> ImportedModel:
    how = DECODERS[model_type]
    sizes = {field: config.integer(key) for field, key in how.sizes.items() if field != "d_ff"}
    default = 4 * sizes["d_model"] if how.sizes["d_ff"] == "n_inner" else None
    sizes["d_ff"] = config.integer(how.sizes["d_ff"], default)
    sizes["kv_heads"] = _kv_heads(config, how, sizes["heads"])
    head_dim = config.values.get("head_dim") if how.grouped else None
    if head_dim is None:
        _check_heads(config, how.sizes["heads"], how.sizes["d_model"])
    sizes["head_size"] = sizes["d_model"] // sizes["heads"] if head_dim is None else config.integer("head_dim")
    config.choice(how.activation, SILU if how.gated else GELU)
    _check_attention(config, model_type, how, sizes)
    bias, notes = _bias(config, how)
    shape: dict[str, Any] = dict(sizes)
    model = ModelConfig(
        name=_name(config),
        **shape,
        norm="rmsnorm" if how.gated else "layernorm",
        ffn="gated" if how.gated else "plain",
        activation="silu" if how.gated else "gelu",
        position="rotary" if how.rotary else "learned",
        bias=bias,
    )
    return ImportedModel(
        model, (*how.notes, *notes, *_unread_notes(config, model_type, how), *_ordering_notes(config, model_type, how))
    )


def _kv_heads(config: Json, how: Decoder, heads: int) -> int:
    if not how.grouped:
        return heads
    absent = "num_key_value_heads" not in config.values
    kv_heads = how.kv_heads if absent and how.kv_heads is not None else config.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        what = f"a divisor of {how.sizes['heads']}={heads}"
        config.refuse("num_key_value_heads", f"{what}; absent it is {kv_heads} in this class" if absent else what)
    return kv_heads


def _unread_notes(config: Json, model_type: str, how: Decoder) -> tuple[str, ...]:
    """Keys that say something about attention, but not to this class."""
    reads = {
        "num_key_value_heads": how.grouped,
        "head_dim": how.grouped,
        "sliding_window": how.window or model_type == "qwen2",
    }
    unread = [key for key, is_read in reads.items() if not is_read and config.values.get(key) is not None]
    return tuple(f"{key} changes nothing: the class of {model_type} does not read it" for key in unread)


def _check_heads(config: Json, heads: str, width: str) -> None:
    if config.integer(width) % config.integer(heads):
        config.refuse(width, f"a multiple of {heads}={config.integer(heads)}")


def _check_attention(config: Json, model_type: str, how: Decoder, sizes: Mapping[str, int]) -> None:
    """Refuse layers that are not all alike or do not see the whole context."""
    if model_type == "qwen2":
        config.only("use_sliding_window", False)
    elif (
        how.window
        and config.values.get("sliding_window") is not None
        and config.integer("sliding_window") < sizes["max_positions"]
    ):
        config.refuse("sliding_window", f"null, or at least max_position_embeddings={sizes['max_positions']}")
    if model_type == "opt":
        config.only("word_embed_proj_dim", sizes["d_model"])


def _bias(config: Json, how: Decoder) -> tuple[bool, tuple[str, ...]]:
    if how.biases is None:
        return True, ()
    flags = {key: config.flag(key, default) for key, default in how.biases.items()}
    if len(set(flags.values())) > 1:
        some = ", ".join(key for key, value in flags.items() if value)
        return False, (f"the biases of {some} are left out: a model has all biases or none",)
    return any(flags.values()), ()


def _ordering_notes(config: Json, model_type: str, how: Decoder) -> tuple[str, ...]:
    notes = []
    if how.rotary:
        key, default = ("rotary_pct", 0.25) if model_type == "gpt_neox" else ("partial_rotary_factor", 1.0)
        share = config.number(key, default)
        if share != 1:
            notes.append(f"{key}={share:g}: whole heads are rotated in the trace")
    if model_type == "gpt_neox" and config.flag("use_parallel_residual", True):
        notes.append("use_parallel_residual=true: the trace runs FFN after attention, with the same work")
    if model_type == "opt" and not config.flag("do_layer_norm_before", True):
        notes.append("do_layer_norm_before=false: the trace has norms before attention and FFN, with the same work")
    return tuple(notes)


def _vision(config: Json, model_type: str) -> ImportedModel:
    _check_heads(config, "num_attention_heads", "hidden_size")
    config.choice("hidden_act", GELU)
    config.only("num_channels", 3)
    config.only("qkv_bias", True)
    patch, other = config.sides("patch_size")
    if patch != other:
        config.refuse("patch_size", "a square")
    classes, notes = _classes(config)
    if model_type == "deit":
        notes += ("the distillation token is left out: a sequence has one class token",)
    model = VitConfig(
        name=_name(config),
        family="vit",
        layers=config.integer("num_hidden_layers"),
        heads=config.integer("num_attention_heads"),
        d_model=config.integer("hidden_size"),
        d_ff=config.integer("intermediate_size"),
        patch=patch,
        classes=classes,
    )
    return ImportedModel(model, notes)


def _classes(config: Json) -> tuple[int, tuple[str, ...]]:
    """Outputs of the classifier."""
    labels = config.values.get("id2label")
    if labels is not None and not (isinstance(labels, dict) and labels):
        config.refuse("id2label", "an object that is not empty")
    if labels is not None:
        return len(labels), ()
    if config.values.get("num_labels") is not None:
        return config.integer("num_labels"), ()
    default = int(VitConfig.model_fields["classes"].default)
    return default, (f"neither id2label nor num_labels: a classifier of {default} classes is assumed",)

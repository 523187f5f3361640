"""Large language models as operator traces: one decoder block of one device, repeated for every layer.

Tensor parallelism follows Megatron-LM (Shoeybi et al., arXiv 1909.08053): QKV, gate, up and FFN1 are split by output,
projection, FFN2 and down by input, each of these followed by an all-reduce; vocabulary-parallel embedding and LM head;
norms and residual additions on every device.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neupims_sim.config import ModelConfig
from neupims_sim.errors import InputError
from neupims_sim.trace import Tensor, Trace, TraceHeader
from neupims_sim.workloads.building import TraceBuilder

Phase = Literal["decode", "prefill"]


def generate_llm(
    model: ModelConfig,
    context_tokens: NDArray[np.integer[Any]],
    *,
    phase: Phase = "decode",
    tensor_parallel: int = 1,
    lm_head: bool = False,
    seed: int = 0,
    dtype: str = "float16",
) -> Trace:
    """The trace of one iteration on one of ``tensor_parallel`` devices.

    Parameters
    ----------
    context_tokens: [B] per running request. decode: tokens in the cache, the new one included; prefill: prompt tokens.
    phase: ``decode`` adds one token to each request; ``prefill`` processes the prompts, all tokens in one batch.
    lm_head: whether embedding, final norm and LM head surround the blocks. The head sees last tokens only.
    seed: recorded in the header; nothing here is random.

    Operators of the block, in order: ``attention_norm``, ``qkv``, (``rotary``,) ``kv_append``, per request ``logits``,
    ``softmax``, ``attend``, then ``projection``, (``projection_all_reduce``,) ``attention_add``, ``ffn_norm``,
    ``ffn1``, ``gelu``, ``ffn2`` or ``gate``, ``up``, ``silu_multiply``, ``down``, (``ffn_all_reduce``,) ``ffn_add``.

    Raises ``InputError`` where the model cannot be split or a context is empty or too long.
    """
    contexts = [int(tokens) for tokens in context_tokens]
    _check(model, contexts, tensor_parallel, lm_head)
    trace = _LlmTrace(model, tensor_parallel, dtype)
    new_tokens = [1] * len(contexts) if phase == "decode" else contexts
    hidden = trace.embedding(sum(new_tokens)) if lm_head else trace.activation("hidden", sum(new_tokens), model.d_model)
    hidden = trace.attention_part(hidden, contexts, new_tokens)
    hidden = trace.ffn_part(hidden)
    if lm_head:
        trace.head(len(contexts))
    header = TraceHeader(
        model=model.name,
        phase=phase,
        batch=len(contexts),
        dtype=dtype,
        seed=seed,
        attrs={"tensor_parallel": tensor_parallel, "layers": model.layers, "tokens": sum(new_tokens)},
    )
    return Trace(header, tuple(trace.operators))


def parameters(model: ModelConfig) -> int:
    """Parameters of the whole model: embeddings, decoder blocks, final norm, LM head where it is not the embedding."""
    embedding = model.vocabulary * model.d_model
    positions = model.max_positions * model.d_model if model.position == "learned" else 0
    head = 0 if ties_embedding(model) else embedding
    return embedding + positions + model.layers * block_parameters(model) + _norm_parameters(model) + head


def block_parameters(model: ModelConfig) -> int:
    """Parameters of one decoder block.

    With plain FFN of width 4 d_model and as many KV heads as heads: 12 d_model^2 in matrices, 9 d_model in biases
    (QKV 3, projection 1, FFN 4 + 1) and 4 d_model in two LayerNorms.
    """
    width, query, cache = model.d_model, model.heads * model.head_size, model.kv_heads * model.head_size
    expanding = 2 if model.ffn == "gated" else 1
    matrices = width * (query + 2 * cache) + query * width + (expanding + 1) * width * model.d_ff
    biases = (query + 2 * cache) + width + expanding * model.d_ff + width
    return matrices + (biases if model.bias else 0) + 2 * _norm_parameters(model)


def ties_embedding(model: ModelConfig) -> bool:
    """Whether the LM head is the transposed embedding: so in GPT (learned positions), not in Llama (rotary)."""
    return model.position == "learned"


def _norm_parameters(model: ModelConfig) -> int:
    return model.d_model * (2 if model.norm == "layernorm" else 1)


def _check(model: ModelConfig, contexts: list[int], tensor_parallel: int, lm_head: bool) -> None:
    divided = {"heads": model.heads, "kv_heads": model.kv_heads, "d_ff": model.d_ff}
    divided |= {"vocabulary": model.vocabulary} if lm_head else {}
    for key, value in divided.items():
        if value % tensor_parallel:
            raise InputError(f"model.{key}={value} is not a multiple of parallel.tensor={tensor_parallel}")
    if model.heads % model.kv_heads:
        raise InputError(f"model.heads={model.heads} is not a multiple of model.kv_heads={model.kv_heads}")
    if (model.ffn, model.activation) not in (("plain", "gelu"), ("gated", "silu")):
        raise InputError(
            f"model.ffn={model.ffn} with model.activation={model.activation} has no operator kind; "
            "allowed: plain with gelu, gated with silu"
        )
    if not contexts:
        raise InputError("the batch holds no request")
    for request, tokens in enumerate(contexts):
        if not 1 <= tokens <= model.max_positions:
            raise InputError(
                f"request {request}: a context of {tokens} tokens is not from 1 "
                f"to model.max_positions={model.max_positions}"
            )


class _LlmTrace(TraceBuilder):
    """The parts of a decoder model. An operator is executed once per layer unless it says otherwise."""

    def __init__(self, model: ModelConfig, tensor_parallel: int, dtype: str) -> None:
        super().__init__(dtype, repeat=model.layers)
        self._model = model
        self._devices = tensor_parallel
        self._heads = model.heads // tensor_parallel
        self._kv_heads = model.kv_heads // tensor_parallel

    def embedding(self, tokens: int) -> Tensor:
        """Token ids to hidden state [tokens, d_model]."""
        model = self._model
        tables = [self.weight("embedding.weight", model.vocabulary // self._devices, model.d_model)]
        if model.position == "learned":
            tables.append(self.weight("embedding.positions", model.max_positions, model.d_model))
        ids = Tensor("tokens", (tokens,), "int32")
        hidden = self.add("embedding", "embedding", (ids, *tables), (tokens, model.d_model), repeat=1)
        return self._all_reduce("embedding_all_reduce", hidden, repeat=1)

    def attention_part(self, hidden: Tensor, contexts: list[int], new_tokens: list[int]) -> Tensor:
        """Norm, QKV, attention of every request, projection, residual: [T, d_model] -> [T, d_model]."""
        model, heads, kv_heads, size = self._model, self._heads, self._kv_heads, self._model.head_size
        tokens = hidden.shape[0]
        normed = self._norm("attention_norm", hidden)
        source = self.linear("qkv", normed, (heads + 2 * kv_heads) * size, bias=model.bias).name
        queries = self.activation(f"{source}.q", tokens, heads, size)
        keys = self.activation(f"{source}.k", tokens, kv_heads, size)
        values = self.activation(f"{source}.v", tokens, kv_heads, size)
        if model.position == "rotary":
            source = "rotary"
            rotated = tuple(self.activation(f"rotary.{part.name[-1]}", *part.shape) for part in (queries, keys))
            self.emit("rotary", "rotary", (queries, keys), rotated)
            keys = rotated[1]
        appended = self.cache("kv_cache.new", 2, tokens, kv_heads, size)
        self.emit("kv_append", "kv_append", (keys, values), (appended,))
        for request, (context, new) in enumerate(zip(contexts, new_tokens, strict=True)):
            self._attention(source, request, context, new)
        attended = self.activation("attend", tokens, heads * size)
        projected = self.linear("projection", attended, model.d_model, bias=model.bias)
        projected = self._all_reduce("projection_all_reduce", projected)
        return self.add("attention_add", "add", (hidden, projected), hidden.shape)

    def ffn_part(self, hidden: Tensor) -> Tensor:
        """Norm, feed-forward network, residual: [T, d_model] -> [T, d_model]."""
        model, width = self._model, self._model.d_ff // self._devices
        normed = self._norm("ffn_norm", hidden)
        if model.ffn == "gated":
            gate, up = (
                self.linear("gate", normed, width, bias=model.bias),
                self.linear("up", normed, width, bias=model.bias),
            )
            inner = self.add("silu_multiply", "silu_multiply", (gate, up), gate.shape)
            out = self.linear("down", inner, model.d_model, bias=model.bias)
        else:
            expanded = self.linear("ffn1", normed, width, bias=model.bias)
            inner = self.add("gelu", "gelu", (expanded,), expanded.shape)
            out = self.linear("ffn2", inner, model.d_model, bias=model.bias)
        out = self._all_reduce("ffn_all_reduce", out)
        return self.add("ffn_add", "add", (hidden, out), hidden.shape)

    def head(self, requests: int) -> Tensor:
        """Final norm and LM head of the last token of each request: [requests, vocabulary / devices]."""
        last = self.activation("ffn_add.last", requests, self._model.d_model)
        normed = self._norm("final_norm", last, repeat=1)
        width = self._model.vocabulary // self._devices
        inputs = (normed, self.weight("lm_head.weight", self._model.d_model, width))
        return self.add("lm_head", "gemm", inputs, (requests, width), repeat=1)

    def _attention(self, source: str, request: int, context: int, new: int) -> None:
        heads, kv_heads, size = self._heads, self._kv_heads, self._model.head_size
        queries = self.activation(f"{source}.q[{request}]", heads, new, size)
        keys, values = (self.cache(f"kv_cache.{part}[{request}]", kv_heads, context, size) for part in "kv")
        logits = self.activation(f"logits[{request}]", heads, new, context)
        weights = self.activation(f"softmax[{request}]", *logits.shape)
        out = self.activation(f"attend[{request}]", heads, new, size)
        shared: dict[str, Any] = {"context_tokens": context, "causal": True}
        self.emit("logits", "attention_logits", (queries, keys), (logits,), request=request, attrs=shared)
        self.emit("softmax", "softmax", (logits,), (weights,), request=request, attrs={"causal": True})
        self.emit("attend", "attention_attend", (weights, values), (out,), request=request, attrs=shared)

    def _norm(self, name: str, hidden: Tensor, repeat: int | None = None) -> Tensor:
        vectors = ("gain", "shift") if self._model.norm == "layernorm" else ("gain",)
        weights = tuple(self.weight(f"{name}.{vector}", self._model.d_model) for vector in vectors)
        return self.add(name, self._model.norm, (hidden, *weights), hidden.shape, repeat=repeat)

    def _all_reduce(self, name: str, partial: Tensor, repeat: int | None = None) -> Tensor:
        if self._devices == 1:
            return partial
        attrs = {"devices": self._devices}
        return self.add(name, "all_reduce", (partial,), partial.shape, repeat=repeat, attrs=attrs)

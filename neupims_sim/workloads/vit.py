"""Vision transformers as operator traces: patches, one encoder block repeated for every layer, pooling, classifier.

Dosovitskiy et al., arXiv 2010.11929; pre-norm blocks with biases, one class token, learned positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neupims_sim.errors import InputError, suggestion
from neupims_sim.trace import Tensor, Trace, TraceHeader
from neupims_sim.workloads.building import TraceBuilder

CLASSES = 1000
"""Outputs of the classifier: ImageNet-1k."""


@dataclass(frozen=True)
class VitModel:
    """The shape of a vision transformer."""

    layers: int
    heads: int
    d_model: int
    d_ff: int
    patch: int
    """Height and width of a patch, pixels."""


VIT_MODELS: Mapping[str, VitModel] = {
    "vit-s16": VitModel(layers=12, heads=6, d_model=384, d_ff=1536, patch=16),
    "vit-b16": VitModel(layers=12, heads=12, d_model=768, d_ff=3072, patch=16),
    "vit-l16": VitModel(layers=24, heads=16, d_model=1024, d_ff=4096, patch=16),
    "vit-h14": VitModel(layers=32, heads=16, d_model=1280, d_ff=5120, patch=14),
}
"""B, L, H: Dosovitskiy et al., arXiv 2010.11929, table 1. S: DeiT-S, Touvron et al., arXiv 2012.12877, table 1."""

POOLINGS = ("cls", "average", "max", "gem", "ggem")


def generate_vit(
    model: str,
    *,
    image_size: tuple[int, int] = (224, 224),
    batch: int = 1,
    pooling: str = "cls",
    groups: int | None = None,
    dtype: str = "float16",
) -> Trace:
    """The trace of one inference on a batch of images.

    Parameters
    ----------
    model: a name in ``VIT_MODELS``.
    image_size: height and width in pixels, multiples of the patch.
    pooling: ``cls`` (a view: no operator), or over the patch tokens ``average``, ``max``, ``gem``, ``ggem``. All come after
        the final norm; the class token takes part in the encoder whatever the pooling.
    groups: exponents of ``ggem``, by default one per head.

    Operators, in order: ``patch_embedding``, ``tokens``; per layer ``attention_norm``, ``qkv``, per image ``logits``,
    ``softmax``, ``attend``, then ``projection``, ``attention_add``, ``ffn_norm``, ``ffn1``, ``gelu``, ``ffn2``, ``ffn_add``;
    ``final_norm``, ``pooling``, ``classifier``.

    Raises ``InputError`` for an unknown name, an image that patches do not tile, groups that do not divide the channels.
    """
    if model not in VIT_MODELS:
        raise InputError(f"unknown ViT model {model!r}; {suggestion(model, VIT_MODELS)}")
    shape = VIT_MODELS[model]
    _check(shape, image_size, batch, pooling, groups)
    trace = _VitTrace(shape, image_size, batch, dtype)
    hidden = trace.block(trace.tokens())
    groups = {"gem": 1, "ggem": groups or shape.heads}.get(pooling)
    trace.head(hidden, pooling, groups)
    header = TraceHeader(
        model=model,
        phase="encode",
        batch=batch,
        dtype=dtype,
        attrs={
            "image_size": list(image_size),
            "tokens": trace.sequence,
            "layers": shape.layers,
            "pooling": pooling,
            **({} if groups is None else {"groups": groups}),
        },
    )
    return Trace(header, tuple(trace.builder.operators))


def _check(model: VitModel, image_size: tuple[int, int], batch: int, pooling: str, groups: int | None) -> None:
    for side in image_size:
        if side < 1 or side % model.patch:
            size = "x".join(map(str, image_size))
            raise InputError(f"image_size={size} is not a positive multiple of the patch, {model.patch} pixels")
    if batch < 1:
        raise InputError(f"batch={batch} must be at least 1")
    if pooling not in POOLINGS:
        raise InputError(f"unknown pooling {pooling!r}; {suggestion(pooling, POOLINGS)}")
    if groups is not None and pooling != "ggem":
        raise InputError(f"groups={groups} is for pooling=ggem only, not for pooling={pooling}")
    if groups is not None and (groups < 1 or model.d_model % groups):
        raise InputError(f"groups={groups} does not divide the {model.d_model} channels of the model")


class _VitTrace:
    """Emits the parts of the model. T tokens of an image: the class token, then the patches row by row."""

    def __init__(self, model: VitModel, image_size: tuple[int, int], batch: int, dtype: str) -> None:
        self.builder = TraceBuilder(dtype)
        self._model = model
        self._batch = batch
        self._patches = image_size[0] * image_size[1] // model.patch**2
        self.sequence = self._patches + 1

    def tokens(self) -> Tensor:
        """Images [B, 3, H, W], as patches [B P, 3 patch^2], to tokens [B T, d_model]."""
        add, model = self.builder, self._model
        pixels = add.activation("images.patches", self._batch * self._patches, 3 * model.patch**2)
        embedded = add.linear("patch_embedding", pixels, model.d_model)
        class_token = add.weight("tokens.class", 1, model.d_model)
        positions = add.weight("tokens.positions", self.sequence, model.d_model)
        shape = (self._batch * self.sequence, model.d_model)
        return add.add("tokens", "token_sequence", (embedded, class_token, positions), shape)

    def block(self, hidden: Tensor) -> Tensor:
        """One encoder block, repeated for all layers: [B T, d_model] -> [B T, d_model]."""
        add, model, layers = self.builder, self._model, self._model.layers
        normed = add.layernorm("attention_norm", hidden, repeat=layers)
        qkv = add.linear("qkv", normed, 3 * model.d_model, repeat=layers)
        for image in range(self._batch):
            self._attention(qkv.name, image)
        attended = add.activation("attend", *hidden.shape)
        projected = add.linear("projection", attended, model.d_model, repeat=layers)
        hidden = add.add("attention_add", "add", (hidden, projected), hidden.shape, repeat=layers)
        normed = add.layernorm("ffn_norm", hidden, repeat=layers)
        expanded = add.linear("ffn1", normed, model.d_ff, repeat=layers)
        inner = add.add("gelu", "gelu", (expanded,), expanded.shape, repeat=layers)
        out = add.linear("ffn2", inner, model.d_model, repeat=layers)
        return add.add("ffn_add", "add", (hidden, out), hidden.shape, repeat=layers)

    def head(self, hidden: Tensor, pooling: str, groups: int | None) -> Tensor:
        """Final norm, pooling, classifier: [B T, d_model] -> [B, classes]."""
        add, width = self.builder, self._model.d_model
        normed = add.layernorm("final_norm", hidden)
        pooled = add.activation(f"{normed.name}.class", self._batch, width)
        if pooling != "cls":
            inputs = [add.activation(f"{normed.name}.patches", self._batch, self._patches, width)]
            inputs += [] if groups is None else [add.weight("pooling.exponents", groups)]
            kind = {"average": "average_pool", "max": "max_pool"}.get(pooling, "group_gem")
            pooled = add.add("pooling", kind, tuple(inputs), (self._batch, width))
        return add.linear("classifier", pooled, CLASSES)

    def _attention(self, source: str, image: int) -> None:
        add, heads, tokens = self.builder, self._model.heads, self.sequence
        queries, keys, values = (
            add.activation(f"{source}.{part}[{image}]", heads, tokens, self._model.d_model // heads) for part in "qkv"
        )
        scores = (heads, tokens, tokens)
        repeated: dict[str, Any] = {"repeat": self._model.layers, "request": image}
        seen: dict[str, Any] = {"context_tokens": tokens, "causal": False}
        logits = add.add("logits", "attention_logits", (queries, keys), scores, **repeated, attrs=seen)
        weights = add.add("softmax", "softmax", (logits,), scores, **repeated, attrs={"causal": False})
        add.add("attend", "attention_attend", (weights, values), queries.shape, **repeated, attrs=seen)

"""Vision transformers as operator traces: patches, one encoder block repeated for every layer, pooling, classifier.

Dosovitskiy et al., arXiv 2010.11929; pre-norm blocks with biases, one class token, learned positions.
"""

from __future__ import annotations

from typing import Any

from neupims_sim.config import VitConfig
from neupims_sim.config.bounds import Images, Pixels, require
from neupims_sim.errors import InputError, suggestion
from neupims_sim.trace import Tensor, Trace, TraceHeader
from neupims_sim.workloads.building import TraceBuilder

POOLINGS = ("cls", "average", "max", "gem", "ggem")
HEADS = ("classifier", "descriptor")


def generate_vit(
    model: VitConfig,
    *,
    image_size: tuple[int, int] = (224, 224),
    batch: int = 1,
    pooling: str = "cls",
    groups: int | None = None,
    head: str = "classifier",
    dtype: str = "float16",
) -> Trace:
    """The trace of one inference on a batch of images.

    Parameters
    ----------
    image_size: height and width in pixels, multiples of the patch.
    pooling: ``cls`` (a view: no operator), or over the patch tokens ``average``, ``max``, ``gem``, ``ggem``. All come after
        the final norm; the class token takes part in the encoder whatever the pooling.
    groups: exponents of ``ggem``, by default one per head.
    head: ``classifier``, or ``descriptor``: what is pooled, brought to unit length.

    Operators, in order: ``patch_embedding``, ``tokens``; per layer ``attention_norm``, ``qkv``, per image ``logits``,
    ``softmax``, ``attend``, then ``projection``, ``attention_add``, ``ffn_norm``, ``ffn1``, ``gelu``, ``ffn2``, ``ffn_add``;
    ``final_norm``, ``pooling``, ``classifier`` or ``descriptors``.

    Raises ``InputError`` for an unknown name, an image that patches do not tile, groups that do not divide the channels.
    """
    if head not in HEADS:
        raise InputError(f"unknown head {head!r}; {suggestion(head, HEADS)}")
    builder = TraceBuilder(dtype)
    trace = _VitTrace(builder, model, image_size, batch, pooling, groups)
    pooled = trace.pooled()
    if head == "classifier":
        builder.linear("classifier", pooled, model.classes)
    else:
        builder.add("descriptors", "l2_normalize", (pooled,), pooled.shape)
    attrs = {"image_size": list(image_size), "tokens": trace.sequence, "layers": model.layers, "pooling": pooling}
    attrs |= {} if trace.groups is None else {"groups": trace.groups}
    header = TraceHeader(model.name, "encode", batch, dtype, attrs=attrs)
    return Trace(header, tuple(builder.operators))


def extract(
    builder: TraceBuilder, model: VitConfig, image_size: tuple[int, int], batch: int, pooling: str = "ggem"
) -> Tensor:
    """Append images to unit descriptors ``[batch, d_model]``; raises ``InputError`` as :func:`generate_vit`."""
    pooled = _VitTrace(builder, model, image_size, batch, pooling, None).pooled()
    return builder.add("descriptors", "l2_normalize", (pooled,), pooled.shape)


def _check(model: VitConfig, image_size: tuple[int, int], batch: int, pooling: str, groups: int | None) -> None:
    require("batch", batch, Images)
    for side in image_size:
        if side < 1 or side % model.patch:
            size = "x".join(map(str, image_size))
            raise InputError(f"image_size={size} is not a positive multiple of the patch, {model.patch} pixels")
        require("image_size", side, Pixels)
    if pooling not in POOLINGS:
        raise InputError(f"unknown pooling {pooling!r}; {suggestion(pooling, POOLINGS)}")
    if groups is not None and pooling != "ggem":
        raise InputError(f"groups={groups} is for pooling=ggem only, not for pooling={pooling}")
    if groups is not None and (groups < 1 or model.d_model % groups):
        raise InputError(f"groups={groups} does not divide the {model.d_model} channels of the model")


class _VitTrace:
    """Emits the parts of the model. T tokens of an image: the class token, then the patches row by row."""

    def __init__(
        self,
        builder: TraceBuilder,
        model: VitConfig,
        image_size: tuple[int, int],
        batch: int,
        pooling: str,
        groups: int | None,
    ) -> None:
        _check(model, image_size, batch, pooling, groups)
        self.builder = builder
        self.groups = {"gem": 1, "ggem": groups or model.heads}.get(pooling)
        self._model = model
        self._batch = batch
        self._pooling = pooling
        self._patches = image_size[0] * image_size[1] // model.patch**2
        self.sequence = self._patches + 1

    def pooled(self) -> Tensor:
        """The whole model up to its pooling: [B, d_model]."""
        return self._pool(self._block(self._tokens()))

    def _tokens(self) -> Tensor:
        """Images [B, 3, H, W], as patches [B P, 3 patch^2], to tokens [B T, d_model]."""
        add, model = self.builder, self._model
        pixels = add.activation("images.patches", self._batch * self._patches, 3 * model.patch**2)
        embedded = add.linear("patch_embedding", pixels, model.d_model)
        class_token = add.weight("tokens.class", 1, model.d_model)
        positions = add.weight("tokens.positions", self.sequence, model.d_model)
        shape = (self._batch * self.sequence, model.d_model)
        return add.add("tokens", "token_sequence", (embedded, class_token, positions), shape)

    def _block(self, hidden: Tensor) -> Tensor:
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

    def _pool(self, hidden: Tensor) -> Tensor:
        """Final norm and pooling: [B T, d_model] -> [B, d_model]."""
        add, width = self.builder, self._model.d_model
        normed = add.layernorm("final_norm", hidden)
        if self._pooling == "cls":
            return add.activation(f"{normed.name}.class", self._batch, width)
        inputs = [add.activation(f"{normed.name}.patches", self._batch, self._patches, width)]
        inputs += [] if self.groups is None else [add.weight("pooling.exponents", self.groups)]
        kind = {"average": "average_pool", "max": "max_pool"}.get(self._pooling, "group_gem")
        return add.add("pooling", kind, tuple(inputs), (self._batch, width))

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

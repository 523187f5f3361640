"""ResNets as operator traces: a classifier, and the global descriptor of SuperGlobal.

He et al., arXiv 1512.03385, with the stride in the 3x3 convolution; convolutions are GEMMs over gathered windows (kind
``convolution``) with batch norm folded into weights and bias. Blocks of a stage after its first are alike: they are written
once, as ``block2``, with ``repeat``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neupims_sim.config import ResnetConfig
from neupims_sim.config.bounds import Images, Pixels, require
from neupims_sim.errors import InputError, suggestion
from neupims_sim.trace import Tensor, Trace, TraceHeader
from neupims_sim.trace.kinds.convolution import window_positions
from neupims_sim.workloads.building import TraceBuilder

STAGE_WIDTHS = (256, 512, 1024, 2048)
"""Output channels of the stages; a bottleneck is a quarter as wide."""
DESCRIPTOR = STAGE_WIDTHS[-1]
"""Dimensions of the global descriptor."""

HEADS = ("classifier", "descriptor")

SCALES = (0.7071, 1.0, 1.4142)
"""SuperGlobal (Shao et al., arXiv 2308.06954): each image is seen at three sizes."""
RELUP_ALPHA = 0.014
"""Of the activation after the blocks of stages 1 to 3 (same source)."""
REGIONAL_GEM_P, REGIONAL_GEM_WINDOW = 2.5, 5
GEM_PLUS_P = 4.6


def generate_resnet(
    model: ResnetConfig,
    *,
    image_size: tuple[int, int] = (224, 224),
    batch: int = 1,
    head: str = "classifier",
    dtype: str = "float16",
) -> Trace:
    """The trace of one inference on a batch of images.

    Parameters
    ----------
    image_size: height and width in pixels.
    head: ``classifier``: global average and classes; ``descriptor``: that of :func:`extract`.

    Raises ``InputError`` for an unknown name or an image that is too small.
    """
    if head not in HEADS:
        raise InputError(f"unknown head {head!r}; {suggestion(head, HEADS)}")
    builder = TraceBuilder(dtype)
    if head == "descriptor":
        extract(builder, model, image_size, batch)
    else:
        _check(image_size, batch)
        image = builder.activation("images", batch, 3, *image_size)
        features = _Backbone(builder, model, alpha=0.0).features(image)
        pooled = builder.add("average", "average_pool", (features,), features.shape[:2])
        builder.linear("classifier", pooled, model.classes)
    attrs = {"image_size": list(image_size), "head": head}
    return Trace(TraceHeader(model.name, "encode", batch, dtype, attrs=attrs), tuple(builder.operators))


def extract(builder: TraceBuilder, model: ResnetConfig, image_size: tuple[int, int], batch: int) -> Tensor:
    """Append the extractor of SuperGlobal: images to unit descriptors ``[batch, 2048]``.

    Per scale: backbone, Regional-GeM, GeM+, unit length, whitening (FC 2048 -> 2048), unit length; then Scale-GeM with
    p = infinity and unit length (Shao et al., arXiv 2308.06954). A scaled side is rounded down.

    Raises ``InputError`` for an image that is too small.
    """
    _check(image_size, batch)
    smallest = _scaled(image_size, min(SCALES))
    if min(_map_size(smallest)) <= REGIONAL_GEM_WINDOW // 2:
        raise InputError(
            f"image_size={_text(image_size)}: at scale {min(SCALES)} the last map is {_text(_map_size(smallest))}; "
            f"Regional-GeM needs at least {REGIONAL_GEM_WINDOW // 2 + 1} positions per side"
        )
    image = builder.activation("images", batch, 3, *image_size)
    for number, scale in enumerate(SCALES):
        _scale_descriptor(builder, model, image, number, scale)
    descriptors = builder.activation("scale_norm", len(SCALES), batch, DESCRIPTOR)
    pooled = builder.add("scale_gem", "scale_gem", (descriptors,), (batch, DESCRIPTOR))
    return builder.add("descriptors", "l2_normalize", (pooled,), pooled.shape)


def _scale_descriptor(builder: TraceBuilder, model: ResnetConfig, image: Tensor, number: int, scale: float) -> Tensor:
    """The unit descriptor of one scale, written as ``scale_norm[number]``."""
    part = _Backbone(builder, model, alpha=RELUP_ALPHA, suffix=f"_scale{number}", attrs={"scale": scale})
    batch = image.shape[0]
    scaled = _scaled((image.shape[2], image.shape[3]), scale)
    if scale != 1:
        image = part.add("resize", "resize", (image,), (batch, 3, *scaled))
    features = part.features(image)
    regional = part.add(
        "regional_gem", "regional_gem", (features,), features.shape, p=REGIONAL_GEM_P, window=REGIONAL_GEM_WINDOW
    )
    pooled = part.add("gem_plus", "gem_plus", (regional,), (batch, DESCRIPTOR), p=GEM_PLUS_P)
    unit = part.add("gem_norm", "l2_normalize", (pooled,), pooled.shape)
    parameters = (
        builder.weight("whitening.weight", DESCRIPTOR, DESCRIPTOR),
        builder.weight("whitening.bias", DESCRIPTOR),
    )
    whitened = part.add("whitening", "gemm", (unit, *parameters), unit.shape)
    return builder.add(
        "scale_norm",
        "l2_normalize",
        (whitened,),
        whitened.shape,
        output=f"scale_norm[{number}]",
        attrs={"scale": scale},
    )


def _check(image_size: tuple[int, int], batch: int) -> None:
    for side in image_size:
        require("image_size", side, Pixels)
    require("batch", batch, Images)


def _scaled(image_size: tuple[int, int], scale: float) -> tuple[int, int]:
    return int(image_size[0] * scale), int(image_size[1] * scale)


def _map_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Size of the last map: an odd kernel, padded by half of it, halves a side, rounding up, five times."""
    return -(-image_size[0] // 32), -(-image_size[1] // 32)


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


class _Backbone:
    """Emits stem and stages. ``suffix`` sets the activations of one scale apart; weights are those of all scales."""

    def __init__(
        self,
        builder: TraceBuilder,
        model: ResnetConfig,
        *,
        alpha: float,
        suffix: str = "",
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        self._builder = builder
        self._blocks = model.blocks
        self._floor = alpha
        self._suffix = suffix
        self._attrs = attrs or {}

    def features(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 2048, H / 32, W / 32]: stem 7x7/2 and maximum 3x3/2, then four stages."""
        stem = self._convolution("stem", image, STAGE_WIDTHS[0] // 4, kernel=7, stride=2)
        stem = self._relu("stem_relu", stem)
        shape = (*stem.shape[:2], *(window_positions(side, 3, 2, 1) for side in stem.shape[2:]))
        hidden = self.add("stem_pooling", "window_max_pool", (stem,), shape, kernel=3, stride=2, padding=1)
        for stage, (width, blocks) in enumerate(zip(STAGE_WIDTHS, self._blocks, strict=True), start=1):
            alpha = self._floor if stage < len(STAGE_WIDTHS) else 0.0
            hidden = self._block(f"stage{stage}_block1", hidden, width, stride=1 if stage == 1 else 2, alpha=alpha)
            hidden = self._block(f"stage{stage}_block2", hidden, width, alpha=alpha, repeat=blocks - 1)
        return hidden

    def add(
        self, name: str, op: str, inputs: tuple[Tensor, ...], shape: tuple[int, ...], repeat: int = 1, **attrs: Any
    ) -> Tensor:
        """Append an operator of this scale."""
        attrs |= self._attrs
        return self._builder.add(name, op, inputs, shape, output=f"{name}{self._suffix}", repeat=repeat, attrs=attrs)

    def _block(
        self, name: str, hidden: Tensor, width: int, *, alpha: float, stride: int = 1, repeat: int = 1
    ) -> Tensor:
        """Bottleneck 1x1, 3x3, 1x1 beside a shortcut, which is a convolution where the shape changes."""
        narrow = self._convolution(f"{name}_conv1", hidden, width // 4, repeat=repeat)
        narrow = self._relu(f"{name}_relu1", narrow, repeat=repeat)
        narrow = self._convolution(f"{name}_conv2", narrow, width // 4, kernel=3, stride=stride, repeat=repeat)
        narrow = self._relu(f"{name}_relu2", narrow, repeat=repeat)
        wide = self._convolution(f"{name}_conv3", narrow, width, repeat=repeat)
        shortcut = hidden
        if hidden.shape != wide.shape:
            shortcut = self._convolution(f"{name}_shortcut", hidden, width, stride=stride, repeat=repeat)
        total = self.add(f"{name}_add", "add", (shortcut, wide), wide.shape, repeat)
        return self._relu(f"{name}_relu3", total, alpha, repeat)

    def _convolution(
        self, name: str, hidden: Tensor, width: int, *, kernel: int = 1, stride: int = 1, repeat: int = 1
    ) -> Tensor:
        batch, channels, *sides = hidden.shape
        weights = self._builder.weight(f"{name}.weight", channels * kernel**2, width)
        bias = self._builder.weight(f"{name}.bias", width)
        window = {"kernel": kernel, "stride": stride, "padding": kernel // 2}
        shape = (batch, width, *(window_positions(side, **window) for side in sides))
        return self.add(name, "convolution", (hidden, weights, bias), shape, repeat, **window)

    def _relu(self, name: str, hidden: Tensor, alpha: float = 0.0, repeat: int = 1) -> Tensor:
        return self.add(name, "relu", (hidden,), hidden.shape, repeat, alpha=alpha)

"""Rerankers of retrieved images, one query at a time: SuperGlobal, and two that compare local features.

Each appends the operators of one query to a trace: candidates ``ranks[query]`` in, their order ``order[query]`` out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neupims_sim.errors import InputError
from neupims_sim.trace import Tensor
from neupims_sim.trace.kinds.convolution import window_positions
from neupims_sim.workloads.building import TraceBuilder


@dataclass(frozen=True)
class Candidates:
    """What the search left to one query."""

    request: int
    query: Tensor
    """Its descriptor [1, D]."""
    ranks: Tensor
    """Database rows [M], best first."""
    database: Tensor
    """Global descriptors [N, D]."""

    @property
    def count(self) -> int:
        """M."""
        return self.ranks.shape[0]

    def gather(self, builder: TraceBuilder, name: str, table: Tensor) -> Tensor:
        """Append the look-up of the candidates in ``table`` [N, E]: [M, E]."""
        shape = (self.count, table.shape[1])
        return builder.add(name, "embedding", (self.ranks, table), shape, request=self.request)


def top(
    builder: TraceBuilder, name: str, scores: Tensor, best: int, request: int | None = None, repeat: int = 1
) -> Tensor:
    """Append the selection of the ``best`` of every row and return their ids; the scores are ``<name>.scores``."""
    where = "" if request is None else f"[{request}]"
    shape = (scores.shape[0], best)
    ids = Tensor(f"{name}{where}", shape, "int32")
    values = builder.activation(f"{name}.scores{where}", *shape)
    builder.emit(name, "top_m", (scores,), (ids, values), request=request, repeat=repeat)
    return ids


# SuperGlobal

NEIGHBOURS = 9
"""Neighbours that refine a descriptor; with itself also the number of descriptors that expand the query."""
BETA = 0.15
"""Weight of a neighbour's similarity; both as published (Shao et al., arXiv 2308.06954)."""


def superglobal(builder: TraceBuilder, candidates: Candidates) -> None:
    """Reranking with global descriptors only (Shao et al., arXiv 2308.06954).

    Each of the M is replaced by the weighted mean of itself and its 9 nearest among the M; S1 compares them with the query,
    S2 with the element-wise maximum of the 10 best of S1; the order is that of (S1 + S2) / 2. The M x M x D products
    of all pairs dominate. Raises ``InputError`` where M is less than 10.
    """
    request, count, nearest = candidates.request, candidates.count, NEIGHBOURS + 1
    if count < nearest:
        raise InputError(f"top={count} must be at least {nearest} (neighbours and itself) for rerank=superglobal")
    found = candidates.gather(builder, "candidates", candidates.database)
    size = found.shape[1]
    pairs = builder.add("pairs", "similarity", (found,), (count, count), request=request)
    neighbours = top(builder, "neighbours", pairs, nearest, request)
    similarities = builder.activation(f"neighbours.scores[{request}]", count, nearest)
    refined = builder.add(
        "refine",
        "weighted_mean",
        (found, neighbours, similarities),
        found.shape,
        request=request,
        attrs={"beta": BETA},
    )
    first = builder.add("score1", "similarity", (candidates.query, refined), (1, count), request=request)
    best = top(builder, "best", first, nearest, request)
    expanded = builder.add("expand", "max_of_rows", (refined, best), (1, size), request=request)
    second = builder.add("score2", "similarity", (expanded, refined), (1, count), request=request)
    final = builder.add("score", "mean", (first, second), first.shape, request=request)
    top(builder, "order", final, count, request)


# Reranking Transformers

RRT_LAYERS, RRT_HEADS, RRT_WIDTH, RRT_FFN = 6, 4, 128, 1024
RRT_LOCAL_FEATURES = 500
"""Per image, 128-D each."""


def rrt(builder: TraceBuilder, candidates: Candidates) -> None:
    """Reranking Transformers (Tan et al., ICCV 2021, arXiv 2103.12236), all M pairs of the query in one batch.

    A pair is 1004 tokens: class token, query, separator, candidate, an image being its global descriptor (projected to
    128-D) and 500 local features. 6 post-norm layers of 4 heads with FFN 1024 (ReLU); the class token is scored. The embedding
    of location, scale and image is computed with the features and counts as state.
    """
    request, pairs, width = candidates.request, candidates.count, RRT_WIDTH
    features = RRT_LOCAL_FEATURES
    table = builder.state("local_database", candidates.database.shape[0], features * width)
    local = candidates.gather(builder, "local_candidates", table)
    local = builder.activation(local.name, pairs * features, width)
    own = builder.state(f"local_queries[{request}]", features, width)
    found = candidates.gather(builder, "candidates", candidates.database)
    remap = (builder.weight("remap.weight", found.shape[1], width), builder.weight("remap.bias", width))
    found = builder.add("remap_candidates", "gemm", (found, *remap), (pairs, width), request=request)
    query = builder.add("remap_query", "gemm", (candidates.query, *remap), (1, width), request=request)
    special = builder.weight("tokens.special", 2, width)
    tokens = 2 * (features + 2)
    places = builder.state("tokens.places", tokens, width)
    hidden = builder.add(
        "tokens",
        "token_sequence",
        (query, own, found, local, special, places),
        (pairs * tokens, width),
        request=request,
    )
    hidden = _rrt_layer(builder, hidden, pairs, request)
    last = builder.activation(f"ffn_norm[{request}].class", pairs, width)
    scores = builder.linear("pair_score", last, 1, request=request)
    top(builder, "order", builder.activation(scores.name, 1, pairs), pairs, request)


def _rrt_layer(builder: TraceBuilder, hidden: Tensor, pairs: int, request: int) -> Tensor:
    """One layer, repeated for all: [M T, 128] -> [M T, 128]. Heads of all pairs side by side."""
    heads, size, tokens = pairs * RRT_HEADS, RRT_WIDTH // RRT_HEADS, hidden.shape[0] // pairs
    once: dict[str, Any] = {"repeat": RRT_LAYERS, "request": request}
    builder.linear("qkv", hidden, 3 * RRT_WIDTH, **once)
    queries, keys, values = (builder.activation(f"qkv[{request}].{part}", heads, tokens, size) for part in "qkv")
    seen = {"context_tokens": tokens, "causal": False}
    logits = builder.add("logits", "attention_logits", (queries, keys), (heads, tokens, tokens), **once, attrs=seen)
    weights = builder.add("softmax", "softmax", (logits,), logits.shape, **once, attrs={"causal": False})
    attended = builder.add("attend", "attention_attend", (weights, values), queries.shape, **once, attrs=seen)
    attended = builder.activation(attended.name, *hidden.shape)
    projected = builder.linear("projection", attended, RRT_WIDTH, **once)
    total = builder.add("attention_add", "add", (hidden, projected), hidden.shape, **once)
    hidden = builder.layernorm("attention_norm", total, **once)
    expanded = builder.linear("ffn1", hidden, RRT_FFN, **once)
    inner = builder.add("relu", "relu", (expanded,), expanded.shape, **once, attrs={"alpha": 0.0})
    out = builder.linear("ffn2", inner, RRT_WIDTH, **once)
    total = builder.add("ffn_add", "add", (hidden, out), hidden.shape, **once)
    return builder.layernorm("ffn_norm", total, **once)


# CVNet-Rerank

CVNET_CHANNELS, CVNET_COMPRESSED = 1024, 256
"""Channels of a stage-3 map, and after its compression."""
CVNET_STRIDE = 16
"""Pixels per position of a stage-3 map."""
CVNET_AREAS = (0.25, 0.5, 1.0)
"""Areas of the three sizes of a map; a side goes with the root."""
CVNET_BLOCKS = (
    (16, 5, 2),
    (16, 3, 1),
    (32, 3, 2),
    (32, 3, 1),
    (32, 3, 1),
    (64, 3, 2),
    (64, 3, 1),
    (64, 3, 1),
    (128, 3, 1),
)
"""Output channels, kernel and stride of the 4-D convolutions, each followed by a group norm of 4 groups and ReLU."""


def cvnet(builder: TraceBuilder, candidates: Candidates, image_size: tuple[int, int]) -> None:
    """CVNet-Rerank (Lee et al., CVPR 2022, arXiv 2204.01458); layer shapes from the authors' model (sungonce/CVNet).

    Stage-3 maps of query and candidate at three sizes, each compressed to 256 channels; the correlations of all positions of
    the 3 x 3 pairs of sizes, brought to one size, are 9 channels of a 4-D map; 4-D convolutions (as two 2-D ones) and an MLP give
    the score. Pairs follow one another (``repeat``: a pair's 4-D maps are large) with the same weights (``shared_weights``). All
    images have the size of the query; its own maps are computed once. Raises ``InputError`` where a map has no position.
    """
    request, pairs = candidates.request, candidates.count
    sides = (-(-image_size[0] // CVNET_STRIDE), -(-image_size[1] // CVNET_STRIDE))
    sizes = [(round(sides[0] * math.sqrt(area)), round(sides[1] * math.sqrt(area))) for area in CVNET_AREAS]
    if min(min(size) for size in sizes) < 1:
        raise InputError(f"image_size={image_size[0]}x{image_size[1]} is too small for rerank=cvnet")
    pair = _PairTrace(builder, request, pairs)
    query = builder.state(f"local_queries[{request}]", 1, CVNET_CHANNELS, *sides)
    queries = [pair.compressed("query", query, number, size, repeat=1) for number, size in enumerate(sizes)]
    table = builder.state("local_database", candidates.database.shape[0], CVNET_CHANNELS * sides[0] * sides[1])
    one = Tensor(candidates.ranks.name, (1,), candidates.ranks.dtype)
    gathered = builder.add(
        "local_candidates", "embedding", (one, table), (1, table.shape[1]), request=request, repeat=pairs
    )
    key = builder.activation(gathered.name, 1, CVNET_CHANNELS, *sides)
    keys = [pair.compressed("candidate", key, number, size, repeat=pairs) for number, size in enumerate(sizes)]
    pair.verdict(pair.correlations(queries, keys, sides))
    scores = builder.activation(f"pair_score[{request}]", 1, pairs)
    top(builder, "order", scores, pairs, request)


class _PairTrace:
    """Emits the operators of one pair of images, repeated for all pairs of the query."""

    def __init__(self, builder: TraceBuilder, request: int, pairs: int) -> None:
        self._builder = builder
        self._request = request
        self._pairs = pairs

    def compressed(self, side: str, image: Tensor, number: int, size: tuple[int, int], repeat: int) -> Tensor:
        """[1, 1024, h, w] -> [1, 256, *size], unit vectors."""
        part = f".size{number}"
        if image.shape[2:] != size:
            image = self._add(f"{side}_resize", "resize", (image,), (*image.shape[:2], *size), part, repeat=repeat)
        weights = self._builder.weight(f"compress.size{number}", image.shape[1] * 9, CVNET_COMPRESSED)
        window = {"kernel": 3, "stride": 1, "padding": 1}
        shape = (1, CVNET_COMPRESSED, *size)
        image = self._add(f"{side}_compress", "convolution", (image, weights), shape, part, repeat=repeat, attrs=window)
        return self._add(f"{side}_norm", "l2_normalize", (image,), shape, part, repeat=repeat)

    def correlations(self, queries: Sequence[Tensor], keys: Sequence[Tensor], sides: tuple[int, int]) -> Tensor:
        """All pairs of sizes as channels of one map [1, 9, h, w, h, w], negative values cut off."""
        shape = (1, 1, *sides, *sides)
        pairs = [(query, key) for query in queries for key in keys]
        for number, (query, key) in enumerate(pairs):
            part = f".{number}"
            sizes = (*query.shape[2:], *key.shape[2:])
            channel = self._add("correlation", "correlation", (query, key), (1, 1, *sizes), part)
            if channel.shape != shape:
                channel = self._add("correlation_resize", "resize", (channel,), shape, part)
            self._relu("correlation_relu", channel, f".{number}")
        return self._builder.activation(f"correlation_relu[{self._request}]", 1, len(pairs), *shape[2:])

    def verdict(self, correlations: Tensor) -> None:
        """4-D convolutions, average, MLP 128 -> 128 -> 2, softmax."""
        hidden = correlations
        for number, (width, kernel, stride) in enumerate(CVNET_BLOCKS, start=1):
            hidden = self._convolution(f"conv4d_{number}", hidden, width, kernel, stride)
        width = hidden.shape[1]
        flat = self._builder.activation(
            hidden.name, 1, width, hidden.shape[2] * hidden.shape[3], hidden.shape[4] * hidden.shape[5]
        )
        pooled = self._add("average", "average_pool", (flat,), (1, width))
        once: dict[str, Any] = {"request": self._request, "repeat": self._pairs}
        inner = self._relu("mlp_relu", self._builder.linear("mlp1", pooled, width, **once))
        logits = self._builder.linear("mlp2", inner, 2, **once)
        logits = self._builder.activation(logits.name, 1, 1, 2)
        self._add("pair_score", "softmax", (logits,), (1, 1, 2), attrs={"causal": False})

    def _convolution(self, name: str, hidden: Tensor, width: int, kernel: int, stride: int) -> Tensor:
        weight, window = self._builder.weight, {"kernel": kernel, "stride": stride, "padding": kernel // 2}
        depth = hidden.shape[1] * kernel**2
        halves = [weight(f"{name}.{half}_weight", depth, width) for half in ("query", "candidate")]
        halves += [weight(f"{name}.{half}_bias", width) for half in ("query", "candidate")]
        shape = (1, width, *(window_positions(side, **window) for side in hidden.shape[2:]))
        hidden = self._add(name, "center_pivot_convolution", (hidden, *halves), shape, attrs=window)
        vectors = (weight(f"{name}_norm.{vector}", width) for vector in ("gain", "shift"))
        hidden = self._add(f"{name}_norm", "group_norm", (hidden, *vectors), shape, attrs={"groups": 4})
        return self._relu(f"{name}_relu", hidden)

    def _relu(self, name: str, hidden: Tensor, part: str = "") -> Tensor:
        return self._add(name, "relu", (hidden,), hidden.shape, part, attrs={"alpha": 0.0})

    def _add(
        self,
        name: str,
        op: str,
        inputs: tuple[Tensor, ...],
        shape: tuple[int, ...],
        part: str = "",
        *,
        repeat: int | None = None,
        attrs: dict[str, Any] | None = None,
    ) -> Tensor:
        """Append an operator, once per pair unless ``repeat`` says otherwise; ``part`` sets its tensor apart."""
        output = f"{name}[{self._request}]{part}"
        repeat = self._pairs if repeat is None else repeat
        attrs = (attrs or {}) | {"shared_weights": True}
        return self._builder.add(
            name, op, inputs, shape, output=output, repeat=repeat, request=self._request, attrs=attrs
        )

"""The work of the kernels: one function per kernel, of the same name; tests count what the kernels do and compare.

Rules, the same as those of the operator kinds of a trace:

- A multiply-accumulate of a matrix product is 2 FLOPs; a bias is the initial value of its accumulator.
- Every other operation on one element is 1 FLOP and counted by name, because a vector unit prices them differently.
  A sum or maximum of n elements is n operations.
- Ranking counts one comparison per candidate: with the worst of the best so far, as a unit that selects in passing does.
- Bytes are those of the arguments and results, each once; what is in between stays where it is made.

``itemsize`` is the bytes of an element (4 or 8 for the kernels of this package).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

OPERATIONS = ("add", "multiply", "compare", "divide", "sqrt", "exp", "log", "pow", "tanh")
"""The names of operations. ``add`` includes subtraction, ``multiply`` squares, ``compare`` minimum and maximum."""

INDEX_BYTES = 8
"""Bytes of a rank."""


@dataclass(frozen=True)
class Cost:
    """Work of one call of a kernel."""

    macs: int
    """Multiply-accumulates of matrix products."""
    operations: Mapping[str, int]
    """Other operations by name, of :data:`OPERATIONS`; those that do not occur are absent."""
    read_bytes: int
    write_bytes: int

    @property
    def flops(self) -> int:
        """2 per multiply-accumulate and 1 per other operation."""
        return 2 * self.macs + sum(self.operations.values())


def average_pool(batch: int, tokens: int, channels: int, *, itemsize: int) -> Cost:
    """A sum over tokens, a division per result."""
    elements, results = batch * tokens * channels, batch * channels
    return _cost(itemsize, elements, results, add=elements, divide=results)


def max_pool(batch: int, tokens: int, channels: int, *, itemsize: int) -> Cost:
    """A maximum over tokens."""
    elements = batch * tokens * channels
    return _cost(itemsize, elements, batch * channels, compare=elements)


def class_token(batch: int, tokens: int, channels: int, *, itemsize: int) -> Cost:
    """A copy; only the class tokens are read."""
    return _cost(itemsize, batch * channels, batch * channels)


def gem(batch: int, tokens: int, channels: int, *, itemsize: int) -> Cost:
    """Per element: clamp, power, sum; per result: division, power. The exponent is a constant."""
    elements, results = batch * tokens * channels, batch * channels
    return _cost(itemsize, elements, results, compare=elements, pow=elements + results, add=elements, divide=results)


def ggem(batch: int, tokens: int, channels: int, *, groups: int, itemsize: int) -> Cost:
    """:func:`gem`; the exponents are read."""
    plain = gem(batch, tokens, channels, itemsize=itemsize)
    return _join([plain], plain.read_bytes + groups * itemsize, plain.write_bytes)


def ggem_grad(batch: int, tokens: int, channels: int, *, groups: int, itemsize: int) -> Cost:
    """The pooling again, then what its formulas need per element, per pooled value and per group."""
    elements, results = batch * tokens * channels, batch * channels
    forward = gem(batch, tokens, channels, itemsize=itemsize)
    backward = _cost(
        itemsize,
        elements + results + groups,
        elements + groups,
        # ratio to the pooled value; mean of the incoming gradient; 1 / p
        divide=elements + results + groups,
        # floor of the ratio; whether the clamp passes the gradient
        compare=2 * elements,
        pow=elements,
        log=elements,
        # grad_x; r^p from r^(p - 1); times the logarithm; two factors of grad_p
        multiply=3 * elements + 2 * results,
        # over tokens; over the batch and the channels of a group
        add=elements + results,
    )
    return _join([forward, backward], backward.read_bytes, backward.write_bytes)


def gem_grad(batch: int, tokens: int, channels: int, *, itemsize: int) -> Cost:
    """:func:`ggem_grad` with one group."""
    return ggem_grad(batch, tokens, channels, groups=1, itemsize=itemsize)


def relup(batch: int, channels: int, height: int, width: int, *, itemsize: int) -> Cost:
    """A comparison per element."""
    elements = batch * channels * height * width
    return _cost(itemsize, elements, elements, compare=elements)


def regional_gem(batch: int, channels: int, height: int, width: int, *, window: int = 5, itemsize: int) -> Cost:
    """Per element: power, sum over the window, division, power, and the mean with x.

    The powers of an element are shared by its windows.
    """
    elements = batch * channels * height * width
    return _cost(
        itemsize,
        elements,
        elements,
        pow=2 * elements,
        add=(window**2 + 1) * elements,
        divide=elements,
        multiply=elements,
    )


def gem_plus(batch: int, channels: int, height: int, width: int, *, itemsize: int) -> Cost:
    """:func:`gem` with pixels for tokens."""
    return gem(batch, height * width, channels, itemsize=itemsize)


def l2_normalize(vectors: int, channels: int, *, itemsize: int) -> Cost:
    """Per element: square, sum, division; per vector: root, floor."""
    elements = vectors * channels
    return _cost(
        itemsize, elements, elements, multiply=elements, add=elements, sqrt=vectors, compare=vectors, divide=elements
    )


def scale_gem(scales: int, batch: int, channels: int, *, infinite: bool = True, itemsize: int) -> Cost:
    """Infinite: :func:`l2_normalize` and a maximum. Finite: minimum, difference, power, sum; division, power, sum."""
    elements, results = scales * batch * channels, batch * channels
    if infinite:
        maximum = _cost(itemsize, elements, results, compare=elements)
        normalized = l2_normalize(scales * batch, channels, itemsize=itemsize)
        return _join([normalized, maximum], maximum.read_bytes, maximum.write_bytes)
    return _cost(
        itemsize,
        elements,
        results,
        compare=elements,
        add=2 * elements + results,
        pow=elements + results,
        divide=results,
    )


def search(queries: int, images: int, channels: int, *, top_m: int, itemsize: int) -> Cost:
    """A matrix product with the database, a ranking of each score; ranks and scores are written."""
    pairs = queries * images
    product = _cost(itemsize, (queries + images) * channels, queries * top_m, pairs * channels, compare=pairs)
    return _join([product], product.read_bytes, product.write_bytes + queries * top_m * INDEX_BYTES)


def rerank_order(top_m: int, channels: int, *, neighbours: int = 9, itemsize: int) -> Cost:
    """Of one query. Products: all pairs of the top_m, refining, S1, S2. Rankings: the pairs, S1, the final score."""
    nearest = neighbours + 1
    elements = top_m * channels
    product = _cost(
        itemsize,
        channels + elements,
        0,
        elements * (top_m + nearest + 2),
        # neighbours; S1 and the final score; the expanded query
        compare=top_m * top_m + 2 * top_m + nearest * channels,
        # weights; half of the final sum
        multiply=top_m * neighbours + top_m,
        # sum of the weights; final sum
        add=top_m * nearest + top_m,
        divide=elements,
    )
    return _join([product], product.read_bytes, top_m * INDEX_BYTES)


def rerank(queries: int, images: int, channels: int, *, top_m: int = 400, neighbours: int = 9, itemsize: int) -> Cost:
    """A search that ranks all images, and :func:`rerank_order` of the first top_m of every query."""
    ranking = search(queries, images, channels, top_m=images, itemsize=itemsize)
    reordering = rerank_order(top_m, channels, neighbours=neighbours, itemsize=itemsize)
    return _join([ranking] + queries * [reordering], ranking.read_bytes, queries * images * INDEX_BYTES)


def softmax(rows: int, width: int, *, itemsize: int) -> Cost:
    """Per element: maximum, subtraction, exponential, sum, division."""
    elements = rows * width
    return _cost(itemsize, elements, elements, compare=elements, add=2 * elements, exp=elements, divide=elements)


def attention_probabilities(heads: int, tokens: int, *, itemsize: int) -> Cost:
    """Division by the root of the head size, then :func:`softmax`."""
    elements = heads * tokens
    scaling = _cost(itemsize, elements, elements, divide=elements)
    return _join([scaling, softmax(heads, tokens, itemsize=itemsize)], scaling.read_bytes, scaling.write_bytes)


def attention_output(heads: int, kv_heads: int, tokens: int, head_size: int, *, itemsize: int) -> Cost:
    """One product of the probabilities with the values."""
    read = heads * tokens + tokens * kv_heads * head_size
    return _cost(itemsize, read, heads * head_size, heads * tokens * head_size)


def decode_attention(heads: int, kv_heads: int, tokens: int, head_size: int, *, itemsize: int) -> Cost:
    """Two products and :func:`attention_probabilities`; the logits stay inside."""
    cache = tokens * kv_heads * head_size
    logits = _cost(itemsize, heads * head_size + 2 * cache, heads * head_size, heads * tokens * head_size)
    probabilities = attention_probabilities(heads, tokens, itemsize=itemsize)
    output = attention_output(heads, kv_heads, tokens, head_size, itemsize=itemsize)
    return _join([logits, probabilities, output], logits.read_bytes, logits.write_bytes)


def multi_head_attention(batch: int, tokens: int, channels: int, heads: int, *, itemsize: int) -> Cost:
    """Scaling of the queries (a trace may fold it into their weights), two products and :func:`softmax`."""
    elements = batch * tokens * channels
    products = _cost(itemsize, 3 * elements, elements, 2 * elements * tokens, multiply=elements)
    probabilities = softmax(batch * heads * tokens, tokens, itemsize=itemsize)
    return _join([products, probabilities], products.read_bytes, products.write_bytes)


def layer_norm(rows: int, channels: int, *, itemsize: int) -> Cost:
    """Per element: sum, subtraction, square, sum, scale, gain, shift; per row: two means, root, reciprocal."""
    elements = rows * channels
    return _cost(
        itemsize,
        elements + 2 * channels,
        elements,
        add=4 * elements,
        multiply=3 * elements,
        divide=3 * rows,
        sqrt=rows,
    )


def gelu(elements: int, *, itemsize: int) -> Cost:
    """6 multiplications (2 of them the cube), 2 sums, tanh."""
    return _cost(itemsize, elements, elements, multiply=6 * elements, add=2 * elements, tanh=elements)


def linear(rows: int, inputs: int, outputs: int, *, itemsize: int) -> Cost:
    """One product; the bias is free."""
    return _cost(itemsize, rows * inputs + (inputs + 1) * outputs, rows * outputs, rows * inputs * outputs)


def vit_block(batch: int, tokens: int, channels: int, heads: int, hidden: int, *, itemsize: int) -> Cost:
    """Two layer norms, four linear layers, attention, GELU, two sums; x and the weights are read, x is written."""
    rows, elements = batch * tokens, batch * tokens * channels
    layers = [(channels, 3 * channels), (channels, channels), (channels, hidden), (hidden, channels)]
    norm = layer_norm(rows, channels, itemsize=itemsize)
    parts = [
        norm,
        norm,
        *(linear(rows, inputs, outputs, itemsize=itemsize) for inputs, outputs in layers),
        multi_head_attention(batch, tokens, channels, heads, itemsize=itemsize),
        gelu(rows * hidden, itemsize=itemsize),
        _cost(itemsize, elements, elements, add=2 * elements),
    ]
    parameters = sum((inputs + 1) * outputs for inputs, outputs in layers) + 4 * channels
    return _join(parts, (elements + parameters) * itemsize, elements * itemsize)


def _cost(itemsize: int, read: int, written: int, macs: int = 0, **operations: int) -> Cost:
    """Cost of a kernel that reads and writes so many elements."""
    return Cost(macs, operations, read * itemsize, written * itemsize)


def _join(parts: list[Cost], read_bytes: int, write_bytes: int) -> Cost:
    """Work of all parts, with the bytes of the whole."""
    operations: Counter[str] = Counter()
    for part in parts:
        operations.update(part.operations)
    return Cost(sum(part.macs for part in parts), dict(operations), read_bytes, write_bytes)

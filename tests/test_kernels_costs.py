"""The stated work of a kernel is what the kernel does: an array that counts goes through it."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from typing import Any, ClassVar

import numpy as np
import pytest

from neupims_sim import kernels
from neupims_sim.config.schema import VectorConfig
from neupims_sim.kernels import costs
from neupims_sim.kernels.costs import OPERATIONS, Cost
from neupims_sim.trace import kinds
from neupims_sim.trace.operators import Operator, Tensor

NAMES = {
    "add": "add",
    "subtract": "add",
    "multiply": "multiply",
    "square": "multiply",
    "maximum": "compare",
    "minimum": "compare",
    "greater": "compare",
    "greater_equal": "compare",
    "divide": "divide",
    "sqrt": "sqrt",
    "exp": "exp",
    "log": "log",
    "power": "pow",
    "tanh": "tanh",
}


class Counting(np.ndarray):
    """An array that counts operations on it, and hands the habit on to what is computed from it."""

    done: ClassVar[Counter[str]] = Counter()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        plain = [np.asarray(a) if isinstance(a, Counting) else a for a in inputs]
        result = getattr(ufunc, method)(*plain, **kwargs)
        if ufunc is np.matmul:
            self.done["macs"] += result.size * np.shape(inputs[0])[-1]
        elif ufunc is not np.negative:  # serves NumPy's ascending order only
            self.done[NAMES[ufunc.__name__]] += np.size(plain[0]) if method == "reduce" else result.size
        if out is not None:
            out[0][...] = result
            return out[0]
        return np.asarray(result).view(Counting)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function is np.argsort:
            self.done["compare"] += np.size(args[0])
        if function is np.einsum:
            operands = [np.asarray(a) for a in args[1:]]
            labels = zip(args[0].split("->")[0].split(","), operands, strict=True)
            sizes = {label: size for names, a in labels for label, size in zip(names, a.shape, strict=True)}
            self.done["macs"] += math.prod(sizes.values())
            return np.einsum(args[0], *operands).view(Counting)
        result = super().__array_function__(function, types, args, kwargs)
        return result.view(Counting) if function is np.concatenate else result


def counted(kernel: Any, *arguments: Any, **options: Any) -> Cost:
    """What ``kernel`` does with arrays of positive random numbers (other arguments as they are)."""
    flat = list(leaves(arguments))
    Counting.done.clear()
    results = kernel(*arguments, **options)
    done = {name: count for name, count in Counting.done.items() if count}
    written = sum(np.asarray(result).nbytes for result in leaves(results))
    return Cost(done.pop("macs", 0), done, sum(array.nbytes for array in flat), written)


def leaves(values: Any) -> Any:
    """The arrays in nested tuples."""
    if isinstance(values, np.ndarray):
        yield values
    elif isinstance(values, tuple):
        for value in values:
            yield from leaves(value)


def array(*shape: int, dtype: type = np.float32) -> Counting:
    random = np.random.default_rng(shape)
    return random.uniform(0.5, 1, shape).astype(dtype).view(Counting)


def unit(*shape: int) -> Counting:
    return kernels.l2_normalize(array(*shape)).view(Counting)


def layer(inputs: int, outputs: int) -> kernels.Linear:
    return kernels.Linear(array(inputs, outputs), array(outputs))


def norm(channels: int) -> kernels.Norm:
    return kernels.Norm(array(channels), array(channels))


BLOCK = kernels.BlockWeights(norm(6), layer(6, 18), layer(6, 6), norm(6), layer(6, 10), layer(10, 6))
THREE_EXPONENTS = np.array([1, 2.5, 4], np.float32)

CASES: dict[str, tuple[tuple[Any, ...], dict[str, Any], Cost]] = {
    "average_pool": ((array(2, 5, 6),), {}, costs.average_pool(2, 5, 6, itemsize=4)),
    "max_pool": ((array(2, 5, 6),), {}, costs.max_pool(2, 5, 6, itemsize=4)),
    "gem": ((array(2, 5, 6),), {}, costs.gem(2, 5, 6, itemsize=4)),
    "gem in float64": ((array(2, 5, 6, dtype=np.float64),), {}, costs.gem(2, 5, 6, itemsize=8)),
    "ggem": ((array(2, 5, 6), THREE_EXPONENTS), {"groups": 3}, costs.ggem(2, 5, 6, groups=3, itemsize=4)),
    "gem_grad": (
        (array(2, 5, 6), np.float32(3).reshape(1), array(2, 6)),
        {},
        costs.gem_grad(2, 5, 6, itemsize=4),
    ),
    "ggem_grad": (
        (array(2, 5, 6), THREE_EXPONENTS, array(2, 6)),
        {"groups": 3},
        costs.ggem_grad(2, 5, 6, groups=3, itemsize=4),
    ),
    "relup": ((array(2, 3, 5, 4),), {}, costs.relup(2, 3, 5, 4, itemsize=4)),
    "regional_gem": ((array(2, 3, 5, 4),), {}, costs.regional_gem(2, 3, 5, 4, itemsize=4)),
    "regional_gem of 3x3": ((array(2, 3, 5, 4),), {"window": 3}, costs.regional_gem(2, 3, 5, 4, window=3, itemsize=4)),
    "gem_plus": ((array(2, 3, 5, 4),), {}, costs.gem_plus(2, 3, 5, 4, itemsize=4)),
    "l2_normalize": ((array(4, 7),), {}, costs.l2_normalize(4, 7, itemsize=4)),
    "scale_gem": ((array(3, 2, 7),), {}, costs.scale_gem(3, 2, 7, itemsize=4)),
    "scale_gem, finite": ((array(3, 2, 7),), {"p": 10}, costs.scale_gem(3, 2, 7, infinite=False, itemsize=4)),
    "search": ((unit(2, 7), unit(30, 7)), {"top_m": 4}, costs.search(2, 30, 7, top_m=4, itemsize=4)),
    "rerank_order": (
        (unit(1, 7)[0], unit(8, 7)),
        {"neighbours": 3},
        costs.rerank_order(8, 7, neighbours=3, itemsize=4),
    ),
    "rerank": (
        (unit(2, 7), unit(30, 7)),
        {"top_m": 8, "neighbours": 3},
        costs.rerank(2, 30, 7, top_m=8, neighbours=3, itemsize=4),
    ),
    "softmax": ((array(4, 9),), {}, costs.softmax(4, 9, itemsize=4)),
    "attention_probabilities": ((array(4, 9), 64), {}, costs.attention_probabilities(4, 9, itemsize=4)),
    "attention_output": ((array(4, 9), array(9, 2, 5)), {}, costs.attention_output(4, 2, 9, 5, itemsize=4)),
    "decode_attention": (
        (array(4, 5), array(9, 2, 5), array(9, 2, 5)),
        {},
        costs.decode_attention(4, 2, 9, 5, itemsize=4),
    ),
    "multi_head_attention": (
        (array(2, 5, 6), array(2, 5, 6), array(2, 5, 6), 3),
        {},
        costs.multi_head_attention(2, 5, 6, 3, itemsize=4),
    ),
    "layer_norm": ((array(4, 7), norm(7)), {}, costs.layer_norm(4, 7, itemsize=4)),
    "gelu": ((array(4, 7),), {}, costs.gelu(28, itemsize=4)),
    "linear": ((array(4, 7), layer(7, 3)), {}, costs.linear(4, 7, 3, itemsize=4)),
    "vit_block": ((array(2, 5, 6), BLOCK, 3), {}, costs.vit_block(2, 5, 6, 3, 10, itemsize=4)),
}

FREE_ADDITIONS = {"linear": 4 * 3, "vit_block": 2 * 5 * (18 + 6 + 10 + 6)}
"""Biases: NumPy adds them, an accumulator starts with them."""


@pytest.mark.parametrize("case", CASES)
def test_stated_work_is_the_work_that_is_done(case: str) -> None:
    arguments, options, stated = CASES[case]

    done = counted(getattr(kernels, case.split()[0].rstrip(",")), *arguments, **options)

    additions = done.operations.get("add", 0) - FREE_ADDITIONS.get(case, 0)
    operations = {name: n for name, n in {**done.operations, "add": additions}.items() if n}
    assert (done.macs, operations) == (stated.macs, stated.operations)
    assert (done.read_bytes, done.write_bytes) == (stated.read_bytes, stated.write_bytes)
    assert stated.flops == 2 * done.macs + sum(operations.values())


def test_a_class_token_costs_its_bytes() -> None:
    assert costs.class_token(2, 197, 768, itemsize=4) == Cost(0, {}, 2 * 768 * 4, 2 * 768 * 4)


def test_every_kernel_states_its_work_under_its_own_name() -> None:
    functions = inspect.getmembers(
        costs, lambda member: inspect.getmodule(member) is costs and inspect.isfunction(member)
    )
    stated = {name for name, _ in functions if not name.startswith("_")}
    assert stated == {name for name in kernels.__all__ if inspect.isfunction(getattr(kernels, name))}
    assert stated == {case.split()[0].rstrip(",") for case in CASES} | {"class_token"}


def test_search_does_the_same_work_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.retrieval, "BLOCK_ELEMENTS", 7 * 7)
    arguments, options, stated = CASES["search"]
    done = counted(kernels.search, *arguments, **options)
    assert (done.macs, done.operations) == (stated.macs, stated.operations)


def test_vector_units_have_a_price_for_every_operation() -> None:
    assert set(OPERATIONS) <= {field.removesuffix("_cycles") for field in VectorConfig.model_fields}
    assert {name for *_, cost in CASES.values() for name in cost.operations} == set(OPERATIONS)


def operator(kind: str, inputs: list[tuple[int, ...]], output: tuple[int, ...], **attrs: Any) -> Operator:
    tensors = [Tensor(f"t{i}", shape, "float32") for i, shape in enumerate([*inputs, output])]
    return Operator(id=0, name=kind, op=kind, inputs=tuple(tensors[:-1]), outputs=(tensors[-1],), attrs=attrs)


@pytest.mark.parametrize(
    ("op", "cost"),
    [
        (operator("layernorm", [(4, 7), (7,), (7,)], (4, 7)), costs.layer_norm(4, 7, itemsize=4)),
        (operator("gelu", [(4, 7)], (4, 7)), costs.gelu(28, itemsize=4)),
        (operator("softmax", [(3, 4, 9)], (3, 4, 9), causal=False), costs.softmax(12, 9, itemsize=4)),
        (operator("gemm", [(4, 7), (7, 3), (3,)], (4, 3)), costs.linear(4, 7, 3, itemsize=4)),
        (operator("average_pool", [(2, 5, 6)], (2, 6)), costs.average_pool(2, 5, 6, itemsize=4)),
        (operator("max_pool", [(2, 5, 6)], (2, 6)), costs.max_pool(2, 5, 6, itemsize=4)),
        (operator("group_gem", [(2, 5, 6), (3,)], (2, 6)), costs.ggem(2, 5, 6, groups=3, itemsize=4)),
        (operator("gem_plus", [(2, 3, 5, 4)], (2, 3), p=4.6), costs.gem_plus(2, 3, 5, 4, itemsize=4)),
        (
            operator("regional_gem", [(2, 3, 5, 4)], (2, 3, 5, 4), p=2.5, window=5),
            costs.regional_gem(2, 3, 5, 4, itemsize=4),
        ),
        (operator("l2_normalize", [(4, 7)], (4, 7)), costs.l2_normalize(4, 7, itemsize=4)),
        (operator("relu", [(2, 3, 5, 4)], (2, 3, 5, 4), alpha=0.014), costs.relup(2, 3, 5, 4, itemsize=4)),
    ],
    ids=lambda value: getattr(value, "op", ""),
)
def test_operators_of_a_trace_are_the_same_work_as_their_kernels(op: Operator, cost: Cost) -> None:
    assert (kinds.macs(op), kinds.flops(op)) == (cost.macs, cost.flops)
    assert kinds.vector_operations(op) == cost.operations
    assert sum(kinds.read_bytes(op).values()) == cost.read_bytes
    assert sum(kinds.write_bytes(op).values()) == cost.write_bytes


def test_reranking_as_a_trace_is_the_same_work_as_the_kernel() -> None:
    m, d, k = 8, 7, 4  # k: an image and its 3 neighbours
    ranked = [operator("similarity", [(m, d)], (m, m)), operator("similarity", [(1, d), (m, d)], (1, m))]
    steps = [
        *ranked,
        operator("weighted_mean", [(m, d), (m, k), (m, k)], (m, d)),
        operator("max_of_rows", [(m, d), (1, k)], (1, d)),
        ranked[1],
        operator("mean", [(1, m), (1, m)], (1, m)),
        operator("top_m", [(m, m)], (m, k)),
        operator("top_m", [(1, m)], (1, m)),
        operator("top_m", [(1, m)], (1, m)),
    ]
    stated = costs.rerank_order(m, d, neighbours=k - 1, itemsize=4)
    operations = sum((Counter(kinds.vector_operations(op)) for op in steps), Counter())
    assert (sum(map(kinds.macs, steps)), operations) == (stated.macs, stated.operations)

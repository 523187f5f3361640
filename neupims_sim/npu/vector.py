"""The vector units: the cycles of an operator, from how many of each elementary operation it does.

Operations are named after their cost in ``VectorConfig`` (``exp`` costs ``exp_cycles`` per vector of ``lanes`` elements). Most
operators divide their elements over all lanes of all units (:func:`operation_cycles`). Those that reduce along rows keep a row on one
unit: they are *recipes*, the steps on every vector and those once per row. A new one is one row of the table below, or a
``row_recipes.register`` call elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from neupims_sim.config.schema import VectorConfig
from neupims_sim.errors import InputError, suggestion
from neupims_sim.npu.systolic import ceil_div
from neupims_sim.registry import Registry


class Recipe(NamedTuple):
    """The steps of an operator that reduces along rows: on every vector of a row, then once per row."""

    per_vector: tuple[str, ...]
    per_row: tuple[str, ...]


row_recipes: Registry[Recipe] = Registry("row operator")

_RECIPES = {
    # running maximum; subtract it; exp; running sum; multiply by 1 / sum. Per row: finish both reductions, 1 / sum
    "softmax": Recipe(("compare", "add", "exp", "add", "multiply"), ("reduce", "reduce", "divide")),
    # running sum; subtract the mean; square; running sum; times 1 / deviation; gain; bias
    "layernorm": Recipe(
        ("add", "add", "multiply", "add", "multiply", "multiply", "add"),
        ("reduce", "multiply", "reduce", "multiply", "add", "sqrt", "divide"),
    ),
    # square; running sum; times 1 / root mean square; gain
    "rmsnorm": Recipe(("multiply", "add", "multiply", "multiply"), ("reduce", "multiply", "add", "sqrt", "divide")),
}
for _name, _recipe in _RECIPES.items():
    row_recipes.register(_name)(_recipe)

_ASPLOS24_CYCLES: Mapping[str, int] = {
    "layernorm": 5,
    "rmsnorm": 5,
    "add": 0,
    "gelu": 0,
    "silu_multiply": 0,
    "rotary": 0,
}
"""What the public artifact of NeuPIMs (ASPLOS 2024) charges for an operator of any size; for softmax see below."""


def operation_cycles(operations: Mapping[str, int], config: VectorConfig) -> int:
    """Cycles of so many elementary operations, divided over all lanes of all units.

    ``sum(ceil(count / (units lanes)) cost) + pipeline latency``; nothing where there is nothing to do. Raises InputError for an
    operation without a cost.
    """
    cycles = sum(ceil_div(n, config.units * config.lanes) * _cost(name, config) for name, n in operations.items())
    return cycles + config.pipeline_latency_cycles if any(operations.values()) else 0


def vector_cycles(
    op: str, config: VectorConfig, *, rows: int, width: int, operations: Mapping[str, int] | None = None
) -> int:
    """Cycles of operator ``op`` on a [rows, width] matrix with all vector units.

    A recipe takes ``r (ceil(width / lanes) sum(per_vector) + sum(per_row)) + pipeline latency``, r = ceil(rows / units). Any
    other operator takes :func:`operation_cycles` of the ``operations`` that it does in all, by default one of its own name
    on every element. ``cost_model: asplos24`` charges what the published artifact charges for the operators that it knows.

    Raises InputError for an empty matrix or an unknown operation.
    """
    if rows < 1 or width < 1:
        raise InputError(f"vector operator {op!r}: rows={rows} and width={width} must be at least 1")
    if config.cost_model == "asplos24":
        if op == "softmax":
            return asplos24_softmax_cycles(config.lanes, rows=rows, width=width)
        if op in _ASPLOS24_CYCLES:
            return _ASPLOS24_CYCLES[op]
    if op not in row_recipes:
        return operation_cycles({op: rows * width} if operations is None else operations, config)
    recipe = row_recipes[op]
    row = ceil_div(width, config.lanes) * _sum(recipe.per_vector, config) + _sum(recipe.per_row, config)
    return ceil_div(rows, config.units) * row + config.pipeline_latency_cycles


def rows_cycles(op: str, config: VectorConfig, widths: Sequence[int]) -> int:
    """Cycles of a recipe on rows of different widths that share the units evenly, a row staying on one unit."""
    if config.cost_model == "asplos24":
        return sum(vector_cycles(op, config, rows=1, width=width) for width in widths)
    rows = [vector_cycles(op, config, rows=1, width=width) - config.pipeline_latency_cycles for width in widths]
    return max(max(rows), ceil_div(sum(rows), config.units)) + config.pipeline_latency_cycles


def softmax_occupancy(config: VectorConfig, *, rows: int, width: int) -> tuple[int, int]:
    """(cycles that the vector units are taken, further cycles to the result) of a softmax over [rows, width].

    ``asplos24``: the rows start one per cycle, and each takes 2 a + 3 v on 2 x width elements (it counts bytes).
    """
    if config.cost_model == "asplos24":
        return rows, asplos24_softmax_cycles(config.lanes, rows=1, width=2 * width)
    return vector_cycles("softmax", config, rows=rows, width=width), 0


def asplos24_softmax_cycles(lanes: int, *, rows: int, width: int) -> int:
    """Cycles of a softmax as the public artifact of NeuPIMs (ASPLOS 2024) charges them.

    2 a + 3 v with v = ceil(width / lanes) vectors and a passes of the adder tree. Several rows start one per cycle.
    """
    return 2 * adder_tree_passes(width, lanes) + 3 * ceil_div(width, lanes) + rows - 1


def adder_tree_passes(elements: int, lanes: int) -> int:
    """a(n) = 1 up to ``lanes`` elements, else v + a(v) with v = ceil(n / lanes): the partial sums are summed again."""
    if elements <= lanes:
        return 1
    vectors = ceil_div(elements, lanes)
    return vectors + adder_tree_passes(vectors, lanes)


def _cost(operation: str, config: VectorConfig) -> int:
    """Cycles per vector of one operation."""
    field = f"{operation}_cycles"
    if field not in VectorConfig.model_fields:
        priced = [name.removesuffix("_cycles") for name in VectorConfig.model_fields if name.endswith("_cycles")]
        raise InputError(f"unknown vector operation {operation!r}; {suggestion(operation, [*priced, *row_recipes])}")
    cycles: int = getattr(config, field)
    return cycles


def _sum(steps: tuple[str, ...], config: VectorConfig) -> int:
    return sum(_cost(step, config) for step in steps)

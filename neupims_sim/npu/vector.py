"""The vector units: the cycles of an operator on a [rows, width] matrix, from the configured cost of its steps.

An operator is a *recipe*: the steps that it does on every vector of ``lanes`` elements, and those that it does once
per row. A step is named after its cost in ``VectorConfig`` (``exp`` costs ``exp_cycles``). A new operator is one row of
the table below, or a ``vector_recipes.register`` call elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

from neupims_sim.config.schema import VectorConfig
from neupims_sim.errors import InputError
from neupims_sim.npu.systolic import ceil_div
from neupims_sim.registry import Registry


class Recipe(NamedTuple):
    """What a vector operator does.

    ``per_vector`` steps run on every vector. ``per_row`` steps follow once per row: an operator that has them reduces,
    so that a row stays on one unit; the others divide their elements over all lanes of all units.
    ``asplos24_cycles`` is what the published artifact charges, whatever the size (None: the softmax formula).
    """

    per_vector: tuple[str, ...]
    per_row: tuple[str, ...] = ()
    asplos24_cycles: int | None = 0


vector_recipes: Registry[Recipe] = Registry("vector operator")

_RECIPES = {
    "add": Recipe(("add",)),
    # x / (1 + exp(-1.702 x)): the sigmoid form of GELU (Hendrycks & Gimpel 2016, section 2)
    "gelu": Recipe(("multiply", "exp", "add", "divide")),
    # x / (1 + exp(-x)) * y: SwiGLU (Shazeer 2020)
    "silu_multiply": Recipe(("exp", "add", "divide", "multiply")),
    # x cos + rotate(x) sin (Su et al. 2021, equation 34)
    "rotary": Recipe(("multiply", "multiply", "add")),
    # running maximum; subtract it; exp; running sum; multiply by 1 / sum. Per row: finish both reductions, 1 / sum
    "softmax": Recipe(("compare", "add", "exp", "add", "multiply"), ("reduce", "reduce", "divide"), None),
    # running sum; subtract the mean; square; running sum; times 1 / deviation; gain; bias
    "layernorm": Recipe(
        ("add", "add", "multiply", "add", "multiply", "multiply", "add"),
        ("reduce", "multiply", "reduce", "multiply", "add", "sqrt", "divide"),
        5,
    ),
    # square; running sum; times 1 / root mean square; gain
    "rmsnorm": Recipe(("multiply", "add", "multiply", "multiply"), ("reduce", "multiply", "add", "sqrt", "divide"), 5),
}
for _name, _recipe in _RECIPES.items():
    vector_recipes.register(_name)(_recipe)


def vector_cycles(op: str, config: VectorConfig, *, rows: int, width: int) -> int:
    """Cycles of operator ``op`` on a [rows, width] matrix with all vector units.

    With v the vectors and r the rows of the busiest unit: ``v sum(per_vector) + r sum(per_row) + latency``.
    Element-wise operators have v = ceil(rows width / (units lanes)); reductions have r = ceil(rows / units) and
    v = r ceil(width / lanes).
    ``cost_model: asplos24`` charges the latencies of the published artifact instead (see :func:`asplos24_cycles`).
    """
    if rows < 1 or width < 1:
        raise InputError(f"vector operator {op!r}: rows={rows} and width={width} must be at least 1")
    recipe = vector_recipes[op]
    if config.cost_model == "asplos24":
        return asplos24_cycles(recipe, config.lanes, rows=rows, width=width)
    if not recipe.per_row:
        vectors = ceil_div(rows * width, config.units * config.lanes)
        return vectors * _cost(recipe.per_vector, config) + config.pipeline_latency_cycles
    rows_per_unit = ceil_div(rows, config.units)
    row = ceil_div(width, config.lanes) * _cost(recipe.per_vector, config) + _cost(recipe.per_row, config)
    return rows_per_unit * row + config.pipeline_latency_cycles


def softmax_occupancy(config: VectorConfig, *, rows: int, width: int) -> tuple[int, int]:
    """(cycles that the vector units are taken, further cycles to the result) of a softmax over [rows, width].

    ``asplos24``: the rows start one per cycle, and each takes 2 a + 3 v on 2 x width elements (it counts bytes).
    """
    if config.cost_model == "asplos24":
        return rows, asplos24_cycles(vector_recipes["softmax"], config.lanes, rows=1, width=2 * width)
    return vector_cycles("softmax", config, rows=rows, width=width), 0


def asplos24_cycles(recipe: Recipe, lanes: int, *, rows: int, width: int) -> int:
    """Cycles as the public artifact of NeuPIMs (ASPLOS 2024) charges them.

    A constant, except for a softmax: 2 a + 3 v with v = ceil(width / lanes) vectors and a passes of the adder tree.
    Several softmaxes start one per cycle.
    """
    if recipe.asplos24_cycles is not None:
        return recipe.asplos24_cycles
    return 2 * adder_tree_passes(width, lanes) + 3 * ceil_div(width, lanes) + rows - 1


def adder_tree_passes(elements: int, lanes: int) -> int:
    """a(n) = 1 up to ``lanes`` elements, else v + a(v) with v = ceil(n / lanes): the partial sums are summed again."""
    if elements <= lanes:
        return 1
    vectors = ceil_div(elements, lanes)
    return vectors + adder_tree_passes(vectors, lanes)


def _cost(steps: tuple[str, ...], config: VectorConfig) -> int:
    return sum(getattr(config, f"{step}_cycles") for step in steps)

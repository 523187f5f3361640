"""Operators of a trace as work of the NPU: what each computes, loads and stores.

Matrix products (:mod:`products`) run on the systolic arrays, full attention (:mod:`full_attention`) on arrays and vector
units, all other kinds on the vector units at the price of the elementary operations that the kind states. A kind that is none of
these is one function registered under the kind's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from neupims_sim.config.schema import MappingConfig, NpuConfig
from neupims_sim.mapping.full_attention import AttentionPlan
from neupims_sim.mapping.gemm import GemmPlan, fits_on_chip, plan_gemm, repeat_plan
from neupims_sim.mapping.products import Product
from neupims_sim.npu import vector_cycles
from neupims_sim.registry import Registry
from neupims_sim.trace import Operator, Tensor, macs
from neupims_sim.trace.kinds import vector_operations


@dataclass(frozen=True)
class NpuWork:
    """A piece of work: one operator, or several that are done together."""

    operators: tuple[Operator, ...]
    """What is done, in the order of the trace."""
    reserve_bytes: int = field(default=0, kw_only=True)
    """Scratchpad for what stays there, taken before anything is loaded."""
    release_bytes: int = field(default=0, kw_only=True)
    """Scratchpad of what nobody reads any more, given back at the end."""

    @property
    def operator(self) -> Operator:
        """The first of them."""
        return self.operators[0]

    @property
    def deps(self) -> frozenset[int]:
        """Ids of the other operators that this work waits for."""
        own = {operator.id for operator in self.operators}
        return frozenset(dep for operator in self.operators for dep in operator.deps) - own


@dataclass(frozen=True)
class GemmWork(NpuWork):
    """A matrix product on the systolic arrays."""

    plan: GemmPlan
    weights: Tensor
    activations: Tensor
    output: Tensor
    beside: tuple[Tensor, ...] = ()
    """What those load who take its tiles."""

    @property
    def weights_wait(self) -> bool:
        """Whether the right matrix is a result of other operators, not there from the start."""
        return self.weights.role == "activation"


@dataclass(frozen=True)
class VectorWork(NpuWork):
    """Operators on the vector units, each on the same data; ``cycles`` 0 for one that only moves it."""

    cycles: tuple[int, ...]
    """Of each operator."""
    loads: tuple[Tensor, ...]
    stores: tuple[Tensor, ...]
    follows: bool = False
    """Whether it takes its input tile by tile as that is made, and need not wait for all of it."""


@dataclass(frozen=True)
class AttentionWork(NpuWork):
    """Full attention on the systolic arrays and vector units: logits, softmax and attend of one or more images."""

    plan: AttentionPlan
    source: Tensor
    """The largest tensor of which queries, keys or values are views; all loads go there."""
    output: Tensor


@dataclass(frozen=True)
class LinkWork(NpuWork):
    """A sum over the devices that share the model, over the link between them."""

    devices: int
    size_bytes: int


Work = GemmWork | VectorWork | AttentionWork | LinkWork


@dataclass(frozen=True)
class PhaseContext:
    """What a mapper needs to know besides the operator."""

    npu: NpuConfig
    """Its ``scratchpad_bytes`` are those that no waiting tensor occupies."""
    mapping: MappingConfig
    bandwidth_bytes_per_cycle: float
    on_chip: frozenset[str]
    """Names of inputs that lie in the scratchpad, as the operator reads them."""
    output_on_chip: bool
    """Whether the first output has room in the scratchpad."""
    kept: frozenset[str]
    """Wholes of the outputs that do not go to DRAM."""
    taken_in_cycles: float | None = None
    """Of a product whose output goes to the vector units tile by tile: how long these take for all of it. It needs no room."""

    def loads(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Those of ``tensors`` that come from DRAM."""
        return tuple(tensor for tensor in tensors if tensor.name not in self.on_chip)

    def stores(self, operator: Operator) -> tuple[Tensor, ...]:
        """The outputs that go to DRAM."""
        return tuple(tensor for tensor in operator.outputs if tensor.whole not in self.kept)


OPERATOR_MAPPERS: Registry[Callable[[Operator, PhaseContext], Work]] = Registry("operator kind", "neupims_sim.mapping")


def map_operator(operator: Operator, context: PhaseContext) -> Work:
    """An operator that is neither a matrix product nor attention."""
    if operator.op in OPERATOR_MAPPERS:
        return OPERATOR_MAPPERS[operator.op](operator, context)
    return map_vector(operator, context)


def less_scratchpad(npu: NpuConfig, taken: int) -> NpuConfig:
    """An NPU with so many bytes less scratchpad."""
    return npu.model_copy(update={"scratchpad_bytes": npu.scratchpad_bytes - taken}) if taken else npu


def product_fits(product: Product, npu: NpuConfig, on_chip: frozenset[str], output: bool = False) -> bool:
    """Whether tiles fit beside what is on the chip."""
    left, right = (tensor.name in on_chip for tensor in (product.activations, product.weights))
    npu = less_scratchpad(npu, _beyond_matrices(product, npu, left, right, output))
    return npu.scratchpad_bytes > 0 and fits_on_chip(
        *product.gemm, npu, activation_on_chip=left, weight_on_chip=right, output_on_chip=output
    )


def _beyond_matrices(product: Product, npu: NpuConfig, left: bool, right: bool, output: bool) -> int:
    """Bytes on the chip that are not of the matrices at work: of a map what a stride skips, of several products the others'."""
    (m, k, n), size = product.gemm, npu.element_bytes
    beyond_left = max(0, product.activations.bytes - m * k * size) if left else 0
    beyond_right = max(0, product.weights.bytes - k * n * size) if right else 0
    return beyond_left + beyond_right + ((product.times - 1) * m * n * size if output else 0)


def map_product(operator: Operator, product: Product, context: PhaseContext) -> GemmWork:
    """[M, K] x [K, N] in tiles on all arrays.

    A matrix that is gathered occupies the scratchpad as it is, but what is read from DRAM is the tensor behind it, as often as
    the tiling reads the matrix.
    """
    output = operator.outputs[0]
    left, right = (tensor.name in context.on_chip for tensor in (product.activations, product.weights))
    output_on_chip = context.output_on_chip and product_fits(product, context.npu, context.on_chip, output=True)
    plan = plan_gemm(
        *product.gemm,
        less_scratchpad(context.npu, _beyond_matrices(product, context.npu, left, right, output_on_chip)),
        bandwidth_bytes_per_cycle=context.bandwidth_bytes_per_cycle,
        activation_on_chip=left,
        weight_on_chip=right,
        output_on_chip=output_on_chip,
        taken_in_cycles=context.taken_in_cycles,
        loops=context.mapping.gemm_loops,
    )
    plan = repeat_plan(plan, product.times, context.npu)
    stays = output_on_chip or context.taken_in_cycles is not None
    stored = 0 if stays and output.whole in context.kept else output.bytes
    if context.mapping.gemm_output_padding and operator.op == "gemm":
        m = product.gemm.m
        stored = m * 128 * -(-m // 128) * context.npu.element_bytes
    plan = replace(
        plan,
        activation_bytes=_scaled(plan.activation_bytes, plan.activation_reads * product.activations.bytes),
        weight_bytes=_scaled(plan.weight_bytes, plan.weight_reads * product.weights.bytes),
        store_bytes=_scaled(plan.store_bytes, stored),
    )
    if not context.mapping.hold_residents:  # what is loaded, as long as the step that loads it
        loaded = plan.activation_bytes + plan.weight_bytes
        plan = replace(plan, room_bytes=loaded, freed_bytes=loaded)
    elif not context.npu.double_buffered:  # nothing is loaded beside a step
        resident = sum(
            tensor.bytes for tensor in {product.activations, product.weights} if tensor.name in context.on_chip
        )
        free = context.npu.scratchpad_bytes - resident - (output.bytes if output_on_chip else 0)
        plan = replace(plan, room_bytes=np.full(plan.steps, free), freed_bytes=np.full(plan.steps, free))
    return GemmWork((operator,), plan, product.weights, product.activations, output)


def _scaled(steps: np.ndarray, total: int) -> np.ndarray:
    """``total`` bytes over the steps in proportion to ``steps``; evenly over all where these move nothing."""
    if total == int(steps.sum()):
        return steps
    weight = steps if steps.any() else np.ones(len(steps), np.int64)
    edges = np.concatenate([[0], np.cumsum(weight)]) * total // int(weight.sum())
    return np.diff(edges).astype(np.int64)


def map_vector(operator: Operator, context: PhaseContext) -> VectorWork:
    """One operator over its first input; weights (gains, biases) are small and stay on chip.

    Products that are no GEMM (a weighted mean's) are a multiply and an add each.
    """
    data = operator.inputs[0]
    operations = vector_operations(operator)
    products = macs(operator)
    if products:
        operations |= {name: operations.get(name, 0) + products for name in ("multiply", "add")}
    width = data.shape[-1]
    cycles = vector_cycles(
        operator.op, context.npu.vector, rows=data.elements // width, width=width, operations=operations
    )
    loads = context.loads(*(tensor for tensor in operator.inputs if tensor.role != "weight"))
    return VectorWork((operator,), (cycles,), loads, context.stores(operator))


@OPERATOR_MAPPERS.register("embedding")
def map_embedding(operator: Operator, context: PhaseContext) -> Work:
    """One row of every table per token."""
    ids, *tables = operator.inputs
    rows = [replace(table, shape=operator.outputs[0].shape) for table in tables]
    return replace(map_vector(operator, context), loads=context.loads(ids, *rows))


@OPERATOR_MAPPERS.register("max_of_rows")
def map_max_of_rows(operator: Operator, context: PhaseContext) -> Work:
    """Only the chosen rows are read."""
    vectors, ids = operator.inputs
    chosen = replace(vectors, shape=(ids.elements, vectors.shape[1]))
    return replace(map_vector(operator, context), loads=context.loads(chosen, ids))


@OPERATOR_MAPPERS.register("kv_append")
def map_kv_append(operator: Operator, context: PhaseContext) -> Work:
    """The new tokens' K and V to DRAM. V is buffered until whole bursts of tokens are there, so bytes are what counts."""
    stores = operator.outputs if context.mapping.write_kv else ()
    return VectorWork((operator,), (0,), (), stores)


@OPERATOR_MAPPERS.register("all_reduce")
def map_all_reduce(operator: Operator, context: PhaseContext) -> Work:
    """Partial sums of the tensor-parallel devices, from scratchpad to scratchpad."""
    return LinkWork((operator,), operator.attrs["devices"], operator.inputs[0].bytes)


def work_macs(work: Work) -> int:
    """Multiply-accumulates that a piece of work executes; what a causal mask hides does not count."""
    return work.plan.macs if isinstance(work, GemmWork) else sum(macs(operator) for operator in work.operators)


def loads_of(work: Work) -> tuple[Tensor, ...]:
    """The tensors, or parts of them, that a piece of work loads from DRAM, weights included."""
    if isinstance(work, GemmWork):
        left = (work.activations,) if work.plan.activation_bytes.any() else ()
        right = (work.weights,) if work.plan.weight_bytes.any() else ()
        return (*left, *right, *work.beside)
    if isinstance(work, AttentionWork):
        reads = [tensor for operator in work.operators for tensor in operator.inputs]
        return tuple(reads) if work.plan.load_bytes.any() else ()
    return work.loads if isinstance(work, VectorWork) else ()


def estimated_cycles(works: Sequence[Work], bandwidth_bytes_per_cycle: float) -> float:
    """Of works that overlap, with the NPU to themselves and DRAM at full bandwidth."""
    moved = sum(_moved_bytes(work) for work in works)
    return max(moved / bandwidth_bytes_per_cycle, *(_unit_cycles(work) for work in works))


def _moved_bytes(work: Work) -> int:
    if isinstance(work, GemmWork):
        return work.plan.traffic_bytes + sum(tensor.bytes for tensor in work.beside)
    if isinstance(work, AttentionWork):
        return int(work.plan.load_bytes.sum() + work.plan.store_bytes.sum())
    return sum(tensor.bytes for tensor in (*work.loads, *work.stores)) if isinstance(work, VectorWork) else 0


def _unit_cycles(work: Work) -> float:
    if isinstance(work, GemmWork):
        return work.plan.pipelined_cycles
    if isinstance(work, AttentionWork):
        return max(work.plan.array_cycles, int(work.plan.softmax_cycles.sum()))
    return sum(work.cycles) if isinstance(work, VectorWork) else 0

"""Operators of a trace as work of the NPU: what each computes, loads and stores.

A *phase* is a run of operators of one layer without per-request attention: what comes before it (norm, QKV, ...) and
after it (projection, FFN, ...). Within a phase an activation may stay in the scratchpad for its next consumer, if the
configuration allows it and it fits; everything else goes through DRAM.

A new operator kind on the NPU is one function registered under the kind's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from neupims_sim.config.schema import MappingConfig, NpuConfig
from neupims_sim.mapping.gemm import GemmPlan, fits_on_chip, plan_gemm
from neupims_sim.npu import vector_cycles
from neupims_sim.registry import Registry
from neupims_sim.trace import Operator, Tensor, macs


@dataclass(frozen=True)
class GemmWork:
    """A GEMM on the systolic arrays."""

    operator: Operator
    plan: GemmPlan
    weights: Tensor
    activations: Tensor
    output: Tensor


@dataclass(frozen=True)
class VectorWork:
    """An operator on the vector units; ``cycles`` 0 for one that only moves data."""

    operator: Operator
    cycles: int
    loads: tuple[Tensor, ...]
    stores: tuple[Tensor, ...]


Work = GemmWork | VectorWork


@dataclass(frozen=True)
class PhaseContext:
    """What a mapper needs to know besides the operator."""

    npu: NpuConfig
    mapping: MappingConfig
    bandwidth_bytes_per_cycle: float
    on_chip: frozenset[str]
    """Names of inputs that lie in the scratchpad."""
    output_on_chip: bool
    output_stored: bool


OPERATOR_MAPPERS: Registry[Callable[[Operator, PhaseContext], Work]] = Registry("operator kind", "neupims_sim.mapping")


def map_phase(
    operators: Sequence[Operator],
    later_inputs: frozenset[str],
    npu: NpuConfig,
    mapping: MappingConfig,
    bandwidth_bytes_per_cycle: float,
    resident: frozenset[str] = frozenset(),
) -> list[Work]:
    """The work of one phase, in program order.

    Parameters
    ----------
    later_inputs: tensors that operators outside the phase read; they are stored.
    resident: tensors that lie in the scratchpad when the phase starts.
    """
    works: list[Work] = []
    on_chip = set(resident) if mapping.keep_activations_on_chip else set()
    for index, operator in enumerate(operators):
        consumers = _consumers(operators[index + 1 :])
        output = operator.outputs[0]
        readers = consumers.get(output.whole, [])
        stays = mapping.keep_activations_on_chip and bool(readers) and _output_fits(operator, readers[0], npu, on_chip)
        stored = not stays or len(readers) > 1 or output.whole in later_inputs
        if not readers and mapping.keep_activations_on_chip and output.whole not in later_inputs:
            stored = False
        context = PhaseContext(
            npu=npu,
            mapping=mapping,
            bandwidth_bytes_per_cycle=bandwidth_bytes_per_cycle,
            on_chip=frozenset(on_chip),
            output_on_chip=stays or not stored,
            output_stored=stored,
        )
        works.append(OPERATOR_MAPPERS[operator.op](operator, context))
        on_chip -= {tensor.whole for tensor in operator.inputs}  # kept for the next consumer only
        if stays:
            on_chip.add(output.whole)
    return works


def _consumers(operators: Sequence[Operator]) -> Mapping[str, list[Operator]]:
    readers: dict[str, list[Operator]] = {}
    for operator in operators:
        for tensor in operator.inputs:
            readers.setdefault(tensor.whole, []).append(operator)
    return readers


def _output_fits(operator: Operator, reader: Operator, npu: NpuConfig, on_chip: set[str]) -> bool:
    """Whether the output can wait in the scratchpad for its reader, given what GEMMs at both ends need."""
    if operator.op == "gemm":
        (m, k), n = operator.inputs[0].shape, operator.outputs[0].shape[1]
        held = operator.inputs[0].whole in on_chip
        if not fits_on_chip(m, k, n, npu, activation_on_chip=held, output_on_chip=True):
            return False
    if reader.op == "gemm":
        (m, k), n = reader.inputs[0].shape, reader.outputs[0].shape[1]
        return fits_on_chip(m, k, n, npu, activation_on_chip=True)
    return operator.outputs[0].bytes <= npu.scratchpad_bytes // 2


@OPERATOR_MAPPERS.register("gemm")
def map_gemm(operator: Operator, context: PhaseContext) -> Work:
    """[M, K] x [K, N] in tiles on all arrays."""
    (m, k), n = operator.inputs[0].shape, operator.outputs[0].shape[1]
    held = operator.inputs[0].whole in context.on_chip
    output_on_chip = context.output_on_chip and fits_on_chip(
        m, k, n, context.npu, activation_on_chip=held, output_on_chip=True
    )
    plan = plan_gemm(
        m,
        k,
        n,
        context.npu,
        bandwidth_bytes_per_cycle=context.bandwidth_bytes_per_cycle,
        activation_on_chip=held,
        output_on_chip=output_on_chip,
        loops=context.mapping.gemm_loops,
    )
    total = plan.total_store_bytes
    wanted = operator.outputs[0].bytes if context.output_stored or not output_on_chip else 0
    if context.mapping.gemm_output_padding:
        wanted = m * 128 * -(-m // 128) * context.npu.element_bytes
    if wanted != total:
        plan = replace(plan, store_bytes=_spread(wanted, plan.steps, plan.store_bytes))
    return GemmWork(operator, plan, operator.inputs[1], operator.inputs[0], operator.outputs[0])


def _spread(total: int, steps: int, like: np.ndarray) -> np.ndarray:
    """``total`` bytes over the steps in proportion to ``like``; over all steps evenly where ``like`` stores nothing."""
    weight = like if like.sum() else np.ones(steps, np.int64)
    edges = np.concatenate([[0], np.cumsum(weight)]) * total // int(weight.sum())
    return np.diff(edges).astype(np.int64)


def _map_vector(operator: Operator, context: PhaseContext) -> Work:
    """One operator over the rows of its first input; weights (gains, biases) are small and stay on chip."""
    data = operator.inputs[0]
    rows = data.shape[0] if len(data.shape) > 1 else 1
    cycles = vector_cycles(operator.op, context.npu.vector, rows=rows, width=data.elements // rows)
    loads = tuple(t for t in operator.inputs if t.role != "weight" and t.whole not in context.on_chip)
    return VectorWork(operator, cycles, loads, operator.outputs if context.output_stored else ())


for _kind in ("layernorm", "rmsnorm", "gelu", "silu_multiply", "rotary", "add"):
    OPERATOR_MAPPERS.register(_kind)(_map_vector)


@OPERATOR_MAPPERS.register("kv_append")
def map_kv_append(operator: Operator, context: PhaseContext) -> Work:
    """The new tokens' K and V to DRAM. V is buffered until whole bursts of tokens are there, so bytes are what counts."""
    stores = operator.outputs if context.mapping.write_kv else ()
    return VectorWork(operator, 0, (), stores)


@OPERATOR_MAPPERS.register("embedding")
def map_embedding(operator: Operator, context: PhaseContext) -> Work:
    """One row of the table per token."""
    return VectorWork(operator, 0, operator.outputs, operator.outputs if context.output_stored else ())


@OPERATOR_MAPPERS.register("all_reduce")
def map_all_reduce(operator: Operator, context: PhaseContext) -> Work:
    """Partial sums of the tensor-parallel devices. Links are not modelled: the reduction takes no time."""
    return VectorWork(operator, 0, (), ())


def work_macs(work: Work) -> int:
    """Multiply-accumulates that a piece of work executes."""
    return work.plan.macs if isinstance(work, GemmWork) else macs(work.operator)

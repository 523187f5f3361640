"""Operators of a trace as work of the NPU: what each computes, loads and stores.

A *phase* is a run of operators that the NPU executes: one layer's before and after the per-request attention of a language model, or
all operators of a vision model. Within a phase an activation may stay in the scratchpad for its next consumer, if the
configuration allows it and everything that is there at the time fits; everything else goes through DRAM.

Matrix products (:mod:`products`) run on the systolic arrays, full attention (:mod:`full_attention`) on arrays and vector
units, all other kinds on the vector units at the price of the elementary operations that the kind states. A kind that is none of
these is one function registered under the kind's name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from neupims_sim.config.schema import MappingConfig, NpuConfig
from neupims_sim.errors import InputError
from neupims_sim.mapping.full_attention import (
    AttentionPlan,
    AttentionShape,
    Operand,
    attention_fits,
    plan_attention,
)
from neupims_sim.mapping.gemm import GemmPlan, fits_on_chip, plan_gemm, repeat_plan
from neupims_sim.mapping.products import Product, product_of
from neupims_sim.npu import vector_cycles
from neupims_sim.registry import Registry
from neupims_sim.trace import Operator, Tensor, macs
from neupims_sim.trace.kinds import vector_operations


@dataclass(frozen=True)
class NpuWork:
    """A piece of work: one operator, or several that are done together."""

    operators: tuple[Operator, ...]
    """What is done, in the order of the trace."""

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

    @property
    def weights_wait(self) -> bool:
        """Whether the right matrix is a result of other operators, not there from the start."""
        return self.weights.role == "activation"


@dataclass(frozen=True)
class VectorWork(NpuWork):
    """An operator on the vector units; ``cycles`` 0 for one that only moves data."""

    cycles: int
    loads: tuple[Tensor, ...]
    stores: tuple[Tensor, ...]


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
    output_stored: bool

    def loads(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Those of ``tensors`` that come from DRAM."""
        return tuple(tensor for tensor in tensors if tensor.name not in self.on_chip)

    def stores(self, operator: Operator) -> tuple[Tensor, ...]:
        """The outputs that go to DRAM. Only the first (and other views of the same tensor) may stay in the scratchpad."""
        first = operator.outputs[0].whole
        return tuple(tensor for tensor in operator.outputs if self.output_stored or tensor.whole != first)


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

    Operators are mapped once, whatever their ``repeat``: what one iteration of a repeated block hands to the next is in
    ``later_inputs`` and ``resident`` of a call for the block.

    Parameters
    ----------
    later_inputs: tensors that operators outside the phase read; they are stored.
    resident: tensors that lie in the scratchpad when the phase starts.

    Raises InputError for an unknown kind, an attention that is not logits, softmax, attend in a row, or work that does not
    fit on the chip.
    """
    return _PhaseMapper(operators, later_inputs, npu, mapping, bandwidth_bytes_per_cycle, resident).works()


class _Attention(NamedTuple):
    """Full attention of one or more images."""

    shape: AttentionShape
    tensors: Mapping[Operand, str]
    """Names of the inputs of which the operands are views."""

    def resident(self, on_chip: frozenset[str], output: bool = False) -> frozenset[Operand]:
        """The operands that lie in the scratchpad."""
        found = {operand for operand, name in self.tensors.items() if name in on_chip}
        return frozenset(found | {"output"} if output else found)


class _Unit(NamedTuple):
    """Operators that become one piece of work, and what they read and write together."""

    operators: tuple[Operator, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    product: Product | None = None
    attention: _Attention | None = None

    @property
    def views(self) -> tuple[Tensor, ...]:
        """The first output, and others that are views of the same tensor: they stay on the chip together or not at all."""
        return tuple(tensor for tensor in self.outputs if tensor.whole == self.outputs[0].whole)

    def read_from(self, entries: Iterable[_Held]) -> frozenset[str]:
        """Names of the inputs that ``entries`` hold."""
        names = [name for entry in entries for name in entry.names]
        return frozenset(t.name for t in self.inputs if any(_contains(name, t.name) for name in names))


class _Read(NamedTuple):
    unit: int
    tensor: Tensor


class _Held(NamedTuple):
    """Tensors in the scratchpad, or room for one of which a part has been made."""

    names: tuple[str, ...]
    size_bytes: int
    until: int
    """The unit that reads them, after which they go."""


class _PhaseMapper:
    """Walks over a phase and knows what lies in the scratchpad."""

    def __init__(
        self,
        operators: Sequence[Operator],
        later_inputs: frozenset[str],
        npu: NpuConfig,
        mapping: MappingConfig,
        bandwidth_bytes_per_cycle: float,
        resident: frozenset[str],
    ) -> None:
        self._units = _units(operators)
        self._later_inputs = later_inputs
        self._npu = npu
        self._mapping = mapping
        self._bandwidth = bandwidth_bytes_per_cycle
        self._reads: defaultdict[str, list[_Read]] = defaultdict(list)
        for index, unit in enumerate(self._units):
            for tensor in unit.inputs:
                self._reads[tensor.whole].append(_Read(index, tensor))
        self._refused: set[_Held] = set()
        """What had no room; further parts of the same go the same way."""
        first_reads = [self._reads[name][0] for name in resident if self._reads[name]]
        self._held = {_Held((r.tensor.whole,), r.tensor.bytes, r.unit) for r in first_reads}
        if not mapping.keep_activations_on_chip:
            self._held.clear()

    def works(self) -> list[Work]:
        """All work, in program order."""
        return [self._work(index) for index in range(len(self._units))]

    def _work(self, index: int) -> Work:
        unit, whole = self._units[index], self._units[index].outputs[0].whole
        readers = self._readers(index)
        output = self._held_output(index, readers) if self._mapping.keep_activations_on_chip and readers else None
        stored = output is None or len(readers) > 1 or whole in self._later_inputs
        if not readers and self._mapping.keep_activations_on_chip and whole not in self._later_inputs:
            stored = False
        context = PhaseContext(
            npu=_less(self._npu, self._waiting(index)),
            mapping=self._mapping,
            bandwidth_bytes_per_cycle=self._bandwidth,
            on_chip=unit.read_from(self._held),
            output_on_chip=output is not None or not stored,
            output_stored=stored,
        )
        self._held = {held for held in self._held if held.until > index}  # kept for the next consumer only
        if output is not None:
            self._held.add(output)
        if unit.attention is not None:
            return _map_attention(unit, unit.attention, context)
        operator = unit.operators[0]
        if operator.op in OPERATOR_MAPPERS:
            return OPERATOR_MAPPERS[operator.op](operator, context)
        return map_product(operator, unit.product, context) if unit.product else map_vector(operator, context)

    def _readers(self, index: int) -> list[_Read]:
        """Who reads a unit's output later."""
        views = self._units[index].views
        return [
            read
            for read in self._reads[views[0].whole]
            if read.unit > index and any(_overlap(read.tensor.name, view.name) for view in views)
        ]

    def _waiting(self, index: int) -> int:
        """Bytes in the scratchpad that a unit neither reads nor writes."""
        unit = self._units[index]
        waiting = [held for held in self._held if held.until > index]
        own = any(_overlap(name, view.name) for held in waiting for name in held.names for view in unit.views)
        return sum(held.size_bytes for held in waiting) - (_total_bytes(unit.views) if own else 0)

    def _held_output(self, index: int, readers: Sequence[_Read]) -> _Held | None:
        """A unit's output where it can wait in the scratchpad for its next reader: every unit until then must have room.

        Where the next reader wants more than this unit makes (one of several parts), there must be room for all of that.
        """
        views, reader = self._units[index].views, readers[0].unit
        size = _total_bytes(views)
        wider = [
            read.tensor
            for read in readers
            if read.unit == reader and all(_contains(read.tensor.name, view.name) for view in views)
        ]
        names = tuple(tensor.name for tensor in (wider[:1] or views))
        output = _Held(names, max(size, _total_bytes(wider[:1])), reader)
        if output in self._held:
            return output
        fits = (
            output not in self._refused
            and self._has_room_for_output(index, output)
            and all(self._has_room(later, index, output) for later in range(index + 1, reader + 1))
        )
        if not fits:
            self._refused.add(output)
        return output if fits else None

    def _has_room_for_output(self, index: int, output: _Held) -> bool:
        """Whether a unit finds room for its output besides what is there."""
        unit, waiting, size = self._units[index], self._waiting(index), output.size_bytes
        inputs, on_chip = _total_size(held for held in self._held if held.until == index), unit.read_from(self._held)
        if unit.attention is not None:
            beside = _less(self._npu, waiting + inputs + size)
            return attention_fits(unit.attention.shape, beside, unit.attention.resident(on_chip, output=True))
        if unit.product is not None:
            beside = _less(self._npu, waiting + size - unit.outputs[0].bytes)
            return _product_fits(unit.product, beside, on_chip, output=True)
        return waiting + max(inputs, size) <= self._npu.scratchpad_bytes

    def _has_room(self, later: int, index: int, output: _Held) -> bool:
        """Whether a later unit can run with the output of unit ``index`` in the scratchpad too."""
        unit = self._units[later]
        alive = [held for held in self._held if held.until > index and held.until >= later] + [output]
        inputs = [held for held in alive if held.until == later]
        waiting, on_chip = _total_size(alive) - _total_size(inputs), unit.read_from(inputs)
        if unit.attention is not None:
            beside = _less(self._npu, _total_size(alive))
            return attention_fits(unit.attention.shape, beside, unit.attention.resident(on_chip))
        if unit.product is not None:
            return _product_fits(unit.product, _less(self._npu, waiting), on_chip)
        largest = max((held.size_bytes for held in inputs), default=0)
        return largest <= self._npu.scratchpad_bytes // 2 and _total_size(alive) <= self._npu.scratchpad_bytes


def _contains(name: str, view: str) -> bool:
    """Whether ``view`` is tensor ``name`` or a view of it."""
    return view == name or (view.startswith(name) and view[len(name)] in ".[")


def _overlap(name: str, other: str) -> bool:
    return _contains(name, other) or _contains(other, name)


def _total_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.bytes for tensor in tensors)


def _total_size(entries: Iterable[_Held]) -> int:
    return sum(held.size_bytes for held in entries)


def _less(npu: NpuConfig, taken: int) -> NpuConfig:
    """An NPU with so much less scratchpad."""
    return npu.model_copy(update={"scratchpad_bytes": npu.scratchpad_bytes - taken}) if taken else npu


def _units(operators: Sequence[Operator]) -> list[_Unit]:
    """Every operator on its own, but attention of the same shape together."""
    units: list[_Unit] = []
    index = 0
    while index < len(operators):
        operator = operators[index]
        if not operator.op.startswith("attention_"):
            units.append(_Unit((operator,), operator.inputs, operator.outputs, product_of(operator)))
            index += 1
            continue
        end = index + 3
        first = _attention_key(operators[index:end])
        while end + 3 <= len(operators) and operators[end].op == operator.op:
            if _attention_key(operators[end : end + 3]) != first:
                break
            end += 3
        units.append(_attention_unit(tuple(operators[index:end])))
        index = end
    return units


def _attention_key(triple: Sequence[Operator]) -> tuple[object, ...]:
    """What attentions that are planned together have in common; raises InputError unless logits, softmax, attend follow."""
    if [operator.op for operator in triple] != ["attention_logits", "softmax", "attention_attend"]:
        found = ", ".join(operator.op for operator in triple)
        raise InputError(
            f"operator {triple[0].id} ({triple[0].name!r}): full attention is attention_logits, softmax, "
            f"attention_attend in a row, not {found}"
        )
    logits, _, attend = triple
    return logits.inputs[0].shape, logits.inputs[1].shape, attend.inputs[1].shape, logits.repeat


def _attention_unit(operators: tuple[Operator, ...]) -> _Unit:
    logits, attends = operators[::3], operators[2::3]
    reads = [tensor for operator in logits for tensor in operator.inputs] + [attend.inputs[1] for attend in attends]
    queries, keys, values = *logits[0].inputs, attends[0].inputs[1]
    heads, tokens, size = queries.shape
    kv_heads, context, _ = keys.shape
    inputs = _merged(reads)
    of_whole = {tensor.whole: tensor.name for tensor in inputs}
    operands: Mapping[Operand, Tensor] = {"queries": queries, "keys": keys, "values": values}
    return _Unit(
        operators,
        inputs,
        _merged([attend.outputs[0] for attend in attends]),
        attention=_Attention(
            AttentionShape(len(logits), heads, kv_heads, tokens, context, size),
            {operand: of_whole[tensor.whole] for operand, tensor in operands.items()},
        ),
    )


def _merged(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """One tensor for all views of the same: the smallest that contains them."""
    views: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        views.setdefault(tensor.whole, []).append(tensor)
    return tuple(
        replace(found[0], name=_common([t.name for t in found]), shape=(sum(t.elements for t in found),))
        for found in views.values()
    )


def _common(names: Sequence[str]) -> str:
    """The longest name of which all ``names`` are views: ``qkv[0]`` for ``qkv[0].q`` and ``qkv[0].k``."""
    first = names[0]
    ends = [at for at, letter in enumerate(first) if letter in ".["] + [len(first)]
    return next(first[:end] for end in reversed(ends) if all(_contains(first[:end], name) for name in names))


def _map_attention(unit: _Unit, attention: _Attention, context: PhaseContext) -> Work:
    """The attention of one or more images; logits stay where they are made."""
    taken = sum(tensor.bytes for tensor in unit.inputs if tensor.name in context.on_chip)
    taken += unit.outputs[0].bytes if context.output_on_chip else 0
    resident = attention.resident(context.on_chip, output=not context.output_stored)
    plan = plan_attention(attention.shape, _less(context.npu, taken), resident)
    return AttentionWork(unit.operators, plan, max(unit.inputs, key=lambda tensor: tensor.bytes), unit.outputs[0])


def _product_fits(product: Product, npu: NpuConfig, on_chip: frozenset[str], output: bool = False) -> bool:
    """Whether tiles fit beside what is on the chip."""
    left, right = (tensor.name in on_chip for tensor in (product.activations, product.weights))
    npu = _less(npu, _beyond_matrices(product, npu, left, right, output))
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
    output_on_chip = context.output_on_chip and _product_fits(product, context.npu, context.on_chip, output=True)
    plan = plan_gemm(
        *product.gemm,
        _less(context.npu, _beyond_matrices(product, context.npu, left, right, output_on_chip)),
        bandwidth_bytes_per_cycle=context.bandwidth_bytes_per_cycle,
        activation_on_chip=left,
        weight_on_chip=right,
        output_on_chip=output_on_chip,
        loops=context.mapping.gemm_loops,
    )
    plan = repeat_plan(plan, product.times, context.npu)
    stored = output.bytes if context.output_stored or not output_on_chip else 0
    if context.mapping.gemm_output_padding and operator.op == "gemm":
        m = product.gemm.m
        stored = m * 128 * -(-m // 128) * context.npu.element_bytes
    plan = replace(
        plan,
        activation_bytes=_scaled(plan.activation_bytes, plan.activation_reads * product.activations.bytes),
        weight_bytes=_scaled(plan.weight_bytes, plan.weight_reads * product.weights.bytes),
        store_bytes=_scaled(plan.store_bytes, stored),
    )
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
    return VectorWork((operator,), cycles, loads, context.stores(operator))


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
    return VectorWork((operator,), 0, (), stores)


@OPERATOR_MAPPERS.register("all_reduce")
def map_all_reduce(operator: Operator, context: PhaseContext) -> Work:
    """Partial sums of the tensor-parallel devices, from scratchpad to scratchpad."""
    return LinkWork((operator,), operator.attrs["devices"], operator.inputs[0].bytes)


def work_macs(work: Work) -> int:
    """Multiply-accumulates that a piece of work executes; what a causal mask hides does not count."""
    return work.plan.macs if isinstance(work, GemmWork) else sum(macs(operator) for operator in work.operators)

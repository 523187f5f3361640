"""A phase of operators as work of the NPU: which operators go together, and what stays in the scratchpad between them.

Operators become *units*, each one piece of work or a product and what the vector units do with its tiles (``mapping.fuse``). A walk
over the units decides for every output whether it waits in the scratchpad for its next reader: if there is room at every unit until
then, and (``gemm_loops: fastest``) if it is not slower, because tiles have less room beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from neupims_sim.config.schema import MappingConfig, NpuConfig
from neupims_sim.errors import InputError
from neupims_sim.mapping.full_attention import AttentionShape, Operand, attention_fits, plan_attention
from neupims_sim.mapping.operators import (
    AttentionWork,
    PhaseContext,
    VectorWork,
    Work,
    estimated_cycles,
    less_scratchpad,
    map_operator,
    map_product,
    product_fits,
)
from neupims_sim.mapping.products import Product, product_of
from neupims_sim.trace import Operator, Tensor
from neupims_sim.trace.kinds import KINDS


@dataclass(frozen=True)
class MappedPhase:
    """The work of one phase, in program order.

    Attributes
    ----------
    resident: bytes of each tensor that must lie in the scratchpad when the phase starts.
    left: bytes of each tensor that lies there when it ends, for whoever comes after it.
    """

    works: tuple[Work, ...]
    resident: Mapping[str, int]
    left: Mapping[str, int]


def map_phase(
    operators: Sequence[Operator],
    later_inputs: frozenset[str],
    npu: NpuConfig,
    mapping: MappingConfig,
    bandwidth_bytes_per_cycle: float,
    resident: frozenset[str] = frozenset(),
    taken: frozenset[str] = frozenset(),
) -> MappedPhase:
    """Map the operators of one phase.

    Operators are mapped once, whatever their ``repeat``: what one iteration of a repeated block hands to the next is in
    ``later_inputs`` and ``resident`` of a call for the block.

    Parameters
    ----------
    later_inputs: tensors that operators outside the phase read; they are stored.
    npu: its ``scratchpad_bytes`` are those that this phase may take; another sub-batch may have the rest.
    resident: tensors that may lie in the scratchpad when the phase starts.
    taken: tensors that somebody else takes tile by tile: they need no room.

    Raises InputError for an unknown kind, an attention that is not logits, softmax, attend in a row, or work that does not
    fit on the chip.
    """
    return _PhaseMapper(operators, later_inputs, npu, mapping, bandwidth_bytes_per_cycle, resident, taken).phase()


_MOST_HELD, _MOST_HELD_LONG = 1 / 2, 1 / 4
"""Shares of the scratchpad that activations may hold so that tiles can be loaded ahead: until the next product, or beyond it."""


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
    """Operators that are done together, and what they read and write together."""

    operators: tuple[Operator, ...]
    inputs: tuple[Tensor, ...]
    """Made by others."""
    outputs: tuple[Tensor, ...]
    """Read by others, or by nobody."""
    product: Product | None = None
    """Of the first operator."""
    attention: _Attention | None = None

    @property
    def families(self) -> list[tuple[Tensor, ...]]:
        """The outputs, views of one tensor together: they stay on the chip together or not at all."""
        wholes = dict.fromkeys(tensor.whole for tensor in self.outputs)
        return [tuple(tensor for tensor in self.outputs if tensor.whole == whole) for whole in wholes]

    @property
    def in_place(self) -> bool:
        """Whether outputs take the place of inputs that nobody reads any more."""
        return self.product is None and self.attention is None

    def beside(self, alive: Iterable[_Held], index: int, hold: bool) -> int:
        """Bytes of what is in the scratchpad at this unit, number ``index``, besides what its own mapping makes room for.

        ``hold``: of an input that is wider than the matrix in it, the rest counts too.
        """
        matrices = (self.product.activations, self.product.weights) if self.product else ()

        def size(held: _Held) -> int:
            if self.product is None:
                own = held.until == index or (self.attention is not None and bool(self.read_from([held])))
                return 0 if own else held.size_bytes
            read = [m.bytes for m in matrices if any(_contains(name, m.name) for name in held.names)]
            return max(0, held.size_bytes - max(read)) * hold if read else held.size_bytes

        return sum(size(held) for held in alive if held.until >= index)

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
    """The unit that reads them, after which they go; the number of units for somebody after the phase."""


class _Fate(NamedTuple):
    """What becomes of the views of one tensor that a unit writes."""

    views: tuple[Tensor, ...]
    held: _Held | None
    """In the scratchpad, for the next reader."""
    stored: bool
    """In DRAM."""

    @property
    def on_chip_bytes(self) -> int:
        """Scratchpad that they take."""
        return self.held.size_bytes if self.held is not None else 0


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
        taken: frozenset[str],
    ) -> None:
        self._units = _units(operators, later_inputs, mapping.fuse)
        self._later_inputs = later_inputs
        self._taken = taken
        self._npu = npu
        self._mapping = mapping
        self._bandwidth = bandwidth_bytes_per_cycle
        self._reads: defaultdict[str, list[_Read]] = defaultdict(list)
        for index, unit in enumerate(self._units):
            for tensor in unit.inputs:
                self._reads[tensor.whole].append(_Read(index, tensor))
        self._refused: set[_Held] = set()
        """What had no room; further parts of the same go the same way."""
        self._held: set[_Held] = set()
        first_reads = [self._reads[name][0] for name in resident if self._reads[name]]
        for read in first_reads if mapping.keep_activations_on_chip else ():
            entry = _Held((read.tensor.whole,), read.tensor.bytes, read.unit)
            fits = all(self._has_room(unit, -1, entry, ()) for unit in range(read.unit + 1))
            if not mapping.hold_residents or (fits and self._leaves_room(-1, entry, ())):
                self._held.add(entry)
        self._resident = frozenset(self._held)

    def phase(self) -> MappedPhase:
        """The whole phase."""
        works = [work for index in range(len(self._units)) for work in self._works(index)]
        return MappedPhase(tuple(works), _sizes(self._resident), _sizes(self._held))

    def _works(self, index: int) -> list[Work]:
        unit, decided = self._units[index], dict[str, _Fate]()
        for views in sorted(unit.families, key=lambda views: self._next_reader(index, views)):
            decided[views[0].whole] = self._fate(index, views, list(decided.values()))
        fates = [decided[views[0].whole] for views in unit.families]
        works = self._map(unit, self._waiting(index), unit.read_from(self._held), fates)
        freed = _total_size(held for held in self._held if held.until == index)
        made = {fate.held for fate in fates if fate.held is not None} - self._held
        self._held = {held for held in self._held if held.until > index} | made  # kept for the next consumer only
        if self._mapping.hold_residents:
            taken = _total_size(made)
            reused = min(freed, taken) if unit.in_place else 0
            works[0] = replace(works[0], reserve_bytes=taken - reused)
            works[-1] = replace(works[-1], release_bytes=freed - reused)
        return works

    def _map(self, unit: _Unit, waiting: int, on_chip: frozenset[str], fates: Sequence[_Fate]) -> list[Work]:
        """The work of a unit with so many bytes of others in the scratchpad."""
        main = fates[0]
        context = PhaseContext(
            npu=less_scratchpad(self._npu, waiting),
            mapping=self._mapping,
            bandwidth_bytes_per_cycle=self._bandwidth,
            on_chip=on_chip,
            output_on_chip=main.held is not None or not main.stored,
            kept=frozenset(fate.views[0].whole for fate in fates if not fate.stored),
        )
        if unit.attention is not None:
            return [_map_attention(unit, unit.attention, context)]
        if unit.product is None:
            return [self._chain(unit, unit.operators, context)]
        operator, chain = unit.operators[0], unit.operators[1:]
        if not chain:
            return [map_product(operator, unit.product, context)]
        stays = sum(fate.on_chip_bytes for fate in fates)
        internal = frozenset({operator.outputs[0].whole} - {tensor.whole for tensor in unit.outputs})
        behind = self._chain(unit, chain, context)
        assert isinstance(behind, VectorWork)
        streaming = replace(
            context,
            npu=less_scratchpad(context.npu, stays),
            output_on_chip=False,
            taken_in_cycles=estimated_cycles([behind], self._bandwidth),
            kept=context.kept | internal,
        )
        product = replace(map_product(operator, unit.product, streaming), beside=behind.loads)
        return [product, replace(behind, loads=())]

    def _chain(self, unit: _Unit, operators: Sequence[Operator], context: PhaseContext) -> Work:
        """Operators that are no products: one by its own mapper, several on the vector units as one."""
        works = [map_operator(operator, context) for operator in operators]
        follows = self._mapping.fuse and all(KINDS[operator.op].per_tile for operator in operators)
        if len(works) == len(unit.operators) == 1:
            (work,) = works
            return replace(work, follows=follows) if isinstance(work, VectorWork) else work
        parts = [work for work in works if isinstance(work, VectorWork)]
        return VectorWork(
            tuple(operators),
            cycles=tuple(cycles for part in parts for cycles in part.cycles),
            loads=tuple(tensor for part in parts for tensor in part.loads if tensor in unit.inputs),
            stores=tuple(tensor for part in parts for tensor in part.stores if tensor in unit.outputs),
            follows=follows,
        )

    def _fate(self, index: int, views: tuple[Tensor, ...], others: Sequence[_Fate]) -> _Fate:
        """What becomes of an output, after that of ``others`` of the same unit."""
        whole = views[0].whole
        is_main = whole == self._units[index].outputs[0].whole
        if (
            not self._mapping.keep_activations_on_chip
            or not (is_main or self._mapping.fuse)
            or views[0].role == "kv_cache"
        ):
            return _Fate(views, None, True)
        if whole in self._taken:
            return _Fate(views, None, False)
        readers = self._readers(index, views)
        if not readers:
            if whole in self._later_inputs or not self._mapping.hold_residents:
                return _Fate(views, None, whole in self._later_inputs)
            left = self._left_output(index, views, others)
            return _Fate(views, left, left is None)
        held = self._held_output(index, views, readers, others)
        return _Fate(views, held, self._is_stored(views, held, readers))

    def _is_stored(self, views: tuple[Tensor, ...], held: _Held | None, readers: Sequence[_Read]) -> bool:
        """Whether an output goes to DRAM: if it is not held for all who read it."""
        if held is None or views[0].whole in self._later_inputs:
            return True
        return any(read.unit > held.until for read in readers) if self._mapping.hold_residents else len(readers) > 1

    def _left_output(self, index: int, views: tuple[Tensor, ...], others: Sequence[_Fate]) -> _Held | None:
        """An output that nobody reads in this phase, where it has room on the chip to the end."""
        left = _Held((views[0].whole,), _total_bytes(views), len(self._units))
        later = range(index + 1, len(self._units))
        fits = (
            self._has_room_for_output(index, left, others)
            and all(self._has_room(unit, index, left, others) for unit in later)
            and self._leaves_room(index, left, others)
        )
        return left if fits else None

    def _next_reader(self, index: int, views: Sequence[Tensor]) -> int:
        readers = self._readers(index, views)
        return readers[0].unit if readers else len(self._units)

    def _readers(self, index: int, views: Sequence[Tensor]) -> list[_Read]:
        """Who reads views of a unit's output later."""
        return [
            read
            for read in self._reads[views[0].whole]
            if read.unit > index and any(_overlap(read.tensor.name, view.name) for view in views)
        ]

    def _waiting(self, index: int) -> int:
        """Bytes in the scratchpad that a unit neither reads nor writes."""
        unit, own = self._units[index], 0
        waiting = [name for held in self._held if held.until > index for name in held.names]
        for views in unit.families:
            if any(_overlap(name, view.name) for name in waiting for view in views):
                own += _total_bytes(views)
        return unit.beside(self._held, index, self._mapping.hold_residents) - own

    def _held_output(
        self, index: int, views: tuple[Tensor, ...], readers: Sequence[_Read], others: Sequence[_Fate]
    ) -> _Held | None:
        """A unit's output where it can wait in the scratchpad: for all its readers, or else for the next one."""
        ends = [readers[-1].unit, readers[0].unit] if self._mapping.hold_residents else [readers[0].unit]
        for until in dict.fromkeys(ends):
            held = self._held_until(until, index, views, readers, others)
            if held is not None:
                return held
        return None

    def _held_until(
        self, reader: int, index: int, views: tuple[Tensor, ...], readers: Sequence[_Read], others: Sequence[_Fate]
    ) -> _Held | None:
        """A unit's output where it can wait in the scratchpad for a reader: every unit until then must have room.

        Where the reader wants more than this unit makes (one of several parts), there must be room for all of that.
        """
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
            and self._has_room_for_output(index, output, others)
            and all(self._has_room(later, index, output, others) for later in range(index + 1, reader + 1))
            and (not self._mapping.hold_residents or self._leaves_room(index, output, others))
            and (self._mapping.gemm_loops != "fastest" or self._is_worth_it(index, views, output, others))
        )
        if not fits:
            self._refused.add(output)
        return output if fits else None

    def _leaves_room(self, index: int, output: _Held, others: Sequence[_Fate]) -> bool:
        """Whether loads can run ahead beside what is held until its reader is done."""
        passes = any(unit.product for unit in self._units[index + 1 : output.until])
        most = self._npu.scratchpad_bytes * (_MOST_HELD_LONG if passes else _MOST_HELD)
        return all(
            _total_size(self._alive(later, index, others)) + output.size_bytes <= most
            for later in range(index + 1, output.until + 1)
        )

    def _has_room_for_output(self, index: int, output: _Held, others: Sequence[_Fate]) -> bool:
        """Whether a unit finds room for its output besides what is there."""
        unit, waiting, size = self._units[index], self._waiting(index), output.size_bytes
        size += sum(fate.on_chip_bytes for fate in others)
        inputs, on_chip = _total_size(held for held in self._held if held.until == index), unit.read_from(self._held)
        if unit.attention is not None:
            beside = less_scratchpad(self._npu, waiting + inputs + size)
            return attention_fits(unit.attention.shape, beside, unit.attention.resident(on_chip, output=True))
        if unit.product is not None and len(unit.operators) > 1:
            return product_fits(unit.product, less_scratchpad(self._npu, waiting + size), on_chip)
        if unit.product is not None:
            beside = less_scratchpad(self._npu, waiting + size - unit.outputs[0].bytes)
            return product_fits(unit.product, beside, on_chip, output=True)
        return waiting + max(inputs, size) <= self._npu.scratchpad_bytes

    def _has_room(self, later: int, index: int, output: _Held, others: Sequence[_Fate]) -> bool:
        """Whether a later unit can run with the output of unit ``index`` in the scratchpad too."""
        unit = self._units[later]
        alive = [*self._alive(later, index, others), output]
        on_chip = unit.read_from(alive)
        if unit.attention is not None:
            beside = less_scratchpad(self._npu, _total_size(alive))
            return attention_fits(unit.attention.shape, beside, unit.attention.resident(on_chip))
        if unit.product is not None:
            return product_fits(
                unit.product,
                less_scratchpad(self._npu, unit.beside(alive, later, self._mapping.hold_residents)),
                on_chip,
            )
        largest = max((held.size_bytes for held in alive if held.until == later), default=0)
        return largest <= self._npu.scratchpad_bytes // 2 and _total_size(alive) <= self._npu.scratchpad_bytes

    def _alive(self, later: int, index: int, others: Sequence[_Fate]) -> list[_Held]:
        """What unit ``index`` and those before it leave in the scratchpad for unit ``later`` or those after it."""
        made = [fate.held for fate in others if fate.held is not None]
        return [held for held in {*self._held, *made} if held.until > index and held.until >= later]

    def _is_worth_it(self, index: int, views: tuple[Tensor, ...], output: _Held, others: Sequence[_Fate]) -> bool:
        """Whether holding an output is no slower: its way through DRAM against the room that tiles lack until it is read."""
        stored = self._is_stored(views, output, self._readers(index, views))
        held, gone = _Fate(views, output, stored), _Fate(views, None, True)
        through_dram, on_chip = (self._cycles(index, index, [*others, fate]) for fate in (gone, held))
        for later in range(index + 1, output.until + 1):
            through_dram += self._cycles(later, index, [*others, gone])
            on_chip += self._cycles(later, index, [*others, held])
        return on_chip <= through_dram

    def _cycles(self, later: int, index: int, fates: Sequence[_Fate]) -> float:
        """Estimate of a unit on its own, when unit ``index`` has disposed of its outputs so. Later outputs count as stored."""
        unit = self._units[later]
        if later == index:
            known = [fate.views[0].whole for fate in fates]
            rest = [_Fate(views, None, True) for views in unit.families if views[0].whole not in known]
            works = self._map(unit, self._waiting(index), unit.read_from(self._held), [*fates, *rest])
        else:
            alive = self._alive(later, index, fates)
            stored = [_Fate(views, None, True) for views in unit.families]
            works = self._map(
                unit, unit.beside(alive, later, self._mapping.hold_residents), unit.read_from(alive), stored
            )
        return estimated_cycles(works, self._bandwidth)


def _contains(name: str, view: str) -> bool:
    """Whether ``view`` is tensor ``name`` or a view of it."""
    return view == name or (view.startswith(name) and view[len(name)] in ".[")


def _overlap(name: str, other: str) -> bool:
    return _contains(name, other) or _contains(other, name)


def _total_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.bytes for tensor in tensors)


def _sizes(entries: Iterable[_Held]) -> dict[str, int]:
    return {entry.names[0]: entry.size_bytes for entry in entries}


def _total_size(entries: Iterable[_Held]) -> int:
    return sum(held.size_bytes for held in entries)


def _units(operators: Sequence[Operator], later_inputs: frozenset[str], fuse: bool) -> list[_Unit]:
    """Every operator on its own, but attention of the same shape together, and (``fuse``) those that take others' tiles."""
    groups: list[list[Operator]] = []
    index = 0
    while index < len(operators):
        operator = operators[index]
        if operator.op.startswith("attention_"):
            end = index + 3
            first = _attention_key(operators[index:end])
            while end + 3 <= len(operators) and operators[end].op == operator.op:
                if _attention_key(operators[end : end + 3]) != first:
                    break
                end += 3
        elif fuse and groups and _takes_tiles(operator, groups[-1]):
            groups[-1].append(operator)
            index += 1
            continue
        else:
            end = index + 1
        groups.append(list(operators[index:end]))
        index = end
    return [
        _unit(group, [*groups[:number], *groups[number + 1 :]], later_inputs) for number, group in enumerate(groups)
    ]


def _takes_tiles(operator: Operator, group: Sequence[Operator]) -> bool:
    """Whether an operator can work on the tiles of a group's outputs as these are made."""
    makes_tiles = product_of(group[0]) is not None or KINDS[group[0].op].per_tile
    made = {tensor.whole for member in group for tensor in member.outputs}
    reads = any(tensor.whole in made for tensor in operator.inputs)
    return KINDS[operator.op].per_tile and makes_tiles and reads and operator.repeat == group[0].repeat


def _unit(group: Sequence[Operator], others: Sequence[Sequence[Operator]], later_inputs: frozenset[str]) -> _Unit:
    if group[0].op.startswith("attention_"):
        return _attention_unit(tuple(group))
    product = product_of(group[0])
    if len(group) == 1:
        return _Unit((group[0],), group[0].inputs, group[0].outputs, product)
    made = [tensor for member in group for tensor in member.outputs]
    inputs = dict.fromkeys(
        tensor for member in group for tensor in member.inputs if all(tensor.whole != own.whole for own in made)
    )
    read_inside = {tensor for member in group for tensor in member.inputs}
    read_outside = {tensor.name for other in others for member in other for tensor in member.inputs}

    def leaves(tensor: Tensor) -> bool:
        """Whether others read a tensor, or nobody reads some of it: then it is for whoever comes after the phase."""
        used = sum(view.bytes for view in read_inside if _contains(tensor.name, view.name))
        outside = any(_overlap(tensor.name, name) for name in read_outside)
        return outside or tensor.whole in later_inputs or used < tensor.bytes

    outputs = [tensor for tensor in made if leaves(tensor)]
    return _Unit(tuple(group), tuple(inputs), tuple(outputs), product)


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
    resident = attention.resident(context.on_chip, output=unit.outputs[0].whole in context.kept)
    plan = plan_attention(attention.shape, less_scratchpad(context.npu, taken), resident)
    return AttentionWork(unit.operators, plan, max(unit.inputs, key=lambda tensor: tensor.bytes), unit.outputs[0])

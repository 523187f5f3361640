"""Where the activations of a trace lie while they are needed: tensors whose lives do not overlap share memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from neupims_sim.trace import Operator, Tensor


class Allocation(NamedTuple):
    """Offsets of tensors by name, bytes, and the size of the region that holds them all."""

    offsets: Mapping[str, int]
    size_bytes: int


class Lifetime(NamedTuple):
    """A tensor: its size, and the first and last operator (positions in the trace) that touch it."""

    name: str
    size_bytes: int
    first: int
    last: int


def allocate(lifetimes: Iterable[Lifetime], alignment: int) -> Allocation:
    """Each tensor, in order of birth, at the lowest offset that no living tensor overlaps; offsets are aligned."""
    placed: list[tuple[int, int, int]] = []  # (offset, end, last operator)
    offsets: dict[str, int] = {}
    size = 0
    for life in sorted(lifetimes, key=lambda life: (life.first, life.name)):
        placed = sorted(block for block in placed if block[2] >= life.first)
        needed = -(-life.size_bytes // alignment) * alignment
        offset = 0
        for start, end, _ in placed:
            if start - offset >= needed:
                break
            offset = max(offset, end)
        offsets[life.name] = offset
        placed.append((offset, offset + needed, life.last))
        size = max(size, offset + needed)
    return Allocation(offsets, size)


def lifetimes(operators: Sequence[Operator]) -> list[Lifetime]:
    """Of all activations. What nobody produces lives from the start, what nobody reads to the end."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    views: dict[str, dict[str, int]] = {}
    end = len(operators)
    for position, operator in enumerate(operators):
        for tensor in _data(operator.outputs):
            first.setdefault(tensor.whole, position)
            views.setdefault(tensor.whole, {})[tensor.name] = tensor.bytes
        for tensor in _data(operator.inputs):
            first.setdefault(tensor.whole, 0)
            last[tensor.whole] = position
            views.setdefault(tensor.whole, {})[tensor.name] = tensor.bytes
    return [Lifetime(name, _size(name, views[name]), first[name], last.get(name, end)) for name in first]


def _data(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.role == "activation"]


def _size(name: str, views: Mapping[str, int]) -> int:
    """Bytes of a tensor of which some views, or itself, are known."""
    parts = sum(size for view, size in views.items() if view != name)
    return max(views.get(name, 0), parts)

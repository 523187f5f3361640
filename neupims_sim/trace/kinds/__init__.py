"""The operator kinds: a closed set, one class each, found by name. A new kind is one class in one file of this folder.

Counting rules, the same for every kind:

- A multiply-accumulate is 2 FLOPs. A bias is the initial value of its accumulator: no extra FLOP.
- Every other elementary function of one element (add, multiply, compare, divide, square root, exp, tanh) is 1 FLOP.
- Bytes are those of the tensors, each read or written once. What stays on chip is the mapping's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from neupims_sim.registry import Registry
from neupims_sim.trace.operators import Operator, Role, Tensor


class Kind:
    """What the operators of one kind look like and how much work they are.

    ``check`` is called after number of tensors and attributes have been verified; it raises ``ValueError``.
    """

    inputs: ClassVar[tuple[int, int]] = (1, 1)
    """Fewest and most input tensors."""
    outputs: ClassVar[int] = 1
    """Number of output tensors."""
    attrs: ClassVar[Mapping[str, type]] = {}
    """Attributes that must be present, with their type."""
    per_tile: ClassVar[bool] = False
    """Whether it can work on parts of its inputs as they are made: element by element, or (norms) with statistics that add up."""

    @staticmethod
    def check(op: Operator) -> None:
        """Raise ``ValueError`` unless the shapes fit together."""

    @staticmethod
    def macs(op: Operator) -> int:
        """Multiply-accumulates of matrix products, one layer."""
        return 0

    @staticmethod
    def vector_operations(op: Operator) -> dict[str, int]:
        """How many of each elementary operation (``kernels.costs.OPERATIONS``) are done outside matrix products, one layer."""
        return {}

    @classmethod
    def vector_flops(cls, op: Operator) -> int:
        """FLOPs outside matrix products, one layer: the sum of ``vector_operations``."""
        return sum(cls.vector_operations(op).values())

    @staticmethod
    def read_bytes(op: Operator) -> dict[Role, int]:
        """Bytes read, by role of the tensor, one layer."""
        return bytes_by_role(op.inputs)

    @staticmethod
    def write_bytes(op: Operator) -> dict[Role, int]:
        """Bytes written, by role of the tensor, one layer."""
        return bytes_by_role(op.outputs)


KINDS: Registry[type[Kind]] = Registry("operator kind", "neupims_sim.trace.kinds")
"""Every known operator kind by name."""


def bytes_by_role(tensors: Iterable[Tensor]) -> dict[Role, int]:
    """Total bytes of ``tensors`` per role; roles that do not occur are absent."""
    total: dict[Role, int] = {}
    for tensor in tensors:
        total[tensor.role] = total.get(tensor.role, 0) + tensor.bytes
    return total


def require_shape(what: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless ``tensor`` has the ``expected`` shape."""
    if tensor.shape != expected:
        raise ValueError(f"{what} {tensor.name!r} has shape {list(tensor.shape)}, expected {list(expected)}")


def require_rank(what: str, tensor: Tensor, *axes: str) -> tuple[int, ...]:
    """The shape of ``tensor``, which must have one dimension per name in ``axes``."""
    if len(tensor.shape) != len(axes):
        raise ValueError(f"{what} {tensor.name!r} has shape {list(tensor.shape)}, expected [{', '.join(axes)}]")
    return tensor.shape


def macs(op: Operator) -> int:
    """Multiply-accumulates of the matrix products of ``op``, one layer."""
    return KINDS[op.op].macs(op)


def flops(op: Operator) -> int:
    """FLOPs of ``op``, one layer: 2 per multiply-accumulate plus the element-wise ones."""
    kind = KINDS[op.op]
    return 2 * kind.macs(op) + kind.vector_flops(op)


def vector_operations(op: Operator) -> dict[str, int]:
    """Elementary operations of ``op`` outside matrix products by name, one layer; 0 or absent where there are none."""
    return KINDS[op.op].vector_operations(op)


def read_bytes(op: Operator) -> dict[Role, int]:
    """Bytes that ``op`` reads, by role, one layer."""
    return KINDS[op.op].read_bytes(op)


def write_bytes(op: Operator) -> dict[Role, int]:
    """Bytes that ``op`` writes, by role, one layer."""
    return KINDS[op.op].write_bytes(op)

"""What a trace must satisfy before anything is simulated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from neupims_sim.config.bounds import MOST_EXACT
from neupims_sim.errors import shown, suggestion
from neupims_sim.trace.kinds import KINDS
from neupims_sim.trace.operators import ELEMENT_BYTES, ROLES, Operator

MOST_REPEATS = 1_000_000
"""Of an operator: layers, or alike steps."""
MOST_DIMENSION = 2**40
"""Of a tensor: a database of 10^12 vectors."""
MOST_ELEMENTS = MOST_EXACT
"""Of a tensor."""


def checked(operators: Iterable[Operator]) -> Iterator[Operator]:
    """``operators``, each checked on its way. Raises ``ValueError`` at the first that is wrong.

    Checked are: ids unique and dependencies on earlier ids, known kind, dtype and role, positive sizes, the number of
    tensors, the attributes and the shapes that the kind asks for. Keeps one integer per operator in memory.
    """
    seen: set[int] = set()
    for op in operators:
        _check_identity(op, seen)
        _check_kind(op)
        seen.add(op.id)
        yield op


def _check_identity(op: Operator, seen: set[int]) -> None:
    if op.id in seen:
        raise ValueError(f"id {op.id} is used twice")
    for dep in op.deps:
        if dep not in seen:
            raise ValueError(f"{_label(op)}: deps names {dep}, which is not the id of an earlier operator")
    if not -MOST_EXACT <= op.id <= MOST_EXACT:
        raise ValueError(f"{_label(op)}: id must be at most {MOST_EXACT}")
    if op.repeat < 1:
        raise ValueError(f"{_label(op)}: repeat={shown(op.repeat)} must be at least 1")
    if op.request is not None and op.request < 0:
        raise ValueError(f"{_label(op)}: request={shown(op.request)} must not be negative")
    for name, value, most in (("repeat", op.repeat, MOST_REPEATS), ("request", op.request or 0, MOST_EXACT)):
        if value > most:
            raise ValueError(f"{_label(op)}: {name}={shown(value)} must be at most {most}")


def _check_kind(op: Operator) -> None:
    if op.op not in KINDS:
        raise ValueError(f"{_label(op)}: unknown operator kind {op.op!r}; {suggestion(op.op, KINDS)}")
    kind = KINDS[op.op]
    for tensor in (*op.inputs, *op.outputs):
        where = f"{_label(op)}: tensor {tensor.name!r}"
        if tensor.dtype not in ELEMENT_BYTES:
            raise ValueError(f"{where}: unknown dtype {tensor.dtype!r}; {suggestion(tensor.dtype, ELEMENT_BYTES)}")
        if tensor.role not in ROLES:
            raise ValueError(f"{where}: unknown role {tensor.role!r}; {suggestion(tensor.role, ROLES)}")
        if not tensor.shape or min(tensor.shape) < 1:
            raise ValueError(f"{where}: shape {shown(list(tensor.shape))} must be one or more positive integers")
        if len(tensor.shape) > 16 or max(tensor.shape) > MOST_DIMENSION or tensor.elements > MOST_ELEMENTS:
            raise ValueError(
                f"{where}: shape {shown(list(tensor.shape))} must be at most 16 sides of at most {MOST_DIMENSION}, and "
                f"{MOST_ELEMENTS} elements"
            )
    fewest, most = kind.inputs
    if not fewest <= len(op.inputs) <= most:
        allowed = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        raise ValueError(f"{_label(op)}: {len(op.inputs)} inputs, but {op.op} takes {allowed}")
    if len(op.outputs) != kind.outputs:
        raise ValueError(f"{_label(op)}: {len(op.outputs)} outputs, but {op.op} has {kind.outputs}")
    for name, expected in kind.attrs.items():
        if type(op.attrs.get(name)) is not expected:
            given = f"{shown(op.attrs[name])} is not" if name in op.attrs else "is missing; expected"
            raise ValueError(f"{_label(op)}: attrs.{name} {given} of type {expected.__name__}")
    _check_numbers(op)
    try:
        kind.check(op)
    except ValueError as error:
        raise ValueError(f"{_label(op)}: {error}") from None


def _check_numbers(op: Operator) -> None:
    """Attributes are numbers that stay exact in sums and products of a few of them."""
    waiting: list[tuple[str, Any]] = list(op.attrs.items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, list | tuple):
            waiting += [(name, item) for item in value]
        elif isinstance(value, dict):
            waiting += [(f"{name}.{key}", item) for key, item in value.items()]
        elif isinstance(value, int | float) and not abs(value) <= MOST_EXACT:
            raise ValueError(f"{_label(op)}: attrs.{name}={shown(value)} must be a number up to {MOST_EXACT}")


def _label(op: Operator) -> str:
    return f"operator {shown(op.id)} ({shown(op.name)})"

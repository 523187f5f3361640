"""Values of an axis that a sweep file states by a rule instead of one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from math import isfinite
from typing import Any

MAX_VALUES = 100_000
"""Of one axis; more is taken for a slip."""


def listed_values(stated: Any) -> Any:
    """``{range: [start, stop, step]}`` and ``{geometric: [start, stop, factor]}`` as a list; anything else as it is.

    ``stop`` belongs to the values if a step falls on it. Decimal fractions stay exact: 0, 0.1, 0.2, 0.3. Raises ValueError.
    """
    if not isinstance(stated, dict):
        return stated
    if len(stated) != 1 or next(iter(stated)) not in _RULES:
        raise ValueError("must be a list, {range: [start, stop, step]} or {geometric: [start, stop, factor]}")
    ((rule, arguments),) = stated.items()
    numbers = arguments if isinstance(arguments, list) else []
    if len(numbers) != 3 or any(
        isinstance(n, bool) or not isinstance(n, int | float) or not isfinite(n) for n in numbers
    ):
        raise ValueError(f"{rule} needs three numbers: [start, stop, {'step' if rule == 'range' else 'factor'}]")
    whole = all(isinstance(number, int) for number in numbers)
    values: list[int | float] = []
    for value in _RULES[rule](*(Decimal(str(number)) for number in numbers)):
        if len(values) == MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values")
        values.append(int(value) if whole else float(value))
    return values


def _range(start: Decimal, stop: Decimal, step: Decimal) -> Iterator[Decimal]:
    if step == 0 or (stop - start) * step < 0:
        raise ValueError(f"from {start} to {stop} there is no way in steps of {step}")
    return _between(start, stop, lambda value: value + step)


def _geometric(start: Decimal, stop: Decimal, factor: Decimal) -> Iterator[Decimal]:
    if start <= 0 or stop <= 0 or factor <= 0 or factor == 1 or (stop - start) * (factor - 1) < 0:
        raise ValueError(f"from {start} to {stop} there is no way in factors of {factor}")
    return _between(start, stop, lambda value: value * factor)


def _between(start: Decimal, stop: Decimal, following: Callable[[Decimal], Decimal]) -> Iterator[Decimal]:
    value, rising = start, stop >= start
    while value <= stop if rising else value >= stop:
        yield value
        value = following(value)


_RULES = {"range": _range, "geometric": _geometric}

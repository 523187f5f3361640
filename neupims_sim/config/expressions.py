"""Integer expressions over named values, as memory tables write latencies and derived timings."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import lru_cache

from neupims_sim.errors import shown

MOST_CHARACTERS = 200
MOST_VALUE = 2**40
"""Of a result and of every part of it; the longest timing of a table is far below."""


class ExpressionError(ValueError):
    """The text is not an expression of this kind."""


def evaluate(text: str, lookup: Callable[[str], int]) -> int:
    """The value of an expression of integers, names, + - * // and max, min; ``lookup`` gives the value of a name.

    Raises ExpressionError for any other text; what ``lookup`` raises passes through.
    """

    def value(node: ast.expr) -> int:
        found = operated(node)
        if isinstance(found, bool) or not isinstance(found, int | float):  # a table may hold anything
            raise ExpressionError(f"{shown(text)} refers to {shown(found)}, which is no number")
        if abs(found) > MOST_VALUE:
            raise ExpressionError(f"{shown(text)} yields more than {MOST_VALUE:,}")
        return found

    def operated(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)) if not isinstance(number, bool):
                return number
            case ast.Name(id=name):
                return lookup(name)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return value(left) + value(right)
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                return value(left) - value(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return value(left) * value(right)
            case ast.BinOp(left=left, op=ast.FloorDiv(), right=right) if (divisor := value(right)) != 0:
                return value(left) // divisor
            case ast.Call(func=ast.Name(id="max"), args=args, keywords=[]) if args:
                return max(value(a) for a in args)
            case ast.Call(func=ast.Name(id="min"), args=args, keywords=[]) if args:
                return min(value(a) for a in args)
        raise ExpressionError(f"{shown(text)} is not an expression of timing parameters, integers, + - * // max min")

    return value(_parsed(text))


@lru_cache(maxsize=4096)
def _parsed(text: str) -> ast.expr:
    """Parsed once: a sweep reads the same few hundred expressions for every point."""
    if len(text) > MOST_CHARACTERS:
        raise ExpressionError(f"{shown(text)} has {len(text):,} characters; allowed: up to {MOST_CHARACTERS}")
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ExpressionError(f"{shown(text)} is not an expression") from None


def expression_names(text: str) -> list[str]:
    """The names that an expression refers to, in order; raises ExpressionError as :func:`evaluate` does."""
    names: list[str] = []

    def lookup(name: str) -> int:
        names.append(name)
        return 1

    evaluate(text, lookup)
    return names

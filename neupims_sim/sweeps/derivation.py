"""Columns that are computed from others, by expressions such as ``"`operator_cycles.pooling` / cycles"``.

An expression has names of columns (in backticks where they are not Python names), numbers, texts, arithmetic, comparisons,
``and``, ``or``, ``not``, and the functions of one argument in :data:`FUNCTIONS`. Nothing else of Python is let through to
`pandas.DataFrame.eval`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from neupims_sim.errors import InputError, shown, suggestion

FUNCTIONS = ("abs", "ceil", "exp", "floor", "log", "log10", "sqrt")

MOST_CHARACTERS = 1_000
MOST_LEVELS = 50
"""Of operators in each other."""

_QUOTED = re.compile("`([^`]*)`")
_ALLOWED = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Name, ast.Constant),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.BitAnd, ast.BitOr),
    *(ast.unaryop, ast.boolop, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.expr_context),
)


def expression_problem(expression: str, known: Sequence[str]) -> str:
    """What is wrong with an expression over the columns ``known``, "" if nothing is."""
    columns = f"columns {suggestion('', known)}; functions {', '.join(FUNCTIONS)}"
    if "@" in expression or "__" in expression:
        return f"@ and __ are not allowed; {columns}"
    if len(expression) > MOST_CHARACTERS:
        return f"{len(expression):,} characters; allowed: up to {MOST_CHARACTERS:,}"
    quoted: list[str] = _QUOTED.findall(expression)
    try:
        tree = _parsed(expression)
    except (SyntaxError, ValueError) as error:
        return f"not an expression ({getattr(error, 'msg', error)}); {columns}"
    except (MemoryError, RecursionError):  # of the parser, however little there is to remember
        return "too many levels of operators and brackets in each other"
    if _depth(tree) > MOST_LEVELS:
        return f"more than {MOST_LEVELS} levels of operators in each other"
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            return f"a dot in {ast.unparse(node)!r}; write names with dots in backticks; {columns}"
        if not isinstance(node, _ALLOWED) or (isinstance(node, ast.Call) and not _is_allowed(node)):
            return f"{type(node).__name__} is not allowed; {columns}"
        if isinstance(node, ast.Constant) and not isinstance(node.value, int | float | str):
            return f"{node.value!r} is not allowed; {columns}"
        if isinstance(node, ast.Name) and node not in called:
            name = quoted[int(node.id.removeprefix("quoted__"))] if "__" in node.id else node.id
            if name not in known:
                return f"no column {shown(name)}; {suggestion(name, known)}"
    return ""


def _parsed(expression: str) -> ast.Expression:
    """The tree of an expression, ``quoted__0`` in it for its first name in backticks."""
    numbered = iter(range(len(expression)))
    return ast.parse(_QUOTED.sub(lambda match: f"quoted__{next(numbered)}", expression).strip(), mode="eval")


def _depth(tree: ast.AST) -> int:
    """Levels of nodes."""
    level, depth = [tree], 0
    while level:
        level, depth = [child for node in level for child in ast.iter_child_nodes(node)], depth + 1
    return depth


class _FloatConstants(ast.NodeTransformer):
    """Every integer as a float: 9 ** 9 ** 9 then is an overflow at once, and not a number of 370 million digits."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        is_integer = isinstance(node.value, int) and not isinstance(node.value, bool)
        return ast.Constant(float(node.value)) if is_integer else node  # type: ignore[arg-type]


def evaluate(table: pd.DataFrame, expression: str) -> Any:
    """The value of an expression in which there is no `expression_problem`; raises ValueError if there is none."""
    quoted: list[str] = _QUOTED.findall(expression)
    try:
        text = ast.unparse(_FloatConstants().visit(_parsed(expression)))
        text = re.sub(r"quoted__(\d+)", lambda match: f"`{quoted[int(match[1])]}`", text)
        with np.errstate(all="ignore"):
            return table.eval(text, engine="python")
    except (TypeError, ValueError, NotImplementedError, SyntaxError, ArithmeticError, AttributeError) as error:
        raise ValueError(" ".join(str(error).split())) from None


def _is_allowed(call: ast.Call) -> bool:
    named = isinstance(call.func, ast.Name) and call.func.id in FUNCTIONS
    return named and len(call.args) == 1 and not call.keywords


def derive(table: pd.DataFrame, expressions: Mapping[str, str]) -> dict[str, list[float | None]]:
    """The derived columns of a table; None where a number is missing or infinite (a division by zero).

    Raises InputError, naming the key, if an expression does not yield numbers.
    """
    numbers = pd.DataFrame({name: _as_numbers(table[name]) for name in table})
    derived: dict[str, list[float | None]] = {}
    for name, expression in expressions.items():
        try:
            column = pd.Series(evaluate(numbers, expression), index=table.index).astype(float)
        except (TypeError, ValueError) as error:
            raise InputError(f"derive.{name}={shown(expression)}: does not yield numbers: {error}") from None
        numbers[name] = column.where(np.isfinite(column))
        derived[name] = [None if np.isnan(value) else float(value) for value in numbers[name]]
    return derived


def _as_numbers(column: pd.Series[float]) -> pd.Series[float]:
    """A column as numbers if all of its cells are; as it is if not."""
    try:
        return pd.to_numeric(column)
    except (TypeError, ValueError):
        return column

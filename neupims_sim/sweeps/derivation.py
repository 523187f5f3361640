"""Columns that are computed from others, by expressions such as ``"`operator_cycles.pooling` / cycles"``.

An expression has names of columns (in backticks where they are not Python names), numbers, texts, arithmetic, comparisons,
``and``, ``or``, ``not``, and the functions of one argument in :data:`FUNCTIONS`. Nothing else of Python is let through to
`pandas.DataFrame.eval`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from neupims_sim.errors import InputError, suggestion

FUNCTIONS = ("abs", "ceil", "exp", "floor", "log", "log10", "sqrt")

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
    quoted: list[str] = _QUOTED.findall(expression)
    numbered = iter(range(len(quoted)))
    try:
        tree = ast.parse(_QUOTED.sub(lambda match: f"quoted__{next(numbered)}", expression).strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        return f"not an expression ({getattr(error, 'msg', error)}); {columns}"
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            return f"a dot in {ast.unparse(node)!r}; write names with dots in backticks; {columns}"
        if not isinstance(node, _ALLOWED) or (isinstance(node, ast.Call) and not _is_allowed(node)):
            return f"{type(node).__name__} is not allowed; {columns}"
        if isinstance(node, ast.Name) and node not in called:
            name = quoted[int(node.id.removeprefix("quoted__"))] if "__" in node.id else node.id
            if name not in known:
                return f"no column {name!r}; {suggestion(name, known)}"
    return ""


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
            with np.errstate(all="ignore"):
                values = numbers.eval(expression.strip(), engine="python")
            column = pd.Series(values, index=table.index).astype(float)
        except (TypeError, ValueError, NotImplementedError, SyntaxError, ArithmeticError, AttributeError) as error:
            problem = " ".join(str(error).split())
            raise InputError(f"derive.{name}={expression!r}: does not yield numbers: {problem}") from None
        numbers[name] = column.where(np.isfinite(column))
        derived[name] = [None if np.isnan(value) else float(value) for value in numbers[name]]
    return derived


def _as_numbers(column: pd.Series[float]) -> pd.Series[float]:
    """A column as numbers if all of its cells are; as it is if not."""
    try:
        return pd.to_numeric(column)
    except (TypeError, ValueError):
        return column

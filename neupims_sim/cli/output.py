"""Results on stdout, as a JSON object or as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table


def print_json(value: Mapping[str, Any]) -> None:
    """One object on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """A table on stdout; columns of numbers are set to the right, an empty row is a rule. In a pipe it is as wide as it needs to be."""
    shown = [list(row) for row in rows]
    table = Table()
    for index, column in enumerate(columns):
        numeric = bool(shown) and all(isinstance(row[index], int | float) for row in shown if row)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in shown:
        if row:
            table.add_row(*(_text(cell) for cell in row))
        else:
            table.add_section()
    console = Console(markup=False, highlight=False)
    if title:
        console.print(title, style="italic", soft_wrap=True)  # a line of a title stays one
    if not console.is_terminal:
        console.width = max(console.measure(table, options=console.options.update(width=1000)).maximum, 1)
    console.print(table)


def _text(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.2g}" if 0 < abs(cell) < 0.1 else f"{cell:,.2f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)

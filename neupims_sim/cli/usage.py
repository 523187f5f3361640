"""What is wrong with a command line, in one line with the nearest name."""

from __future__ import annotations

import re
from typing import Any

import typer
from pydantic import ValidationError

from neupims_sim.errors import shown, suggestion

UsageError: Any = typer.BadParameter.__bases__[0]
"""What Typer raises for a command line that it cannot read: a class of its own in newer versions, one of click in older ones."""


def describe(error: Any) -> str:
    """A usage error as ``run: no such option '--sett'; allowed: --json, ...; did you mean --set?``.

    Where a command is missing it is the help of the group, which has several lines.
    """
    context, message = error.ctx, error.format_message().rstrip(".").replace(" (env var: 'None')", "")
    if type(error).__name__ == "NoArgsIsHelpError":
        return str(message)
    if context is None:
        return _lowered(message)
    command = context.command_path.partition(" ")[2]
    return f"{command}: {_problem(error, message)}".removeprefix(": ")


def _problem(error: Any, message: str) -> str:
    context = error.ctx
    if hasattr(error, "possibilities") and hasattr(error, "option_name"):
        options = [name for parameter in context.command.get_params(context) for name in _names(parameter)]
        return f"no such option {shown(error.option_name)}; {suggestion(error.option_name, options)}"
    if unknown := re.match(r"No such command (['\"])(.*?)\1", message):
        return f"no such command {shown(unknown[2])}; {suggestion(unknown[2], context.command.list_commands(context))}"
    if choice := re.search(r"'([^']*)' is not one of (.*)", error.message):
        names = re.findall(r"'([^']*)'", choice[2])
        return f"{_name(error.param)} {shown(choice[1])}: not an option; {suggestion(choice[1], names)}"
    if isinstance(error.__cause__, ValidationError):
        first = error.__cause__.errors()[0]
        return f"{_name(error.param)} {shown(first['input'])}: {_lowered(first['msg'].replace('Input should', 'must'))}"
    return f"{_lowered(message)}; {_lowered(context.get_usage())}"


def _name(parameter: Any) -> str:
    """``--output``, ``CONFIG``."""
    return next(reversed(_names(parameter)), parameter.metavar or parameter.name.upper())


def _names(parameter: Any) -> list[str]:
    """``["-o", "--output"]``; of an argument none."""
    return [name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("-")]


def _lowered(text: str) -> str:
    return " ".join((text[:1].lower() + text[1:]).split())

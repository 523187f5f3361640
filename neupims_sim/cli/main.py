"""The ``neupims-sim`` program.

Exit code 0: ok; 2: bad input or a command line that cannot be read, one line on stderr; 1: a bug, in one line where a result cannot
be, else with traceback; 128 and the number of a signal that has ended the program, which says so in one line.
"""

from __future__ import annotations

import ast
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

import neupims_sim
from neupims_sim.cli.options import group
from neupims_sim.cli.usage import UsageError, describe
from neupims_sim.errors import IneffectiveKeyWarning, InputError, InternalError, clear_line
from neupims_sim.interruption import exit_code, interruptible

NAME = "neupims-sim"

COMMANDS: Mapping[str, tuple[str, str]] = {
    "list": ("listing", "list_names"),
    "run": ("run", "run"),
    "serve": ("serve", "serve"),
    "sweep": ("sweep", "sweep"),
    "results": ("sweep", "results"),
    "plot": ("plot", "plot"),
    "report": ("report", "report"),
    "experiment": ("experiment", "experiment"),
    "config": ("config", "app"),
    "memory": ("memory", "app"),
    "npu": ("npu", "app"),
    "trace": ("trace", "app"),
    "retrieve": ("retrieve", "retrieve"),
    "validate": ("validate", "validate"),
}
"""Module of this package, and the function or group in it, of every command; a module is loaded when its command is wanted."""


class _Program(TyperGroup):
    """The commands; an interruption by Ctrl-C, SIGTERM or SIGHUP is one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name]
        found = getattr(import_module(f"neupims_sim.cli.{module}"), attribute)
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(add_completion=False, rich_markup_mode=None)
            found.command(cmd_name)(function)
        return typer.main.get_command(found)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """What the source says of each command; to load them all would take a second."""
        known: dict[str, Any] = {
            name: TyperCommand(name, callback=None, help=_summary(*place)) for name, place in COMMANDS.items()
        }
        TyperGroup(commands=known).format_commands(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        try:
            with interruptible():
                return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            with suppress(OSError):  # the terminal may be gone
                print("error:", interrupt if str(interrupt) else "interrupted", file=sys.stderr)
            raise typer.Exit(exit_code(interrupt)) from None


def _summary(module: str, attribute: str) -> str:
    """The docstring of a command's function, or the text that its group is made with, as they stand in its module's file."""
    tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_bytes())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == attribute:
            return ast.get_docstring(node) or ""
        if (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == attribute
            and isinstance(node.value, ast.Call)
        ):
            return str(ast.literal_eval(node.value.args[0]))
    raise LookupError(f"{attribute} in {module}.py")


app = group("", name=NAME, cls=_Program, add_completion=True, context_settings={"help_option_names": ["-h", "--help"]})


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME} {neupims_sim.__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Simulate NPU+PIM accelerators with dual row buffers and sub-batch interleaving."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (``sys.argv`` unless given); ends in SystemExit, as console scripts do."""
    warnings.showwarning = _show_warning
    warnings.simplefilter("always", IneffectiveKeyWarning)
    try:
        _check_folder()
        code = app(None if arguments is None else list(arguments), prog_name=NAME, standalone_mode=False)
        if sys.stdout is not None:  # it may be closed
            sys.stdout.flush()
    except InputError as error:
        _fail(str(error))
    except InternalError as error:
        print("internal error:", clear_line(str(error)), file=sys.stderr)
        sys.exit(1)
    except UsageError as error:
        text = describe(error)
        if "\n" not in text:
            _fail(text)
        print(text, file=sys.stderr)
        code = error.exit_code
    except OSError as error:  # a full disk, a folder that is not there any more, ...
        _fail(f"{error.filename or 'output'}: {error.strerror or error}")
    except typer.Abort as abort:  # an EOFError, which is a bug as any other
        raise (abort.__cause__ or abort) from None
    sys.exit(code if isinstance(code, int) else 0)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Our own warnings are notes in one line; others as Python shows them."""
    if issubclass(category, IneffectiveKeyWarning):
        print("note:", clear_line(str(message)), file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=file or sys.stderr)


def _check_folder() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise InputError(f"the working directory cannot be used: {error.strerror}") from None


def _fail(message: str) -> NoReturn:
    print("error:", clear_line(message), file=sys.stderr)
    sys.exit(2)

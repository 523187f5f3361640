"""The ``neupims-sim`` program.

Exit code 0: ok; 2: bad input or a command line that cannot be read, one line on stderr; 1: a bug, with traceback; 128 and the number
of a signal that has ended the program, which says so in one line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import neupims_sim
from neupims_sim.cli import (
    config,
    experiment,
    listing,
    memory,
    npu,
    plot,
    report,
    retrieve,
    run,
    serve,
    sweep,
    trace,
    validate,
)
from neupims_sim.cli.usage import UsageError, describe
from neupims_sim.errors import InputError, clear_line
from neupims_sim.interruption import exit_code, interruptible

NAME = "neupims-sim"


class _Program(TyperGroup):
    """The commands; an interruption by Ctrl-C, SIGTERM or SIGHUP is one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with interruptible():
                return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            with suppress(OSError):  # the terminal may be gone
                print("error:", interrupt if str(interrupt) else "interrupted", file=sys.stderr)
            raise typer.Exit(exit_code(interrupt)) from None


app = typer.Typer(
    name=NAME,
    cls=_Program,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help is plain text: [brackets] are brackets
)


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


app.add_typer(config.app, name="config")
app.add_typer(memory.app, name="memory")
app.add_typer(npu.app, name="npu")
app.add_typer(trace.app, name="trace")
app.command("list")(listing.list_names)
app.command()(run.run)
app.command()(serve.serve)
app.command()(sweep.sweep)
app.command()(sweep.results)
app.command()(plot.plot)
app.command()(report.report)
app.command()(experiment.experiment)
app.command()(retrieve.retrieve)
app.command()(validate.validate)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (``sys.argv`` unless given); ends in SystemExit, as console scripts do."""
    try:
        _check_folder()
        code = app(None if arguments is None else list(arguments), prog_name=NAME, standalone_mode=False)
        if sys.stdout is not None:  # it may be closed
            sys.stdout.flush()
    except InputError as error:
        _fail(str(error))
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


def _check_folder() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise InputError(f"the working directory cannot be used: {error.strerror}") from None


def _fail(message: str) -> NoReturn:
    print("error:", clear_line(message), file=sys.stderr)
    sys.exit(2)

"""The ``neupims-sim`` program. Exit code 0: ok; 2: bad input, one line on stderr; 1: a bug, with traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

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
from neupims_sim.errors import InputError

app = typer.Typer(
    name="neupims-sim",
    help="Simulate NPU+PIM accelerators with dual row buffers and sub-batch interleaving.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
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
        app(None if arguments is None else list(arguments))
    except InputError as error:
        print("error:", " ".join(str(error).split("\n")), file=sys.stderr)
        sys.exit(2)

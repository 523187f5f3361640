"""``neupims-sim memory check``: whether a memory keeps the promises that the simulator builds on."""

from __future__ import annotations

from dataclasses import asdict

import typer

from neupims_sim.cli.memory_options import MemoryArgument, MemorySetOption, PresetOption
from neupims_sim.cli.options import JsonOption
from neupims_sim.cli.output import print_json, print_table


def check(
    memory: MemoryArgument,
    preset: PresetOption = "physical",
    set_: MemorySetOption = None,
    json: JsonOption = False,
) -> None:
    """Check that a memory conforms: conservation, time, bandwidth, capacity, determinism, PIM, legal commands, ...

    Exit code 0: all checks passed; 1: the memory fails some.
    """
    from neupims_sim.testing import ConformanceError, check_memory_model  # here: slow to load

    try:
        report = check_memory_model(memory, preset=preset, overrides=set_ or ())
    except ConformanceError as error:
        report = error.report
    if json:
        print_json(asdict(report) | {"passed": report.passed})
    else:
        print_table(
            ("check", "result", "promise, or why it was skipped"),
            (
                (result.name, result.status, result.note if result.status == "skipped" else result.promise)
                for result in report.results
            ),
            title=report.memory,
        )
        typer.echo(str(report))
    if not report.passed:
        raise typer.Exit(1)

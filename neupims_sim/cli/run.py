"""``neupims-sim run``: one configuration, simulated."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import rich.progress
import typer
from rich.console import Console

from neupims_sim.cli.options import ConfigArgument, JsonOption, SetOption
from neupims_sim.cli.output import print_json, print_table
from neupims_sim.config import Config, RetrievalConfig, TraceFileConfig, load_config
from neupims_sim.config.files import label
from neupims_sim.errors import InputError

if TYPE_CHECKING:
    from neupims_sim.simulation import Result


def run(
    config: ConfigArgument,
    set_: SetOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run directory; results/run-<configuration>-<hash> unless given.")
    ] = None,
    json: JsonOption = False,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Also write timeline.json.gz, for https://ui.perfetto.dev.")
    ] = False,
    timeline_window: Annotated[
        str | None,
        typer.Option(
            metavar="START:END",
            help="Cycles that the timeline shows, single commands included if they are few; the last steady-state layer unless given.",
        ),
    ] = None,
) -> None:
    """Simulate a decode iteration, an inference, a batch of queries or a trace, print the result, and write a run directory.

    The directory holds config.yaml (resolved), result.json, operators.csv, provenance.json and a timeline if asked for. Exit code 1 if the
    simulation cannot make progress.
    """
    from neupims_sim.simulation import (  # here: slow to load
        Origin,
        SimulationStalled,
        Timeline,
        check_run_directory,
        simulate,
        write_run,
    )

    window = None if timeline_window is None else _window(timeline_window)
    resolved = load_config(config, set_ or ())
    origin = Origin.of(config, set_ or ())
    directory = out or origin.directory("run", resolved)
    check_run_directory(directory, f"--out {directory}" if out else "")
    watcher = Timeline(window) if timeline or window is not None else None
    begin = time.perf_counter()
    try:
        with spinner(f"simulating {resolved.system}"):
            result = simulate(resolved, watcher)
    except SimulationStalled as stalled:
        typer.echo(f"error: the simulation stalled: {stalled}", err=True)
        raise typer.Exit(1) from None
    write_run(result, resolved, directory, time.perf_counter() - begin, watcher, origin)
    if json:
        print_json(result.to_json())
    else:
        _print_result(origin.name, resolved, result)
    typer.echo(f"results in {label(directory)}", err=True)


def _window(text: str) -> tuple[int, int]:
    cycles = re.fullmatch(r"(\d+):(\d+)", text)
    if cycles is None or not int(cycles[1]) < int(cycles[2]):
        raise InputError(f"--timeline-window {text!r} is not START:END in cycles with START < END, e.g. 0:500000")
    return int(cycles[1]), int(cycles[2])


@contextmanager
def spinner(what: str) -> Iterator[None]:
    """What is going on and for how long, on stderr if that is a terminal; gone afterwards."""
    if not sys.stderr.isatty():
        yield
        return
    columns = (
        rich.progress.SpinnerColumn(),
        rich.progress.TextColumn("{task.description}"),
        rich.progress.TimeElapsedColumn(),
    )
    with rich.progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(what, total=None)
        yield


_SHOWN_OPERATORS = 12
"""Operators that the summary lists, the longest first."""
_WORDS = {"llm": ("iteration", "layer"), "images": ("inference", "inference"), "retrieval": ("batch", "batch")}
"""What a run and a block of it are called, by kind of workload."""


def _subject(config: Config) -> str:
    """Model and workload, as far as they matter."""
    workload = config.workload
    if isinstance(workload, TraceFileConfig):
        return Path(workload.path).name
    if isinstance(workload, RetrievalConfig):
        searched = f"{workload.database:,} x {workload.dimensions}, rerank {workload.rerank}"
        return f"{config.model.name}, {searched}" if workload.extract else searched
    return config.model.name


def titled(name: str, config: Config) -> str:
    """A configuration's name and its system."""
    return name if name == config.system else f"{name} ({config.system})"


def _print_result(name: str, config: Config, result: Result) -> None:
    run, block = _WORDS.get(config.workload.kind, ("trace", "trace"))
    repeated = "layers" if config.workload.kind == "llm" else "repetitions"
    stages = [(f"stage {name}", cycles, "cycles") for name, cycles in result.stages.items()]
    shares = [(f"utilization {name}", 100 * share, "%") for name, share in result.utilization.items()]
    traffic = [(f"traffic {name}", size / 1e6, f"MB per {block}") for name, size in result.traffic_bytes.items()]
    energy = [
        (f"energy {cause.replace('_', ' ')}", 1e3 * joules, "mJ") for cause, joules in result.energy_joules.items()
    ]
    if result.average_power_w is not None and result.memory_power_w_per_channel is not None:
        energy += [
            ("average power", result.average_power_w, "W"),
            ("memory power", 1e3 * result.memory_power_w_per_channel, "mW per channel"),
        ]
    rows: list[tuple[str, float, str]] = [
        ("throughput", result.throughput_per_s, f"{result.item}/s"),
        (run, result.cycles, "cycles"),
        (run, 1000 * result.seconds, "ms"),
        ("latency", 1e3 * result.seconds * result.latency_cycles / result.cycles, "ms"),
        ("block", result.block_cycles, f"cycles per {block}"),
        *stages,
        *shares,
        *traffic,
        *energy,
    ]
    if result.pipeline.get("stages", 1) > 1:
        rows.insert(1, ("iteration of the pipeline", result.pipeline["iteration_cycles"], "cycles"))
    if result.throughput_ci95_per_s is not None:
        deviation = (
            f"95 % confidence, {result.snapshots} snapshots",
            result.throughput_ci95_per_s,
            f"+- {result.item}/s",
        )
        rows.insert(1, deviation)
    if result.mean_context_tokens is not None:
        rows.append(("mean context", result.mean_context_tokens, "tokens"))
    rows += [(f"background {name.replace('_', ' ')}", value, "") for name, value in result.background.items() if value]
    slowest = sorted(result.operator_cycles.items(), key=lambda item: -item[1])[:_SHOWN_OPERATORS]
    rows += [(f"operator {name}", cycles, "cycles") for name, cycles in slowest]
    title = (
        f"{titled(name, config)}: {_subject(config)}, batch {result.batch_size}, preset {config.preset}, interleaving "
        f"{result.interleaving}, {result.simulated_layers} of {result.layers} {repeated} simulated"
    )
    print_table(("metric", "value", "unit"), rows, title)

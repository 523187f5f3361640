"""``neupims-sim serve``: requests over time, on one system."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neupims_sim.cli.options import ConfigArgument, JsonOption, SetOption
from neupims_sim.cli.output import print_json, print_table
from neupims_sim.cli.run import spinner
from neupims_sim.cli.run_table import titled
from neupims_sim.config import Config, load_config
from neupims_sim.config.files import label
from neupims_sim.errors import InputError

if TYPE_CHECKING:
    from neupims_sim.serving import ServingResult

_LATENCIES = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "itl": "inter-token latency",
    "e2e": "end to end",
}
_STATISTICS = ("mean", "median", "p90", "p95", "p99")
_RATES = {
    "requests_per_s": "requests/s",
    "output_tokens_per_s": "output tokens/s",
    "total_tokens_per_s": "tokens/s",
    "goodput_per_s": "requests/s within the limits",
}


def serve(
    config: ConfigArgument,
    requests: Annotated[
        Path | None,
        typer.Option(
            "--requests", metavar="FILE", help="A file of requests, in any known format; sets serving.requests.path."
        ),
    ] = None,
    set_: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run directory; results/serve-<configuration>-<hash> unless given."),
    ] = None,
    json: JsonOption = False,
    iterations: Annotated[
        bool, typer.Option("--iterations", help="Also write iterations.jsonl, a line for every iteration.")
    ] = False,
    find_rate: Annotated[
        str | None,
        typer.Option(
            metavar="'METRIC:S ...'",
            help="Search the highest arrival rate at which metrics keep their limits, in seconds: 'ttft_p99:0.5 tpot_p99:0.05'.",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=1000, help="Searches of --find-rate, each with random streams of its own.")
    ] = 3,
) -> None:
    """Serve requests that arrive over time, print latencies and rates, and write a run directory.

    The directory holds config.yaml (resolved), result.json, requests.csv with the times of every request, provenance.json, and
    iterations.jsonl if asked for. With --find-rate it holds the last run that kept the limits.
    """
    from neupims_sim.serving import (
        ServingStalledError,  # here: slow to load
        parse_limits,
        serve,
    )
    from neupims_sim.serving import find_rate as search
    from neupims_sim.serving.output import iteration_writer, write_serving_run
    from neupims_sim.simulation import Origin, check_run_directory, run_directory

    limits = None if find_rate is None else parse_limits(find_rate)
    if limits is not None and iterations:
        raise InputError("--iterations and --find-rate exclude each other: a search runs many times")

    overrides = list(set_ or ())
    if requests is not None:
        overrides.append(f"serving.requests.path={str(requests)!r}")
    resolved = load_config(config, overrides)
    origin = Origin.of(config, overrides)
    directory = out or origin.directory("serve", resolved)
    check_run_directory(directory, f"--out {directory}" if out else "")
    found = None
    with run_directory(directory, resolved, origin=origin) as folder:
        writer = iteration_writer(folder) if iterations else nullcontext(None)
        try:
            if limits is not None:
                found = search(resolved, limits, seeds, on_run=_tell_run)
                result = found.result
            else:
                with spinner(f"serving on {resolved.system}"), writer as on_iteration:
                    result = serve(resolved, on_iteration)
        except ServingStalledError as stalled:
            typer.echo(f"error: serving stalled: {stalled}", err=True)
            raise typer.Exit(1) from None
        content = result.to_json() | ({} if found is None else {"find_rate": found.to_json()})
        write_serving_run(result, content, folder)
    for note in result.notes:
        typer.echo(f"note: {note}", err=True)
    if json:
        print_json(content)
    else:
        _print_result(origin.name, resolved, result)
        if found is not None:
            interval = "" if found.ci95 is None else f" +- {found.ci95:.3g} (95 % confidence, {len(found.rates)} seeds)"
            typer.echo(f"highest rate within {find_rate}: {found.rate:.4g}{interval} requests/s")
    typer.echo(f"results in {label(directory)}", err=True)


def _tell_run(seed: int, rate: float, kept: bool) -> None:
    typer.echo(f"seed {seed}: {rate:.4g} requests/s {'keeps' if kept else 'breaks'} the limits", err=True)


def _print_result(name: str, config: Config, result: ServingResult) -> None:
    metrics, steady = result.metrics, result.metrics["steady_state"]
    title = (
        f"{titled(name, config)}: {config.model.name}, {config.parallel.in_words}\n"
        f"{metrics['completed']:,} of {metrics['injected']:,} requests in {metrics['duration_s']:,.1f} s, "
        f"{config.serving.scheduler.policy}"
    )
    rows: list[tuple[str, object, object, str]] = []
    for key, unit in _RATES.items():
        if metrics[key] is not None:
            rows.append((key.removesuffix("_per_s").replace("_", " "), metrics[key], _cell(steady[key]), unit))
    counts = ("refused", "preemptions", "peak_running", "iterations")
    rows += [(name.replace("_", " "), metrics[name], "", "") for name in counts]
    if metrics["prefix_cache_hit_rate"] is not None:
        rows.append(("prefix cache hits", 100 * metrics["prefix_cache_hit_rate"], "", "% of prompt tokens"))
    print_table(("metric", "whole run", "steady state", "unit"), rows, title)
    latencies = [
        (f"{words}, {part}", *(_cell(values[f"{name}_{statistic}_s"], 1e3) for statistic in _STATISTICS))
        for name, words in _LATENCIES.items()
        for part, values in (("whole run", metrics), ("steady state", steady))
        if values.get(f"{name}_mean_s") is not None
    ]
    print_table(("latency, ms", *_STATISTICS), latencies)


def _cell(value: Any, factor: float = 1.0) -> object:
    return "" if value is None else factor * value

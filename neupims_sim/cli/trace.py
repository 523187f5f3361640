"""``neupims-sim trace``: make, show and check operator traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neupims_sim.cli.options import ConfigArgument, JsonOption, SetOption
from neupims_sim.cli.output import print_json, print_table
from neupims_sim.config import load_config
from neupims_sim.trace import check_trace, open_trace, summarize, total, write_trace
from neupims_sim.workloads import generate_llm, request_batch

app = typer.Typer(help="Make, show and check operator traces.", no_args_is_help=True)

OutputOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="F", help="The trace to write: *.jsonl or *.jsonl.gz.")
]
FileArgument = Annotated[Path, typer.Argument(metavar="F", help="A trace: *.jsonl or *.jsonl.gz.")]


@app.command()
def llm(config: ConfigArgument, output: OutputOption, set_: SetOption = None) -> None:
    """Write the trace of one iteration of the configured model and batch, on one tensor-parallel device."""
    resolved = load_config(config, set_ or ())
    workload = resolved.workload
    trace = generate_llm(
        resolved.model,
        request_batch(workload, resolved.seed).context_tokens,
        phase=workload.phase,
        tensor_parallel=resolved.parallel.tensor,
        lm_head=workload.lm_head,
        seed=resolved.seed,
    )
    write_trace(output, trace.header, trace.operators)
    typer.echo(f"{output}: {len(trace.operators)} operators")


@app.command()
def show(file: FileArgument, json: JsonOption = False) -> None:
    """Print what a trace amounts to: executions, FLOPs and bytes per operator, all layers and requests together."""
    header, operators = open_trace(file)
    rows = summarize(operators)
    sums = total(rows)
    if json:
        described = {
            "model": header.model,
            "phase": header.phase,
            "batch": header.batch,
            "dtype": header.dtype,
            "seed": header.seed,
            **header.attrs,
        }
        print_json({"header": described, "operators": rows, "total": sums})
        return
    sizes = {column: column.removesuffix("_bytes") for column in sums if column.endswith("_bytes") and sums[column]}
    columns = ("name", "op", "count", "GFLOP", *(f"{role} MB" for role in sizes.values()))
    last: dict[str, str | int] = {"name": "total", "op": "", **sums}
    table = [
        (row["name"], row["op"], row["count"], int(row["flops"]) / 1e9, *(int(row[column]) / 1e6 for column in sizes))
        for row in [*rows, last]
    ]
    title = f"{file}: {header.model} {header.phase}, batch {header.batch}, {header.dtype}"
    print_table(columns, table, title)


@app.command()
def check(file: FileArgument) -> None:
    """Read a trace to its end; the first mistake is reported with its line."""
    count = check_trace(file)
    typer.echo(f"{file}: ok, {count} operators")

"""``neupims-sim trace``: make, show and check operator traces."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from neupims_sim.cli.options import ConfigArgument, JsonOption, SetOption
from neupims_sim.cli.output import print_json, print_table
from neupims_sim.config import load_config
from neupims_sim.errors import InputError
from neupims_sim.trace import Trace, check_trace, open_trace, summarize, total, write_trace
from neupims_sim.workloads import generate_llm, generate_resnet, generate_retrieval, generate_vit, request_batch

app = typer.Typer(help="Make, show and check operator traces.", no_args_is_help=True)

OutputOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="F", help="The trace to write: *.jsonl or *.jsonl.gz.")
]
FileArgument = Annotated[Path, typer.Argument(metavar="F", help="A trace: *.jsonl or *.jsonl.gz.")]
ImageSizeOption = Annotated[str, typer.Option(metavar="S", help="Pixels: the side of a square, or HEIGHTxWIDTH.")]
BatchOption = Annotated[int, typer.Option(metavar="B", help="Images per batch.")]


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
    _write(output, trace)


@app.command()
def vit(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="vit-s16, vit-b16, vit-l16 or vit-h14.")],
    output: OutputOption,
    image_size: ImageSizeOption = "224",
    batch: BatchOption = 1,
    pooling: Annotated[str, typer.Option(metavar="P", help="cls, average, max, gem or ggem.")] = "cls",
    groups: Annotated[
        int | None, typer.Option(metavar="G", help="Groups of ggem. [default: one per head]", show_default=False)
    ] = None,
) -> None:
    """Write the trace of one inference of a vision transformer."""
    size = _image_size(image_size)
    _write(output, generate_vit(model, image_size=size, batch=batch, pooling=pooling, groups=groups))


@app.command()
def resnet(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="resnet50 or resnet101.")],
    output: OutputOption,
    image_size: ImageSizeOption = "224",
    batch: BatchOption = 1,
    head: Annotated[
        str, typer.Option(metavar="HEAD", help="classifier, or superglobal: the descriptor of three scales.")
    ] = "classifier",
) -> None:
    """Write the trace of one inference of a ResNet."""
    _write(output, generate_resnet(model, image_size=_image_size(image_size), batch=batch, head=head))


@app.command()
def retrieval(
    output: OutputOption,
    database: Annotated[int, typer.Option(metavar="N", help="Vectors in the database.")] = 1_000_000,
    dimensions: Annotated[int, typer.Option(metavar="D", help="Dimensions of a vector.")] = 2048,
    queries: Annotated[int, typer.Option(metavar="Q", help="Queries per batch.")] = 1,
    top: Annotated[int, typer.Option(metavar="M", help="Results of a query, all of which are reranked.")] = 400,
    rerank: Annotated[str, typer.Option(metavar="HOW", help="superglobal, cvnet, rrt or none.")] = "superglobal",
    extract: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Extract the queries' descriptors first: resnet50 or resnet101."),
    ] = None,
    image_size: ImageSizeOption = "768x1024",
) -> None:
    """Write the trace of a search of an image database, with reranking; the image size is for extract and cvnet."""
    trace = generate_retrieval(
        database=database,
        dimensions=dimensions,
        queries=queries,
        top_m=top,
        rerank=rerank,
        extract=extract,
        image_size=_image_size(image_size),
    )
    _write(output, trace)


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


def _write(output: Path, trace: Trace) -> None:
    write_trace(output, trace.header, trace.operators)
    typer.echo(f"{output}: {len(trace.operators)} operators")


def _image_size(text: str) -> tuple[int, int]:
    """Height and width of ``S`` or ``HxW``."""
    sides = re.fullmatch(r"([0-9]{1,6})(?:x([0-9]{1,6}))?", text)
    if sides is None:
        raise InputError(f"trace: --image-size {text!r} is neither a side nor HEIGHTxWIDTH, e.g. 224 or 768x1024")
    return int(sides[1]), int(sides[2] or sides[1])

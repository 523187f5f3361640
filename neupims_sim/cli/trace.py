"""``neupims-sim trace``: make, show and check operator traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neupims_sim.cli.options import ConfigArgument, JsonOption, SetOption, group
from neupims_sim.cli.options import image_size as parse_size
from neupims_sim.cli.output import print_json, print_table
from neupims_sim.cli.trace_import import import_file
from neupims_sim.config import (
    ModelConfig,
    ResnetConfig,
    VitConfig,
    WorkloadConfig,
    load_config,
    load_model,
    load_section,
)
from neupims_sim.errors import InputError
from neupims_sim.trace import Trace, check_trace, open_trace, summarize, total, write_trace
from neupims_sim.workloads import generate_llm, generate_resnet, generate_retrieval, generate_vit, request_batch

app = group("Make, show and check operator traces.")
app.command("import")(import_file)

OutputOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="F", help="The trace to write: *.jsonl or *.jsonl.gz.")
]
FileArgument = Annotated[Path, typer.Argument(metavar="F", help="A trace: *.jsonl or *.jsonl.gz.")]
ImageSizeOption = Annotated[str, typer.Option(metavar="S", help="Pixels: the side of a square, or HEIGHTxWIDTH.")]
HeadOption = Annotated[str, typer.Option(metavar="HEAD", help="classifier, or descriptor: the global descriptor.")]
PoolingOption = Annotated[str, typer.Option(metavar="P", help="Of a ViT: cls, average, max, gem or ggem.")]
BatchOption = Annotated[int, typer.Option(metavar="B", help="Images per batch.")]


@app.command()
def llm(config: ConfigArgument, output: OutputOption, set_: SetOption = None) -> None:
    """Write the trace of one iteration of the configured model and batch, on one tensor-parallel device."""
    resolved = load_config(config, set_ or ())
    model, workload = resolved.model, resolved.workload
    if not (isinstance(model, ModelConfig) and isinstance(workload, WorkloadConfig)):
        raise InputError(f"trace llm: {config} runs {model.name} on {workload.name}, which is no language model")
    trace = generate_llm(
        model,
        request_batch(workload, resolved.seed).context_tokens,
        phase=workload.phase,
        tensor_parallel=resolved.parallel.tensor,
        lm_head=workload.lm_head,
        seed=resolved.seed,
    )
    _write(output, trace)


@app.command()
def vit(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="vit-s16, vit-b16, vit-l16, vit-h14, or a model file.")],
    output: OutputOption,
    image_size: ImageSizeOption = "224",
    batch: BatchOption = 1,
    pooling: PoolingOption = "cls",
    groups: Annotated[
        int | None, typer.Option(metavar="G", help="Groups of ggem. [default: one per head]", show_default=False)
    ] = None,
    head: HeadOption = "classifier",
) -> None:
    """Write the trace of one inference of a vision transformer."""
    size = parse_size(image_size, "trace")
    _write(
        output,
        generate_vit(
            load_model(model, VitConfig), image_size=size, batch=batch, pooling=pooling, groups=groups, head=head
        ),
    )


@app.command()
def resnet(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="resnet50, resnet101, or a model file.")],
    output: OutputOption,
    image_size: ImageSizeOption = "224",
    batch: BatchOption = 1,
    head: HeadOption = "classifier",
) -> None:
    """Write the trace of one inference of a ResNet."""
    _write(
        output,
        generate_resnet(
            load_model(model, ResnetConfig), image_size=parse_size(image_size, "trace"), batch=batch, head=head
        ),
    )


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
        typer.Option(metavar="MODEL", help="Extract the queries' descriptors first: a ViT or a ResNet."),
    ] = None,
    image_size: ImageSizeOption = "768x1024",
    pooling: PoolingOption = "ggem",
) -> None:
    """Write the trace of a search of an image database, with reranking; the image size is for extract and cvnet."""
    trace = generate_retrieval(
        database=database,
        dimensions=dimensions,
        queries=queries,
        top_m=top,
        rerank=rerank,
        extract=None if extract is None else _extractor(extract),
        pooling=pooling,
        image_size=parse_size(image_size, "trace"),
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
    devices = header.attrs.get("tensor_parallel", 1)
    shard = f", the share of one of {devices} devices" if devices != 1 else ""
    title = f"{file}: {header.model} {header.phase}, batch {header.batch}, {header.dtype}{shard}"
    print_table(columns, table, title)


@app.command()
def check(file: FileArgument) -> None:
    """Read a trace to its end; the first mistake is reported with its line."""
    count = check_trace(file)
    typer.echo(f"{file}: ok, {count} operators")


def _write(output: Path, trace: Trace) -> None:
    write_trace(output, trace.header, trace.operators)
    typer.echo(f"{output}: {len(trace.operators)} operators")


def _extractor(name: str) -> VitConfig | ResnetConfig:
    model = load_section("model", name)
    if isinstance(model, VitConfig):
        return model
    return load_model(name, ResnetConfig)

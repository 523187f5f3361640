"""``neupims-sim trace import``: traces and model descriptions from files of other tools."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from neupims_sim.cli.options import image_size as parse_size
from neupims_sim.errors import InputError
from neupims_sim.trace import write_trace
from neupims_sim.writing import replaced


def import_file(
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help="huggingface, scalesim or onnx.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A config.json, a topology *.csv, or a model *.onnx.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="The trace to write, *.jsonl or *.jsonl.gz; or of huggingface *.yaml, a model for --set model=./OUT.",
        ),
    ],
    batch: Annotated[int | None, typer.Option(metavar="B", help="Requests or images. [default: 1]")] = None,
    context: Annotated[
        int | None,
        typer.Option(metavar="L", help="Of an LLM: tokens of each request in the cache or prompt. [default: 1024]"),
    ] = None,
    phase: Annotated[str | None, typer.Option(metavar="P", help="Of an LLM: decode (default) or prefill.")] = None,
    tensor: Annotated[
        int | None, typer.Option(metavar="TP", help="Of an LLM: tensor-parallel devices, of which one. [default: 1]")
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="S", help="Of a ViT: pixels, a side or HEIGHTxWIDTH. [default: the file's]")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT=SHAPE", help="Of onnx: the shape of an input, e.g. images=1x3x224x224. Repeatable."
        ),
    ] = None,
) -> None:
    """Make an operator trace of a model file: huggingface (config.json), scalesim (topology CSV) or onnx."""
    from neupims_sim.workloads.importing import ImportOptions, import_trace  # here, because only this command needs it

    options = ImportOptions(
        batch=batch,
        context=context,
        phase=phase,
        tensor=tensor,
        image_size=None if image_size is None else parse_size(image_size, "trace import"),
        shape=_shapes(shape or ()),
    )
    if output.suffix in (".yaml", ".yml"):
        notes = _write_model(format_name, file, output, options.given())
        written = str(output)
    elif output.name.endswith((".jsonl", ".jsonl.gz")):
        trace, notes = import_trace(format_name, file, options)
        write_trace(output, trace.header, trace.operators)
        written = f"{output}: {len(trace.operators)} operators"
    else:
        raise InputError(f"trace import: -o {output}: must be a trace, *.jsonl or *.jsonl.gz, or a model, *.yaml")
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(written)


def _write_model(format_name: str, file: Path, output: Path, given: list[str]) -> tuple[str, ...]:
    from neupims_sim.workloads.importing import import_model, model_yaml

    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"trace import: -o {output} writes the model, to which {flags} does not belong")
    imported = import_model(format_name, file)
    text = model_yaml(imported, f"Imported from {file.name} ({format_name}).")
    with replaced(output, f"trace import: -o {output}") as temporary:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", newline="")
    return imported.notes


def _shapes(texts: list[str] | tuple[()]) -> dict[str, tuple[int, ...]]:
    """Shapes by input of ``["images=1x3x224x224", ...]``."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, sides = text.rpartition("=")
        if not (equals and name and re.fullmatch(r"[0-9]{1,9}(x[0-9]{1,9})*", sides)):
            raise InputError(f"trace import: --shape {text!r}: write INPUT=SHAPE, e.g. images=1x3x224x224")
        if name in shapes:
            raise InputError(f"trace import: --shape {text!r}: the shape of {name!r} is given twice")
        shapes[name] = tuple(map(int, sides.split("x")))
        if min(shapes[name]) < 1:
            raise InputError(f"trace import: --shape {text!r}: every side must be at least 1")
    return shapes

"""``neupims-sim npu``: the NPU's closed forms on the command line."""

from __future__ import annotations

import json
import re
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from neupims_sim.cli.options import group
from neupims_sim.config.bounds import Dimension, require
from neupims_sim.config.explain import explain
from neupims_sim.config.schema import SystolicConfig
from neupims_sim.errors import InputError
from neupims_sim.npu import Gemm, share_gemm, utilization

app = group("Cycles of the NPU's units, without memory.")


@app.callback()
def npu() -> None:
    """Cycles of the NPU's units, without memory."""


@app.command()
def gemm(
    m: Annotated[int, typer.Argument(metavar="M", help="Rows of the activations (tokens).")],
    k: Annotated[int, typer.Argument(metavar="K", help="Inner dimension.")],
    n: Annotated[int, typer.Argument(metavar="N", help="Columns of the weights.")],
    dataflow: Annotated[str, typer.Option(help="What stays in the array: ws, os or is.")] = "ws",
    array: Annotated[str, typer.Option(metavar="RxC", help="Rows x columns of one array.")] = "128x128",
    arrays: Annotated[int, typer.Option(help="How many arrays share the GEMM.")] = 1,
    preload: Annotated[str, typer.Option(help="serial (as SCALE-Sim) or overlapped.")] = "overlapped",
    convention: Annotated[
        str, typer.Option(help="physical: cycles; scale_sim: index of the last, one less, as SCALE-Sim reports it.")
    ] = "physical",
    sharing: Annotated[str, typer.Option(help="How the arrays share the GEMM.")] = "split_n",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compute cycles of an M x K times K x N product, operands on chip."""
    for name, value in (("M", m), ("K", k), ("N", n)):
        require(f"npu gemm: {name}", value, Dimension)
    systolic = _systolic(
        array, arrays=arrays, dataflow=dataflow, preload=preload, convention=convention, sharing=sharing
    )
    shape = Gemm(m, k, n)
    cycles = share_gemm(shape, systolic).occupancy.cycles
    result = {
        "compute_cycles": cycles,
        "utilization": utilization(shape.macs, cycles, systolic),
        "macs": shape.macs,
    }
    if as_json:
        typer.echo(json.dumps(result))
        return
    table = Table(title=f"GEMM {m} x {k} x {n} on {arrays} x {array} {dataflow}, {preload} preload")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, figure in result.items():
        table.add_row(name, f"{figure:.4f}" if isinstance(figure, float) else f"{figure:,}")
    Console().print(table)


def _systolic(array: str, **options: object) -> SystolicConfig:
    """The arrays as a configuration section; a bad value is an InputError of one line."""
    size = re.fullmatch(r"([0-9]{1,9})[xX]([0-9]{1,9})", array)
    if size is None:
        raise InputError(f"npu gemm: --array {array!r} is not ROWSxCOLUMNS, e.g. 128x128")
    try:
        return SystolicConfig.model_validate({"rows": int(size[1]), "columns": int(size[2]), **options})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"npu gemm: {first['loc'][0]}{explain(SystolicConfig, first)}") from None

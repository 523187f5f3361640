"""Compare what ``measure.py`` wrote with the roofline of a system: ``python compare.py MEASUREMENTS.csv gpu_h100``.

Writes ``comparison.csv``, ``comparison.md`` and ``comparison.pdf`` and ``.png`` beside the measurements, or into ``--out``.
Launches are not part of the measured times, so the roofline stands without ``kernel_launch_s`` here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from neupims_sim.config import GpuConfig, LinkConfig, ModelConfig, load_config, load_model
from neupims_sim.errors import InputError
from neupims_sim.plots.files import save_figure
from neupims_sim.plots.style import INK, PALETTE, STYLE
from neupims_sim.system.gpu import kernel_seconds, kernels
from neupims_sim.workloads import generate_llm
from neupims_sim.writing import write_text

COLUMNS = ("date", "device", "driver", "torch", "model", "tensor", "batch", "context", "kernel", "seconds")
KEYS = ["model", "tensor", "batch", "context"]


def main(arguments: list[str] | None = None) -> int:
    """Compare and write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", type=Path, metavar="CSV")
    parser.add_argument("system", help="a GPU system, e.g. gpu_h100")
    parser.add_argument("--out", type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        gpu = load_config(options.system).gpu
        if gpu is None:
            raise InputError(f"{options.system}: no GPU system (it has no gpu section)")
        table = compare(read_measurements(options.measurements), gpu)
        write(table, gpu, options.out or options.measurements.parent)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(summary(table).to_string())
    return 0


def read_measurements(path: Path) -> pd.DataFrame:
    """The rows of a CSV of ``measure.py``; raises InputError."""
    try:
        table = pd.read_csv(path)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing; needed: {', '.join(COLUMNS)}")
    if not len(table) or not (pd.to_numeric(table["seconds"], errors="coerce") > 0).all():
        raise InputError(f"{path}: every row needs seconds above 0, and there must be rows")
    return table


def compare(measured: pd.DataFrame, gpu: GpuConfig) -> pd.DataFrame:
    """``measured`` with ``roofline_seconds`` and ``fraction``, the part of the roofline that was reached."""
    bare = gpu.model_copy(update={"kernel_launch_s": 0.0})
    parts = []
    for key, rows in measured.groupby(KEYS, sort=False):
        assert isinstance(key, tuple)
        model, tensor, batch, context = str(key[0]), *(int(value) for value in key[1:])
        seconds = _roofline(load_model(model, ModelConfig), tensor, batch, context, bare)
        unknown = set(rows["kernel"]) - seconds.keys()
        if unknown:
            raise InputError(f"kernel {min(unknown)!r} is not in a block of {model}; allowed: {', '.join(seconds)}")
        parts.append(rows.assign(roofline_seconds=rows["kernel"].map(seconds)))
    table = pd.concat(parts).sort_index()
    return table.assign(fraction=table["roofline_seconds"] / table["seconds"])


def _roofline(model: ModelConfig, tensor: int, batch: int, context: int, gpu: GpuConfig) -> dict[str, float]:
    trace = generate_llm(model, np.full(batch, context), tensor_parallel=tensor)
    return {kernel.name: kernel_seconds(kernel, gpu, LinkConfig()) for kernel in kernels(trace.operators)}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Lowest, median and highest fraction of the roofline per kernel."""
    return table.groupby("kernel", sort=False)["fraction"].agg(["count", "min", "median", "max"])


def write(table: pd.DataFrame, gpu: GpuConfig, directory: Path) -> None:
    """Table and figure; each file appears whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "comparison.csv", table.to_csv(index=False, lineterminator="\n"))
    write_text(directory / "comparison.md", _page(table, gpu))
    for suffix in (".pdf", ".png"):
        save_figure(_figure(table, gpu), directory / f"comparison{suffix}")


def _page(table: pd.DataFrame, gpu: GpuConfig) -> str:
    first = table.iloc[0]
    lines = [
        f"Measured on {first['device']} (driver {first['driver']}, PyTorch {first['torch']}) on {first['date']}; "
        f"roofline of {gpu.name}.",
        "",
        "| kernel | shapes | lowest | median | highest share of the roofline |",
        "|---|---|---|---|---|",
    ]
    for name, row in summary(table).iterrows():
        lines.append(f"| {name} | {row['count']:.0f} | {row['min']:.2f} | {row['median']:.2f} | {row['max']:.2f} |")
    return "\n".join([*lines, ""])


def _figure(table: pd.DataFrame, gpu: GpuConfig) -> Figure:
    """Measured time over the roofline's, one marker per shape."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.5, 3.5))
        axes = figure.subplots()
        for number, (name, rows) in enumerate(table.groupby("kernel", sort=False)):
            colour = PALETTE[number % len(PALETTE)]
            axes.loglog(1e6 * rows["roofline_seconds"], 1e6 * rows["seconds"], "o", ms=4, color=colour, label=name)
        ends = 1e6 * np.array([table["roofline_seconds"].min(), table["roofline_seconds"].max()])
        axes.loglog(ends, ends, "-", color=INK, lw=0.8, label="roofline")
        axes.set_xlabel(f"Roofline of {gpu.name} (µs)")
        axes.set_ylabel(f"{table.iloc[0]['device']} (µs)")
        axes.legend()
    return figure


if __name__ == "__main__":
    sys.exit(main())

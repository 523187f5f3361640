"""The table of a run: what people look for first, then times, shares, traffic and energy of the units that the system has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neupims_sim.cli.output import print_table
from neupims_sim.config import Config, RetrievalConfig, TraceFileConfig
from neupims_sim.units import ONE_ITEM

if TYPE_CHECKING:
    from neupims_sim.simulation import Result

Row = tuple[str, float, str]
"""Name, value, unit."""

_SHOWN_OPERATORS = 12
"""Operators that are listed, the longest first."""
_WORDS = {"llm": ("iteration", "layer"), "images": ("inference", "inference"), "retrieval": ("batch", "batch")}
"""What a run and a block of it are called, by kind of workload."""


def print_result(name: str, config: Config, result: Result) -> None:
    """Print the table of a run; ``name`` is what the configuration is called."""
    run, block = _WORDS.get(config.workload.kind, ("trace", "trace"))
    stages = result.pipeline.get("stages", 1)
    moving = block if stages == 1 else f"block, {stages} layers"
    sections = (
        _headline(result, run),
        _times(result, run, block),
        _present(config, "utilization", result.utilization, 100, "%"),
        _present(config, "traffic", result.traffic_bytes, 1e-6, f"MB per {moving}"),
        _present(config, "energy", result.energy_joules, 1e3, f"mJ per {run}"),
        [(f"background {name.replace('_', ' ')}", value, "") for name, value in result.background.items() if value],
        _operators(result),
    )
    print_table(("metric", "value", "unit"), _ruled(sections), _title(name, config, result))


def titled(name: str, config: Config) -> str:
    """A configuration's name and its system."""
    return name if name == config.system else f"{name} ({config.system})"


def _title(name: str, config: Config, result: Result) -> str:
    repeated = "layers" if config.workload.kind == "llm" else "repetitions"
    if result.pipeline.get("stages", 1) > 1:
        repeated += " of a stage"
    return (
        f"{titled(name, config)}: {_subject(config)}, batch {result.batch_size}, {config.parallel.in_words}\n"
        f"preset {config.preset}, interleaving {result.interleaving}, "
        f"{result.simulated_layers} of {result.layers} {repeated} simulated"
    )


def _subject(config: Config) -> str:
    """Model and workload, as far as they matter."""
    workload = config.workload
    if isinstance(workload, TraceFileConfig):
        return Path(workload.path).name
    if isinstance(workload, RetrievalConfig):
        searched = f"{workload.database:,} x {workload.dimensions}, rerank {workload.rerank}"
        return f"{config.model.name}, {searched}" if workload.extract else searched
    return config.model.name


def _headline(result: Result, run: str) -> list[Row]:
    one = ONE_ITEM[result.item]
    rows = [("throughput", result.throughput_per_s, f"{result.item}/s")]
    if result.throughput_ci95_per_s is not None:
        name = f"95 % confidence, {result.snapshots} snapshots"
        rows.append((name, result.throughput_ci95_per_s, f"+- {result.item}/s"))
    time = "time per output token" if result.item == "tokens" else f"time per {run}"
    rows.append((time, 1e3 * result.seconds, "ms"))
    if result.latency_cycles != result.cycles:
        rows.append(("latency", 1e3 * result.seconds * result.latency_cycles / result.cycles, "ms"))
    if result.energy_per_item_joules is not None:
        total = sum(result.energy_joules.values())
        rows += [
            (f"energy per {one}", 1e3 * result.energy_per_item_joules, "mJ"),
            ("energy in total", 1e3 * total, f"mJ per {run}"),
        ]
    if result.average_power_w is not None and result.memory_power_w_per_channel is not None:
        rows += [
            ("average power", result.average_power_w, "W"),
            ("memory power", 1e3 * result.memory_power_w_per_channel, "mW per channel"),
        ]
    if result.mean_context_tokens is not None:
        rows.append(("mean context", result.mean_context_tokens, "tokens"))
    return rows


def _times(result: Result, run: str, block: str) -> list[Row]:
    rows: list[Row] = [(run, result.cycles, "cycles")]
    if result.pipeline.get("stages", 1) > 1:
        rows += [
            (
                "micro-batches",
                result.pipeline["micro_batches"],
                f"{result.pipeline['simulated_micro_batches']} simulated",
            ),
            ("pipeline stage", result.pipeline["stage_cycles"], "cycles per micro-batch"),
        ]
    if run != block:
        rows.append(("block", result.block_cycles, f"cycles per {block}"))
    return [*rows, *((f"stage {name}", cycles, "cycles") for name, cycles in result.stages.items())]


def _present(config: Config, what: str, figures: Mapping[str, float], factor: float, unit: str) -> list[Row]:
    """The figures of units that the system has; a GPU's result has no others."""
    absent = []
    if config.memory.row_buffers == "none":
        absent.append("pim")
    if config.parallel.link.topology == "none" or config.parallel.devices == 1:
        absent.append("link")
    return [
        (f"{what} {name.replace('_', ' ')}", factor * value, unit)
        for name, value in figures.items()
        if name.partition("_")[0] not in absent
    ]


def _operators(result: Result) -> list[Row]:
    slowest = sorted(result.operator_cycles.items(), key=lambda item: -item[1])[:_SHOWN_OPERATORS]
    return [(f"operator {name}", cycles, "cycles") for name, cycles in slowest if cycles]


def _ruled(sections: Iterable[Sequence[Row]]) -> list[Sequence[object]]:
    """The rows of all sections with an empty one, a rule, between two."""
    rows: list[Sequence[object]] = []
    for section in sections:
        if section:
            rows += [(), *section] if rows else section
    return rows

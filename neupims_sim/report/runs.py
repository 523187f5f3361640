"""The report of one run."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from neupims_sim.config.files import label, parse_yaml, read_text
from neupims_sim.errors import InputError
from neupims_sim.report.content import (
    Cell,
    Column,
    Fact,
    Provenance,
    Table,
    Timelines,
    counted,
    duration,
    environment_facts,
    number,
    with_shares,
)
from neupims_sim.report.timelines import find_timelines
from neupims_sim.simulation.directory import CONFIG, OPERATORS, PROVENANCE, RESULT
from neupims_sim.sweeps import Labels
from neupims_sim.sweeps.store import scalars
from neupims_sim.units import ONE_ITEM

MAX_OPERATORS = 2_000
"""Rows of operators.csv that the page lists; all count in the summary of operators."""

_UTILIZATION = {
    "npu": "Systolic arrays",
    "pim": "PIM dot-products",
    "bandwidth": "Memory bandwidth",
    "pim_busy": "PIM busy or waiting",
    "link": "Link",
}


class Total(NamedTuple):
    """All records of one operator on one unit."""

    times: int
    cycles: int
    macs: int
    longest: int


@dataclass(frozen=True)
class RunPage:
    """What the page of a run shows, from top to bottom."""

    title: str
    name: str
    facts: list[Fact]
    bars: list[Table]
    tables: list[Table]
    warnings: list[str]
    config: str
    """YAML."""
    timelines: Timelines
    provenance: Provenance
    kind: str = field(default="run", init=False)


def read_run_page(directory: Path, output: Path) -> RunPage:
    """The page of a run directory; raises InputError if a file of it cannot be read."""
    result, provenance = _read_json(directory / RESULT), _read_json(directory / PROVENANCE)
    text = read_text(directory / CONFIG)
    config = parse_yaml(text, label(directory / CONFIG))
    totals, records, count = _read_operators(directory / OPERATORS)
    warnings = []
    if count > len(records):
        warnings.append(f"The table of operators lists the first {len(records):,} of {count:,}; {OPERATORS} has all.")
    operators = [_operator_totals(totals), _operators(records)] if totals else []
    bars = [_shares(result), _cycles(result, "stages", "Stages", "Stage"), _energy(result)]
    return RunPage(
        title=_title(provenance.get("configuration"), config, result),
        name=directory.absolute().name,
        facts=_headline(result, config),
        bars=[table for table in bars if table.rows],
        tables=[*operators, _figures(result)],
        warnings=warnings,
        config=text,
        timelines=find_timelines(directory, output, set()),
        provenance=_provenance(directory, provenance),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{label(path)}: not valid JSON: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{label(path)}: holds {type(content).__name__}, an object is needed")
    return content


def _section(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A mapping within a mapping, empty if there is none."""
    found = tree.get(key)
    return found if isinstance(found, Mapping) else {}


def _title(name: object, config: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """The configuration's name, where it is not its system's; system, model, workload, batch and devices."""
    model, workload = _section(config, "model").get("name"), _section(config, "workload").get("name")
    system = Labels().value("system", config.get("system", "run"))
    own = name if name != config.get("system") else None
    batch = f"batch {result['batch_size']}" if "batch_size" in result else None
    count = result.get("devices")
    devices = counted(count, "device") if count else None
    return ", ".join(str(part) for part in (own, system, model, workload, batch, devices) if part)


def _headline(result: Mapping[str, Any], config: Mapping[str, Any]) -> list[Fact]:
    """The numbers that people look for first, as far as there are such."""
    unit = f"{result.get('item', 'items')}/s"
    shown = (
        ("Throughput", "throughput_per_s", 1.0, unit),
        ("95 % confidence", "throughput_ci95_per_s", 1.0, f"± {unit}"),
        ("Time per output token" if result.get("item") == "tokens" else "Time", "seconds", 1e3, "ms"),
        (f"Energy per {ONE_ITEM.get(str(result.get('item')), 'item')}", "energy_per_item_joules", 1e3, "mJ"),
        ("Average power", "average_power_w", 1.0, "W"),
        ("Devices", "devices", 1.0, ""),
        ("Cycles", "cycles", 1.0, ""),
        ("Cycles of a block", "block_cycles", 1.0, ""),
        ("Mean context", "mean_context_tokens", 1.0, "tokens"),
    )
    facts = [
        Fact(name, f"{_short(result[key] * factor)} {unit}".rstrip())
        for name, key, factor, unit in shown
        if isinstance(result.get(key), Real)
    ]
    facts += [Fact(key.capitalize(), str(config[key])) for key in ("preset",) if key in config]
    return [*facts, Fact("Interleaving", str(result["interleaving"]))] if "interleaving" in result else facts


def _short(value: float) -> str:
    """Four digits or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.4g}"


def _shares(result: Mapping[str, Any]) -> Table:
    values = _section(result, "utilization")
    cells = with_shares((number(share) for share in values.values()), 1.0)
    rows = [
        [Cell(_UTILIZATION.get(name, name)), cell._replace(text=f"{100 * (cell.value or 0):.1f}")]
        for name, cell in zip(values, cells, strict=True)
    ]
    return Table("utilization-table", "Utilization", [Column("Unit"), Column("Share", "%", numeric=True)], rows)


def _cycles(result: Mapping[str, Any], key: str, caption: str, head: str) -> Table:
    values = _section(result, key)
    cells = with_shares(number(cycles) for cycles in values.values())
    rows = [[Cell(name), cell] for name, cell in zip(values, cells, strict=True)]
    return Table(f"{key}-table", caption, [Column(head), Column("Length", "cycles", numeric=True)], rows)


def _energy(result: Mapping[str, Any]) -> Table:
    values = {name: joules for name, joules in _section(result, "energy_joules").items() if isinstance(joules, Real)}
    cells = with_shares(number(1e3 * float(joules), 3) for joules in values.values())
    whole = sum(map(float, values.values()))
    rows = [
        [Cell(name.replace("_", " ")), cell, number(100 * float(joules) / whole if whole else None, 1)]
        for (name, joules), cell in zip(values.items(), cells, strict=True)
    ]
    columns = [Column("Cause"), Column("Energy", "mJ", numeric=True), Column("Share", "%", numeric=True)]
    return Table("energy-table", "Energy of the run, all devices", columns, rows)


def _figures(result: Mapping[str, Any]) -> Table:
    """Everything in result.json."""
    labels = Labels()
    rows = []
    for key, value in scalars(result).items():
        cell = number(value) if isinstance(value, Real) and not isinstance(value, bool) else Cell(str(value))
        shown = labels.column(key).name
        rows.append([Cell(key), cell, Cell("" if shown == key else shown)])
    columns = [Column("Key"), Column("Value", numeric=True), Column("Called")]
    return Table("figures-table", "All figures of result.json", columns, rows, filters=True)


def _read_operators(path: Path) -> tuple[dict[tuple[str, str], Total], list[dict[str, str]], int]:
    """Totals by operator and unit, the first records, and how many there are; nothing without the file."""
    if not path.is_file():
        return {}, [], 0
    totals: dict[tuple[str, str], Total] = {}
    kept: list[dict[str, str]] = []
    count = 0
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for count, record in enumerate(csv.DictReader(file), start=1):
                if count <= MAX_OPERATORS:
                    kept.append(record)
                key = record["operator"], record["unit"]
                cycles = int(record["end_cycle"]) - int(record["start_cycle"])
                before = totals.get(key, Total(0, 0, 0, 0))
                totals[key] = Total(
                    before.times + 1,
                    before.cycles + cycles,
                    before.macs + int(record["macs"]),
                    max(before.longest, cycles),
                )
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        problem = f"no column {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise InputError(f"{label(path)}: not the operators of a run (row {count}): {problem}") from None
    return totals, kept, count


def _operator_totals(totals: Mapping[tuple[str, str], Total]) -> Table:
    whole = with_shares(number(total.cycles) for total in totals.values())
    rows = [
        [
            Cell(name),
            Cell(unit),
            number(total.times),
            cycles,
            number(total.cycles / total.times, 0),
            number(total.longest),
            number(total.macs / 1e6, 1),
        ]
        for ((name, unit), total), cycles in zip(totals.items(), whole, strict=True)
    ]
    columns = [
        Column("Operator"),
        Column("Unit"),
        Column("Times", numeric=True),
        Column("All", "cycles", numeric=True),
        Column("Mean", "cycles", numeric=True),
        Column("Longest", "cycles", numeric=True),
        Column("Multiply-accumulates", "million", numeric=True),
    ]
    note = "cycles from the end of what an operator depends on to its own end; operators overlap"
    return Table("totals-table", "Operators", columns, rows, note)


def _operators(records: Iterable[Mapping[str, str]]) -> Table:
    rows = [
        [
            *(Cell(record[name]) for name in ("operator", "unit")),
            *(_integer(record.get(name)) for name in ("layer", "sub_batch", "request", "start_cycle", "end_cycle")),
            number(int(record["end_cycle"]) - int(record["start_cycle"])),
            _integer(record.get("macs")),
        ]
        for record in records
    ]
    columns = [
        Column("Operator", filtered=True),
        Column("Unit", filtered=True),
        Column("Layer", numeric=True, filtered=True),
        Column("Sub-batch", numeric=True, filtered=True),
        Column("Request", numeric=True),
        Column("Start", "cycle", numeric=True),
        Column("End", "cycle", numeric=True),
        Column("Length", "cycles", numeric=True),
        Column("Multiply-accumulates", numeric=True),
    ]
    return Table("operators-table", "Operators one by one", columns, rows, filters=True)


def _integer(text: str | None) -> Cell:
    return number(int(text)) if text and text.removeprefix("-").isdecimal() else Cell(text or "")


def _provenance(directory: Path, stored: Mapping[str, Any]) -> Provenance:
    facts = environment_facts(stored)
    if isinstance(stored.get("overrides"), list) and stored["overrides"]:
        facts.append(Fact("Overrides", " ".join(map(str, stored["overrides"])), code=True))
    for key in ("seed", "config_hash", "finished"):
        if key in stored:
            facts.append(Fact(key.replace("_", " ").capitalize(), str(stored[key]), code=key == "config_hash"))
    if isinstance(stored.get("wall_seconds"), Real):
        facts.append(Fact("Wall time", duration(float(stored["wall_seconds"]))))
    return Provenance([*facts, Fact("Run directory", label(directory), code=True)])

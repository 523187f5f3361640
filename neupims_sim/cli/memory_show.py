"""``neupims-sim memory show``: what a memory table amounts to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neupims_sim.cli.memory_options import MemoryArgument, MemorySetOption, PresetOption
from neupims_sim.cli.options import JsonOption
from neupims_sim.cli.output import print_json, print_table
from neupims_sim.config import load_memory
from neupims_sim.errors import InputError

if TYPE_CHECKING:
    from neupims_sim.memory import ResolvedSpec
    from neupims_sim.memory.inspection import ActiveConstraint

_DERIVED = {
    "channel_bandwidth_gbps": "peak bandwidth of a channel, GB/s",
    "bandwidth_gbps": "peak bandwidth of the device, GB/s",
    "pim_bandwidth_gbps": "PIM-internal bandwidth of the device, GB/s",
    "channel_bytes": "capacity of a channel, B",
    "capacity_bytes": "capacity of the device, B",
    "page_bytes": "page (a bank's row), B",
    "row_cycle_cycles": "row cycle, cycles",
    "open_row_read_cycles": "idle read, its row open, cycles",
    "closed_row_read_cycles": "idle read, no row open, cycles",
    "conflict_read_cycles": "idle read, another row open, cycles",
    "refresh_share": "share of a bank's time that refresh takes",
}


def show(
    memory: MemoryArgument,
    preset: PresetOption = "physical",
    set_: MemorySetOption = None,
    json: JsonOption = False,
    matrix: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw the least distances between commands: a pdf, png or svg file."),
    ] = None,
) -> None:
    """Show a memory: organisation, figures that follow from it, policies, and its timing constraints in cycles."""
    config = load_memory(memory, preset, set_ or ())
    from neupims_sim.memory import resolve  # here, because the engine is slow to load

    spec = resolve(config, preset)
    if config.model == "command":
        from neupims_sim.memory.device import build_table

        build_table(spec)  # the engine has limits of its own
    if matrix is not None:
        _draw(spec, matrix)
    if json:
        print_json(_facts(spec, preset))
    else:
        _print(spec, preset)


def _draw(spec: ResolvedSpec, path: Path) -> None:
    config = spec.config
    if config.model != "command":
        raise InputError(f"memory show: --matrix: {config.name} is of model {config.model!r}; allowed: model 'command'")
    from neupims_sim.plots.command_matrix import draw_command_matrix  # here, because Matplotlib is slow to load
    from neupims_sim.plots.files import check_format, save_figure

    check_format(path)
    save_figure(draw_command_matrix(spec), path)
    typer.echo(f"{path} written", err=True)


def _facts(spec: ResolvedSpec, preset: str) -> dict[str, Any]:
    from neupims_sim.memory.inspection import derived_figures

    config = spec.config
    return {
        **config.model_dump(include={"name", "model", "row_buffers", "speed", "source"}),
        "organization": config.organization.model_dump(),
        "derived": dataclasses.asdict(derived_figures(spec)),
        "controller": config.controller.model_dump(),
        "pim": config.pim.model_dump() if spec.has_pim else None,
        "timing": dict(config.timing),
        "command_cycles": dict(config.command_cycles),
        "constraints": [row._asdict() for row in _constraints(spec, preset)],
    }


def _constraints(spec: ResolvedSpec, preset: str) -> list[ActiveConstraint]:
    from neupims_sim.memory.inspection import active_constraints

    return active_constraints(spec, preset) if spec.config.model == "command" else []


def _print(spec: ResolvedSpec, preset: str) -> None:
    facts, constraints = _facts(spec, preset), _constraints(spec, preset)
    derived, period = facts["derived"], 1 / spec.config.organization.clock_ghz
    print_table(
        ("organisation", "value"),
        ((key, str(value)) for key, value in [*_kind(spec), *facts["organization"].items()]),
        title=spec.config.name,
    )
    print_table(
        ("figure", "value"), ((text, _shown(derived[name])) for name, text in _DERIVED.items() if derived[name])
    )
    settings = [(part, key, value) for part in ("controller", "pim") for key, value in (facts[part] or {}).items()]
    print_table(("setting", "value"), ((f"{part}.{key}", str(value)) for part, key, value in settings))
    print_table(("timing", "cycles", "ns"), ((key, cycles, cycles * period) for key, cycles in facts["timing"].items()))
    if constraints:
        _print_constraints(constraints)


def _kind(spec: ResolvedSpec) -> list[tuple[str, str]]:
    kinds = {"model": spec.config.model, "row_buffers": spec.config.row_buffers, "speed": spec.config.speed}
    return [(key, value) for key, value in kinds.items() if value]


def _print_constraints(constraints: Iterable[ActiveConstraint]) -> None:
    rows = [
        {
            "scope": row.scope,
            "previous": " ".join(row.previous),
            "next": " ".join(row.next),
            "latency": row.latency,
            "cycles": f"{row.cycles}" + (f" + {row.cycles_per_dot} per dot" if row.cycles_per_dot else ""),
            "window": str(row.window) if row.window > 1 else "",
            "when": " ".join(row.when),
            "source": row.source,
        }
        for row in constraints
    ]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    print_table(columns, ([row[name] for name in columns] for row in rows), title="timing constraints")


def _shown(figure: float) -> str:
    return f"{figure:,}" if isinstance(figure, int) else f"{figure:,.4g}" if figure < 1 else f"{figure:,.1f}"

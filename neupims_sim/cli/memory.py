"""``neupims-sim memory``: memories, without the rest of a system."""

from __future__ import annotations

from neupims_sim.cli.memory_check import check
from neupims_sim.cli.memory_import import import_table
from neupims_sim.cli.memory_replay import replay
from neupims_sim.cli.memory_show import show
from neupims_sim.cli.memory_timeline import timeline
from neupims_sim.cli.options import JsonOption, group
from neupims_sim.cli.output import print_json, print_table
from neupims_sim.config import MemoryConfig, available, load_memory
from neupims_sim.config.files import label

app = group("Memories, without the rest of a system.")


@app.command("list")
def list_memories(json: JsonOption = False) -> None:
    """List the memories in configs/memory."""
    memories = {name: (load_memory(name), path) for name, path in available("memory").items()}
    if json:
        print_json({name: _facts(memory) | {"file": label(path)} for name, (memory, path) in memories.items()})
        return
    print_table(
        ("name", "title", "model", "row buffers", "channels", "capacity GiB", "peak GB/s", "file"),
        ((name, *_facts(memory).values(), label(path)) for name, (memory, path) in memories.items()),
    )


def _facts(memory: MemoryConfig) -> dict[str, str | int | float]:
    organization = memory.organization
    per_bus = organization.burst_bytes / organization.burst_cycles * organization.clock_ghz
    return {
        "title": memory.name,
        "model": memory.model,
        "row_buffers": memory.row_buffers,
        "channels": organization.channels,
        "capacity_gib": organization.capacity_bytes / 2**30,
        "peak_gbps": per_bus * organization.pseudo_channels * organization.channels,
    }


app.command()(check)
app.command()(show)
app.command()(replay)
app.command("import")(import_table)
app.command()(timeline)

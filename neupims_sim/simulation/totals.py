"""Totals of a run up to a moment, and what follows from them: energy, utilization, traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from neupims_sim.config import Config
from neupims_sim.memory.device import Counters
from neupims_sim.memory.energy import memory_energy_joules
from neupims_sim.npu.energy import npu_energy_joules
from neupims_sim.simulation.work import OperatorTotals


@dataclass(frozen=True)
class Totals:
    """What has been done up to a moment, or (a difference of two) between two moments."""

    cycle: float
    counters: Counters
    npu_macs: float
    array_cycles: float
    vector_cycles: float
    link_cycles: float
    operators: OperatorTotals

    def plus(self, first: Totals, last: Totals, times: float) -> Totals:
        """These totals and ``times`` what was done from ``first`` to ``last``."""
        return sum_of([(1, self), (times, last), (-times, first)])

    def __add__(self, other: Totals) -> Totals:
        return sum_of([(1, self), (1, other)])

    def since(self, first: Totals) -> Totals:
        """What was done from ``first`` to this moment."""
        return sum_of([(1, self), (-1, first)])

    def per(self, parts: int) -> Totals:
        """An equal part."""
        return sum_of([(1 / parts, self)])


def sum_of(terms: Sequence[tuple[float, Totals]]) -> Totals:
    """The sum of factor x totals."""
    total: Totals = _sum_of(*terms)
    return total


def _sum_of(*terms: tuple[float, Any]) -> Any:
    """The sum of factor x value, field by field."""
    _, like = terms[0]
    if is_dataclass(like) and not isinstance(like, type):
        names = [field.name for field in fields(like)]
        return type(like)(
            **{name: _sum_of(*((factor, getattr(value, name)) for factor, value in terms)) for name in names}
        )
    if isinstance(like, Mapping):
        keys = dict.fromkeys(key for _, value in terms for key in value)
        return {key: _sum_of(*((factor, value.get(key, 0)) for factor, value in terms)) for key in keys}
    return sum(factor * value for factor, value in terms)


def energy_joules(config: Config, at: Totals) -> dict[str, float]:
    """Energy of a device by cause, J; nothing where the memory's table has no ``power``."""
    memory = config.memory
    if memory.power is None:
        return {}
    memory_cycles = at.cycle * memory.organization.clock_ghz / config.clock_ghz
    dma_bytes = (at.counters.reads + at.counters.writes) * memory.organization.burst_bytes
    spent = npu_energy_joules(config.npu, macs=at.npu_macs, vector_cycles=at.vector_cycles, dma_bytes=dma_bytes)
    return memory_energy_joules(memory, at.counters, memory_cycles, config.npu.element_bytes) | spent


def utilization(config: Config, block: Totals) -> dict[str, float]:
    """Shares of the peak in the block (docs/metrics.md)."""
    cycles = max(1, block.cycle)
    organization, systolic, counters = config.memory.organization, config.npu.systolic, block.counters
    memory_cycles = cycles * organization.clock_ghz / config.clock_ghz
    slots = organization.channels * memory_cycles
    bursts = counters.reads + counters.writes
    dot_cycles = config.memory.timing.get("tDOT", 0)
    # Bursts and dot-products count where they are issued, and memory cycles are whole: so much may hang over the end.
    edge = organization.burst_cycles / memory_cycles
    memory = {
        "pim": counters.dot_products * dot_cycles / slots,
        "bandwidth": bursts * organization.burst_cycles / (slots * organization.pseudo_channels),
        "pim_busy": counters.pim_busy_cycles / slots,
    }
    memory |= {unit: 1.0 for unit, share in memory.items() if 1 < share <= 1 + edge}
    return {
        "npu": block.npu_macs / (cycles * systolic.arrays * systolic.rows * systolic.columns),
        "pim": memory["pim"],
        "bandwidth": memory["bandwidth"],
        "npu_busy": block.array_cycles / cycles,
        "vector_busy": block.vector_cycles / cycles,
        "pim_busy": memory["pim_busy"],
        "link": block.link_cycles / cycles,
    }


def traffic_bytes(config: Config, block: Totals) -> dict[str, float]:
    """Bytes that a device moves in the block: read and written over the bus, and read from open rows by dot-products."""
    organization, pim = config.memory.organization, config.memory.pim
    dot_bytes = organization.banks * pim.multipliers_per_bank * config.npu.element_bytes
    return {
        "read": block.counters.reads * organization.burst_bytes,
        "write": block.counters.writes * organization.burst_bytes,
        "pim_internal": block.counters.dot_products * dot_bytes,
    }

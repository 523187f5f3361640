"""What every operator did: FLOPs, bytes, and the cycles in which something of it was under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from neupims_sim.config import Config


@dataclass(frozen=True)
class OperatorTotals:
    """Sums up to a moment (or between two), by name of the operator."""

    flops: Mapping[str, float] = field(default_factory=dict)
    bytes: Mapping[str, float] = field(default_factory=dict)
    busy_cycles: Mapping[str, float] = field(default_factory=dict)


class OperatorTally:
    """Adds up while a run goes on."""

    def __init__(self) -> None:
        self.unit: dict[str, str] = {}
        """Where an operator's FLOPs are done."""
        self._flops: Counter[str] = Counter()
        self._bank_bytes: Counter[str] = Counter()
        self._busy: Counter[str] = Counter()
        self._spans: dict[str, list[tuple[int, int]]] = {}
        """Busy intervals of each operator, apart from each other and in order."""

    def done(self, name: str, unit: str, operations: int) -> None:
        """An operator has ended, with so many FLOPs."""
        self.unit[name] = unit
        self._flops[name] += operations

    def read_in_banks(self, name: str, size_bytes: int) -> None:
        """PIM has read so many bytes from open rows, padding included."""
        self._bank_bytes[name] += size_bytes

    def busy(self, name: str, start: int, end: int) -> None:
        """Something of the operator was under way; intervals come in the order of their ends and may overlap."""
        spans = self._spans.setdefault(name, [])
        while spans and spans[-1][1] >= start:
            earlier = spans.pop()
            self._busy[name] -= earlier[1] - earlier[0]
            start, end = min(start, earlier[0]), max(end, earlier[1])
        spans.append((start, end))
        self._busy[name] += end - start

    def totals(self, dma_bytes: Mapping[str, int]) -> OperatorTotals:
        """The sums so far; bytes are those of the DMA (``dma_bytes``), for an operator in PIM those inside the banks."""
        return OperatorTotals(dict(self._flops), {**dma_bytes, **self._bank_bytes}, dict(self._busy))


def peaks(config: Config) -> dict[str, float]:
    """What one device could do at most, per second; PIM only where the memory has it (docs/metrics.md)."""
    hertz, memory_hertz = config.clock_ghz * 1e9, config.memory.organization.clock_ghz * 1e9
    systolic, vector, organization = config.npu.systolic, config.npu.vector, config.memory.organization
    buses = organization.channels * organization.pseudo_channels
    found = {
        "npu_flops_per_s": 2 * systolic.arrays * systolic.rows * systolic.columns * hertz,
        "vector_flops_per_s": vector.units * vector.lanes * hertz,
        "memory_bytes_per_s": buses * organization.burst_bytes / organization.burst_cycles * memory_hertz,
    }
    dot_cycles = config.memory.timing.get("tDOT", 0)
    if config.memory.row_buffers != "none" and dot_cycles:
        slots = organization.channels * memory_hertz / dot_cycles
        macs = slots * organization.banks * config.memory.pim.multipliers_per_bank
        found |= {"pim_flops_per_s": 2 * macs, "pim_bytes_per_s": macs * config.npu.element_bytes}
    return found

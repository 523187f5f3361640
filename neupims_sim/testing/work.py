"""What the conformance suite asks of a memory: transfers and PIM programs, and random series of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neupims_sim.memory.engine import READ, WRITE
from neupims_sim.memory.models import MemoryModel, SimEvent
from neupims_sim.memory.program import GWRITE, TILE, PimProgram

Operation = tuple[int, int, int, int]
"""(kind, row, readouts, dot-products per readout), as in :class:`~neupims_sim.memory.PimProgram`."""


@dataclass(frozen=True)
class Transfer:
    """A read or write of a byte range (of one channel, where ``channel`` is given) at a device cycle."""

    cycle: int
    kind: int
    address: int
    size_bytes: int
    channel: int | None = None

    def start(self, model: MemoryModel) -> SimEvent:
        """Ask it of a model."""
        if self.channel is None:
            return model.transfer(self.kind, self.address, self.size_bytes)
        return model.transfer_in_channel(self.kind, self.channel, self.address, self.size_bytes)

    def bursts(self, burst_bytes: int) -> int:
        """Bursts that it touches."""
        return -(-(self.address + self.size_bytes) // burst_bytes) - self.address // burst_bytes

    def __str__(self) -> str:
        where = "" if self.channel is None else f" of channel {self.channel}"
        kind = "write" if self.kind == WRITE else "read"
        return f"{kind} of {self.size_bytes} B at {self.address:#x}{where}, at cycle {self.cycle}"


@dataclass(frozen=True)
class Program:
    """A PIM program for one channel at a device cycle."""

    cycle: int
    channel: int
    operations: tuple[Operation, ...]
    release: int | None = None
    """Device cycle before which its operations may not start."""

    @property
    def program(self) -> PimProgram:
        """As a model takes it."""
        return PimProgram.build(self.operations)

    def start(self, model: MemoryModel) -> SimEvent:
        """Ask it of a model."""
        release = None if self.release is None else np.full(len(self.operations), self.release, dtype=np.int64)
        return model.run_program(self.channel, self.program, release)

    def __str__(self) -> str:
        program = self.program
        return (
            f"PIM program of {program.gwrites} GWRITEs, {program.tiles} tiles and {program.dots} dot-products "
            f"on channel {self.channel}, at cycle {self.cycle}"
        )


Work = Transfer | Program

PIM_ROWS = 16
"""Rows at the end of every bank that only PIM programs use. As in a simulation, PIM and transfers never want the same row."""


@dataclass(frozen=True)
class Space:
    """Where work can go: the sizes of a memory."""

    capacity_bytes: int
    channels: int
    rows: int
    burst_bytes: int
    peak_bytes_per_cycle: float
    row_dots: int
    """Dot-products over one row of a bank."""

    @property
    def transfer_bytes(self) -> int:
        """Addresses that only transfers use."""
        return self.capacity_bytes // self.rows * max(1, self.rows - PIM_ROWS)

    def mixed_transfers(self, seed: int, in_channels: bool) -> list[Transfer]:
        """Reads and writes of all sizes: at once and apart, at random addresses, in one bank, in single channels."""
        random = np.random.default_rng([seed, 0])
        end, channel_end = self.transfer_bytes, self.transfer_bytes // self.channels
        works, cycle = [], 0

        def transfer(most: int, channel: int | None = None) -> Transfer:
            limit = end if channel is None else channel_end
            size = min(int(random.integers(1, most)), limit)
            address = int(random.integers(0, limit - size + 1))
            return Transfer(cycle, int(random.choice([READ, READ, WRITE])), address, size, channel)

        for index in range(96):
            cycle += int(random.choice([0, 0, 0, 1, 7, 50, 400]))
            works.append(transfer(200 if index % 2 else 8192))
        row_stride = self.capacity_bytes // self.rows
        works += [Transfer(cycle, READ, row * row_stride % end, 1) for row in range(8)]
        for _ in range(16 if in_channels else 0):
            cycle += int(random.choice([0, 3, 200]))
            works.append(transfer(2048, int(random.integers(0, self.channels))))
        return works

    def much_at_once(self) -> list[Transfer]:
        """Two reads and two writes at cycle 0, each of what the declared bandwidth moves in 64 cycles."""
        burst = self.burst_bytes
        most = max(burst, self.transfer_bytes // 4 // burst * burst)
        size = min(max(burst, int(self.peak_bytes_per_cycle * 64) // burst * burst), most)
        return [Transfer(0, kind, index * size, size) for index, kind in enumerate((READ, READ, WRITE, WRITE))]

    def mixed_programs(self, seed: int) -> list[Program]:
        """PIM programs of all sizes on random channels."""
        random = np.random.default_rng([seed, 1])

        def operation() -> Operation:
            row = self.rows - 1 - int(random.integers(0, min(PIM_ROWS, self.rows)))
            if random.random() < 0.3:
                return (GWRITE, row, 0, 0)
            readouts = int(random.integers(1, min(8, self.row_dots) + 1))
            return (TILE, row, readouts, int(random.integers(1, self.row_dots // readouts + 1)))

        works, cycle = [], 0
        for _ in range(12):
            cycle += int(random.choice([0, 0, 60, 900]))
            operations = tuple(operation() for _ in range(int(random.integers(1, 6))))
            works.append(Program(cycle, int(random.integers(0, self.channels)), operations))
        return works

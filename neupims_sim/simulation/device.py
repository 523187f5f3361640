"""The device of a run: clock, memory, NPU, and who may use PIM."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

from neupims_sim.config import Config
from neupims_sim.memory.models import MemoryModel, build_memory
from neupims_sim.memory.program import PimProgram
from neupims_sim.npu.device import WRITE, Npu
from neupims_sim.simulation.observations import Observations
from neupims_sim.simulation.timeline import Timeline
from neupims_sim.simulation.totals import Totals
from neupims_sim.simulation.watchdog import Watchdog
from neupims_sim.system.link import Link

SimEvent = simpy.events.Event
Process = Generator[SimEvent, Any, None]
Int64Array = npt.NDArray[np.int64]


class PimTurns:
    """Who may hand a channel its next PIM program: the lowest turn first, a decoder's older layer before its newer one.

    A channel gets at most two programs at a time, one to execute and one to follow it without a gap; the rest wait here,
    so that a sub-batch's attend does not queue behind all logits of the other sub-batch.
    """

    def __init__(self, env: simpy.Environment, memory: MemoryModel, timeline: Timeline | None = None) -> None:
        self._memory = memory
        self._timeline = timeline
        self._channels = [simpy.PriorityResource(env, capacity=2) for _ in range(memory.capabilities.channels)]

    def run(self, channel: int, program: PimProgram, priority: tuple[int, ...], release: Int64Array | None) -> Process:
        """Run a program when its turn comes; ends with its last result."""
        with self._channels[channel].request(priority=priority) as turn:  # type: ignore[arg-type]
            if self._timeline is not None:
                self._timeline.under_way("turns", turn)
            yield turn
            yield self._memory.run_program(channel, program, release)


@dataclass(frozen=True)
class Device:
    """Everything that the processes of one run share."""

    config: Config
    env: simpy.Environment
    memory: MemoryModel
    npu: Npu
    pim: PimTurns
    link: Link
    seen: Observations

    @staticmethod
    def build(config: Config, timeline: Timeline | None = None) -> Device:
        """The configured device at cycle 0; ``timeline`` watches it."""
        env, seen = simpy.Environment(), Observations()
        model = build_memory(
            env,
            config.memory,
            preset=config.preset,
            clock_ghz=config.clock_ghz,
            log=timeline is not None,
            element_bytes=config.npu.element_bytes,
        )
        if timeline is not None:
            timeline.watch(config, model, seen)
        memory = Watchdog(model, config.simulation.watchdog_cycles, seen, timeline)
        npu = Npu(env, config.npu, memory, memory.busy)
        link = Link(env, config.parallel.link, config.clock_ghz, memory.busy)
        return Device(config, env, memory, npu, PimTurns(env, memory, timeline), link, seen)

    @property
    def now(self) -> int:
        """The present cycle."""
        return int(self.env.now)

    def totals(self) -> Totals:
        """What has been done so far."""
        return Totals(
            self.now,
            self.memory.counters(),
            self.npu.arrays.macs,
            self.npu.arrays.busy_cycles,
            self.npu.vectors.busy_cycles,
            self.link.unit.busy_cycles,
            self.seen.work.totals(self.npu.moved_bytes),
        )

    def write_row(self, channel: int, row: int, size_bytes: int) -> SimEvent:
        """The NPU writes bytes of a channel, from the first byte of ``row`` on: operands and data of PIM."""
        organization = self.config.memory.organization
        address = row * organization.banks * organization.row_bytes
        return self.memory.transfer_in_channel(WRITE, channel, address, size_bytes)

    def count_pim_macs(self, dots: int) -> int:
        """Count dot-products, each of all multipliers of all banks; returns their multiply-accumulates."""
        memory = self.config.memory
        macs = dots * memory.organization.banks * memory.pim.multipliers_per_bank
        self.seen.pim_macs += macs
        return macs

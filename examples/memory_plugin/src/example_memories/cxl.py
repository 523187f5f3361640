"""Memory behind CXL links."""

from __future__ import annotations

import math
from typing import Any

import simpy

from neupims_sim.config import MemoryConfig
from neupims_sim.memory import MemoryModel


class CxlMemory(MemoryModel):
    """CXL.mem: ``organization.channels`` full-duplex links that work as one, with DRAM that keeps up behind them.

    A burst of 64 B is one flit. Reads come up the link and writes go down, so they do not wait for each other. Requests and
    acknowledgements share flits with data of the other direction and take no room of their own.

    Timing parameters, in cycles of the table's clock:

    - ``tFLIT``: one flit in one direction of one link;
    - ``tLINK``: one way through ports, controllers and wires;
    - ``tDRAM``: access to the DRAM behind the link.
    """

    def __init__(self, env: simpy.Environment, config: MemoryConfig, **options: Any) -> None:
        super().__init__(env, config, **options)
        self.flit_cycles = self.timing("tFLIT") / config.organization.channels
        self.latency_cycles = 2 * self.timing("tLINK") + self.timing("tDRAM")
        self.link_free = [0.0, 0.0]  # per direction (READ, WRITE): the cycle from which it is free

    def transfer(self, kind: int, address: int, size_bytes: int) -> simpy.Event:
        bursts = self.bursts(address, size_bytes)
        self.link_free[kind] = max(self.link_free[kind], self.cycle) + bursts * self.flit_cycles
        done = math.ceil(self.link_free[kind]) + self.latency_cycles
        self.count_bursts(kind, bursts, latency_cycles=done - self.cycle)
        return self.event_at(done)

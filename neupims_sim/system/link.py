"""The link of a device to the others: what a collective or a transfer costs, and the link as a resource of a run.

Costs are those of the latency-bandwidth model of Thakur, Rabenseifner and Gropp ("Optimization of Collective Communication
Operations in MPICH", IJHPCA 19(1), 2005): a message takes latency + bytes / bandwidth. The additions of a reduction are not
charged.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import simpy

from neupims_sim.config import LinkConfig
from neupims_sim.npu.device import BusyObserver, Unit

SimEvent = simpy.events.Event
Process = Generator[SimEvent, Any, None]


def all_reduce_seconds(link: LinkConfig, devices: int, size_bytes: int) -> float:
    """Time until each of ``devices`` has the sum of all their vectors of ``size_bytes``.

    ring: 2 (n - 1) / n x bytes / bandwidth + 2 (n - 1) x latency, a reduce-scatter and an all-gather around the ring (Patarasuk
    and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", JPDC 69(2), 2009). tree:
    2 ceil(log2 n) x (bytes / bandwidth + latency), a reduction to one device and a broadcast along binomial trees (Thakur et
    al.). none: 0.
    """
    if devices < 2:
        return 0.0
    if link.topology == "ring":
        return 2 * (devices - 1) * send_seconds(link, size_bytes / devices)
    return 2 * math.ceil(math.log2(devices)) * send_seconds(link, size_bytes)


def send_seconds(link: LinkConfig, size_bytes: float) -> float:
    """Time of one message to a neighbour, s."""
    if link.topology == "none":
        return 0.0
    assert link.bandwidth_gbps is not None, "checked with the configuration"
    return link.latency_ns * 1e-9 + size_bytes / (link.bandwidth_gbps * 1e9)


class Link:
    """The one link of a device; collectives take it in turn.

    Data goes from scratchpad to scratchpad: DRAM does not notice.

    Parameters
    ----------
    observe: told about every busy interval.
    """

    def __init__(self, env: simpy.Environment, config: LinkConfig, clock_ghz: float, observe: BusyObserver) -> None:
        self._env = env
        self._config = config
        self._clock_ghz = clock_ghz
        self._observe = observe
        self.unit = Unit(env)
        """Knows how long it has worked."""

    def all_reduce(self, name: str, devices: int, size_bytes: int, *, ready: SimEvent) -> Process:
        """Sum a vector over ``devices``; starts when ``ready`` has fired and ends when the sum is everywhere."""
        if not ready.processed:
            yield ready
        cycles = math.ceil(all_reduce_seconds(self._config, devices, size_bytes) * self._clock_ghz * 1e9 - 1e-6)
        if cycles <= 0:
            return
        yield from self.unit.hold(cycles)
        self._observe("link", name, int(self._env.now) - cycles, int(self._env.now))

"""Mapped operators run on the NPU of a device."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import simpy

from neupims_sim.mapping.operators import AttentionWork, GemmWork, LinkWork, VectorWork, Work, work_macs
from neupims_sim.npu.device import Region
from neupims_sim.simulation.device import Device, Process, SimEvent
from neupims_sim.simulation.observations import OperatorRecord, PhaseRecord
from neupims_sim.simulation.work import work_flops
from neupims_sim.trace import Tensor

AddressOf = Callable[[Tensor, int], int]
"""Linear address of a tensor; of a weight, in the given layer."""


def timed(device: Device, index: int, phase: str, layer: int, work: Process) -> Process:
    """``work`` as a phase of sub-batch ``index`` that is written down."""
    start = device.now
    device.seen.under_way[index] = f"{phase} of layer {layer}"
    yield from work
    del device.seen.under_way[index]
    device.seen.phases.append(PhaseRecord(layer, index, phase, start, device.now))


@dataclass(frozen=True)
class OperatorRunner:
    """Runs the operators of one sub-batch, number ``index``."""

    device: Device
    index: int
    address: AddressOf

    def run(self, works: Sequence[Work], layer: int, priority: int = 0) -> Process:
        """Operators in program order; each waits for those it depends on, or (operator_drain) for the one before it.

        Of those that wait for the NPU, the one with the lowest ``priority`` goes first.
        """
        env, done = self.device.env, dict[int, simpy.Process]()
        for work in works:
            dependencies = [done[d] for d in work.deps if d in done]
            process = env.process(self._operator(work, layer, dependencies, priority))
            done |= {operator.id: process for operator in work.operators}
            if self.device.config.mapping.operator_drain:
                yield process
        yield env.all_of(done.values())

    def region(self, tensor: Tensor, layer: int = 0) -> Region:
        """Where a tensor lies in memory."""
        return Region(self.address(tensor, layer), tensor.bytes)

    def record(
        self,
        layer: int,
        name: str,
        unit: str,
        start: int,
        macs: int,
        request: int | None = None,
        operator: int | None = None,
        *,
        flops: int,
    ) -> None:
        """Write down that an operator has just ended; ``flops`` without the padding that ``macs`` of PIM includes."""
        work = self.device.seen.work
        work.done(name, unit, flops)
        if unit == "PIM":
            work.read_in_banks(name, macs * self.device.config.npu.element_bytes)
            work.busy(name, start, self.device.now)
        self.device.seen.operators.append(
            OperatorRecord(layer, self.index, request, name, unit, start, self.device.now, macs, operator)
        )

    def _operator(
        self, work: Work, layer: int, dependencies: Sequence[simpy.Process], priority: int
    ) -> Generator[SimEvent, Any, int]:
        """Run an operator; returns the cycle of its end."""
        asked, npu = self.device.now, self.device.npu
        ready = self.device.env.all_of(dependencies)
        if isinstance(work, GemmWork):
            yield from npu.gemm(
                work.operator.name,
                work.plan,
                weights=self.region(work.weights, layer),
                activations=self.region(work.activations),
                output=self.region(work.output),
                ready=ready,
                weights_wait=work.weights_wait,
                priority=priority,
            )
            unit = "systolic arrays"
        elif isinstance(work, AttentionWork):
            yield from npu.attention(
                "attention",
                work.plan,
                source=self.region(work.source),
                output=self.region(work.output),
                ready=ready,
                macs=work_macs(work),
                priority=priority,
            )
            unit = "systolic arrays"
        elif isinstance(work, LinkWork):
            yield from self.device.link.all_reduce(work.operator.name, work.devices, work.size_bytes, ready=ready)
            unit = "link"
        else:
            yield from self.vector(work, ready)
            unit = "vector units" if work.cycles else "DMA"
        macs = work_macs(work)
        if not isinstance(work, VectorWork):
            self.device.seen.npu_macs += macs
        start = max((cast(int, process.value) for process in dependencies), default=asked)
        name = "attention" if isinstance(work, AttentionWork) else work.operator.name
        self.record(layer, name, unit, start, macs, work.operator.request, work.operator.id, flops=work_flops(work))
        return self.device.now

    def vector(self, work: VectorWork, ready: SimEvent) -> Process:
        """An operator on the vector units, its data from and to memory."""
        yield from self.device.npu.vector(
            work.operator.name,
            work.cycles,
            loads=[(self.region(tensor), tensor.bytes) for tensor in work.loads],
            stores=[(self.region(tensor), tensor.bytes) for tensor in work.stores],
            ready=ready,
        )

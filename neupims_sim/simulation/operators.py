"""Mapped operators run on the NPU of a device."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import simpy

from neupims_sim.mapping.operators import AttentionWork, GemmWork, LinkWork, VectorWork, Work, loads_of, work_macs
from neupims_sim.npu.device import Move, Progress, Region, Tiles
from neupims_sim.simulation.device import Device, Process, SimEvent
from neupims_sim.simulation.observations import OperatorRecord, PhaseRecord
from neupims_sim.trace import Tensor, flops, macs

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
class _Made:
    """An operator of a phase under way: its process, how much of its output is there, and of what it loads for its readers."""

    outputs: tuple[Tensor, ...]
    process: simpy.Process
    progress: Progress
    loaded: Progress


@dataclass(frozen=True)
class OperatorRunner:
    """Runs the operators of one sub-batch, number ``index``."""

    device: Device
    index: int
    address: AddressOf

    @property
    def _fuses(self) -> bool:
        return self.device.config.mapping.fuse

    def run(self, works: Sequence[Work], layer: int, priority: int = 0) -> Process:
        """Operators in program order; each waits for those it depends on, or (operator_drain) for the one before it.

        Of those that wait for the NPU, the one with the lowest ``priority`` goes first.
        """
        env, made = self.device.env, dict[int, _Made]()
        for work in works:
            dependencies = {d: made[d] for d in work.deps if d in made}
            progress, loaded = Progress(env), Progress(env)
            if not isinstance(work, GemmWork) or not work.beside:
                loaded.reach(1)
            process = env.process(self._operator(work, layer, dependencies, progress, loaded, priority))
            made |= {operator.id: _Made(operator.outputs, process, progress, loaded) for operator in work.operators}
            if self.device.config.mapping.operator_drain:
                yield process
        yield env.all_of([one.process for one in made.values()])

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
        self,
        work: Work,
        layer: int,
        dependencies: Mapping[int, _Made],
        progress: Progress,
        loaded: Progress,
        priority: int,
    ) -> Generator[SimEvent, Any, int]:
        """Run a piece of work; returns the cycle of its end."""
        npu, started = self.device.npu, [self.device.now]
        ready = self._inputs(work, dependencies)
        assert ready.callbacks is not None
        ready.callbacks.append(lambda _: started.append(self.device.now))
        if isinstance(work, GemmWork):
            name = work.operator.name
            beside = [Move(name, self.region(tensor), tensor.bytes) for tensor in work.beside]
            yield from npu.gemm(
                work.operator.name,
                work.plan,
                weights=self.region(work.weights, layer),
                activations=self.region(work.activations),
                output=self.region(work.output),
                ready=ready,
                weights_wait=work.weights_wait,
                priority=priority,
                reserve_bytes=work.reserve_bytes,
                tiles=Tiles(work.plan.finished_share, progress, beside, loaded) if self._fuses else None,
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
                reserve_bytes=work.reserve_bytes,
            )
            unit = "systolic arrays"
        elif isinstance(work, LinkWork):
            if work.reserve_bytes:
                yield from npu.reserve(work.reserve_bytes, priority)
            yield from self.device.link.all_reduce(work.operator.name, work.devices, work.size_bytes, ready=ready)
            unit = "link"
        else:
            began = yield from self._vector(work, ready, dependencies, progress, priority)
            started += [began] if work.follows else []
            unit = "vector units"
        npu.release(work.release_bytes)
        progress.reach(1)
        start = started[-1]
        if not self._fuses:
            start = max((cast(int, made.process.value) for made in dependencies.values()), default=started[0])
        if isinstance(work, VectorWork):
            for operator, cycles in zip(work.operators, work.cycles, strict=True):
                where = unit if cycles else "DMA"
                amounts = macs(operator), flops(operator)
                self.record(
                    layer, operator.name, where, start, amounts[0], operator.request, operator.id, flops=amounts[1]
                )
            return self.device.now
        done = work_macs(work)
        self.device.seen.npu_macs += done
        name = "attention" if isinstance(work, AttentionWork) else work.operator.name
        self.record(layer, name, unit, start, done, work.operator.request, work.operator.id, flops=2 * done)
        return self.device.now

    def _inputs(self, work: Work, dependencies: Mapping[int, _Made]) -> SimEvent:
        """Fires when what a piece of work reads is there: computed, where it stays on the chip, else stored."""
        loaded = {tensor.whole for tensor in loads_of(work)}
        return self.device.env.all_of(
            [
                made.process
                if not self._fuses or any(tensor.whole in loaded for tensor in made.outputs)
                else made.progress.reached(1)
                for made in dependencies.values()
            ]
        )

    def _vector(
        self,
        work: VectorWork,
        ready: SimEvent,
        dependencies: Mapping[int, _Made],
        progress: Progress,
        priority: int,
    ) -> Generator[SimEvent, Any, int]:
        """Operators on the vector units, their data from and to memory; returns when they began."""
        parts = [(operator.name, cycles) for operator, cycles in zip(work.operators, work.cycles, strict=True)]
        readers = {tensor.name: operator for operator in reversed(work.operators) for tensor in operator.inputs}
        writers = {tensor.name: operator for operator in work.operators for tensor in operator.outputs}
        stored_by = {tensor.whole for made in dependencies.values() for tensor in made.outputs}
        loads = [
            Move(readers[tensor.name].name, self.region(tensor), tensor.bytes, tensor.whole in stored_by)
            for tensor in work.loads
        ]
        stores = [Move(writers[tensor.name].name, self.region(tensor), tensor.bytes) for tensor in work.stores]
        if not work.follows:
            if work.reserve_bytes:
                yield from self.device.npu.reserve(work.reserve_bytes, priority)
            yield from self.device.npu.vector(parts, loads=loads, stores=stores, ready=ready)
            return self.device.now
        producers = [one for made in dependencies.values() for one in (made.progress, made.loaded)]
        return (
            yield from self.device.npu.vector_behind(
                parts,
                loads=loads,
                stores=stores,
                producers=producers,
                progress=progress,
                reserve_bytes=work.reserve_bytes,
                stored=ready,
                priority=priority,
            )
        )

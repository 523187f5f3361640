"""Pooling of tokens as a reduction in PIM; powers and roots are taken on the vector units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from neupims_sim.config import Config
from neupims_sim.mapping.pim_pooling import PoolingLayout
from neupims_sim.mapping.placement import Placement
from neupims_sim.npu import operation_cycles
from neupims_sim.npu.device import WRITE, Move, Region
from neupims_sim.simulation.device import Device, Process
from neupims_sim.simulation.operators import OperatorRunner
from neupims_sim.simulation.parts import Part
from neupims_sim.trace import Operator


@dataclass(frozen=True)
class PimPooling:
    """Pools a batch of images, spread evenly over the channels."""

    device: Device
    layout: PoolingLayout
    placement: Placement
    images: int

    @staticmethod
    def rows(config: Config, layout: PoolingLayout, images: int) -> dict[str, int]:
        """Rows of every channel that tokens and factors take, for the placement."""
        most = max(count for _, count in _spread(images, config.memory.organization.channels))
        return {"tokens": layout.token_rows(most), "pooling factors": layout.vector_rows}

    def part(self, operator: Operator, runner: OperatorRunner) -> Part:
        """``average_pool`` or ``group_gem`` of a batch."""

        def run(count: int, finished: Callable[[], None]) -> Process:
            for repetition in range(count):
                yield from self._run(operator, runner, repetition)
                finished()

        return Part(operator.name, operator.repeat, min(2, operator.repeat), run)

    def _run(self, operator: Operator, runner: OperatorRunner, repetition: int) -> Process:
        device, env = self.device, self.device.env
        start, macs = device.now, 0
        channels = list(_spread(self.images, device.config.memory.organization.channels))
        first, working = 0, []
        for channel, images in channels:
            working.append(env.process(self._channel(operator, runner, channel, first, images)))
            first += images
        yield env.all_of(working)
        for _, images in channels:
            macs += device.count_pim_macs(self.layout.counts(images).dots)
        pooled = operator.outputs[0]
        yield device.npu.transfer(WRITE, *runner.region(pooled).take(pooled.bytes), operator.name)
        flops = 2 * operator.inputs[0].elements
        runner.record(repetition, operator.name, "PIM", start, macs, operator=operator.id, flops=flops)

    def _channel(self, operator: Operator, runner: OperatorRunner, channel: int, first: int, images: int) -> Process:
        """The images of one channel, from number ``first`` on: powers, tokens to the banks, sums in PIM, roots."""
        device, layout, tokens = self.device, self.layout, operator.inputs[0]
        elements, results = images * layout.tokens * layout.channels, images * layout.channels
        powers = {"compare": elements, "pow": elements} if operator.op == "group_gem" else {}
        roots = {"add": (layout.segments - 1) * results} | ({"pow": results} if powers else {})
        each = tokens.bytes // tokens.shape[0]
        source = Region(runner.region(tokens).address + first * each, images * each)
        yield from self._vector(operator, powers, [Move(operator.name, source, images * each)])
        row, factors = self.placement.first_row("tokens"), self.placement.first_row("pooling factors")
        yield device.env.all_of(
            [
                device.write_row(channel, row, layout.token_bytes(images)),
                device.write_row(channel, factors, layout.vector_rows * layout.vector_row_bytes),
            ]
        )
        yield from device.pim.run(channel, layout.program(images, row, factors), (0, runner.index, channel), None)
        yield from self._vector(operator, roots, [])

    def _vector(self, operator: Operator, operations: dict[str, int], loads: list[Move]) -> Process:
        cycles = operation_cycles(operations, self.device.config.npu.vector)
        yield from self.device.npu.vector(
            [(operator.name, cycles)], loads=loads, ready=self.device.env.event().succeed(), chunks=1
        )


def _spread(images: int, channels: int) -> Iterator[tuple[int, int]]:
    """(channel, images in it) of every channel that has some."""
    each, more = divmod(images, channels)
    for channel in range(channels):
        count = each + (channel < more)
        if count:
            yield channel, count

"""Work in parts, one after the other, each so many alike repetitions: some are simulated and stand for the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from neupims_sim.simulation.device import Device, Process
from neupims_sim.simulation.observations import OperatorRecord
from neupims_sim.simulation.operators import timed
from neupims_sim.simulation.totals import Totals


@dataclass(frozen=True)
class Part:
    """A part of the work.

    Attributes
    ----------
    name: of the phase, in timelines.
    repeat: how often it is done.
    simulated: how many of these are simulated, at most ``repeat``, when the device does nothing else.
    run: does it so many times, and calls the function after each.
    """

    name: str
    repeat: int
    simulated: int
    run: Callable[[int, Callable[[], None]], Process]


@dataclass(frozen=True)
class Extrapolated:
    """What all parts amount to: totals, simulated cycles, and per operator the cycles from first start to last end."""

    total: Totals
    operator_cycles: dict[str, int]


def run_in_full(parts: Sequence[Part]) -> Process:
    """All repetitions of all parts."""
    for part in parts:
        yield from part.run(part.repeat, lambda: None)


def run_extrapolated(device: Device, parts: Sequence[Part], index: int = 0) -> Extrapolated:
    """Run the clock through all parts; the mean of the simulated repetitions but the first stands for those left out."""
    begin = device.totals()
    total = begin.since(begin)
    operator_cycles: defaultdict[str, float] = defaultdict(float)
    for part in parts:
        first, records = device.totals(), len(device.seen.operators)
        marks: list[Totals] = []
        work = part.run(part.simulated, lambda marks=marks: marks.append(device.totals()))  # type: ignore[misc]
        device.env.run(until=device.env.process(timed(device, index, part.name, 0, work)))
        last = device.totals()
        total = total.plus(first, last, 1)
        further = part.repeat - part.simulated
        edges = marks if len(marks) > 1 else [first, last]
        times = further / (len(edges) - 1)
        total = total.plus(edges[0], edges[-1], times)
        for name, spans in _spans(device.seen.operators[records:]):
            steady = spans[1:] or spans
            operator_cycles[name] += sum(spans) + further * sum(steady) / len(steady)
    return Extrapolated(total, {name: round(cycles) for name, cycles in operator_cycles.items()})


def _spans(records: Sequence[OperatorRecord]) -> list[tuple[str, list[int]]]:
    """Name of each operator and the cycles from its first start to its last end in each repetition."""
    times: defaultdict[tuple[str, int | None], defaultdict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        times[record.operator, record.id][record.layer] += [record.start_cycle, record.end_cycle]
    return [(name, [max(span) - min(span) for span in layers.values()]) for (name, _), layers in times.items()]

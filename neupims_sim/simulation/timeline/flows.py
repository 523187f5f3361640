"""Flows: the way of a sub-batch through its operators, and of each request through its attention."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from neupims_sim.simulation.observations import BACKGROUND_SEARCH, Observations
from neupims_sim.simulation.timeline.events import Place
from neupims_sim.simulation.timeline.lanes import Key


class Flow(NamedTuple):
    """Arrows between slices."""

    name: str
    places: list[Place]
    """In order of time."""


def flows(seen: Observations, places: Mapping[Key, Place]) -> Iterator[Flow]:
    """Flows between the slices that have a place in the file; steps that have none are skipped, and flows of fewer than two."""
    for name, keys in _chains(seen, places):
        found = sorted({places[key] for key in keys if key in places}, key=lambda place: (place.cycle, place.lane))
        if len(found) > 1:
            yield Flow(name, found)


def _chains(seen: Observations, places: Mapping[Key, Place]) -> Iterator[tuple[str, list[Key]]]:
    steps, requests = _operators_by_phase(seen)
    for sub_batch in sorted(steps):
        yield f"sub-batch {sub_batch}", [key for phase in steps[sub_batch] for key in phase]
    for (request, sub_batch, phase), attention in sorted(requests.items()):
        if any(key in places for key in attention):
            around = steps[sub_batch]
            before = around[phase - 1][-1:] if phase > 0 else []
            after = around[phase + 1][:1] if phase + 1 < len(around) else []
            yield f"request {request}", [*before, *attention, *after]


def _operators_by_phase(seen: Observations) -> tuple[dict[int, list[list[Key]]], dict[tuple[int, int, int], list[Key]]]:
    """(steps of each sub-batch, phase by phase; operators of each request, sub-batch and phase), in order of time.

    The steps of a phase are its operators, or the phase itself where all are of single requests or there are none. Its last
    step is the one that ends last: what comes after the phase waits for that.
    """
    phases: defaultdict[int, list[int]] = defaultdict(list)
    for number, whole in enumerate(seen.phases):
        phases[whole.sub_batch].append(number)
    for members in phases.values():
        members.sort(key=lambda number: seen.phases[number].start_cycle)
    starts = {sub: [seen.phases[number].start_cycle for number in members] for sub, members in phases.items()}
    operators: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    requests: defaultdict[tuple[int, int, int], list[Key]] = defaultdict(list)
    for number in sorted(range(len(seen.operators)), key=lambda number: seen.operators[number].start_cycle):
        record = seen.operators[number]
        if record.sub_batch not in starts or record.operator == BACKGROUND_SEARCH:
            continue
        phase = bisect_right(starts[record.sub_batch], record.start_cycle) - 1
        if record.request is None:
            operators[record.sub_batch, phase].append(number)
        else:
            requests[record.request, record.sub_batch, phase].append(("operator", number))
    steps = {
        sub: [_steps(seen, operators[sub, index], number) for index, number in enumerate(members)]
        for sub, members in phases.items()
    }
    return steps, requests


def _steps(seen: Observations, operators: list[int], phase: int) -> list[Key]:
    if not operators:
        return [("phase", phase)]
    last = max(operators, key=lambda number: seen.operators[number].end_cycle)
    return [("operator", number) for number in operators if number != last] + [("operator", last)]

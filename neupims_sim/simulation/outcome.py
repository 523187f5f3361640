"""What a workload makes of its run, in the same terms for every kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from neupims_sim.simulation.device import Device
from neupims_sim.simulation.observations import Observations
from neupims_sim.simulation.totals import Totals


@dataclass(frozen=True)
class Outcome:
    """The measured work. A *block* is what repeats: a decoder layer, an inference, one batch of queries.

    Attributes
    ----------
    total: all of the work that ``items`` took, what was not simulated included.
    block: one block of the steady state.
    items, item: how many tokens, images, queries or traces ``total`` processed.
    """

    total: Totals
    block: Totals
    items: float
    item: str
    batch_size: int
    interleaving: str
    layers: int
    """Of the device; repetitions of all parts for other workloads than decoding."""
    simulated_layers: int
    simulated_cycles: int
    latency_cycles: int
    """From the start of the work on an item (on the batch that it is in) to its end."""
    mean_context_tokens: float | None = None
    stages: Mapping[str, int] | None = None
    """Lengths, where those of the simulation are not those of the run."""
    operator_cycles: Mapping[str, int] = field(default_factory=dict)
    background: Mapping[str, float | None] = field(default_factory=dict)
    pipeline: Mapping[str, int] = field(default_factory=dict)
    """``Pipeline.to_json``, of language models."""
    seen: Observations = field(default_factory=Observations)
    """What the run wrote down; of several micro-batches the first."""


@dataclass
class RunRecorder:
    """Collects stages and totals at the marks (``scheduling.interleaving.Recorder``)."""

    device: Device
    marks: list[Totals] = field(default_factory=list)

    def stage(self, name: str, start: int, end: int) -> None:
        """A stage has ended."""
        self.device.seen.stages.append((name, start, end))

    def mark(self) -> None:
        """A steady-state step begins or ends here."""
        self.device.seen.layer_cycles.append(self.device.now)
        self.marks.append(self.device.totals())

    def window(self, begin: Totals, steps: int) -> tuple[Totals, Totals, int]:
        """(first, last, steps between) of the steady state; where there are too few marks, the whole run since ``begin``."""
        if len(self.marks) > 1:
            return self.marks[0], self.marks[-1], len(self.marks) - 1
        return begin, self.device.totals(), steps

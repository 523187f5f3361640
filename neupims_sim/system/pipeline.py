"""A pipeline of devices in steady state, and what micro-batches make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neupims_sim.config import Config
from neupims_sim.system.link import send_seconds


def micro_batches(config: Config) -> int:
    """Into how many the batch splits: one per stage unless configured."""
    return config.parallel.micro_batches or config.parallel.pipeline


def transfer_cycles(config: Config, size_bytes: int) -> float:
    """Cycles in which the activations of a micro-batch, [requests, d_model], go from a stage to the next; 0 for one stage."""
    if config.parallel.pipeline == 1:
        return 0.0
    return send_seconds(config.parallel.link, size_bytes) * config.clock_ghz * 1e9


@dataclass(frozen=True)
class StageWork:
    """What micro-batches that are alike take on a stage; cycles.

    Attributes
    ----------
    count: micro-batches.
    stage_cycles: one of them on a stage.
    link_cycles: those in which the stage's link is busy with all-reduces meanwhile.
    transfer_cycles: of its activations to the next stage, over the same link.
    """

    count: int
    stage_cycles: float
    link_cycles: float
    transfer_cycles: float

    @property
    def slot_cycles(self) -> float:
        """How long it keeps a stage from the next: computing overlaps with sending the one before."""
        return max(self.stage_cycles, self.link_cycles + self.transfer_cycles)

    def through(self, stages: int) -> float:
        """From the first stage to the end of the last."""
        return stages * self.stage_cycles + (stages - 1) * self.transfer_cycles


@dataclass(frozen=True)
class Pipeline:
    """Stages that are alike (equal shares of identical layers), and the micro-batches that go round in turn."""

    stages: int
    works: Sequence[StageWork]

    @property
    def micro_batches(self) -> int:
        """All that are in the pipeline."""
        return sum(work.count for work in self.works)

    @property
    def iteration_cycles(self) -> float:
        """Between two tokens of a request in steady state: max(sum of slots, longest way through).

        A micro-batch enters its next iteration when it has left the last stage, and no earlier than all have had their slot.
        Exact where computing takes longer than sending for all micro-batches, or for none; else an upper bound.
        """
        return max(self._slots, max(work.through(self.stages) for work in self.works))

    @property
    def drained_iteration_cycles(self) -> float:
        """One iteration of all micro-batches from an empty pipeline to an empty one: all slots, and the longest way through
        in place of its own slot. (M + S - 1) slots where all are alike, the bubble of GPipe (Huang et al., NeurIPS 2019,
        section 2.3), where a transfer is not hidden behind the first micro-batch."""
        return max(self._slots - work.slot_cycles + work.through(self.stages) for work in self.works)

    @property
    def _slots(self) -> float:
        return sum(work.count * work.slot_cycles for work in self.works)

    def to_json(self) -> dict[str, int]:
        """The ``pipeline`` of ``result.json``."""

        def mean(cycles: Sequence[float]) -> int:
            weighted = zip(self.works, cycles, strict=True)
            return round(sum(work.count * each for work, each in weighted) / self.micro_batches)

        return {
            "stages": self.stages,
            "micro_batches": self.micro_batches,
            "simulated_micro_batches": len(self.works),
            "stage_cycles": mean([work.stage_cycles for work in self.works]),
            "longest_stage_cycles": round(max(work.stage_cycles for work in self.works)),
            "transfer_cycles": mean([work.transfer_cycles for work in self.works]),
            "iteration_cycles": round(self.iteration_cycles),
            "drained_iteration_cycles": round(self.drained_iteration_cycles),
        }

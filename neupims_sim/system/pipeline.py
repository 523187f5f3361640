"""A pipeline of devices in steady state, and what micro-batches make of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from neupims_sim.config import Config
from neupims_sim.system.link import send_seconds


def micro_batches(config: Config) -> int:
    """Into how many the batch splits: one per stage unless configured."""
    return config.parallel.micro_batches or config.parallel.pipeline


def micro_batch_size(batch: int, count: int) -> int:
    """Requests of the largest of ``count`` micro-batches."""
    return math.ceil(batch / count)


def transfer_cycles(config: Config, size_bytes: int) -> float:
    """Cycles in which the activations of a micro-batch, [requests, d_model], go from a stage to the next; 0 for one stage."""
    if config.parallel.pipeline == 1:
        return 0.0
    return send_seconds(config.parallel.link, size_bytes) * config.clock_ghz * 1e9


@dataclass(frozen=True)
class Pipeline:
    """Stages that are alike (equal shares of identical layers), so that the slowest takes as long as any; cycles.

    Attributes
    ----------
    stage_cycles: a micro-batch on a stage.
    link_cycles: those in which the stage's link is busy with all-reduces meanwhile.
    transfer_cycles: of a micro-batch's activations to the next stage, over the same link.
    """

    stages: int
    micro_batches: int
    stage_cycles: float
    link_cycles: float
    transfer_cycles: float

    @property
    def slot_cycles(self) -> float:
        """How often a stage can take a micro-batch: computing overlaps with sending the one before."""
        return max(self.stage_cycles, self.link_cycles + self.transfer_cycles)

    @property
    def iteration_cycles(self) -> float:
        """Between two tokens of a request in steady state: max(M slots, S stages + (S - 1) transfers).

        A micro-batch enters its next iteration when it has left the last stage, and no earlier than all M have had their slot.
        """
        once_through = self.stages * self.stage_cycles + (self.stages - 1) * self.transfer_cycles
        return max(self.micro_batches * self.slot_cycles, once_through)

    @property
    def drained_iteration_cycles(self) -> float:
        """One iteration of all micro-batches from an empty pipeline to an empty one: (M + S - 1) slots, the bubble of GPipe
        (Huang et al., NeurIPS 2019, section 2.3), where a transfer is not hidden behind the first micro-batch."""
        return (self.micro_batches - 1) * self.slot_cycles + (
            self.stages * self.stage_cycles + (self.stages - 1) * self.transfer_cycles
        )

    @property
    def cycles_per_micro_batch(self) -> float:
        """Between two micro-batches that leave the pipeline in steady state."""
        return self.iteration_cycles / self.micro_batches

    def to_json(self) -> dict[str, int]:
        """The ``pipeline`` of ``result.json``."""
        return {
            "stages": self.stages,
            "micro_batches": self.micro_batches,
            "stage_cycles": round(self.stage_cycles),
            "transfer_cycles": round(self.transfer_cycles),
            "iteration_cycles": round(self.iteration_cycles),
            "drained_iteration_cycles": round(self.drained_iteration_cycles),
        }

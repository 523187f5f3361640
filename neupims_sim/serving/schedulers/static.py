"""Batching before continuous batching: a batch is formed, and runs until its last request ends."""

from __future__ import annotations

from neupims_sim.serving.schedulers.base import SCHEDULERS, Iteration
from neupims_sim.serving.schedulers.orca import Orca


@SCHEDULERS.register("static")
class Static(Orca):
    """Waits for ``max_num_seqs`` requests or the end of arrivals, then runs them together, whole prompts, until all have ended."""

    def plan(self) -> Iteration:
        """See :class:`Scheduler`."""
        if self.running:
            return self.decode()
        if self.more_to_come and len(self.waiting) < self.options.max_num_seqs:
            return Iteration()
        return super().plan()

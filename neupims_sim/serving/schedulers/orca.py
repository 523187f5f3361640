"""Iteration-level scheduling as Orca introduced it (Yu et al., OSDI 2022): requests join and leave at every iteration."""

from __future__ import annotations

from neupims_sim.serving.schedulers.base import SCHEDULERS, Iteration, Scheduler


@SCHEDULERS.register("orca")
class Orca(Scheduler):
    """Up to ``max_num_seqs`` requests, in order of arrival; a new one brings its whole prompt.

    Room for a request's whole length, prompt and outputs, is set aside when it is admitted (Orca, section 4.2), so nobody is
    preempted and there is no budget of tokens.
    """

    def plan(self) -> Iteration:
        """See :class:`Scheduler`."""
        iteration = self.decode()
        promised = sum(self.blocks_for(request.most_cached_tokens) - len(request.blocks) for request in self.running)
        while self.waiting and len(self.running) < self.options.max_num_seqs:
            request = self.waiting[0]
            hits = self.find_cached(request)
            if self.blocks_missing(request.most_cached_tokens, hits) + promised > self.pool.free:
                break
            self.admit(request, request.known_tokens - len(hits) * self.options.block_size, hits, iteration)
            promised += self.blocks_for(request.most_cached_tokens) - len(request.blocks)
        return iteration

    def decode(self) -> Iteration:
        """One more token of every running request."""
        iteration = Iteration()
        for request in self.running:
            fits = self.extend(request, 1)
            assert fits, "room was set aside"
            iteration.tokens.append((request, 1))
        return iteration

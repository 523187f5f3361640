"""The scheduler of vLLM's engine V1: continuous batching with chunked prefill, paged memory, prefix caching and preemption.

What it decides was observed on vLLM 0.32.0; golden schedules lie in ``tests/golden/serving``.
"""

from __future__ import annotations

from neupims_sim.serving.request import ServedRequest
from neupims_sim.serving.schedulers.base import SCHEDULERS, Iteration, Scheduler


@SCHEDULERS.register("vllm_v1")
class VllmV1(Scheduler):
    """Running requests first, in their order, each its remaining prompt or one token; then waiting ones in order of arrival.

    Both share ``max_num_batched_tokens``. A running request that needs a block when none is free preempts the last of the
    running ones, itself if it is the last; nobody is admitted then.
    """

    def plan(self) -> Iteration:
        """See :class:`Scheduler`."""
        iteration = Iteration()
        threshold = self._threshold()
        budget = self._schedule_running(iteration, threshold)
        if not iteration.preempted:
            self._schedule_waiting(iteration, threshold, budget)
        return iteration

    def reason_to_refuse(self, request: ServedRequest) -> str | None:
        """See :class:`Scheduler`."""
        budget = self.options.max_num_batched_tokens
        if request.prompt_tokens > budget and not self.options.enable_chunked_prefill:
            return f"a prompt longer than max_num_batched_tokens={budget}, without enable_chunked_prefill"
        return super().reason_to_refuse(request)

    def _threshold(self) -> int:
        """The most tokens of a prompt in this iteration. The only request that there is is not cut."""
        options, present = self.options, len(self.waiting) + len(self.running)
        if not options.long_prefill_token_threshold or present < 2:
            return options.max_num_batched_tokens
        if options.long_prefill_token_threshold_adaptive:
            return max(options.long_prefill_token_threshold, options.max_num_batched_tokens // present)
        return options.long_prefill_token_threshold

    def _schedule_running(self, iteration: Iteration, threshold: int) -> int:
        """Returns what is left of the budget, tokens."""
        budget = self.options.max_num_batched_tokens
        index = 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            tokens = min(request.prompt_tokens + request.produced - request.computed, threshold, budget)
            if not self._make_room(request, tokens, iteration):
                break
            iteration.tokens.append((request, tokens))
            budget -= tokens
            index += 1
        return budget

    def _make_room(self, request: ServedRequest, tokens: int, iteration: Iteration) -> bool:
        """Room for ``tokens`` more of a running request, if need be at the cost of the last running ones; False if of itself."""
        while not self.extend(request, tokens):
            last = self.running.pop()
            self.preempt(last, iteration)
            if last is request:
                return False
        return True

    def _schedule_waiting(self, iteration: Iteration, threshold: int, budget: int) -> None:
        options = self.options
        while self.waiting and budget > 0 and len(self.running) < options.max_num_seqs:
            request = self.waiting[0]
            hits = self.find_cached(request)
            cached = len(hits) * options.block_size
            tokens = min(request.known_tokens - cached, threshold)
            if tokens > budget and not options.enable_chunked_prefill:
                break
            tokens = min(tokens, budget)
            reserved = self._watermark_blocks() if self.running else 0
            first = request.known_tokens if options.scheduler_reserve_full_isl else cached + tokens
            if self.blocks_missing(first, hits) + reserved > self.pool.free:
                break
            self.admit(request, tokens, hits, iteration)
            budget -= tokens

    def _watermark_blocks(self) -> int:
        """Blocks that an admission leaves free; the null block counts among all."""
        return int(self.options.watermark * (self.pool.blocks + 1))

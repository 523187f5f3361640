"""A sum of terms, as learned or fitted models have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neupims_sim.config import Config
from neupims_sim.errors import InputError
from neupims_sim.serving.costs.base import COSTS
from neupims_sim.serving.schedulers import Iteration


@COSTS.register("linear")
class Linear:
    """``fixed_s`` + so much per prompt token, per request that decodes, and per token of the contexts, new ones included."""

    def __init__(self, config: Config) -> None:
        self._cost = config.serving.cost
        if not (self._cost.fixed_s or (self._cost.prefill_token_s and self._cost.decode_token_s)):
            raise InputError(
                "serving.cost.fixed_s, or both prefill_token_s and decode_token_s, must be above 0 for model=linear"
            )

    def seconds(self, iteration: Iteration) -> float:
        """See :class:`IterationCost`."""
        prefill = decode = context = 0
        for request, tokens in iteration.tokens:
            context += request.computed + tokens
            if request.computed < request.prompt_tokens:
                prefill += tokens
            else:
                decode += tokens
        cost = self._cost
        return (
            cost.fixed_s
            + prefill * cost.prefill_token_s
            + decode * cost.decode_token_s
            + context * cost.context_token_s
        )

    def report(self) -> Mapping[str, Any]:
        """See :class:`IterationCost`."""
        return {"model": "linear", "label": "assumed"}

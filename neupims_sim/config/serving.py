"""Configuration of serving over time: which requests arrive when, who schedules them, and what an iteration costs.

Options of the scheduler have vLLM's names. Every class is frozen and refuses unknown keys.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from neupims_sim.config.bounds import Number, Whole
from neupims_sim.showing import Shown

_MOST_TOKENS = 2**31 - 1
Count = Annotated[int, Whole(1, _MOST_TOKENS)]
Seconds = Annotated[float, Number(0, 1e9)]
PositiveSeconds = Annotated[float, Number(0, 1e9), Field(gt=0)]


class _Section(Shown, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServedRequestsConfig(_Section):
    """The requests: a file, or lengths that are drawn. Fields that belong to the other way are refused."""

    path: str | None = None
    """A file of requests; its reader is ``format``, or the one whose columns it has."""
    format: str | None = None
    """A registered reader of request files; ``random``: lengths drawn uniformly; ``lengths``: drawn from a length table."""
    dataset: str | None = None
    """``lengths``: stem of a length table in ``traces/lengths``."""
    input_tokens: Count | None = None
    """``random``: longest prompt."""
    output_tokens: Count | None = None
    """``random``: longest output."""
    range_ratio: Annotated[float, Number(0, 1), Field(gt=0)] | None = None
    """``random``: lengths are uniform from this share of the longest to the longest; 1 unless given."""
    count: Annotated[int, Whole(1, 2_000_000)] | None = None
    """Requests that are drawn; of a file the first so many, all unless given."""
    generated_token_id: Annotated[int, Whole(0, _MOST_TOKENS)] = 5
    """Id that the prefix cache takes every generated token to have, where the file gives ids: equal prompts go on alike."""

    @property
    def stated(self) -> bool:
        """Whether any requests are described."""
        return self.path is not None or self.format is not None

    @model_validator(mode="after")
    def _check(self) -> ServedRequestsConfig:
        drawn = {"random": ("input_tokens", "output_tokens"), "lengths": ("dataset",)}.get(self.format or "")
        own = ("dataset", "input_tokens", "output_tokens", "range_ratio")
        stated = [name for name in own if getattr(self, name) is not None]
        allowed = (*(drawn or ()), *(("range_ratio",) if self.format == "random" else ()))
        for name in stated:
            if name not in allowed:
                raise ValueError(
                    f"serving.requests.{name} has no effect with format={self.format}; it needs format: "
                    f"{'lengths' if name == 'dataset' else 'random'}"
                )
        if drawn is not None:
            if self.path is not None:
                raise ValueError(
                    f"serving.requests.path={self.path!r}: format={self.format} draws requests, it reads no file"
                )
            for name in (*drawn, "count"):
                if getattr(self, name) is None:
                    raise ValueError(f"serving.requests.{name} is missing; format={self.format} needs it")
        return self


_RATED = ("poisson", "gamma", "constant")


class ArrivalsConfig(_Section):
    """When requests arrive."""

    kind: Literal["poisson", "gamma", "constant", "all_at_once", "closed_loop", "replay"] | None = None
    """``replay`` the times of the file, which is meant unless given where the file has times; ``poisson``, ``gamma``, ``constant``
    intervals of mean 1 / rate; ``all_at_once`` at 0; ``closed_loop``: a new one when one ends."""
    rate: Annotated[float, Number(0, 1e12), Field(gt=0)] | None = None
    """Requests per second."""
    burstiness: Annotated[float, Number(0, 1e6), Field(gt=0)] | None = None
    """``gamma``: shape of the intervals' distribution; 1 is Poisson, below 1 burstier."""
    concurrency: Count | None = None
    """``closed_loop``: requests in the system at a time."""
    time_scale: Annotated[float, Number(0, 1e12), Field(gt=0)] | None = None
    """``replay``: factor on the file's times; 0.5 is twice the rate."""

    @model_validator(mode="after")
    def _check(self) -> ArrivalsConfig:
        users = {
            "rate": _RATED,
            "burstiness": ("gamma",),
            "concurrency": ("closed_loop",),
            "time_scale": ("replay", None),
        }
        for name, kinds in users.items():
            stated = getattr(self, name) is not None
            if stated and self.kind not in kinds:
                raise ValueError(
                    f"serving.arrivals.{name} has no effect with kind={self.kind}; it needs kind: "
                    f"{' or '.join(kind for kind in kinds if kind)}"
                )
            if not stated and self.kind in kinds and name != "time_scale":
                raise ValueError(f"serving.arrivals.{name} is missing; kind={self.kind} needs it")
        return self


class SchedulerConfig(_Section):
    """Who runs next, with vLLM's names and defaults (0.32.0)."""

    policy: str = "vllm_v1"
    """A registered scheduler: ``vllm_v1``, ``orca``, ``static``."""
    max_num_seqs: Count = 128
    """Requests that run at a time."""
    max_num_batched_tokens: Count = 2048
    """New tokens of an iteration."""
    block_size: Count = 16
    """Tokens of a block of K and V."""
    num_gpu_blocks: Annotated[int, Whole(2, 4_000_000)] | None = None
    """Blocks, the null block included, which holds nothing; what the device's memory holds unless given."""
    enable_chunked_prefill: bool = True
    """Whether a prompt may be divided over iterations."""
    enable_prefix_caching: bool | None = None
    """Whether requests share blocks of equal content; where the request file has token ids or hashes unless given."""
    long_prefill_token_threshold: Annotated[int, Whole(0, _MOST_TOKENS)] = 0
    """The most tokens of a prompt in an iteration while others are there; 0: no limit."""
    long_prefill_token_threshold_adaptive: bool = False
    """Whether the threshold rises to the budget divided by the requests that wait and run."""
    scheduler_reserve_full_isl: bool = True
    """Whether a waiting request needs free blocks for its whole known length to be admitted, not for its next chunk only."""
    watermark: Annotated[float, Number(0, 1), Field(lt=1)] = 0.0
    """Share of the blocks that an admission leaves free while others run."""


class CostConfig(_Section):
    """What an iteration takes."""

    model: str = "constant"
    """A registered cost: ``constant``, ``linear``."""
    seconds: PositiveSeconds | None = None
    """``constant``: of every iteration, s."""
    fixed_s: Seconds = 0.0
    """``linear``: of every iteration, s."""
    prefill_token_s: Seconds = 0.0
    """``linear``: of a new token of a request that has more than one, s."""
    decode_token_s: Seconds = 0.0
    """``linear``: of a request with one new token, s."""
    context_token_s: Seconds = 0.0
    """``linear``: of a token of the contexts that are read, s."""


class LimitsConfig(_Section):
    """What a request must keep to count as good."""

    ttft_s: PositiveSeconds | None = None
    """Time to the first token, s."""
    tpot_s: PositiveSeconds | None = None
    """Time per output token behind the first, s; a request with one output token meets it."""
    e2e_s: PositiveSeconds | None = None
    """From arrival to the last token, s."""


class ServingConfig(_Section):
    """Serving over time."""

    requests: ServedRequestsConfig = ServedRequestsConfig()
    arrivals: ArrivalsConfig = ArrivalsConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    cost: CostConfig = CostConfig()
    limits: LimitsConfig = LimitsConfig()
    ramp_share: Annotated[float, Number(0, 0.5), Field(lt=0.5)] = 0.1
    """Of the requests, how many end before the steady state begins, and how many after it ends."""

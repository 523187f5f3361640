"""What the golden tables of one memory channel stand for: traces, PIM programs, and the rules in which presets differ."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from neupims_sim.config.loader import load_memory
from neupims_sim.config.memory import Constraint, MemoryConfig
from neupims_sim.config.presets import row_tags
from neupims_sim.errors import InputError
from neupims_sim.memory.engine import READ, WRITE
from neupims_sim.memory.program import GWRITE, TILE, PimProgram
from neupims_sim.memory.replay import Replay, Requests, replay_requests
from neupims_sim.memory.spec import ResolvedSpec, resolve

Int64Array = npt.NDArray[np.int64]

DRAM_CYCLES = 1_000_000
"""Cycles after which DRAMsim3 was stopped."""
PIM_MEMORIES = {"dual": "hbm2_pim_dual", "single": "hbm2_pim_blocked"}


@dataclass(frozen=True)
class ChannelCase:
    """Work of one channel: a PIM program, and requests offered one per cycle, accepted when there is room.

    ``requests`` are burst indices of the channel, all of one kind.
    """

    program: PimProgram | None = None
    requests: Int64Array | None = None
    kind: int = READ

    def run(self, spec: ResolvedSpec) -> Replay:
        """Run both at once from cycle 0."""
        requests = None
        if self.requests is not None:
            zero = np.zeros(len(self.requests), dtype=np.int64)
            requests = Requests(self.requests * spec.config.organization.burst_bytes, zero + self.kind, zero)
        return replay_requests(spec, requests, self.program)


def dram_spec() -> ResolvedSpec:
    """The part that DRAMsim3 simulated: one channel of ``hbm2``."""
    return resolve(load_memory("hbm2", "physical", {"organization.channels": 1}), "physical")


def dram_case(trace: str, reads: int) -> ChannelCase:
    """``reads`` reads of a trace of ``dram_channel_cycles.csv``."""
    index = np.arange(reads, dtype=np.int64)
    bank_bits, column_bits, blocks = 4, 5, 1 << 24
    requests = {
        "seq_rd": index,
        "conf_rd": index << (bank_bits + column_bits),
        "rand_rd": np.random.default_rng(0).integers(0, blocks, reads),
    }
    if trace not in requests:
        raise InputError(f"dram_channel_cycles.csv: trace {trace!r} is not known; allowed: {', '.join(requests)}")
    return ChannelCase(requests=requests[trace])


def pim_case(workload: str) -> ChannelCase:
    """The work that a row of ``pim_channel_cycles.csv`` names, such as ``attend 50 k=19 + read 20000``.

    Where the table allows any k up to a bound this is the bound; where it states none it is the pipeline's minimum of 6.
    """
    program, requests, kind = None, None, READ
    for part in workload.split(" + "):
        match = re.fullmatch(r"(logit|attend|read|write) (\d+)(?: k=(\d+)| \(any k <= (\d+)\))?", part)
        if match is None:
            raise InputError(f"pim_channel_cycles.csv: workload {workload!r} is not known")
        name, count, dots = match[1], int(match[2]), int(match[3] or match[4] or 6)
        if name == "logit":
            tiles = [(TILE, 1000 + i, 4, 8) for i in range(count)]
            program = PimProgram.build([(GWRITE, 0, 0, 0), *tiles])
        elif name == "attend":
            program = PimProgram.build(
                operation
                for i in range(count)
                for operation in [(GWRITE, i, 0, 0), *((TILE, 1000 + 4 * i + j, 1, dots) for j in range(4))]
            )
        else:
            kind = READ if name == "read" else WRITE
            first_row, bursts_per_row, banks = 5000, 16, 32  # rows that no PIM program touches
            requests = np.arange(count, dtype=np.int64) + first_row * banks * bursts_per_row
    return ChannelCase(program, requests, kind)


class Rule(NamedTuple):
    """Something in which ``physical`` differs from ``asplos24``: configuration fields, and timing rows by their commands."""

    name: str
    text: str
    fields: tuple[str, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()


RULES = (
    Rule(
        "row open",
        "The PIM row stays open until the k dot-products are done: `GEMV` to `PIM_PRE` takes 2 k + 5 cycles instead of 5.",
        rows=(("GEMV", "PIM_PRE"), ("GEMV", "GWRITE")),
    ),
    Rule(
        "result",
        "The result arrives after the dot-products: `result_latency` 2 k + 16 instead of 16 (dual row buffers).",
        fields=("pim.result_latency",),
    ),
    Rule(
        "pipeline",
        "A result needs 6 dot-product slots of pipeline with a single row buffer too, instead of 3.",
        fields=("pim.pipeline_dots",),
    ),
    Rule(
        "deadline",
        "Before a refresh a tile is bounded by its exact length, not by the coarse estimate of the artifact (which rounds "
        "the dot-products in the `HEADER` up to a power of two).",
        fields=("pim.deadline_estimate",),
    ),
    Rule(
        "tFAW",
        "A memory activation followed by a PIM activation (which opens four rows) waits a whole tFAW window.",
        rows=(("ACT", "PIM_ACT"),),
    ),
    Rule(
        "turnaround",
        "From a write to a `GEMV`: tWTR_L instead of tWTR_S with a single row buffer, and no turnaround with two, because "
        "a `GEMV` does not use the row buffer that is written.",
        rows=(("WR", "GEMV"),),
    ),
    Rule(
        "two buses",
        "Row and column commands have a command bus each, as HBM has them.",
        fields=("controller.separate_command_buses",),
    ),
    Rule(
        "PIM first",
        "PIM reserves its slots, so that bursts of writes cannot starve it.",
        fields=("controller.pim_priority",),
    ),
    Rule(
        "writes end",
        "A write completes when its burst has been written, not when the controller accepts it.",
        fields=("controller.posted_writes",),
    ),
    Rule(
        "queues",
        "Bank queues of 32 requests instead of 128, and 4096 outstanding reads instead of 4352.",
        fields=("controller.bank_queue_depth", "controller.max_outstanding_reads"),
    ),
)
"""In the order in which the validation page switches them one after the other: what two rules share goes to the first."""


@lru_cache
def preset_spec(row_buffers: str, preset: str) -> ResolvedSpec:
    """One channel under a preset."""
    return resolve(_one_channel(row_buffers, preset), preset)


@lru_cache
def mixed_spec(row_buffers: str, rules: tuple[Rule, ...]) -> ResolvedSpec:
    """One channel under ``asplos24``, but under ``physical`` in what ``rules`` name."""
    config, physical = (_one_channel(row_buffers, preset) for preset in ("asplos24", "physical"))
    switched = frozenset(pair for rule in rules for pair in rule.rows)
    for rule in rules:
        for field in rule.fields:
            section, key = field.split(".")
            value = getattr(getattr(physical, section), key)
            config = config.model_copy(update={section: getattr(config, section).model_copy(update={key: value})})
    rows = tuple(row for old in config.constraints for row in _chosen(old, switched, config))
    return resolve(config.model_copy(update={"constraints": rows}), "asplos24")


def _one_channel(row_buffers: str, preset: str) -> MemoryConfig:
    return load_memory(PIM_MEMORIES[row_buffers], preset, {"organization.channels": 1})


def _chosen(row: Constraint, switched: frozenset[tuple[str, str]], memory: MemoryConfig) -> list[Constraint]:
    """A timing row, unconditional, if it holds under the preset that its commands are under, else nothing."""
    pairs = [(previous, following) for previous in row.previous for following in row.next]
    wanted = "physical" if all(pair in switched for pair in pairs) else "asplos24"
    return [row.model_copy(update={"when": ()})] if row.holds(row_tags(memory, wanted)) else []

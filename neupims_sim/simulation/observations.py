"""What a run writes down; results and timelines are made of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from neupims_sim.showing import Shown
from neupims_sim.simulation.work import OperatorTally

BACKGROUND_SEARCH = "background search"
"""Operator of searches that go on beside other work; their sub-batch is the number of their stream."""


@dataclass(frozen=True)
class OperatorRecord:
    """When one operator of one sub-batch ran: from the end of what it depends on to its own end."""

    layer: int
    """Of a decoder, or repetition of a block; in retrieval the step."""
    sub_batch: int
    request: int | None
    """Position in the batch, where the operator belongs to one request."""
    operator: str
    unit: str
    start_cycle: int
    end_cycle: int
    macs: int
    id: int | None = None
    """Of the operator in its trace, where it is run as it is."""


@dataclass(frozen=True)
class PhaseRecord:
    """When a phase (QKV, MHA, Proj+FFN; extract, search, rank; a block of layers) of one sub-batch ran."""

    layer: int
    sub_batch: int
    phase: str
    start_cycle: int
    end_cycle: int


@dataclass(repr=False)
class Observations(Shown):
    """Everything that a run writes down."""

    operators: list[OperatorRecord] = field(default_factory=list)
    phases: list[PhaseRecord] = field(default_factory=list)
    work: OperatorTally = field(default_factory=OperatorTally)
    stages: list[tuple[str, int, int]] = field(default_factory=list)
    """(name, start, end) of every stage."""
    under_way: dict[int, str] = field(default_factory=dict)
    """The phase that each sub-batch is in."""
    layer_cycles: list[int] = field(default_factory=list)
    """The moments between which identical steady-state layers pass."""
    npu_macs: int = 0
    pim_macs: int = 0

"""How several arrays share one GEMM: a registry of policies, ``name -> function(gemm, systolic config)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from neupims_sim.config.schema import SystolicConfig
from neupims_sim.errors import InputError, shown
from neupims_sim.npu.systolic import Gemm, Occupancy, array_occupancy, ceil_div, folds, streamed
from neupims_sim.registry import Registry, function_of


class Part(NamedTuple):
    """The index ranges of a GEMM that one array computes."""

    m: range
    k: range
    n: range

    @property
    def gemm(self) -> Gemm:
        """The part as a GEMM of its own."""
        return Gemm(len(self.m), len(self.k), len(self.n))


class SharedGemm(NamedTuple):
    """A GEMM divided over the arrays: how long the slowest of them takes, and who computes what."""

    occupancy: Occupancy
    parts: tuple[Part, ...]
    """One per array that has work; together they hold each (m, k, n) exactly once."""


SharingPolicy = Callable[[Gemm, SystolicConfig], SharedGemm]


def _own_sharing(found: Any, what: str) -> SharingPolicy:
    """A function of somebody else, which has to keep the contract at every call."""
    policy = function_of("gemm", "systolic")(found, what)

    def checked(gemm: Gemm, systolic: SystolicConfig) -> SharedGemm:
        shared = policy(gemm, systolic)
        if not isinstance(shared, SharedGemm):
            raise InputError(f"{what} returned {shown(shared)}; needed: a SharedGemm")
        macs = sum(part.gemm.macs for part in shared.parts)
        if macs != gemm.macs or shared.occupancy.cycles < 1:
            raise InputError(
                f"{what} returned parts of {macs} multiply-accumulates in {shared.occupancy.cycles} cycles for {gemm}; needed: "
                f"{gemm.macs} in one cycle or more"
            )
        return shared

    return checked


sharing_policies: Registry[SharingPolicy] = Registry(
    "array sharing", "neupims_sim.npu", key="npu.systolic.sharing", adopt=_own_sharing
)


def share_gemm(gemm: Gemm, systolic: SystolicConfig) -> SharedGemm:
    """Divide a GEMM over the arrays by the configured policy."""
    return sharing_policies[systolic.sharing](gemm, systolic)


@sharing_policies.register("split_n")
def split_n(gemm: Gemm, systolic: SystolicConfig) -> SharedGemm:
    """Each array computes its own output columns, in whole folds where N lies on the array's columns (ws, os)."""
    block = 1 if systolic.dataflow == "is" else systolic.columns
    ranges = _split(gemm.n, block, systolic.arrays)
    return _slowest([Part(range(gemm.m), range(gemm.k), n) for n in ranges], systolic)


@sharing_policies.register("split_m")
def split_m(gemm: Gemm, systolic: SystolicConfig) -> SharedGemm:
    """Each array computes its own output rows, in whole folds where M lies on the array (os: rows, is: columns)."""
    block = {"ws": 1, "os": systolic.rows, "is": systolic.columns}[systolic.dataflow]
    ranges = _split(gemm.m, block, systolic.arrays)
    return _slowest([Part(m, range(gemm.k), range(gemm.n)) for m in ranges], systolic)


@sharing_policies.register("best")
def best(gemm: Gemm, systolic: SystolicConfig) -> SharedGemm:
    """``split_n`` or ``split_m``, whichever is faster for the shape; the former on a tie."""
    return min((split_n(gemm, systolic), split_m(gemm, systolic)), key=lambda shared: shared.occupancy.cycles)


@sharing_policies.register("fused")
def fused(gemm: Gemm, systolic: SystolicConfig) -> SharedGemm:
    """The A arrays act as one R x C array that takes A streamed vectors per cycle (an assumption, not a machine).

    A block of R streamed vectors takes b = ceil(R / A) cycles. A stationary block with s streamed blocks costs

    - ``preload: overlapped``: R + b (s - 1), and R + C - 2 + b once per GEMM;
    - ``preload: serial``: R + C - 1 + b + b (s - 1).

    For 8 arrays of 128 x 128: 128 + 16 (s - 1) and 270 once, or 271 + 16 (s - 1). Measured on the public artifact of
    NeuPIMs (ASPLOS 2024), which keeps activations stationary: use it with ``dataflow: is``.
    """
    rows, columns = systolic.rows, systolic.columns
    block = ceil_div(rows, systolic.arrays)
    further = block * (ceil_div(streamed(gemm, systolic.dataflow), rows) - 1)
    latency = rows + columns - 2 + block
    stationary_blocks = folds(gemm, systolic.dataflow, rows, columns)
    if systolic.preload == "serial":
        occupancy = Occupancy(stationary_blocks * (latency + 1 + further), 0)
    else:
        occupancy = Occupancy(stationary_blocks * (rows + further), latency)
    return SharedGemm(occupancy, (Part(range(gemm.m), range(gemm.k), range(gemm.n)),))


def _split(length: int, block: int, arrays: int) -> list[range]:
    """``range(length)`` in at most ``arrays`` pieces of whole blocks, the longest first, none empty."""
    blocks = ceil_div(length, block)
    each, extra = divmod(blocks, arrays)
    pieces, start = [], 0
    for array in range(min(arrays, blocks)):
        stop = min(length, start + block * (each + (array < extra)))
        pieces.append(range(start, stop))
        start = stop
    return pieces


def _slowest(parts: list[Part], systolic: SystolicConfig) -> SharedGemm:
    """The parts with the occupancy of the array that ends last."""
    occupancies = (array_occupancy(gemm, systolic) for gemm in {part.gemm for part in parts})
    return SharedGemm(max(occupancies, key=lambda occupancy: occupancy.cycles), tuple(parts))

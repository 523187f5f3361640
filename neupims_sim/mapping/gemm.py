"""A GEMM as work of the NPU: tiles that fit the on-chip buffers, and what each loads, computes and stores.

The output is computed in tiles of m x n partial sums that stay in the accumulators while k runs (k is the innermost
loop), so that partial sums never go to DRAM. Of the operands, a *panel* may stay in the scratchpad:

==============  =======================  ==========================  ==========================
kept            loops, outside in        activations read            weights read
==============  =======================  ==========================  ==========================
``activation``  m, n, k                  once                        once per m step
``weight``      n, m, k                  once per n step             once
``nothing``     m, n, k                  once per n step             once per m step
==============  =======================  ==========================  ==========================
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neupims_sim.config.schema import NpuConfig
from neupims_sim.errors import InputError
from neupims_sim.npu import Gemm, share_gemm, utilization
from neupims_sim.npu.systolic import ceil_div

Kept = Literal["activation", "weight", "nothing"]
Loops = Literal["fastest", "least_traffic", "token_blocks"]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_STEP_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Numbers of steps tried for every loop."""
_SLACK = 1.02
"""Tilings within this factor of the fastest count as equally fast."""


@dataclass(frozen=True, eq=False)
class GemmPlan:
    """A tiled GEMM. The arrays have one entry per tile step, in execution order, and are read-only.

    A step loads what it needs and is not there yet, computes, and, after the last k, stores its output. When
    ``double_buffered`` a step may load while the previous one computes.
    """

    gemm: Gemm
    tile: Gemm
    """Largest tile; those at the edges are smaller."""
    kept: Kept
    activation_reads: int
    """How often the activation matrix is read from DRAM; 0 when it is on chip."""
    weight_reads: int
    """How often the weight matrix is read from DRAM; 0 when it is on chip."""
    activation_bytes: IntArray
    weight_bytes: IntArray
    compute_cycles: IntArray
    """Cycles that a step holds the arrays; the last one includes the fill and drain of the whole GEMM."""
    store_bytes: IntArray
    room_bytes: IntArray
    """Scratchpad that a step takes: what it loads, as it lies there."""
    freed_bytes: IntArray
    """Scratchpad that is free again after a step; of a kept panel after the last step that uses it."""
    finished_share: FloatArray
    """Share of the outputs that are complete after a step."""
    tile_macs: IntArray
    utilization: float
    """macs / (compute cycles x peak), as if operands were always there."""
    pipelined_cycles: float
    """Estimate of the time on its own, loads and stores at full bandwidth."""

    @property
    def steps(self) -> int:
        """Number of tile steps."""
        return len(self.compute_cycles)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all tiles."""
        return int(self.tile_macs.sum())

    @property
    def total_compute_cycles(self) -> int:
        """Cycles with all operands at hand."""
        return int(self.compute_cycles.sum())

    @property
    def total_activation_bytes(self) -> int:
        """Activations read from DRAM, bytes."""
        return int(self.activation_bytes.sum())

    @property
    def total_weight_bytes(self) -> int:
        """Weights read from DRAM, bytes."""
        return int(self.weight_bytes.sum())

    @property
    def total_store_bytes(self) -> int:
        """Outputs written to DRAM, bytes."""
        return int(self.store_bytes.sum())

    @property
    def traffic_bytes(self) -> int:
        """DRAM traffic, bytes."""
        return self.total_activation_bytes + self.total_weight_bytes + self.total_store_bytes


class _Job(NamedTuple):
    """What is to be planned; hashable."""

    gemm: Gemm
    npu: NpuConfig
    bandwidth: float
    activation_on_chip: bool
    output_on_chip: bool
    loops: Loops = "fastest"
    weight_on_chip: bool = False
    taken_in_cycles: float | None = None


class _Tiling(NamedTuple):
    """A candidate."""

    tile: Gemm
    kept: Kept


def plan_gemm(
    m: int,
    k: int,
    n: int,
    npu: NpuConfig,
    *,
    bandwidth_bytes_per_cycle: float,
    activation_on_chip: bool = False,
    weight_on_chip: bool = False,
    output_on_chip: bool = False,
    taken_in_cycles: float | None = None,
    loops: Loops = "fastest",
) -> GemmPlan:
    """Plan an [m, k] x [k, n] product on all arrays of the NPU.

    Takes the tilings within 2 % of the fastest, by an estimate of the pipelined time at ``bandwidth_bytes_per_cycle``; of these
    those with the least DRAM traffic, then with the fewest compute cycles, then with the fewest steps. How finely a GEMM is cut
    thus follows from how well load and compute overlap, and larger buffers only add tilings to choose from.

    ``loops: least_traffic`` chooses from the tilings with the least DRAM traffic only, even where they leave arrays idle.

    ``activation_on_chip``, ``weight_on_chip``: the whole [m, k] or [k, n] matrix already lies in the scratchpad (a product of
    two activations has no weights). ``output_on_chip``: the [m, n] result stays there (in the element format) and is not stored.
    All take their space from the tiles. ``taken_in_cycles``: somebody takes the result tile by tile, all of it in so many
    cycles; it is neither stored nor stays.

    ``loops: token_blocks`` is the loop nest of the published artifact instead: blocks of tokens as wide as the array
    outermost, all weights loaded during the first of them and kept, so that only that one overlaps with the load.

    Raises InputError when a dimension is not positive or not even one R x C block fits.
    """
    if min(m, k, n) < 1:
        raise InputError(f"GEMM {m} x {k} x {n}: every dimension must be at least 1")
    if not bandwidth_bytes_per_cycle > 0:
        raise InputError(f"bandwidth_bytes_per_cycle={bandwidth_bytes_per_cycle} must be > 0")
    job = _Job(Gemm(m, k, n), npu, bandwidth_bytes_per_cycle, activation_on_chip, output_on_chip, loops, weight_on_chip)
    return _plan(job._replace(taken_in_cycles=taken_in_cycles))


def repeat_plan(plan: GemmPlan, times: int, npu: NpuConfig) -> GemmPlan:
    """The plan of several GEMMs of the same shape, one after the other; the arrays fill and drain once."""
    if times == 1:
        return plan
    last_tile = Gemm(
        *(length - part * (ceil_div(length, part) - 1) for length, part in zip(plan.gemm, plan.tile, strict=True))
    )
    compute = np.tile(plan.compute_cycles, times)
    ends = np.arange(1, times) * plan.steps - 1
    compute[ends] -= share_gemm(last_tile, npu.systolic).occupancy.latency_cycles
    return replace(
        plan,
        activation_bytes=np.tile(plan.activation_bytes, times),
        weight_bytes=np.tile(plan.weight_bytes, times),
        compute_cycles=compute,
        store_bytes=np.tile(plan.store_bytes, times),
        room_bytes=np.tile(plan.room_bytes, times),
        freed_bytes=np.tile(plan.freed_bytes, times),
        finished_share=np.concatenate([(plan.finished_share + done) / times for done in range(times)]),
        tile_macs=np.tile(plan.tile_macs, times),
        utilization=utilization(times * plan.macs, int(compute.sum()), npu.systolic),
        pipelined_cycles=times * plan.pipelined_cycles,
    )


def fits_on_chip(
    m: int,
    k: int,
    n: int,
    npu: NpuConfig,
    *,
    activation_on_chip: bool = False,
    weight_on_chip: bool = False,
    output_on_chip: bool = False,
) -> bool:
    """Whether :func:`plan_gemm` finds room with these matrices in the scratchpad."""
    job = _Job(Gemm(m, k, n), npu, 1.0, activation_on_chip, output_on_chip, weight_on_chip=weight_on_chip)
    return _fits(_Tiling(_smallest_tile(job), "nothing"), job)


@functools.lru_cache(maxsize=4096)
def _plan(job: _Job) -> GemmPlan:
    cost = _CostModel(job)
    if job.loops == "token_blocks":
        return _expand(_token_block_tiling(job), job, cost)
    fast = cost.fast(_least_traffic(job) if job.loops == "least_traffic" else _fastest(job, cost))
    return _expand(min(fast, key=lambda tiling: (_traffic(tiling, job), *cost.estimate(tiling)[1:])), job, cost)


def _scratchpad_bytes(tile: Gemm, kept: Kept, job: _Job) -> int:
    """Scratchpad that a tiling occupies: both tiles, twice when double buffered; more when a panel or a matrix stays.

    A kept panel is tile.m x K or K x tile.n elements, and doubled too if another panel follows.
    """
    gemm, copies = job.gemm, 2 if job.npu.double_buffered else 1
    activation, weight = copies * tile.m * tile.k, copies * tile.k * tile.n
    both_tiles = activation + weight
    if job.activation_on_chip:
        activation = gemm.m * gemm.k
    elif kept == "activation":
        activation = tile.m * gemm.k * (copies if tile.m < gemm.m else 1)
    if job.weight_on_chip:
        weight = gemm.k * gemm.n
    elif kept == "weight":
        weight = gemm.k * tile.n * (copies if tile.n < gemm.n else 1)
    output = gemm.m * gemm.n if job.output_on_chip else 0
    return job.npu.element_bytes * (max(both_tiles, activation + weight) + output)


def _accumulator_bytes(tile: Gemm, npu: NpuConfig) -> int:
    """Accumulator that a tile's m x n partial sums occupy, twice when double buffered."""
    return (2 if npu.double_buffered else 1) * tile.m * tile.n * npu.accumulator_element_bytes


def _fits(tiling: _Tiling, job: _Job) -> bool:
    return (
        _scratchpad_bytes(tiling.tile, tiling.kept, job) <= job.npu.scratchpad_bytes
        and _accumulator_bytes(tiling.tile, job.npu) <= job.npu.accumulator_bytes
    )


def _granularity(npu: NpuConfig) -> Gemm:
    """The block of a tile: what lies on the array in whole rows or columns, and as much of what streams."""
    rows, columns = npu.systolic.rows, npu.systolic.columns
    return {
        "ws": Gemm(rows, rows, columns),
        "is": Gemm(columns, rows, rows),
        "os": Gemm(rows, rows, columns),
    }[npu.systolic.dataflow]


def _smallest_tile(job: _Job) -> Gemm:
    return Gemm(*(min(length, block) for length, block in zip(job.gemm, _granularity(job.npu), strict=True)))


def _tile_lengths(length: int, block: int, arrays: int) -> list[int]:
    """Candidate tile lengths of one dimension: even divisions in whole blocks, or in whole blocks for every array."""
    lengths = {min(length, block), min(length, block * arrays)}
    for granule, steps in itertools.product((block, block * arrays), _STEP_COUNTS):
        lengths.add(min(length, ceil_div(ceil_div(length, steps), granule) * granule))
    return sorted(lengths)


def _reads(tiling: _Tiling, job: _Job) -> tuple[int, int]:
    """How often activations and weights are read (the table at the top of this module)."""
    activation = 1 if tiling.kept == "activation" else ceil_div(job.gemm.n, tiling.tile.n)
    weight = 1 if tiling.kept == "weight" else ceil_div(job.gemm.m, tiling.tile.m)
    return (0 if job.activation_on_chip else activation), (0 if job.weight_on_chip else weight)


def _traffic(tiling: _Tiling, job: _Job) -> int:
    """Elements read from DRAM (what is stored does not depend on the tiling)."""
    activation_reads, weight_reads = _reads(tiling, job)
    return job.gemm.k * (activation_reads * job.gemm.m + weight_reads * job.gemm.n)


def _candidates(job: _Job) -> tuple[list[_Tiling], list[int]]:
    """All tilings that fit with the smallest k, and the further lengths of k."""
    smallest, block, arrays = _smallest_tile(job), _granularity(job.npu), job.npu.systolic.arrays
    ms, ks, ns = (_tile_lengths(length, part, arrays) for length, part in zip(job.gemm, block, strict=True))
    kinds: tuple[Kept, ...] = ("activation", "weight", "nothing")
    feasible = [
        tiling
        for m, n, kept in itertools.product(ms, ns, kinds)
        if _fits(tiling := _Tiling(Gemm(m, smallest.k, n), kept), job)
    ]
    if not feasible:
        tile = smallest
        raise InputError(
            f"GEMM {job.gemm.m} x {job.gemm.k} x {job.gemm.n}: a tile of {tile.m} x {tile.k} x {tile.n} needs "
            f"{_scratchpad_bytes(tile, 'nothing', job)} of npu.scratchpad_bytes={job.npu.scratchpad_bytes} and "
            f"{_accumulator_bytes(tile, job.npu)} of npu.accumulator_bytes={job.npu.accumulator_bytes}"
        )
    return feasible, ks


def _fastest(job: _Job, cost: _CostModel) -> list[_Tiling]:
    """Tilings among which the fastest are. Of an m and n the smallest k overlaps best, so only where that is fast others count."""
    feasible, ks = _candidates(job)
    wider = (tiling._replace(tile=tiling.tile._replace(k=k)) for tiling in cost.fast(feasible) for k in ks)
    return [tiling for tiling in wider if _fits(tiling, job)]


def _least_traffic(job: _Job) -> list[_Tiling]:
    """All tilings that fit and have the least traffic. Tile k matters for fitting only: try the smallest first."""
    feasible, ks = _candidates(job)
    least = min(_traffic(tiling, job) for tiling in feasible)
    best = {(tiling.tile.m, tiling.tile.n): tiling.kept for tiling in feasible if _traffic(tiling, job) == least}
    wider = (_Tiling(Gemm(m, k, n), kept) for (m, n), kept in best.items() for k in ks)
    return [tiling for tiling in wider if _fits(tiling, job)]


def _token_block_tiling(job: _Job) -> _Tiling:
    """One block of tokens and of k at a time against the widest panel of weights that fits."""
    block, smallest = _granularity(job.npu), _smallest_tile(job)
    widths = sorted({min(job.gemm.n, width) for width in range(block.n, job.gemm.n + block.n, block.n)}, reverse=True)
    for width in widths:
        tiling = _Tiling(Gemm(smallest.m, smallest.k, width), "weight")
        if _fits(tiling, job):
            return tiling
    return _least_traffic(job)[0]  # not even one block of columns stays: the general search says so, or finds a way


class _Pieces(NamedTuple):
    """Tiles of equal length in a loop; ``first`` marks those of the loop's first iteration."""

    length: int
    times: int
    first: bool


def _pieces(length: int, tile: int) -> list[_Pieces]:
    """The iterations of a loop over one dimension: the first, the further full ones, and the rest at the end."""
    full, rest = divmod(length, tile)
    if not full:
        return [_Pieces(rest, 1, True)]
    pieces = [_Pieces(tile, 1, True), _Pieces(tile, full - 1, False), _Pieces(rest, 1, False)]
    return [piece for piece in pieces if piece.length and piece.times]


class _Estimate(NamedTuple):
    """What a tiling costs; all but the first field in the order in which they decide."""

    pipelined_cycles: float
    compute_cycles: int
    steps: int


class _CostModel:
    """Estimates the pipelined time of tilings of one job."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self._busy = functools.cache(lambda m, k, n: share_gemm(Gemm(m, k, n), job.npu.systolic).occupancy.busy_cycles)
        self.estimate = functools.cache(self._estimate)

    def fast(self, tilings: Sequence[_Tiling]) -> list[_Tiling]:
        """Those that are as fast as the fastest."""
        limit = _SLACK * min(self.estimate(tiling).pipelined_cycles for tiling in tilings)
        return [tiling for tiling in tilings if self.estimate(tiling).pipelined_cycles <= limit]

    def _estimate(self, tiling: _Tiling) -> _Estimate:
        """First load + sum over steps of max(transfer, compute) + last store (or what is done with the last tile); the plain
        sum where single-buffered.

        A step's transfer is what it loads and its share of what all output tiles but the last store meanwhile.
        """
        job, gemm, tile = self.job, self.job.gemm, tiling.tile
        cycles_per_element = job.npu.element_bytes / job.bandwidth
        stored = 0.0 if job.output_on_chip or job.taken_in_cycles is not None else 1.0
        k_steps = ceil_div(gemm.k, tile.k)
        output_tiles = ceil_div(gemm.m, tile.m) * ceil_div(gemm.n, tile.n)
        overlapped = stored * (1 - 1 / output_tiles) / k_steps if job.npu.double_buffered else stored / k_steps
        pieces = (_pieces(length, part) for length, part in zip(gemm, tile, strict=True))
        pipelined, computed, steps = 0.0, 0, 0
        for m, k, n in itertools.product(*pieces):
            loads_activation = (n.first or tiling.kept != "activation") and not job.activation_on_chip
            loads_weight = (m.first or tiling.kept != "weight") and not job.weight_on_chip
            moved = k.length * (m.length * loads_activation + n.length * loads_weight)
            transfer = (moved + overlapped * m.length * n.length) * cycles_per_element
            compute = self._busy(m.length, k.length, n.length)
            count = m.times * k.times * n.times
            steps += count
            computed += count * compute
            pipelined += count * (max(transfer, compute) if job.npu.double_buffered else transfer + compute)
        first_load = tile.k * (tile.n * (not job.weight_on_chip) + tile.m * (not job.activation_on_chip))
        if job.npu.double_buffered:
            pipelined += (first_load + stored * tile.m * tile.n) * cycles_per_element
        last_taken = (job.taken_in_cycles or 0.0) / output_tiles
        return _Estimate(pipelined + last_taken, computed, steps)


def _sizes(length: int, tile: int) -> IntArray:
    """Tile lengths along one dimension, in order."""
    sizes = np.full(ceil_div(length, tile), tile, dtype=np.int64)
    sizes[-1] = length - tile * (len(sizes) - 1)
    return sizes


def _compute_cycles(m: IntArray, k: IntArray, n: IntArray, npu: NpuConfig) -> IntArray:
    """Busy cycles of every step; few shapes are distinct, so each is looked up in a table of these."""
    (ms, m_index), (ks, k_index), (ns, n_index) = (np.unique(sizes, return_inverse=True) for sizes in (m, k, n))
    shapes = itertools.product(ms.tolist(), ks.tolist(), ns.tolist())
    busy = [share_gemm(Gemm(*shape), npu.systolic).occupancy.busy_cycles for shape in shapes]
    table = np.array(busy, dtype=np.int64).reshape(len(ms), len(ks), len(ns))
    cycles: IntArray = table[m_index.reshape(m.shape), k_index.reshape(k.shape), n_index.reshape(n.shape)]
    return cycles


def _expand(tiling: _Tiling, job: _Job, cost: _CostModel) -> GemmPlan:
    """The step arrays of a tiling, in execution order."""
    gemm, tile, npu = job.gemm, tiling.tile, job.npu
    m_outer = tiling.kept != "weight"
    m = _sizes(gemm.m, tile.m).reshape((-1, 1, 1) if m_outer else (1, -1, 1))
    n = _sizes(gemm.n, tile.n).reshape((1, -1, 1) if m_outer else (-1, 1, 1))
    k = _sizes(gemm.k, tile.k).reshape(1, 1, -1)
    compute = _compute_cycles(m, k, n, npu)
    last_tile = Gemm(m.flat[-1].item(), k.flat[-1].item(), n.flat[-1].item())
    compute[-1, -1, -1] += share_gemm(last_tile, npu.systolic).occupancy.latency_cycles

    inner_steps, k_steps = compute.shape[1:]
    first_inner = np.arange(inner_steps)[:, None] == 0
    loads_activation = (first_inner | (tiling.kept != "activation")) & (not job.activation_on_chip)
    loads_weight = (first_inner | (tiling.kept != "weight")) & (not job.weight_on_chip)
    finished = np.cumsum(np.broadcast_to(m * n * (np.arange(k_steps) == k_steps - 1), compute.shape))
    stores = (np.arange(k_steps) == k_steps - 1) & (not job.output_on_chip)
    stores &= job.taken_in_cycles is None
    last_inner = np.arange(inner_steps)[:, None] == inner_steps - 1
    frees_activation = (last_inner | (tiling.kept != "activation")) & (not job.activation_on_chip)
    frees_weight = (last_inner | (tiling.kept != "weight")) & (not job.weight_on_chip)

    def frozen(values: IntArray) -> IntArray:
        """One entry per step, flat and read-only."""
        flat = np.broadcast_to(values, compute.shape).ravel()
        flat.flags.writeable = False
        return flat

    activation_reads, weight_reads = _reads(tiling, job)
    activation, weight = m * k * npu.element_bytes, k * n * npu.element_bytes
    return GemmPlan(
        gemm=gemm,
        tile=tile,
        kept=tiling.kept,
        activation_reads=activation_reads,
        weight_reads=weight_reads,
        activation_bytes=frozen(activation * loads_activation),
        weight_bytes=frozen(weight * loads_weight),
        compute_cycles=frozen(compute),
        store_bytes=frozen(m * n * npu.element_bytes * stores),
        room_bytes=frozen(activation * loads_activation + weight * loads_weight),
        freed_bytes=frozen(activation * frees_activation + weight * frees_weight),
        finished_share=finished / finished[-1],
        tile_macs=frozen(m * k * n),
        utilization=utilization(gemm.macs, int(compute.sum()), npu.systolic),
        pipelined_cycles=cost.estimate(tiling).pipelined_cycles,
    )

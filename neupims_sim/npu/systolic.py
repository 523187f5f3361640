"""One systolic array: the cycles of a GEMM as closed forms (they are deterministic, so nothing is simulated).

A GEMM of M x K times K x N runs on an array of R rows and C columns as a sequence of *folds*. The dataflow says
which two of the three dimensions lie on the array and which one streams through it:

=========  ============  =======  ==================  ========  ================
dataflow   on the rows   columns  stays (stationary)  streams   one fold alone
=========  ============  =======  ==================  ========  ================
``ws``     K             N        weights             M         2R + C + M - 2
``is``     K             M        activations         N         2R + C + N - 2
``os``     M             N        outputs             K         R + C + K - 2
=========  ============  =======  ==================  ========  ================

A fold that keeps weights or activations needs R cycles of preload, then S streamed vectors pass with a skew of
R + C - 2. A partial fold (K not a multiple of R, ...) costs as much as a full one.

Source: SCALE-Sim v3.0.0, stall-free (``tests/golden/systolic_array_cycles.csv``). The figure that it reports is the index
of the last cycle, one less than the number of cycles that the array works; ``convention`` says which of the two is meant.
A fold of ``os`` ends with its last sum: like SCALE-Sim's figure it does not wait until the sums have left their columns, which
takes R cycles beside the next fold or operator.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from neupims_sim.config.schema import SystolicConfig

Dataflow = Literal["ws", "os", "is"]


class Gemm(NamedTuple):
    """The shape of a matrix product: [m, k] activations times [k, n] weights."""

    m: int
    k: int
    n: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates: m k n."""
        return self.m * self.k * self.n


class Occupancy(NamedTuple):
    """How long a GEMM holds an array.

    ``busy_cycles`` is what it costs when other work precedes and follows without a gap, ``latency_cycles`` what the
    first fill and the last drain add when it stands alone.
    """

    busy_cycles: int
    latency_cycles: int

    @property
    def cycles(self) -> int:
        """Cycles of the GEMM on its own."""
        return self.busy_cycles + self.latency_cycles


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def folds(gemm: Gemm, dataflow: Dataflow, rows: int, columns: int) -> int:
    """How many stationary blocks the GEMM has: the product of the two dimensions on the array, each in whole blocks."""
    on_rows = gemm.m if dataflow == "os" else gemm.k
    on_columns = gemm.m if dataflow == "is" else gemm.n
    return ceil_div(on_rows, rows) * ceil_div(on_columns, columns)


def streamed(gemm: Gemm, dataflow: Dataflow) -> int:
    """How many vectors stream past each stationary block: M (ws), N (is) or K (os)."""
    return {"ws": gemm.m, "is": gemm.n, "os": gemm.k}[dataflow]


def array_occupancy(gemm: Gemm, systolic: SystolicConfig) -> Occupancy:
    """Occupancy of one array by a GEMM.

    With F folds, S streamed vectors and a fold of T cycles (table above), the total is ``(F - 1) I + T``, and one less by
    ``convention: scale_sim``. The interval I between the starts of two folds is

    - ``preload: serial``: I = T. A fold starts when the previous one has drained (SCALE-Sim).
    - ``preload: overlapped``: I = max(S, R). Each cell has a second stationary register. Cell (i, j) takes over its
      new value when the first vector of the fold reaches it, i + j cycles after the fold's start; from that cycle on its
      second register is free, and the next block enters row 0 of column j with the same skew and needs R cycles. So
      the next fold may start R cycles after this one, and not before this one's S vectors have entered. For ``os``
      it is the finished sums that move into the second register and need R cycles to leave the column.

    One fold alone costs the same in both (there is nothing to overlap with). As a 1 x 1 array has no skew, SCALE-Sim's
    convention would beat the multiplier there; the total is never less than the streaming itself.
    """
    rows, columns, dataflow = systolic.rows, systolic.columns, systolic.dataflow
    vectors = streamed(gemm, dataflow)
    preload = 0 if dataflow == "os" else rows
    fold = preload + rows + columns + vectors - 2
    interval = fold if systolic.preload == "serial" else max(vectors, rows)
    alone = fold if systolic.convention == "physical" else max(vectors, fold - 1)
    return Occupancy(folds(gemm, dataflow, rows, columns) * interval, alone - interval)


def utilization(macs: int, cycles: int, systolic: SystolicConfig) -> float:
    """Share of the peak multiply-accumulates done: macs / (cycles x arrays x rows x columns), in [0, 1]."""
    return macs / (cycles * systolic.arrays * systolic.rows * systolic.columns) if cycles else 0.0

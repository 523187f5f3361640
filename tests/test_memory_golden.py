"""One memory channel against other simulators: DRAMsim3, and the published NeuPIMs artifact (tables in ``golden``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neupims_sim.config import load_memory
from neupims_sim.memory import READ, WRITE, PimProgram, Replay, Requests, ResolvedSpec, replay_requests, resolve
from neupims_sim.memory.program import GWRITE, TILE

GOLDEN = Path(__file__).parent / "golden"
DRAM = pd.read_csv(GOLDEN / "dram_channel_cycles.csv", comment="#").to_dict("records")
PIM = pd.read_csv(GOLDEN / "pim_channel_cycles.csv", comment="#").to_dict("records")

BURST_BYTES = 64
MEMORIES = {"dual": "hbm2_pim_dual", "single": "hbm2_pim_blocked"}


@cache
def channel(name: str, preset: str) -> ResolvedSpec:
    """One channel of a shipped memory."""
    return resolve(load_memory(name, preset, {"organization.channels": 1}), preset)


def requests(burst: np.ndarray, kind: int = READ) -> Requests:
    """All offered as fast as accepted."""
    zero = np.zeros(len(burst), dtype=np.int64)
    return Requests(burst.astype(np.int64) * BURST_BYTES, zero + kind, zero)


# --- DRAM ---


@cache
def dram(trace: str, reads: int) -> Replay:
    """The reads that DRAMsim3 served, on the table with its figures."""
    index = np.arange(reads)
    burst = {
        "seq_rd": index,
        "conf_rd": index * 32 * 16,  # one row further each time: 32 bursts in a row, 16 banks
        "rand_rd": np.random.default_rng(0).integers(0, 2**30 // BURST_BYTES, reads),
    }[trace]
    return replay_requests(channel("hbm2", "physical"), requests(burst))


@pytest.mark.parametrize("golden", DRAM, ids=lambda row: row["trace"])
def test_a_channel_serves_reads_as_fast_as_dramsim3(golden: dict[str, float]) -> None:
    """Cycles for the same number of reads within 2 %, activations too, and refreshes to within one."""
    result = dram(str(golden["trace"]), int(golden["reads"]))
    assert result.cycles == pytest.approx(golden["cycles"], rel=0.02)
    assert result.commands["RD"] == result.reads == golden["reads"]
    assert result.commands["ACT"] == pytest.approx(golden["activates"], rel=0.02)
    assert abs(result.commands["REF"] - golden["refreshes"]) <= 1
    assert result.bandwidth_gbps == pytest.approx(golden["bandwidth_gbps"], rel=0.02)


def test_sequential_reads_reach_the_peak_that_refresh_leaves() -> None:
    """A refresh takes tRFC out of every tREFI; 95 % of the rest is served."""
    spec = channel("hbm2", "physical")
    timing = spec.config.timing
    peak = spec.config.organization.burst_bytes / spec.config.organization.burst_cycles
    limited = peak * (1 - timing["tRFC"] / timing["tREFI"])
    assert 0.95 * limited <= dram("seq_rd", int(DRAM[0]["reads"])).bandwidth_gbps <= limited


# --- PIM ---


def logit(tiles: int) -> PimProgram:
    """One GWRITE, then tiles on fresh rows with 4 results of 8 dot-products each."""
    return PimProgram.build([(GWRITE, 0, 0, 0), *((TILE, 1000 + tile, 4, 8) for tile in range(tiles))])


def attend(repeats: int, dots: int) -> PimProgram:
    """Repeatedly a GWRITE and four tiles on fresh rows with one result of ``dots`` dot-products each."""

    def operations() -> Iterator[tuple[int, int, int, int]]:
        for repeat in range(repeats):
            yield GWRITE, repeat, 0, 0
            for tile in range(4):
                yield TILE, 1000 + 4 * repeat + tile, 1, dots

    return PimProgram.build(operations())


def pim_work(workload: str) -> tuple[PimProgram | None, Requests | None]:
    """What a row's workload names, e.g. ``attend 50 k=19 + read 20000``."""
    program, traffic = None, None
    for part in workload.split("+"):
        name, count = part.split()[:2]
        dots = re.search(r"k(?:=| <= )(\d+)", part)
        if name == "logit":
            program = logit(int(count))
        elif name == "attend":
            program = attend(int(count), int(dots[1]) if dots else 6)
        else:
            in_other_rows = 5000 * 32 * 16 + np.arange(int(count))
            traffic = requests(in_other_rows, {"read": READ, "write": WRITE}[name])
    return program, traffic


@pytest.mark.parametrize("golden", PIM, ids=lambda row: f"{row['row_buffers']}-{row['workload']}")
def test_a_channel_takes_as_long_as_the_published_artifact(golden: dict[str, str | float]) -> None:
    """PIM work alone or requests alone within 2 %, both together within 5 %.

    Two rows need a word. ``attend 10`` and ``attend 200`` with dual row buffers state no k. They were measured with few
    dot-products, and k = 6, the pipeline's minimum, reproduces them to 0.02 %. The artifact bounds a tile's length before a
    refresh by a power of two that grows with k, so its count does depend on k there: from k = 17 on this model, with the same
    estimate, waits for more refreshes (6 % longer for 10 repeats, 12 % for 200). Nothing was measured to compare that with.
    """
    program, traffic = pim_work(str(golden["workload"]))
    result = replay_requests(channel(MEMORIES[str(golden["row_buffers"])], "asplos24"), traffic, program)
    tolerance = 0.05 if program is not None and traffic is not None else 0.02
    for measured, computed in (("pim_cycles", result.pim_cycles), ("memory_cycles", result.memory_cycles)):
        if not np.isnan(golden[measured]):  # type: ignore[arg-type]
            assert computed == pytest.approx(golden[measured], rel=tolerance), measured


def test_a_long_tile_waits_for_more_refreshes_under_the_estimate_of_the_artifact() -> None:
    """What the two rows without k hide: the estimate depends on k, the command sequence does not."""
    spec = channel("hbm2_pim_dual", "asplos24")
    short, long = (replay_requests(spec, None, attend(200, dots)) for dots in (6, 32))
    assert {name: n for name, n in short.commands.items() if name != "REF"} == {
        name: n for name, n in long.commands.items() if name != "REF"
    }
    assert 1.08 < long.pim_cycles / short.pim_cycles < 1.16

"""The timeline: Chrome trace events, cut to a window and bounded."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulation_cases import small

from neupims_sim.errors import InputError
from neupims_sim.simulation import Result, Timeline, simulate
from neupims_sim.simulation.timeline import MAX_SLICES, Intervals

Event = dict[str, Any]


@pytest.fixture(scope="module")
def watched() -> tuple[Timeline, Result]:
    timeline = Timeline()
    config = small(settings={"scheduling.interleaving": "lockstep", "workload.batch_size": 64})
    return timeline, simulate(config, timeline)


def lanes(path: Path) -> dict[tuple[str, str], list[Event]]:
    """Slices of each lane by the names of process and lane, in the order of the file."""
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    names: dict[Any, str] = {}
    found: defaultdict[tuple[str, str], list[Event]] = defaultdict(list)
    for event in events:
        if event["name"] == "process_name":
            names[event["pid"]] = event["args"]["name"]
        elif event["name"] == "thread_name":
            names[event["pid"], event["tid"]] = event["args"]["name"]
        elif event["ph"] == "X":
            found[names[event["pid"]], names[event["pid"], event["tid"]]].append(event)
    return found


def test_slices_have_what_the_format_asks_for(watched: tuple[Timeline, Result], tmp_path: Path) -> None:
    timeline, result = watched
    path = tmp_path / "timeline.json.gz"
    timeline.write(path)
    found = lanes(path)
    start, end = result.observations.layer_cycles[-2:]
    for lane, slices in found.items():
        previous = 0.0
        for event in slices:
            assert {"ph", "ts", "dur", "pid", "tid", "name", "args"} <= event.keys()
            assert event["dur"] > 0
            assert event["ts"] >= previous - 1e-6, f"{lane} overlaps"
            previous = event["ts"] + event["dur"]
            assert start / 1000 <= event["ts"] < end / 1000
        assert previous <= end / 1000 + 1e-6


def test_every_unit_has_a_lane(watched: tuple[Timeline, Result], tmp_path: Path) -> None:
    timeline, _ = watched
    path = tmp_path / "timeline.json.gz"
    timeline.write(path)
    found = lanes(path)
    assert {("NPU", unit) for unit in ("systolic arrays", "vector units", "DMA read", "DMA write")} <= found.keys()
    assert {("sub-batch 0", "phases"), ("sub-batch 1", "operators"), ("stages", "stage")} <= found.keys()
    assert {("memory", f"channel {n} {kind}") for n in range(8) for kind in ("memory", "PIM")} <= found.keys()
    assert {("requests", f"request {n}") for n in range(64)} <= found.keys()
    assert [event["name"] for event in found["requests", "request 5"]] == ["logits", "softmax", "attend"]
    assert {event["name"] for event in found["stages", "stage"]} == {"C", "D"}


def test_every_tile_and_burst_of_the_run_is_shown(tmp_path: Path) -> None:
    config = small(settings={"model.layers": 1, "scheduling.interleaving": "off"})
    timeline = Timeline()
    result = simulate(config, timeline)
    path = tmp_path / "timeline.json.gz"
    timeline.write(path, (0, result.cycles + 1000))
    counted: defaultdict[str, int] = defaultdict(int)
    for (process, _), slices in lanes(path).items():
        for event in slices:
            if process == "memory":
                for kind, count in event["args"].items():
                    counted[kind] += count
    commands = result.commands  # one layer: of the whole run
    assert counted["reads"] == commands["RD"]
    assert counted["writes"] == commands["WR"]
    assert counted["gwrites"] == commands["GWRITE"]
    assert counted["tiles"] == commands["HEADER"]


def test_the_window_cuts_slices(watched: tuple[Timeline, Result], tmp_path: Path) -> None:
    timeline, _ = watched
    path = tmp_path / "timeline.json.gz"
    timeline.write(path, (10_000, 20_000))
    for slices in lanes(path).values():
        assert all(event["ts"] >= 10 and event["ts"] + event["dur"] <= 20 + 1e-6 for event in slices)
    with pytest.raises(InputError, match="timeline window"):
        timeline.write(path, (10**9, 10**9 + 1))


def test_the_size_is_bounded(watched: tuple[Timeline, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timeline, _ = watched
    path = tmp_path / "timeline.json.gz"
    monkeypatch.setattr("neupims_sim.simulation.timeline.MAX_SLICES", 20)
    timeline.write(path, (0, 1_000_000))
    memory = {lane: slices for lane, slices in lanes(path).items() if lane[0] == "memory"}
    assert all(0 < len(slices) <= 20 for slices in memory.values())
    assert path.stat().st_size < 200_000
    assert MAX_SLICES <= 2000


def test_the_same_run_gives_the_same_bytes(watched: tuple[Timeline, Result], tmp_path: Path) -> None:
    timeline, _ = watched
    for name in ("a.json.gz", "b.json.gz"):
        timeline.write(tmp_path / name)
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


def test_intervals_join_over_gaps_but_not_over_channels() -> None:
    column = np.array
    intervals = Intervals(column([0, 0, 0, 1]), column([0, 6, 20, 21]), column([2, 8, 22, 23]), np.ones((4, 2), int))
    joined = intervals.joined(4)
    assert joined.start.tolist() == [0, 20, 21]
    assert joined.end.tolist() == [8, 22, 23]
    assert joined.counts.tolist() == [[2, 2], [1, 1], [1, 1]]


def test_memory_and_device_clocks_meet_on_one_axis(tmp_path: Path) -> None:
    timeline = Timeline()
    result = simulate(small("npu_only", {"clock_ghz": 2.0, "model.layers": 1}), timeline)
    path = tmp_path / "timeline.json.gz"
    timeline.write(path)
    found = lanes(path)
    last = max(event["ts"] + event["dur"] for slices in found.values() for event in slices)
    assert last == pytest.approx(result.seconds * 1e6, rel=0.01)
    memory = [event for lane, slices in found.items() if lane[0] == "memory" for event in slices]
    assert max(event["ts"] + event["dur"] for event in memory) > 0.9 * last

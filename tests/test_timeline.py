"""The timeline: valid trace events, flows and counters that agree with the run, and a bounded file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_cases import Captured, run
from hypothesis import example, given
from hypothesis import strategies as st
from simulation_cases import small
from test_vision_simulation import RETRIEVAL, VIT
from trace_events import Event, bound_flows, nanoseconds, problems, read_events

from neupims_sim.config import Config, load_config
from neupims_sim.errors import InputError
from neupims_sim.memory.spec import COMMANDS
from neupims_sim.simulation import Result, Timeline, simulate
from neupims_sim.simulation.timeline import commands, counters, lanes
from neupims_sim.simulation.timeline.commands import Intervals
from neupims_sim.simulation.timeline.events import microseconds

LOCKSTEP = {"scheduling.interleaving": "lockstep", "workload.batch_size": 64}


def watch(path: Path, config: Config, window: tuple[int, int] | None = None) -> tuple[list[Event], Result]:
    """The events of a run, and its result."""
    timeline = Timeline(window)
    result = simulate(config, timeline)
    timeline.write(path)
    return read_events(path), result


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Event], Result]:
    """The last steady-state layer of two sub-batches in lockstep."""
    return watch(tmp_path_factory.mktemp("layer") / "t.json.gz", small(settings=LOCKSTEP))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Event], Result]:
    """A whole run of one layer."""
    config = small(settings={"model.layers": 1, "scheduling.interleaving": "off"})
    return watch(tmp_path_factory.mktemp("whole") / "t.json.gz", config, (0, 10**9))


def lanes_of(events: list[Event]) -> dict[tuple[str, str], list[Event]]:
    """Slices of each lane by the names of process and lane, in the order of the file."""
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


def samples(events: list[Event], name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(times in ns, values) of each series of a counter."""
    found = [event for event in events if event["ph"] == "C" and event["name"] == name]
    times = np.array([1000 * event["ts"] for event in found])
    return {series: (times, np.array([event["args"][series] for event in found])) for series in found[0]["args"]}


def total(events: list[Event], name: str, series: str, end_ns: float) -> float:
    """A rate per ns, summed up to the end of a window."""
    times, values = samples(events, name)[series]
    return float((values * np.diff(np.append(times, end_ns))).sum())


def paths(events: list[Event], name: str) -> list[list[str]]:
    """Names of the slices along each flow of a name."""
    steps: defaultdict[int, list[str]] = defaultdict(list)
    for event, bound in bound_flows(events):
        if event["name"] == name:
            assert bound is not None
            steps[event["id"]].append(bound["name"])
    return list(steps.values())


# Format


@pytest.mark.parametrize(
    ("config", "window"),
    [
        pytest.param(small("npu_only"), None, id="npu_only"),
        pytest.param(small("npu_pim"), None, id="npu_pim"),
        pytest.param(small("neupims", {"scheduling.interleaving": "dataflow"}), None, id="dataflow"),
        pytest.param(small("neupims", {"preset": "asplos24"} | LOCKSTEP), None, id="asplos24"),
        pytest.param(small("neupims", {"clock_ghz": 1.3}), (10_000, 13_000), id="odd-clock"),
        pytest.param(
            small("npu_only", {"memory": "gddr6", "memory.organization.channels": 4}), (4_000, 6_000), id="fast-memory"
        ),
        pytest.param(small("npu_only", {"memory": "ideal"}), None, id="ideal-memory"),
        pytest.param(load_config("neupims", RETRIEVAL | {"scheduling.interleaving": "lockstep"}), None, id="retrieval"),
        pytest.param(load_config("npu_only", VIT), None, id="images"),
    ],
)
def test_every_file_is_valid(config: Config, window: tuple[int, int] | None, tmp_path: Path) -> None:
    events, _ = watch(tmp_path / "t.json.gz", config, window)
    assert problems(events) == []
    assert {"M", "X", "C"} <= {event["ph"] for event in events}
    if window is None:
        assert {"s", "f"} <= {event["ph"] for event in events}


def test_the_layer_of_two_sub_batches_is_valid(layer: tuple[list[Event], Result]) -> None:
    assert problems(layer[0]) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"ph": "X", "dur": 0}, "dur"),
        ({"ph": "X", "tid": 1}, "no name"),
        ({"ph": "C", "args": {"read": "much"}}, "values"),
        ({"ph": "C", "args": {"other": 1}}, "go on"),
        ({"ph": "t", "ts": 10**9}, "bound to|back in time"),
        ({"ph": "f", "id": -1}, "flow"),
        ({"ph": "s", "pid": "one"}, "field pid"),
    ],
    ids=str,
)
def test_the_validator_finds_damage(layer: tuple[list[Event], Result], damage: Mapping[str, Any], message: str) -> None:
    events = [dict(event) for event in layer[0]]
    victim = next(event for event in events if event["ph"] == damage["ph"])
    victim |= damage
    assert any(part in problem for problem in problems(events) for part in message.split("|"))


def test_the_validator_finds_slices_that_overlap(layer: tuple[list[Event], Result]) -> None:
    events = [dict(event) for event in layer[0]]
    stage = next(event for event in events if event["ph"] == "X")
    stage["dur"] += 0.001
    assert any("overlaps" in problem for problem in problems(events))


@given(st.integers(0, 10**14))
@example(1_001_000)  # 1.001 x 1000 is 1000.9999999999999
def test_no_nanosecond_is_lost_to_rounding(picoseconds: int) -> None:
    assert nanoseconds(microseconds(picoseconds)) == picoseconds // 1000
    assert microseconds(picoseconds) == pytest.approx(picoseconds / 1e6, rel=1e-12, abs=1e-9)


# Lanes


def test_every_unit_has_a_lane(layer: tuple[list[Event], Result]) -> None:
    found = lanes_of(layer[0])
    assert {("NPU", unit) for unit in ("systolic arrays", "vector units", "DMA read", "DMA write")} <= found.keys()
    assert {("sub-batch 0", "phases"), ("sub-batch 1", "operators"), ("stages", "stage")} <= found.keys()
    assert {("memory", f"channel {n} {kind}") for n in range(8) for kind in ("memory", "PIM")} <= found.keys()
    assert {("requests", f"request {n}") for n in range(64)} <= found.keys()
    assert [event["name"] for event in found["requests", "request 5"]] == ["logits", "softmax", "attend"]
    assert {event["name"] for event in found["stages", "stage"]} == {"C", "D"}


def test_slices_lie_in_the_window(layer: tuple[list[Event], Result]) -> None:
    start, end = layer[1].observations.layer_cycles[-2:]
    for slices in lanes_of(layer[0]).values():
        assert all(start / 1000 <= event["ts"] and event["ts"] + event["dur"] <= end / 1000 + 1e-6 for event in slices)


def test_every_tile_and_burst_of_the_run_is_shown(whole: tuple[list[Event], Result]) -> None:
    counted: Counter[str] = Counter()
    for (process, _), slices in lanes_of(whole[0]).items():
        for event in slices if process == "memory" else ():
            counted.update(event["args"])
    issued = whole[1].commands  # one layer: of the whole run
    assert counted["reads"] == issued["RD"]
    assert counted["writes"] == issued["WR"]
    assert counted["gwrites"] == issued["GWRITE"]
    assert counted["tiles"] == issued["HEADER"]


def test_a_short_window_shows_every_command(
    layer: tuple[list[Event], Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = layer[1].observations.layer_cycles[-2]
    config, window = small(settings=LOCKSTEP), (begin + 100, begin + 2600)
    logged: list[Any] = []
    add = commands.CommandRecorder.add
    monkeypatch.setattr(commands.CommandRecorder, "add", lambda self, log: (logged.append(log), add(self, log))[1])
    events, _ = watch(tmp_path / "t.json.gz", config, window)
    log = np.concatenate(logged)
    inside = log[(log[:, 0] >= window[0]) & (log[:, 0] < window[1])]
    expected = Counter((int(channel), COMMANDS[command], int(cycle)) for cycle, channel, command in inside[:, :3])
    shown = Counter(
        (int(lane.split()[1]), event["name"], nanoseconds(event["ts"]))
        for (_, lane), slices in lanes_of(events).items()
        if "commands" in lane
        for event in slices
    )
    assert shown == expected
    assert {name for _, name, _ in shown} >= {"ACT", "RD", "HEADER", "PIM_ACT", "GEMV", "PIM_PRE"}
    assert problems(events) == []


def test_a_window_of_too_many_commands_shows_intervals_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "MAX_COMMANDS", 100)
    events, _ = watch(tmp_path / "t.json.gz", small(settings=LOCKSTEP), (20_000, 24_000))
    assert not any("commands" in lane for _, lane in lanes_of(events))


def test_memory_and_device_clocks_meet_on_one_axis(tmp_path: Path) -> None:
    events, result = watch(tmp_path / "t.json.gz", small("npu_only", {"clock_ghz": 2.0, "model.layers": 1}))
    found = lanes_of(events)
    last = max(event["ts"] + event["dur"] for slices in found.values() for event in slices)
    assert last == pytest.approx(result.seconds * 1e6, rel=0.01)
    memory = [event for lane, slices in found.items() if lane[0] == "memory" for event in slices]
    assert max(event["ts"] + event["dur"] for event in memory) > 0.9 * last


def test_intervals_join_over_gaps_but_not_over_channels() -> None:
    column = np.array
    intervals = Intervals(column([0, 0, 0, 1]), column([0, 6, 20, 21]), column([2, 8, 22, 23]), np.ones((4, 2), int))
    joined = intervals.joined(4)
    assert joined.start.tolist() == [0, 20, 21]
    assert joined.end.tolist() == [8, 22, 23]
    assert joined.counts.tolist() == [[2, 2], [1, 1], [1, 1]]


# Flows


def test_a_sub_batch_goes_from_the_npu_to_pim_and_back(whole: tuple[list[Event], Result]) -> None:
    (way,) = paths(whole[0], "sub-batch 0")
    assert way.index("qkv") < way.index("MHA") < way.index("projection") < way.index("ffn1") < way.index("ffn2")
    assert way.count("MHA") == 1


def test_each_request_goes_from_an_operator_through_its_attention_to_the_next(
    whole: tuple[list[Event], Result],
) -> None:
    (way,) = paths(whole[0], "sub-batch 0")
    before, after = way[way.index("MHA") - 1], way[way.index("MHA") + 1]
    for request in range(16):
        assert paths(whole[0], f"request {request}") == [[before, "logits", "softmax", "attend", after]]


def test_flows_that_leave_the_window_are_left_out(layer: tuple[list[Event], Result]) -> None:
    """In stages C and D sub-batch 0 goes through its FFN into the next attention, sub-batch 1 the other way round."""
    (one,), (other,) = (paths(layer[0], f"sub-batch {n}") for n in (0, 1))
    assert one[-1] == other[0] == "MHA"
    for number in range(64):
        (way,) = paths(layer[0], f"request {number}")
        assert ("projection" in way) != ("qkv" in way or "kv_append" in way)


# Counters


def test_bandwidth_adds_up_to_the_bytes_of_the_run(whole: tuple[list[Event], Result]) -> None:
    events, result = whole
    end = samples(events, "transfers under way")["reads"][0][-1]
    interval = np.diff(samples(events, "bandwidth GB/s")["read"][0])[1]
    end = np.ceil(end / interval) * interval  # the last interval counts as a whole
    for series in ("read", "write"):
        assert total(events, "bandwidth GB/s", series, end) == pytest.approx(result.traffic_bytes[series], rel=1e-3)
    internal = total(events, "PIM-internal bandwidth GB/s", "read", end)
    assert internal == pytest.approx(result.traffic_bytes["pim_internal"], rel=1e-3)


def test_bandwidth_and_shares_keep_to_their_peaks(layer: tuple[list[Event], Result]) -> None:
    read, write = (samples(layer[0], "bandwidth GB/s")[series][1] for series in ("read", "write"))
    assert 200 < (read + write).max() <= 8 * 32 * 1.1  # a burst counts where its command issues
    assert samples(layer[0], "channel 3")["GB/s"][1].max() <= 32 * 1.1
    assert samples(layer[0], "PIM-internal bandwidth GB/s")["read"][1].max() <= 8 * 512 * 1.01
    assert 4 < samples(layer[0], "channels at work in PIM")["channels"][1].max() <= 8
    for unit, least in (
        ("systolic arrays", 50),
        ("vector units", 25),
    ):  # fused, vector work follows the tiles of products
        assert least < samples(layer[0], "busy %")[unit][1].max() <= 100


def test_busy_share_is_that_of_the_lane(layer: tuple[list[Event], Result]) -> None:
    lane = lanes_of(layer[0])["NPU", "systolic arrays"]
    times, values = samples(layer[0], "busy %")["systolic arrays"]
    inside = slice(1, -1)  # whole intervals
    begin, end = times[1], times[-1]
    busy = sum(
        max(0.0, min(1000 * (e["ts"] + e["dur"]), end) - max(1000 * e["ts"], begin)) for e in lane
    )  # disjoint: there is one set of arrays
    assert float((values[inside] / 100 * np.diff(times[1:])).sum()) == pytest.approx(busy, rel=0.01)


def test_all_that_was_asked_for_is_done_in_the_end(whole: tuple[list[Event], Result]) -> None:
    for name, series in (
        ("transfers under way", ("reads", "writes")),
        ("queued bursts", ("reads", "writes")),
        ("PIM programs", ("in channels", "waiting")),
    ):
        for what in series:
            _, values = samples(whole[0], name)[what]
            assert values.min() >= 0
            assert values.max() > 0
            assert values[-1] == 0


def test_a_channel_holds_two_programs_at_most(layer: tuple[list[Event], Result]) -> None:
    assert samples(layer[0], "PIM programs")["in channels"][1].max() <= 2 * 8


def test_mean_under_way_counts_overlaps() -> None:
    mean = counters.mean_under_way([0, 5, 30], [10, 15, 31], [0, 10, 20, 40])
    assert mean.tolist() == pytest.approx([1.5, 0.5, 0.05])


# Size


def test_the_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, bound in (
        (lanes, "MAX_SLICES", 20),
        (lanes, "MAX_ROWS", 2),
        (lanes, "MAX_REQUEST_SLICES", 30),
        (counters, "MAX_SAMPLES", 16),
        (commands, "BINS", 64),
    ):
        monkeypatch.setattr(module, name, bound)
    monkeypatch.setattr("neupims_sim.simulation.timeline.recorder.MAX_SAMPLES", 16)
    events, result = watch(tmp_path / "t.json.gz", small(settings=LOCKSTEP), (0, 10**7))
    found = lanes_of(events)
    assert problems(events) == []
    assert all(len(slices) <= 20 for slices in found.values())
    assert not any("(3)" in lane for _, lane in found)
    requests = [slices for (process, _), slices in found.items() if process == "requests"]
    assert 0 < sum(map(len, requests)) <= 30
    sampled = Counter(event["name"] for event in events if event["ph"] == "C" and "channel " not in event["name"])
    assert 8 <= max(sampled.values()) <= 17
    assert sum(event["ph"] in "stf" for event in events) <= 3 * 30 + 2 * 20 * 3
    assert result.cycles > 0


def test_the_window_cuts_slices_and_must_lie_in_the_run(tmp_path: Path) -> None:
    events, _ = watch(tmp_path / "t.json.gz", small(), (10_000, 20_000))
    for slices in lanes_of(events).values():
        assert all(event["ts"] >= 10 and event["ts"] + event["dur"] <= 20 + 1e-6 for event in slices)
    with pytest.raises(InputError, match="timeline window"):
        watch(tmp_path / "never.json.gz", small(), (10**9, 10**9 + 1))
    assert [path.name for path in tmp_path.iterdir()] == ["t.json.gz"]


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.json.gz", "b.json.gz"):
        watch(tmp_path / name, small())
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


def test_the_command_line_writes_it(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, _ = run(capsys, "run", "npu_only", "--set", "workload.batch_size=4", "--set", "model.layers=1",
                     "--timeline-window", "1000:5000", "--out", "here")  # fmt: skip
    assert code == 0
    assert problems(read_events(Path("here/timeline.json.gz"))) == []
    code, _, err = run(capsys, "run", "gpu_a100", "--timeline", "--out", "gpu")
    assert code == 2
    assert "timeline" in err
    code, _, err = run(capsys, "run", "npu_only", "--timeline-window", "5:5")
    assert code == 2
    assert "--timeline-window '5:5'" in err

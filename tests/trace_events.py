"""A validator of Chrome's trace event format, as strict as Perfetto is where it would drop something silently."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

Event = dict[str, Any]

_FIELDS = {
    "M": {"name": str, "pid": int, "ts": (int, float), "args": dict},
    "X": {
        "name": str,
        "cat": str,
        "pid": int,
        "tid": int,
        "ts": (int, float),
        "dur": (int, float),
        "args": dict,
    },
    "C": {"name": str, "pid": int, "ts": (int, float), "args": dict},
    **{
        phase: {"name": str, "cat": str, "pid": int, "tid": int, "ts": (int, float), "id": int, "bp": str}
        for phase in "stf"
    },
}
_NAMES = {
    "process_name": "name",
    "thread_name": "name",
    "process_sort_index": "sort_index",
    "thread_sort_index": "sort_index",
}


def read_events(path: Path) -> list[Event]:
    """The events of a file; raises ValueError if it is not strict JSON."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    return list(json.loads(gzip.decompress(path.read_bytes()), parse_constant=refuse)["traceEvents"])


def nanoseconds(value: float) -> int:
    """A time as Perfetto keeps it: microseconds times 1000, the fraction cut off."""
    return int(value * 1000)


def problems(events: list[Event]) -> list[str]:
    """What is wrong with the events, one line each."""
    found = [f"{event}: {problem}" for event in events for problem in _field_problems(event)]
    return found or [
        *_name_problems(events),
        *_lane_problems(events),
        *_counter_problems(events),
        *_flow_problems(events),
    ]


def _field_problems(event: Event) -> list[str]:
    fields = _FIELDS.get(event.get("ph", ""))
    if fields is None:
        return [f"phase {event.get('ph')!r}"]
    wrong = [key for key, kind in fields.items() if not isinstance(event.get(key), kind) or event[key] is True]
    if not wrong and event["ts"] < 0:
        wrong.append("ts")
    if event["ph"] == "M" and not wrong:
        wrong += [] if _NAMES.get(event["name"]) in event["args"] else ["args"]
    if event["ph"] == "X" and not wrong and event["dur"] <= 0:
        wrong.append("dur")
    if event["ph"] in "stf" and event.get("bp") != "e":
        wrong.append("bp")
    return [f"field {key}" for key in wrong]


def _name_problems(events: list[Event]) -> list[str]:
    """Every process and every lane in use has one name; no lane's number is used twice, nor is it that of a process."""
    names: defaultdict[tuple[str, Any], int] = defaultdict(int)
    for event in events:
        if event["ph"] == "M":
            names[event["name"], (event["pid"], event.get("tid"))] += 1
    pids = {event["pid"] for event in events}
    lanes = {(event["pid"], event["tid"]) for event in events if event["ph"] != "M" and "tid" in event}
    lanes |= {place for what, place in names if what == "thread_name"}
    tids = [tid for _, tid in lanes]
    found = [f"process {pid} has no name" for pid in pids if ("process_name", (pid, None)) not in names]
    found += [f"lane {lane} has no name" for lane in lanes if ("thread_name", lane) not in names]
    found += [f"{key} is given {count} times" for key, count in names.items() if count > 1]
    return found + [f"tid {tid} is not unique" for tid in tids if tids.count(tid) > 1 or tid in pids]


def _lane_problems(events: list[Event]) -> list[str]:
    """Slices of a lane come in order of time and lie within each other or apart, after rounding too."""
    found = []
    open_until: defaultdict[int, list[int]] = defaultdict(list)
    previous: defaultdict[int, float] = defaultdict(float)
    for event in events:
        if event["ph"] == "X":
            start, stack = nanoseconds(event["ts"]), open_until[event["tid"]]
            end = start + nanoseconds(event["dur"])
            while stack and stack[-1] <= start:
                stack.pop()
            if stack and end > stack[-1]:
                found.append(f"{event} overlaps the slice before it")
            if event["ts"] < previous[event["tid"]]:
                found.append(f"{event} is out of order")
            previous[event["tid"]] = event["ts"]
            stack.append(end)
    return found


def _counter_problems(events: list[Event]) -> list[str]:
    """Counters are numbers, have the same series throughout, and come in order of time."""
    found = []
    last: dict[tuple[int, str], Event] = {}
    for event in events:
        if event["ph"] == "C":
            values, key = event["args"], (event["pid"], event["name"])
            if not values or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values.values()):
                found.append(f"{event}: values")
            before = last.get(key, event)
            if before["args"].keys() != values.keys() or before["ts"] > event["ts"]:
                found.append(f"{event} does not go on from {before}")
            last[key] = event
    return found


def _flow_problems(events: list[Event]) -> list[str]:
    """Every flow starts once, ends once, goes forward in time, and every step is bound to a slice that begins there."""
    found, steps = [], defaultdict(list)
    for event, bound in bound_flows(events):
        steps[event["id"], event["cat"], event["name"]].append(event)
        if bound is None or nanoseconds(bound["ts"]) != nanoseconds(event["ts"]):
            found.append(f"{event} is bound to {bound}")
    for flow, members in steps.items():
        phases = "".join(event["ph"] for event in members)
        if phases != "s" + "t" * (len(members) - 2) + "f":
            found.append(f"flow {flow} is {phases}")
        if any(after["ts"] < before["ts"] for before, after in pairwise(members)):
            found.append(f"flow {flow} goes back in time")
    return found


def bound_flows(events: list[Event]) -> list[tuple[Event, Event | None]]:
    """Flow events with the slice that each is bound to: in order of time, then of the file, the one begun last on its lane."""
    latest: dict[int, Event] = {}
    bound: list[tuple[Event, Event | None]] = []
    for event in sorted(events, key=lambda event: nanoseconds(event["ts"])):
        if event["ph"] == "X":
            latest[event["tid"]] = event
        elif event["ph"] in "stf":
            inside = latest.get(event["tid"])
            over = inside is not None and nanoseconds(inside["ts"]) + nanoseconds(inside["dur"]) < nanoseconds(
                event["ts"]
            )
            bound.append((event, None if over else inside))
    return bound

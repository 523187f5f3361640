"""The files of a serving run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neupims_sim.serving import metrics
from neupims_sim.serving.clock import TICKS_PER_S
from neupims_sim.serving.records import NEVER, RequestRecords
from neupims_sim.serving.server import IterationRecord, ServingResult
from neupims_sim.simulation.directory import ITERATIONS, REQUESTS, RESULT

_TIMES = {
    "arrived": "arrival_s",
    "first_scheduled": "first_scheduled_s",
    "first_token": "first_token_s",
    "ended": "end_s",
}
_COUNTS = ("prompt_tokens", "output_tokens", "produced_tokens", "cached_tokens", "preemptions")


def request_table(records: RequestRecords) -> pd.DataFrame:
    """A row per request that arrived: its number, state, times and latencies in s, counts; empty where something has not happened."""
    columns: dict[str, object] = {"request": np.arange(len(records.refused))}
    state = np.where(records["ended"] != NEVER, "completed", np.where(records.refused, "refused", "unfinished"))
    columns["state"] = state
    for name, shown in _TIMES.items():
        values = records[name]
        columns[shown] = np.where(values == NEVER, np.nan, values / TICKS_PER_S)
    for latency in (metrics.ttft_s, metrics.tpot_s, metrics.e2e_s, metrics.queueing_s):
        columns[latency.__name__] = latency(records)
    for name in _COUNTS:
        columns[name] = pd.array(np.where(records[name] == NEVER, 0, records[name]), dtype="int64")
    table: pd.DataFrame = pd.DataFrame(columns).loc[records["arrived"] != NEVER]
    return table


def write_serving_run(result: ServingResult, content: Mapping[str, Any], folder: Path) -> None:
    """Write result.json with ``content`` and requests.csv into the folder of a run."""
    (folder / RESULT).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="")
    request_table(result.records).to_csv(folder / REQUESTS, index=False, float_format="%.12g")


@contextmanager
def iteration_writer(folder: Path) -> Iterator[Callable[[IterationRecord], None]]:
    """A function that appends a record as a line of iterations.jsonl."""
    with (folder / ITERATIONS).open("w", encoding="utf-8") as file:
        yield lambda record: print(json.dumps(record), file=file)

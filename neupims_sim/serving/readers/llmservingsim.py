"""LLMServingSim 2's requests, alone or in sessions of an agent whose requests wait for each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neupims_sim.errors import InputError
from neupims_sim.serving.readers.base import READERS, Reader, RequestTable, Row, json_objects, without_empty


def read_llmservingsim(path: Path) -> RequestTable:
    """JSON lines ``input_toks``, ``output_toks``, ``arrival_time_ns`` and, optionally, ``input_tok_ids``; or ``session_id``,
    ``arrival_time_ns``, ``sub_requests`` with ``input_toks``, ``output_toks``, ``tool_duration_ns``: each arrives when the tool that
    follows the one before it has ended."""
    columns = _Columns()
    for line, values in json_objects(path):
        row = Row(values, path, line)
        arrival = row.ticks("arrival_time_ns", 1e9)
        if "sub_requests" not in row:
            columns.add(row, arrival, after=-1, delay=0)
            continue
        after, delay = -1, 0
        for part in row.objects("sub_requests"):
            inner = Row(part, path, line)
            columns.add(inner, arrival, after, delay)
            after = len(columns.prompt) - 1
            delay = inner.ticks("tool_duration_ns", 1e9) if "tool_duration_ns" in inner else 0
    if not columns.prompt:
        raise InputError(f"{path}: no requests")
    return without_empty(columns.table(path), path)


class _Columns:
    def __init__(self) -> None:
        self.arrival: list[int] = []
        self.prompt: list[int] = []
        self.output: list[int] = []
        self.ids: list[list[int]] = []
        self.after: list[int] = []
        self.delay: list[int] = []

    def add(self, row: Row, arrival: int, after: int, delay: int) -> None:
        self.arrival.append(arrival)
        self.prompt.append(row.tokens("input_toks"))
        self.output.append(row.tokens("output_toks"))
        self.after.append(after)
        self.delay.append(delay)
        if "input_tok_ids" in row:
            self.ids.append(row.numbers("input_tok_ids"))
            if len(self.ids[-1]) != self.prompt[-1]:
                raise row.error(f"input_tok_ids has {len(self.ids[-1])} ids, but input_toks={self.prompt[-1]}")

    def table(self, path: Path) -> RequestTable:
        if self.ids and len(self.ids) != len(self.prompt):
            raise InputError(
                f"{path}: {len(self.ids)} of {len(self.prompt)} requests have input_tok_ids; all or none must"
            )
        sessions = any(after >= 0 for after in self.after)
        return RequestTable(
            np.arange(len(self.prompt)),
            np.array(self.prompt),
            np.array(self.output),
            np.array(self.arrival),
            token_ids=self.ids or None,
            after=np.array(self.after) if sessions else None,
            delay=np.array(self.delay) if sessions else None,
        )


READERS.register("llmservingsim")(
    Reader(frozenset({"input_toks", "output_toks", "arrival_time_ns"}), read_llmservingsim)
)
READERS.register("llmservingsim_sessions")(Reader(frozenset({"sub_requests", "arrival_time_ns"}), read_llmservingsim))

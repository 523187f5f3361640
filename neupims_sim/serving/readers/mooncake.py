"""Mooncake's traces (Qin et al., arXiv 2407.00079): lengths, and hashes that tell which prompts begin alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neupims_sim.errors import InputError
from neupims_sim.serving.readers.base import READERS, Reader, RequestTable, Row, json_objects, without_empty

CHUNK_TOKENS = 512
"""Tokens behind one of ``hash_ids`` (README of the traces)."""


def read_mooncake(path: Path) -> RequestTable:
    """JSON lines ``timestamp`` (ms), ``input_length``, ``output_length``, ``hash_ids``; the last chunk may be shorter."""
    arrival, prompt, output, chunks = [], [], [], []
    for line, values in json_objects(path):
        row = Row(values, path, line)
        arrival.append(row.ticks("timestamp", 1e3))
        prompt.append(row.tokens("input_length"))
        output.append(row.tokens("output_length"))
        chunks.append(row.numbers("hash_ids") if "hash_ids" in row else [])
        if len(chunks[-1]) > -(-prompt[-1] // CHUNK_TOKENS):
            raise row.error(
                f"hash_ids has {len(chunks[-1])} chunks of {CHUNK_TOKENS} tokens for input_length={prompt[-1]}"
            )
    if not arrival:
        raise InputError(f"{path}: no requests")
    table = RequestTable(
        np.arange(len(arrival)),
        np.array(prompt),
        np.array(output),
        np.array(arrival),
        chunk_ids=chunks,
        chunk_tokens=CHUNK_TOKENS,
    )
    return without_empty(table, path)


READERS.register("mooncake")(Reader(frozenset({"timestamp", "input_length", "output_length"}), read_mooncake))

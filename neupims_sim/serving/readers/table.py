"""Our own format, and splitwise-sim's: a plain table of arrivals and lengths."""

from __future__ import annotations

from pathlib import Path

from neupims_sim.serving.readers.base import READERS, CsvColumns, Reader, RequestTable, read_csv, seconds


def read_table(path: Path) -> RequestTable:
    """``arrival_s,prompt_tokens,output_tokens``."""
    return read_csv(path, CsvColumns("arrival_s", "prompt_tokens", "output_tokens", seconds))


def read_splitwise(path: Path) -> RequestTable:
    """``request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size``; times in s."""
    return read_csv(path, CsvColumns("arrival_timestamp", "prompt_size", "token_size", seconds))


READERS.register("table")(Reader(frozenset({"arrival_s", "prompt_tokens", "output_tokens"}), read_table))
READERS.register("splitwise")(Reader(frozenset({"arrival_timestamp", "prompt_size", "token_size"}), read_splitwise))

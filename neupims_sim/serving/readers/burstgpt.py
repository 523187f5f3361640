"""BurstGPT (Wang et al., arXiv 2401.17644): conversations with ChatGPT and GPT-4 through a campus gateway."""

from __future__ import annotations

from pathlib import Path

from neupims_sim.serving.readers.base import READERS, CsvColumns, Reader, RequestTable, read_csv, seconds


def read_burstgpt(path: Path) -> RequestTable:
    """``Timestamp`` (s), ``Request tokens``, ``Response tokens`` and others; failures have no response and are left out."""
    return read_csv(path, CsvColumns("Timestamp", "Request tokens", "Response tokens", seconds))


READERS.register("burstgpt")(Reader(frozenset({"Timestamp", "Request tokens", "Response tokens"}), read_burstgpt))

"""Azure's public traces: LLM inference 2023 and 2024, multimodal inference 2025 (github.com/Azure/AzurePublicDataset)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from neupims_sim.serving.readers.base import READERS, CsvColumns, Reader, RequestTable, read_csv, seconds_of_dates

_COLUMNS = CsvColumns("TIMESTAMP", "ContextTokens", "GeneratedTokens", seconds_of_dates)


def read_azure(path: Path) -> RequestTable:
    """``TIMESTAMP,ContextTokens,GeneratedTokens``; the first request arrives at 0."""
    return read_csv(path, _COLUMNS)


def read_azure_multimodal(path: Path) -> RequestTable:
    """``TIMESTAMP,NumImages,ContextTokens,GeneratedTokens``: the encoder of the images is not simulated, and a note says so."""
    table = read_csv(path, _COLUMNS)
    return replace(
        table, notes=(*table.notes, f"{path}: images count as the tokens in ContextTokens; encoding them takes no time")
    )


READERS.register("azure")(Reader(frozenset({"TIMESTAMP", "ContextTokens", "GeneratedTokens"}), read_azure))
READERS.register("azure_multimodal")(
    Reader(frozenset({"TIMESTAMP", "NumImages", "ContextTokens", "GeneratedTokens"}), read_azure_multimodal)
)

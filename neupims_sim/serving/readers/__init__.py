"""Readers of request files, one module for each format that people have."""

from __future__ import annotations

from neupims_sim.serving.readers.base import READERS, Reader, RequestTable, read_requests

__all__ = ["READERS", "Reader", "RequestTable", "read_requests"]

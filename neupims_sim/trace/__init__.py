"""Operator traces: what is to be computed, without saying by which unit. Types, kinds and counts, files, checks."""

from neupims_sim.trace.check import checked
from neupims_sim.trace.files import TraceStream, check_trace, open_trace, read_trace, write_trace
from neupims_sim.trace.kinds import KINDS, Kind, flops, macs, read_bytes, write_bytes
from neupims_sim.trace.operators import ELEMENT_BYTES, Operator, Role, Tensor, Trace, TraceHeader
from neupims_sim.trace.summary import summarize, total

__all__ = [
    "ELEMENT_BYTES",
    "KINDS",
    "Kind",
    "Operator",
    "Role",
    "Tensor",
    "Trace",
    "TraceHeader",
    "TraceStream",
    "check_trace",
    "checked",
    "flops",
    "macs",
    "open_trace",
    "read_bytes",
    "read_trace",
    "summarize",
    "total",
    "write_bytes",
    "write_trace",
]

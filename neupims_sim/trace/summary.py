"""What a trace amounts to, per operator name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from neupims_sim.trace.kinds import flops, read_bytes, write_bytes
from neupims_sim.trace.operators import ROLES, Operator


def summarize(operators: Iterable[Operator]) -> list[dict[str, str | int]]:
    """One row per operator name, in order of first appearance, all layers and requests together.

    Keys: ``name``, ``op``, ``count`` (executions), ``flops``, and ``weight_bytes``, ``activation_bytes``,
    ``kv_cache_bytes``, ``state_bytes`` (read plus written). Streams: memory grows with the number of names only.
    """
    totals: dict[tuple[str, str], dict[str, int]] = {}
    for op in operators:
        row = totals.setdefault((op.name, op.op), dict.fromkeys(_COLUMNS, 0))
        row["count"] += op.repeat
        row["flops"] += op.repeat * flops(op)
        for moved in (read_bytes(op), write_bytes(op)):
            for role, size in moved.items():
                row[f"{role}_bytes"] += op.repeat * size
    return [{"name": name, "op": kind, **row} for (name, kind), row in totals.items()]


def total(rows: Iterable[Mapping[str, str | int]]) -> dict[str, int]:
    """Column sums of ``summarize``'s rows."""
    sums = dict.fromkeys(_COLUMNS, 0)
    for row in rows:
        for column in _COLUMNS:
            sums[column] += int(row[column])
    return sums


_COLUMNS = ("count", "flops", *(f"{role}_bytes" for role in ROLES))

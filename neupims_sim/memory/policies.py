"""The memory controller's policies by name: each is one row here, switches that the compiled engine reads.

A table names them under ``controller``: ``scheduling``, ``page_policy``, ``refresh``, ``pim_priority``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from neupims_sim.registry import Registry


class Scheduling(NamedTuple):
    """Which request goes first."""

    in_order: bool
    """One request at a time, in the order of acceptance; else row hits first within a bank, up to ``row_hit_cap``."""
    oldest_first: bool
    """Of commands that are ready at once the one for the oldest request; else banks take turns."""


class PagePolicy(NamedTuple):
    """When a row that no request waits for is closed."""

    closes: bool
    """Whether it is closed at all before another row, or a refresh, needs its bank."""
    waits: bool
    """Whether ``page_timeout_cycles`` pass first."""


class Refresh(NamedTuple):
    """How rows are refreshed."""

    command: str | None
    """The command: REF for a rank every tREFI, REFPB for its banks in turn every tREFIpb; None: not at all."""


class PimPriority(NamedTuple):
    """Who goes first where PIM and requests both want to. A macro-command that has begun is not interrupted."""

    reserves: bool
    """While a PIM command waits, requests' commands that would push it further back are held; else the first ready goes."""
    waits: bool
    """Whether a macro-command starts only when no request waits in a bank queue and no read before one."""
    bounded: bool
    """Whether that wait ends after ``pim_max_wait_cycles``."""


SCHEDULING: Registry[Scheduling] = Registry("request scheduling")
SCHEDULING.register("bank_round_robin")(Scheduling(in_order=False, oldest_first=False))
SCHEDULING.register("fr_fcfs")(Scheduling(in_order=False, oldest_first=True))
SCHEDULING.register("fcfs")(Scheduling(in_order=True, oldest_first=True))

PAGE_POLICIES: Registry[PagePolicy] = Registry("page policy")
PAGE_POLICIES.register("open")(PagePolicy(closes=False, waits=False))
PAGE_POLICIES.register("closed")(PagePolicy(closes=True, waits=False))
PAGE_POLICIES.register("timeout")(PagePolicy(closes=True, waits=True))

REFRESHES: Registry[Refresh] = Registry("refresh")
REFRESHES.register("all_bank")(Refresh("REF"))
REFRESHES.register("per_bank")(Refresh("REFPB"))
REFRESHES.register("off")(Refresh(None))

PIM_PRIORITIES: Registry[PimPriority] = Registry("PIM priority")
PIM_PRIORITIES.register("pim_first")(PimPriority(reserves=True, waits=False, bounded=False))
PIM_PRIORITIES.register("ready_first")(PimPriority(reserves=False, waits=False, bounded=False))
PIM_PRIORITIES.register("memory_first")(PimPriority(reserves=True, waits=True, bounded=False))
PIM_PRIORITIES.register("bounded_wait")(PimPriority(reserves=True, waits=True, bounded=True))

CONTROLLER_POLICIES: dict[str, Registry[Any]] = {
    "scheduling": SCHEDULING,
    "page_policy": PAGE_POLICIES,
    "refresh": REFRESHES,
    "pim_priority": PIM_PRIORITIES,
}
"""The table behind each field of ``controller`` that names a policy."""

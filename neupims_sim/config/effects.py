"""Which keys that somebody sets change nothing, and why: nothing is silently ignored.

A value in a file may be there for another use of the file, so only overrides (``--set``, the mapping in Python) are looked at. What
contradicts another statement of the user is an error; what the chosen system has no use for is a warning, so that one script can
set the same keys for different systems. The points of a sweep cross systems on purpose and are not warned of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from neupims_sim.config.overrides import Override
from neupims_sim.config.schema import Config, ImagesConfig, RetrievalConfig, WorkloadConfig


class Ineffective(NamedTuple):
    """A key without effect. ``contradicts``: another statement has taken its place."""

    key: str
    reason: str
    contradicts: bool


class _Rule(NamedTuple):
    """Keys, or beginnings of keys that end in a dot, that change nothing where ``reason`` gives one."""

    keys: tuple[str, ...]
    reason: Callable[[Config], str | None]
    but: tuple[str, ...] = ()
    contradicts: bool = False


def ineffective(config: Config, overrides: list[Override]) -> list[Ineffective]:
    """Those of the overrides that change nothing."""
    found = []
    for key in (key for override in overrides for key in _leaves(".".join(override.keys), override.value)):
        for rule in _RULES:
            if not _matches(key, rule.keys) or _matches(key, rule.but):
                continue
            reason = rule.reason(config)
            if reason is not None:
                found.append(Ineffective(key, reason, rule.contradicts))
                break
    return found


def _leaves(key: str, value: Any) -> Iterator[str]:
    """The keys that a value states: those of a mapping, else its own."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    elif value is not None:
        yield key


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(key.startswith(pattern) if pattern.endswith(".") else key == pattern for pattern in patterns)


def _gpu(config: Config) -> str | None:
    return None if config.gpu is None else f"gpu={config.gpu.name} runs instead of NPU and PIM"


def _requests(config: Config) -> str | None:
    workload = config.workload
    if isinstance(workload, WorkloadConfig) and workload.requests is not None:
        return f"workload.requests={workload.requests!r} states the requests; workload.requests=null has them drawn"
    return None


def _contexts(config: Config) -> str | None:
    workload = config.workload
    if isinstance(workload, WorkloadConfig) and workload.context_tokens is not None:
        return f"workload.context_tokens={workload.context_tokens} is the length of every request"
    return None


def _uses_pim(config: Config) -> bool:
    """Whether anything runs in PIM."""
    workload, on = config.workload, config.search_on or config.attention_on
    searches = isinstance(workload, RetrievalConfig) or getattr(workload, "background", None) is not None
    decodes = isinstance(workload, WorkloadConfig)
    return (decodes and config.attention_on == "pim") or (searches and on == "pim") or config.pooling_on == "pim"


def _no_pim(config: Config) -> str | None:
    return None if config.gpu is not None or _uses_pim(config) else "nothing runs in PIM"


def _no_attention_in_pim(config: Config) -> str | None:
    decodes = isinstance(config.workload, WorkloadConfig)
    return None if decodes and config.attention_on == "pim" else "no attention of requests runs in PIM"


def _one_stage(config: Config) -> str | None:
    parallel = config.parallel
    count = parallel.micro_batches or parallel.pipeline
    return "there is one micro-batch" if count == 1 else None


def _no_link(config: Config) -> str | None:
    if config.parallel.link.topology == "none":
        return "parallel.link.topology=none: links are free"
    return None


def _one_device(config: Config) -> str | None:
    alone = config.parallel.tensor == config.parallel.pipeline == 1
    return "there is one device (parallel.tensor=1, parallel.pipeline=1)" if alone else None


def _no_interleaving_rule(config: Config) -> str | None:
    setting = config.scheduling.interleaving
    return None if setting == "auto" else f"scheduling.interleaving={setting}, not auto"


def _whole_batch(config: Config) -> str | None:
    return "scheduling.interleaving=off: the batch is not divided" if config.scheduling.interleaving == "off" else None


def _ideal_memory(config: Config) -> str | None:
    return "memory.model=ideal knows bandwidth and latency only" if config.memory.model == "ideal" else None


def _no_groups(config: Config) -> str | None:
    workload = config.workload
    pools = isinstance(workload, ImagesConfig) and workload.pooling == "ggem"
    return None if pools else "workload.pooling is not ggem"


def _no_extraction(config: Config) -> str | None:
    workload = config.workload
    no_images = isinstance(workload, RetrievalConfig) and not workload.extract
    return "workload.extract=false: queries are descriptors" if no_images else None


_RULES = (
    _Rule(
        ("workload.batch_size", "workload.dataset", "workload.warmup."),
        _requests,
        contradicts=True,
    ),
    _Rule(("workload.dataset", "workload.warmup."), _contexts, contradicts=True),
    _Rule(
        ("npu.", "memory.", "scheduling.", "mapping.", "attention_on", "search_on", "pooling_on", "memory", "npu"),
        _gpu,
        but=("npu.element_bytes", "npu.number_format", "npu.energy."),
    ),
    _Rule(("memory.pim.",), _no_pim),
    _Rule(("scheduling.channel_assignment", "scheduling.barrier"), _no_attention_in_pim),
    _Rule(("scheduling.partition",), _whole_batch),
    _Rule(("scheduling.auto_min_batch",), _no_interleaving_rule),
    _Rule(("parallel.batch",), _one_stage),
    _Rule(("parallel.link.",), _one_device),
    _Rule(("parallel.link.bandwidth_gbps", "parallel.link.latency_ns"), _no_link),
    _Rule(("memory.controller.", "memory.pim.", "memory.power."), _ideal_memory),
    _Rule(("workload.groups",), _no_groups),
    _Rule(("workload.image_size", "workload.pooling"), _no_extraction),
)

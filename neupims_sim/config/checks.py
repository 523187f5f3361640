"""Checks between sections of a configuration, before anything is simulated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from neupims_sim.config.schema import Config
from neupims_sim.errors import InputError


def check_config(config: Config) -> None:
    """Raise InputError for values which are fine each on its own but not together."""
    for _, message in violations(config):
        raise InputError(message)


def violations(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong: the key path to blame, and a message that starts with it."""
    model, workload, parallel = config.model, config.workload, config.parallel

    for size, key in (
        (model.heads, "heads"),
        (model.kv_heads, "kv_heads"),
        (model.d_ff, "d_ff"),
    ):
        if size % parallel.tensor:
            yield (
                ("parallel", "tensor"),
                f"parallel.tensor={parallel.tensor} does not divide model.{key}={size}; allowed: {_divisors(size)}",
            )
    if model.layers % parallel.pipeline:
        yield (
            ("parallel", "pipeline"),
            f"parallel.pipeline={parallel.pipeline} does not divide model.layers={model.layers}; "
            f"allowed: {_divisors(model.layers)}",
        )
    if model.heads % model.kv_heads:
        yield (
            ("model", "kv_heads"),
            f"model.kv_heads={model.kv_heads} does not divide model.heads={model.heads}; allowed: {_divisors(model.heads)}",
        )
    if workload.requests is None and workload.batch_size < parallel.pipeline:
        yield (
            ("workload", "batch_size"),
            f"workload.batch_size={workload.batch_size} is smaller than parallel.pipeline={parallel.pipeline}: "
            "every stage needs a request",
        )
    if workload.warmup.max_context_tokens > model.max_positions:
        yield (
            ("workload", "warmup", "max_context_tokens"),
            f"workload.warmup.max_context_tokens={workload.warmup.max_context_tokens} is longer than "
            f"model.max_positions={model.max_positions} of {model.name}",
        )
    if workload.requests is not None and not Path(workload.requests).is_file():
        yield ("workload", "requests"), f"workload.requests={workload.requests!r}: no such file"
    if config.attention_on == "pim" and config.memory.row_buffers == "none":
        yield (
            ("attention_on",),
            f"attention_on='pim', but memory {config.memory.name!r} has no PIM (memory.row_buffers='none'); "
            "allowed: npu, or a memory whose row_buffers are single or dual",
        )
    if config.attention_on == "npu" and config.scheduling.interleaving not in ("off", "auto"):
        yield (
            ("scheduling", "interleaving"),
            f"scheduling.interleaving={config.scheduling.interleaving!r} needs attention_on='pim'; "
            "allowed with attention_on='npu': off, auto",
        )


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)

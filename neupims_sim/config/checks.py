"""Checks between sections of a configuration, before anything is simulated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from neupims_sim.config.expressions import ExpressionError, expression_names
from neupims_sim.config.files import available
from neupims_sim.config.memory import COMMANDS, MemoryConfig
from neupims_sim.config.schema import Config
from neupims_sim.errors import InputError, suggestion


def check_config(config: Config) -> None:
    """Raise InputError for values which are fine each on its own but not together."""
    for _, message in violations(config):
        raise InputError(message)


def violations(config: Config) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What is wrong: the key path to blame, and a message that starts with it."""
    yield from table_violations(config.memory)
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


def table_violations(memory: MemoryConfig) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What the timing rows of a memory table name that does not exist: commands, tags, timing parameters."""
    tags = [*available("presets"), "none", "single", "dual"]
    timings = [*memory.timing, "burst", "dots"]
    for name in memory.command_cycles:
        if name not in COMMANDS:
            yield (
                ("memory", "command_cycles", name),
                f"command_cycles: unknown command {name!r}; {suggestion(name, COMMANDS)}",
            )
    for index, row in enumerate(memory.constraints):
        for name in (*row.previous, *row.next):
            if name not in COMMANDS:
                problem = f"unknown command {name!r}; {suggestion(name, COMMANDS)}"
                yield ("memory", "constraints", index), f"constraints: {row.text}: {problem}"
        for tag in row.when:
            if tag not in tags:
                problem = f"when: unknown tag {tag!r}; {suggestion(tag, tags)}"
                yield ("memory", "constraints", index), f"constraints: {row.text}: {problem}"
        try:
            unknown = [name for name in expression_names(row.latency) if name not in timings]
        except ExpressionError as error:
            yield ("memory", "constraints", index), f"constraints: {row.text}: latency {error}"
            continue
        for name in unknown:
            problem = f"unknown timing {name!r}; {suggestion(name, timings)}"
            yield ("memory", "constraints", index), f"constraints: {row.text}: {problem}"


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)

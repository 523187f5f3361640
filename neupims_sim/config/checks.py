"""Checks between sections of a configuration, before anything is simulated."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from neupims_sim.config.files import available, read_yaml
from neupims_sim.config.memory_checks import memory_violations
from neupims_sim.config.schema import (
    NPU_FORMATS,
    Config,
    ImagesConfig,
    ModelConfig,
    RetrievalConfig,
    TraceFileConfig,
    VitConfig,
    WorkloadConfig,
)
from neupims_sim.errors import InputError, joined


def check_config(config: Config) -> None:
    """Raise InputError for values which are fine each on its own but not together."""
    problems = [message for _, message in violations(config)]
    if problems:
        raise InputError(joined(problems))


def violations(config: Config, table: bool = True) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What is wrong: the key path to blame, and a message that starts with it. Without ``table`` its own table is not looked at."""
    if table:
        yield from memory_violations(config.memory, config.preset)
    yield from _pairing_violations(config)
    if isinstance(config.model, ModelConfig) and isinstance(config.workload, WorkloadConfig):
        yield from _llm_violations(config, config.model, config.workload)
    elif isinstance(config.model, VitConfig) and isinstance(config.workload, ImagesConfig | RetrievalConfig):
        yield from _vit_violations(config.model, config.workload)
    yield from _system_violations(config)
    yield from _format_violations(config)
    if isinstance(config.workload, TraceFileConfig) and not os.path.isfile(config.workload.path):
        yield ("workload", "path"), f"workload.path={config.workload.path!r}: no such file"
    for key in ("attention_on", "search_on", "pooling_on"):
        if getattr(config, key) == "pim" and config.memory.row_buffers == "none":
            other = "vector" if key == "pooling_on" else "npu"
            yield (
                (key,),
                f"{key}='pim', but memory {config.memory.name!r} has no PIM (memory.row_buffers='none'); "
                f"allowed: {other}, or a memory whose row_buffers are single or dual",
            )
    if config.scheduling.interleaving not in ("off", "auto"):
        where = f"scheduling.interleaving={config.scheduling.interleaving!r}"
        key = "search_on" if isinstance(config.workload, RetrievalConfig) else "attention_on"
        unit = search_unit(config) if key == "search_on" else config.attention_on
        if not isinstance(config.workload, WorkloadConfig | RetrievalConfig):
            yield (
                ("scheduling", "interleaving"),
                f"{where}: workload kind {config.workload.kind} goes in one piece; allowed: off, auto",
            )
        elif unit == "npu":
            yield (
                ("scheduling", "interleaving"),
                f"{where} needs {key}='pim'; allowed with {key}='npu': off, auto",
            )


def _system_violations(config: Config) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Links between devices, and batches that are drawn."""
    link, workload, snapshots = config.parallel.link, config.workload, config.simulation.snapshots
    if link.topology != "none" and link.bandwidth_gbps is None:
        yield (
            ("parallel", "link", "topology"),
            f"parallel.link.topology={link.topology!r} needs parallel.link.bandwidth_gbps, GB/s per direction and device",
        )
    drawn = isinstance(workload, WorkloadConfig) and workload.requests is None
    if snapshots > 1 and not drawn:
        what = "workload.requests is one batch" if isinstance(workload, WorkloadConfig) else f"kind {workload.kind}"
        yield (
            ("simulation", "snapshots"),
            f"simulation.snapshots={snapshots}: workload {workload.name!r} draws nothing at random ({what}); allowed: 1",
        )


def _format_violations(config: Config) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Whether a GPU computes the number format; that of a trace file stands in the file."""
    gpu, dtype = config.gpu, config.npu.dtype
    if gpu is not None and not isinstance(config.workload, TraceFileConfig) and gpu.peak_flops.of(dtype) is None:
        sizes = [size for size, name in NPU_FORMATS.items() if gpu.peak_flops.of(name) is not None]
        yield (
            ("npu", "element_bytes"),
            f"npu.element_bytes={config.npu.element_bytes}: gpu {gpu.name!r} has no gpu.peak_flops.{dtype}; "
            f"allowed: {', '.join(map(str, sizes))}",
        )


_FAMILIES: dict[str, tuple[str, ...]] = {
    "llm": ("decoder",),
    "images": ("vit", "resnet"),
    "retrieval": ("vit", "resnet"),
}
"""The families of models that a kind of workload runs."""


def _pairing_violations(config: Config) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Whether model, workload and device go together."""
    model, workload = config.model, config.workload
    runs_model = not (isinstance(workload, RetrievalConfig) and not workload.extract)
    families = _FAMILIES.get(workload.kind, ())
    if families and runs_model and model.family not in families:
        names = [name for name in available("models") if _family(name) in families]
        yield (
            ("model",),
            f"model={model.name!r} is a {model.family}; workload {workload.name!r} (kind {workload.kind}) runs "
            f"{' or '.join(families)}: {', '.join(names)}",
        )
    if not isinstance(workload, WorkloadConfig):
        for key in ("tensor", "pipeline", "micro_batches"):
            if (getattr(config.parallel, key) or 1) > 1:
                yield (
                    ("parallel", key),
                    f"parallel.{key}={getattr(config.parallel, key)} divides language models only; "
                    f"allowed for workload kind {workload.kind}: 1",
                )
    if config.pooling_on == "pim" and workload.kind not in ("images", "trace"):
        yield (
            ("pooling_on",),
            f"pooling_on='pim' is for workloads of kind images and trace, not {workload.kind}; allowed: vector",
        )
    elif config.pooling_on == "pim" and isinstance(workload, ImagesConfig):
        if model.family != "vit":
            yield (
                ("pooling_on",),
                f"pooling_on='pim' sums over the tokens of a vit; {model.name} is a {model.family}; allowed: vector",
            )
        elif workload.pooling in ("cls", "max"):
            yield (
                ("pooling_on",),
                f"pooling_on='pim' sums over tokens; workload.pooling={workload.pooling!r} does not; allowed: average, gem, ggem",
            )
    if model.family == "resnet" and isinstance(workload, ImagesConfig) and workload.pooling != "cls":
        yield (
            ("workload", "pooling"),
            f"workload.pooling={workload.pooling!r} is for a vit; {model.name} has a pooling of its own",
        )


def _family(model: str) -> str:
    return str(read_yaml(available("models")[model]).get("family", "decoder"))


def _vit_violations(
    model: VitConfig, workload: ImagesConfig | RetrievalConfig
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(workload, RetrievalConfig):
        if workload.extract and workload.dimensions != model.d_model:
            yield (
                ("workload", "dimensions"),
                f"workload.dimensions={workload.dimensions}, but {model.name} gives descriptors of "
                f"model.d_model={model.d_model} elements",
            )
        if not workload.extract:
            return
    for side in workload.image_size:
        if side % model.patch:
            size = "x".join(map(str, workload.image_size))
            yield (
                ("workload", "image_size"),
                f"workload.image_size={size} is not a multiple of the patch, {model.patch} pixels",
            )
            return
    if isinstance(workload, ImagesConfig) and workload.groups is not None:
        if workload.pooling != "ggem":
            yield (
                ("workload", "groups"),
                f"workload.groups={workload.groups} is for pooling=ggem only, not for pooling={workload.pooling}",
            )
        elif model.d_model % workload.groups:
            yield (
                ("workload", "groups"),
                f"workload.groups={workload.groups} does not divide model.d_model={model.d_model} channels; "
                f"allowed: {_divisors(model.d_model)}",
            )


def _llm_violations(
    config: Config, model: ModelConfig, workload: WorkloadConfig
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    parallel = config.parallel
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
            break
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
    if (
        parallel.batch == "split"
        and workload.requests is None
        and workload.batch_size < (parallel.micro_batches or parallel.pipeline)
    ):
        key = "micro_batches" if parallel.micro_batches else "pipeline"
        yield (
            ("workload", "batch_size"),
            f"workload.batch_size={workload.batch_size} is smaller than parallel.{key}={getattr(parallel, key)}: "
            "every micro-batch needs a request",
        )
    if workload.warmup.max_context_tokens > model.max_positions:
        yield (
            ("workload", "warmup", "max_context_tokens"),
            f"workload.warmup.max_context_tokens={workload.warmup.max_context_tokens} is longer than "
            f"model.max_positions={model.max_positions} of {model.name}",
        )
    if workload.context_tokens is not None and workload.requests is not None:
        yield (
            ("workload", "context_tokens"),
            f"workload.context_tokens={workload.context_tokens} and workload.requests={workload.requests!r} both state "
            "lengths; keep one of them",
        )
    if (workload.context_tokens or 0) > model.max_positions:
        yield (
            ("workload", "context_tokens"),
            f"workload.context_tokens={workload.context_tokens} is longer than model.max_positions={model.max_positions} "
            f"of {model.name}",
        )
    if workload.requests is not None and not os.path.isfile(workload.requests):
        yield ("workload", "requests"), f"workload.requests={workload.requests!r}: no such file"
    if workload.background is not None:
        if search_unit(config) != "pim":
            yield (
                ("workload", "background"),
                "workload.background: searches beside other work run in PIM only; allowed: search_on='pim'",
            )
        elif config.memory.pim.device_serial_issue:
            yield (
                ("workload", "background"),
                "workload.background: memory.pim.device_serial_issue=True lets a query through as one piece, beside which nothing "
                "else would ever run; allowed: False",
            )


def search_unit(config: Config) -> str:
    """``pim`` or ``npu``: which unit compares queries with a database."""
    return config.search_on or config.attention_on


def _divisors(number: int, most: int = 24) -> str:
    """The divisors of a number with commas, of many the smallest."""
    low = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    divisors = sorted({*low, *(number // n for n in low)})
    return ", ".join(map(str, divisors[:most])) + (", ..." if len(divisors) > most else "")

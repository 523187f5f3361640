"""Every field of the configuration with hostile values, and the bases in which the field matters."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any, get_args

from pydantic import BaseModel

from fuzz.execution import Case
from neupims_sim.config import load_config

HOSTILE = (
    "0", "1", "2", "3", "7", "-1", "1000", "65536", "1000000000", "9007199254740993", "9223372036854775807", "9223372036854775808",
    "1e3", "1e400", "1e-300", "0.5", "-0.5", ".nan", ".inf", "-.inf", "9" * 100, "9" * 5_000,
    "", "''", "null", "true", "'1'", "1:30", "010", "1_000", "off", "x", "x:y", "os:system", "../../etc/passwd", "/dev/zero",
    "x" * 100_000, "[]", "{}", "[1, 2]", "[[]]", "{a: 1}", "{base: x}", "[" * 2_000, "!!python/object/apply:os.system [ls]", "*a",
    "&a [*a]", "<<", "a: b", "'\\u0000'", '"\\0"', '"\\u202e\\x1b[31m"', "é",
)  # fmt: skip
"""As ``--set`` takes them."""

_MODEL = "model={name: m, layers: 2, heads: 8, d_model: 256, d_ff: 256, vocabulary: 100, max_positions: 4096}"
_LLM = (_MODEL, "parallel={tensor: 1, pipeline: 1}", "workload.batch_size=4", "workload.warmup.iterations=20")
BASES: dict[str, tuple[str, ...]] = {
    "decode in PIM": ("neupims", *_LLM),
    "decode on NPU": ("npu_only", *_LLM),
    "interleaved": ("neupims", *_LLM, "scheduling.interleaving=lockstep", "preset=asplos24", _MODEL),
    "devices": (
        "neupims", *_LLM, "parallel={tensor: 2, pipeline: 2, link: {topology: ring, bandwidth_gbps: 100, latency_ns: 100}}",
    ),
    "gpu": ("gpu_a100", *_LLM),
    "beside searches": ("neupims", *_LLM, "workload.background={database: 10000, dimensions: 256, top_m: 10}"),
    "vit": (
        "npu_only", "model={name: v, family: vit, layers: 2, heads: 4, d_model: 64, d_ff: 128, patch: 16}", "workload=images",
        "workload.batch_size=2", "workload.image_size=64", "workload.pooling=ggem", "workload.groups=4",
    ),
    "resnet": (
        "npu_only", "model={name: r, family: resnet, blocks: [1, 1, 1, 1]}", "workload=images", "workload.batch_size=1",
        "workload.image_size=64",
    ),
    "retrieval": (
        "neupims", "model={name: v, family: vit, layers: 2, heads: 4, d_model: 256, d_ff: 128, patch: 16}",
        "workload={name: r, kind: retrieval, database: 20000, dimensions: 256, top_m: 20, queries: 2, image_size: 64}",
    ),
    "search": (
        "npu_pim", "workload={name: s, kind: retrieval, database: 20000, dimensions: 256, top_m: 20, extract: false, rerank: none}",
    ),
    "serving": (
        "neupims", "serving.requests={format: random, input_tokens: 50, output_tokens: 20, count: 20}",
        "serving.arrivals={kind: poisson, rate: 10}", "serving.scheduler.num_gpu_blocks=200",
        "serving.cost={model: linear, fixed_s: 0.01, prefill_token_s: 0.0001}", "serving.limits={ttft_s: 1.0}",
    ),
}  # fmt: skip
"""Small configurations that use every part of the schema: system and overrides."""


def field_cases() -> Iterator[Case]:
    """Every field of every base, each hostile value."""
    for base, key in fields():
        for value in HOSTILE:
            yield _case(base, f"{key}={value}")


def pair_cases(seed: int) -> Iterator[Case]:
    """Without end: two or three fields at values that may be valid each, so that what is too much only together is met."""
    draw = random.Random(seed)
    while True:
        base = draw.choice(list(BASES))
        keys = [key for key, _ in _fields_of(base) if key.startswith("serving") == (base == "serving")]
        chosen = draw.sample(keys, draw.choice((2, 2, 3)))
        yield _case(base, *(f"{key}={_moderate(draw)}" for key in chosen))


def _moderate(draw: random.Random) -> str:
    kinds = (
        lambda: str(2 ** draw.randrange(0, 17)),
        lambda: str(draw.randrange(0, 50)),
        lambda: str(10 ** draw.randrange(0, 13)),
        lambda: f"{10 ** draw.uniform(-4, 6):.3g}",
    )
    return str(draw.choice(kinds)())


def _case(base: str, *overrides: str) -> Case:
    system, *settings = BASES[base]
    options = [text for setting in (*settings, *overrides) for text in ("--set", setting)]
    command = "serve" if base == "serving" else "run"
    name = " ".join(override if len(override) < 80 else f"{override[:77]}..." for override in overrides)
    return Case(f"fields, {base}", name, (command, system, *options, "--out", "out"))


@cache
def fields() -> tuple[tuple[str, str], ...]:
    """(base, dotted key) of every field, sections included; of a field that all bases have the first one that has it."""
    found: dict[tuple[str, type], str] = {}
    for base in BASES:
        for field in _fields_of(base):
            if field[0].startswith("serving") == (base == "serving"):  # a run does not read it
                found.setdefault(field, base)
    return tuple((base, key) for (key, _), base in found.items())


@cache
def _fields_of(base: str) -> tuple[tuple[str, type], ...]:
    """(dotted key, section of the schema) of every field that a base has."""
    system, *settings = BASES[base]
    return tuple(_fields(load_config(system, settings), ""))


def _fields(section: BaseModel, prefix: str) -> Iterator[tuple[str, type]]:
    for name, field in type(section).model_fields.items():
        key = f"{prefix}{name}"
        yield key, type(section)
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _fields(value, f"{key}.")
        elif isinstance(value, dict):
            for entry in islice(value, 40):
                yield f"{key}.{entry}", type(section)
        elif value is None and (inner := _section(field.annotation)) is not None:
            for further in inner.model_fields:
                yield f"{key}.{further}", inner


def _section(annotation: Any) -> type[BaseModel] | None:
    for argument in get_args(annotation):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return argument
    return None

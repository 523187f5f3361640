"""Every option and argument of every command with hostile values."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import typer

from fuzz.execution import Case
from fuzz.fields import HOSTILE
from fuzz.files import seeds, settings_of
from neupims_sim.cli.main import app

_SMALL = tuple(shlex.split(settings_of("decode in PIM")))
BASES: dict[str, tuple[str, ...]] = {
    "npu gemm": ("npu", "gemm", "16", "16", "16"),
    "trace vit": ("trace", "vit", "vit-s16", "-o", "t.jsonl", "--image-size", "32"),
    "trace resnet": ("trace", "resnet", "resnet50", "-o", "t.jsonl", "--image-size", "32"),
    "trace retrieval": ("trace", "retrieval", "-o", "t.jsonl"),
    "trace import": ("trace", "import", "onnx", "m.onnx", "-o", "t.jsonl"),
    "memory replay": ("memory", "replay", "hbm2", "r.txt", "--channels", "1"),
    "memory timeline": ("memory", "timeline", "hbm2", "r.txt", "--channels", "1", "-o", "l.svg"),
    "memory show": ("memory", "show", "hbm2"),
    "memory import": ("memory", "import", "d.ini", "-o", "m.yaml"),
    "retrieve": ("retrieve", "q.npy", "d.npy", "--top", "3"),
    "results": ("results", "o"),
    "plot": ("plot", "o"),
    "report": ("report", "o"),
    "list": ("list", "systems"),
    "config show": ("config", "show", "neupims"),
    "config new": ("config", "new", "neupims"),
    "run": ("run", *_SMALL, "--out", "w"),
    "sweep": ("sweep", "s.yaml", "--out", "o2", "--workers", "1"),
    "serve": (
        "serve", *_SMALL, "--requests", "q.csv", "--set", "serving.scheduler.num_gpu_blocks=64", "--set",
        "serving.cost={model: constant, seconds: 0.01}", "--out", "w",
    ),
}  # fmt: skip
"""Calls that work, by command; they name files of `fuzz.files`."""
_LEFT_OUT = {"--help", "--version", "--install-completion", "--show-completion", "--dask"}
"""``--dask`` waits for a cluster."""


def option_cases() -> Iterator[Case]:
    """Every option of every command with every hostile value, and every argument in place of the one that works."""
    files = {seed.name: seed.content for seed in seeds()} | {
        name: content for seed in seeds() for name, content in seed.others.items()
    }
    for name, command in _commands():
        base = BASES.get(name)
        if base is None:
            continue
        known = {path: content for path, content in files.items() if not path.startswith(("o/store", "w/"))}
        if name in ("results", "plot", "report"):
            known = {path: content for path, content in files.items() if path.startswith("o/")}
        elif name not in ("sweep", "serve"):
            known = {path: content for path, content in known.items() if path in base or path in ("d.npy", "m.onnx")}
        place = len(name.split())
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                for value in HOSTILE:
                    arguments = (*base[:place], value, *base[place + 1 :]) if place < len(base) else (*base, value)
                    yield Case(f"options, {name}", f"{parameter.name} {value[:60]}", arguments, known, (0, 1))
                place += 1
                continue
            option = parameter.opts[-1]
            if option in _LEFT_OUT:
                continue
            for value in (None,) if parameter.is_flag else HOSTILE:
                further = (
                    (option,)
                    if value is None
                    else (f"{option}={value}",)
                    if option.startswith("--")
                    else (option, value)
                )
                yield Case(f"options, {name}", f"{option} {(value or '')[:60]}", (*base, *further), known, (0, 1))


def _commands() -> Iterator[tuple[str, Any]]:
    program: Any = typer.main.get_command(app)
    context = typer.Context(command=program)
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        if hasattr(command, "commands"):
            for inner, nested in command.commands.items():
                yield f"{name} {inner}", nested
        else:
            yield name, command

"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from neupims_sim.errors import InputError
from neupims_sim.units import parse_image_size

ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A YAML file, or the stem of one in configs/systems.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="K=V", help="Override a key, e.g. model.layers=2. May be repeated; wins over everything."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def image_size(text: str, command: str) -> tuple[int, int]:
    """Height and width of ``S`` or ``HxW``, given to ``--image-size`` of a command."""
    try:
        size: tuple[int, int] = parse_image_size(text)
    except ValueError as error:
        raise InputError(f"{command}: --image-size {error}") from None
    return size

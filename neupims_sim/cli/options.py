"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import typer

from neupims_sim.errors import InputError
from neupims_sim.units import parse_image_size


def names_of(*kinds: str) -> Callable[[str], list[str]]:
    """For ``autocompletion``: what can be named of some kinds; of the shell there is no error to be seen."""

    def complete(incomplete: str) -> list[str]:
        from neupims_sim.config import available  # here, because the program has options of its own

        with suppress(InputError):
            return [name for kind in kinds for name in available(kind) if name.startswith(incomplete)]
        return []

    return complete


ConfigArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML file, or the stem of one in configs/systems.",
        autocompletion=names_of("systems"),
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="K=V", help="Override a key, e.g. model.layers=2. May be repeated; wins over everything."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def group(help_text: str, **settings: Any) -> typer.Typer:
    """A group of commands. Help is plain text, in which [brackets] are brackets."""
    plain: dict[str, Any] = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}
    return typer.Typer(**{"help": help_text, "no_args_is_help": True, **plain, **settings})


def image_size(text: str, command: str) -> tuple[int, int]:
    """Height and width of ``S`` or ``HxW``, given to ``--image-size`` of a command."""
    try:
        size: tuple[int, int] = parse_image_size(text)
    except ValueError as error:
        raise InputError(f"{command}: --image-size {error}") from None
    return size

"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

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

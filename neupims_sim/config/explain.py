"""Pydantic's findings in the words of the person who wrote the YAML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from neupims_sim.errors import shown, suggestion


def explain(schema: type[BaseModel], error: ErrorDetails, prefix: Sequence[str] = ()) -> str:
    """What is wrong at the error's key path, as text that follows the path: value, what is allowed, nearest valid name.

    ``prefix`` is the path of ``schema`` itself.
    """
    keys, kind, value = error["loc"], error["type"], error["input"]
    if kind == "extra_forbidden":
        section = _section_at(schema, keys[:-1])
        allowed = section.model_fields if section else ()
        return f"={shown(value)}: unknown key; {suggestion(str(keys[-1]), allowed)}"
    if kind == "missing":
        return " is missing"
    if kind == "literal_error":
        return f"={shown(value)}: not an option; {suggestion(str(value), _options(schema, keys))}"
    if kind == "value_error":
        message = str(error.get("ctx", {}).get("error", error["msg"]))
        names = [str(key) for key in (*prefix, *keys)]
        if names and message.startswith(f"{names[-1]}."):  # the validator starts with its own section's name
            return message.removeprefix(names[-1])
        return f": {message}" if isinstance(value, dict) else f"={shown(value)}: {message}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"={shown(value)}: must be a mapping"
    message = error["msg"].replace("Input should be", "must be")
    return f"={shown(value)}: {message[:1].lower()}{message[1:]}"


def _section_at(schema: type[BaseModel], keys: Sequence[str | int]) -> type[BaseModel] | None:
    section: type[BaseModel] | None = schema
    for key in keys:
        if isinstance(key, str) and section is not None:
            field = section.model_fields.get(key)
            section = next(_sections(field.annotation), None) if field else None
    return section


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)


def _options(schema: type[BaseModel], keys: Sequence[str | int]) -> list[str]:
    """The literals that a field takes."""
    names = [key for key in keys if isinstance(key, str)]
    section = _section_at(schema, names[:-1])
    return [str(option) for option in _literals(section.model_fields[names[-1]].annotation)] if section else []


def _literals(annotation: Any) -> Iterator[Any]:
    for argument in get_args(annotation):
        if get_origin(annotation) is Literal:
            yield argument
        else:
            yield from _literals(argument)

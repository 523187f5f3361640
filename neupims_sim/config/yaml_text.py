"""The one reader and writer of YAML: the core schema of YAML 1.2, in bounds, and nothing that Python would do for a tag.

Plain scalars are null (``null``, ``~`` or nothing), ``true`` and ``false``, integers (``10``, ``010`` is 10, ``0o10``, ``0x10``),
floats (``1.5``, ``1e3``, ``.inf``, ``.nan``), or else text: ``off``, ``yes``, ``1:30``, ``1_000`` and dates are text. What version 1.2
has not, or what nobody writes by hand, is refused with its line: tags, merge keys (``<<``), a key that is given twice, a key
that is a list or mapping, several documents, nesting, size and aliases beyond the bounds below.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import yaml

from neupims_sim.errors import InputError, shown

MOST_CHARACTERS = 4 * 2**20
"""Of a text; the largest that people write, a sweep with a table of figures, has some 10,000."""
MOST_VALUES = 500_000
"""Of a text, those that aliases repeat counted as often as they stand there, and text of some hundred characters as several."""
_CHARACTERS_OF_A_VALUE = 100
MOST_LEVELS = 40
"""Of mappings and lists in each other; configurations have 6."""
MOST_DIGITS = 100
"""Of a number; a float has 17."""

_TOO_DEEP = f"more than {MOST_LEVELS} levels of mappings and lists in each other"
_NULL = re.compile(r"(?:null|Null|NULL|~)?")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse(text: str, source: str) -> Any:
    """What a YAML text says: mappings with text keys, lists, and scalars. Raises InputError, starting with ``source`` and the line.

    Equal texts give the same object, which nobody may change.
    """
    try:
        return _parsed(text)
    except _RefusedError as refused:
        raise InputError(f"{source}: {refused}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{source}: {_problem(error, text)}") from None
    except UnicodeError:
        raise InputError(f"{source}: not UTF-8 text") from None


def dump(tree: Mapping[str, Any], width: int = 120) -> str:
    """A tree as YAML that :func:`parse`, and a reader of version 1.1, reads as the same tree. Lists of :class:`FlowList` take one line."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=width, allow_unicode=True)


class FlowList(list[Any]):
    """A list that :func:`dump` writes on one line."""


class _RefusedError(Exception):
    """YAML that is valid, and is not accepted."""

    def __init__(self, problem: str, mark: Any = None) -> None:
        super().__init__(f"line {mark.line + 1}: {problem}" if mark else problem)


class _Open(NamedTuple):
    """A mapping or list that is being read."""

    value: dict[str, Any] | list[Any]
    keys: list[str]
    """The key that waits for its value, if one does."""
    anchor: str | None
    start: int
    """How many values had been read before it."""


class _Anchored(NamedTuple):
    value: Any
    values: int
    """How many values it has in all."""


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    """The value of a text. Parsing dominates the loading of a configuration, and a sweep loads the same few files often."""
    if len(text) > MOST_CHARACTERS:
        raise _RefusedError(f"{len(text):,} characters of YAML; allowed: up to {MOST_CHARACTERS:,}")
    return _built(yaml.parse(text, _PARSER))


def _built(events: Iterator[Any]) -> Any:
    """The value of the events of one document."""
    opened: list[_Open] = []
    anchors: dict[str, _Anchored | None] = {}
    documents = values = 0
    root: Any = None
    for event in events:
        mark = event.start_mark
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _RefusedError("a second document; one file holds one", mark)
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            done = opened.pop()
            value, anchor, size = done.value, done.anchor, values - done.start
        elif isinstance(event, yaml.NodeEvent):
            values += 1
            anchor, size = event.anchor, 1
            if isinstance(event, yaml.AliasEvent):
                value, size = _repeated(event, anchors)
                values, anchor = values + size - 1, None
            elif isinstance(event, yaml.CollectionStartEvent):
                _refuse_tag(event)
                if len(opened) == MOST_LEVELS:
                    raise _RefusedError(_TOO_DEEP, mark)
                if opened and _waits_for_key(opened[-1]):
                    raise _RefusedError("a key that is a list or a mapping; keys are text", mark)
                if anchor is not None:
                    anchors[anchor] = None
                mapping = isinstance(event, yaml.MappingStartEvent)
                opened.append(_Open({} if mapping else [], [], anchor, values - 1))
                continue
            else:
                assert isinstance(event, yaml.ScalarEvent)
                value = _scalar(event, is_key=bool(opened) and _waits_for_key(opened[-1]))
                more = len(event.value) // _CHARACTERS_OF_A_VALUE
                values, size = values + more, size + more
            if values > MOST_VALUES:
                raise _RefusedError(f"more than {MOST_VALUES:,} values, those that aliases repeat included", mark)
        else:
            continue
        if anchor is not None:
            anchors[anchor] = _Anchored(value, size)
        if opened:
            _add(opened[-1], value, mark)
        else:
            root = value
    return root


def _repeated(event: Any, anchors: Mapping[str, _Anchored | None]) -> tuple[Any, int]:
    """The value that an alias stands for, and how many values that has."""
    if event.anchor not in anchors:
        raise _RefusedError(
            f"*{event.anchor} stands for nothing: there is no &{event.anchor} before it", event.start_mark
        )
    anchored = anchors[event.anchor]
    if anchored is None:
        raise _RefusedError(f"*{event.anchor} stands within what it stands for", event.start_mark)
    return anchored


def _add(place: _Open, value: Any, mark: Any) -> None:
    """Put a value into a list, or as key or value into a mapping."""
    if isinstance(place.value, list):
        place.value.append(value)
    elif place.keys:
        place.value[place.keys.pop()] = value
    else:
        if not isinstance(value, str):  # an alias of something else
            raise _RefusedError("a key that is no text", mark)
        if value in place.value:
            raise _RefusedError(f"key {shown(value)} is given twice", mark)
        place.keys.append(value)


def _waits_for_key(place: _Open) -> bool:
    return isinstance(place.value, dict) and not place.keys


def _refuse_tag(event: Any) -> None:
    if event.tag is not None:
        raise _RefusedError(f"tag {shown(event.tag)}; tags are not used here", event.start_mark)


def _scalar(event: Any, is_key: bool) -> Any:
    """The value of a scalar; a key is text as it is written, so that ``1``, ``01`` and ``1.0`` are three keys."""
    _refuse_tag(event)
    text: str = event.value
    if is_key and text == "<<" and not event.style:
        raise _RefusedError(
            "a merge key, which YAML 1.2 has not; write include, base, or the values themselves", event.start_mark
        )
    if is_key or event.style:
        return text
    try:
        return plain_scalar(text)
    except ValueError as error:
        raise _RefusedError(str(error), event.start_mark) from None


def plain_scalar(text: str) -> Any:
    """What a text without quotes means in the core schema of YAML 1.2. Raises ValueError for a number of very many digits."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    is_integer = _INTEGER.fullmatch(text)
    if not is_integer and not _FLOAT.fullmatch(text):
        return text
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits; allowed: up to {MOST_DIGITS}")
    if is_integer:
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _problem(error: yaml.YAMLError, text: str) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    # The end of the text may be told as the beginning of a line that does not exist.
    if problem == "exceeded maximum nesting depth":  # the C library looks ahead, and has a bound of its own
        problem = _TOO_DEEP
    where = f"line {min(mark.line, text.rstrip().count(chr(10))) + 1}" if mark else "not valid YAML"
    return f"{where}: {problem or ' '.join(str(error).split())}"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_flow(dumper: yaml.SafeDumper, row: FlowList) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", row, flow_style=True)


_Dumper.add_representer(FlowList, _represent_flow)
# Text that either version reads as a number, as true or false, or as nothing, is quoted: SafeDumper knows those of version 1.1.
for _tag, _pattern in (("int", _INTEGER), ("float", _FLOAT)):
    _Dumper.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern.pattern})$"), list("-+.0123456789")
    )

"""The one YAML reader: what version 1.2 says, and nothing beyond its bounds; and messages that stay one short line."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from neupims_sim.config import load_config, yaml_text
from neupims_sim.config.files import read_yaml
from neupims_sim.errors import MOST_MESSAGE, InputError, joined, shown, suggestion


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("-3", -3),
        ("+3", 3),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2026-01-31", "2026-01-31"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("True", True),
        ("false", False),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("'010'", "010"),
        ("=", "="),
    ],
)
def test_plain_scalars_are_those_of_the_core_schema(text: str, value: object) -> None:
    read = yaml_text.parse(f"key: {text}", "file")["key"]
    assert (read, type(read)) == (value, type(value))
    alone = yaml_text.parse(text, "--set")
    assert (alone, type(alone)) == (value, type(value))


def test_keys_are_text_as_it_is_written() -> None:
    assert yaml_text.parse("{1: a, 01: b, 1.0: c, true: d, null: e, '': f}", "file") == {
        "1": "a", "01": "b", "1.0": "c", "true": "d", "null": "e", "": "f",
    }  # fmt: skip


def test_aliases_repeat_values_within_bounds() -> None:
    assert yaml_text.parse("a: &x {b: [1, 2]}\nc: *x\n", "file") == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}


BOMB = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]\n" for i in range(12))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "line 7: more than 500,000 values, those that aliases repeat included"),
        (f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1_000)}]", "line 2: more than 500,000 values"),
        ("a: " + "[" * 100_000, "line 1: more than 40 levels"),
        ("a: " + "{b: " * 41, "line 1: more than 40 levels"),
        ("".join(" " * i + "a:\n" for i in range(50)), "line 41: more than 40 levels"),
        ("a: &x [*x]", "line 1: *x stands within what it stands for"),
        ("a: *x", "line 1: *x stands for nothing"),
        ("a: 1\n? [b]\n: 2", "line 2: a key that is a list or a mapping"),
        ("a: 1\n{b: 1}: 2", "line 2"),
        ("a: &x [1]\n*x : 2", "line 2: a key that is no text"),
        ("a: {b: 1, c: 2, b: 3}", "line 1: key 'b' is given twice"),
        ("a: 1\n'a': 2", "line 2: key 'a' is given twice"),
        ("a: &x {b: 1}\nc:\n  <<: *x", "line 3: a merge key, which YAML 1.2 has not"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("a: !!int '3'", "line 1: tag 'tag:yaml.org,2002:int'"),
        ("a: 1\n---\nb: 2", "line 2: a second document"),
        (f"a: {'9' * 101}", "line 1: a number of 101 digits; allowed: up to 100"),
        ("a: " + "x" * 2**22, "4,194,307 characters of YAML; allowed: up to 4,194,304"),
        ("a: [1", "line 1: "),
        ("a: \x00", ""),
        ("a: \ud800", "not UTF-8 text"),
    ],
    ids=range(21),
)
def test_what_is_out_of_bounds_is_refused_at_once_with_its_line(text: str, problem: str) -> None:
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        yaml_text.parse(text, "file")
    assert time.perf_counter() - start < 5
    assert str(caught.value).startswith(f"file: {problem}")
    assert len(str(caught.value)) < 300


def test_a_file_is_read_to_its_bound_only(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    with open(large, "wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(InputError, match=r"allowed: up to 4,194,304"):
        read_yaml(large)


def test_a_file_with_byte_order_mark_is_read_and_one_in_another_encoding_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes("include: neupims\r\nseed: 3\r\n".encode("utf-8-sig"))
    assert load_config(file).seed == 3
    for encoding in ("utf-16", "latin-1"):
        file.write_bytes("include: neupims\nmodel: {name: é}\n".encode(encoding))
        with pytest.raises(InputError, match=r"mine\.yaml: cannot be read: not UTF-8 text$"):
            load_config(file)


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8)
    | st.sampled_from(["1e3", "0o10", "0x1f", "010", "1:30", "1_000", "off", "null", "~", "", ".inf", "-.5", "1.", "2026-01-31", "<<", "="])
)  # fmt: skip
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab1.~", max_size=3), inner, max_size=3),
)


@given(tree=st.dictionaries(st.text("ab1.~", max_size=3), TREES, max_size=4))
def test_what_is_written_is_read_again(tree: dict[str, Any]) -> None:
    assert yaml_text.parse(yaml_text.dump(tree), "dump") == tree


@given(text=st.text("ab1.:{}[]&*-? \n!|>#'\"", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InputError):
        yaml_text.parse(text, "file")


@given(value=st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_as_python_writes_them_stay_what_they_are(value: float) -> None:
    assert yaml_text.parse(f"a: {value!r}", "file") == {"a": value}
    assert yaml_text.parse(yaml.safe_dump({"a": value}), "file") == {"a": value}


# --- messages ---


@pytest.mark.parametrize(
    "message",
    [
        "file: key='" + "x" * 100_000 + "': allowed: 1",
        "file: key='" + "x y " * 100_000 + "': allowed: 1",
        "file: " + "x" * 100_000 + ": allowed: 1",
        " 'a" * 100_000 + ": allowed: 1",
        "a\n\x1b[2J\u202e" * 10_000 + ": allowed: 1",
    ],
)
def test_a_message_is_one_short_line_of_printable_text(message: str) -> None:
    start = time.perf_counter()
    text = str(InputError(message))
    assert time.perf_counter() - start < 1
    assert len(text) <= MOST_MESSAGE
    assert text.isprintable()
    assert text.endswith(": allowed: 1")


def test_values_of_any_size_are_shown_in_few_characters() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    for value in ("x" * 10**6, [1] * 10**6, 10**5000, nested, {"a": "b\n" * 1000}):
        text = shown(value)
        assert 0 < len(text) <= 60
        assert "\n" not in text


def test_a_long_list_of_names_is_counted() -> None:
    text = suggestion("name3", [f"name{number}" for number in range(1000)])
    assert text.endswith(", ... (1,000 in all); did you mean name3?")
    assert len(text) < 500


def test_several_problems_are_numbered_and_bounded() -> None:
    assert joined(["one"]) == "one"
    assert joined(["one", "two"]) == "2 errors: (1) one (2) two"
    assert joined([*"abcdefg"]) == "7 errors: (1) a (2) b (3) c (4) d (5) e (and 2 more)"

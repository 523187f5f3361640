"""The short form of ``make fuzz``: some of its cases, chosen by a seed, in copies of this process."""

from __future__ import annotations

import random
import sys
from itertools import islice
from pathlib import Path

import pytest
from fuzz.execution import BAD, GOOD, Case, execute, warm_up
from fuzz.fields import field_cases, fields, pair_cases
from fuzz.files import file_cases, seeds
from fuzz.options import BASES, option_cases

SEED = 20240
CASES = {"fields": 30, "pairs": 10, "files": 20, "options": 30}
"""Of every kind; all together take some ten seconds."""


def chosen(kind: str) -> list[Case]:
    draw = random.Random(SEED)
    if kind == "pairs":
        return list(islice(pair_cases(SEED), CASES[kind]))
    every = {"fields": field_cases, "files": lambda: file_cases(SEED, per_seed=4), "options": option_cases}[kind]
    return draw.sample(list(every()), CASES[kind])


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    warm_up(tmp_path_factory.mktemp("warm"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs pidfd_open")
@pytest.mark.parametrize("kind", CASES)
def test_hostile_input_is_one_line_or_does_what_it_says(kind: str, warm: None) -> None:
    bad = [result for result in map(execute, chosen(kind)) if result.outcome in BAD]
    assert not bad, "\n".join(
        f"{result.outcome}: {' '.join(result.case.arguments)}: {result.message}" for result in bad
    )


def test_every_field_and_every_kind_of_file_has_cases() -> None:
    keys = {key for _, key in fields()}
    assert {
        "workload.batch_size",
        "npu.systolic.rows",
        "memory.timing.tRP",
        "gpu.bandwidth_gbps",
        "model.patch",
    } <= keys
    assert {
        "workload.database",
        "parallel.link.latency_ns",
        "simulation.snapshots",
        "workload.background.top_m",
    } <= keys
    assert len(keys) > 200
    assert len({seed.kind for seed in seeds()}) > 20


@pytest.mark.skipif(sys.platform != "linux", reason="needs pidfd_open")
def test_cases_start_from_calls_that_work(warm: None) -> None:
    """Or all their values would be refused for another reason."""
    for name, call in BASES.items():
        result = execute(
            Case("whole", name, call, next(case.files for case in option_cases() if case.area.endswith(f" {name}")))
        )
        assert result.outcome == "fine", (name, result.message)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("raise SystemExit(0)", "fine"),
        ("print('error: x', file=sys.stderr); raise SystemExit(2)", "refused"),
        ("print('error: x\\ny', file=sys.stderr); raise SystemExit(2)", "unclear"),
        ("print('error: the simulation stalled: x', file=sys.stderr); raise SystemExit(1)", "stalled"),
        ("raise SystemExit(1)", "unclear"),
        ("1 / 0", "traceback"),
        ("os.kill(os.getpid(), 15)", "traceback"),
        ("bytearray(2**40)", "out of memory"),
        ("time.sleep(60)", "out of time"),
        ("while True: pass", "out of time"),
    ],
)
def test_outcomes_are_told_apart(code: str, outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import time

    names = {"sys": sys, "os": os, "time": time}
    monkeypatch.setattr("fuzz.execution.main", lambda arguments: exec(arguments[0], names))
    result = execute(Case("test", "test", (code,)), seconds=1)
    assert result.outcome == outcome
    assert outcome in (*GOOD, *BAD)


def test_a_case_runs_in_a_folder_of_its_own_with_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.execution.main", lambda arguments: exec(arguments[0], {"Path": Path}))
    code = "assert sorted(p.name for p in Path().iterdir()) == ['a', 'b']; Path('c').touch()\n"
    code += "assert Path('a/x').read_text() == 'y'; raise SystemExit(0)"
    for _ in range(2):
        assert execute(Case("test", "test", (code,), {"a/x": b"y", "b": None})).outcome == "fine"

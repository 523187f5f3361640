"""Sweeps: how a file expands, what is stored, and what survives failures and interruptions."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cli_cases import run

from neupims_sim.config import Config, config_hash, load_config
from neupims_sim.errors import InputError
from neupims_sim.plots import make_figure
from neupims_sim.plots.frame import parts_of
from neupims_sim.sweeps import Progress, expand, load_results, read_sweep, sweep
from neupims_sim.sweeps.database import Reader
from neupims_sim.sweeps.execution import Task
from neupims_sim.sweeps.failures import Failure, grouped
from neupims_sim.sweeps.labels import value_key
from neupims_sim.sweeps.processes import execute_in_processes
from neupims_sim.sweeps.store import parse_table, read_tracebacks
from neupims_sim.sweeps.tables import MISSING, pivot_tables, to_markdown

SWEEP = """
name: small
base: {preset: physical, workload: {dataset: sharegpt}, model.layers: 4}
grid:
  system: [npu_only, neupims]
  workload.batch_size: [8, 16, 32]
metrics: [throughput_tokens_per_s, utilization.npu, cycles]
"""


def fake(config: Config) -> dict[str, Any]:
    """A made-up result, quickly."""
    batch = config.workload.batch_size
    return {"throughput_tokens_per_s": batch / 3, "utilization": {"npu": 0.1 * batch}, "cycles": 100 * batch}


def fake_that_fails_at_16(config: Config) -> dict[str, Any]:
    if config.workload.batch_size == 16:
        raise InputError("the batch does not fit:\n16 > 15") if config.system == "neupims" else RuntimeError("a bug")
    return fake(config)


def fake_whose_process_dies_at_16(config: Config) -> dict[str, Any]:
    if config.workload.batch_size == 16:
        os._exit(9)
    return fake(config)


def fake_that_must_not_run(config: Config) -> dict[str, Any]:
    raise AssertionError("a finished point runs again")


def slow_fake(config: Config) -> dict[str, Any]:
    time.sleep(0.3 if config.workload.batch_size == 8 else 600)
    return fake(config)


def count_finished(out: Path) -> int:
    try:
        return len(load_results(out)[1])
    except InputError:
        return 0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SWEEP)
    return path


def edited(file: Path, old: str, new: str) -> Path:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    return file


# --- the file ---


def test_last_axis_varies_fastest(file: Path) -> None:
    points = list(expand(read_sweep(file), ""))
    assert [(p.axes["system"], p.axes["workload.batch_size"]) for p in points] == [
        ("npu_only", 8),
        ("npu_only", 16),
        ("npu_only", 32),
        ("neupims", 8),
        ("neupims", 16),
        ("neupims", 32),
    ]


def test_point_is_the_configuration_that_the_keys_say(file: Path) -> None:
    point = list(expand(read_sweep(file), ""))[4]
    assert point.config == load_config("neupims", {"model.layers": 4, "workload.batch_size": 16})
    assert point.hash == config_hash(point.config)


def test_quickstart_compares_three_systems_at_three_batch_sizes_under_both_presets() -> None:
    points = list(expand(read_sweep("quickstart"), ""))
    assert len({point.hash for point in points}) == 3 * 3 * 2
    assert {point.config.preset for point in points} == {"physical", "asplos24"}


def test_example_of_the_documentation_is_a_sweep(file: Path) -> None:
    page = Path(__file__).parents[1] / "docs/sweeps.md"
    file.write_text(page.read_text().split("```yaml\n")[1].split("```")[0])
    definition = read_sweep(file)
    assert len(list(expand(definition, ""))) == (4 + 2) * 2 * 2 * 3
    assert len(list(expand(definition.quick_form(), ""))) == 2 * 2 * 2


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("workload.batch_size", "workload.batch_sise", ["workload.batch_sise=8", "unknown key", "mean batch_size?"]),
        ("[8, 16, 32]", "[8, 16, -32]", ["point system='npu_only' workload.batch_size=-32", "greater than 0"]),
        ("[npu_only, neupims]", "[npu_only, neupimz]", ["system='neupimz'", "mean neupims?"]),
        ("model.layers: 4", "attention_on: pim", ["system='npu_only'", "has no PIM"]),
        ("[8, 16, 32]", "8", ["grid.workload.batch_size=8", "list"]),
        ("[8, 16, 32]", "[]", ["grid.workload.batch_size=[]", "at least 1"]),
        ("metrics:", "metrix:", ["metrix=", "mean metrics?"]),
        ("dataset: sharegpt", "batch_size: 64", ["workload.batch_size", "base", "grid"]),
        ("  system: [npu_only, neupims]\n", "", ["base.system is missing"]),
        ("name: small", "name: ../small", ["name='../small'"]),
    ],
)
def test_bad_sweep_is_one_line_that_names_file_key_and_value_before_anything_runs(
    file: Path, tmp_path: Path, old: str, new: str, told: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        sweep(edited(file, old, new), tmp_path / "out", workers=1, run_point=fake_that_must_not_run)
    message = str(caught.value)
    assert "\n" not in message
    assert all(text in message for text in [str(file), *told]), message
    assert not (tmp_path / "out").exists()


def test_unknown_sweep_is_told_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"quickstrat: no such sweep file.*mean quickstart\?"):
        read_sweep("quickstrat")


# --- axes ---


def places(file: Path) -> list[tuple[Any, ...]]:
    return [tuple(point.axes.values()) for point in expand(read_sweep(file), "")]


@pytest.mark.parametrize(
    ("stated", "values"),
    [
        ("{range: [8, 32, 8]}", [8, 16, 24, 32]),
        ("{range: [8, 31, 8]}", [8, 16, 24]),
        ("{range: [3, 1, -1]}", [3, 2, 1]),
        ("{range: [0, 0.3, 0.1]}", [0.0, 0.1, 0.2, 0.3]),
        ("{geometric: [64, 512, 2]}", [64, 128, 256, 512]),
        ("{geometric: [8, 1, 0.5]}", [8.0, 4.0, 2.0, 1.0]),
        ("{range: [5, 5, 1]}", [5]),
    ],
)
def test_rule_stands_for_its_values_stop_included(file: Path, stated: str, values: list[float]) -> None:
    sweep = read_sweep(edited(file, "[8, 16, 32]", stated))
    assert sweep.values("workload.batch_size") == values
    assert [type(value) for value in sweep.values("workload.batch_size")] == [type(value) for value in values]


def test_zipped_axes_vary_together_and_faster_axes_within(file: Path) -> None:
    edited(
        file,
        "grid:\n  system: [npu_only, neupims]",
        "zip: {system: [npu_only, neupims], seed: {range: [1, 2, 1]}}\ngrid:",
    )
    assert places(file) == [
        *[("npu_only", 1, 8), ("npu_only", 1, 16), ("npu_only", 1, 32)],
        *[("neupims", 2, 8), ("neupims", 2, 16), ("neupims", 2, 32)],
    ]
    assert [point.config.seed for point in expand(read_sweep(file), "")] == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("base_seed", "stated", "seeds"),
    [("", "repeats: 3", [0, 1, 2]), ("seed: 7, ", "repeats: 2", [7, 8]), ("", "seeds: [5, 1]", [5, 1])],
)
def test_repeats_are_seeds_that_vary_fastest(file: Path, base_seed: str, stated: str, seeds: list[int]) -> None:
    edited(file, "base: {", f"base: {{{base_seed}")
    edited(file, "metrics:", f"{stated}\nmetrics:")
    points = list(expand(read_sweep(file), ""))
    assert list(points[0].axes) == ["system", "workload.batch_size", "seed"]
    assert [point.config.seed for point in points] == seeds * 6
    assert len({point.hash for point in points}) == 6 * len(seeds)


def test_table_of_a_page_shows_the_mean_of_repeats(file: Path, tmp_path: Path) -> None:
    table = "tables: [{title: Cycles, rows: system, columns: workload.batch_size, value: cycles, decimals: 7}]"
    edited(file, "metrics:", f"repeats: 3\n{table}\nmetrics:")
    results = sweep(file, tmp_path / "out", 1, lambda config: fake(config) | {"cycles": 10**6 * config.seed**2})
    assert "| NeuPIMs | 1.6666667 | 1.6666667 | 1.6666667 |" in to_markdown(read_sweep(file), results)


def test_no_mean_of_the_points_that_happen_to_have_a_number(file: Path, tmp_path: Path) -> None:
    def without_a_stage(config: Config) -> dict[str, Any]:
        return fake(config) | ({} if config.workload.batch_size == 16 else {"stages": {"A": 100}})

    table = "tables: [{title: A, rows: system, value: [cycles, stages.A], over: mean}]"
    edited(file, "metrics: [", f"{table}\nmetrics: [stages.A, ")
    (pivot,) = pivot_tables(read_sweep(file), sweep(file, tmp_path / "out", 1, without_a_stage))
    assert [line[-2:] for line in pivot.lines] == [["0.002", MISSING]] * 2


def test_a_table_keeps_the_order_of_an_axis_where_the_first_row_lacks_a_point(file: Path, tmp_path: Path) -> None:
    table = "tables: [{title: Cycles, rows: system, columns: workload.batch_size, value: cycles}]"
    edited(file, "metrics:", f"exclude: [{{system: npu_only, workload.batch_size: [8, 16]}}]\n{table}\nmetrics:")
    (pivot,) = pivot_tables(read_sweep(file), sweep(file, tmp_path / "out", 1, fake))
    assert pivot.heads == ["8", "16", "32"]
    assert pivot.lines[0][:3] == ["NPU-only", MISSING, MISSING]


def test_a_table_is_relative_to_a_number_among_words(file: Path, tmp_path: Path) -> None:
    edited(file, "grid:", 'variants: {link: {"16": {}, wide: {workload.batch_size: 32}}}\ngrid:')
    edited(file, "  workload.batch_size: [8, 16, 32]\n", "")
    edited(file, "metrics:", "tables: [{title: T, rows: [link, system], value: cycles, relative_to: 16}]\nmetrics:")
    results = sweep(file, tmp_path / "out", 1, lambda config: fake(config) | {"cycles": config.workload.batch_size})
    (pivot,) = pivot_tables(read_sweep(file), results)
    assert [line[-1].partition("(")[2] for line in pivot.lines[:2]] == ["", ""]
    assert all(line[-1].endswith("×)") for line in pivot.lines[2:])


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("9**9**9", "does not yield numbers: .*out of range"),
        ("'x' * 1000000000", "does not yield numbers"),
        ("9" * 990, "does not yield numbers: int too large"),
        ("cycles * " * 100 + "1", "more than 50 levels"),
        ("(" * 300 + "1", "too many nested parentheses"),
        ("-" * 900 + "1", "levels of operators"),
        ("1" * 1001, "1,001 characters; allowed: up to 1,000"),
        ("1j", "1j is not allowed"),
    ],
)
def test_an_expression_has_bounds(file: Path, tmp_path: Path, expression: str, problem: str) -> None:
    edited(file, "metrics:", f"derive: {{x: {json.dumps(expression)}}}\nmetrics:")
    start = time.perf_counter()
    with pytest.raises(InputError, match=problem) as caught:
        sweep(file, tmp_path / "out", 1, fake)
    assert time.perf_counter() - start < 5
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("metrics:", "repeats: 1000000000\nmetrics:", "repeats=1000000000: must be less than or equal to 100000"),
        ("metrics:", "seeds: [1.5, -1]\nmetrics:", r"2 errors: \(1\) seeds.0=1.5: .* \(2\) seeds.1=-1: "),
        ("[8, 16, 32]", "{range: [8, .nan, 1]}", "range needs three numbers"),
        ("[8, 16, 32]", "{range: [8, .inf, 1]}", "range needs three numbers"),
        ("[8, 16, 32]", "{geometric: [1, 1e300, 1.0001]}", "more than 100000 values"),
        ("[8, 16, 32]", "{range: [1, 5000, 1]}\n  seed: {range: [1, 5000, 1]}", "the axes stand for 50,000,000 points"),
        ("metrics:", "labels: {cycles: {factor: .inf, decimals: 1000}}\nmetrics:", "labels.cycles.factor=inf: must be a finite"),
        ("metrics:", "repeats: 2\nlabels: {cycles: {decimals: 16}}\nmetrics:", "labels.cycles.decimals=16: must be less than"),
        ("base: {", "repeats: 2\nbase: {seed: 18446744073709551615, ", "seed=18446744073709551615 must be a whole number from 0"),
    ],
)  # fmt: skip
def test_numbers_of_a_sweep_file_have_bounds(file: Path, old: str, new: str, told: str) -> None:
    edited(file, old, new)
    start = time.perf_counter()
    with pytest.raises(InputError, match=told):
        read_sweep(file)
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("point,", "pint,", "no column point"),
        ("cycles\n", "cyclse\n", "no column cycles"),
        ("npu_only,16", "npu_only,1,2,16", "Error tokenizing data"),
        ("", "\0", "no column"),
    ],
)
def test_a_damaged_table_is_one_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, told: str
) -> None:
    sweep(file, tmp_path / "out", 1, fake)
    for path in (tmp_path / "out").glob("store*"):
        path.unlink()
    load_results(tmp_path / "out")
    table = tmp_path / "out" / "points.csv"
    table.write_text(table.read_text().replace(old, new, 1) if old else new)
    with pytest.raises(InputError, match=rf"points\.csv: not a table of this sweep: .*({told})"):
        load_results(tmp_path / "out")
    code, _, error = run(capsys, "results", tmp_path / "out")
    assert (code, error.count("\n")) == (2, 1)


def test_labels_are_text_however_they_look(file: Path, tmp_path: Path) -> None:
    """Labels 1, 01 and 1.0 are three variants: three rows of the table, three heads, three panels, with a value each."""
    edited(file, "  workload.batch_size: [8, 16, 32]\n", "")
    edited(
        file,
        "grid:",
        "variants:\n  link: {1: {seed: 1}, 01: {seed: 2}, 1.0: {seed: 3}}\n"
        'names: {link: {01: one}}\nreference: {source: x, table: "link, theirs\\n1, 10\\n01, 20\\n1.0, 30"}\n'
        "exclude: [{link: '01', system: neupims}]\ngrid:",
    )
    edited(file, "metrics:", "tables: [{title: T, rows: [system, link], value: [cycles, theirs]}]\nmetrics:")
    sweep(file, tmp_path / "out", 1, lambda config: fake(config) | {"cycles": config.seed})
    definition, table = load_results(tmp_path / "out")
    npu_only = table[table["system"] == "npu_only"]
    assert dict(zip(npu_only["link"], npu_only["cycles"], strict=True)) == {"1": 1, "01": 2, "1.0": 3}
    assert dict(zip(npu_only["link"], npu_only["theirs"], strict=True)) == {"1": 10, "01": 20, "1.0": 30}
    assert set(table[table["system"] == "neupims"]["link"]) == {"1", "1.0"}
    (pivot,) = pivot_tables(definition, table)
    assert [line[1] for line in pivot.lines if line[0] == "NPU-only"] == ["1", "one", "1.0"]
    assert len(parts_of(npu_only, ["link"], definition.shown_labels())) == 3
    make_figure(definition, table, "lines", {"x": "link", "y": "cycles", "hue": "system"})  # an axis of numbers


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "1e3", "a", [1, 2], {"a": None}])
def test_a_value_has_one_text_in_the_file_and_in_the_table(value: Any, tmp_path: Path) -> None:
    """One in points.csv, too, as such and as Pandas holds a column of it."""
    cell = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    text = pd.DataFrame({"point": "", "status": "", "error": "", "axis": [cell]}).to_csv(index=False)
    column = parse_table(text, ["axis"] if isinstance(value, str) else [])["axis"]
    assert value_key(column.unique()[0]) == value_key(column.tolist()[0]) == value_key(value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("base: {", "repeats: 2\nbase: {seed: many, ", ["base", "seed='many' must be a whole number"]),
        ("metrics: [", "metrics: [system, ", ["metrics.0='system'", "has a column of this name"]),
        ("metrics:", 'reference: {source: x, table: "system, \\r\\n neupims, 1"}\nmetrics:', ["a column has no name"]),
        (
            "metrics:",
            'reference: {source: x, table: "system, a\\n neupimz, 1"}\nmetrics:',
            ["reference.table, line 2: system='neupimz'", "mean neupims?"],
        ),
        ("[8, 16, 32]", "{range: [8, 32]}", ["grid.workload.batch_size", "range needs three numbers", "step"]),
        ("[8, 16, 32]", "{range: [8, 32, 0]}", ["no way in steps of 0"]),
        ("[8, 16, 32]", "{range: [8, 32, -8]}", ["from 8 to 32", "steps of -8"]),
        ("[8, 16, 32]", "{range: [0, 1, 1.0e-9]}", ["more than 100000 values"]),
        (
            "[8, 16, 32]",
            "{range: [1, 9000, 1]}\n  seed: {range: [1, 99, 1]}",
            ["stand for 1,782,000 points; allowed: up to 1,000,000"],
        ),
        ("[8, 16, 32]", "{geometric: [8, 32, 1]}", ["no way in factors of 1"]),
        ("[8, 16, 32]", "{geometric: [0, 32, 2]}", ["from 0 to 32"]),
        ("[8, 16, 32]", "{rang: [8, 32, 8]}", ["must be a list, {range:", "{geometric:"]),
        ("metrics:", "zip: {seed: [1, 2], model.heads: [8]}\nmetrics:", ["zip.0:", "seed 2, model.heads 1"]),
        ("metrics:", "zip: {system: [neupims]}\nmetrics:", ["system is an axis of zip.0 and of grid"]),
        ("metrics:", "zip: [{model.layers: [4]}]\nmetrics:", ["model.layers", "base", "zip"]),
        ("metrics:", "repeats: 2\nseeds: [1]\nmetrics:", ["repeats and seeds"]),
        ("metrics:", "repeats: 0\nmetrics:", ["repeats=0", "greater than or equal to 1"]),
        ("metrics:", "seeds: [-1]\nmetrics:", ["seeds.0=-1"]),
        ("metrics:", "repeets: 2\nmetrics:", ["repeets=2", "mean repeats?"]),
        ("metrics:", "quick: {repeats: 2}\nmetrics:", ["quick.repeats", "neither repeats nor seeds"]),
        ("metrics:", "quick: {zip: {seed: [1]}}\nmetrics:", ["quick.zip", "axes of zip: none"]),
    ],
)
def test_bad_axis_is_one_line_that_names_key_and_what_is_allowed(
    file: Path, old: str, new: str, told: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        list(expand(read_sweep(edited(file, old, new)), ""))
    message = str(caught.value)
    assert "\n" not in message
    assert all(text in message for text in [str(file), *told]), message


# --- the results ---


def test_table_has_a_row_per_point_in_order_and_the_folder_every_result(file: Path, tmp_path: Path) -> None:
    table = sweep(file, tmp_path / "out", workers=1, run_point=fake)
    assert list(table.columns) == [
        *("point", "status", "error", "system", "workload.batch_size"),
        *("throughput_tokens_per_s", "utilization.npu", "cycles"),
    ]
    points = list(expand(read_sweep(file), ""))
    assert list(table["point"]) == [point.hash for point in points]
    assert list(table["cycles"]) == [800, 1600, 3200] * 2
    assert set(table["status"]) == {"ok"}
    with Reader(tmp_path / "out") as reader:
        assert {row.hash: row.result for row in reader.rows()} == {point.hash: fake(point.config) for point in points}
    definition, stored = load_results(tmp_path / "out")
    assert definition == read_sweep(file)
    pd.testing.assert_frame_equal(stored, table)


def test_inv7_same_bytes_with_one_worker_and_two(file: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        sweep(file, tmp_path / str(workers), workers, run_point=fake_that_fails_at_16)
    stored = []
    for folder in (tmp_path / "1", tmp_path / "2"):
        with Reader(folder) as reader:
            stored.append([row._replace(traceback="") for row in reader.rows()])
    assert stored[0] == stored[1]
    assert (tmp_path / "1/points.csv").read_bytes() == (tmp_path / "2/points.csv").read_bytes()


def test_failing_point_is_recorded_and_the_others_go_on(file: Path, tmp_path: Path) -> None:
    table = sweep(file, tmp_path / "out", workers=1, run_point=fake_that_fails_at_16)
    assert list(table["status"]) == ["ok", "failed", "ok"] * 2
    assert list(table["error"]) == ["", "RuntimeError: a bug", "", "", "the batch does not fit: 16 > 15", ""]
    text = (tmp_path / "out/points.csv").read_text()
    assert ",neupims,32,10.666666666666666,3.2,3200\n" in text, "an integer stays one beside an empty cell"
    traces = read_tracebacks(tmp_path / "out")
    assert list(traces) == [table["point"][1]]
    assert "RuntimeError: a bug" in traces[table["point"][1]]


def test_failed_points_run_again_only_on_request_and_finished_ones_never(file: Path, tmp_path: Path) -> None:
    sweep(file, tmp_path / "out", workers=1, run_point=fake_that_fails_at_16)
    ran = []

    def counted(config: Config) -> dict[str, Any]:
        ran.append((config.system, config.workload.batch_size))
        return fake(config)

    seen: list[Progress] = []
    sweep(file, tmp_path / "out", workers=1, run_point=counted, on_progress=seen.append)
    assert ran == []
    assert seen == [Progress(total=6, reused=6, done=6, failed=2)]
    table = sweep(file, tmp_path / "out", workers=1, run_point=counted, retry_failed=True)
    assert ran == [("npu_only", 16), ("neupims", 16)]
    assert set(table["status"]) == {"ok"}
    assert read_tracebacks(tmp_path / "out") == {}
    sweep(file, tmp_path / "whole", workers=1, run_point=fake)
    assert (tmp_path / "out/points.csv").read_bytes() == (tmp_path / "whole/points.csv").read_bytes()


def test_a_longer_axis_runs_only_the_new_points(file: Path, tmp_path: Path) -> None:
    sweep(file, tmp_path / "out", workers=1, run_point=fake)
    seen: list[Progress] = []
    sweep(edited(file, "[8, 16", "[4, 8, 16"), tmp_path / "out", 1, fake, seen.append)
    assert [(p.reused, p.done, p.total) for p in seen] == [(6, 6, 8), (6, 7, 8), (6, 8, 8)]
    assert seen[1].last == "system=npu_only, workload.batch_size=4"


def test_equal_points_run_once(file: Path, tmp_path: Path) -> None:
    ran = []
    table = sweep(edited(file, "[8, 16, 32]", "[8, 8]"), tmp_path / "out", 1, lambda c: ran.append(c) or fake(c))  # type: ignore[func-returns-value]
    assert len(ran) == 2
    assert len(table) == 4


def test_worker_process_that_dies_fails_only_its_point(file: Path, tmp_path: Path) -> None:
    table = sweep(file, tmp_path / "out", workers=2, run_point=fake_whose_process_dies_at_16)
    assert list(table["status"]) == ["ok", "failed", "ok"] * 2
    assert "worker process died" in table["error"][1]


def test_metric_in_no_result_is_told_and_nothing_is_lost(file: Path, tmp_path: Path) -> None:
    edited(file, "utilization.npu", "utilization.npo")
    with pytest.raises(InputError, match=r"metrics: 'utilization.npo': in no result.*mean utilization.npu\?"):
        sweep(file, tmp_path / "out", workers=1, run_point=fake)
    edited(file, "utilization.npo", "utilization.npu")
    assert len(sweep(file, tmp_path / "out", workers=1, run_point=fake_that_must_not_run)) == 6


def test_interrupted_sweep_keeps_what_has_finished(file: Path, tmp_path: Path) -> None:
    def interrupted(config: Config) -> dict[str, Any]:
        if config.system == "neupims":
            raise KeyboardInterrupt
        return fake(config)

    with pytest.raises(KeyboardInterrupt):
        sweep(file, tmp_path / "out", workers=1, run_point=interrupted)
    assert list(load_results(tmp_path / "out")[1]["workload.batch_size"]) == [8, 16, 32]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_sweep_keeps_finished_points_and_leaves_no_process(file: Path, tmp_path: Path, how: int) -> None:
    out = tmp_path / "out"
    program = (
        "import signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background inherits that it is ignored
        "from test_sweeps import slow_fake\n"
        "from neupims_sim.sweeps import sweep\n"
        "if __name__ == '__main__': sweep(sys.argv[2], sys.argv[3], 2, slow_fake)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(file), str(out)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while count_finished(out) == 0 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)  # the next point is under way
        if how == signal.SIGINT:
            os.killpg(process.pid, how)  # as a terminal does
        else:
            process.kill()
        process.communicate(timeout=30)  # ends when the workers, too, have closed their end
    finished = load_results(out)[1]
    assert list(finished["workload.batch_size"]) == [8]
    ran = []
    table = sweep(file, out, workers=1, run_point=lambda c: ran.append(c.workload.batch_size) or fake(c))  # type: ignore[func-returns-value]
    assert (len(table), sorted(ran)) == (6, [8, 16, 16, 32, 32])


def test_closing_an_execution_does_not_wait_for_points_that_have_not_started() -> None:
    config = load_config("neupims", {"workload.batch_size": 8})
    tasks = (Task(number, config.model_dump_json()) for number in range(100))
    outcomes = execute_in_processes(slow_fake, tasks, workers=2)
    while next(outcomes)[1] is None:
        pass
    start = time.monotonic()
    outcomes.close()
    assert time.monotonic() - start < 10


# --- many points ---


def test_sweep_of_many_points_says_at_once_and_now_and_then_how_far_it_is(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neupims_sim.sweeps.running.STAGE_SECONDS", 0.0)
    edited(file, "[8, 16, 32]", "{range: [1, 250, 1]}")
    seen: list[Progress] = []
    sweep(file, tmp_path / "out", 1, fake, seen.append)
    stages = [(progress.stage, progress.done) for progress in seen]
    assert stages[:1000] == [(stage, n) for stage in ("checking", "storing") for n in range(500)]
    assert stages[1000:] == [("", n) for n in range(501)]


# --- the command line ---


@pytest.mark.parametrize(("run_point", "code"), [(fake, 0), (fake_that_fails_at_16, 1)])
def test_command_prints_the_table_on_stdout_and_progress_on_stderr(
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    run_point: Any,
    code: int,
) -> None:
    monkeypatch.setattr("neupims_sim.cli.sweep.run_sweep", functools.partial(sweep, run_point=run_point))
    status, out, err = run(capsys, "sweep", file, "--workers", 1, "--out", tmp_path / "out")
    assert status == code
    assert "NeuPIMs" in out
    assert "1000 tokens/s" in out
    assert "[0/6] 0 points stored" in err
    assert ("RuntimeError: a bug" in err) == (code == 1)
    assert run(capsys, "results", tmp_path / "out", "--csv", tmp_path / "copy.csv")[:2] == (0, out)
    assert (tmp_path / "copy.csv").read_bytes() == (tmp_path / "out/points.csv").read_bytes()


def fake_that_never_fits(config: Config) -> dict[str, Any]:
    if config.workload.batch_size > 8:
        raise InputError(f"{config.workload.batch_size * 100:,} rows do not fit")
    return fake(config)


def test_failures_are_told_once_each_message_with_its_points(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neupims_sim.cli.sweep.run_sweep", functools.partial(sweep, run_point=fake_that_never_fits))
    edited(file, "[8, 16, 32]", "{range: [8, 24, 1]}")
    code, out, err = run(capsys, "sweep", file, "--workers", 1, "--out", tmp_path / "out")
    assert code == 1
    assert "failed" not in out
    assert out.count("NeuPIMs") == 1
    assert (out + err).count("rows do not fit") == 1
    assert (
        "failed: 32 points: 900 rows do not fit (the others with other numbers) "
        "[system=npu_only, workload.batch_size=9; system=npu_only, workload.batch_size=10; "
        "system=npu_only, workload.batch_size=11; 29 more]\n"
    ) in err


def test_messages_are_grouped_by_their_words_and_shortened() -> None:
    failures = [Failure(f"a={n}", f"stuck at cycle {n}") for n in range(5)] + [Failure("b=1", "x" * 2000)]
    first, second = grouped(failures)
    assert first == "5 points: stuck at cycle 0 (the others with other numbers) [a=0; a=1; a=2; 2 more]"
    assert second.startswith("b=1: xxx")
    assert len(second) < 500
    assert len(grouped([Failure("a=1", "ab" * n) for n in range(50)])) == 21


@pytest.fixture
def results(file: Path, tmp_path: Path) -> Path:
    """A results folder with two failed points."""
    sweep(file, tmp_path / "out", workers=1, run_point=fake_that_fails_at_16)
    return tmp_path / "out"


def test_where_chooses_rows_and_leaves_their_text_as_it_is(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = "system == 'neupims' and `workload.batch_size` < 20"
    code, _, _ = run(capsys, "results", results, "--where", where, "--csv", tmp_path / "some.csv")
    lines = (results / "points.csv").read_text().splitlines()
    assert code == 0
    assert (tmp_path / "some.csv").read_text().splitlines() == [lines[0], *lines[4:6]]


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("sistem == 'neupims'", ["no column 'sistem'", "mean system?"]),
        ("cycles + 1", ["true or false"]),
        ("cycles >", ["not an expression"]),
        ("@cycles > 1", ["@ and __ are not allowed"]),
        ("system > 1", ["--where"]),
    ],
)
def test_bad_condition_is_one_line(
    results: Path, capsys: pytest.CaptureFixture[str], where: str, told: list[str]
) -> None:
    code, out, err = run(capsys, "results", results, "--where", where)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert all(text in err for text in told), err


def test_failed_points_are_listed_with_message_and_traceback(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "results", results, "--failed")
    assert code == 0
    assert "system=neupims, workload.batch_size=16\n    the batch does not fit: 16 > 15\n" in out
    assert "    RuntimeError: a bug\n" in out
    assert "Traceback" in out
    assert "batch_size=8" not in out


def test_parquet_has_the_table_and_without_pyarrow_is_one_line(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    def without_pyarrow(*args: object, **options: object) -> None:
        raise ImportError

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_parquet", without_pyarrow)
        code, _, err = run(capsys, "results", results, "--parquet", tmp_path / "t.parquet")
        assert (code, err.count("\n")) == (2, 1)
        assert "pip install 'neupims-sim[parquet]'" in err
    pytest.importorskip("pyarrow")
    assert run(capsys, "results", results, "--parquet", tmp_path / "t.parquet")[0] == 0
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), load_results(results)[1], check_dtype=False)


def test_folder_with_the_two_exported_files_alone_can_be_read(results: Path, tmp_path: Path) -> None:
    definition, table = load_results(results)
    for path in results.glob("store.*"):
        path.unlink()
    copied_definition, copied = load_results(results)
    assert copied_definition == definition
    pd.testing.assert_frame_equal(copied, table)


def test_summary_counts_points_run_reused_and_failed(
    results: Path, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neupims_sim.cli.sweep.run_sweep", functools.partial(sweep, run_point=fake))
    edited(file, "[8, 16, 32]", "[8, 16, 32, 64]")
    code, _, err = run(capsys, "sweep", file, "--workers", 1, "--out", results)
    assert (code, "2 points run, 6 reused, 2 failed; 0." in err) == (1, True)
    code, _, err = run(capsys, "sweep", file, "--workers", 1, "--out", results, "--retry-failed")
    assert (code, "2 points run, 6 reused, 0 failed; 0." in err) == (0, True)


def test_results_of_another_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "results", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "not the results folder of a sweep" in err

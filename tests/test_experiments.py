"""Experiments: what a sweep file can say beyond a grid, and the folder that one command fills."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from cli_cases import run
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from neupims_sim import __version__
from neupims_sim.config import Config
from neupims_sim.errors import InputError
from neupims_sim.plots import draw
from neupims_sim.sweeps import expand, load_results, read_sweep, sweep
from neupims_sim.sweeps.derivation import derive, expression_problem
from neupims_sim.sweeps.page import read_page
from neupims_sim.sweeps.tables import PivotTable, _markdown

SWEEP = """
name: small
title: A small experiment
base: {preset: physical, workload: {dataset: sharegpt}, model.layers: 4}
variants:
  device:
    plain: {system: npu_only}
    pim: {system: neupims, memory: {row_buffers: single}}
    pim dual: {system: neupims, memory.row_buffers: dual}
grid:
  workload.batch_size: [8, 16, 32]
exclude:
  - {device: [plain, pim], workload.batch_size: 32}
metrics: [cycles, operator_cycles.pooling]
derive:
  share: "`operator_cycles.pooling` / cycles"
  rest: 1 - share
labels:
  share: {name: Share of pooling, unit: "%", factor: 100, decimals: 1}
  workload.batch_size: {name: Requests}
names:
  device: {pim dual: NeuPIMs | dual}
plot: {kind: lines, x: workload.batch_size, y: share, hue: device, log: x}
tables:
  - {title: Pooling, rows: device, columns: workload.batch_size, value: share}
  - {title: Cycles, rows: [device], columns: workload.batch_size, value: cycles, decimals: 2}
quick:
  base: {model.layers: 2}
  grid: {workload.batch_size: [8]}
  variants: {device: {plain: {system: npu_only}}}
"""
README = "# Small\n\nBy hand.\r\n<!-- tables -->\nold\n<!-- /tables -->\nAlso by hand.\n"


def fake(config: Config) -> dict[str, Any]:
    """A made-up result, quickly; the smallest batch takes no time to pool, and has no cycles on a plain NPU."""
    assert not isinstance(config.workload.batch_size, str)
    batch, dual = config.workload.batch_size, config.memory.row_buffers == "dual"
    cycles = 0 if config.system == "npu_only" and batch == 8 else 1000 * batch * (1 if dual else 2)
    return {"cycles": cycles, "operator_cycles": {"pooling": 10 * (batch - 8)}}


def fake_that_fails_at_16(config: Config) -> dict[str, Any]:
    if config.workload.batch_size == 16:
        raise InputError("does not fit")
    return fake(config)


def fake_that_fails(config: Config) -> dict[str, Any]:
    raise InputError("does not fit")


def fake_that_must_not_run(config: Config) -> dict[str, Any]:
    raise AssertionError("a finished point runs again")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "experiment"
    path.mkdir()
    (path / "sweep.yaml").write_text(SWEEP)
    (path / "README.md").write_bytes(README.encode())
    return path


@pytest.fixture
def file(folder: Path) -> Path:
    return folder / "sweep.yaml"


def edited(file: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The sweep file after a change of its content."""
    tree = yaml.safe_load(file.read_text())
    change(tree)
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return file


def setting(path: str, value: Any) -> Callable[[dict[str, Any]], object]:
    """A change that sets the value at a path such as ``quick/grid``."""

    def change(tree: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        for key in parents:
            tree = tree[int(key)] if isinstance(tree, list) else tree.setdefault(key, {})
        tree[int(last) if isinstance(tree, list) else last] = value

    return change


# --- variants and excluded points ---


def test_points_are_the_product_of_variants_and_grid_less_what_is_excluded(file: Path) -> None:
    points = list(expand(read_sweep(file), ""))
    assert [tuple(point.axes.values()) for point in points] == [
        *[("plain", 8), ("plain", 16), ("pim", 8), ("pim", 16)],
        *[("pim dual", 8), ("pim dual", 16), ("pim dual", 32)],
    ]
    assert [(p.config.system, p.config.memory.row_buffers) for p in points[2::2]] == [
        ("neupims", "single"),
        ("neupims", "dual"),
        ("neupims", "dual"),
    ]


def test_variants_vary_slowest_in_the_order_of_the_file(file: Path) -> None:
    def change(tree: dict[str, Any]) -> None:
        del tree["exclude"], tree["tables"], tree["plot"]
        tree["variants"]["seeds"] = {"b": {"seed": 1}, "a": {}}

    sweep = read_sweep(edited(file, change))
    assert sweep.axes == ["device", "seeds", "workload.batch_size"]
    assert [(p.axes["device"], p.axes["seeds"], p.config.seed) for p in expand(sweep, "")][:9:3] == [
        ("plain", "b", 1),
        ("plain", "a", 0),
        ("pim", "b", 1),
    ]


@pytest.mark.parametrize(
    ("base", "variant"),
    [
        ({"model.layers": 4}, {"model.layers": 8}),
        ({"model.layers": 4}, {"model": {"layers": 8}}),
        ({"model": {"layers": 4, "heads": 16}}, {"model.layers": 8}),
        ({"model": "gpt3-7b"}, {"model": {"layers": 8}}),
        ({"model": "gpt3-7b", "model.layers": 4}, {"model": {"layers": 8}}),
    ],
)
def test_variant_wins_over_base_however_either_writes_the_key(
    file: Path, base: dict[str, Any], variant: dict[str, Any]
) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["base"] = {"system": "neupims"} | base
        tree["variants"]["device"] = {"plain": variant, "pim": {}, "pim dual": {}}

    points = list(expand(read_sweep(edited(file, change)), ""))
    assert points[0].config.model.layers == 8
    assert points[2].config.model.layers in (4, 32)
    if "heads" in str(base):
        assert points[0].config.model.heads == 16


def test_variant_may_change_the_system_of_base(file: Path) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["base"]["system"] = "npu_pim"
        tree["variants"]["device"]["plain"] = {}

    assert [point.config.system for point in expand(read_sweep(edited(file, change)), "")][1:3] == [
        "npu_pim",
        "neupims",
    ]


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("variants/device/plain", {}, ["base.system is missing", "every label"]),
        ("variants/device", {}, ["variants.device={}", "at least 1"]),
        ("variants/device/plain", {"system": "npu_onli"}, ["point device='plain'", "npu_onli", "mean npu_only?"]),
        ("variants/device/plain/model.layrs", 3, ["device='plain'", "model.layrs=3", "mean layers?"]),
        ("variants/device/plain/workload", {"batch_size": 4}, ["device.plain: workload.batch_size", "axis of grid"]),
        ("variants/other", {"a": {"system": "neupims"}}, ["variants.other.a: system is set by variants.device, too"]),
        ("variants/workload", {"a": {}}, ["variants.workload:", "configuration key of base or grid"]),
        ("variants/cycles", {"a": {}}, ["variants.cycles:", "column of this name"]),
        ("exclude/0", {"devise": "pim"}, ["exclude.0.devise: no such axis", "mean device?"]),
        ("exclude/0", {"device": "pym"}, ["exclude.0.device='pym': no such value", "mean pim?"]),
        ("exclude/0", {"workload.batch_size": [8, 64]}, ["exclude.0.workload.batch_size=64", "allowed: 16, 32, 8"]),
        ("exclude/0", {}, ["exclude.0={}", "at least 1"]),
        ("exclude/0", {"workload.batch_size": [8, 16, 32]}, ["exclude leaves no point"]),
        (
            "derive/share",
            "operator_cycles.pooling / cycles",
            ["derive.share=", "dot", "backticks", "columns", "cycles"],
        ),
        (
            "derive/share",
            "`operator_cycles.poling`",
            ["no column 'operator_cycles.poling'", "mean operator_cycles.pooling?"],
        ),
        ("derive/share", "1 - rest", ["derive.share='1 - rest': no column 'rest'"]),
        ("derive/share", "cycles +", ["derive.share='cycles +': not an expression", "operator_cycles.pooling"]),
        ("derive/share", "@cycles", ["@ and __ are not allowed"]),
        ("derive/share", "cycles.__class__", ["@ and __ are not allowed"]),
        ("derive/share", "cycles.to_csv('stolen.csv')", ["Call is not allowed"]),
        ("derive/share", "open('f')", ["Call is not allowed", "functions abs"]),
        ("derive/share", "[cycles]", ["List is not allowed"]),
        ("derive/cycles", "1", ["derive.cycles:", "column of this name"]),
        ("derive/share", 3, ["derive.share=3", "string"]),
        ("metrics", ["cycles", "cycles"], ["metrics.1='cycles'", "twice"]),
        ("labels/shar", {"name": "x"}, ["labels.shar: no such column", "mean share?"]),
        ("labels/share/factr", 2, ["labels.share.factr=2", "unknown key", "mean factor?"]),
        ("names/device/pym", "PIM", ["names.device='pym'", "mean pim?"]),
        ("names/devise", {"pim": "PIM"}, ["names.devise: no such axis", "mean device?"]),
        ("tables/0/rows", "devise", ["tables.0.rows='devise': no such axis", "mean device?"]),
        ("tables/0/columns", "share", ["tables.0.columns='share': no such axis"]),
        ("tables/0/value", "shar", ["tables.0.value='shar': no such column", "mean share?"]),
        ("tables/0/columns", "device", ["tables.0: an axis is given twice"]),
        ("tables/0/colums", "device", ["tables.0.colums=", "mean columns?"]),
        ("grid/seed", [0, 1], ["tables.0: seed has several values"]),
        ("quick/grid", {"seed": [1]}, ["quick.grid.seed: no such axis"]),
        ("quick/grid/workload.batch_size", [], ["quick.grid.workload.batch_size=[]"]),
        ("quick/variants/device", {"plain": {}}, ["quick: base.system is missing"]),
        ("quick/metrics", ["cycles"], ["quick.metrics=", "unknown key"]),
        ("plot", 3, ["plot=3", "list"]),
    ],
)
def test_bad_key_is_one_line_that_names_file_key_and_what_is_known(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, value: Any, told: list[str]
) -> None:
    edited(file, setting(path, value))
    code, out, err = run(capsys, "experiment", file.parent, "--out", tmp_path / "out")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert all(text in err for text in ["sweep.yaml", *told]), err
    assert not (tmp_path / "out").exists()


# --- derived columns ---


def test_derived_columns_follow_the_metrics_and_a_division_by_zero_leaves_a_cell_empty(
    file: Path, tmp_path: Path
) -> None:
    table = sweep(file, tmp_path / "out", workers=1, run_point=fake)
    assert list(table.columns)[-4:] == ["cycles", "operator_cycles.pooling", "share", "rest"]
    lines = (tmp_path / "out/points.csv").read_text().splitlines()
    assert lines[1].endswith(",plain,8,0,0,,")
    assert lines[2].endswith(",plain,16,32000,80,0.0025,0.9975")


def test_derived_columns_of_a_failed_point_are_empty(file: Path, tmp_path: Path) -> None:
    table = sweep(file, tmp_path / "out", workers=1, run_point=fake_that_fails_at_16)
    failed = table[table["status"] == "failed"]
    assert list(failed["workload.batch_size"]) == [16, 16, 16]
    assert failed["share"].isna().all()
    assert table["share"].notna().sum() == 3


def test_expression_that_yields_no_numbers_is_told_and_finished_points_are_kept(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(file, setting("derive", {"share": "cycles", "rest": "device"}))
    monkeypatch.setattr("neupims_sim.cli.sweep.run_sweep", functools.partial(sweep, run_point=fake))
    code, _, err = run(capsys, "sweep", file, "--workers", 1, "--out", tmp_path / "out")
    assert (code, err.count("error:")) == (2, 1)
    assert "sweep.yaml: derive.rest='device': does not yield numbers" in err


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.none() | st.integers(-5, 5)), min_size=1),
)
def test_derived_quotient_is_the_quotient_wherever_there_is_one(rows: list[tuple[int, int | None]]) -> None:
    table = pd.DataFrame(rows, columns=["a.b", "c"], dtype=object)
    expected = [None if not c else a / c for a, c in rows]
    assert derive(table, {"q": "`a.b` / c"})["q"] == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [("a + 1", 5), ("sqrt(a) * 2", 4), ("-a ** 2 % 7", 5), ("(a > 3) * 10", 10), ("(t == 'x') + 0", 1), ("7", 7)],
)
def test_expressions_know_arithmetic_comparisons_and_functions(expression: str, expected: float) -> None:
    table = pd.DataFrame([[4, "x"]], columns=["a", "t"], dtype=object)
    assert expression_problem(expression, ["a", "t"]) == ""
    assert derive(table, {"d": expression})["d"] == [expected]


# --- resumption ---


def test_a_new_variant_runs_only_its_own_points(file: Path, tmp_path: Path) -> None:
    first = sweep(file, tmp_path / "out", workers=1, run_point=fake)
    ran = []

    def counted(config: Config) -> dict[str, Any]:
        ran.append(config.seed)
        return fake(config)

    edited(file, setting("variants/device/seeded", {"system": "neupims", "seed": 5}))
    table = sweep(file, tmp_path / "out", workers=1, run_point=counted)
    assert ran == [5, 5, 5]
    pd.testing.assert_frame_equal(table[: len(first)], first)


def test_a_new_derived_column_runs_nothing(file: Path, tmp_path: Path) -> None:
    sweep(file, tmp_path / "out", workers=1, run_point=fake)
    edited(file, setting("derive/double", "cycles * 2"))
    table = sweep(file, tmp_path / "out", workers=1, run_point=fake_that_must_not_run)
    assert list(table["double"]) == list(table["cycles"] * 2)


def test_results_command_shows_labels_names_and_derived_columns(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(file, tmp_path / "out", workers=1, run_point=fake)
    _, out, _ = run(capsys, "results", tmp_path / "out")
    assert "NeuPIMs | dual" in out
    assert re.search(r"pim +16 +0\.032 +0\.1 +0\.2 ", out)


# --- figures of others, ratios between points ---

REFERENCE = """
reference:
  source: Someone et al., figure 7
  table: |
    device, workload.batch_size, published
    plain, 8, 8000
    pim, 8, 20000
    pim, 16,
    "pim dual", 32, 16000
relative:
  times: {of: cycles, axis: device, to: pim dual}
  published_times: {of: published, axis: device, to: pim}
"""


@pytest.fixture
def compared(file: Path) -> Path:
    """The sweep with a reference, ratios, and a column that uses both."""
    file.write_text(file.read_text() + REFERENCE)
    return edited(file, setting("derive/deviation", "cycles / published - 1 + 0 * times"))


def test_figures_of_others_stand_at_their_places(compared: Path, tmp_path: Path) -> None:
    table = sweep(compared, tmp_path / "out", workers=1, run_point=fake)
    found = table.set_index(["device", "workload.batch_size"])[["published", "times", "published_times", "deviation"]]
    assert found.loc[("pim", 8)].tolist() == pytest.approx([20000, 2, 1, -0.2])
    assert found.loc[("plain", 8)].tolist() == pytest.approx([8000, 0, 0.4, -1])
    assert found.loc[("pim dual", 32)].fillna(-9).tolist() == pytest.approx([16000, 1, -9, 1])
    assert found.loc[("pim", 16)].fillna(-9).tolist() == pytest.approx([-9, 2, -9, -9])
    assert load_results(tmp_path / "out")[1].equals(table)


def test_ratio_is_taken_within_the_same_seed(file: Path, tmp_path: Path) -> None:
    def seeded(config: Config) -> dict[str, Any]:
        return {"cycles": (1 + config.seed) * (1 if config.memory.row_buffers == "dual" else 2), "operator_cycles": {}}

    edited(file, lambda tree: tree.update(repeats=2, metrics=["cycles"], derive={}, labels={}, plot=[], tables=[]))
    edited(file, setting("relative", {"times": {"of": "cycles", "axis": "device", "to": "pim dual"}}))
    table = sweep(file, tmp_path / "out", workers=1, run_point=seeded)
    assert set(table[table["device"] == "pim"]["times"]) == {2.0}


def test_table_over_further_axes_shows_mean_minimum_and_maximum(compared: Path, folder: Path, experiment: Any) -> None:
    over = {"title": "Over", "rows": ["device"], "value": ["cycles"], "over": ["mean", "maximum"]}
    only = {"title": "Dual", "rows": "workload.batch_size", "value": "times", "only": {"device": "pim"}, "decimals": 1}
    across = {"title": "Across", "rows": "device", "columns": "device", "value": "cycles", "over": "minimum"}
    edited(compared, setting("tables", [over, only, across | {"rows": "workload.batch_size"}]))
    edited(compared, lambda tree: tree["quick"].pop("variants"))
    experiment(folder)
    page = (folder / "README.md").read_text()
    assert "**Over** (over requests)\n\n| Device | Cycles (million), mean | Cycles (million), maximum |" in page
    assert "| pim | 0.024 | 0.032 |" in page
    assert "| NeuPIMs \\| dual | 0.019 | 0.032 |" in page
    assert "**Dual**\n\n| Requests | times |\n| --- | ---: |\n| 8 | 2.0 |\n| 16 | 2.0 |\n\n" in page
    assert "**Across** (minimum over " in page


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("reference/table", "devise, x\na, 1", r"reference.table: needs a column for an axis \(device, .*has .*devise"),
        ("reference/table", "device, x\npim, 1\npim, 2", "line 3: the same place as line 2"),
        ("reference/table", "device, x\npim, 1, 2", "line 2: 3 cells; the head has 2"),
        ("reference/table", "device, x\npim, fast", "line 2: x='fast' is not a number"),
        ("reference/table", "device, x, x\npim, 1, 2", "two columns have one name"),
        ("reference/table", "device, cycles\npim, 1", "reference.table.cycles: points.csv has a column of this name"),
        ("relative/times/of", "cycle", "relative.times.of='cycle': no such column; .*did you mean cycles"),
        ("relative/times/axis", "devise", "relative.times.axis='devise': no such axis; .*did you mean device"),
        ("relative/times/to", "pims", "relative.times.to='pims': no such value of device; .*did you mean pim"),
        ("relative/rest", {"of": "cycles", "axis": "device", "to": "pim"}, "derive.rest: points.csv has a column"),
        ("tables/0/over", "median", "tables.0.over.0='median'.*mean"),
        ("tables/0/over", ["mean", "maximum"], "tables.0.over: 2 numbers a cell, and an axis across"),
        ("tables/0/only", {"device": "pin"}, "tables.0.only.device='pin': no such value"),
    ],
)
def test_reference_or_ratio_that_cannot_be_is_refused(compared: Path, path: str, value: Any, message: str) -> None:
    edited(compared, setting(path, value))
    with pytest.raises(InputError, match=message):
        read_sweep(compared)


@pytest.mark.parametrize(
    "name",
    [
        "a|b",
        "a<b>c</b>",
        "<!-- /tables -->",
        "<script>alert(1)</script>",
        "a\\|b",
        "a\\",
        "two\nlines",
        "&amp; 😀",
        "x" * 300,
    ],
)
def test_name_in_a_markdown_table_is_shown_as_it_is(name: str) -> None:
    text = _markdown(PivotTable(name, name, ["Axis"], [name], [[name, "1.0"]]))
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    rows = re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", html, re.DOTALL)
    shown = " ".join(name.split())
    assert [unescape(cell) for cell in rows] == ["Axis", shown, shown, "1.0"]


# --- the command ---


@pytest.fixture
def experiment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The command with made-up results: ``(folder, *options, run_point) -> exit code, stdout, stderr``."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, run_point: Any = fake) -> tuple[int, str, str]:
        monkeypatch.setattr("neupims_sim.cli.sweep.run_sweep", functools.partial(sweep, run_point=run_point))
        return run(capsys, "experiment", *arguments, "--workers", 1)

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_experiment_fills_its_folder_and_prints_the_files(folder: Path, tmp_path: Path, experiment: Any) -> None:
    code, out, err = experiment(folder)
    assert code == 0
    names = ["figure.svg", "figure.png", "points.csv", "README.md"]
    assert out.split() == [str(folder / name) for name in names]
    assert sorted(contents(folder)) == sorted([*names, "sweep.yaml"])
    assert re.search(r"7 points in \d+\.\d s; results in results/small\n$", err)
    for name in ("points.csv", "README.md"):
        assert contents(folder)[name] == (tmp_path / "results/small" / name).read_bytes()


def test_tables_stand_between_the_markers_and_the_rest_of_the_page_stays(folder: Path, experiment: Any) -> None:
    experiment(folder)
    page = (folder / "README.md").read_bytes().decode()
    assert page == (
        "# Small\n\nBy hand.\r\n<!-- tables -->\n\n"
        "**Pooling** (%; columns: Requests)\n\n"
        "| Device | 8 | 16 | 32 |\n| --- | ---: | ---: | ---: |\n"
        "| plain | – | 0.2 | – |\n| pim | 0.0 | 0.2 | – |\n| NeuPIMs \\| dual | 0.0 | 0.5 | 0.8 |\n\n"
        "**Cycles** (million; columns: Requests)\n\n"
        "| Device | 8 | 16 | 32 |\n| --- | ---: | ---: | ---: |\n"
        "| plain | 0.00 | 0.03 | – |\n| pim | 0.02 | 0.03 | – |\n| NeuPIMs \\| dual | 0.01 | 0.02 | 0.03 |\n\n"
        f"`neupims-sim experiment experiment`: 7 points, neupims_sim {__version__}.\n\n"
        "<!-- /tables -->\nAlso by hand.\n"
    )


def test_values_side_by_side_with_their_ratio_to_one_row(folder: Path, file: Path, experiment: Any) -> None:
    table = {"title": "Both", "rows": ["device", "workload.batch_size"], "value": ["cycles", "share"]}
    edited(
        file,
        lambda tree: tree.update(tables=[table | {"relative_to": "pim"}], exclude=[{"workload.batch_size": 32}]),
    )
    experiment(folder)
    page = (folder / "README.md").read_text()
    assert "| Device | Requests | Cycles (million) | Share of pooling (%) |\n| --- | --- | ---: | ---: |\n" in page
    assert "| NeuPIMs \\| dual | 8 | 0.008 (0.5×) | 0.0 |" in page  # 0 to 0 is no ratio
    assert "| plain | 16 | 0.032 (1×) | 0.2 (1×) |\n| pim | 8 | 0.016 | 0.0 |\n| pim | 16 | 0.032 | 0.2 |\n" in page
    assert "| NeuPIMs \\| dual | 16 | 0.016 (0.5×) | 0.5 (2×) |" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"value": ["cycles", "share"]},
            "tables.0.value: 2 values, and an axis across; keep one value, or drop columns",
        ),
        ({"relative_to": "pim"}, "tables.0.relative_to: only without columns"),
        ({"columns": None, "rows": ["device", "workload.batch_size"], "relative_to": "pin"}, "no such value of device"),
    ],
)
def test_a_table_that_cannot_be_is_refused_before_anything_runs(
    folder: Path, file: Path, experiment: Any, change: dict[str, Any], message: str
) -> None:
    edited(file, lambda tree: tree["tables"][0].update(change))
    code, _, err = experiment(folder, run_point=fake_that_must_not_run)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_same_inputs_give_the_same_bytes(folder: Path, experiment: Any) -> None:
    experiment(folder)
    first = contents(folder)
    assert experiment(folder, run_point=fake_that_must_not_run)[0] == 0
    assert contents(folder) == first
    assert experiment(folder, "--out", "elsewhere")[0] == 0
    assert contents(folder) == first
    assert not re.search(rb"<dc:date|20\d\d-\d\d-\d\d", first["figure.svg"])


def test_quick_form_leaves_the_folder_as_it_is(folder: Path, tmp_path: Path, experiment: Any) -> None:
    before = contents(folder)
    edited(folder / "sweep.yaml", setting("plot", {"kind": "throughput_bars", "metric": "cycles"}))
    before["sweep.yaml"] = (folder / "sweep.yaml").read_bytes()
    layers = []

    def seen(config: Config) -> dict[str, Any]:
        layers.append(config.model.layers)
        return fake(config) | {"cycles": 1}

    code, out, _ = experiment(folder, "--quick", run_point=seen)
    assert (code, layers) == (0, [2])
    assert contents(folder) == before
    results = tmp_path / "results/small-quick"
    assert out.split() == [f"results/small-quick/{n}" for n in ("figure.svg", "figure.png", "points.csv", "README.md")]
    assert list(load_results(results)[1]["device"]) == ["plain"]
    assert "`neupims-sim experiment experiment --quick`: 1 point," in (results / "README.md").read_text()


def test_sweep_without_quick_form_is_refused(folder: Path, experiment: Any) -> None:
    edited(folder / "sweep.yaml", lambda tree: tree.pop("quick"))
    code, _, err = experiment(folder, "--quick")
    assert (code, err.count("\n")) == (2, 1)
    assert "quick is missing" in err


def test_failed_point_is_told_and_everything_else_is_written(folder: Path, experiment: Any) -> None:
    code, out, err = experiment(folder, run_point=fake_that_fails_at_16)
    assert code == 1
    assert "does not fit" in err
    assert len(out.split()) == 4
    page = (folder / "README.md").read_text()
    assert "| pim | 0.0 | failed | – |" in page
    assert "7 points (3 failed)" in page


def test_nothing_is_written_if_every_point_failed(folder: Path, experiment: Any) -> None:
    before = contents(folder)
    code, out, _ = experiment(folder, run_point=fake_that_fails)
    assert (code, out) == (1, "")
    assert contents(folder) == before


def test_several_plots_are_numbered(folder: Path, tmp_path: Path, experiment: Any) -> None:
    plots = [
        {"kind": "lines", "x": "workload.batch_size", "y": "share", "hue": "device"},
        {"kind": "throughput_bars", "metric": "cycles", "hue": "device", "log": True, "title": "Another title"},
    ]
    edited(folder / "sweep.yaml", setting("plot", plots))
    assert experiment(folder)[0] == 0
    assert sorted(path.name for path in folder.glob("figure*")) == [
        *("figure-1.png", "figure-1.svg", "figure-2.png", "figure-2.svg")
    ]
    assert "Another title" in (folder / "figure-2.svg").read_text()
    files = draw(tmp_path / "results/small")
    assert [file.name for file in files] == [
        *("lines-1.pdf", "lines-1.png", "throughput_bars-2.pdf", "throughput_bars-2.png")
    ]
    (only,) = draw(tmp_path / "results/small", kind="lines", output=tmp_path / "one.svg")
    assert only == tmp_path / "one.svg"


@pytest.mark.parametrize(
    "page", ["no markers", "<!-- /tables --><!-- tables -->", "<!-- tables -->", README + README, None]
)
def test_page_without_its_markers_is_refused_before_anything_runs(
    folder: Path, tmp_path: Path, experiment: Any, page: str | None
) -> None:
    (folder / "README.md").unlink()
    if page is not None:
        (folder / "README.md").write_text(page)
    code, out, err = experiment(folder, run_point=fake_that_must_not_run)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "experiment/README.md" in err
    assert not (tmp_path / "results").exists()


def test_folder_without_a_sweep_is_refused(folder: Path, experiment: Any) -> None:
    (folder / "sweep.yaml").unlink()
    code, _, err = experiment(folder)
    assert (code, err.count("\n")) == (2, 1)
    assert "sweep.yaml: no such file" in err


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[1] / "experiments").glob("**/sweep.yaml")), ids=lambda file: file.parent.name
)
def test_the_shipped_experiments_are_valid_in_both_forms(file: Path) -> None:
    sweep = read_sweep(file)
    assert next(iter(expand(sweep, str(file)))).config
    assert next(iter(expand(sweep.quick_form(), str(file)))).config
    assert read_page(file.parent / "README.md")

"""The kinds of plots: what each draws and what it refuses; what all promise is `check_plot`."""

from __future__ import annotations

import itertools
import math
import re
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure

from neupims_sim.cli import main
from neupims_sim.config import Config
from neupims_sim.errors import InputError
from neupims_sim.plots import PLOTS, draw
from neupims_sim.plots.pareto import not_beaten
from neupims_sim.plots.style import STYLE
from neupims_sim.simulation.sampling import student_t_975
from neupims_sim.sweeps import Labels, sweep
from neupims_sim.testing import check_plot
from neupims_sim.testing.plots import made_up_table

NEEDED: Mapping[str, Mapping[str, Any]] = {
    "ablation": {"steps": "setting"},
    "lines": {"x": "workload.batch_size", "y": "throughput_tokens_per_s", "hue": "system", "style": "setting"},
    "pareto": {"x": "average_power_w", "hue": "system"},
    "roofline": {},
    "speedup": {"hue": "system", "mean": True},
    "stage_breakdown": {"share": True},
    "throughput_bars": {"hue": "system"},
    "tornado": {},
    "utilization": {},
}
"""Every plot, and options that it cannot do without."""
SPEED = "throughput_tokens_per_s"
DOCUMENT = (Path(__file__).parents[1] / "docs/plots.md").read_text()


def table_of(**axes: list[Any]) -> pd.DataFrame:
    """A row per combination; throughput counts up in thousands."""
    table = pd.DataFrame(list(itertools.product(*axes.values())), columns=list(axes))
    return table.assign(**{SPEED: [1000.0 * (n + 1) for n in range(len(table))]})


def drawn(kind: str, table: pd.DataFrame, axes: list[str], **options: Any) -> Figure:
    with mpl.rc_context(STYLE):
        figure = PLOTS[kind](table, {"axes": axes, "labels": Labels(axes), "title": ""} | options)
        figure.draw_without_rendering()
    return figure


def heights(panel: Any) -> dict[str, list[float]]:
    return {
        str(c.get_label()): [bar.get_height() for bar in c] for c in panel.containers if isinstance(c, BarContainer)
    }


def texts(panel: Any) -> list[str]:
    return [text.get_text() for text in panel.texts]


# --- what all plots promise ---


@pytest.mark.parametrize(
    ("kind", "axes", "told"),
    [
        ("throughput_bars", {"system": range(2), "x": range(501)}, "1,002 bars, and at most 1,000"),
        ("stage_breakdown", {"system": range(2), "x": range(501)}, "1,002 bars, and at most 1,000"),
        ("tornado", {"setting": ["base", *map(str, range(1001))]}, "1,001 bars, and at most 1,000"),
        ("throughput_bars", {"system": range(25), "x": [1]}, "25 panels, one for each combination of system"),
        ("lines", {"system": range(25), "x": [1]}, "25 panels, one for each combination of system"),
    ],
)
def test_more_than_people_can_see_is_refused_in_one_line(kind: str, axes: dict[str, Any], told: str) -> None:
    options = {"lines": {"y": SPEED, "panels": "system"}, "stage_breakdown": {"columns": SPEED}}.get(kind, {})
    with pytest.raises(InputError, match=re.escape(told)) as caught:
        drawn(kind, table_of(**axes), list(axes), **options)
    assert "\n" not in str(caught.value)


def test_values_that_are_true_or_false_are_found_and_named() -> None:
    table = table_of(shared=[True, False], x=[1])
    figure = drawn("throughput_bars", table, ["shared", "x"], hue="shared", baseline=True)
    assert list(heights(figure.axes[0])) == ["True", "False"]


@pytest.mark.parametrize("kind", list(PLOTS))
def test_every_plot_keeps_what_plots_promise(kind: str) -> None:
    table = made_up_table()
    check_plot(kind, NEEDED[kind], table[table["setting"] == "base"] if kind == "roofline" else table)


@pytest.mark.parametrize("kind", list(PLOTS))
def test_every_plot_is_documented_with_an_example(kind: str) -> None:
    section = DOCUMENT.partition(f"\n## {kind}\n")[2].partition("\n## ")[0]
    assert f"kind: {kind}" in section


def test_the_plot_of_the_documentation_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("of_the_documentation")
    source = re.search(r'```python\n(""".*?)```', DOCUMENT, re.DOTALL)
    assert source is not None
    monkeypatch.setattr(PLOTS, "register", lambda name: lambda plot: plot)
    exec(source[1], module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    check_plot("of_the_documentation:per_watt", {"x": "system"})


def careless(table: pd.DataFrame, options: Mapping[str, Any]) -> Figure:
    """Breaks every promise that a plot can break and still be drawn."""
    figure = Figure()
    figure.suptitle(str(np.random.default_rng().integers(1 << 60)))
    table.loc[table.index[:1], "throughput_tokens_per_s"] = 0
    figure.subplots().plot(table["throughput_tokens_per_s"], label=options.get("metric"))
    return figure


def test_a_careless_plot_is_told_what_it_breaks() -> None:
    sys.modules["careless_plots"] = types.ModuleType("careless_plots")
    sys.modules["careless_plots"].careless = careless  # type: ignore[attr-defined]
    with pytest.raises(AssertionError) as failed:
        check_plot("careless_plots:careless")
    told = str(failed.value)
    for promise in (
        "The title is",
        "The labels are",
        "not change the table. It did",
        "files differ",
        "It drew the option",
    ):
        assert promise in told
    assert told.count("It drew") == 3


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (
            "nowhere.at.all:plot",
            "plot.kind='nowhere.at.all:plot' cannot be imported: ModuleNotFoundError: No module named 'nowhere'",
        ),
        ("neupims_sim.plots:STYLE", "has no attribute 'STYLE'"),
        ("neupims_sim.plots.style:STYLE", "not a function"),
        ("speeedup", "did you mean speedup"),
    ],
)
def test_a_plot_that_is_not_there_is_one_line(kind: str, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        check_plot(kind)


def test_command_lists_plots(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["list", "plots"])
    output = capsys.readouterr().out
    assert all(kind in output for kind in NEEDED)


# --- from the store ---

SWEEP = """
name: stored
base: {system: neupims}
grid: {workload.batch_size: [64, 256]}
metrics: [throughput_tokens_per_s]
plot:
  - {kind: utilization, where: {workload.batch_size: 256}}
"""


def fake(config: Config) -> dict[str, Any]:
    speed = 10.0 * config.workload.batch_size
    return {SPEED: speed, "utilization": {"npu": 0.1, "pim": 0.2, "bandwidth": 0.5}, "commands": {"RD": 7}}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "stored.yaml").write_text(SWEEP)
    sweep(tmp_path / "stored.yaml", tmp_path / "results", workers=1, run_point=fake)
    return tmp_path / "results"


def test_a_metric_that_the_sweep_does_not_name_is_drawn_from_the_store(directory: Path, tmp_path: Path) -> None:
    (file,) = draw(directory, output=tmp_path / "figure.svg")
    assert "Bandwidth utilization" in file.read_text()
    assert draw(directory, "throughput_bars", "commands.RD", tmp_path / "other.svg")


def test_where_chooses_points_and_refuses_what_is_not_there(directory: Path, tmp_path: Path) -> None:
    text = draw(directory, output=tmp_path / "figure.svg")[0].read_text()
    assert ">256<" in text
    assert ">64<" not in text
    definition = directory.parent / "stored.yaml"
    for where, told in (
        ("{workload.batch_size: 65}", r"plot.where.workload.batch_size=65: no such value.*allowed: 256, 64"),
        ("{batch: 64}", "plot.where.batch='batch': no such column"),
        ("7", "plot.where=7: needs columns"),
    ):
        definition.write_text(SWEEP.replace("{workload.batch_size: 256}", where))
        with pytest.raises(InputError, match=told):
            draw(directory, output=tmp_path / "figure.svg")


def test_a_roofline_says_that_it_needs_whole_results(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"roofline: no block_cycles in the results; it needs whole results"):
        draw(directory, "roofline", output=tmp_path / "figure.svg")


# --- bars ---


def test_bars_over_seeds_are_means_with_a_confidence_interval() -> None:
    table = table_of(system=["npu_pim", "neupims"], seed=[0, 1, 2])
    (panel,) = drawn("throughput_bars", table, ["system", "seed"], x="system").axes
    (bars,) = heights(panel).values()
    assert bars == pytest.approx([2, 5])
    (whiskers,) = [c for c in panel.containers if isinstance(c, ErrorbarContainer)]
    (low, high), _ = (segment[:, 1] for segment in whiskers.lines[2][0].get_segments())
    assert (high - low) / 2 == pytest.approx(student_t_975(2) * 1 / math.sqrt(3))


def test_a_mean_is_missing_where_a_repeat_failed() -> None:
    table = table_of(system=["npu_pim", "neupims"], seed=[0, 1, 2])
    table.loc[1, SPEED] = math.nan
    (panel,) = drawn("throughput_bars", table, ["system", "seed"], x="system").axes
    assert texts(panel) == ["n/a", "5.00"]


def test_stated_error_and_reference_are_in_the_unit_of_the_bars() -> None:
    table = table_of(system=["npu_pim", "neupims"]).assign(half=500.0, published=[1500.0, math.nan])
    figure = drawn("throughput_bars", table, ["system"], error="half", reference="published")
    (panel,) = figure.axes
    (whiskers,) = [c for c in panel.containers if isinstance(c, ErrorbarContainer)]
    assert [segment[:, 1].tolist() for segment in whiskers.lines[2][0].get_segments()] == [[0.5, 1.5], [1.5, 2.5]]
    (markers,) = [line for line in panel.lines if line.get_marker() == "D"]
    assert markers.get_ydata()[0] == 1.5
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["published"]


def test_panels_share_their_scale_unless_they_have_their_own() -> None:
    table = table_of(model=["a", "b"], system=["npu_pim", "neupims"])
    table.loc[table["model"] == "b", SPEED] *= 1000
    for own, same in ((False, True), (True, False)):
        first, second = drawn("throughput_bars", table, ["model", "system"], own_scales=own).axes
        assert (first.get_ylim() == second.get_ylim()) is same


def test_many_bars_lose_their_numbers_before_they_become_too_wide() -> None:
    table = table_of(x=list(range(30)), hue=[f"series {n}" for n in range(8)])
    figure = drawn("throughput_bars", table, ["x", "hue"], x="x", hue="hue")
    assert texts(figure.axes[0]) == []
    assert figure.get_size_inches()[0] < 32


def test_speedup_is_the_ratio_seed_by_seed() -> None:
    table = table_of(system=["npu_only", "neupims"], seed=[0, 1])
    table[SPEED] = [1.0, 10.0, 3.0, 20.0]
    figure = drawn("speedup", table, ["system", "seed"], hue="system")
    assert heights(figure.axes[0]) == {"NeuPIMs": pytest.approx([2.5])}  # not 23 / 11
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["NeuPIMs", "NPU-only = 1"]


def test_speedup_of_what_should_be_low_and_its_geometric_mean() -> None:
    table = table_of(system=["npu_only", "neupims"], batch=[1, 2]).assign(cycles=[10.0, 80.0, 5.0, 10.0])
    options = {"hue": "system", "metric": "cycles", "better": "lower", "mean": True}
    (panel,) = drawn("speedup", table, ["system", "batch"], **options).axes
    assert heights(panel) == {"NeuPIMs": pytest.approx([2, 8, 4])}
    table.loc[0, "cycles"] = math.nan
    (panel,) = drawn("speedup", table, ["system", "batch"], **options).axes
    assert texts(panel) == ["n/a", "8.00", "n/a"]


def test_ablation_says_what_each_step_adds() -> None:
    table = table_of(batch=[64], step=["first", "second", "third"]).assign(published=[1.0, 1.4, 1.5])
    table[SPEED] = [100.0, 150.0, 120.0]
    figure = drawn("ablation", table, ["batch", "step"], steps="step", reference="published")
    (panel,) = figure.axes
    assert [height for bar in heights(panel).values() for height in bar] == pytest.approx([1, 1.5, 1.2])
    assert texts(panel) == ["1.00", "1.50", "+50%", "1.20", "-20%"]
    assert panel.get_ylabel() == "Throughput (× first)"


def test_utilization_is_a_bar_per_column_with_its_own_reference() -> None:
    table = made_up_table().iloc[::6].assign(published=0.25)
    references = {"utilization.pim": "published"}
    (panel,) = drawn("utilization", table, ["system"], references=references).axes
    assert heights(panel)["PIM utilization"] == pytest.approx([2, 14])
    (markers,) = [line for line in panel.lines if line.get_marker() == "D"]
    assert list(markers.get_ydata()) == [25, 25]
    assert panel.get_ylabel() == "Utilization (%)"


def test_stages_add_up_and_missing_ones_count_as_nothing() -> None:
    table = pd.DataFrame({"x": ["a", "b"], "stages.A": [1e3, math.nan], "stages.B": [3e3, 2e3]})
    (panel,) = drawn("stage_breakdown", table, ["x"]).axes
    assert [bar.get_width() for bar in panel.patches] == [1, 0, 3, 2]
    assert [bar.get_x() for bar in panel.patches] == [0, 0, 1, 0]
    assert panel.get_xlabel() == "Length of stages (1000 cycles)"
    (panel,) = drawn("stage_breakdown", table, ["x"], share=True, direction="vertical").axes
    assert [bar.get_height() for bar in panel.patches] == [25, 0, 75, 100]
    table.loc[1, ["stages.A", "stages.B"]] = math.nan
    assert "n/a" in texts(drawn("stage_breakdown", table, ["x"]).axes[0])


def test_a_stage_that_one_of_the_seeds_lacks_is_0_there_but_a_failed_seed_leaves_no_bar() -> None:
    table = pd.DataFrame({"seed": [0, 1], "stages.A": [1e3, 1e3], "stages.B": [4e3, math.nan]})
    assert [bar.get_width() for bar in drawn("stage_breakdown", table, ["seed"]).axes[0].patches] == [1, 2]
    table.loc[1, "stages.A"] = math.nan
    assert texts(drawn("stage_breakdown", table, ["seed"]).axes[0]) == ["n/a"]


def test_the_largest_columns_stay_and_the_rest_is_one() -> None:
    table = pd.DataFrame({"x": ["a"], "stages.A": [1e3], "stages.B": [5e3], "stages.C": [2e3], "stages.D": [4e3]})
    figure = drawn("stage_breakdown", table, ["x"], largest=2)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["B", "D", "Other"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [5, 4, 3]


# --- roofline ---


def test_an_operator_stands_at_its_intensity_and_rate() -> None:
    table = made_up_table().iloc[:1]
    figure = drawn("roofline", table, ["system", "setting", "workload.batch_size"])
    points = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    placed = sorted((float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in points)
    row = table.iloc[0]
    clock = row["cycles"] / row["seconds"]
    expected = [
        (row[f"operator_flops.{n}"] / 1e6, row[f"operator_flops.{n}"] * clock / row[f"operator_busy_cycles.{n}"] / 1e9)
        for n in ("qkv", "gelu", "logits")
    ]
    assert np.array(placed) == pytest.approx(np.array(sorted(expected)))
    roofs = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 1]
    assert sorted(max(line.get_ydata()) for line in roofs) == pytest.approx([1e3, 1e4, 1e5])


def test_names_of_operators_do_not_overlap_and_those_without_traffic_are_told() -> None:
    table = made_up_table().iloc[:1].copy()
    for name in [f"operator_{n}" for n in range(12)]:
        table = table.assign(
            **{f"operator_{key}.{name}": 1e6 for key in ("flops", "bytes", "busy_cycles")},
            **{f"operator_unit.{name}": "systolic arrays"},
        )
    table["operator_bytes.gelu"] = 0.0
    figure = drawn("roofline", table, ["system"])
    (panel,) = figure.axes
    named = [text for text in panel.texts if text.get_text().startswith("operator_")]
    boxes = [text.get_window_extent() for text in named]
    assert len(boxes) == 12
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert "no traffic: gelu" in texts(panel)


# --- pareto ---


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=15),
    st.sampled_from(list(itertools.product(("higher", "lower"), repeat=2))),
)
def test_the_front_is_what_no_other_point_beats(points: list[tuple[int, int]], better: tuple[str, str]) -> None:
    signs = [1 if word == "higher" else -1 for word in better]

    def beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
        gains = [sign * (x - y) for sign, x, y in zip(signs, a, b, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    xs, ys = (np.array(values, dtype=float) for values in zip(*points, strict=True))
    expected = [not any(beats(other, point) for other in points) for point in points]
    assert not_beaten(xs, ys, better).tolist() == expected


def test_pareto_points_are_named_where_they_are_few() -> None:
    table = table_of(system=["npu_pim", "neupims"], batch=[64, 256]).assign(average_power_w=[1.0, 2.0, 3.0, math.nan])
    (panel,) = drawn("pareto", table, ["system", "batch"], x="average_power_w", hue="system").axes
    assert [text for text in texts(panel) if text] == ["n/a: 1", "64", "256", "64"]
    assert panel.get_xlabel() == "Average power (W)\nlower is better"


# --- tornado ---


def tornado_table(**changes: float) -> pd.DataFrame:
    values = {"base": 1000.0, "clock: low": 900.0, "clock: high": 1050.0, "size: low": 700.0, "size: high": 1000.0}
    values |= {"no refresh": 1020.0} | changes
    return pd.DataFrame({"setting": list(values), SPEED: list(values.values())})


def test_the_parameter_with_the_largest_change_is_on_top() -> None:
    (panel,) = drawn("tornado", tornado_table(), ["setting"]).axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["size", "clock", "no refresh"]
    assert [bar.get_width() for bar in panel.patches] == pytest.approx([-30, 0, -10, 5, 2])
    assert texts(panel) == ["low: -30.0 %", "high: 0 %", "low: -10.0 %", "high: +5.00 %", "+2.00 %"]
    assert panel.get_xlabel() == "Change of throughput (%)\nbase 1.00 (1000 tokens/s)"


def test_changes_in_the_unit_of_the_metric_and_missing_ones() -> None:
    (panel,) = drawn("tornado", tornado_table(**{"clock: high": math.nan}), ["setting"], absolute=True).axes
    assert [bar.get_width() for bar in panel.patches] == pytest.approx([-0.3, 0, -0.1, 0, 0.02])
    assert "high: n/a" in texts(panel)


# --- lines ---


def test_a_line_over_seeds_is_their_mean_in_a_band() -> None:
    table = table_of(devices=[1, 2], seed=[0, 1, 2])
    figure = drawn("lines", table, ["devices", "seed"], x="devices", y=SPEED)
    (panel,) = figure.axes
    assert [list(line.get_ydata()) for line in panel.lines] == [[2, 5]]
    (band,) = panel.collections
    at_one = [y for x, y in band.get_paths()[0].vertices if x == 1]
    assert (max(at_one) - min(at_one)) / 2 == pytest.approx(student_t_975(2) / math.sqrt(3))


def test_an_ideal_line_grows_as_x_does() -> None:
    table = table_of(devices=[2, 4, 8])
    (panel,) = drawn("lines", table, ["devices"], x="devices", y=SPEED, ideal=True).axes
    assert [list(line.get_ydata()) for line in panel.lines] == [[1, 2, 4], [1, 2, 3]]


# --- what is refused ---


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        (
            "throughput_bars",
            {"baseline": "npu_pim"},
            "plot.baseline='npu_pim': is a value of plot.hue, which is missing",
        ),
        ("throughput_bars", {"log": 1}, "plot.log=1: must be true or false"),
        ("throughput_bars", {"reference": "publisht"}, "plot.reference='publisht': no such column"),
        ("throughput_bars", {"metric": "stages.G"}, r"allowed: .*energy_joules\.\*|did you mean stages"),
        ("speedup", {}, "plot.hue is missing"),
        ("speedup", {"hue": "system", "baseline": "gpu"}, "plot.baseline='gpu': no such value of system"),
        ("speedup", {"hue": "system", "better": "faster"}, "plot.better='faster'"),
        ("ablation", {}, "plot.steps is missing"),
        ("utilization", {"metrics": []}, "plot.metrics: needs a column"),
        ("utilization", {"metrics": ["cycles", "utilization.npu"]}, r"need one unit.*cycles \(million\)"),
        ("utilization", {"references": {"utilization.gpu": "cycles"}}, "plot.references.utilization.gpu: not one of"),
        ("stage_breakdown", {"columns": "stage."}, r"plot.columns.0='stage.': no column.*mean stages\.\?"),
        ("stage_breakdown", {"columns": ["negative"]}, "negative has a negative number"),
        ("stage_breakdown", {"largest": 0}, "plot.largest=0: must be a whole number from 1 up"),
        ("stage_breakdown", {"direction": "up"}, "plot.direction='up'"),
        ("pareto", {}, "plot.x is missing"),
        ("pareto", {"x": "cycles", "better": "lower"}, "plot.better='lower': needs which is better"),
        ("pareto", {"x": "cycles", "names": "sistem"}, "plot.names='sistem'.*mean system"),
        ("tornado", {"settings": "system"}, "plot.base='base': no such value of system"),
        ("tornado", {"base": "nothing"}, "plot.settings is missing"),
        ("lines", {"x": "workload.batch_size", "y": "cycles"}, "several points at one x; use system and setting"),
        ("lines", {"x": "workload.batch_size", "y": "cycles", "ideal": "yes"}, "plot.ideal='yes'"),
    ],
)
def test_bad_options_are_one_line(kind: str, options: dict[str, Any], told: str) -> None:
    table = made_up_table().assign(negative=-1.0)
    with pytest.raises(InputError, match=told) as refused:
        drawn(kind, table, ["system", "setting", "workload.batch_size"], **options)
    assert "\n" not in str(refused.value)


def test_three_settings_of_a_parameter_do_not_fit_on_a_line() -> None:
    table = tornado_table(**{"size: middle": 1.0})
    with pytest.raises(InputError, match=r"size has 3 settings \(low, high, middle\)"):
        drawn("tornado", table, ["setting"])


def test_too_many_panels_are_refused_with_the_way_out() -> None:
    table = table_of(a=list(range(5)), b=list(range(6)), x=[1, 2])
    with pytest.raises(InputError, match=r"30 panels.*choose points with plot\.where"):
        drawn("throughput_bars", table, ["a", "b", "x"])


# --- labels ---


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ("throughput_ci95_per_s", "95 % half-width of throughput (1/s)"),
        ("latency_cycles", "Latency (1000 cycles)"),
        ("background.queries_per_s", "Background searches (queries/s)"),
        ("operator_cycles.kv_append", "Time of kv append (1000 cycles)"),
        ("operator_flops.qkv", "Work of qkv (GFLOP)"),
        ("pipeline.iteration_cycles", "Time of an iteration (1000 cycles)"),
        ("energy_joules.npu_mac", "Energy NPU MAC (mJ)"),
        ("utilization.pim_busy", "Utilization of PIM busy (%)"),
    ],
)
def test_columns_of_results_have_names_and_units(column: str, shown: str) -> None:
    assert str(Labels().column(column)) == shown


def test_several_columns_are_called_by_their_family_or_by_common_words() -> None:
    labels = Labels()
    assert str(labels.together(["stages.A", "stages.B"])) == "Length of stages (1000 cycles)"
    assert labels.together(["NPU share", "PIM share"]).name == "Share"
    assert labels.together(["a", "b"]).name == "Value"

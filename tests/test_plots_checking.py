"""Plots of a sweep are checked before anything runs, drawn as the file says today, and say what is missing."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
from cli_cases import Captured, run
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from neupims_sim.config import Config
from neupims_sim.config.files import available
from neupims_sim.errors import InputError
from neupims_sim.plots import PLOTS, draw
from neupims_sim.plots.automatic import with_places
from neupims_sim.plots.style import STYLE
from neupims_sim.sweeps import Labels, load_results, load_whole_results, read_sweep, sweep

SWEEP = """
name: stored
grid:
  preset: [physical, asplos24]
  system: [npu_only, npu_pim, neupims]
  workload.batch_size: [64, 128, 256]
metrics: [throughput_tokens_per_s, cycles]
"""


def fake(config: Config) -> dict[str, Any]:
    if (config.system, config.workload.batch_size) == ("npu_pim", 128):
        raise InputError("does not fit")
    speed = {"npu_only": 1, "npu_pim": 2, "neupims": 3}[config.system]
    return {
        "throughput_tokens_per_s": 100.0 * speed * config.workload.batch_size,
        "cycles": 600 // speed,
        "stages": {"A": 10 * speed, "B": 20},
        "average_power_w": 10.0 + speed,
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("s.yaml").write_text(SWEEP)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def state(plot: str) -> None:
    Path("s.yaml").write_text(f"{SWEEP}plot: {plot}\n")


# --- before anything runs ---


@pytest.mark.parametrize(
    ("plot", "told"),
    [
        ("{kind: thruput_bars}", "unknown plot 'thruput_bars'.*mean throughput_bars?"),
        ("{kind: [lines]}", "unknown plot"),
        ("{hue: sistem}", r"plot\.hue='sistem': no such axis.*mean system"),
        ("{bazeline: npu_pim}", r"plot\.bazeline='npu_pim': unknown option.*mean baseline"),
        ("{hue: system, baseline: gpu}", r"plot\.baseline='gpu': no such value of system"),
        ("{metric: cycels}", r"metric='cycels': no such column.*mean cycles"),
        ("{log: 3}", r"plot\.log=3: must be true or false"),
        ("{where: {workload.batch_size: 65}}", r"plot\.where\.workload\.batch_size=65: no such value"),
        ("{where: {batch: 64}}", r"plot\.where\.batch='batch': no such column"),
        ("{kind: lines, y: cycles, hue: system}", r"a line would have several points at one x; use preset"),
        ("{kind: lines, x: system, y: cycles}", r"plot\.x='system': no number"),
        ("{kind: speedup}", r"plot\.hue is missing"),
        ("{kind: pareto, x: averag_power_w}", r"plot\.x='averag_power_w': no such column.*mean average_power_w"),
        ("{kind: stage_breakdown, columns: stagess.}", "no column with numbers begins like this.*mean stages"),
        ("[{hue: system}, {hue: sistem}]", r"plot\.1\.hue='sistem'"),
        ("{kind: 'mine:bars'}", r"plot\.kind='mine:bars' cannot be imported"),
        ("{kind: 'json:dumps'}", r"plot\.kind='json:dumps'.*it must take \(table, options\)"),
    ],
)
def test_plot_that_cannot_be_drawn_is_refused_when_the_sweep_is_read(folder: Path, plot: str, told: str) -> None:
    state(plot)
    with pytest.raises(InputError, match=rf"^s\.yaml: .*{told}") as refused:
        read_sweep("s.yaml")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 700
    with pytest.raises(InputError, match=told):
        sweep("s.yaml", "out", 1)
    assert not Path("out").exists()


def test_refused_plot_is_exit_code_2_of_the_command(folder: Path, capsys: Captured) -> None:
    state("{hue: sistem}")
    code, out, err = run(capsys, "sweep", "s.yaml", "--out", "out")
    assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("    raise ValueError('a bug')", r"plot\.kind='mine:bars': ValueError: a bug \(mine\.py, line 4\)"),
        ("    return table['cycels']", r"KeyError: 'cycels' \(mine\.py, line 4\)"),
        ("    return 3", "returned int, not a Figure"),
        ("    return numbers(table, 'cycels', 'plot.y')", r"plot\.y='cycels': no such column"),
    ],
)
def test_plot_of_ones_own_that_fails_is_told_where_before_anything_runs(folder: Path, body: str, told: str) -> None:
    Path("mine.py").write_text(
        "from neupims_sim.plots.options import numbers\nfrom matplotlib.figure import Figure\ndef bars(table, options):\n"
        + body
    )
    state("{kind: 'mine:bars'}")
    with pytest.raises(InputError, match=told):
        read_sweep("s.yaml")


@pytest.mark.parametrize("body", ["table['operator_cycles.somewhere']", "numbers(table, 'energy_joules.x', 'y')"])
def test_column_that_only_some_results_have_is_not_missed_before_there_are_any(folder: Path, body: str) -> None:
    Path("mine.py").write_text(
        f"from neupims_sim.plots.options import numbers\ndef bars(table, options):\n    return {body}"
    )
    state("[{kind: 'mine:bars'}, {metric: operator_cycles.qkv}, {where: {commands.RD: 7}}]")
    read_sweep("s.yaml")


def test_all_shipped_sweeps_have_plots_that_can_be_drawn() -> None:
    for file in [*available("sweeps").values(), *(path / "sweep.yaml" for path in available("experiments").values())]:
        assert read_sweep(file).plot


def test_plot_of_a_very_large_sweep_is_checked_in_a_part_that_has_what_it_names(folder: Path) -> None:
    text = SWEEP.replace("[64, 128, 256]", "{range: [1, 9999, 1]}")
    for plot, told in (
        ("{where: {workload.batch_size: 9000}}", None),
        ("{where: {workload.batch_size: 10000}}", "no such value"),
    ):
        Path("s.yaml").write_text(f"{text}plot: {plot}\n")
        if told is None:
            read_sweep("s.yaml")
            continue
        with pytest.raises(InputError, match=told):
            read_sweep("s.yaml")


# --- the file of today ---


def svg(**options: Any) -> str:
    return draw("out", output="figure.svg", **options)[0].read_text()


def test_edits_of_the_sweep_file_take_effect_in_plots_and_tables(folder: Path, capsys: Captured) -> None:
    state("{kind: throughput_bars, hue: system}")
    sweep("s.yaml", "out", 1, fake)
    Path("s.yaml").write_text(
        f"{SWEEP}title: Edited\nnames: {{system: {{neupims: Ours}}}}\nderive: {{kilo: cycles / 1000}}\n"
        "plot: {kind: lines, y: kilo, hue: system, panels: preset}\n"
    )
    text = svg()
    assert "Edited" in text
    assert "Ours" in text
    assert "kilo" in text
    assert "Ours" in run(capsys, "results", "out")[1]
    Path("s.yaml").write_text(f"{SWEEP}plot: {{kind: throughput_bars, hue: sistem}}\n")
    code, _, err = run(capsys, "plot", "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "mean system" in err


def test_edits_of_the_copy_in_the_folder_take_effect_too(folder: Path) -> None:
    sweep("s.yaml", "out", 1, fake)
    Path("out/sweep.yaml").write_text(f"{SWEEP}title: Edited copy\n")
    assert "Edited copy" in svg(kind="throughput_bars")


def test_results_whose_sweep_file_is_gone_or_of_other_axes_or_another_sweep_keep_their_own(folder: Path) -> None:
    sweep("s.yaml", "out", 1, fake)
    definition, table = load_results("out")
    for text in (SWEEP.replace("  preset: [physical, asplos24]\n", ""), SWEEP.replace("stored", "other")):
        Path("s.yaml").write_text(text + "title: Not this\n")
        assert load_results("out")[0] == definition
    Path("s.yaml").unlink()
    assert load_results("out")[0] == definition
    pd.testing.assert_frame_equal(load_results("out")[1], table)


# --- the command ---


def test_kind_that_the_file_does_not_state_has_a_colour_per_system_not_a_panel(folder: Path) -> None:
    sweep("s.yaml", "out", 1, fake)
    definition, table = load_whole_results("out")
    bars = with_places("throughput_bars", {}, table, definition)
    assert bars == {"x": "workload.batch_size", "hue": "system"}
    assert with_places("lines", {"y": "cycles"}, table, definition) == bars | {"y": "cycles", "panels": "preset"}
    assert with_places("throughput_bars", {"x": "system"}, table, definition) == {"x": "system", "hue": "preset"}
    assert with_places("throughput_bars", {"hue": None}, table, definition) == {"x": "workload.batch_size", "hue": None}
    assert with_places("throughput_bars", {}, table[table["workload.batch_size"] == 64], definition) == {
        "x": "preset",
        "hue": "system",
    }
    for kind in PLOTS:
        if kind not in ("roofline", "ablation", "tornado", "pareto"):
            draw("out", kind, output="figure.png", **({"metric": "stages.A"} if kind == "utilization" else {}))


def test_options_of_the_command_win_over_the_file_and_make_room(folder: Path, capsys: Captured) -> None:
    state("{kind: throughput_bars, x: workload.batch_size, hue: system, baseline: npu_pim, title: T}")
    sweep("s.yaml", "out", 1, fake)
    code, _, err = run(capsys, "plot", "out", "--hue", "preset", "--x", "system", "--y", "cycles", "-o", "a.svg")
    assert (code, err) == (0, "")
    text = Path("a.svg").read_text()
    for shown in ("Cycles (million)", "System", "Batch size: 64", "physical"):
        assert shown in text
    assert "relative to" not in text
    assert run(capsys, "plot", "out", "--panels", "system", "-o", "b.svg")[0] == 0
    assert "System: NeuPIMs" in Path("b.svg").read_text()
    for options, told in (
        (["--hue", "sistem"], "--hue='sistem': no such axis"),
        (["--x", "sistem"], "--x='sistem': no such axis"),
        (["--kind", "roofline", "--hue", "system"], "--hue='system': unknown option"),
        (["--y", "nothing"], "no such column"),
    ):
        code, out, err = run(capsys, "plot", "out", *options)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert told in err
        assert len(err) < 700


# --- what is missing ---


def figure(kind: str, table: pd.DataFrame, axes: list[str], **options: Any) -> Figure:
    with mpl.rc_context(STYLE):
        drawn = PLOTS[kind](table, {"axes": axes, "labels": Labels(axes), "title": ""} | options)
        drawn.draw_without_rendering()
    return drawn


def crosses(panel: Any) -> list[tuple[float, str]]:
    return [(line.get_xdata()[0], line.get_color()) for line in panel.lines if line.get_marker() == "x"]


def test_lines_mark_every_number_that_is_missing_in_the_colour_of_its_line() -> None:
    table = pd.DataFrame(
        {"hue": ["a"] * 4 + ["b"] * 4, "x": [1, 2, 3, 4] * 2, "y": [1, math.nan, 3, 4, 5, math.nan, 7, math.nan]}
    )
    drawn = figure("lines", table, ["hue", "x"], x="x", y="y", hue="hue")
    (panel,) = drawn.axes
    first, second = (line.get_color() for line in panel.lines[:2])
    assert crosses(panel) == [(2, first), (2, second), (4, second)]
    heights = [line.get_ydata()[0] for line in panel.lines if line.get_marker() == "x"]
    assert heights[0] < heights[1], "two crosses at one x stand above each other"
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["a", "b", "no number (failed or not run)"]
    complete = figure("lines", table.assign(y=1.0), ["hue", "x"], x="x", y="y", hue="hue")
    assert crosses(complete.axes[0]) == []
    assert "no number (failed or not run)" not in [text.get_text() for text in complete.legends[0].get_texts()]


def test_points_that_have_not_run_yet_are_missing_not_left_out(folder: Path) -> None:
    def interrupted(config: Config) -> dict[str, Any]:
        if config.system == "neupims" and config.preset == "physical" and config.workload.batch_size == 128:
            raise KeyboardInterrupt
        return fake(config)

    with pytest.raises(KeyboardInterrupt):
        sweep("s.yaml", "out", 1, interrupted)
    definition, table = load_whole_results("out")
    assert list(table["status"]) == [*["ok"] * 4, "failed", *["ok"] * 2, *["pending"] * 11]
    assert list(table["workload.batch_size"]) == [64, 128, 256] * 6
    physical = table[table["preset"] == "physical"]
    (panel,) = figure("lines", physical, definition.axes, x="workload.batch_size", y="cycles", hue="system").axes
    assert [x for x, _ in crosses(panel)] == [128, 128, 256]
    assert len(load_results("out")[1]) == 7, "points.csv has finished points only"


@pytest.mark.parametrize("kind", [kind for kind in PLOTS if kind != "roofline"])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_number_that_is_none_is_missing_in_every_plot(folder: Path, kind: str, bad: float) -> None:
    def not_finite(config: Config) -> dict[str, Any]:
        return fake(config) | (
            {"throughput_tokens_per_s": bad, "cycles": bad} if config.workload.batch_size == 64 else {}
        )

    Path("s.yaml").write_text(SWEEP.replace("npu_only, npu_pim, neupims", "npu_only, neupims"))
    sweep("s.yaml", "out", 1, not_finite)
    options: dict[str, dict[str, Any]] = {
        "ablation": {"steps": "system"},
        "pareto": {"x": "average_power_w"},
        "tornado": {"settings": "system", "base": "neupims"},
        "utilization": {"metric": "cycles"},
    }
    assert draw("out", kind, output="figure.png", **options.get(kind, {}))[0].stat().st_size > 0
    assert set(load_results("out")[1]["status"]) == {"ok"}


def test_two_values_of_one_name_are_refused_before_one_hides_the_other(folder: Path) -> None:
    Path("s.yaml").write_text(f"{SWEEP}names: {{system: {{npu_pim: Same, neupims: Same}}}}\nplot: {{hue: system}}\n")
    with pytest.raises(InputError, match=r"names\.system: 'npu_pim' and 'neupims' are both called 'Same'"):
        read_sweep("s.yaml")


def test_names_of_any_length_and_alphabet_fit_into_a_figure(folder: Path, capsys: Captured) -> None:
    long, wide = "long word " * 300, "𝕏😀中文" * 50
    Path("s.yaml").write_text(
        SWEEP
        + f"title: '{long}{wide}'\nnames: {{system: {{npu_only: '{long}', npu_pim: '{wide}', neupims: 'a|b<c>$d$'}}}}\n"
        "plot:\n  - {kind: throughput_bars, hue: system}\n  - {kind: throughput_bars, x: system, hue: preset}\n"
        "  - {kind: lines, y: cycles, hue: system, panels: preset}\n  - {kind: stage_breakdown, x: system}\n"
    )
    sweep("s.yaml", "out", 1, fake)
    code, out, err = run(capsys, "plot", "out", "-o", "a.png")
    assert (code, err) == (0, "")
    for file in out.splitlines():
        height, width = mpl.image.imread(file).shape[:2]
        assert max(height, width) < 6000


def test_bars_of_a_failed_point_say_so(folder: Path) -> None:
    sweep("s.yaml", "out", 1, fake)
    _, table = load_whole_results("out")
    table = table[table["preset"] == "physical"]
    (panel,) = figure("throughput_bars", table, ["system", "workload.batch_size"], hue="system").axes
    assert [text.get_text() for text in panel.texts].count("n/a") == 1
    assert sum(isinstance(container, BarContainer) for container in panel.containers) == 3


def test_full_disk_and_a_folder_that_nobody_may_write_are_one_line_and_leave_what_was_there(
    folder: Path, capsys: Captured
) -> None:
    sweep("s.yaml", "out", 1, fake)
    assert run(capsys, "plot", "out", "--kind", "throughput_bars")[0] == 0
    before = {path: path.read_bytes() for path in Path("out").glob("throughput*")}
    for target in ("out/throughput_bars.pdf", "out/throughput_bars.png", "out/throughput_bars.svg"):
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
        try:
            code, out, err = run(capsys, "plot", "out", "--kind", "throughput_bars", "-o", target)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert (code, out, err) == (2, "", f"error: {target}: cannot be written: File too large\n")
    assert {path: path.read_bytes() for path in Path("out").glob("throughput*")} == before
    assert not list(Path("out").glob(".*"))
    code, _, err = run(capsys, "plot", "out", "-o", "/proc/figure.pdf")
    assert (code, err.count("\n")) == (2, 1)


def test_many_entries_of_a_legend_have_room(folder: Path, capsys: Captured) -> None:
    stages = {f"stages.stage {n}": [float(n)] for n in range(1, 25)}
    table = pd.DataFrame({"system": ["neupims"], **stages})
    figures = [figure("stage_breakdown", table, ["system"], title=title) for title in ("", "A title " * 20)]
    for drawn in figures:
        assert drawn.axes[0].get_position().height * drawn.get_figheight() > 0.5

"""Plots: what is drawn, what is written, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.container import BarContainer

from neupims_sim.cli import main
from neupims_sim.config import Config
from neupims_sim.errors import InputError
from neupims_sim.plots import PLOTS, draw
from neupims_sim.plots.style import STYLE
from neupims_sim.plots.text import plain_number, short_number
from neupims_sim.sweeps import Labels, sweep
from neupims_sim.sweeps.labels import LabelSettings

SWEEP = """
name: bars
grid:
  preset: [physical, asplos24]
  system: [npu_only, npu_pim, neupims]
  workload.batch_size: [64, 256]
metrics: [throughput_tokens_per_s, block_cycles]
plot: {kind: throughput_bars, x: workload.batch_size, hue: system, baseline: npu_pim}
"""


def fake(config: Config) -> dict[str, Any]:
    if (config.system, config.preset, config.workload.batch_size) == ("npu_pim", "asplos24", 256):
        raise InputError("does not fit")
    speed = {"npu_only": 1, "npu_pim": 2, "neupims": 3}[config.system]
    return {"throughput_tokens_per_s": 100.0 * speed * config.workload.batch_size, "block_cycles": 600 // speed}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "bars.yaml").write_text(SWEEP)
    sweep(tmp_path / "bars.yaml", tmp_path / "results", workers=1, run_point=fake)
    return tmp_path / "results"


def throughput_bars(directory: Path, **options: Any) -> Any:
    table = pd.read_csv(directory / "points.csv")
    axes = ["preset", "system", "workload.batch_size"]
    with mpl.rc_context(STYLE):
        fixed = {"x": axes[2], "hue": "system", "axes": axes, "labels": Labels(axes), "title": ""}
        return PLOTS["throughput_bars"](table, fixed | options)


def test_every_bar_is_a_point_in_thousand_tokens_per_second(directory: Path) -> None:
    panels = throughput_bars(directory).axes
    assert [panel.get_title() for panel in panels] == ["Preset: physical", "Preset: asplos24"]
    assert panels[0].get_ylabel() == "Throughput (1000 tokens/s)"
    bars = {
        str(c.get_label()): [bar.get_height() for bar in c] for c in panels[0].containers if isinstance(c, BarContainer)
    }
    assert bars == {
        "NPU-only": pytest.approx([6.4, 25.6]),
        "NPU+PIM": pytest.approx([12.8, 51.2]),
        "NeuPIMs": pytest.approx([19.2, 76.8]),
    }


def test_failed_point_is_marked_and_ratios_are_relative_to_the_baseline(directory: Path) -> None:
    physical, asplos24 = (
        [text.get_text() for text in p.texts] for p in throughput_bars(directory, baseline="npu_pim").axes
    )
    assert physical.count("1.50×") == physical.count("0.50×") == 2
    assert "n/a" not in physical
    assert asplos24.count("1.50×") == asplos24.count("n/a") == 1


def test_pdf_and_png_are_written_and_repeat_to_the_byte(directory: Path) -> None:
    files = draw(directory)
    assert [file.name for file in files] == ["throughput_bars.pdf", "throughput_bars.png"]
    contents = [file.read_bytes() for file in files]
    assert contents[0].startswith(b"%PDF")
    assert contents[1].startswith(b"\x89PNG")
    assert [file.read_bytes() for file in draw(directory)] == contents


def test_command_prints_the_files(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "figure.svg"
    with pytest.raises(SystemExit) as stop:
        main(["plot", str(directory), "--metric", "block_cycles", "-o", str(target)])
    assert not stop.value.code
    assert capsys.readouterr().out == f"{target}\n"
    assert "Block time (1000 cycles)" in target.read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--kind", "thruput_bars"],
            "unknown plot 'thruput_bars'; allowed: ablation, lines, pareto, roofline, speedup, stage_breakdown, "
            "throughput_bars, tornado, utilization; did you mean throughput_bars?",
        ),
        (["--metric", "block_cycle"], "did you mean block_cycles?"),
        (["--metric", "system"], "no number"),
        (["-o", "figure.gif"], "allowed: .pdf, .png, .svg"),
        (["../nowhere", "-o", "figure.pdf"], "one file"),
    ],
)
def test_bad_request_is_one_line(
    directory: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["plot", str(directory), *arguments])
    output = capsys.readouterr()
    assert (stop.value.code, output.out, output.err.count("\n")) == (2, "", 1)
    assert told in output.err


def test_missing_folder_is_told_with_the_nearest_name(directory: Path) -> None:
    with pytest.raises(InputError, match=r"not the results folder.*did you mean results\?"):
        draw(directory.with_name("result"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"hue": "sistem"}, "plot.hue='sistem'.*mean system"),
        ({"bazeline": "npu_pim"}, "plot.bazeline='npu_pim': unknown option.*mean baseline"),
        ({"baseline": "gpu"}, "plot.baseline='gpu': no such value of system"),
    ],
)
def test_misspelt_option_is_refused(directory: Path, options: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        throughput_bars(directory, **options)


def test_bars_of_a_huge_ratio_are_short_numbers_on_a_logarithmic_scale(directory: Path) -> None:
    table = pd.DataFrame({"workload.batch_size": [1] * 4, "system": list("abcd"), "x": [0.0004, 1, 64865, 3.2e12]})
    axes = ["system", "workload.batch_size"]
    options = {"hue": "system", "metric": "x", "baseline": "b", "log": True, "title": ""}
    with mpl.rc_context(STYLE):
        (panel,) = PLOTS["throughput_bars"](table, {"axes": axes, "labels": Labels(axes), **options}).axes
    assert panel.get_yscale() == "log"
    assert panel.get_ylim()[0] == pytest.approx(1e-4)
    assert [text.get_text() for text in panel.texts] == [
        *("4e-4", "4e-4×", "1.00", "64865", "64865×", "3.2e12", "3.2e12×")
    ]


@pytest.mark.parametrize(
    ("value", "plain", "short"),
    [
        (0, "0", "0"),
        (1, "1", "1.00"),
        (0.25, "0.25", "0.25"),
        (256, "256", "256"),
        (4096, "4,096", "4096"),
        (-12.5, "-12.5", "-12.5"),
        (0.0125, "0.0125", "0.013"),
        (2.5e9, "2.5e9", "2.5e9"),
        (3e-7, "3e-7", "3e-7"),
        (0.1 + 0.2, "0.3", "0.30"),
        (100001.5, "100,001.5", "1e5"),
    ],
)
def test_numbers_in_pictures_are_plain_and_short(value: float, plain: str, short: str) -> None:
    assert (plain_number(value), short_number(value)) == (plain, short)


# --- lines ---

AXES = ["pooling", "unit", "workload.batch_size"]


def line_table(**columns: Any) -> pd.DataFrame:
    """Two poolings on two units at three batch sizes; ``cycles`` counts the points up."""
    rows = [(pooling, unit, batch) for pooling in ("gem", "ggem") for unit in ("vector", "pim") for batch in (1, 4, 16)]
    table = pd.DataFrame(rows, columns=AXES)
    return table.assign(**{"cycles": [float(n) for n in range(1, 13)]} | columns)


def line_figure(table: pd.DataFrame, **options: Any) -> Any:
    fixed = {"axes": AXES, "labels": Labels(AXES, {"cycles": LabelSettings(factor=10)}), "title": ""}
    with mpl.rc_context(STYLE):
        figure = PLOTS["lines"](table, fixed | {"y": "cycles", "hue": "pooling", "style": "unit"} | options)
        figure.draw_without_rendering()
    return figure


def drawn(panel: Any) -> list[list[float]]:
    return [list(line.get_ydata()) for line in panel.lines]


def test_every_hue_and_style_is_a_line_in_the_unit_of_the_label() -> None:
    (panel,) = line_figure(line_table()).axes
    assert drawn(panel) == [[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]]
    assert [list(line.get_xdata()) for line in panel.lines] == [[1, 4, 16]] * 4
    first, second, third, _ = panel.lines
    assert first.get_color() == second.get_color() != third.get_color()
    assert first.get_linestyle() == third.get_linestyle() != second.get_linestyle()
    assert panel.get_xlabel() == "Batch size"
    assert panel.get_ylabel() == "Cycles (million)"


def test_points_are_joined_from_small_x_to_large() -> None:
    (panel,) = line_figure(line_table().iloc[::-1], style="unit").axes
    assert sorted(drawn(panel)) == [[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]]


def test_panels_are_a_column_per_value_and_a_row_per_y() -> None:
    figure = line_figure(line_table(share=0.5), style=None, panels="unit", y=["cycles", "share"])
    panels = figure.axes
    assert [panel.get_title() for panel in panels] == ["Unit: vector", "Unit: pim", "", ""]
    assert [panel.get_ylabel() for panel in panels] == ["Cycles (million)", "", "share", ""]
    assert drawn(panels[1]) == [[40, 50, 60], [100, 110, 120]]


@pytest.mark.parametrize("log", ["", "x", "y", "xy"])
def test_ticks_are_the_values_of_x_as_plain_numbers(log: str) -> None:
    (panel,) = line_figure(line_table(), log=log).axes
    assert (panel.get_xscale(), panel.get_yscale()) == tuple("log" if axis in log else "linear" for axis in "xy")
    assert [text.get_text() for text in panel.get_xticklabels()] == ["1", "4", "16"]
    assert not panel.get_xticklabels(minor=True)
    assert not any("10^" in text.get_text() for text in panel.get_yticklabels())


def test_ticks_do_not_touch() -> None:
    table = line_table()
    table["workload.batch_size"] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1000]
    figure = line_figure(table)
    boxes = [text.get_window_extent() for text in figure.axes[0].get_xticklabels()]
    assert len(boxes) == 2
    assert boxes[0].x1 < boxes[1].x0


@pytest.mark.parametrize("missing", [float("nan"), 0.0, -1.0])
def test_missing_number_breaks_its_line_and_so_does_one_that_has_no_logarithm(missing: float) -> None:
    table = line_table()
    table.loc[1, "cycles"] = missing
    (panel,) = line_figure(table, log="y").axes
    assert pd.isna(drawn(panel)[0][1])
    assert drawn(panel)[1] == [40, 50, 60]


def test_bound_is_drawn_once_in_the_unit_of_y_and_named() -> None:
    figure = line_figure(line_table(least=[0.5, 0.6, 0.7] * 4), bound="least")
    (panel,) = figure.axes
    assert drawn(panel)[4:] == [[5, 6, 7]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["gem", "ggem", "vector", "pim", "bound"]


def test_bound_is_that_of_the_first_y_unless_a_list_says_otherwise() -> None:
    table = line_table(share=0.5, least=0.1)
    for bound, expected in (("least", [5, 4]), ([None, "least"], [4, 5])):
        panels = line_figure(table, y=["cycles", "share"], bound=bound).axes
        assert [len(panel.lines) for panel in panels] == expected


def test_a_bare_number_in_the_legend_says_of_what_it_is() -> None:
    table = line_table().rename(columns={"pooling": "workload.batch_size", "workload.batch_size": "pooling"})
    table["workload.batch_size"] = [8] * 6 + [9] * 6
    figure = line_figure(table, x="pooling", hue="workload.batch_size")
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == ["Batch size = 8", "Batch size = 9"]


def test_a_line_below_another_has_larger_markers() -> None:
    (panel,) = line_figure(line_table(cycles=1.0)).axes
    below, _, above, _ = panel.lines
    assert below.get_markersize() > above.get_markersize()


def test_nine_hues_look_different() -> None:
    table = pd.DataFrame({"pooling": [f"p{n}" for n in range(9)], "unit": "u", "workload.batch_size": 1, "cycles": 1.0})
    (panel,) = line_figure(table, style=None).axes
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in panel.lines}
    assert len(looks) == 9


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"x": "pooling"}, "plot.x='pooling': no number"),
        ({"x": "batch"}, "plot.x='batch': no such column"),
        ({"y": "cicles"}, "plot.y='cicles'.*mean cycles"),
        ({"y": []}, "plot.y is missing"),
        ({"hue": "cycles"}, "plot.hue='cycles': no such axis"),
        ({"hue": "poling"}, "plot.hue='poling'.*mean pooling"),
        ({"style": None}, "several points at one x; use unit as hue, style or panels"),
        ({"log": "z"}, "plot.log='z': not an option"),
        ({"bound": "least"}, "plot.bound='least'"),
        ({"bound": ["cycles", "cycles"]}, "needs a column or null for each of the 1 of y"),
        ({"colour": "unit"}, "plot.colour='unit': unknown option"),
    ],
)
def test_lines_refuse_what_they_cannot_draw(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        line_figure(line_table(), **options)


def test_x_without_a_logarithm_is_refused() -> None:
    table = line_table()
    table["workload.batch_size"] -= 1
    with pytest.raises(InputError, match=r"plot.log='xy': workload\.batch_size has 0"):
        line_figure(table, log="xy")

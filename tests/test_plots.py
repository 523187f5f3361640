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
from neupims_sim.sweeps import sweep

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
        return PLOTS["throughput_bars"](table, {"x": axes[2], "hue": "system", "axes": axes, "title": "", **options})


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
            "unknown plot 'thruput_bars'; allowed: throughput_bars; did you mean throughput_bars?",
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

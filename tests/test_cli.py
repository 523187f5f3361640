"""The command line: what goes to stdout and stderr, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cli_cases import Captured, run

from neupims_sim.config import Config, load_config


def test_config_show_prints_yaml_that_is_the_configuration(capsys: Captured) -> None:
    code, out, err = run(capsys, "config", "show", "neupims", "--set", "model.layers=2")
    assert (code, err) == (0, "")
    assert Config.model_validate(yaml.safe_load(out)) == load_config("neupims", ["model.layers=2"])


def test_config_show_json_prints_one_object(capsys: Captured) -> None:
    code, out, _ = run(capsys, "config", "show", "neupims", "--json")
    assert code == 0
    assert Config.model_validate(json.loads(out)) == load_config("neupims")


def test_bad_input_is_one_line_on_stderr_and_exit_code_2(capsys: Captured) -> None:
    code, out, err = run(capsys, "config", "show", "neupims", "--set", "model.layerz=2")
    assert (code, out) == (2, "")
    assert err.startswith("error: --set: model.layerz=2: unknown key")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["config", "show"], ["list", "nonsense"], ["config", "show", "a", "--x"]]
)
def test_usage_error_is_exit_code_2(capsys: Captured, arguments: list[str]) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert not out
    assert err


def test_config_check_names_every_file(capsys: Captured, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("include: neupims\n")
    bad.write_text("include: neupims\nsede: 1\n")
    code, out, err = run(capsys, "config", "check", str(good), str(bad), str(tmp_path / "none.yaml"))
    assert code == 2
    assert out == f"{good}: ok\n"
    assert [line.split(": ")[1] for line in err.splitlines()] == [str(bad), str(tmp_path / "none.yaml")]
    assert run(capsys, "config", "check", str(good))[0] == 0


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("systems", "neupims"),
        ("models", "gpt3-7b"),
        ("memory", "hbm2_pim_dual"),
        ("workloads", "sharegpt"),
        ("presets", "asplos24"),
        ("npu", "neupims_npu"),
        ("policies", "scheduling.channel_assignment"),
    ],
)
def test_list_shows_what_can_be_named(capsys: Captured, kind: str, name: str) -> None:
    code, out, _ = run(capsys, "list", kind)
    assert code == 0
    assert name in out
    assert name in json.loads(run(capsys, "list", kind, "--json")[1])


def test_help_is_exit_code_0(capsys: Captured) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "config" in out


def test_a_bug_is_exit_code_1_with_a_traceback() -> None:
    program = (
        "import neupims_sim.cli.config as c\n"
        "def broken(*_): raise RuntimeError('a bug')\n"
        "c.load_config = broken\n"
        "from neupims_sim.cli import main\n"
        "main(['config', 'show', 'neupims'])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "RuntimeError: a bug" in result.stderr


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("controller: {page_policy: close}", "controller.page_policy='close': unknown page policy 'close'; "),
        ("organization: {banks_per_group: 32}", "banks per channel: 128; allowed: at most 64"),
        ("timing: {tREFI: 0}", "the refresh interval is 0 cycles"),
        ("constraints: [[bank, ACT, PRX, tRAS]]", "[bank, ACT, PRX, tRAS]: unknown command 'PRX'; "),
        ("presets: {asplos24: {controller: {refresh: none}}}", "controller.refresh='none': unknown refresh 'none'; "),
        ("speeds: {fast: {timing: {tRP: tRPX}}}", "timing.tRP='tRPX': unknown timing 'tRPX'; "),
    ],
)
def test_config_check_refuses_what_the_memory_engine_would(
    capsys: Captured, tmp_path: Path, table: str, message: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"base: hbm2\nname: mine\n{table}\n")
    code, out, err = run(capsys, "config", "check", str(file))
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {file}")
    assert message in err
    assert err.count("\n") == 1

"""The command line: what goes to stdout and stderr, and the exit codes."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_cases import Captured, run
from typer.main import get_command

from neupims_sim import __version__
from neupims_sim.cli.main import COMMANDS, _summary, app
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
    ("arguments", "message"),
    [
        ("rnu", "no such command 'rnu'; allowed: config, experiment, "),
        ("config shwo", "config: no such command 'shwo'; allowed: check, new, show; did you mean show?"),
        ("run", "run: missing argument 'CONFIG'; usage: neupims-sim run "),
        ("config show", "config show: missing argument 'CONFIG'; usage: "),
        ("list", "list: missing argument "),
        ("run a b", "run: got unexpected extra argument"),
        ("config show a --x", "config show: no such option '--x'; allowed: --help, --json, --set, -h"),
        ("run neupims --tmieline", "did you mean --timeline?"),
        ("run neupims --set", "option '--set' requires an argument"),
        ("run neupims --json=1", "option '--json' does not take a value"),
        ("list polices", "list: KIND 'polices': not an option; allowed: experiments, "),
        ("list polices", "did you mean policies?"),
        ("sweep quickstart --workers many", "'many'"),
        ("sweep quickstart --workers many", "a valid integer"),
        ("npu gemm a 1 1", "'a'"),
        ("memory timeline hbm2 x", "memory timeline: missing option '-o' / '--output'; usage: "),
        ("--versoin", "no such option '--versoin'; allowed: --help, "),
        ("run " + 9000 * "a" + " b", "run: got unexpected extra argument"),
        (9000 * "a", "no such command 'aaa"),
    ],
    ids=lambda value: value[:30],
)
def test_usage_error_is_one_line_with_the_nearest_name_and_exit_code_2(
    capsys: Captured, arguments: str, message: str
) -> None:
    code, out, err = run(capsys, *arguments.split())
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert len(err) < 1000


@pytest.mark.parametrize("group", [[], ["memory"], ["config"]])
def test_a_group_without_a_command_shows_its_help(capsys: Captured, group: list[str]) -> None:
    code, out, err = run(capsys, *group)
    assert code in (0, 2)  # that is Typer's choice
    assert "Commands:" in out + err


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


def test_version(capsys: Captured) -> None:
    assert run(capsys, "--version") == (0, f"neupims-sim {__version__}\n", "")


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a group, and the words that call it."""
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "list_commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.mark.parametrize(
    ("path", "command"),
    list(commands(get_command(app))),
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_has_every_word_of_its_texts(capsys: Captured, path: tuple[str, ...], command: Any, option: str) -> None:
    """Brackets in particular, which are markup to Rich."""
    code, out, err = run(capsys, *path, option)
    assert (code, err) == (0, "")
    shown = "".join(out.split())
    for text in (inspect.getdoc(command.callback), *(parameter.help for parameter in command.params)):
        assert text is None or "".join(text.split()) in shown


def test_help_keeps_brackets(capsys: Captured) -> None:
    out = run(capsys, "retrieve", "--help")[1]
    assert "Descriptors [queries, D], float32 or float64." in " ".join(out.split())


def test_the_package_runs_as_a_module() -> None:
    for arguments, code, word in ((["--version"], 0, __version__), (["rnu"], 2, "error: no such command 'rnu'")):
        done = subprocess.run(
            [sys.executable, "-m", "neupims_sim", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == code
        assert word in done.stdout + done.stderr


def test_the_shell_completes_commands_and_names() -> None:
    command = [sys.executable, "-m", "neupims_sim"]
    for words, completed in (("mem", ["memory"]), ("run npu", ["npu_only", "npu_pim"]), ("sweep q", ["quickstart"])):
        line = f"neupims-sim {words}"
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1), "_NEUPIMS_SIM_COMPLETE": "complete_bash"}
        done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=False)
        assert done.stdout.split() == completed


def test_completion_can_be_installed(capsys: Captured) -> None:
    assert {"--install-completion", "--show-completion"} <= set(run(capsys, "--help")[1].split())


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "interrupted by SIGTERM"),
        (signal.SIGHUP, 129, "interrupted by SIGHUP"),
    ],
)
@pytest.mark.parametrize("when", ["simulate", "within a process of SimPy", "write_run"])
def test_a_signal_ends_a_run_with_one_line_and_leaves_nothing(
    capsys: Captured,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
    message: str,
    when: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)

    places = {
        "simulate": "neupims_sim.simulation.simulate",
        "within a process of SimPy": "neupims_sim.memory.models.IdealMemory.transfer",
        "write_run": "neupims_sim.simulation.directory.environment",
    }
    monkeypatch.setattr(places[when], interrupted)
    assert run(capsys, "run", "npu_only", "--set", "memory=ideal") == (code, "", f"error: {message}\n")
    assert not list(tmp_path.iterdir())


def test_an_ignored_signal_stays_ignored(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under nohup."""
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(
            "neupims_sim.simulation.directory.environment", lambda: os.kill(os.getpid(), signal.SIGHUP) or {}
        )
        assert run(capsys, "run", "gpu_a100")[0] == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "neupims_sim", "list", "systems"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: output: No space left on device\n")


def test_a_working_directory_that_is_gone_is_one_line(tmp_path: Path) -> None:
    program = "import os, sys; os.rmdir(os.getcwd()); from neupims_sim.cli import main; main(['list', 'systems'])"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the working directory cannot be used: No such file or directory\n"


def test_policies_that_stand_for_others_are_listed(capsys: Captured) -> None:
    policies = json.loads(run(capsys, "list", "policies", "--json")[1])
    assert policies["scheduling.interleaving"] == ["auto", "dataflow", "lockstep", "off"]
    for key in ("serving.scheduler.policy", "serving.cost.model", "serving.requests.format", "trace import"):
        assert policies[key]
    code, _, err = run(capsys, "config", "show", "neupims", "--set", "scheduling.interleaving=aut")
    assert code == 2
    assert "allowed: auto, dataflow, lockstep, off; did you mean auto?" in err


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


# --- start-up ---


def test_help_says_of_every_command_what_its_own_help_does(capsys: Captured) -> None:
    listed = run(capsys, "--help")[1]
    for name in COMMANDS:
        command: Any = get_command(app).get_command(None, name)  # type: ignore[attr-defined]
        assert _summary(*COMMANDS[name]) == command.help
        assert command.get_short_help_str(40).rstrip(".")[:20] in " ".join(listed.split())


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], {"pandas", "matplotlib", "numba", "numpy", "yaml", "simpy"}),
        (["--version"], {"pandas", "matplotlib", "numba", "numpy", "yaml", "simpy"}),
        (["run", "--help"], {"pandas", "matplotlib", "numba"}),
        (["config", "show", "neupims"], {"pandas", "matplotlib"}),
    ],
)
def test_a_command_loads_nothing_that_it_does_without(arguments: list[str], unwanted: set[str]) -> None:
    program = (
        "import sys; from neupims_sim.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, *arguments]
    loaded = subprocess.run(command, capture_output=True, text=True).stderr.split()
    assert "neupims_sim.cli.main" in loaded
    assert not unwanted & set(loaded)


def test_a_run_makes_no_table() -> None:
    program = "import sys, neupims_sim.simulation; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.split()
    assert "neupims_sim.simulation" in loaded
    assert not {"pandas", "matplotlib"} & set(loaded)

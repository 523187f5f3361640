"""Policies of one's own, ``package.module:function``: found in the current folder, used, and held to their contract."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_cases import Captured, run

from neupims_sim import load_config, simulate
from neupims_sim.errors import InputError
from neupims_sim.plots import PLOTS
from neupims_sim.simulation import check_config_names
from neupims_sim.workloads.importing import IMPORTERS

SMALL = {
    "model.layers": 2,
    "model.heads": 8,
    "model.d_model": 1024,
    "model.d_ff": 1024,
    "parallel.tensor": 1,
    "workload.batch_size": 8,
}
POLICIES = """
import numpy as np
from neupims_sim.npu.sharing import split_n
from neupims_sim.scheduling.interleaving import Interleaving, off
from neupims_sim.scheduling.channels import round_robin
from neupims_sim.workloads.importing import Importer

def two_channels(context_tokens, loads, channels, rows=None, room=0):
    return round_robin(context_tokens, loads, 2, rows, room)

def alternating(channel, loads):
    return np.arange(len(channel)) % 2

def sharing(gemm, systolic):
    return split_n(gemm, systolic.model_copy(update={"arrays": 1}))

def in_turn(env, sub_batches, steps, recorder):
    for step in range(steps):
        for batch in sub_batches:
            yield batch.before(step)
            yield batch.middle(step)
            yield batch.after(step)
        recorder.mark()

whole = Interleaving(off, sub_batches=1)
own = Importer()
number = 3

def nothing(env, sub_batches, steps, recorder):
    return
    yield

def none(*arguments): return None
def halves(*arguments): return np.full(len(arguments[0]), 0.5)
def too_few(*arguments): return np.zeros(1, int)
def far(context_tokens, *others): return np.full(len(context_tokens), 99)
def one_side(channel, loads): return np.ones(len(channel), int)
def lost(gemm, systolic):
    shared = split_n(gemm, systolic)
    return shared._replace(parts=shared.parts[:1])
def of_one(table): return None
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module in a package and one that fails."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "policies.py").write_text(POLICIES)
    (tmp_path / "broken.py").write_text("raise SystemExit('no')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    modules = set(sys.modules)
    yield tmp_path
    for module in set(sys.modules) - modules:
        del sys.modules[module]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("scheduling.channel_assignment", "two_channels"),
        ("scheduling.partition", "alternating"),
        ("scheduling.interleaving", "in_turn"),
        ("scheduling.interleaving", "whole"),
        ("npu.systolic.sharing", "sharing"),
    ],
)
def test_a_policy_in_the_current_folder_is_used(folder: Path, key: str, name: str) -> None:
    base = SMALL | {"scheduling.interleaving": "lockstep"}
    cycles = [simulate(load_config("neupims", base | more)).cycles for more in ({}, {key: f"mine.policies:{name}"})]
    assert cycles[0] != cycles[1]


def test_a_policy_of_ones_own_may_be_what_a_shipped_one_is(folder: Path) -> None:
    named = {"scheduling.channel_assignment": "neupims_sim.scheduling.channels:gmlbp"}
    assert simulate(load_config("neupims", SMALL | named)).cycles == simulate(load_config("neupims", SMALL)).cycles


def test_the_command_line_finds_it_too(folder: Path, capsys: Captured) -> None:
    options = [text for key, value in SMALL.items() for text in ("--set", f"{key}={value}")]
    options += ["--set", "scheduling.channel_assignment=mine.policies:two_channels"]
    code, output, _ = run(capsys, "run", "neupims", *options, "--out", "out", "--json")
    assert code == 0
    assert json.loads(output)["cycles"] > 0


@pytest.mark.parametrize(
    ("key", "name", "problem"),
    [
        ("scheduling.partition", "nowhere:f", r"No module named 'nowhere' \(looked among installed packages and in "),
        ("scheduling.partition", "mine.nowhere:f", r"No module named 'mine.nowhere' \(looked among"),
        ("scheduling.partition", "mine.policies:nothing_such", r"has no attribute 'nothing_such' \(.*policies\.py\)"),
        ("scheduling.partition", "broken:f", "cannot be imported: SystemExit: no"),
        ("scheduling.partition", "a b:c", r"write package\.module:name"),
        ("scheduling.partition", ":", r"write package\.module:name"),
        ("scheduling.partition", "x:" + "y" * 100, "No module named 'x'"),
        ("scheduling.partition", "mine.policies:number", r"is not a function; it must take \(channel, loads\)"),
        ("scheduling.partition", "mine.policies:two_channels", "missing a required argument: 'channels'"),
        ("scheduling.partition", "mine.policies:none", "returned None; needed: an array of integers"),
        ("scheduling.partition", "mine.policies:halves", "needed: an array of integers"),
        ("scheduling.partition", "mine.policies:too_few", "needed for 8 requests: 0 or 1 each"),
        ("scheduling.partition", "mine.policies:one_side", "both sub-batches have requests"),
        ("scheduling.channel_assignment", "mine.policies:far", "needed for 8 requests: an integer each, from 0 to 31"),
        ("scheduling.channel_assignment", "mine.policies:none", "needed: an array of integers"),
        ("npu.systolic.sharing", "mine.policies:none", "returned None; needed: a SharedGemm"),
        ("npu.systolic.sharing", "mine.policies:lost", r"multiply-accumulates in .* cycles for Gemm"),
        ("scheduling.interleaving", "mine.policies:number", "is neither an Interleaving nor a function that yields"),
        ("scheduling.interleaving", "mine.policies:nothing", "ended without any work done"),
        ("memory.model", "mine.policies:number", r"is not a subclass of neupims_sim\.memory\.MemoryModel"),
        (
            "scheduling.partition",
            "xyz",
            r"allowed: balanced, positional; one of your own is named package\.module:name$",
        ),
        ("memory.controller.scheduling", "mine.policies:number", "allowed: bank_round_robin, fcfs, fr_fcfs"),
    ],
)
def test_what_cannot_be_a_policy_is_one_line_with_the_key(folder: Path, key: str, name: str, problem: str) -> None:
    config = load_config("neupims", SMALL | {"scheduling.interleaving": "lockstep", key: name})
    with pytest.raises(InputError, match=problem) as caught:
        simulate(config)
    assert str(caught.value).startswith(f"{key}='{name[:20]}")
    assert len(str(caught.value)) < 500


def test_a_plot_and_an_importer_are_found_by_the_same_rule(folder: Path) -> None:
    assert callable(PLOTS["mine.policies:alternating"])
    assert type(IMPORTERS["mine.policies:own"]).__name__ == "Importer"
    with pytest.raises(InputError, match=r"^plot\.kind='mine\.policies:of_one': too many positional arguments"):
        PLOTS["mine.policies:of_one"]
    with pytest.raises(InputError, match=r"^trace import: FORMAT='mine\.policies:number' is not an instance"):
        IMPORTERS["mine.policies:number"]


def test_an_installed_module_wins_over_one_of_the_folder(folder: Path) -> None:
    (folder / "json.py").write_text("raise SystemExit\n")
    with pytest.raises(InputError, match=r"module 'json' has no attribute 'mine' \(.*json/__init__\.py\)"):
        check_config_names(load_config("neupims", {"scheduling.partition": "json:mine"}))

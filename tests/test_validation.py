"""What the validation page claims, and that its rules are the whole difference between the presets."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_cases import Captured
from cli_cases import run as run_program

from neupims_sim import validation
from neupims_sim.config.loader import load_memory
from neupims_sim.errors import InputError
from neupims_sim.validation import Validation, channel, comparison, read_golden, systems, to_json, to_markdown
from neupims_sim.validation.comparison import BlockComparison, Comparison, PimComparison
from neupims_sim.validation.systems import DemoPoint, PowerPoint, power_points


@pytest.fixture(scope="module")
def pim() -> list[PimComparison]:
    return comparison.compare_pim()


@pytest.fixture(scope="module")
def found(pim: list[PimComparison]) -> Validation:
    """All that is quick; the demo is made up."""
    throughput = {"npu_only": 3.0, "npu_pim": 10.0, "neupims": 25.0}
    demo = [
        DemoPoint(preset, batch, system, value * batch, value * batch)
        for preset in ("physical", "asplos24")
        for batch in (64, 256)
        for system, value in throughput.items()
    ]
    power = [
        PowerPoint(preset, system, 500.0, 20.0 if system == "neupims" else 25.0)
        for preset in ("asplos24", "physical")
        for system in throughput
    ]
    return Validation(
        systolic=comparison.compare_systolic(),
        dram=comparison.compare_dram(),
        pim=pim,
        blocks=None,
        demo=demo,
        unthrottled={64: 12.0 * 64, 256: 12.0 * 256},
        power=power,
        published_power={"HBM": 400.0, "dual-row-buffer PIM": 625.0},
    )


def test_every_systolic_figure_equals_scale_sim() -> None:
    compared = comparison.compare_systolic()
    assert len(compared) == len(read_golden("systolic_array_cycles"))
    assert [one for one in compared if one.difference] == []


def test_dram_channel_takes_as_long_as_in_dramsim3(found: Validation) -> None:
    off = {one.case: one.difference for one in found.dram if one.metric in ("cycles", "activates", "refreshes")}
    assert len(off) == 3
    assert max(map(abs, off.values())) < 0.01


def test_pim_channel_agrees_with_the_artifact_under_its_assumptions(pim: list[PimComparison]) -> None:
    assert max(abs(one.difference) for one in pim) < 0.02


def test_rules_are_the_whole_difference_between_the_presets(pim: list[PimComparison]) -> None:
    for one in pim:
        assert one.ours + sum(cycles for _, cycles in one.shares) == one.physical, one.case


@pytest.mark.parametrize("row_buffers", ["dual", "single"])
def test_every_field_in_which_the_presets_differ_has_a_rule(row_buffers: str) -> None:
    name = channel.PIM_MEMORIES[row_buffers]
    asplos24, physical = (load_memory(name, preset) for preset in ("asplos24", "physical"))
    differing = {
        f"{section}.{key}"
        for section in ("organization", "timing", "controller", "pim")
        for key, value in dict(getattr(asplos24, section)).items()
        if value != dict(getattr(physical, section))[key]
    }
    explained = {field for rule in channel.RULES for field in rule.fields}
    assert differing - explained <= {"pim.device_serial_issue"}  # seen by whole devices only
    everything = channel.mixed_spec(row_buffers, channel.RULES)
    nothing = channel.mixed_spec(row_buffers, ())
    assert sorted(everything.rows) == sorted(channel.preset_spec(row_buffers, "physical").rows)
    assert sorted(nothing.rows) == sorted(channel.preset_spec(row_buffers, "asplos24").rows)


def test_unknown_golden_work_is_named() -> None:
    with pytest.raises(InputError, match="logits 5"):
        channel.pim_case("logits 5")
    with pytest.raises(InputError, match="stride_rd"):
        channel.dram_case("stride_rd", 5)


def test_block_row_becomes_a_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("seq_len,ch_idx\n10,0\n10,1\n")
    seen: list[Any] = []

    def simulate(config: Any) -> Any:
        seen.append(config)
        return SimpleNamespace(stages={"A": 1, "B": 2}, block_cycles=9)

    monkeypatch.setattr(systems, "simulate", simulate)
    row = {"system": "npu_pim_unthrottled", "requests": "r", "interleaving": "off"}
    assert systems.block_cycles(row, "asplos24", tmp_path)["total"] == 9
    assert seen[0].system == "npu_pim"
    assert seen[0].preset == "asplos24"
    assert not seen[0].memory.pim.device_serial_issue
    assert Path(seen[0].workload.requests) == tmp_path / "r.csv"
    row = {"system": "neupims", "requests": "r", "interleaving": "on"}
    assert systems.block_cycles(row, "physical", tmp_path) == {"A": 1, "B": 2, "total": 3}
    assert seen[1].scheduling.interleaving == "lockstep"


def test_page_without_request_batches_says_so(found: Validation) -> None:
    page = to_markdown(found)
    assert "**Not run**" in page
    assert "**96 of 96 figures are equal.**" in page
    assert "published 2.50 at 256 requests" in page


def test_page_compares_power_and_energy(found: Validation) -> None:
    page = to_markdown(found)
    assert "| `asplos24` | NeuPIMs | 625.0 | 500.0 | -20.00 % | 20.0 | -20.00 % |" in page
    assert "| `physical` | NPU+PIM | 400.0 | 500.0 | +25.00 % | 25.0 | 0.00 % |" in page


def test_power_is_that_of_the_memory_alone() -> None:
    (point,) = power_points(["npu_only"], ["physical"], 4)
    assert 0 < point.milliwatts_per_channel < 5000
    assert point.millijoules_per_iteration > 0


def test_page_with_request_batches_does_not_name_their_folder(found: Validation) -> None:
    blocks = [BlockComparison("neupims, sharegpt_32", "total", 181_710, 184_354, 176_962)]
    page = to_markdown(Validation(**(vars(found) | {"blocks": blocks})))
    assert "| neupims, sharegpt_32 | total | 181,710 | 184,354 | +1.46 % | 176,962 | -2.61 % |" in page
    assert "**Not run**" not in page


def test_unequal_systolic_figures_are_listed(found: Validation) -> None:
    systolic = [*found.systolic, Comparison("1 x 1 x 1, ws, 8x8", "cycles", 100, 101)]
    page = to_markdown(Validation(**(vars(found) | {"systolic": systolic})))
    assert "**96 of 97 figures are equal.**" in page
    assert "| 1 x 1 x 1, ws, 8x8 | cycles | 100 | 101 | +1.00 % |" in page


def run(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    return run_program(capsys, "validate", *arguments)


def test_command_prints_the_page_writes_it_or_prints_json(
    found: Validation, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "validate", lambda *_, **__: found)
    assert run(capsys)[:2] == (0, to_markdown(found))
    file = tmp_path / "page.md"
    assert run(capsys, "-o", str(file))[:2] == (0, f"{file}\n")
    assert file.read_text() == to_markdown(found)
    assert json.loads(run(capsys, "--json")[1]) == json.loads(json.dumps(to_json(found)))


def test_missing_request_batches_are_named(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "sharegpt_32.csv").write_text("seq_len,ch_idx\n1,0\n")
    code, out, err = run(capsys, "--requests", str(tmp_path))
    assert (code, out) == (2, "")
    assert "no sharegpt_512_clb_0.csv, sharegpt_512_rr_0.csv" in err


def test_missing_folder_of_the_page_is_refused_before_anything_runs(capsys: Captured, tmp_path: Path) -> None:
    code, _, err = run(capsys, "-o", str(tmp_path / "none" / "page.md"))
    assert code == 2
    assert "no such folder" in err

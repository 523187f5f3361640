"""The frozen presets give what they gave when they were recorded, whatever ``physical`` has learned since."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from frozen_cases import CASES, PRESETS, VISION_CASES, figures, frozen_config

from neupims_sim.simulation import simulate

RECORDED = json.loads((Path(__file__).parent / "golden" / "frozen_presets.json").read_text())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("case", [*CASES, *VISION_CASES])
def test_a_frozen_preset_gives_what_it_gave(preset: str, case: str) -> None:
    assert figures(simulate(frozen_config(preset, case))) == RECORDED[preset][case]

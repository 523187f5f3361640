"""Both memories keep the promises that the simulator builds on."""

from __future__ import annotations

import pytest

from neupims_sim.testing import check_memory_model


@pytest.mark.parametrize("overrides", [{}, {"speed": "1866M"}])
def test_ddr3_conforms(overrides: dict[str, str]) -> None:
    check_memory_model("ddr3", overrides=overrides)


@pytest.mark.parametrize("links", [1, 4])
def test_cxl_conforms(links: int) -> None:
    check_memory_model("cxl", overrides={"organization.channels": links})

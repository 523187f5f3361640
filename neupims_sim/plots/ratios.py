"""Points relative to one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from neupims_sim.sweeps import base_values

BETTER = ("higher", "lower")
"""Which values of a metric are good."""


def relative_to(
    table: pd.DataFrame, axes: Sequence[str], axis: str, value: Any, metric: str, better: str
) -> pd.Series[float]:
    """How many times as good each point is as the one with ``value`` on ``axis`` and all else alike, the seed too.

    metric / base where ``better`` is higher, base / metric where it is lower; NaN where one of the two is missing or the ratio
    is not finite.
    """
    base = np.array(base_values(table, axes, axis, value, metric), dtype=np.float64)
    values = table[metric].to_numpy(dtype=np.float64)
    with np.errstate(all="ignore"):
        ratios = values / base if better == "higher" else base / values
    return pd.Series(np.where(np.isfinite(ratios), ratios, np.nan), index=table.index)


def ratio_label(metric: str, base: str, better: str) -> str:
    """The label of an axis of such ratios: ``Throughput (× NPU-only)``, ``Cycles, how many times fewer (× NPU-only)``."""
    return f"{metric} (× {base})" if better == "higher" else f"{metric}, how many times fewer (× {base})"

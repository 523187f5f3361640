"""Several snapshots of a batch: the seeds they are drawn from, the mean of their results, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from statistics import mean, stdev
from typing import Any

import numpy as np

from neupims_sim.simulation.result import Result


def snapshot_seed(seed: int, snapshot: int) -> int:
    """The seed of a snapshot: the configured one for number 0, then 64-bit numbers that follow from it and the number."""
    if snapshot == 0:
        return seed
    sequence = np.random.SeedSequence(seed, spawn_key=(snapshot,))
    return int(sequence.generate_state(1, np.uint64)[0])


def mean_result(results: Sequence[Result]) -> Result:
    """Every metric as the mean over snapshots of one configuration; integers are rounded.

    What is no metric (names, the operators seen) is that of the first, None where any is None. ``throughput_ci95_per_s`` is half
    the width of the 95 % confidence interval of the mean throughput by Student's t distribution; None for one snapshot.
    """
    first = results[0]
    if len(results) == 1:
        return first
    others = ("snapshots", "throughput_ci95_per_s", "operator_unit", "observations")
    names = [field.name for field in fields(Result) if field.name not in others]
    means = {name: _mean([getattr(result, name) for result in results]) for name in names}
    rates = [result.throughput_per_s for result in results]
    half_width = student_t_975(len(rates) - 1) * stdev(rates) / math.sqrt(len(rates))
    units = {name: unit for result in results for name, unit in result.operator_unit.items()}
    return replace(first, **means, operator_unit=units, snapshots=len(results), throughput_ci95_per_s=half_width)


def _mean(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        keys = dict.fromkeys(key for value in values for key in value)
        zero = 0 if all(isinstance(x, int) for value in values for x in value.values()) else 0.0
        return {key: _mean([value.get(key, zero) for value in values]) for key in keys}
    if first is None or isinstance(first, str):
        return first
    if any(value is None for value in values):
        return None
    return round(mean(values)) if all(isinstance(value, int) for value in values) else mean(values)


def student_t_975(degrees: int) -> float:
    """The 97.5 % quantile of Student's t distribution with ``degrees`` degrees of freedom, by bisection."""
    low, high = 0.0, 16.0
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _central_probability(middle, degrees) < 0.95 else (low, middle)
    return high


def _central_probability(t: float, degrees: int) -> float:
    """P(-t < T < t) as a finite sum (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine = math.cos(angle)
    odd = degrees % 2
    term = total = cosine if odd else 1.0
    for n in range(2 + odd, degrees - 1, 2):
        term *= cosine * cosine * (n - 1) / n
        total += term
    if not odd:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + (math.sin(angle) * total if degrees > 1 else 0.0))

"""All checks on one memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neupims_sim.config import MemoryConfig, load_memory
from neupims_sim.config.loader import DEFAULT_PRESET
from neupims_sim.memory.models import MEMORY_MODELS, MemoryModel
from neupims_sim.testing.checks import CHECKS, carry_out
from neupims_sim.testing.report import ConformanceError, ConformanceReport
from neupims_sim.testing.subject import Subject


def check_memory_model(
    memory: str | Path | MemoryConfig,
    model: type[MemoryModel] | None = None,
    *,
    preset: str = DEFAULT_PRESET,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    seed: int = 0,
    patience_cycles: int = 1_000_000,
) -> ConformanceReport:
    """Run every check on a memory and return the report.

    Parameters
    ----------
    memory: what ``memory:`` of a configuration may be: a name, a YAML file, or a resolved table.
    model: the class to check on that table, registered or not; by default the one that the table names.
    preset, overrides: as in :func:`neupims_sim.config.load_memory`. A resolved table has them already; of it, ``preset``
        selects the constraint rows with tags.
    seed: of the random work. The same seed asks the same again.
    patience_cycles: device cycles without any completion after which the model counts as hanging.

    Raises
    ------
    ConformanceError: (an AssertionError) a check failed; its ``report`` has all results.
    InputError: there is no such memory or model, or the table is wrong.
    """
    config = memory if isinstance(memory, MemoryConfig) else load_memory(memory, preset, overrides)
    name = config.model if model is None else f"{model.__module__}:{model.__qualname__}"
    subject = Subject(config, model or MEMORY_MODELS[config.model], preset, seed, patience_cycles)
    report = ConformanceReport(config.name, name, preset, tuple(carry_out(check, subject) for check in CHECKS))
    if not report.passed:
        raise ConformanceError(report)
    return report

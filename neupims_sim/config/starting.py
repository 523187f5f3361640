"""Copies of shipped files to start from."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from neupims_sim.config.files import EXPERIMENTS, KINDS, LENGTHS, available
from neupims_sim.errors import InputError, suggestion
from neupims_sim.writing import replaced, replaced_folder

_USES = {
    "systems": "neupims-sim run {file}",
    "sweeps": "neupims-sim sweep {file}",
    "experiments": "neupims-sim experiment {file}",
    "models": "--set model=./{file}",
    "memory": "--set memory=./{file}; neupims-sim memory check {file}",
    "npu": "--set npu=./{file}",
    "workloads": "--set workload=./{file}",
    "presets": "--set preset=NAME, once it is configs/presets/NAME.yaml",
    "traces/lengths": "--set workload.dataset=NAME, once it is traces/lengths/NAME.csv",
}
"""How a copy of each kind is used."""


def start(name: str) -> tuple[Path, str]:
    """Copy what ``name`` means into the working directory; returns the copy, and how it is used.

    Parameters
    ----------
    name: of a system, model, memory, ..., an experiment or a table of lengths; with its kind (``"workloads/alpaca"``) where
        files of two kinds have it. Of an experiment the sweep file and the page are copied.

    Raises
    ------
    InputError: there is no such name, two kinds have it, or the copy exists already or cannot be written.
    """
    kind, source = _find(name)
    copy = Path(source.name)
    if os.path.lexists(copy):
        raise InputError(f"config new {name!r}: {copy} exists already; move it away first")
    if source.is_dir():
        with replaced_folder(copy) as folder:
            for file in ("sweep.yaml", "README.md"):
                (folder / file).write_bytes((source / file).read_bytes())
    else:
        with replaced(copy) as temporary:
            temporary.write_bytes(source.read_bytes())
    return copy, _USES[kind].format(file=shlex.quote(str(copy)))


def _find(name: str) -> tuple[str, Path]:
    """Kind and file (or folder) of a name; files in ``configs`` before the others."""
    known = {kind: available(kind) for kind in (*KINDS, EXPERIMENTS, LENGTHS)}
    whole = {f"{kind}/{stem}": (kind, path) for kind, files in known.items() for stem, path in files.items()}
    found = [f"{kind}/{name}" for kind, files in known.items() if name in files]
    in_configs = [full for full in found if full.rpartition("/")[0] in KINDS]
    if len(in_configs) > 1:
        raise InputError(f"config new {name!r}: there is {' and '.join(in_configs)}; say which")
    full = (in_configs or found or [name])[0]
    if full not in whole:
        near = whole if "/" in name else {stem for files in known.values() for stem in files}
        raise InputError(f"config new {name!r}: no such name; {suggestion(name, near)}")
    return whole[full]

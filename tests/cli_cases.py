"""The command line, called in this process."""

from __future__ import annotations

import pytest

from neupims_sim.cli import main

Captured = pytest.CaptureFixture[str]


def run(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the program."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    code = stop.value.code
    assert code is None or isinstance(code, int)
    output = capsys.readouterr()
    return code or 0, output.out, output.err

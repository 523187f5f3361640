"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from neupims_sim.errors import InputError
from neupims_sim.writing import replaced, write_text


def test_text_is_written_as_it_is_and_replaces_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("before")
    write_text(file, "“x”\r\ny\n")
    assert file.read_bytes() == "“x”\r\ny\n".encode()
    assert list(tmp_path.iterdir()) == [file]


def test_after_an_exception_the_file_is_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("before")

    def write() -> None:
        with replaced(file) as temporary:
            assert (temporary.parent, temporary.suffix) == (tmp_path, ".json")
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        write()
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("no/folder.txt", "No such file or directory"), ("file/a.txt", "Not a directory"), ("folder", "Is a directory")],
)
def test_what_the_system_refuses_is_one_line(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"^-o out: cannot be written: {reason}$"):
        write_text(tmp_path / path, "text", "-o out")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["file", "folder"]

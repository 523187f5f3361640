"""``neupims-sim retrieve``: the functional search and reranking from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_cases import Captured, run

from neupims_sim import kernels


def unit(rows: int, columns: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "queries.npy", tmp_path / "database.npy"
    np.save(paths[0], unit(3, 16, 1))
    np.save(paths[1], np.abs(unit(200, 16, 2)))
    return paths


@pytest.mark.parametrize("rerank", [False, True])
def test_the_best_of_every_query(capsys: Captured, files: tuple[Path, Path], rerank: bool) -> None:
    queries, database = (np.load(file) for file in files)
    code, out, _ = run(capsys, "retrieve", *files, "--top", 20, "--json", *(["--rerank"] if rerank else []))
    assert code == 0
    found = json.loads(out)
    expected = (
        kernels.rerank(queries, database, top_m=20)[:, :20] if rerank else kernels.search(queries, database, 20)[0]
    )
    assert found["ranks"] == expected.tolist()
    similarities = np.take_along_axis(queries @ database.T, expected, axis=1)
    np.testing.assert_allclose(found["scores"], similarities, rtol=1e-5)


def test_a_table_for_people(capsys: Captured, files: tuple[Path, Path]) -> None:
    code, out, _ = run(capsys, "retrieve", *files, "--top", 2)
    assert code == 0
    assert "best 2 of 200 images, by cosine similarity" in " ".join(out.split())  # a narrow table breaks its title
    assert len([line for line in out.splitlines() if line.startswith("│")]) == 3 * 2


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"queries": np.full((1, 16), np.nan, np.float32)}, [], "queries[0, 0]=nan; allowed: finite numbers"),
        ({"database": np.full((50, 16), np.inf, np.float32)}, [], "database[0, 0]=inf; allowed: finite numbers"),
        ({"queries": np.zeros((1, 8), np.float32)}, [], "queries have 8 channels, the database 16"),
        ({"queries": np.zeros((1, 16), np.float64)}, [], "queries are float64, the database float32"),
        ({"queries": np.zeros((1, 16), np.int64)}, [], "dtype=int64; allowed: float32, float64"),
        ({}, ["--top", 201], "top_m=201; allowed: 1 to the size of the database, 200"),
        ({}, ["--top", 5, "--rerank"], "neighbours=9 must be less than top_m=5"),
    ],
)
def test_bad_descriptors_are_one_line(
    capsys: Captured, files: tuple[Path, Path], change: dict[str, np.ndarray], options: list[Any], message: str
) -> None:
    for name, values in change.items():
        np.save(files[0].parent / f"{name}.npy", values)
    code, out, err = run(capsys, "retrieve", *files, *options)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00garbage"])
def test_a_file_that_is_no_array_is_one_line(capsys: Captured, files: tuple[Path, Path], content: bytes) -> None:
    files[0].write_bytes(content)
    code, _, err = run(capsys, "retrieve", *files)
    assert (code, err.count("\n")) == (2, 1)
    assert "queries.npy: not a NumPy array (.npy)" in err


@pytest.fixture
def stretched(tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
    """A query and a database in which one row is 40 times as long as the others, as files; and the database's directions."""
    rng = np.random.default_rng(3)
    units = rng.normal(size=(20, 8))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    lengths = np.ones(20)
    lengths[11] = 40
    np.save(tmp_path / "q.npy", 3 * units[:1] + 0.1 * units[1:2])
    np.save(tmp_path / "db.npy", units * lengths[:, np.newaxis])
    return tmp_path / "q.npy", tmp_path / "db.npy", units


@pytest.mark.parametrize("rerank", [[], ["--rerank"]])
def test_the_length_of_a_row_does_not_matter(
    capsys: Captured, stretched: tuple[Path, Path, np.ndarray], tmp_path: Path, rerank: list[str]
) -> None:
    queries, database, units = stretched
    np.save(tmp_path / "units.npy", units)
    found, expected = (
        json.loads(run(capsys, "retrieve", queries, path, "--top", "12", "--json", *rerank)[1])
        for path in (database, tmp_path / "units.npy")
    )
    assert found["ranks"] == expected["ranks"]
    np.testing.assert_allclose(found["scores"], expected["scores"], rtol=1e-12)
    if not rerank:
        query = np.load(queries)[0]
        cosines = units @ query / np.linalg.norm(query)
        assert found["ranks"][0] == np.argsort(-cosines)[:12].tolist()
        assert max(found["scores"][0]) <= 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, 8)), "row 0 is zero, which has no direction"),
        (np.full((3, 8), np.nan), r"\[0, 0\]=nan; allowed: finite numbers"),
        (np.full((3, 8), 1e300), "=inf; allowed: finite numbers"),
        (np.ones((3, 7)), "8 channels, the database 7"),
        (np.ones((3, 8), np.float32), "queries are float64, the database float32"),
        (np.ones((3, 8), np.float16), "dtype=float16; allowed: float32, float64"),
        (np.ones((3, 8), int), "dtype=int64"),
        (np.ones(8), "has shape="),
        (np.ones((0, 8)), "holds nothing"),
        (np.array([[None] * 8]), "not a NumPy array"),
    ],
)
def test_a_database_without_directions_is_refused(
    capsys: Captured, stretched: tuple[Path, Path, np.ndarray], tmp_path: Path, values: np.ndarray, message: str
) -> None:
    np.save(tmp_path / "bad.npy", values, allow_pickle=True)
    code, out, err = run(capsys, "retrieve", stretched[0], tmp_path / "bad.npy", "--top", "1")
    assert (code, out) == (2, "")
    assert re.search(message, err), err
    assert err.count("\n") == 1

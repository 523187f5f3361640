"""``neupims-sim retrieve``: the functional search and reranking from the command line."""

from __future__ import annotations

import json
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

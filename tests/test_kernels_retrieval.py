"""Search and reranking agree with the published code of SuperGlobal, rank for rank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neupims_sim import kernels
from neupims_sim.errors import InputError
from neupims_sim.kernels import retrieval

GOLDEN = np.load(Path(__file__).parent / "golden" / "vision" / "superglobal_rerank.npz")
M, K, BETA = int(GOLDEN["M"]), int(GOLDEN["K"]), float(GOLDEN["beta"])

both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def golden(dtype: type) -> tuple[np.ndarray, np.ndarray]:
    return GOLDEN["Q"].astype(dtype), GOLDEN["X"].astype(dtype)


@both_types
def test_search_finds_the_published_ranks_and_scores(dtype) -> None:
    queries, database = golden(dtype)

    ranks, scores = kernels.search(queries, database, M)

    assert scores.dtype == dtype
    assert (ranks == GOLDEN["initial_topM"]).all()
    similarities = np.take_along_axis(GOLDEN["sim"].T, ranks, axis=1)
    np.testing.assert_allclose(scores, similarities, rtol=0, atol=1e-6)
    assert (kernels.search(queries, database, len(database))[0] == GOLDEN["initial_ranks"].T).all()


@both_types
def test_rerank_gives_the_published_ranks(dtype) -> None:
    ranks = kernels.rerank(*golden(dtype), top_m=M, neighbours=K, beta=BETA)

    assert (ranks == GOLDEN["final_ranks"].T).all()
    assert (ranks[:, :M] == GOLDEN["final_top400"]).all()
    assert (kernels.rerank(*golden(dtype)) == ranks).all(), "the defaults are those of the paper"


@both_types
def test_each_step_of_rerank_gives_the_published_scores(dtype) -> None:
    queries, database = golden(dtype)
    for number, query in enumerate(queries):
        refined = retrieval.refine(database[GOLDEN["initial_topM"][number]], K, BETA)
        first = refined @ query
        order = retrieval.best_first(first)
        second = refined @ retrieval.expand(refined, order, K)
        final = (first + second)[order] / 2

        np.testing.assert_allclose(first, GOLDEN["S1"][number], rtol=0, atol=1e-6)
        assert (order == GOLDEN["S1_order_pos"][number]).all()
        assert (GOLDEN["initial_topM"][number][order] == GOLDEN["S1_sorted_ids"][number]).all()
        np.testing.assert_allclose(first[order], GOLDEN["S1_sorted_scores"][number], rtol=0, atol=1e-6)
        np.testing.assert_allclose(second[order], GOLDEN["S2_in_S1_order"][number], rtol=0, atol=1e-6)
        np.testing.assert_allclose(final, GOLDEN["S_final_in_S1_order"][number], rtol=0, atol=1e-6)
        np.testing.assert_allclose(np.sort(final)[::-1], GOLDEN["S_final_sorted"][number], rtol=0, atol=1e-6)
        if number == 0:
            np.testing.assert_allclose(refined[:20], GOLDEN["refined_q0"], rtol=0, atol=1e-6)


@both_types
def test_the_neighbours_of_an_image_are_the_published_ones(dtype) -> None:
    candidates = GOLDEN["X"].astype(dtype)[GOLDEN["initial_topM"][0]]
    similarity = candidates @ candidates.T

    nearest = retrieval.nearest(similarity, K)[:20]

    assert (nearest == GOLDEN["neighbour_pos_q0"]).all()
    found = np.take_along_axis(similarity[:20], nearest, axis=1)
    np.testing.assert_allclose(found, GOLDEN["neighbour_sim_q0"], rtol=0, atol=1e-6)


def obvious_search(queries: np.ndarray, database: np.ndarray, top_m: int) -> list[list[int]]:
    """Sorting all images by (score, number)."""
    scores = queries @ database.T
    return [sorted(range(len(database)), key=lambda i: (-row[i], i))[:top_m] for row in scores]


@settings(max_examples=200)
@given(st.data(), st.integers(1, 4), st.integers(1, 30), st.integers(1, 60))
def test_blocks_do_not_change_the_result_and_the_lower_number_wins_a_tie(data, count, images, elements) -> None:
    # Small integers: many equal scores, and exact sums.
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    queries, database = (random.integers(-1, 2, (n, 3)).astype(np.float32) for n in (count, images))
    top_m = data.draw(st.integers(1, images))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "BLOCK_ELEMENTS", elements)
        ranks, scores = kernels.search(queries, database, top_m)
        reranked = kernels.rerank(queries, database, top_m=1, neighbours=0)

    assert ranks.tolist() == obvious_search(queries, database, top_m)
    assert (scores == np.take_along_axis(queries @ database.T, ranks, axis=1)).all()
    assert reranked.tolist() == obvious_search(queries, database, images)


def test_a_memory_mapped_database_is_searched_in_place(tmp_path) -> None:
    queries, database = golden(np.float32)
    np.save(tmp_path / "database.npy", database)
    mapped = np.load(tmp_path / "database.npy", mmap_mode="r")
    ranks, _ = kernels.search(queries, mapped, M)
    assert (ranks == GOLDEN["initial_topM"]).all()


def test_rerank_permutes_only_the_first_images() -> None:
    queries, database = golden(np.float32)
    ranks = kernels.rerank(queries, database, top_m=50, neighbours=3)
    initial = GOLDEN["initial_ranks"].T
    assert (ranks[:, 50:] == initial[:, 50:]).all()
    assert (np.sort(ranks[:, :50]) == np.sort(initial[:, :50])).all()
    assert (ranks[:, :50] != initial[:, :50]).any()


def test_without_neighbours_a_descriptor_is_not_refined() -> None:
    database = GOLDEN["X"][:20]
    assert (retrieval.refine(database, neighbours=0) == database).all()


def test_an_image_comes_before_its_own_neighbours_even_if_one_is_more_similar() -> None:
    descriptors = np.array([[1, 0], [2, 0], [1, 0]], np.float32)
    assert retrieval.nearest(descriptors @ descriptors.T, 1).tolist() == [[0, 1], [1, 0], [2, 1]]
    np.testing.assert_allclose(retrieval.refine(descriptors, 1, 0.5)[0], [(1 + 1 * 2) / (1 + 1), 0])


@both_types
def test_the_order_of_the_database_does_not_matter(dtype) -> None:
    queries, database = golden(dtype)
    order = np.random.default_rng(5).permutation(len(database))
    assert (order[kernels.rerank(queries, database[order])] == GOLDEN["final_ranks"].T).all()


QUERIES, DATABASE = GOLDEN["Q"], GOLDEN["X"]
WITH_NAN = DATABASE.copy()
WITH_NAN[417, 5] = np.nan


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: kernels.search(QUERIES, DATABASE, 601),
            "search: top_m=601; allowed: 1 to the size of the database, 600",
        ),
        (lambda: kernels.search(QUERIES, DATABASE, 0), "search: top_m=0; allowed"),
        (
            lambda: kernels.search(QUERIES[0], DATABASE, 5),
            r"search: queries has shape=\[64\], expected \[queries, channels\]",
        ),
        (lambda: kernels.search(QUERIES[:, :60], DATABASE, 5), "search: queries have 60 channels, the database 64"),
        (
            lambda: kernels.search(QUERIES.astype(float), DATABASE, 5),
            "search: queries are float64, the database float32",
        ),
        (lambda: kernels.search(QUERIES * np.nan, DATABASE, 5), r"search: queries\[0, 0\]=nan"),
        (lambda: kernels.search(QUERIES, WITH_NAN, 5), r"search: database\[417, 5\]=nan; allowed: finite numbers"),
        (
            lambda: kernels.search(QUERIES, np.where(np.arange(600)[:, None] == 417, np.float32(3e38), DATABASE), 5),
            r"search: similarity of image and query \[417, \d\]=-?inf",
        ),
        (lambda: kernels.rerank(QUERIES, WITH_NAN), r"rerank: database\[417, 5\]=nan"),
        (
            lambda: kernels.rerank(QUERIES, DATABASE[:300]),
            "rerank: top_m=400; allowed: 1 to the size of the database, 300",
        ),
        (lambda: kernels.rerank(QUERIES, DATABASE, top_m=9), "rerank: neighbours=9 must be less than top_m=9"),
        (lambda: kernels.rerank(QUERIES, DATABASE, neighbours=-1), "rerank: neighbours=-1 must be at least 0"),
        (lambda: kernels.rerank(QUERIES, DATABASE, beta=np.inf), "rerank: beta=inf; allowed: a finite number"),
        (
            lambda: kernels.rerank(QUERIES, DATABASE, beta=-9.0),
            "rerank: beta=-9.0: weights sum to -.*; allowed: sums above 0",
        ),
    ],
)
def test_bad_input_is_refused_with_one_line(call, message, monkeypatch) -> None:
    monkeypatch.setattr(retrieval, "BLOCK_ELEMENTS", 100 * 64)
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)

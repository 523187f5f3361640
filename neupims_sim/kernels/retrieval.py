"""Image retrieval with global descriptors: exhaustive search, and the reranking of SuperGlobal (arXiv 2308.06954).

Descriptors are rows, L2-normalised by the caller, so that a dot product is the cosine similarity. Better scores come
first; of equal scores, the image with the lower number.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neupims_sim.errors import InputError
from neupims_sim.kernels.arrays import FloatArray, IndexArray, check_at_least, check_finite, features, floats

UNIT_TOLERANCE = 1e-3
"""How far from 1 the length of a unit vector may be: rounding to half precision alone makes it 5e-4."""
BLOCK_ELEMENTS = 2**24
"""The database is read in blocks of so many elements (and no block has more scores than that)."""


def search(
    queries: FloatArray, database: FloatArray, top_m: int, lengths: FloatArray | None = None
) -> tuple[IndexArray, FloatArray]:
    """The ``top_m`` most similar images of each query, and their scores.

    The database is read once, block by block, and never copied: beside it there are only the scores of a block and a
    byte per element of it, less than 100 MB. So 1,000,000 x 2048 float32 (8.2 GB) may as well be a memory-mapped file
    (``np.load(path, mmap_mode="r")``).

    Parameters
    ----------
    queries: [queries, channels], float32 or float64; computed in this type.
    database: [images, channels], of the same type.
    lengths: [images], of the same type: of the database's rows where they are not 1, see :func:`row_lengths`; scores are divided by them.

    Returns
    -------
    ranks [queries, top_m], row numbers of the database from the best on, and scores [queries, top_m].

    Raises InputError if top_m is not in 1 .. images, the arrays do not fit together, or one holds NaN or infinity.
    """
    queries, database = descriptors("search", queries, database)
    _check_top_m("search", top_m, len(database))
    best = [(np.empty(0, np.intp), np.empty(0, queries.dtype)) for _ in queries]
    for start, block in _similarities("search", queries, database):
        if lengths is not None:
            block = block / lengths[start : start + block.shape[1]]
        worst = np.array([scores[-1] if len(scores) == top_m else -np.inf for _, scores in best], queries.dtype)
        better = np.asarray(block > worst[:, np.newaxis])
        for query, (ranks, scores) in enumerate(best):
            new = np.flatnonzero(better[query])
            all_scores = np.concatenate([scores, np.asarray(block)[query, new]])
            # New images have higher numbers than all before, so that the stable order keeps equal scores right.
            order = best_first(all_scores)[:top_m]
            best[query] = np.concatenate([ranks, start + new])[order], all_scores[order]
    return np.stack([ranks for ranks, _ in best]), np.stack([scores for _, scores in best])


def rerank(
    queries: FloatArray, database: FloatArray, *, top_m: int = 400, neighbours: int = 9, beta: float = 0.15
) -> IndexArray:
    """All images from the best on, the first ``top_m`` of the search in the order that :func:`rerank_order` gives.

    Parameters
    ----------
    queries: [queries, channels], float32 or float64; computed in this type.
    database: [images, channels], of the same type. All similarities are kept: queries x images elements.
    neighbours, beta: as of :func:`refine`.

    Returns
    -------
    ranks [queries, images], row numbers of the database; those from ``top_m`` on are in the order of the search.

    Raises InputError as :func:`search` and :func:`refine` do.
    """
    queries, database = descriptors("rerank", queries, database)
    _check_top_m("rerank", top_m, len(database))
    blocks = [scores for _, scores in _similarities("rerank", queries, database)]
    ranks = best_first(np.concatenate(blocks, axis=1))
    for query, ids in zip(queries, ranks, strict=True):
        order = rerank_order(query, database[ids[:top_m]], neighbours=neighbours, beta=beta)
        ids[:top_m] = ids[:top_m][order]
    return ranks


def rerank_order(query: FloatArray, descriptors: FloatArray, *, neighbours: int = 9, beta: float = 0.15) -> IndexArray:
    """The new order of one query's images.

    1. ``S1 = g_dr . query`` with the refined descriptors g_dr (:func:`refine`).
    2. g_qe, the element-wise maximum of the ``neighbours + 1`` refined descriptors with the best S1.
    3. ``S2 = g_dr . g_qe``; the images by ``(S1 + S2) / 2``, ties in the order of S1.

    Parameters
    ----------
    query: [channels]; descriptors: [M, channels], the images in the order of the search.

    Returns
    -------
    positions in ``descriptors``, [M].
    """
    refined = refine(descriptors, neighbours, beta)
    first = refined @ query
    by_first = best_first(first)
    second = refined @ expand(refined, by_first, neighbours)
    final = 0.5 * (first + second)
    return by_first[best_first(final[by_first])]


def refine(descriptors: FloatArray, neighbours: int = 9, beta: float = 0.15) -> FloatArray:
    """Each descriptor averaged with its nearest ones among ``descriptors``; not normalised again.

    ``g_i = (x_i + sum_j w_ij x_j) / (1 + sum_j w_ij)`` with ``w_ij = beta x_i . x_j`` over the ``neighbours`` most
    similar others j.

    Parameters
    ----------
    descriptors: [M, channels].

    Returns
    -------
    [M, channels].

    Raises InputError if there are not enough others, or the weights of an image (similarities below 0) do not have a
    positive sum.
    """
    check_at_least("rerank: neighbours", neighbours, 0)
    if neighbours >= len(descriptors):
        raise InputError(f"rerank: neighbours={neighbours} must be less than top_m={len(descriptors)}")
    if not np.isfinite(beta):
        raise InputError(f"rerank: beta={beta}; allowed: a finite number")
    similarity = descriptors @ descriptors.T
    positions = nearest(similarity, neighbours)
    weights = np.take_along_axis(similarity, positions, axis=1)
    weights[:, 1:] *= beta
    weights[:, 0] = 1
    total = weights.sum(axis=1, keepdims=True)
    if not (np.asarray(total) > 0).all():
        raise InputError(f"rerank: beta={beta}: weights sum to {np.asarray(total).min()}; allowed: sums above 0")
    average: FloatArray = (weights[:, np.newaxis] @ descriptors[positions])[:, 0] / total
    return average


def nearest(similarity: FloatArray, neighbours: int) -> IndexArray:
    """Of each row i of ``similarity`` [M, M]: i itself, then its most similar others; [M, neighbours + 1]."""
    others = similarity.copy()
    np.fill_diagonal(others, np.inf)
    return best_first(others)[:, : neighbours + 1]


def expand(refined: FloatArray, order: IndexArray, neighbours: int = 9) -> FloatArray:
    """The expanded query: element-wise maximum of the first ``neighbours + 1`` of ``refined`` [M, channels] in ``order``."""
    largest: FloatArray = refined[order[: neighbours + 1]].max(axis=0)
    return largest


def best_first(scores: FloatArray) -> IndexArray:
    """Positions along the last axis from the largest score on; of equal scores the first comes first."""
    order: IndexArray = np.argsort(-scores, axis=-1, kind="stable")
    return order


def row_lengths(what: str, rows: FloatArray) -> FloatArray | None:
    """Euclidean lengths [n] of rows [n, channels], read block by block; None if all are 1, within what rounding to fp16 leaves.

    Raises InputError, with ``what`` and the row, for NaN, infinity, and a row of zeros: it has no direction.
    """
    lengths = np.empty(len(rows), rows.dtype)
    step = max(1, BLOCK_ELEMENTS // rows.shape[1])
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        check_finite(what, block, start)
        lengths[start : start + step] = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
    if not (lengths > 0).all():
        raise InputError(f"{what}: row {int(np.argmin(lengths))} is zero, which has no direction")
    check_finite(f"{what}: length of row ", lengths)
    return lengths if (np.abs(lengths - 1) > UNIT_TOLERANCE).any() else None


def _similarities(what: str, queries: FloatArray, database: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """(first image, dot products [queries, images of the block]) of one block of the database after the other."""
    rows = max(1, BLOCK_ELEMENTS // max(queries.shape))
    for start in range(0, len(database), rows):
        block = database[start : start + rows]
        check_finite(f"{what}: database", block, start)
        with np.errstate(over="ignore", invalid="ignore"):
            scores = queries @ block.T
        check_finite(f"{what}: similarity of image and query ", scores.T, start)
        yield start, scores


def descriptors(what: str, queries: FloatArray, database: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Both as arrays; raises InputError unless they fit together. The values of the database are not looked at."""
    queries = features(f"{what}: queries", queries, "queries", "channels")
    database = floats(f"{what}: database", database, "images", "channels")
    if queries.shape[1] != database.shape[1]:
        raise InputError(f"{what}: queries have {queries.shape[1]} channels, the database {database.shape[1]}")
    if queries.dtype != database.dtype:
        raise InputError(f"{what}: queries are {queries.dtype}, the database {database.dtype}; give both the same type")
    return queries, database


def _check_top_m(what: str, top_m: int, images: int) -> None:
    if not 1 <= top_m <= images:
        raise InputError(f"{what}: top_m={top_m}; allowed: 1 to the size of the database, {images}")

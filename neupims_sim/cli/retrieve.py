"""``neupims-sim retrieve``: what the simulated search and reranking compute, on real descriptors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neupims_sim.cli.options import JsonOption
from neupims_sim.cli.output import print_json, print_table
from neupims_sim.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def retrieve(
    queries: Annotated[
        Path, typer.Argument(metavar="QUERIES.npy", help="Descriptors [queries, D], float32 or float64.")
    ],
    database: Annotated[Path, typer.Argument(metavar="DATABASE.npy", help="Descriptors [images, D] of the same type.")],
    top: Annotated[
        int, typer.Option(metavar="M", help="Results per query; with --rerank the ones that are reranked.")
    ] = 10,
    rerank: Annotated[bool, typer.Option("--rerank", help="Put them in the order of SuperGlobal's reranking.")] = False,
    json: JsonOption = False,
) -> None:
    """Search a database of descriptors by cosine similarity, and print the best of each query.

    Rows need not be unit vectors; one of zeros has no direction and is refused. The files are NumPy arrays; the database is read from disk
    block by block, so it may be larger than memory.
    """
    import numpy as np  # here, because NumPy is slow to load

    from neupims_sim import kernels
    from neupims_sim.kernels.retrieval import descriptors, row_lengths

    asked, images = descriptors("retrieve", _load(queries), _load(database))
    if (of_queries := row_lengths("retrieve: queries", asked)) is not None:
        asked = asked / of_queries[:, np.newaxis]
    lengths = row_lengths("retrieve: database", images)
    ranks, scores = kernels.search(asked, images, top, lengths)
    if rerank:
        for query, ids, cosines in zip(asked, ranks, scores, strict=True):
            nearby = images[ids] if lengths is None else images[ids] / lengths[ids, np.newaxis]
            order = kernels.rerank_order(query, nearby)
            ids[:], cosines[:] = ids[order], cosines[order]
    if json:
        print_json({"ranks": ranks.tolist(), "scores": scores.tolist()})
        return
    rows = [
        (query, place + 1, int(image), f"{score:.6f}")
        for query in range(len(ranks))
        for place, (image, score) in enumerate(zip(ranks[query], scores[query], strict=True))
    ]
    how = "reranked by SuperGlobal" if rerank else "by cosine similarity"
    print_table(("query", "place", "image", "similarity"), rows, f"best {top} of {len(images):,} images, {how}")


def _load(path: Path) -> npt.NDArray[np.floating[Any]]:
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise InputError(f"retrieve: {path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # the head of the file is Python's text of a mapping, which can be damaged in any way
        raise InputError(f"retrieve: {path}: not a NumPy array (.npy): {error}") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"retrieve: {path}: an archive of arrays; allowed: one array (.npy)")
    return array

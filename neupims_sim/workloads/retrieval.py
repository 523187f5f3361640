"""Image retrieval as operator traces: extraction of the queries' descriptors, search of the database, reranking."""

from __future__ import annotations

from typing import Any

from neupims_sim.config import ResnetConfig, VitConfig
from neupims_sim.config.bounds import Pixels, Queries, Vectors, Width, require
from neupims_sim.errors import InputError, suggestion
from neupims_sim.trace import Tensor, Trace, TraceHeader
from neupims_sim.workloads import resnet, vit
from neupims_sim.workloads.building import TraceBuilder
from neupims_sim.workloads.reranking import Candidates, cvnet, rrt, superglobal, top

RERANKS = ("superglobal", "cvnet", "rrt", "none")


def generate_retrieval(
    *,
    database: int,
    dimensions: int = resnet.DESCRIPTOR,
    queries: int = 1,
    top_m: int = 400,
    rerank: str = "superglobal",
    extract: VitConfig | ResnetConfig | None = None,
    image_size: tuple[int, int] = (768, 1024),
    pooling: str = "ggem",
    dtype: str = "float16",
) -> Trace:
    """The trace of a batch of queries.

    Parameters
    ----------
    database: number of vectors N.
    dimensions: of every vector, D.
    top_m: results M of a query.
    rerank: ``superglobal``, or by local features ``cvnet`` or ``rrt`` (read from the database, not extracted), or ``none``.
    extract: the model that extracts the queries' descriptors from images first (None: descriptors are given).
    image_size: height and width of all images, pixels; used by ``extract`` and by ``rerank=cvnet``.
    pooling: of a ViT as extractor.

    Operators: those of ``resnet.extract`` or ``vit.extract``; ``search`` of all queries [Q, D] x [D, N] and ``ranks``, the best M of each;
    per query (``request``) those of the reranker in ``reranking``, the last of which is ``order``.

    Raises ``InputError`` for unknown names, sizes below 1, M > N, an extractor of other dimensions.
    """
    require("database", database, Vectors)
    require("dimensions", dimensions, Width)
    require("queries", queries, Queries)
    require("top", top_m, Vectors)
    for side in image_size:
        require("image_size", max(1, side), Pixels)  # what is too small is for the models to say
    if top_m > database:
        raise InputError(f"top={top_m} is more than the database={database} vectors")
    if rerank not in RERANKS:
        raise InputError(f"unknown rerank {rerank!r}; {suggestion(rerank, RERANKS)}")
    builder = TraceBuilder(dtype)
    vectors = _queries(builder, queries, dimensions, extract, image_size, pooling)
    table = builder.state("database", database, dimensions)
    similarities = builder.add("search", "similarity", (vectors, table), (queries, database))
    ranks = top(builder, "ranks", similarities, top_m)
    for query in range(queries) if rerank != "none" else ():
        own = builder.activation(f"{vectors.name}[{query}]", 1, dimensions)
        found = Tensor(f"{ranks.name}[{query}]", (top_m,), ranks.dtype)
        candidates = Candidates(query, own, found, table)
        if rerank == "superglobal":
            superglobal(builder, candidates)
        elif rerank == "rrt":
            rrt(builder, candidates)
        else:
            cvnet(builder, candidates, image_size)
    attrs: dict[str, Any] = {"database": database, "dimensions": dimensions, "top": top_m, "rerank": rerank}
    if extract is not None:
        attrs["extract"] = extract.name
    if extract is not None or rerank == "cvnet":
        attrs["image_size"] = list(image_size)
    return Trace(TraceHeader("retrieval", "retrieve", queries, dtype, attrs=attrs), tuple(builder.operators))


def _queries(
    builder: TraceBuilder,
    queries: int,
    dimensions: int,
    model: VitConfig | ResnetConfig | None,
    image_size: tuple[int, int],
    pooling: str,
) -> Tensor:
    """Descriptors of the queries [Q, D], extracted or given."""
    if model is None:
        return builder.activation("descriptors", queries, dimensions)
    if isinstance(model, ResnetConfig):
        descriptors = resnet.extract(builder, model, image_size, queries)
    else:
        descriptors = vit.extract(builder, model, image_size, queries, pooling)
    if descriptors.shape[1] != dimensions:
        raise InputError(f"extract={model.name} gives {descriptors.shape[1]} dimensions, not dimensions={dimensions}")
    return descriptors

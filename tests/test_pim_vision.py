"""Similarity search and pooling in PIM: the program that is timed computes the answer, and does the work that it states."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cases import memory

from neupims_sim.errors import InputError
from neupims_sim.kernels import average_pool, gem, ggem, search
from neupims_sim.mapping.pim_interpreter import PimMemory, run_pooling, run_search
from neupims_sim.mapping.pim_pooling import PoolingLayout
from neupims_sim.mapping.pim_search import SearchLayout
from neupims_sim.memory import CommandDevice, resolve
from neupims_sim.memory.program import GWRITE, TILE


def similarities(layout: SearchLayout, queries: np.ndarray, database: np.ndarray) -> tuple[np.ndarray, PimMemory]:
    """What PIM computes, its rows in two regions that touch."""
    rows = layout.database_rows(len(database))
    banks = PimMemory(rows + layout.query_rows(len(queries)), layout.banks, layout.row_elements, layout.multipliers)
    return run_search(banks, layout, 0, rows, queries, database), banks


@settings(max_examples=40, deadline=None)
@given(
    dimensions=st.integers(1, 200),
    vectors=st.integers(1, 70),
    queries=st.integers(1, 4),
    banks=st.sampled_from([1, 4, 16]),
    row_elements=st.sampled_from([16, 48, 64]),
    multipliers=st.sampled_from([1, 4, 16]),
)
def test_pim_computes_the_similarities(
    dimensions: int, vectors: int, queries: int, banks: int, row_elements: int, multipliers: int
) -> None:
    layout = SearchLayout(dimensions, banks, row_elements, multipliers)
    rng = np.random.default_rng(0)
    wanted, database = rng.normal(size=(queries, dimensions)), rng.normal(size=(vectors, dimensions))
    found, banks_after = similarities(layout, wanted, database)
    assert found == pytest.approx(wanted @ database.T, abs=1e-9)
    data = banks_after.cells[: layout.database_rows(vectors)] != 0
    assert np.count_nonzero(data) == database.size
    assert set(banks_after.reads[: layout.database_rows(vectors)][data]) == {queries}


def test_pim_finds_the_top_m_that_the_kernel_finds() -> None:
    """Descriptors dealt to channels in turn; the top M of all channels' similarities."""
    rng = np.random.default_rng(1)
    channels, top_m = 4, 20
    database, queries = rng.normal(size=(500, 96)), rng.normal(size=(3, 96))
    scores = np.empty((3, 500))
    for channel in range(channels):
        scores[:, channel::channels] = similarities(SearchLayout(96), queries, database[channel::channels])[0]
    ranks, expected = search(queries, database, top_m)
    order = np.argsort(-scores, axis=1)[:, :top_m]
    assert np.array_equal(order, ranks)
    assert np.take_along_axis(scores, order, axis=1) == pytest.approx(expected)


@pytest.mark.parametrize(("name", "chunks", "last_dots"), [("hbm2_pim_dual", 4, 32), ("gddr6_aim", 2, 64)])
def test_a_descriptor_of_2048_elements_fills_whole_rows(name: str, chunks: int, last_dots: int) -> None:
    layout = SearchLayout.on(memory(name), 2048, 2)
    assert (layout.chunks, layout.chunk_dots(layout.chunks - 1), layout.dots) == (chunks, last_dots, 128)


def test_counts_are_those_of_the_program_and_of_the_memory_that_runs_it() -> None:
    config = memory("hbm2_pim_dual")
    layout = SearchLayout.on(config, 1000, 2)
    program, counts = layout.program(2, 100, 10, 5000), layout.counts(2, 100)
    assert (program.gwrites, program.tiles, program.dots) == (counts.gwrites, counts.tiles, counts.dots)
    device = CommandDevice(resolve(config))
    item = device.submit_programs({0: program})
    done: list[int] = []
    while item not in done:
        done += device.advance(device.time + 1_000_000)[1]
    counters = device.counters()
    assert (counters.tiles, counters.dot_products, counters.result_reads) == (counts.tiles, counts.dots, counts.results)
    assert counters.commands["GWRITE"] == counts.gwrites


@pytest.mark.parametrize("sizes", [{"dimensions": 0}, {"dimensions": 8, "multipliers": 1024}])
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(InputError, match="search layout"):
        SearchLayout(**sizes)


def test_a_search_without_queries_or_descriptors_is_refused() -> None:
    with pytest.raises(InputError, match="each must be at least 1"):
        SearchLayout(8).program(0, 5, 0, 10)


@settings(max_examples=40, deadline=None)
@given(
    dimensions=st.integers(1, 200),
    vectors=st.integers(1, 70),
    tiles=st.integers(1, 40),
    row_elements=st.sampled_from([16, 64]),
)
def test_pieces_of_a_search_do_what_the_whole_does(
    dimensions: int, vectors: int, tiles: int, row_elements: int
) -> None:
    """Whatever another program leaves in the global vector buffer between them."""
    layout = SearchLayout(dimensions, banks=4, row_elements=row_elements, multipliers=4)
    rng = np.random.default_rng(0)
    query, database = rng.normal(size=(1, dimensions)), rng.normal(size=(vectors, dimensions))
    expected, banks = similarities(layout, query, database)
    rows = layout.database_rows(vectors)
    whole = layout.program(1, vectors, 0, rows)
    pieces = layout.programs(vectors, 0, rows, tiles)
    results = []
    for piece in pieces:
        banks.buffer[:] = np.nan
        results += banks.execute(piece)
    parts = np.array(results).reshape(layout.chunks, layout.groups(vectors) * 4)
    assert parts.sum(axis=0)[:vectors] == pytest.approx(expected[0], abs=1e-9)
    tile_rows = [piece.operations[piece.operations[:, 0] == TILE] for piece in pieces]
    assert np.array_equal(np.concatenate(tile_rows), whole.operations[whole.operations[:, 0] == TILE])
    assert [len(found) for found in tile_rows[:-1]] == [tiles] * (len(pieces) - 1)
    assert all(piece.operations[0, 0] == GWRITE for piece in pieces)
    assert sum(piece.gwrites for piece in pieces) <= whole.gwrites + len(pieces) - 1


def test_pieces_without_tiles_are_refused() -> None:
    with pytest.raises(InputError, match="tiles_per_program=0 must be at least 1"):
        SearchLayout(8).programs(5, 0, 10, 0)


def pooled(layout: PoolingLayout, tokens: np.ndarray) -> tuple[np.ndarray, PimMemory]:
    """What PIM computes."""
    rows = layout.token_rows(len(tokens))
    banks = PimMemory(rows + layout.vector_rows, layout.banks, layout.row_elements, layout.multipliers)
    return run_pooling(banks, layout, 0, rows, tokens), banks


pooling_layouts = st.builds(
    PoolingLayout,
    tokens=st.integers(1, 90),
    channels=st.integers(1, 40),
    banks=st.sampled_from([1, 4, 8]),
    row_elements=st.sampled_from([16, 50, 64]),
    multipliers=st.sampled_from([1, 4, 16]),
)


@settings(max_examples=60, deadline=None)
@given(layout=pooling_layouts, images=st.integers(1, 7))
def test_pim_averages_tokens(layout: PoolingLayout, images: int) -> None:
    tokens = np.random.default_rng(2).uniform(0.1, 2, (images, layout.tokens, layout.channels))
    found, banks = pooled(layout, tokens)
    assert found == pytest.approx(average_pool(tokens))
    rows = layout.token_rows(images)
    data = banks.cells[:rows] != 0
    assert np.count_nonzero(data) == tokens.size
    assert set(banks.reads[:rows][data]) == {1}
    assert np.count_nonzero(banks.cells[rows:]) == layout.images_per_row * layout.tokens


@settings(max_examples=25, deadline=None)
@given(layout=pooling_layouts, p=st.floats(1, 5))
def test_pim_pools_as_the_kernels_do(layout: PoolingLayout, p: float) -> None:
    """Powers before the tokens are written, roots after the averages are read."""
    x = np.random.default_rng(3).uniform(0.1, 2, (3, layout.tokens, layout.channels))
    assert pooled(layout, x**p)[0] ** (1 / p) == pytest.approx(gem(x, p))
    exponents = np.linspace(p, p + 1, layout.channels)
    expected = ggem(x, exponents, groups=layout.channels)
    assert pooled(layout, x**exponents)[0] ** (1 / exponents) == pytest.approx(expected)


def test_a_row_holds_two_images_of_196_tokens() -> None:
    layout = PoolingLayout.on(memory("hbm2_pim_dual"), 196, 768, 2)
    assert (layout.segment_tokens, layout.images_per_row, layout.segments, layout.channel_tiles) == (208, 2, 1, 24)
    assert layout.program(3, 100, 7).operations.tolist() == [
        [GWRITE, 7, 0, 0],
        *([TILE, 100 + row, 2, 13] for row in range(24)),
        *([TILE, 124 + row, 1, 13] for row in range(24)),
    ]
    assert layout.token_bytes(3) == 48 * 32 * 1024
    assert layout.vector_row_bytes == 2 * 208 * 2


@settings(max_examples=40, deadline=None)
@given(layout=pooling_layouts, images=st.integers(1, 7))
def test_counts_of_a_pooling_are_those_of_its_program(layout: PoolingLayout, images: int) -> None:
    program, counts = layout.program(images, 0, 500), layout.counts(images)
    readouts = int(program.operations[program.operations[:, 0] == TILE, 2].sum())
    found = (program.gwrites, program.tiles, readouts, program.dots)
    assert found == (counts.gwrites, counts.tiles, counts.results, counts.dots)


def test_a_pooling_without_images_or_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="images=0 must be at least 1"):
        PoolingLayout(196, 768).program(0, 0, 1)
    with pytest.raises(InputError, match="pooling layout: tokens=0"):
        PoolingLayout(0, 768)

"""Similarity search and pooling in PIM: the program that is timed computes the answer, and does the work that it states."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cases import memory

from neupims_sim.errors import InputError
from neupims_sim.kernels import gem, search
from neupims_sim.mapping.pim_attention import AttentionLayout, AttentionRows
from neupims_sim.mapping.pim_interpreter import PimMemory, run_mean, run_search
from neupims_sim.mapping.pim_search import SearchLayout
from neupims_sim.memory import CommandDevice, resolve


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


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(1, 90), channels=st.integers(1, 70), p=st.floats(1, 5), row_elements=st.sampled_from([16, 64])
)
def test_pim_pools_tokens_as_the_kernel_does(tokens: int, channels: int, p: float, row_elements: int) -> None:
    layout = AttentionLayout(kv_heads=1, head_size=channels, banks=8, row_elements=row_elements, multipliers=4)
    values = layout.value_rows(tokens)
    rows = AttentionRows(key=0, value=0, query=values, probability=values)
    x = np.random.default_rng(2).uniform(0.1, 2, (tokens, channels))
    banks = PimMemory(values + layout.probability_rows(tokens), 8, row_elements, 4)
    assert run_mean(banks, layout, rows, x**p) ** (1 / p) == pytest.approx(gem(x[np.newaxis], p)[0])

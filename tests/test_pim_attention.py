"""Attention programs compute attention, and read what they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neupims_sim.errors import InputError
from neupims_sim.kernels import decode_attention
from neupims_sim.mapping.pim_attention import AttentionLayout, AttentionRows
from neupims_sim.mapping.pim_interpreter import PimMemory, run_attention
from neupims_sim.memory.program import GWRITE, TILE

layouts = st.builds(
    AttentionLayout,
    kv_heads=st.integers(1, 7),
    head_size=st.one_of(st.sampled_from([64, 80, 96, 128]), st.integers(1, 150)),
    group=st.integers(1, 4),
    banks=st.sampled_from([4, 8, 32]),
    row_elements=st.sampled_from([32, 64, 100, 512]),
    multipliers=st.sampled_from([4, 12, 16]),
)


def regions(layout: AttentionLayout, tokens: int) -> tuple[AttentionRows, int]:
    """Regions one after the other with a gap before the first, and the rows of it all."""
    sizes = [layout.key_rows(tokens), layout.value_rows(tokens), layout.query_rows, layout.probability_rows(tokens)]
    starts = np.cumsum([3, *sizes]).tolist()
    return AttentionRows(*starts[:4]), starts[4]


def random_attention(layout: AttentionLayout, tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(tokens)
    shapes = [(layout.heads, layout.head_size)] + 2 * [(tokens, layout.kv_heads, layout.head_size)]
    query, keys, values = (random.uniform(0.5, 2, shape) * random.choice([-1, 1], shape) for shape in shapes)
    return query, keys, values


@settings(deadline=None, max_examples=60)
@given(layouts, st.integers(1, 300))
def test_programs_compute_attention_and_read_every_kv_element_once_per_query_head(
    layout: AttentionLayout, tokens: int
) -> None:
    rows, end = regions(layout, tokens)
    memory = PimMemory(end, layout.banks, layout.row_elements, layout.multipliers)
    query, keys, values = random_attention(layout, tokens)

    output = run_attention(memory, layout, rows, query, keys, values)

    np.testing.assert_allclose(output, decode_attention(query, keys, values), atol=1e-5)
    kv_cells = memory.cells[rows.key : rows.query]
    kv_reads = memory.reads[rows.key : rows.query]
    assert np.count_nonzero(kv_cells) == keys.size + values.size, "each K and V element has a cell, padding holds zeros"
    assert (kv_reads[kv_cells != 0] == layout.group).all()
    assert kv_reads.max() == layout.group
    assert memory.reads[: rows.key].max(initial=0) == memory.reads[rows.query :].max(initial=0) == 0


@settings(deadline=None)
@given(layouts, st.integers(1, 3000))
def test_counts_are_those_of_the_programs(layout: AttentionLayout, tokens: int) -> None:
    rows, _ = regions(layout, tokens)
    dot_bytes = layout.banks * layout.multipliers * layout.element_bytes
    for program, counts, vector_row, vector_bytes, pim_row in (
        (
            layout.logits_program(tokens, rows),
            layout.logits_counts(tokens),
            rows.query,
            layout.query_row_bytes(),
            (rows.key, rows.value),
        ),
        (
            layout.attend_program(tokens, rows),
            layout.attend_counts(tokens),
            rows.probability,
            layout.probability_row_bytes(tokens),
            (rows.value, rows.query),
        ),
    ):
        kind, row, readouts, _ = program.operations.T
        assert (program.gwrites, program.tiles, program.dots) == (counts.gwrites, counts.tiles, counts.dots)
        assert counts.results == readouts.sum()
        assert counts.internal_bytes == program.dots * dot_bytes
        assert counts.result_bytes == counts.results * layout.banks * layout.element_bytes
        assert counts.vector_bytes == vector_bytes.sum()
        assert sorted(row[kind == GWRITE]) == list(range(vector_row, vector_row + len(vector_bytes)))
        assert set(row[kind == TILE]) == set(range(*pim_row)), "tiles open exactly the allocated PIM rows"


@given(layouts, st.integers(1, 600))
def test_a_growing_context_appends_rows_and_moves_nothing(layout: AttentionLayout, tokens: int) -> None:
    rows = AttentionRows(0, 0, 0, 0)
    for build in (layout.logits_program, layout.attend_program):
        shorter, longer = (set(map(tuple, build(n, rows).operations[:, :2].tolist())) for n in (tokens, tokens + 1))
        assert shorter <= longer
    assert layout.key_rows(tokens) <= layout.key_rows(tokens + 1)
    assert layout.value_rows(tokens) <= layout.value_rows(tokens + 1)


@pytest.mark.parametrize("tokens", [1, 32, 33, 300, 512, 513, 2048])
@pytest.mark.parametrize("heads", [8, 10, 12, 14])
def test_counts_of_heads_of_128_are_those_of_the_paper(heads: int, tokens: int) -> None:
    """NeuPIMs section 5 with the shards of GPT3-7B, 13B, 175B and 30B."""
    layout = AttentionLayout(kv_heads=heads, head_size=128)
    rows = regions(layout, tokens)[0]
    chunks, segments = -(-heads * 128 // 512), -(-tokens // 512)

    logits = layout.logits_program(tokens, rows)
    assert (logits.gwrites, logits.tiles) == (chunks, chunks * -(-tokens // 32))
    tiles = logits.operations[logits.operations[:, 0] == TILE]
    assert (tiles[:, 3] == 8).all()
    assert set(tiles[:, 2]) == {4, heads % 4 or 4}

    attend = layout.attend_program(tokens, rows)
    assert (attend.gwrites, attend.tiles) == (heads * segments, heads * segments * 4)
    tiles = attend.operations[attend.operations[:, 0] == TILE].reshape(heads, segments, 4, 4)
    assert (tiles[..., 2] == 1).all()
    assert (tiles[:, -1, :, 3] == -(-(tokens - 512 * (segments - 1)) // 16)).all()
    assert (tiles[:, :-1, :, 3] == 32).all()


def test_programs_of_the_same_length_differ_only_in_their_rows() -> None:
    layout = AttentionLayout(kv_heads=2, head_size=64, group=2)
    first = layout.attend_program(100, AttentionRows(0, 0, 0, 0)).operations
    second = layout.attend_program(100, AttentionRows(7, 50, 9, 1000)).operations
    shift = second - first
    assert set(shift[first[:, 0] == TILE, 1]) == {50}
    assert set(shift[first[:, 0] == GWRITE, 1]) == {1000}
    assert not shift[:, [0, 2, 3]].any()


def test_appending_a_token_writes_one_burst_per_value_element() -> None:
    layout = AttentionLayout(kv_heads=8, head_size=128)
    assert layout.append_bursts(64) == 2 * 1024 // 64 + 1024


def test_impossible_layouts_are_refused_with_the_value() -> None:
    with pytest.raises(InputError, match="head_size=0"):
        AttentionLayout(kv_heads=1, head_size=0)
    with pytest.raises(InputError, match=r"16 multipliers.*not 8"):
        AttentionLayout(kv_heads=1, head_size=64, row_elements=8)


def test_a_tile_beyond_its_row_is_an_error() -> None:
    layout = AttentionLayout(kv_heads=4, head_size=128)
    memory = PimMemory(2, 32, row_elements=256, multipliers=16)
    with pytest.raises(ValueError, match="beyond the 256 elements"):
        memory.execute(layout.logits_program(1, AttentionRows(0, 0, 1, 1)))

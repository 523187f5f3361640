"""Executes PIM programs on real data: proof that what the memory model times also computes the right answer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from neupims_sim.kernels import attention_probabilities
from neupims_sim.mapping.pim_attention import AttentionLayout, AttentionRows, IntArray, Positions
from neupims_sim.mapping.pim_pooling import PoolingLayout
from neupims_sim.mapping.pim_search import SearchLayout
from neupims_sim.memory.program import GWRITE, PimProgram

FloatArray = npt.NDArray[np.float64]


class PimMemory:
    """The banks of one channel with their multipliers, and the channel's global vector buffer.

    Attributes
    ----------
    cells: float64 [rows, banks, row_elements], zero at first.
    buffer: float64 [row_elements].
    reads: int64 [rows, banks, row_elements], how often a dot-product has read each element.
    """

    def __init__(self, rows: int, banks: int, row_elements: int, multipliers: int) -> None:
        self.cells: FloatArray = np.zeros((rows, banks, row_elements))
        self.buffer: FloatArray = np.zeros(row_elements)
        self.reads: IntArray = np.zeros((rows, banks, row_elements), np.int64)
        self._multipliers = multipliers

    def write(self, first_row: int, positions: Positions, data: FloatArray) -> None:
        """Store ``data`` at ``positions`` of the region that starts at ``first_row``."""
        self.cells[first_row + positions.row, positions.bank, positions.column] = data

    def execute(self, program: PimProgram) -> list[FloatArray]:
        """Run ``program``; returns the results of each TILE in order, [readouts, banks] each."""
        results = []
        for kind, row, readouts, dots in program.operations.tolist():
            if kind == GWRITE:
                self.buffer = self.cells[row, 0].copy()
                continue
            width = dots * self._multipliers
            banks, row_elements = self.cells.shape[1:]
            if readouts * width > row_elements:
                raise ValueError(f"TILE {row} {readouts} {dots} reads beyond the {row_elements} elements of a row")
            used = slice(0, readouts * width)
            self.reads[row, :, used] += 1
            operands = self.cells[row, :, used].reshape(banks, readouts, width)
            results.append(np.einsum("brw,rw->rb", operands, self.buffer[used].reshape(readouts, width)))
        return results


def _indices(data: FloatArray) -> list[IntArray]:
    """The index along each axis of ``data``, shaped to broadcast against it."""
    return list(np.ogrid[tuple(slice(size) for size in data.shape)])


def store_context(
    memory: PimMemory, layout: AttentionLayout, rows: AttentionRows, keys: FloatArray, values: FloatArray
) -> None:
    """Lay out K and V, [tokens, kv_heads, head_size] each."""
    token, head, element = _indices(keys)
    memory.write(rows.key, layout.key_positions(token, head, element), keys)
    memory.write(rows.value, layout.value_positions(token, head, element), values)


def run_logits(
    memory: PimMemory, layout: AttentionLayout, rows: AttentionRows, query: FloatArray, context_tokens: int
) -> FloatArray:
    """q . k, unscaled: query [heads, head_size] -> [heads, tokens]."""
    head, element = _indices(query)
    memory.write(rows.query, layout.query_positions(head, element), query)
    results = iter(memory.execute(layout.logits_program(context_tokens, rows)))
    logits = np.zeros((layout.kv_heads, layout.group, context_tokens))
    for chunk, readouts in enumerate(layout.chunk_readouts()[0].tolist()):
        first_head = chunk // layout.rows_per_head * layout.heads_per_row
        for member in range(layout.group):
            tiles = [next(results) for _ in range(layout.token_tiles(context_tokens))]
            logits[first_head : first_head + readouts, member] += np.hstack(tiles)[:, :context_tokens]
    return logits.reshape(layout.heads, context_tokens)


def run_attend(
    memory: PimMemory, layout: AttentionLayout, rows: AttentionRows, probabilities: FloatArray
) -> FloatArray:
    """Probabilities x V: [heads, tokens] -> [heads, head_size]; the NPU adds the partial sums of the segments."""
    context_tokens = probabilities.shape[1]
    head, token = _indices(probabilities)
    memory.write(rows.probability, layout.probability_positions(head, token), probabilities)
    results = np.array(memory.execute(layout.attend_program(context_tokens, rows)))
    partial = results.reshape(layout.heads, layout.segments(context_tokens), layout.element_tiles * layout.banks)
    output: FloatArray = partial.sum(axis=1)[:, : layout.head_size]
    return output


def run_attention(
    memory: PimMemory,
    layout: AttentionLayout,
    rows: AttentionRows,
    query: FloatArray,
    keys: FloatArray,
    values: FloatArray,
) -> FloatArray:
    """Decode attention on PIM, with the softmax on the NPU; arguments and result as ``kernels.decode_attention``."""
    store_context(memory, layout, rows, keys, values)
    logits = run_logits(memory, layout, rows, query, len(keys))
    return run_attend(memory, layout, rows, attention_probabilities(logits, layout.head_size))


def run_search(
    memory: PimMemory,
    layout: SearchLayout,
    database_row: int,
    query_row: int,
    queries: FloatArray,
    database: FloatArray,
) -> FloatArray:
    """Similarities on PIM: queries [queries, dimensions], descriptors of one channel [vectors, dimensions] -> [queries, vectors]."""
    vector, element = _indices(database)
    memory.write(database_row, layout.database_positions(vector, element), database)
    query, element = _indices(queries)
    memory.write(query_row, layout.query_positions(query, element), queries)
    vectors = len(database)
    results = np.array(memory.execute(layout.program(len(queries), vectors, database_row, query_row)))
    parts = results.reshape(len(queries), layout.chunks, layout.groups(vectors) * layout.banks)
    similarities: FloatArray = parts.sum(axis=1)[:, :vectors]
    return similarities


def run_pooling(
    memory: PimMemory, layout: PoolingLayout, token_row: int, vector_row: int, tokens: FloatArray
) -> FloatArray:
    """Averages on PIM: [images, tokens, channels] -> [images, channels]; the NPU adds the partial sums of the segments.

    Generalized means raise to the power before they write and take the root of what comes back.
    """
    images, _, channels = tokens.shape
    memory.write(token_row, layout.token_positions(*_indices(tokens)), tokens)
    factors = np.full((layout.images_per_row, layout.tokens), 1 / layout.tokens)
    memory.write(vector_row, layout.vector_positions(*_indices(factors)), factors)
    results = iter(memory.execute(layout.program(images, token_row, vector_row)))
    averages = np.zeros((images, layout.channel_tiles * layout.banks))
    for _ in range(layout.segments):
        for first in range(0, images, layout.images_per_row):
            tiles = [next(results) for _ in range(layout.channel_tiles)]
            averages[first : first + layout.images_per_row] += np.hstack(tiles)
    return averages[:, :channels]

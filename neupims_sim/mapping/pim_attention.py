"""Decode attention of one request as PIM programs, and the layout of K and V that these programs consume.

Layout (NeuPIMs, ASPLOS 2024, section 5; ``m`` multipliers per bank):

- K: token j lies in bank j mod banks. A PIM row holds a whole number of heads of one token, each padded with zeros to a
  multiple of m, so that every readout of a tile is one head; a head longer than a row takes several rows.
- V is transposed: element e of a head lies in bank e mod banks. A row holds that element of consecutive tokens.
- Query and probabilities are vectors that the NPU writes to bank 0 of normal rows, where GWRITE reads them.

With heads of 128 fp16 elements and rows of 1 KB this is the paper's layout: 4 heads, or 512 tokens, per row. Rows are
appended as the context grows; no token ever moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from neupims_sim.config.memory import MemoryConfig
from neupims_sim.errors import InputError
from neupims_sim.memory.program import TILE, PimProgram

IntArray = npt.NDArray[np.int64]


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


class AttentionRows(NamedTuple):
    """First row of each of a request's four regions in its channel; regions of consecutive rows."""

    key: int
    """PIM rows, ``AttentionLayout.key_rows`` of them."""
    value: int
    """PIM rows, ``AttentionLayout.value_rows``."""
    query: int
    """Normal rows (bank 0), ``AttentionLayout.query_rows``."""
    probability: int
    """Normal rows (bank 0), ``AttentionLayout.probability_rows``."""


class Positions(NamedTuple):
    """Where elements lie: row relative to the region, bank, element of the row. Arrays broadcast against each other."""

    row: IntArray
    bank: IntArray
    column: IntArray


class PimCounts(NamedTuple):
    """Work of one program."""

    gwrites: int
    tiles: int
    results: int
    """Result reads, each one value from every bank."""
    dots: int
    """Dot-product commands, each m multiply-adds in every bank."""
    internal_bytes: int
    """Read from open PIM rows by dot-products, padding included."""
    result_bytes: int
    """Read by the NPU: one element per bank and result."""
    vector_bytes: int
    """Written by the NPU as GWRITE sources, padding included."""


def check_sizes(what: str, sizes: Mapping[str, int]) -> None:
    """Raise InputError unless all sizes of a layout are positive and a dot-product fits in a row."""
    for name, value in sizes.items():
        if value < 1:
            raise InputError(f"{what}: {name}={value} must be at least 1")
    if sizes["multipliers"] > sizes["row_elements"]:
        raise InputError(
            f"{what}: {sizes['multipliers']} multipliers per bank need a row of at least as many elements, "
            f"not {sizes['row_elements']}"
        )


def bank_sizes(memory: MemoryConfig, element_bytes: int) -> dict[str, int]:
    """What a layout needs to know of one channel of ``memory``."""
    return {
        "banks": memory.organization.banks,
        "row_elements": memory.organization.row_bytes // element_bytes,
        "multipliers": memory.pim.multipliers_per_bank,
        "element_bytes": element_bytes,
    }


@dataclass(frozen=True)
class AttentionLayout:
    """How one decoder layer's K and V of a request lie in the banks of one channel. Raises InputError if they cannot.

    ``kv_heads`` are those of this device's shard; each serves ``group`` query heads (1: multi-head attention).
    """

    kv_heads: int
    head_size: int
    group: int = 1
    banks: int = 32
    row_elements: int = 512
    multipliers: int = 16
    element_bytes: int = 2

    def __post_init__(self) -> None:
        check_sizes("attention layout", vars(self))

    @staticmethod
    def on(memory: MemoryConfig, kv_heads: int, head_size: int, group: int, element_bytes: int) -> AttentionLayout:
        """The layout in one channel of ``memory``."""
        return AttentionLayout(
            kv_heads=kv_heads,
            head_size=head_size,
            group=group,
            **bank_sizes(memory, element_bytes),
        )

    @property
    def heads(self) -> int:
        """Query heads of this shard; head i uses K and V head ``i // group``."""
        return self.kv_heads * self.group

    @property
    def row_tokens(self) -> int:
        """Elements of a row that dot-products reach: a multiple of m. The tokens in a row of V."""
        return self.row_elements // self.multipliers * self.multipliers

    @property
    def padded_head(self) -> int:
        """Elements of a K head with its zero padding."""
        return _ceil(self.head_size, self.multipliers) * self.multipliers

    @property
    def heads_per_row(self) -> int:
        """Heads in a row of K."""
        return max(1, self.row_tokens // self.padded_head)

    @property
    def rows_per_head(self) -> int:
        """Rows that one head of one token takes in K; more than 1 only for a head longer than a row."""
        return _ceil(self.padded_head, self.row_tokens)

    @property
    def chunks(self) -> int:
        """Rows that hold one token's K: ceil(E_tp / 512) in the paper."""
        return _ceil(self.kv_heads, self.heads_per_row) * self.rows_per_head

    @property
    def element_tiles(self) -> int:
        """Tiles that cover the elements of one V head, one per bank."""
        return _ceil(self.head_size, self.banks)

    @property
    def query_rows(self) -> int:
        """Normal rows of the query: one per chunk and member of the group."""
        return self.chunks * self.group

    def token_tiles(self, context_tokens: int) -> int:
        """Tiles that cover the context's tokens in one chunk of K."""
        return _ceil(context_tokens, self.banks)

    def segments(self, context_tokens: int) -> int:
        """Rows of V that the context's tokens span for one element: ceil(L / 512) in the paper."""
        return _ceil(context_tokens, self.row_tokens)

    def key_rows(self, context_tokens: int) -> int:
        """PIM rows of K."""
        return self.token_tiles(context_tokens) * self.chunks

    def value_rows(self, context_tokens: int) -> int:
        """PIM rows of V."""
        return self.segments(context_tokens) * self.kv_heads * self.element_tiles

    def cache_rows(self, context_tokens: int, layers: int) -> int:
        """PIM rows that the K and V of ``layers`` layers take when V rows are shared.

        A row of V holds ``row_tokens`` tokens of one element, and most contexts end within one. The rest of the row can
        hold V of other heads, layers or requests from a whole dot-product (m tokens) on: a tile then starts at that
        column and takes as long. So V counts by dot-products, not by rows.
        """
        dots = _ceil(context_tokens, self.multipliers) * self.kv_heads * self.element_tiles
        return layers * self.key_rows(context_tokens) + _ceil(layers * dots * self.multipliers, self.row_tokens)

    def probability_rows(self, context_tokens: int) -> int:
        """Normal rows of the probabilities: one per segment and query head."""
        return self.segments(context_tokens) * self.heads

    def key_positions(self, token: IntArray, kv_head: IntArray, element: IntArray) -> Positions:
        """Where elements of K lie."""
        chunk = kv_head // self.heads_per_row * self.rows_per_head + element // self.row_tokens
        column = kv_head % self.heads_per_row * self.padded_head + element % self.row_tokens
        return Positions(token // self.banks * self.chunks + chunk, token % self.banks, column)

    def value_positions(self, token: IntArray, kv_head: IntArray, element: IntArray) -> Positions:
        """Where elements of V lie."""
        segment = token // self.row_tokens
        row = (segment * self.kv_heads + kv_head) * self.element_tiles + element // self.banks
        return Positions(row, element % self.banks, token % self.row_tokens)

    def query_positions(self, head: IntArray, element: IntArray) -> Positions:
        """Where elements of the query lie: the columns of the K head they multiply."""
        chunk, _, column = self.key_positions(np.zeros_like(head), head // self.group, element)
        return Positions(chunk * self.group + head % self.group, np.zeros_like(column), column)

    def probability_positions(self, head: IntArray, token: IntArray) -> Positions:
        """Where probabilities lie: the columns of the V tokens they multiply."""
        column = token % self.row_tokens
        return Positions(token // self.row_tokens * self.heads + head, np.zeros_like(column), column)

    def chunk_readouts(self) -> tuple[IntArray, IntArray]:
        """(heads in the row, dot-products per head) of each chunk of K, int64 [chunks] each."""
        if self.rows_per_head > 1:
            width = np.full(self.rows_per_head, self.row_tokens)
            width[-1] = self.padded_head - self.row_tokens * (self.rows_per_head - 1)
            return np.ones(self.chunks, np.int64), np.tile(width // self.multipliers, self.kv_heads)
        first_head = np.arange(self.chunks) * self.heads_per_row
        heads = np.minimum(self.heads_per_row, self.kv_heads - first_head)
        return heads, np.full(self.chunks, self.padded_head // self.multipliers)

    def segment_dots(self, context_tokens: int) -> IntArray:
        """Dot-products over the tokens of each segment, int64 [segments]."""
        first_token = np.arange(self.segments(context_tokens)) * self.row_tokens
        tokens = np.minimum(self.row_tokens, context_tokens - first_token)
        return -(-tokens // self.multipliers)

    def query_row_bytes(self) -> IntArray:
        """Bytes from the start of each query row that the NPU writes, padding included, int64 [query_rows]."""
        readouts, dots = self.chunk_readouts()
        return np.repeat(readouts * dots, self.group) * (self.multipliers * self.element_bytes)

    def probability_row_bytes(self, context_tokens: int) -> IntArray:
        """Bytes from the start of each probability row that the NPU writes, int64 [probability_rows]."""
        return np.repeat(self.segment_dots(context_tokens), self.heads) * (self.multipliers * self.element_bytes)

    def append_bursts(self, burst_bytes: int) -> int:
        """Write bursts that append one token: one row of K per chunk, but every element of V is in a row of its own."""
        readouts, dots = self.chunk_readouts()
        key_bytes = readouts * dots * (self.multipliers * self.element_bytes)
        return int((-(-key_bytes // burst_bytes)).sum()) + self.kv_heads * self.head_size

    def logits_program(self, context_tokens: int, rows: AttentionRows) -> PimProgram:
        """q . k for every query head and token.

        Per chunk and group member: GWRITE of the query, then one tile per ``banks`` tokens with one result per head.
        """
        return _relocate(_logits_template(self, self.token_tiles(context_tokens)), rows.query, rows.key)

    def attend_program(self, context_tokens: int, rows: AttentionRows) -> PimProgram:
        """Probabilities x V for every query head.

        Per query head and segment of tokens: GWRITE of the probabilities, then one tile per ``banks`` elements with one
        result, a partial sum over the segment's tokens.
        """
        template = _attend_template(self, _ceil(context_tokens, self.multipliers))
        return _relocate(template, rows.probability, rows.value)

    def logits_counts(self, context_tokens: int) -> PimCounts:
        """Work of :meth:`logits_program`."""
        tiles = self.token_tiles(context_tokens)
        head_dots = self.padded_head // self.multipliers
        return self._counts(
            gwrites=self.query_rows,
            tiles=self.query_rows * tiles,
            results=self.heads * self.rows_per_head * tiles,
            dots=self.heads * head_dots * tiles,
            vector_elements=self.heads * self.padded_head,
        )

    def attend_counts(self, context_tokens: int) -> PimCounts:
        """Work of :meth:`attend_program`."""
        gwrites = self.probability_rows(context_tokens)
        token_dots = _ceil(context_tokens, self.multipliers)
        return self._counts(
            gwrites=gwrites,
            tiles=gwrites * self.element_tiles,
            results=gwrites * self.element_tiles,
            dots=self.heads * self.element_tiles * token_dots,
            vector_elements=self.heads * token_dots * self.multipliers,
        )

    def _counts(self, gwrites: int, tiles: int, results: int, dots: int, vector_elements: int) -> PimCounts:
        bank_bytes = self.banks * self.element_bytes
        return PimCounts(
            gwrites=gwrites,
            tiles=tiles,
            results=results,
            dots=dots,
            internal_bytes=dots * self.multipliers * bank_bytes,
            result_bytes=results * bank_bytes,
            vector_bytes=vector_elements * self.element_bytes,
        )


class _Template(NamedTuple):
    """A program whose regions start at row 0: int32 operations [n, 4], and which of them are tiles, bool [n]."""

    operations: npt.NDArray[np.int32]
    is_tile: npt.NDArray[np.bool_]


def _template(operations: npt.NDArray[np.int32]) -> _Template:
    operations = operations.reshape(-1, 4)
    return _Template(operations, operations[:, 0] == TILE)


def _relocate(template: _Template, vector_row: int, pim_row: int) -> PimProgram:
    operations = template.operations.copy()
    operations[:, 1] += np.where(template.is_tile, pim_row, vector_row).astype(np.int32)
    return PimProgram(operations)


@lru_cache(maxsize=4096)
def _logits_template(layout: AttentionLayout, tiles: int) -> _Template:
    readouts, dots = layout.chunk_readouts()
    chunk = np.arange(layout.chunks)[:, None, None]
    operations = np.zeros((layout.chunks, layout.group, 1 + tiles, 4), np.int32)
    operations[:, :, 0, 1] = chunk[:, :, 0] * layout.group + np.arange(layout.group)
    operations[:, :, 1:, 0] = TILE
    operations[:, :, 1:, 1] = np.arange(tiles) * layout.chunks + chunk
    operations[:, :, 1:, 2] = readouts[:, None, None]
    operations[:, :, 1:, 3] = dots[:, None, None]
    return _template(operations)


@lru_cache(maxsize=4096)
def _attend_template(layout: AttentionLayout, token_dots: int) -> _Template:
    dots = layout.segment_dots(token_dots * layout.multipliers)
    segment, head = np.arange(len(dots)), np.arange(layout.heads)[:, None]
    operations = np.zeros((layout.heads, len(dots), 1 + layout.element_tiles, 4), np.int32)
    operations[:, :, 0, 1] = segment * layout.heads + head
    operations[:, :, 1:, 0] = TILE
    first_row = (segment * layout.kv_heads + head // layout.group) * layout.element_tiles
    operations[:, :, 1:, 1] = first_row[:, :, None] + np.arange(layout.element_tiles)
    operations[:, :, 1:, 2] = 1
    operations[:, :, 1:, 3] = dots[:, None]
    return _template(operations)

"""Similarity search as PIM programs, and the layout of the database that they consume.

The banks hold the database, the global vector buffer a part of the query, and every dot-product multiplies it with as many
elements of a vector per bank as there are multipliers. Vector j of a channel lies in bank j mod banks; a row holds as many whole
dot-products of one vector as fit, so a vector of 2048 fp16 elements takes four rows of 1 KB. A result is the part of a similarity that
one row contributes; whoever selects the top M adds the parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neupims_sim.config.memory import MemoryConfig
from neupims_sim.errors import InputError
from neupims_sim.mapping.pim_attention import IntArray, PimCounts, Positions, bank_sizes, check_sizes
from neupims_sim.memory.program import GWRITE, TILE, PimProgram


@dataclass(frozen=True)
class SearchLayout:
    """How descriptors lie in the banks of one channel.

    ``dimensions``: elements of a descriptor; ``multipliers``: per bank. Raises InputError if the sizes do not fit.
    """

    dimensions: int
    banks: int = 32
    row_elements: int = 512
    multipliers: int = 16
    element_bytes: int = 2

    def __post_init__(self) -> None:
        check_sizes("search layout", vars(self))

    @staticmethod
    def on(memory: MemoryConfig, dimensions: int, element_bytes: int) -> SearchLayout:
        """The layout in one channel of ``memory``."""
        return SearchLayout(dimensions, **bank_sizes(memory, element_bytes))

    @property
    def row_dots(self) -> int:
        """Dot-products that one row holds."""
        return self.row_elements // self.multipliers

    @property
    def dots(self) -> int:
        """Dot-products of a whole descriptor, the last one padded with zeros."""
        return -(-self.dimensions // self.multipliers)

    @property
    def chunks(self) -> int:
        """Rows of one descriptor, and of one query."""
        return -(-self.dots // self.row_dots)

    def chunk_dots(self, chunk: int) -> int:
        """Dot-products in one row of a descriptor."""
        return min(self.row_dots, self.dots - chunk * self.row_dots)

    def groups(self, vectors: int) -> int:
        """Rows that a channel needs for one chunk of so many descriptors: each holds that of one descriptor per bank."""
        return -(-vectors // self.banks)

    def database_rows(self, vectors: int) -> int:
        """PIM rows that the database takes in the channel."""
        return self.groups(vectors) * self.chunks

    def query_rows(self, queries: int) -> int:
        """Normal rows (bank 0) that the queries take, where GWRITE reads them."""
        return queries * self.chunks

    def database_positions(self, vector: IntArray, element: IntArray) -> Positions:
        """Where elements of the channel's descriptors lie, relative to the database's first row."""
        chunk, column = np.divmod(element, self.row_dots * self.multipliers)
        return Positions(vector // self.banks * self.chunks + chunk, vector % self.banks, column)

    def query_positions(self, query: IntArray, element: IntArray) -> Positions:
        """Where elements of the queries lie, relative to their first row."""
        chunk, column = np.divmod(element, self.row_dots * self.multipliers)
        return Positions(query * self.chunks + chunk, np.zeros_like(query), column)

    def program(self, queries: int, vectors: int, database_row: int, query_row: int) -> PimProgram:
        """Compare ``queries`` with the channel's ``vectors`` descriptors.

        Per query and chunk a GWRITE, then a tile of one readout per group of descriptors: results come in the order
        [query, chunk, group], one per bank. Raises InputError without a query or a descriptor.
        """
        if queries < 1 or vectors < 1:
            raise InputError(f"search program: queries={queries}, vectors={vectors}: each must be at least 1")
        groups = self.groups(vectors)
        rows = database_row + np.arange(groups)[None, :] * self.chunks + np.arange(self.chunks)[:, None]
        tiles = np.empty((queries, self.chunks, groups + 1, 4), dtype=np.int32)
        tiles[:, :, 0, 0], tiles[:, :, 0, 2:] = GWRITE, 0
        tiles[:, :, 0, 1] = query_row + np.arange(queries * self.chunks).reshape(queries, self.chunks)
        tiles[:, :, 1:, 0], tiles[:, :, 1:, 2] = TILE, 1
        tiles[:, :, 1:, 1] = rows
        tiles[:, :, 1:, 3] = np.array([self.chunk_dots(chunk) for chunk in range(self.chunks)])[:, None]
        return PimProgram(tiles.reshape(-1, 4))

    def programs(self, vectors: int, database_row: int, query_row: int, tiles_per_program: int) -> list[PimProgram]:
        """:meth:`program` of one query in pieces of so many tiles, so that other programs can go between them.

        A piece that begins in the middle of a chunk writes the chunk of the query to the global vector buffer again: another program
        may have overwritten it. Raises InputError without a descriptor or a tile.
        """
        if tiles_per_program < 1:
            raise InputError(f"search programs: tiles_per_program={tiles_per_program} must be at least 1")
        operations = self.program(1, vectors, database_row, query_row).operations
        (tiles,) = np.nonzero(operations[:, 0] == TILE)
        gwrites = tiles - tiles % (1 + self.groups(vectors))
        return [
            PimProgram(np.concatenate([operations[[gwrites[first]]], operations[tiles[first] : tiles[last] + 1]]))
            for first in range(0, len(tiles), tiles_per_program)
            for last in [min(first + tiles_per_program, len(tiles)) - 1]
        ]

    def counts(self, queries: int, vectors: int) -> PimCounts:
        """Work of :meth:`program`."""
        tiles = queries * self.chunks * self.groups(vectors)
        dots = queries * self.dots * self.groups(vectors)
        return PimCounts(
            gwrites=queries * self.chunks,
            tiles=tiles,
            results=tiles,
            dots=dots,
            internal_bytes=dots * self.banks * self.multipliers * self.element_bytes,
            result_bytes=tiles * self.banks * self.element_bytes,
            vector_bytes=queries * self.dots * self.multipliers * self.element_bytes,
        )

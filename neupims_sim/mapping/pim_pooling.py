"""Pooling as PIM programs: the average over the tokens of every channel of an image, and the layout of the tokens.

The banks hold the tokens, transposed, the global vector buffer 1 / tokens. Channel c of an image lies in bank c mod banks; a row
holds that channel's tokens of as many images as fit, each padded to whole dot-products: 196 fp16 tokens with 16 multipliers take
208 elements, a row of 1 KB two images. A readout is the average of one image's channel. Where the tokens of an image are longer than
a row they take several, the *segments*, and the NPU adds the partial sums. Generalized means raise to the power before the NPU
writes the tokens and take the root of what comes back, both on the vector units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neupims_sim.config.memory import MemoryConfig
from neupims_sim.errors import InputError
from neupims_sim.mapping.pim_attention import IntArray, PimCounts, Positions, bank_sizes, check_sizes
from neupims_sim.memory.program import GWRITE, TILE, PimProgram


@dataclass(frozen=True)
class PoolingLayout:
    """How the tokens of images lie in the banks of one memory channel.

    ``tokens`` and ``channels``: of every image; ``multipliers``: per bank. Raises InputError if the sizes do not fit.
    """

    tokens: int
    channels: int
    banks: int = 32
    row_elements: int = 512
    multipliers: int = 16
    element_bytes: int = 2

    def __post_init__(self) -> None:
        check_sizes("pooling layout", vars(self))

    @staticmethod
    def on(memory: MemoryConfig, tokens: int, channels: int, element_bytes: int) -> PoolingLayout:
        """The layout in one channel of ``memory``."""
        return PoolingLayout(tokens, channels, **bank_sizes(memory, element_bytes))

    @property
    def segment_tokens(self) -> int:
        """Tokens of an image in one row, padding included."""
        padded = -(-self.tokens // self.multipliers) * self.multipliers
        return min(padded, self.row_elements // self.multipliers * self.multipliers)

    @property
    def segments(self) -> int:
        """Rows that the tokens of one channel of an image take, and partial sums of its average."""
        return -(-self.tokens // self.segment_tokens)

    @property
    def images_per_row(self) -> int:
        """Images that share a row."""
        return self.row_elements // self.segment_tokens

    @property
    def channel_tiles(self) -> int:
        """Rows that the channels of an image take: each holds one channel per bank."""
        return -(-self.channels // self.banks)

    def segment_dots(self, segment: int) -> int:
        """Dot-products over the tokens of a segment."""
        return -(-min(self.segment_tokens, self.tokens - segment * self.segment_tokens) // self.multipliers)

    def token_rows(self, images: int) -> int:
        """PIM rows that the tokens of so many images take in the memory channel."""
        return -(-images // self.images_per_row) * self.segments * self.channel_tiles

    @property
    def vector_rows(self) -> int:
        """Normal rows (bank 0) with 1 / tokens, where GWRITE reads them: one per segment, whatever the number of images."""
        return self.segments

    def token_bytes(self, images: int) -> int:
        """Bytes that the NPU writes for so many images: rows are written whole, in all banks."""
        return self.token_rows(images) * self.banks * self.row_elements * self.element_bytes

    @property
    def vector_row_bytes(self) -> int:
        """Bytes from the start of each vector row that the NPU writes."""
        return self.images_per_row * self.segment_tokens * self.element_bytes

    def token_positions(self, image: IntArray, token: IntArray, channel: IntArray) -> Positions:
        """Where elements of the images lie, relative to their first row."""
        group, place = np.divmod(image, self.images_per_row)
        segment, column = np.divmod(token, self.segment_tokens)
        row = (group * self.segments + segment) * self.channel_tiles + channel // self.banks
        return Positions(row, channel % self.banks, place * self.segment_tokens + column)

    def vector_positions(self, place: IntArray, token: IntArray) -> Positions:
        """Where the factor of each token lies, for every place of an image in a row; the padding is zero."""
        segment, column = np.divmod(token, self.segment_tokens)
        return Positions(segment, np.zeros_like(segment), place * self.segment_tokens + column)

    def program(self, images: int, token_row: int, vector_row: int) -> PimProgram:
        """Average the tokens of ``images`` images.

        Per segment a GWRITE, then a tile per row with one readout per image in it: results come in the order
        [segment, row of images, channel tile], one per image and bank. Raises InputError without an image.
        """
        if images < 1:
            raise InputError(f"pooling program: images={images} must be at least 1")
        groups = -(-images // self.images_per_row)
        operations = np.zeros((self.segments, 1 + groups * self.channel_tiles, 4), dtype=np.int32)
        segment = np.arange(self.segments)
        operations[:, 0, 0] = GWRITE
        operations[:, 0, 1] = vector_row + segment
        tiles = operations[:, 1:].reshape(self.segments, groups, self.channel_tiles, 4)
        tiles[..., 0] = TILE
        first = (np.arange(groups) * self.segments + segment[:, None]) * self.channel_tiles
        tiles[..., 1] = token_row + first[:, :, None] + np.arange(self.channel_tiles)
        tiles[..., 2] = np.minimum(self.images_per_row, images - np.arange(groups) * self.images_per_row)[:, None]
        tiles[..., 3] = np.array([self.segment_dots(s) for s in range(self.segments)])[:, None, None]
        operations[:, 1:] = tiles.reshape(self.segments, -1, 4)
        return PimProgram(operations.reshape(-1, 4))

    def counts(self, images: int) -> PimCounts:
        """Work of :meth:`program`."""
        results = self.segments * images * self.channel_tiles
        dots = images * self.channel_tiles * sum(self.segment_dots(segment) for segment in range(self.segments))
        return PimCounts(
            gwrites=self.segments,
            tiles=self.token_rows(images),
            results=results,
            dots=dots,
            internal_bytes=dots * self.banks * self.multipliers * self.element_bytes,
            result_bytes=results * self.banks * self.element_bytes,
            vector_bytes=self.vector_rows * self.vector_row_bytes,
        )

"""Byte addresses to (channel, rank, bank group, bank, row, column) and back, by field order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neupims_sim.config.memory import Organization

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class AddressMap:
    """Bit positions of each field in a burst index (= byte address / burst bytes).

    ``shift`` and ``bits`` hold, per field (ro, pc, ra, bg, ba, co; pc has no bits where there are no pseudo-channels), the
    position in the *local* index of one channel, which is the burst index with the channel bits taken out; ``channel_shift``
    and ``channel_bits`` locate the channel.
    """

    burst_bytes: int
    channel_shift: int
    channel_bits: int
    shift: dict[str, int]
    bits: dict[str, int]

    @staticmethod
    def of(organization: Organization) -> AddressMap:
        """The map that ``organization.address_mapping`` states."""
        bits = {
            "ch": organization.channels.bit_length() - 1,
            "pc": organization.pseudo_channels.bit_length() - 1,
            "ra": organization.ranks.bit_length() - 1,
            "bg": organization.bank_groups.bit_length() - 1,
            "ba": organization.banks_per_group.bit_length() - 1,
            "ro": organization.rows.bit_length() - 1,
            "co": (organization.row_bytes // organization.burst_bytes).bit_length() - 1,
        }
        text = organization.address_mapping
        fields = [text[i : i + 2] for i in range(0, len(text), 2)]
        shift, position, channel_shift = {"pc": 0}, 0, 0
        for field in reversed(fields):
            if field == "ch":
                channel_shift = position
                continue
            shift[field] = position
            position += bits[field]
        return AddressMap(organization.burst_bytes, channel_shift, bits.pop("ch"), shift, bits)

    def split(self, burst: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Burst index -> (channel, local index)."""
        low = burst & ((1 << self.channel_shift) - 1)
        channel = (burst >> self.channel_shift) & ((1 << self.channel_bits) - 1)
        return channel, ((burst >> (self.channel_shift + self.channel_bits)) << self.channel_shift) | low

    def local_begin(self, burst: int, channels: int) -> Int64Array:
        """Per channel, how many bursts with index below ``burst`` it holds: the local index where a range starting there begins."""
        span = 1 << self.channel_shift
        high, low = burst >> (self.channel_shift + self.channel_bits), burst & (span - 1)
        middle = (burst >> self.channel_shift) & ((1 << self.channel_bits) - 1)
        channel = np.arange(channels)
        return (high * span + np.where(channel < middle, span, np.where(channel == middle, low, 0))).astype(np.int64)

    def field(self, name: str, local: Int64Array) -> Int64Array:
        """One field of local indices."""
        return (local >> self.shift[name]) & ((1 << self.bits[name]) - 1)

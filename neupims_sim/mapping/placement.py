"""Where tensors lie: linear addresses over all channels for weights and activations, rows of one channel for K and V.

Rows of every channel, from 0 up: the linear region, then data of PIM that has the same rows in every channel (a database),
then the GWRITE source vectors of the channel's requests (normal rows), then the K and V of one decoder layer after another (PIM
rows), the simulated ones first. A row belongs to one of them, so PIM and the NPU never want the same row, and none of them may
pass the last row of the channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from neupims_sim.config.memory import Organization
from neupims_sim.errors import InputError
from neupims_sim.mapping.pim_attention import AttentionLayout, AttentionRows, IntArray
from neupims_sim.memory.address import AddressMap


class PlacedRequest(NamedTuple):
    """A running request: the channel that holds its K and V, and its context length."""

    channel: int
    context_tokens: int


class Placement:
    """Addresses and rows of one device's tensors, fixed for one iteration.

    Parameters
    ----------
    organization: the memory.
    tensors: bytes of each tensor that gets an address, by name.
    reserved_bytes: further bytes of the linear region that nobody addresses: weights of layers that are not simulated.
    layout, requests: how and of whom K and V are stored for PIM; no requests where attention runs on the NPU.
    layers: simulated decoder layers; each keeps its own K and V, while the vectors are shared.
    further_layers: layers that are not simulated, but whose K and V need room (``AttentionLayout.cache_rows``).
    row_regions: rows of every channel that PIM data takes besides, by name.
    waiting_rows: rows of each channel that K and V of waiting micro-batches take.
    contents: what the linear region holds, bytes by name, for the message when something does not fit.

    Raises
    ------
    InputError: something does not fit, with the numbers (INV-9), or the address mapping cannot keep PIM rows apart.
    """

    def __init__(
        self,
        organization: Organization,
        tensors: Mapping[str, int],
        reserved_bytes: int = 0,
        layout: AttentionLayout | None = None,
        requests: Sequence[PlacedRequest] = (),
        layers: int = 1,
        further_layers: int = 0,
        row_regions: Mapping[str, int] | None = None,
        waiting_rows: IntArray | None = None,
        contents: Mapping[str, int] | None = None,
    ) -> None:
        self._organization = organization
        self._addresses: dict[str, int] = {}
        alignment = organization.channels * organization.row_bytes
        end = 0
        for name, size in tensors.items():
            self._addresses[name] = end
            end += -(-size // alignment) * alignment
        self.linear_bytes = end + reserved_bytes
        """Size of the linear region."""
        row_slice = alignment * organization.banks
        self.linear_rows = -(-self.linear_bytes // row_slice)
        """Rows of every bank that the linear region takes."""
        self._regions: dict[str, int] = {}
        region_end = self.linear_rows
        for name, rows in (row_regions or {}).items():
            self._regions[name] = region_end
            self._addresses.setdefault(name, region_end * alignment * organization.banks)
            region_end += rows
        self._region_rows = region_end - self.linear_rows
        if row_regions:
            _check_mapping(organization)
        self._rows: list[AttentionRows] = []
        self._layer_rows: IntArray = np.zeros(organization.channels, np.int64)
        further_rows: IntArray = np.zeros(organization.channels, np.int64)
        vector_rows: IntArray = np.zeros(organization.channels, np.int64)
        if requests:
            _check_mapping(organization)
            if layout is None:
                raise ValueError("requests need a layout")
            self._place_requests(layout, requests, vector_rows)
            for channel, tokens in requests:
                further_rows[channel] += layout.cache_rows(tokens, further_layers)
        cache_rows = layers * self._layer_rows + further_rows
        waiting = np.zeros_like(vector_rows) if waiting_rows is None else waiting_rows
        self.used_rows: IntArray = region_end + vector_rows + cache_rows + waiting
        """Rows of every bank in use, int64 [channels]."""
        contents = contents or {"weights and activations": self.linear_bytes}
        contents = dict(contents) | {name: rows * row_slice for name, rows in (row_regions or {}).items()}
        if layout is not None and requests:
            needs = [
                layout.query_rows
                + layout.probability_rows(tokens)
                + layers * (layout.key_rows(tokens) + layout.value_rows(tokens))
                + layout.cache_rows(tokens, further_layers)
                for _, tokens in requests
            ]
            lengths = [tokens for _, tokens in requests]
            check_requests_fit(
                organization, lengths, needs, organization.rows - region_end - int(waiting.min()), contents
            )
        self._check_capacity(vector_rows, cache_rows, waiting, requests, layers + further_layers, contents)

    def _place_requests(
        self, layout: AttentionLayout, requests: Sequence[PlacedRequest], vector_rows: IntArray
    ) -> None:
        for channel, tokens in requests:
            if not 0 <= channel < len(vector_rows):
                raise InputError(f"a request is on channel {channel} of a memory with {len(vector_rows)} channels")
            vector_rows[channel] += layout.query_rows + layout.probability_rows(tokens)
        first_row = self.linear_rows + self._region_rows
        vector_row = np.full_like(vector_rows, first_row).tolist()
        key_row = (first_row + vector_rows).tolist()
        first_key_row = list(key_row)
        for channel, tokens in requests:
            value_row = key_row[channel] + layout.key_rows(tokens)
            probability_row = vector_row[channel] + layout.query_rows
            self._rows.append(AttentionRows(key_row[channel], value_row, vector_row[channel], probability_row))
            key_row[channel] = value_row + layout.value_rows(tokens)
            vector_row[channel] = probability_row + layout.probability_rows(tokens)
        self._channels = [request.channel for request in requests]
        self._layer_rows += np.array(key_row) - np.array(first_key_row)

    def _check_capacity(
        self,
        vector_rows: IntArray,
        cache_rows: IntArray,
        waiting_rows: IntArray,
        requests: Sequence[PlacedRequest],
        layers: int,
        contents: Mapping[str, int],
    ) -> None:
        channel = int(self.used_rows.argmax())
        if self.used_rows[channel] <= self._organization.rows:
            return
        row = self._organization.banks * self._organization.row_bytes
        count = sum(request.channel == channel for request in requests)
        held = {what: size // self._organization.channels for what, size in contents.items()}
        fixed = sum(size for what, size in held.items() if _CACHE not in what)
        by_requests = fixed < self._organization.channel_bytes and (count or fixed < sum(held.values()))
        helps = ["fewer or shorter requests"] if by_requests else []
        if count:
            held["PIM operands"] = int(vector_rows[channel]) * row
            held[f"{_CACHE} of {count} requests in {layers} layers"] = int(cache_rows[channel]) * row
            helps.append("more channels, or requests spread evenly over them")
        if waiting_rows[channel]:
            held[f"{_CACHE} of waiting micro-batches"] = int(waiting_rows[channel]) * row
        raise _does_not_fit(
            self._organization, f"channel {channel}", int(self.used_rows[channel]) * row, held, [*helps, *_LARGER]
        )

    def address(self, tensor: str) -> int:
        """Linear address of the first byte of ``tensor``, or of a row region; a multiple of channels x row_bytes."""
        return self._addresses[tensor]

    def first_row(self, region: str) -> int:
        """First row, in every channel, of one of ``row_regions``."""
        return self._regions[region]

    def rows(self, request: int, layer: int = 0) -> AttentionRows:
        """First rows of the regions of request number ``request`` in its channel, for decoder layer ``layer``."""
        rows = self._rows[request]
        shift = layer * int(self._layer_rows[self._channels[request]])
        return rows._replace(key=rows.key + shift, value=rows.value + shift)


_CACHE = "K and V"
_LARGER = ("more devices (parallel.tensor, parallel.pipeline)", "more rows (memory.organization.rows)")


def check_requests_fit(
    organization: Organization,
    context_tokens: Sequence[int],
    rows: Sequence[int],
    room: int,
    contents: Mapping[str, int],
) -> None:
    """Raise InputError if a request is larger than a channel even on its own, with what would help.

    ``rows``: that each request takes in its channel; ``room``: those that a channel has beside what lies in all of them, which are
    ``contents``, bytes by name.
    """
    row, largest = organization.banks * organization.row_bytes, int(np.argmax(rows))
    held = {what: size // organization.channels for what, size in contents.items()}
    if room <= 0:
        needed = (organization.rows - room) * row
        raise _does_not_fit(organization, "every channel, before any request,", needed, held, _LARGER)
    if rows[largest] > room:
        what = f"one request of {context_tokens[largest]:,} tokens"
        held[what] = rows[largest] * row
        helps = (*_LARGER, "a shorter context", "attention_on: npu, which spreads K and V over all channels")
        needed = (organization.rows - room + rows[largest]) * row
        raise _does_not_fit(organization, f"{what} lies in one channel, which", needed, held, helps)


def _does_not_fit(
    organization: Organization, who: str, needed: int, held: Mapping[str, int], helps: Sequence[str]
) -> InputError:
    parts = ", ".join(f"{size:,} B of {what}" for what, size in held.items() if size)
    return InputError(
        f"the batch does not fit: {who} needs {needed:,} B and has {organization.channel_bytes:,} B: {parts}; "
        f"what helps: {', '.join(helps)}"
    )


def row_address(organization: Organization, channel: int, row: int, bank: int = 0) -> int:
    """Linear address of the first byte of a row; ``bank`` counts over ranks, then bank groups, then banks.

    The row's bytes are contiguous where the column is the lowest field of the address.
    """
    group, in_group = divmod(bank, organization.banks_per_group)
    rank, bank_group = divmod(group, organization.bank_groups)
    addresses = AddressMap.of(organization)
    fields = {"ro": row, "ra": rank, "bg": bank_group, "ba": in_group}
    local = sum(value << addresses.shift[field] for field, value in fields.items())
    high, low = divmod(local, 1 << addresses.channel_shift)
    burst = (((high << addresses.channel_bits) | channel) << addresses.channel_shift) | low
    return burst * organization.burst_bytes


def _check_mapping(organization: Organization) -> None:
    mapping = organization.address_mapping
    if not (mapping.startswith("ro") and mapping.endswith("co")):
        raise InputError(
            f"organization.address_mapping={mapping!r}: PIM needs 'ro' first, so that weights and PIM "
            "data share no row, and 'co' last, so that an operand vector is contiguous in its row"
        )

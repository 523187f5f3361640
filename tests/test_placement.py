"""Tensors and K/V never share a row, and what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neupims_sim.config import load_config
from neupims_sim.config.memory import Organization
from neupims_sim.errors import InputError
from neupims_sim.mapping.pim_attention import AttentionLayout
from neupims_sim.mapping.placement import PlacedRequest, Placement, row_address
from neupims_sim.memory.address import AddressMap
from neupims_sim.simulation import check_fits, simulate


def organization(**changes: object) -> Organization:
    values: dict[str, object] = {
        "channels": 4,
        "ranks": 2,
        "bank_groups": 4,
        "banks_per_group": 4,
        "rows": 4096,
        "row_bytes": 1024,
        "bus_bits": 128,
        "burst_length": 4,
    }
    return Organization.model_validate(values | changes)


LAYOUT = AttentionLayout(kv_heads=4, head_size=128, group=2)
SLICE = 4 * 32 * 1024
"""Bytes of one row over all banks and channels."""


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 600)), min_size=1, max_size=12),
    st.lists(st.integers(1, 10**6), max_size=4),
    st.integers(1, 3),
)
def test_no_row_is_used_twice(requests: list[tuple[int, int]], sizes: list[int], layers: int) -> None:
    tensors = {f"t{i}": size for i, size in enumerate(sizes)}
    placement = Placement(organization(), tensors, 5 * SLICE, LAYOUT, [PlacedRequest(*r) for r in requests], layers)
    used: list[set[int]] = [set(range(placement.linear_rows)) for _ in range(4)]

    def take(channel: int, first: int, count: int) -> None:
        rows = set(range(first, first + count))
        assert not rows & used[channel]
        used[channel] |= rows

    for number, (channel, tokens) in enumerate(requests):
        rows = placement.rows(number)
        take(channel, rows.query, LAYOUT.query_rows)
        take(channel, rows.probability, LAYOUT.probability_rows(tokens))
        for layer in range(layers):
            rows = placement.rows(number, layer)
            take(channel, rows.key, LAYOUT.key_rows(tokens))
            take(channel, rows.value, LAYOUT.value_rows(tokens))
    assert [len(rows) for rows in used] == placement.used_rows.tolist()
    assert [max(rows) + 1 for rows in used] == placement.used_rows.tolist()


def test_tensors_are_aligned_and_disjoint() -> None:
    placement = Placement(organization(), {"a": 1, "b": 4097, "c": 4096}, reserved_bytes=SLICE)
    assert [placement.address(name) for name in "abc"] == [0, 4096, 3 * 4096]
    assert placement.linear_bytes == 4 * 4096 + SLICE
    assert placement.linear_rows == 2


def test_inv9_a_batch_beyond_a_channel_is_refused_with_the_numbers() -> None:
    key_value_rows = LAYOUT.key_rows(512) + LAYOUT.value_rows(512)
    vector_rows = LAYOUT.query_rows + LAYOUT.probability_rows(512)
    rows = 64
    layers = (rows - 1 - vector_rows) // key_value_rows
    fits = [PlacedRequest(2, 512)]
    placement = Placement(organization(rows=rows), {"w": SLICE}, 0, LAYOUT, fits, layers)
    assert placement.used_rows.max() <= rows
    with pytest.raises(
        InputError, match=r"which needs [\d,]+ B and has 2,097,152 B: .* B of one request of 512 tokens"
    ):
        Placement(organization(rows=rows), {"w": SLICE}, 0, LAYOUT, fits, layers + 1)
    with pytest.raises(
        InputError, match=r"channel 2 needs [\d,]+ B and has 2,097,152 B.*2 requests in .*fewer or shorter requests"
    ):
        Placement(organization(rows=rows), {"w": SLICE}, 0, LAYOUT, [*fits, PlacedRequest(2, 512)], layers)


def test_what_does_not_fit_is_told_apart_and_what_would_help() -> None:
    """Fewer requests help neither weights alone nor one request that is larger than its channel."""
    contents = {"weights": 3 * SLICE, "K and V of 9 requests": 6 * SLICE, "activations": SLICE}
    with pytest.raises(InputError) as error:
        Placement(organization(rows=8), {"all": 10 * SLICE}, contents=contents)
    assert "98,304 B of weights, 196,608 B of K and V of 9 requests, 32,768 B of activations" in str(error.value)
    assert "fewer or shorter requests" in str(error.value)
    with pytest.raises(InputError) as error:
        Placement(organization(rows=2), {"all": 10 * SLICE}, contents=contents)
    assert "fewer" not in str(error.value)
    with pytest.raises(
        InputError, match=r"what helps: more devices .*rows.*shorter context, attention_on: npu"
    ) as error:
        Placement(organization(rows=64), {"w": SLICE}, 0, LAYOUT, [PlacedRequest(0, 40), PlacedRequest(1, 6000)])
    assert "one request of 6,000 tokens" in str(error.value)
    assert "fewer" not in str(error.value)


def test_layers_that_are_not_simulated_need_room_for_packed_v() -> None:
    tokens, layers = 100, 8  # 7 dot-products of 16 tokens in rows of 32
    packed = layers * LAYOUT.key_rows(tokens) + -(-layers * LAYOUT.value_rows(tokens) * 7 // 32)
    assert LAYOUT.cache_rows(tokens, layers) == packed < layers * (LAYOUT.key_rows(tokens) + LAYOUT.value_rows(tokens))
    requests = [PlacedRequest(1, tokens)]
    simulated, all_ = (Placement(organization(), {}, 0, LAYOUT, requests, 2, further) for further in (0, layers))
    assert (all_.used_rows - simulated.used_rows).tolist() == [0, packed, 0, 0]
    full = LAYOUT.row_tokens
    assert LAYOUT.cache_rows(full, 3) == 3 * (LAYOUT.key_rows(full) + LAYOUT.value_rows(full))


def test_inv9_tensors_may_fill_the_memory_but_not_more() -> None:
    assert Placement(organization(), {"w": 4096 * SLICE}).used_rows.tolist() == [4096] * 4
    with pytest.raises(InputError, match="channel 0 needs"):
        Placement(organization(), {"w": 4096 * SLICE + 1})


def test_a_request_of_an_unknown_channel_is_refused() -> None:
    with pytest.raises(InputError, match="channel 4 of a memory with 4 channels"):
        Placement(organization(), {}, 0, LAYOUT, [PlacedRequest(4, 10)])


@pytest.mark.parametrize("mapping", ["rarobgbachco", "rorabgbacoch"])
def test_pim_needs_rows_of_its_own(mapping: str) -> None:
    with pytest.raises(InputError, match=mapping):
        Placement(organization(address_mapping=mapping), {}, 0, LAYOUT, [PlacedRequest(0, 10)])


def test_row_address_follows_the_address_mapping() -> None:
    memory = organization()
    assert row_address(memory, channel=3, row=0) == 3 * 1024
    assert row_address(memory, channel=0, row=2) == 2 * SLICE
    assert row_address(memory, channel=1, row=0, bank=1) == 1024 + 4096
    assert row_address(memory, channel=0, row=0, bank=31) == 31 * 4096
    assert row_address(organization(address_mapping="rochrabgbaco"), channel=1, row=0) == 32 * 1024
    assert row_address(organization(address_mapping="robarabgchco"), channel=0, row=0, bank=1) == 8 * 4096


@given(
    st.permutations(["ro", "ra", "bg", "ba", "ch", "co"]),
    st.integers(0, 3),
    st.integers(0, 4095),
    st.integers(0, 31),
)
def test_row_address_is_the_inverse_of_the_address_map(fields: list[str], channel: int, row: int, bank: int) -> None:
    memory = organization(address_mapping="".join(fields))
    addresses = AddressMap.of(memory)
    burst = np.array([row_address(memory, channel, row, bank) // memory.burst_bytes])
    of_channel, local = addresses.split(burst)
    assert of_channel[0] == channel
    got = {name: int(addresses.field(name, local)[0]) for name in ("ro", "ra", "bg", "ba", "co")}
    assert got == {"ro": row, "ra": bank // 16, "bg": bank // 4 % 4, "ba": bank % 4, "co": 0}


# --- before a run ---

TOO_LARGE: list[tuple[str, dict[str, object], str]] = [
    ("neupims", {"workload.batch_size": 2048}, "the batch does not fit: a request needs"),
    ("neupims", {"model": "llama-3-8b", "workload.context_tokens": 6000}, "one request of 6,000 tokens"),
    ("npu_only", {"workload.batch_size": 2048}, r"B of K and V of 2048 requests in 32 layers.*fewer or shorter"),
    ("npu_only", {"model": "gpt3-175b", "parallel.tensor": 1}, r"B of weights of .* what helps: more devices"),
    ("gpu_a100", {"model": "gpt3-175b", "parallel.tensor": 1}, r"B of weights, .* what helps: more devices"),
    ("gpu_a100", {"workload.batch_size": 8192}, r"B of K and V.* what helps: fewer or shorter"),
    ("neupims", {"workload": "search_1m", "workload.database": 100_000_000}, "does not fit"),
    ("npu_only", {"model": "vit-h14", "workload": "images", "memory.organization.rows": 64}, "does not fit"),
]


@pytest.mark.parametrize(("system", "values", "message"), TOO_LARGE)
def test_what_does_not_fit_is_known_without_simulating(system: str, values: dict[str, object], message: str) -> None:
    config = load_config(system, values)
    for refuse in (check_fits, simulate):
        with pytest.raises(InputError, match=message):
            refuse(config)


@pytest.mark.parametrize("system", ["neupims", "npu_pim", "npu_only", "gpu_a100"])
def test_what_fits_is_not_refused(system: str) -> None:
    check_fits(load_config(system, {"workload.batch_size": 64, "simulation.snapshots": 2}))

"""Channel assignment and sub-batch partition policies."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neupims_sim.errors import InputError
from neupims_sim.mapping.pim_attention import AttentionLayout, AttentionRows
from neupims_sim.scheduling.channels import (
    CHANNEL_ASSIGNMENTS,
    check_channel_assignment,
    gmlbp,
    load_estimate,
    round_robin,
)
from neupims_sim.scheduling.partition import PARTITIONS, balanced, check_partition, positional

lengths = st.lists(st.integers(1, 2048), min_size=1, max_size=200).map(np.array)


def makespan(assigned: np.ndarray, loads: np.ndarray, channels: int) -> float:
    return float(np.bincount(assigned, weights=loads, minlength=channels).max())


@pytest.mark.parametrize("name", ["gmlbp", "round_robin"])
def test_every_channel_assignment_keeps_the_contract(name: str) -> None:
    check_channel_assignment(CHANNEL_ASSIGNMENTS[name])


@pytest.mark.parametrize("name", ["balanced", "positional"])
def test_every_partition_keeps_the_contract(name: str) -> None:
    check_partition(PARTITIONS[name])


def test_conformance_rejects_a_wrong_policy() -> None:
    with pytest.raises(AssertionError, match="must lie in"):
        check_channel_assignment(lambda tokens, loads, channels, rows=None, room=0: np.full(len(tokens), channels))
    with pytest.raises(AssertionError, match="empty"):
        check_partition(lambda channel, loads: np.zeros(len(channel), np.int64))


@pytest.mark.parametrize("heads", [8, 10, 12, 14])
def test_load_estimate_is_algorithm_1(heads: int) -> None:
    tokens = np.array([1, 32, 33, 301, 512, 513, 2048])
    chunks = -(-heads * 128 // 512)
    by_hand = [
        100 * chunks
        + 184 * -(-n // 32) * chunks
        + 100 * -(-n // 512) * heads
        + 184 * -(-128 // 32) * -(-n // 512) * heads
        for n in tokens.tolist()
    ]
    assert load_estimate(AttentionLayout(heads, 128), tokens).tolist() == by_hand


@given(st.integers(1, 2048), st.integers(1, 9), st.integers(1, 4), st.integers(1, 200))
def test_load_estimate_counts_the_macro_commands_of_the_programs(n: int, heads: int, group: int, size: int) -> None:
    layout = AttentionLayout(heads, size, group)
    rows = AttentionRows(0, 0, 0, 0)
    program = layout.logits_program(n, rows).concatenate(layout.attend_program(n, rows))
    assert load_estimate(layout, np.array([n]), 7, 11)[0] == 7 * program.gwrites + 11 * program.tiles


def test_round_robin_takes_turns_and_skips_full_channels() -> None:
    tokens = np.array([5, 1, 1, 5, 1, 1])
    assert round_robin(tokens, tokens * 1.0, 3).tolist() == [0, 1, 2, 0, 1, 2]
    assert round_robin(tokens, tokens * 1.0, 3, tokens, 6).tolist() == [0, 1, 2, 1, 2, 0]


def test_gmlbp_puts_the_longest_first_and_breaks_ties_by_lowest_channel() -> None:
    tokens = np.array([1, 4, 4, 2, 3])
    assert gmlbp(tokens, tokens * 1.0, 2).tolist() == [1, 0, 1, 1, 0]


@given(lengths, st.integers(1, 40))
def test_gmlbp_is_within_the_bound_of_list_scheduling(tokens: np.ndarray, channels: int) -> None:
    """Graham 1966: makespan <= mean load + (1 - 1/m) x largest load."""
    loads = load_estimate(AttentionLayout(8, 128), tokens)
    bound = loads.sum() / channels + (1 - 1 / channels) * loads.max()
    assert makespan(gmlbp(tokens, loads, channels), loads, channels) <= bound * (1 + 1e-9)


@given(st.lists(st.integers(1, 2048), min_size=1, max_size=7).map(np.array), st.integers(1, 3))
def test_gmlbp_is_within_four_thirds_of_the_optimum(tokens: np.ndarray, channels: int) -> None:
    """Graham 1969: longest processing time first needs at most 4/3 - 1/(3m) of the optimum."""
    loads = load_estimate(AttentionLayout(8, 128), tokens)
    optimum = min(makespan(np.array(a), loads, channels) for a in product(range(channels), repeat=len(tokens)))
    bound = (4 / 3 - 1 / (3 * channels)) * optimum
    assert makespan(gmlbp(tokens, loads, channels), loads, channels) <= bound * (1 + 1e-9)


def test_inv9_a_request_that_fits_in_no_channel_is_refused_with_the_numbers() -> None:
    tokens = np.array([6, 6, 6])
    for policy in (round_robin, gmlbp):
        with pytest.raises(
            InputError, match=r"needs 6 PIM rows, each of the 2 channels holds 10, and the emptiest has 4 left"
        ):
            policy(tokens, tokens * 1.0, 2, tokens, 10)


def test_positional_partition_alternates_the_larger_half_between_odd_channels() -> None:
    channel = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3])
    assert positional(channel, np.ones(9)).tolist() == [0, 0, 1, 0, 1, 0, 1, 1, 0]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 2048)), min_size=1, max_size=200))
def test_partitions_halve_every_channel_and_the_batch(requests: list[tuple[int, int]]) -> None:
    channel, tokens = (np.array(column) for column in zip(*requests, strict=True))
    for policy in (positional, balanced):
        side = 1 - 2 * policy(channel, tokens * 1.0)
        assert abs(side.sum()) <= 1
        assert np.abs(np.bincount(channel, weights=side)).max() <= 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 2048)), min_size=1, max_size=200))
def test_balanced_partition_leaves_at_most_one_request_of_difference(requests: list[tuple[int, int]]) -> None:
    channel, tokens = (np.array(column) for column in zip(*requests, strict=True))
    side = 1 - 2 * balanced(channel, tokens * 1.0)
    for c in np.unique(channel):
        on = channel == c
        assert abs((side * tokens)[on].sum()) <= tokens[on].max()

"""Requests: how long their prompts and outputs are, and which of them run together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neupims_sim.config import WorkloadConfig, available
from neupims_sim.config.bounds import MOST_REQUESTS
from neupims_sim.config.files import LENGTHS
from neupims_sim.errors import InputError, suggestion
from neupims_sim.showing import Shown
from neupims_sim.workloads.random import stream
from neupims_sim.workloads.tables import Column, read_table

Tokens = NDArray[np.int64]
MOST_DRAWS = 100_000_000
"""Requests that a warm-up draws: some ten seconds."""
"""Counts of tokens, one per request."""


@dataclass(frozen=True, slots=True, repr=False)
class RequestBatch(Shown):
    """The requests of one iteration, in the order of their slots (file order where read from a file)."""

    context_tokens: Tokens
    """[B] decode: tokens in the cache, the new one included; prefill: prompt tokens. At least 1."""
    channels: Tokens | None = None
    """[B] memory channel of each request's cache, where the file assigns them."""


@dataclass(frozen=True, slots=True, repr=False)
class RequestStream(Shown):
    """Requests that arrive over time, in order of arrival."""

    arrival_s: NDArray[np.float64]
    """[N] seconds, not decreasing."""
    prompt_tokens: Tokens
    """[N] at least 1."""
    output_tokens: Tokens
    """[N] at least 1."""


@dataclass(frozen=True, slots=True, repr=False)
class LengthTable(Shown):
    """Quantiles of prompt and output lengths of a dataset; the two are drawn independently.

    (In the Alpaca and ShareGPT samples their rank correlation is below 0.1.)
    """

    percentiles: NDArray[np.float64]
    """[Q] from 0 to 100, increasing."""
    prompt_tokens: Tokens
    """[Q] prompt length at each percentile; 0 is allowed (an empty prompt)."""
    output_tokens: Tokens
    """[Q] output length at each percentile, at least 1."""

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
        """``count`` prompt and ``count`` output lengths, by linear interpolation of the inverse distributions."""
        prompt_at, output_at = 100 * rng.random((2, count))
        prompt = np.rint(np.interp(prompt_at, self.percentiles, self.prompt_tokens)).astype(np.int64)
        output = np.rint(np.interp(output_at, self.percentiles, self.output_tokens)).astype(np.int64)
        return prompt, output


def load_lengths(dataset: str) -> LengthTable:
    """The length table of ``dataset``, the stem of a file in ``traces/lengths``. Raises ``InputError``."""
    tables = available(LENGTHS)
    if dataset not in tables:
        raise InputError(f"workload.dataset={dataset!r} is not in traces/lengths; {suggestion(dataset, tables)}")
    return read_lengths(tables[dataset])


def read_lengths(path: str | Path) -> LengthTable:
    """A length table from a CSV file ``percentile,prompt_tokens,output_tokens``. Raises ``InputError``."""
    columns = Column("percentile", maximum=100, real=True), Column("prompt_tokens"), Column("output_tokens", minimum=1)
    table, lines = read_table(Path(path), columns)
    percentiles, prompt, output = table["percentile"], table["prompt_tokens"], table["output_tokens"]
    if percentiles[0] != 0 or percentiles[-1] != 100:
        raise InputError(f"{path}: percentiles go from {percentiles[0]:g} to {percentiles[-1]:g}, expected 0 to 100")
    rises = (np.diff(percentiles) > 0) & (np.diff(prompt) >= 0) & (np.diff(output) >= 0)
    if not rises.all():
        line = lines[int(np.argmin(rises)) + 1]
        raise InputError(f"{path}:{line}: percentiles must increase from row to row, and lengths not decrease")
    return LengthTable(percentiles, prompt, output)


def warmed_up_contexts(
    lengths: LengthTable, batch_size: int, iterations: int, max_context_tokens: int, rng: np.random.Generator
) -> Tokens:
    """Contexts [batch_size] of a server's running requests after ``iterations``.

    Every slot holds a request that gains one token per iteration; when its output is complete a newly drawn request
    takes the slot. The context is prompt + tokens generated so far, the one of this iteration included. It stays at
    ``max_context_tokens`` once it gets there (the oldest tokens leave the window) while the request goes on to its end.

    Nothing happens between two replacements, so each slot jumps from one to the next.
    """
    left = np.full(batch_size, iterations, dtype=np.int64)
    prompt, output = lengths.sample(batch_size, rng)
    while (finished := output <= left).any():
        left[finished] -= output[finished]
        prompt[finished], output[finished] = lengths.sample(int(finished.sum()), rng)
    return np.asarray(np.minimum(prompt + left + 1, max_context_tokens))


def warmed_up_batch(workload: WorkloadConfig, seed: int) -> Tokens:
    """Contexts [batch_size] of ``workload`` after its warm-up, in slot order; the same for the same ``seed``."""
    warmup, lengths = workload.warmup, load_lengths(workload.dataset)
    draws = workload.batch_size * warmup.iterations / max(1.0, float(np.mean(lengths.output_tokens)))
    if draws > MOST_DRAWS:
        raise InputError(
            f"workload.warmup.iterations={warmup.iterations} of workload.batch_size={workload.batch_size} requests draw some "
            f"{draws:.2g} requests of {workload.dataset}; allowed: {MOST_DRAWS:,}"
        )
    return warmed_up_contexts(
        lengths,
        workload.batch_size,
        warmup.iterations,
        warmup.max_context_tokens,
        stream(seed, "warm-up"),
    )


def prompt_batch(workload: WorkloadConfig, seed: int) -> Tokens:
    """Prompt lengths [batch_size] drawn from the dataset, from 1 to ``warmup.max_context_tokens``."""
    prompt, _ = load_lengths(workload.dataset).sample(workload.batch_size, stream(seed, "prompts"))
    return np.asarray(np.clip(prompt, 1, workload.warmup.max_context_tokens))


def request_batch(workload: WorkloadConfig, seed: int) -> RequestBatch:
    """The requests of ``workload``: the file ``workload.requests`` where given, else drawn from its dataset, or all alike.

    Decode takes a warmed-up batch, prefill a batch of new prompts. Raises ``InputError``.
    """
    if workload.requests is not None:
        return read_request_batch(workload.requests)
    if workload.context_tokens is not None:
        return RequestBatch(np.full(workload.batch_size, workload.context_tokens, dtype=np.int64))
    draw = warmed_up_batch if workload.phase == "decode" else prompt_batch
    return RequestBatch(draw(workload, seed))


def arrival_order(batch: RequestBatch, seed: int) -> Tokens:
    """An order [B] in which the requests of a batch may have come, as positions in it: drawn, the same for the same ``seed``.

    It depends on which requests there are, not on where they stand in the batch.
    """
    channels = np.zeros_like(batch.context_tokens) if batch.channels is None else batch.channels
    by_content = np.lexsort((channels, batch.context_tokens))
    return by_content[stream(seed, "order of arrival").permutation(len(by_content))]


def read_request_batch(path: str | Path) -> RequestBatch:
    """A batch from a CSV file ``seq_len,ch_idx`` (the latter optional), the format of the published NeuPIMs traces.

    Raises ``InputError`` with file and line.
    """
    table, _ = read_table(Path(path), (Column("seq_len", minimum=1), Column("ch_idx", optional=True)))
    if len(table["seq_len"]) > MOST_REQUESTS:
        raise InputError(f"{path}: {len(table['seq_len']):,} requests; allowed: up to {MOST_REQUESTS:,}")
    return RequestBatch(table["seq_len"], table.get("ch_idx"))


def read_request_stream(path: str | Path) -> RequestStream:
    """A stream from a CSV file ``arrival_s,prompt_tokens,output_tokens``. Raises ``InputError`` with file and line."""
    columns = Column("arrival_s", real=True), Column("prompt_tokens", minimum=1), Column("output_tokens", minimum=1)
    table, lines = read_table(Path(path), columns)
    late = np.flatnonzero(np.diff(table["arrival_s"]) < 0)
    if late.size:
        raise InputError(f"{path}:{lines[late[0] + 1]}: arrival_s is smaller than in the row before")
    return RequestStream(**table)

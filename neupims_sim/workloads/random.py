"""Random streams, one per purpose, so that a new use of randomness does not shift the draws of another."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, purpose: str) -> np.random.Generator:
    """The generator of ``purpose`` under the configured ``seed``.

    Streams of different purposes or seeds are statistically independent (``numpy.random.SeedSequence`` with the
    CRC-32 of the purpose as spawn key); the same pair always gives the same numbers.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(purpose.encode()),))))

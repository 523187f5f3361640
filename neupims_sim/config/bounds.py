"""Types of the numbers of a configuration, each with the range that makes sense, so that a slip is told at once and by its key.

Every bound is far beyond what anybody has built or would wait for, and small enough that no sum or product of a few of them leaves 64
bits; what is too much only together is for `config.checks` to refuse. Integers may be written as floats (``1e3``), never as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any

from annotated_types import Ge, GroupedMetadata, Gt, Le
from pydantic import AllowInfNan, BeforeValidator, Field, Strict

from neupims_sim.errors import InputError, shown
from neupims_sim.units import parse_bytes, parse_image_size

MOST_SEED = 2**64 - 1
"""Seeds of snapshots have 64 bits."""
MOST_EXACT = 2**53
"""Up to here a float that is whole is the integer that was meant."""
MOST_NAME = 200
"""Characters; results have folders that are named so."""
MOST_PATH = 4096
"""Characters, as Linux has it."""


def _plain(value: Any) -> Any:
    """A number as one of Python's, an integer where it is whole; anything else as it is, for the type to refuse."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        value = float(value)
        return int(value) if value.is_integer() and abs(value) <= MOST_EXACT else value
    return value


@dataclass(frozen=True)
class Whole(GroupedMetadata):
    """An integer from ``least`` to ``most``."""

    least: int
    most: int

    def __iter__(self) -> Iterator[object]:
        yield BeforeValidator(_plain)
        yield Strict()
        yield Gt(0) if self.least == 1 else Ge(self.least)
        yield Le(self.most)


@dataclass(frozen=True)
class Number(GroupedMetadata):
    """A float from ``least`` to ``most``, neither infinite nor NaN."""

    least: float
    most: float

    def __iter__(self) -> Iterator[object]:
        yield BeforeValidator(_plain)
        yield Strict()
        yield AllowInfNan(False)
        yield Ge(self.least)
        yield Le(self.most)


Name = Annotated[str, Field(min_length=1, max_length=MOST_NAME)]
PathText = Annotated[str, Field(min_length=1, max_length=MOST_PATH)]

Count = Annotated[int, Whole(1, 65_536)]
"""Of units, of devices."""
MOST_REQUESTS = 16_384
Requests = Annotated[int, Whole(1, MOST_REQUESTS)]
"""Of a batch; each has operators of its own."""
Images = Annotated[int, Whole(1, 4_096)]
"""Of a batch; each has operators of its own."""
Queries = Annotated[int, Whole(1, 1_024)]
"""Of a batch; each has the operators of a reranker."""
Layers = Annotated[int, Whole(1, 10_000)]
Width = Annotated[int, Whole(1, 2**20)]
"""Elements of a vector of a model: the widest models have some 20,000."""
Classes = Annotated[int, Whole(1, 2**24)]
"""Outputs of a model: tokens of a vocabulary, classes."""
Tokens = Annotated[int, Whole(1, 2**27)]
"""Of a context."""
Pixels = Annotated[int, Whole(1, 2**16)]
"""Of a side of an image."""
Cycles = Annotated[int, Whole(0, 1_000_000)]
"""That something takes which happens over and over: a millisecond at 1 GHz."""
PositiveCycles = Annotated[int, Whole(1, 1_000_000)]
Vectors = Annotated[int, Whole(1, 2**40)]
"""Of a database: 10^12."""
Bytes = Annotated[int, BeforeValidator(parse_bytes), Whole(1, 2**50)]
"""A capacity in bytes, up to 1 PiB; YAML may write ``1 MiB``."""
ImageSize = Annotated[tuple[Pixels, Pixels], BeforeValidator(parse_image_size)]
"""Height and width, pixels; YAML may write ``224`` or ``768x1024``."""
Seed = Annotated[int, Whole(0, MOST_SEED)]
Dimension = Annotated[int, Whole(1, 2**40)]
"""Of a matrix or a tensor."""

Clock = Annotated[float, Number(1e-3, 1e3)]
"""GHz: from 1 MHz to 1 THz."""
Bandwidth = Annotated[float, Number(1e-3, 1e12)]
"""GB/s (10^9 bytes): from 1 MB/s to what is as good as free."""
FlopRate = Annotated[float, Number(1e6, 1e21)]
"""FLOP/s: of one device, from a microcontroller's to what is as good as free."""
Share = Annotated[float, Number(1e-4, 1)]
Picojoules = Annotated[float, Number(0, 1e9)]
"""Of one event: up to a millijoule."""
Nanoseconds = Annotated[float, Number(0, 1e9)]
"""Of one hop: up to a second."""


def require(name: str, value: Any, kind: Any) -> None:
    """Raise InputError unless a number, which messages call ``name``, is of one of the types above."""
    what = f"{name} {shown(value)}" if name.startswith("--") else f"{name}={shown(value)}"
    bounds: Whole | Number = next(item for item in kind.__metadata__ if isinstance(item, Whole | Number))
    if isinstance(value, bool) or not isinstance(value, Integral if isinstance(bounds, Whole) else Real):
        raise InputError(f"{what} must be a number")
    amount: Any = value
    if not amount >= bounds.least:  # NaN is not
        raise InputError(f"{what} must be at least {bounds.least}")
    if amount > bounds.most:
        raise InputError(f"{what} must be at most {bounds.most}")

"""What a trace is made of: tensors, operators and the header that says where they come from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from neupims_sim.showing import Shown

Role = Literal["weight", "activation", "kv_cache", "state"]
"""What a tensor is to the model. ``state``: lives between requests but is no parameter (a retrieval database)."""
ROLES: tuple[Role, ...] = get_args(Role)

ELEMENT_BYTES: Mapping[str, int] = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8": 1,
    "int64": 8,
    "int32": 4,
    "int8": 1,
    "uint8": 1,
}
"""Known dtypes and the bytes of one element."""

VERSION = 1
"""Version of the file format."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A dense array that an operator reads or writes.

    A name ``x.part`` or ``x[request]`` denotes a view of ``x`` (the queries of ``qkv``, one request's cache).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float16"
    role: Role = "activation"

    @property
    def whole(self) -> str:
        """Name of the tensor of which this one is a view: ``qkv`` for ``qkv.q[3]``."""
        return re.split(r"[.\[]", self.name, maxsplit=1)[0]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in bytes, without padding."""
        return self.elements * ELEMENT_BYTES[self.dtype]


@dataclass(frozen=True, slots=True, repr=False)
class Operator(Shown):
    """One operator of one device.

    Operators with ``repeat = n > 1`` form a block of ``n`` identical layers, executed one after the other; each is
    written once, and its counts (``flops``, ``read_bytes``, ...) are of one layer.
    """

    id: int
    name: str
    """Role in the block: ``qkv``, ``logits``, ... Operators of different requests share it."""
    op: str
    """Kind, a name in ``KINDS``."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    deps: tuple[int, ...] = ()
    """Ids of operators that end before this one starts; all are earlier in the trace."""
    repeat: int = 1
    request: int | None = None
    """Index of the request in its batch, where the operator belongs to one."""
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TraceHeader:
    """Where a trace comes from. ``attrs`` are further keys of the header object (``tensor_parallel``, ...)."""

    model: str
    phase: str
    """``decode``, ``prefill`` or another name for what the model does (``encode``, ``rerank``)."""
    batch: int
    """Requests, images or queries processed together."""
    dtype: str = "float16"
    """Of weights and activations unless a tensor says otherwise."""
    seed: int = 0
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False)
class Trace(Shown):
    """A whole trace in memory, operators in dependency order."""

    header: TraceHeader
    operators: tuple[Operator, ...]

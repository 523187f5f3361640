"""Collecting the operators of a trace: ids in order, dependencies found by tensor name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from neupims_sim.trace import Operator, Role, Tensor


class TraceBuilder:
    """Operators in the order in which they are added; each depends on the producers of its inputs.

    Weights and state have no producer, nor has the model's own input. ``repeat``: how often an operator is executed unless
    it says otherwise.
    """

    def __init__(self, dtype: str, repeat: int = 1) -> None:
        self.operators: list[Operator] = []
        self._repeat = repeat
        self._producers: defaultdict[str, list[int]] = defaultdict(list)
        self._dtype = dtype

    def activation(self, name: str, *shape: int) -> Tensor:
        """A tensor of this step; ``x.part`` and ``x[i]`` are views of ``x``, ``x[i].part`` of ``x[i]``."""
        return self._tensor(name, shape, "activation")

    def weight(self, name: str, *shape: int) -> Tensor:
        """A parameter of the model."""
        return self._tensor(name, shape, "weight")

    def cache(self, name: str, *shape: int) -> Tensor:
        """Keys and values of requests."""
        return self._tensor(name, shape, "kv_cache")

    def state(self, name: str, *shape: int) -> Tensor:
        """What lives between requests without being a parameter: a database."""
        return self._tensor(name, shape, "state")

    def add(
        self,
        name: str,
        op: str,
        inputs: tuple[Tensor, ...],
        shape: tuple[int, ...],
        *,
        output: str | None = None,
        repeat: int | None = None,
        request: int | None = None,
        attrs: dict[str, Any] | None = None,
    ) -> Tensor:
        """Append an operator with one activation as output and return that tensor.

        ``output``: its name, by default that of the operator, with ``[request]`` where the operator belongs to one.
        """
        produced = self.activation(output or _named(name, request), *shape)
        self.emit(name, op, inputs, (produced,), repeat=repeat, request=request, attrs=attrs)
        return produced

    def linear(
        self,
        name: str,
        left: Tensor,
        width: int,
        *,
        repeat: int | None = None,
        request: int | None = None,
        bias: bool = True,
    ) -> Tensor:
        """Append a GEMM with weights of its own: [M, K] -> [M, width]."""
        inputs = [left, self.weight(f"{name}.weight", left.shape[1], width)]
        inputs += [self.weight(f"{name}.bias", width)] if bias else []
        return self.add(name, "gemm", tuple(inputs), (left.shape[0], width), repeat=repeat, request=request)

    def layernorm(self, name: str, hidden: Tensor, *, repeat: int | None = None, request: int | None = None) -> Tensor:
        """Append a LayerNorm with gain and shift: [T, E] -> [T, E]."""
        vectors = (self.weight(f"{name}.{vector}", hidden.shape[1]) for vector in ("gain", "shift"))
        return self.add(name, "layernorm", (hidden, *vectors), hidden.shape, repeat=repeat, request=request)

    def emit(
        self,
        name: str,
        op: str,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        *,
        repeat: int | None = None,
        request: int | None = None,
        attrs: dict[str, Any] | None = None,
    ) -> None:
        """Append an operator."""
        number = len(self.operators)
        repeat = self._repeat if repeat is None else repeat
        deps = {producer for tensor in inputs for producer in self._producers_of(tensor)}
        self.operators.append(
            Operator(number, name, op, inputs, outputs, tuple(sorted(deps)), repeat, request, attrs or {})
        )
        for key in {key for tensor in outputs for key in _containing(tensor.name)}:
            self._producers[key].append(number)

    def _producers_of(self, tensor: Tensor) -> list[int]:
        """Operators that wrote this tensor or parts of it, else those of the smallest tensor that it is a view of."""
        if tensor.role in ("weight", "state"):
            return []
        known = (self._producers[key] for key in _containing(tensor.name) if key in self._producers)
        return next(known, [])

    def _tensor(self, name: str, shape: tuple[int, ...], role: Role) -> Tensor:
        return Tensor(name, shape, self._dtype, role)


def _containing(name: str) -> Iterator[str]:
    """``name`` and what it is a view of: ``qkv[3].q``, ``qkv[3]``, ``qkv``."""
    yield name
    for cut in reversed(list(re.finditer(r"[.\[]", name))):
        yield name[: cut.start()]


def _named(name: str, request: int | None) -> str:
    return name if request is None else f"{name}[{request}]"

"""A registry is a decorator and a dict: a new policy, memory model, workload or plot is one new file, found by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from neupims_sim.errors import InputError, suggestion

T = TypeVar("T")


class Registry(Generic[T]):
    """Named implementations of one kind.

    Parameters
    ----------
    kind: what is registered, for messages (``"channel assignment"``).
    package: dotted package whose modules are imported on first use, so that a file dropped into it is found.
    """

    def __init__(self, kind: str, package: str | None = None) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: make the decorated object available as ``name``."""

        def add(entry: T) -> T:
            if name in self._entries and self._entries[name] is not entry:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def _load(self) -> None:
        if self._package is not None:
            package = importlib.import_module(self._package)
            self._package = None
            for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
                importlib.import_module(module.name)

    def __getitem__(self, name: str) -> T:
        self._load()
        if name not in self._entries:
            raise InputError(f"unknown {self.kind} {name!r}; {suggestion(name, self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._entries))

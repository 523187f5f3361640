"""A registry is a decorator and a dict: a new policy, memory model, workload or plot is one new file, found by name.

Where a configuration or a command names an entry, it may also name one of somebody else, ``package.module:name``. The module is
imported, and so runs: a configuration, a memory table or a sweep file that names one is a program, not just data.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from neupims_sim.errors import InputError, shown, suggestion

T = TypeVar("T")

_FULL_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class Registry(Generic[T]):
    """Named implementations of one kind.

    Parameters
    ----------
    kind: what is registered, for messages (``"channel assignment"``).
    package: dotted package whose modules are imported on first use, so that a file dropped into it is found.
    key: the configuration key or option that names an entry, for messages (``"scheduling.channel_assignment"``).
    adopt: makes an entry of what ``package.module:name`` is; it raises InputError, starting with its second argument, for
        what cannot be one. Without it only registered names are known.
    group: entry points under which installed packages offer entries by name.
    rules: names that stand for one of the entries, which is chosen where it is used (``auto``).
    """

    def __init__(
        self,
        kind: str,
        package: str | None = None,
        *,
        key: str = "",
        adopt: Callable[[Any, str], T] | None = None,
        group: str | None = None,
        rules: tuple[str, ...] = (),
    ) -> None:
        self.kind = kind
        self.key = key
        self.rules = rules
        self._package = package
        self._adopt = adopt
        self._group = group
        self._entries: dict[str, T] = {}
        self._adopted: dict[str, tuple[Any, T]] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: make the decorated object available as ``name``."""

        def add(entry: T) -> T:
            if name in self._entries and self._entries[name] is not entry:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        """The entry of a name; raises InputError, with the nearest name, if there is none."""
        self._load()
        if name in self._entries:
            return self._entries[name]
        if self._adopt is not None and ":" in name:
            return self._own(EntryPoint(name, name, ""))
        offered = [entry for entry in self._offered() if entry.name == name]
        if len(offered) > 1:
            owners = " and ".join(sorted(entry.dist.name for entry in offered if entry.dist))
            raise InputError(f"{self.key}={name!r} is offered by {owners}; name one as package.module:name")
        if offered:
            return self._own(offered[0])
        allowed = suggestion(name, self)
        own = (
            ""
            if self._adopt is None or "; did you mean" in allowed
            else "; one of your own is named package.module:name"
        )
        raise InputError(f"unknown {self.kind} {shown(name)}; {allowed}{own}")

    def module(self, name: str) -> str | None:
        """The module that an entry of an installed package or of the user comes from; None for one of ours."""
        if name in self._entries:
            return None
        values = [name] if ":" in name else [entry.value for entry in self._offered() if entry.name == name]
        return values[0].partition(":")[0] if values else None

    def __contains__(self, name: object) -> bool:
        return name in set(self)

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted({*self._entries, *self.rules, *(entry.name for entry in self._offered())}))

    def _load(self) -> None:
        if self._package is not None:
            package = importlib.import_module(self._package)
            self._package = None
            for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
                importlib.import_module(module.name)

    def _offered(self) -> list[EntryPoint]:
        return [] if self._group is None else list(entry_points(group=self._group))

    def _own(self, entry: EntryPoint) -> T:
        """What somebody else's module has, as an entry."""
        what = f"{self.key}={shown(entry.name)}"
        if entry.dist is not None:
            what += f" ({entry.value} of package {entry.dist.name} {entry.dist.version})"
        found = _imported(entry.value, what)
        known = self._adopted.get(entry.name)
        if known is None or known[0] is not found:
            assert self._adopt is not None
            known = self._adopted[entry.name] = (found, self._adopt(found, what))
        return known[1]


def function_of(*parameters: str) -> Callable[[Any, str], Any]:
    """For ``adopt``: the entry is a function that can be called with these positional arguments."""

    def adopt(found: Any, what: str) -> Any:
        if not callable(found):
            raise InputError(f"{what} is not a function; it must take ({', '.join(parameters)})")
        try:
            inspect.signature(found).bind(*parameters)
        except TypeError as error:
            raise InputError(f"{what}: {error}; it must take ({', '.join(parameters)})") from None
        except ValueError:  # compiled functions may not tell what they take
            pass
        return found

    return adopt


def _imported(name: str, what: str) -> Any:
    """The object of ``package.module:name``. Modules in the current folder are found, after those that are installed."""
    if not _FULL_NAME.fullmatch(name):
        raise InputError(f"{what}: write package.module:name")
    module_name, _, attributes = name.partition(":")
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        looked = f" (looked among installed packages and in {folder})" if error.name in _parents(module_name) else ""
        raise InputError(f"{what} cannot be imported: {type(error).__name__}: {error}{looked}") from error
    except (Exception, SystemExit) as error:  # a module of somebody else can fail in any way
        raise InputError(f"{what} cannot be imported: {type(error).__name__}: {error}") from error
    file = getattr(found, "__file__", None) or "built in"
    try:
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except AttributeError as error:
        raise InputError(f"{what} cannot be imported: AttributeError: {error} ({file})") from None
    return found


def _parents(module: str) -> set[str]:
    """``{"a", "a.b"}`` of ``"a.b"``."""
    parts = module.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts) + 1)}

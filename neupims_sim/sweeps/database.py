"""The store of a sweep: one SQLite file that holds every point, its configuration and what became of it.

Tables: ``points``, one row per run, identified by ``hash`` (of the resolved configuration), ``code`` (`code_version`) and
``inputs`` (`inputs_version`); ``places``, the rows of the sweep's table in order, each with its values on the axes and its
point (places may share one); ``meta``: ``store_version``, ``package_version``, ``sweep`` (the text of the sweep file),
``environment`` (of the last command that ran points: JSON of `neupims_sim.simulation.environment`).

One process writes at a time, which a lock on a file beside the store ensures; the system drops it when that process ends,
however that happens. Every change is one transaction of SQLite's write-ahead log, so readers see a consistent store at
every moment and a killed writer loses nothing that was stored.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Self

import neupims_sim
from neupims_sim.config.files import label
from neupims_sim.errors import InputError
from neupims_sim.sweeps.execution import Outcome

FILE = "store.sqlite"
STORE_VERSION = 2
"""1 was a folder with a JSON file per point."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE points (
    id INTEGER PRIMARY KEY,
    hash TEXT NOT NULL,
    code TEXT NOT NULL,
    inputs TEXT NOT NULL,
    config TEXT NOT NULL,  -- the resolved configuration; JSON, which is YAML, so `run` takes it
    status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'running', 'ok', 'failed')),
    result TEXT,  -- result.json
    error TEXT NOT NULL DEFAULT '',
    traceback TEXT NOT NULL DEFAULT '',
    worker TEXT,
    started TEXT,  -- UTC
    seconds REAL,  -- in the worker
    UNIQUE (hash, code, inputs)
);
CREATE TABLE places (
    position INTEGER PRIMARY KEY,
    axes TEXT NOT NULL,  -- JSON
    point INTEGER NOT NULL REFERENCES points (id)
);
CREATE INDEX places_of_point ON places (point);
"""


class Place(NamedTuple):
    """A place of a sweep before it is stored: its values on the axes and its point; ``config`` is JSON."""

    axes: str
    hash: str
    inputs: str
    config: str


class Row(NamedTuple):
    """A finished point at one of its places."""

    axes: dict[str, Any]
    hash: str
    code: str
    status: Literal["ok", "failed"]
    result: dict[str, Any]
    """Empty if it failed."""
    error: str
    traceback: str


class Run(NamedTuple):
    """A point of the sweep: what ran, when and where."""

    hash: str
    code: str
    status: Literal["pending", "running", "ok", "failed"]
    config: dict[str, Any]
    """The resolved configuration."""
    worker: str
    """``host:process``; empty before the point has finished."""
    started: str
    """UTC, ``YYYY-MM-DD HH:MM:SS``; empty before the point has started."""
    seconds: float | None
    """In the worker."""


class Reader:
    """A store as others see it, while a sweep writes it or afterwards."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = directory / FILE
        with self._told():
            self._database = self._connect()
            try:
                self._check_version()
            except BaseException:
                self._database.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def sweep_text(self) -> str:
        """The text of the sweep file that the places are of."""
        return self._meta("sweep") or ""

    def rows(self) -> Iterator[Row]:
        """Every place whose point has finished, in order."""
        with self._told():
            for axes, hash_, code, status, result, error, traceback in self._database.execute(
                "SELECT axes, hash, code, status, result, error, traceback FROM places JOIN points ON id = point "
                "WHERE status IN ('ok', 'failed') ORDER BY position"
            ):
                yield Row(json.loads(axes), hash_, code, status, json.loads(result or "{}"), error, traceback)

    def runs(self) -> Iterator[Run]:
        """Every point of the sweep, finished or not, in order of its first place."""
        with self._told():
            for hash_, code, status, config, worker, started, seconds in self._database.execute(
                "SELECT hash, code, status, config, worker, started, seconds FROM points "
                "JOIN (SELECT point, min(position) AS first FROM places GROUP BY point) ON id = point ORDER BY first"
            ):
                yield Run(hash_, code, status, json.loads(config), worker or "", started or "", seconds)

    def environment(self) -> dict[str, Any]:
        """Versions, machine and command line of the last command that ran points; empty if the store does not say."""
        found: dict[str, Any] = json.loads(self._meta("environment") or "{}")
        return found

    def count_other_code(self, code: str) -> int:
        """Finished points of the sweep that ran with other code."""
        with self._told():
            found = self._database.execute(
                "SELECT count(*) FROM points WHERE status IN ('ok', 'failed') AND code != ? "
                "AND id IN (SELECT point FROM places)",
                (code,),
            )
            return int(found.fetchone()[0])

    def _connect(self) -> sqlite3.Connection:
        # A folder that nobody may write has no writer either, and SQLite could not make the files that readers share.
        mode = "mode=ro" if os.access(self.directory, os.W_OK) else "immutable=1"
        return sqlite3.connect(f"{self._file.absolute().as_uri()}?{mode}", uri=True, isolation_level=None)

    def _check_version(self) -> None:
        version = self._meta("store_version")
        if version != str(STORE_VERSION):
            raise InputError(
                f"{label(self._file)}: a store of version {version}, this is neupims_sim {neupims_sim.__version__} with stores of "
                f"version {STORE_VERSION}; give another --out, or delete the folder"
            )

    def _meta(self, key: str) -> str | None:
        found = self._database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What SQLite and the system refuse, in one line."""
        try:
            yield
        except sqlite3.Error as error:
            raise InputError(f"{label(self._file)}: {_problem(error)}") from error


class Store(Reader):
    """A store that this process alone writes. Made if there is none."""

    def __init__(self, directory: Path) -> None:
        with _told_by_system(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(directory)
        try:
            if (directory / "points").is_dir() and not (directory / FILE).exists():
                raise InputError(
                    f"{label(directory)}: a store of version 1 (a file per point), this is neupims_sim {neupims_sim.__version__} "
                    f"with stores of version {STORE_VERSION}; give another --out, or delete the folder"
                )
            super().__init__(directory)
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Close the file and let the next one write."""
        super().close()
        self._lock.close()

    def begin(self, sweep_text: str, places: Iterable[Place], code: str, retry_failed: bool) -> None:
        """Make ``places`` those of the store. What has finished stays finished, unless it failed and ``retry_failed``."""
        with self._transaction() as write:
            write("UPDATE points SET status = 'pending' WHERE status = 'running'")
            write("DELETE FROM places")
            for position, place in enumerate(places):
                identity = (place.hash, code, place.inputs)
                write(
                    "INSERT OR IGNORE INTO points (hash, code, inputs, config) VALUES (?, ?, ?, ?)",
                    (*identity, place.config),
                )
                write(
                    "INSERT INTO places SELECT ?, ?, id FROM points WHERE hash = ? AND code = ? AND inputs = ?",
                    (position, place.axes, *identity),
                )
            write("DELETE FROM points WHERE status = 'pending' AND id NOT IN (SELECT point FROM places)")
            if retry_failed:
                write(
                    "UPDATE points SET status = 'pending', error = '', traceback = '' "
                    "WHERE status = 'failed' AND id IN (SELECT point FROM places)"
                )
            for key, value in (("sweep", sweep_text), ("package_version", neupims_sim.__version__)):
                write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def note_environment(self, environment: Mapping[str, Any]) -> None:
        """Remember what runs the points that follow."""
        with self._transaction() as write:
            write("INSERT OR REPLACE INTO meta VALUES ('environment', ?)", (json.dumps(environment),))

    def count(self, *statuses: str) -> int:
        """Points of the sweep, or those of some statuses."""
        found = self._database.execute(
            "SELECT status, count(*) FROM points WHERE id IN (SELECT point FROM places) GROUP BY status"
        )
        return sum(count for status, count in found if not statuses or status in statuses)

    def pending(self) -> list[int]:
        """Points that have not finished, in order of their first place."""
        found = self._database.execute(
            "SELECT point FROM places JOIN points ON id = point WHERE status = 'pending' GROUP BY point ORDER BY min(position)"
        )
        return [point for (point,) in found]

    def config(self, point: int) -> str:
        """The resolved configuration of a point, JSON."""
        return str(self._database.execute("SELECT config FROM points WHERE id = ?", (point,)).fetchone()[0])

    def axes(self, point: int) -> dict[str, Any]:
        """The first place of a point."""
        found = self._database.execute("SELECT axes FROM places WHERE point = ? ORDER BY position LIMIT 1", (point,))
        axes: dict[str, Any] = json.loads(found.fetchone()[0])
        return axes

    def start(self, point: int) -> None:
        """A point has been given to a worker."""
        with self._transaction() as write:
            write("UPDATE points SET status = 'running', started = datetime('now') WHERE id = ?", (point,))

    def finish(self, point: int, outcome: Outcome) -> None:
        """Store what became of a point."""
        status = "failed" if outcome.error else "ok"
        values = (
            status,
            outcome.result or None,
            outcome.error,
            outcome.traceback,
            outcome.worker,
            outcome.seconds,
            point,
        )
        with self._transaction() as write:
            write(
                "UPDATE points SET status = ?, result = ?, error = ?, traceback = ?, worker = ?, seconds = ? WHERE id = ?",
                values,
            )

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._file, isolation_level=None)
        try:
            if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                database.execute("PRAGMA journal_mode = WAL")
                version = f"INSERT INTO meta VALUES ('store_version', '{STORE_VERSION}');"
                database.executescript(f"BEGIN; {_SCHEMA} {version} COMMIT;")
            # With a write-ahead log, NORMAL can lose the last points when the power fails, and corrupts nothing.
            database.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """One change of the store, whole or not at all; yields what executes a statement."""
        with self._told():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database.execute
                self._database.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite has rolled back by itself if the disk is full
                    self._database.execute("ROLLBACK")
                raise


def _lock(directory: Path) -> IO[str]:
    """The lock of a store, held until the file is closed; raises InputError if another process holds it."""
    file = (directory / "store.lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise InputError(
            f"{label(directory)}: another sweep is writing this store{owner and f' ({owner})'}; wait for it, or give another --out"
        ) from None
    with suppress(OSError):  # who it is helps others, and is not worth failing for on a full disk
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
    return file


@contextmanager
def _told_by_system(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"--out {label(directory)}: cannot be written: {error.strerror}") from error


def _problem(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR"):
        return (
            f"the disk is full or fails ({error}); finished points are stored, make room and the same command goes on"
        )
    if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT") or "no such table" in str(error):
        return f"not the store of a sweep, or damaged ({error}); give another --out, or delete the file"
    return f"cannot be used: {error}"

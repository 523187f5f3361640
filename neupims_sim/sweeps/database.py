"""The store of a sweep: one SQLite file that holds every point, its configuration and what became of it.

Tables: ``points``, one row per run, identified by ``hash`` (of the resolved configuration), ``code`` (`code_version`) and
``inputs`` (`Inputs.version`); ``places``, the rows of the sweep's table in order, each with its values on the axes and its
point (places may share one); ``meta``: ``store_version``, ``package_version``, ``sweep`` (the text of the sweep file),
``source`` (its path),
``environment`` (of the last command that ran points: JSON of `neupims_sim.simulation.environment`).

One process writes at a time, which a lock on a file beside the store ensures; the system drops it when that process ends,
however that happens. Every change is one transaction of SQLite's write-ahead log, so readers see a consistent store at
every moment and a killed writer loses nothing that was stored. Whoever closes the store last takes the log along: one file is left.

A point whose row cannot be read counts as failed, and a sweep runs it again; the others are not concerned.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import neupims_sim
from neupims_sim.config.files import label
from neupims_sim.errors import InputError
from neupims_sim.sweeps.execution import Outcome
from neupims_sim.writing import replaced

FILE = "store.sqlite"
LOCK = "store.lock"
BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite appends to the name of a store for its own files."""
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


class Again(NamedTuple):
    """A point that runs once more: its first place, and why."""

    axes: dict[str, Any]
    reason: str


class Begun(NamedTuple):
    """What a sweep found in its store."""

    damaged: list[Again]
    """Finished points that cannot be read."""
    retried: list[Again]
    """Failed points, where this was asked for."""
    lost: int
    """Points of which not even a place is left."""


class DamagedError(Exception):
    """A value in the store cannot be read."""


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

    def source(self) -> Path | None:
        """Where the sweep file was; None if the store does not say."""
        found = self._meta("source")
        return None if found is None else Path(found)

    def rows(self) -> Iterator[Row]:
        """Every place whose point has finished, in order."""
        for axes, point, _ in self._places("status IN ('ok', 'failed')"):
            try:
                yield self._row(axes, point)
            except DamagedError as problem:
                yield self._damaged_row(axes, point, problem)

    def places(self) -> list[tuple[dict[str, Any], bool]]:
        """Every place, in order, and whether its point has finished."""
        return [(axes, status in ("ok", "failed")) for axes, _, status in self._places("1")]

    def runs(self) -> Iterator[Run]:
        """Every point of the sweep, finished or not, in order of its first place."""
        with self._told():
            for hash_, code, status, config, worker, started, seconds in self._database.execute(
                "SELECT hash, code, status, config, worker, started, seconds FROM points "
                "JOIN (SELECT point, min(position) AS first FROM places GROUP BY point) ON id = point ORDER BY first"
            ):
                with suppress(DamagedError):
                    yield Run(hash_, code, status, _object(config), worker or "", started or "", seconds)

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

    def _places(self, condition: str) -> list[tuple[dict[str, Any], int, str]]:
        """Axes, point and status of every place whose point meets a condition, in order."""
        with self._told():
            found = self._database.execute(
                f"SELECT axes, id, status FROM places JOIN points ON id = point WHERE {condition} ORDER BY position"
            )
            return [(self._axes(axes), point, status) for axes, point, status in found]

    @staticmethod
    def _axes(text: str) -> dict[str, Any]:
        """The values on the axes; none are known where they are damaged."""
        try:
            return _object(text)
        except DamagedError:
            return {}

    def _row(self, axes: dict[str, Any], point: int) -> Row:
        """A finished point; raises DamagedError if it cannot be read."""
        try:
            hash_, code, status, result, error, traceback = self._database.execute(
                "SELECT hash, code, status, result, error, traceback FROM points WHERE id = ?", (point,)
            ).fetchone()
        except sqlite3.DatabaseError as problem:
            raise DamagedError(str(problem)) from problem
        return Row(axes, hash_, code, status, _object(result) if status == "ok" else {}, error, traceback)

    def _damaged_row(self, axes: dict[str, Any], point: int, problem: DamagedError) -> Row:
        """What is told of a point that cannot be read."""
        with self._told():
            hash_, code = self._database.execute("SELECT hash, code FROM points WHERE id = ?", (point,)).fetchone()
        message = f"damaged: the stored result cannot be read ({problem}); the same sweep runs it again"
        return Row(axes, hash_, code, "failed", {}, message, "")

    def _connect(self) -> sqlite3.Connection:
        self._refuse_links()
        # Who may write the folder takes SQLite's own files along; where nobody may, there is no writer either.
        if os.access(self.directory, os.W_OK) and os.access(self._file, os.W_OK):
            try:
                return self._opened("mode=rw")
            except sqlite3.OperationalError:  # no room for SQLite's own files, which it does without if there is no log
                log = self._file.with_name(f"{FILE}-wal")
                if log.exists() and log.stat().st_size:
                    raise
        return self._opened("immutable=1")

    def _opened(self, mode: str) -> sqlite3.Connection:
        database = sqlite3.connect(f"{self._file.absolute().as_uri()}?{mode}", uri=True, isolation_level=None)
        try:
            database.execute("PRAGMA query_only = ON")
            database.execute("SELECT count(*) FROM sqlite_master")
        except BaseException:
            database.close()
            raise
        return database

    def _refuse_links(self) -> None:
        """SQLite would write through symbolic links in the place of its own files."""
        for name in BESIDE:
            if self._file.with_name(FILE + name).is_symlink():
                raise InputError(f"{label(self._file)}{name}: is a symbolic link, and not of SQLite; remove it")

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
            if (directory / FILE).is_symlink():
                raise InputError(
                    f"{label(directory / FILE)}: is a symbolic link, which a sweep does not write through; remove it"
                )
            if (directory / "points").is_dir() and not (directory / FILE).exists():
                raise InputError(
                    f"{label(directory)}: a store of version 1 (a file per point), this is neupims_sim {neupims_sim.__version__} "
                    f"with stores of version {STORE_VERSION}; give another --out, or delete the folder"
                )
            super().__init__(directory)
        except BaseException:
            _unlock(directory, self._lock)
            raise

    def close(self) -> None:
        """Close the file and let the next one write."""
        try:
            super().close()
        finally:
            _unlock(self.directory, self._lock)

    def begin(self, sweep_text: str, source: Path, places: Iterable[Place], code: str, retry_failed: bool) -> Begun:
        """Make ``places`` those of the store.

        What has finished stays finished, unless it cannot be read, or it failed and ``retry_failed``.
        """
        lost = self._mend()
        with self._transaction() as write:
            write("UPDATE points SET status = 'pending' WHERE status = 'running'")
            write("DELETE FROM places")
            for position, place in enumerate(places):
                identity = (place.hash, code, place.inputs)
                write(
                    "INSERT INTO points (hash, code, inputs, config) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET config = excluded.config WHERE config IS NOT excluded.config",
                    (*identity, place.config),
                )
                write(
                    "INSERT INTO places SELECT ?, ?, id FROM points WHERE hash = ? AND code = ? AND inputs = ?",
                    (position, place.axes, *identity),
                )
            write("DELETE FROM points WHERE status = 'pending' AND id NOT IN (SELECT point FROM places)")
            damaged, retried = self._to_run_again(retry_failed)
            for point in (*damaged, *retried):
                write(
                    "UPDATE points SET status = 'pending', result = NULL, error = '', traceback = '' WHERE id = ?",
                    (point,),
                )
            stated = {"sweep": sweep_text, "source": str(source.absolute()), "package_version": neupims_sim.__version__}
            for key, value in stated.items():
                write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
        return Begun(list(damaged.values()), list(retried.values()), lost)

    def _mend(self) -> int:
        """If pages of the file are damaged, put a store in its place that has what can be read; returns how many points it lacks."""
        with suppress(sqlite3.DatabaseError):
            self._database.execute(
                "SELECT max(length(config) + length(result) + length(traceback)) FROM points"
            ).fetchone()
            return 0
        with self._told(), replaced(self._file, label(self._file)) as fresh:
            with closing(_new_database(fresh)) as database:
                kept, known = self._copy("points", database), self._database.execute("SELECT count(*) FROM points")
                self._copy("meta", database)
                lost = int(known.fetchone()[0]) - kept
            self._database.close()
            for name in BESIDE:
                for path in (self._file.with_name(FILE + name), fresh.with_name(fresh.name + name)):
                    path.unlink(missing_ok=True)
        self._database = self._connect()
        return lost

    def _copy(self, table: Literal["points", "meta"], target: sqlite3.Connection) -> int:
        """Copy the rows that can be read; returns how many."""
        key = "key" if table == "meta" else "id"
        copied = 0
        target.execute("BEGIN")
        for (row,) in self._database.execute(f"SELECT {key} FROM {table}").fetchall():
            with suppress(sqlite3.DatabaseError):
                values = self._database.execute(f"SELECT * FROM {table} WHERE {key} = ?", (row,)).fetchone()
                target.execute(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(values))})", values)
                copied += 1
        target.execute("COMMIT")
        return copied

    def _to_run_again(self, retry_failed: bool) -> tuple[dict[int, Again], dict[int, Again]]:
        """Finished points that are damaged, and, if they are to be retried, those that failed."""
        damaged, retried = dict[int, Again](), dict[int, Again]()
        for axes, point, _ in self._places("status IN ('ok', 'failed')"):
            try:
                row = self._row(axes, point)
            except DamagedError as problem:
                damaged.setdefault(point, Again(axes, str(problem)))
                continue
            if retry_failed and row.status == "failed":
                retried.setdefault(point, Again(axes, row.error))
        return damaged, retried

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
        self._refuse_links()
        return _new_database(self._file)

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


def _new_database(file: Path) -> sqlite3.Connection:
    """A store to write to, made if there is none."""
    database = sqlite3.connect(file, isolation_level=None)
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


_OWNER = "process"
"""How the text of a lock begins."""


def _lock(directory: Path) -> int:
    """The lock of a store, an open file; raises InputError if another process holds it.

    The file is always a new one of ours: what is there already is neither written nor, if it is a link, followed. A killed
    owner leaves its file; whoever finds it free removes it.
    """
    path = directory / LOCK
    while True:
        try:
            descriptor, is_new = os.open(path, _LOCK_FLAGS | os.O_CREAT | os.O_EXCL, 0o644), True
        except FileExistsError:
            try:
                descriptor, is_new = os.open(path, _LOCK_FLAGS), False
            except FileNotFoundError:  # its owner has just ended
                continue
        try:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            owner = os.read(descriptor, 200).decode(errors="replace").strip() if regular else "?"
            if owner and not owner.startswith(_OWNER):
                raise InputError(f"{label(path)}: not the lock of a sweep; remove it, or give another --out")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_new and _is_at(path, descriptor):
                with suppress(OSError):  # who it is helps others, and is not worth failing for on a full disk
                    os.write(descriptor, f"{_OWNER} {os.getpid()} on {socket.gethostname()}".encode())
                return descriptor
            if _is_at(path, descriptor):
                path.unlink()
            os.close(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            if is_new:  # taken for a leftover by another, which removes it
                continue
            raise InputError(
                f"{label(directory)}: another sweep is writing this store{owner and f' ({owner})'}; wait for it, or give another --out"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise


_LOCK_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


def _unlock(directory: Path, descriptor: int) -> None:
    """Remove the file of a lock and free it."""
    path = directory / LOCK
    with suppress(OSError):
        if _is_at(path, descriptor):
            path.unlink()
    os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the file at a path is still the one that is open."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _object(text: str | None) -> dict[str, Any]:
    """A JSON object in the store; raises DamagedError if the text is none."""
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError) as problem:
        raise DamagedError(str(problem)) from problem
    if not isinstance(found, dict):
        raise DamagedError("not a JSON object")
    return found


@contextmanager
def _told_by_system(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = "store.lock is a symbolic link; remove it" if error.errno == errno.ELOOP else error.strerror
        raise InputError(f"--out {label(directory)}: cannot be written: {reason}") from error


def _problem(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR"):
        return (
            f"the disk is full or fails ({error}); finished points are stored, make room and the same command goes on"
        )
    if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT") or "no such table" in str(error):
        return f"not the store of a sweep, or damaged ({error}); give another --out, or delete the file"
    return f"cannot be used: {error}"

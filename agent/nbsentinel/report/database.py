"""The spool's file: opened, set aside when it is damaged, and written with the ballast in reserve."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from nbsentinel.errors import SpoolError

BALLAST_BYTES = 1 << 20
"""A file that is given up when the disk is full, so that findings still find room."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
  id INTEGER PRIMARY KEY AUTOINCREMENT, chain TEXT NOT NULL, sequence INTEGER NOT NULL, class INTEGER NOT NULL,
  severity INTEGER NOT NULL, vital INTEGER NOT NULL, line BLOB NOT NULL, UNIQUE (chain, sequence));
CREATE INDEX IF NOT EXISTS events_class ON events (class, id);
CREATE TABLE IF NOT EXISTS chains (
  chain TEXT PRIMARY KEY, ordinal INTEGER NOT NULL, state TEXT NOT NULL, genesis BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS cursors (sink TEXT PRIMARY KEY, id INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_PARTS = ("-wal", "-shm", "")
_NO_ROOM = ("full", "disk I/O error")
"""What SQLite says on a full disk; the second where its shared index cannot grow."""
_T = TypeVar("_T")


class Database:
    """One SQLite file in WAL mode with synchronous=FULL.

    Args:
        path: The file; its folder is made with mode 0700.

    Raises:
        SpoolError: The folder or the file cannot be used now.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.set_aside = ""
        """Name of the damaged file that this one takes the place of, empty where there was none."""
        self._ballast = path.with_name("ballast")
        self._connection = self._with_room(self._open)
        self.make_ballast()

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return self._connect()
        except sqlite3.OperationalError:
            raise  # a full disk, no descriptors, a lock: the machine's trouble, the file is as good as before
        except sqlite3.DatabaseError:
            self._put_aside()
        return self._connect()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=5)
        try:
            self.path.chmod(0o600)
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("PRAGMA auto_vacuum=INCREMENTAL")
            database.execute("PRAGMA journal_size_limit=4194304")
            database.executescript(_SCHEMA)
            _total(database)  # meets every page of events, so that damage shows now
        except BaseException:
            database.close()
            raise
        return database

    def _put_aside(self) -> None:
        """Rename a file that is no sound database, with its journals: SQLite would replay them into the new one."""
        names = (f"{self.path.stem}.broken{f'-{n}' if n else ''}" for n in range(1 << 20))
        name = next(n for n in names if not any(self.path.with_name(n + end).exists() for end in _PARTS))
        for suffix in _PARTS:
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.replace(self.path.with_name(name + suffix))
        self.set_aside = name

    def make_ballast(self) -> None:
        """Set room aside, where there is enough."""
        try:
            if not self._ballast.exists():
                self._ballast.write_bytes(bytes(BALLAST_BYTES))
        except OSError:
            self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self._connection.close()

    def total(self) -> int:
        """Return the bytes of all lines."""
        with self.lock:
            return _total(self._connection)

    def execute(self, statement: str, values: Iterable[object] = ()) -> sqlite3.Cursor:
        """Execute one statement; the caller keeps the lock until it has read the rows."""
        return self._connection.execute(statement, tuple(values))

    def execute_many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Execute one statement for each row of values."""
        self._connection.executemany(statement, rows)

    def write(self, change: Callable[[], _T]) -> _T:
        """Make a change in one transaction, durably: all of it or nothing. It may be called twice.

        Raises:
            SpoolError: It cannot be written, even after the ballast was given up where the disk is full.
        """
        with self.lock:
            return self._with_room(lambda: self._transact(change))

    def _transact(self, change: Callable[[], _T]) -> _T:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = change()
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite itself ends some that fail
                self._connection.execute("ROLLBACK")
            raise
        return result

    def _with_room(self, step: Callable[[], _T]) -> _T:
        """Take a step; where the disk is full, once more without the ballast."""
        try:
            try:
                return step()
            except sqlite3.OperationalError as error:
                if not any(words in str(error) for words in _NO_ROOM) or not self._ballast.exists():
                    raise
                self._ballast.unlink(missing_ok=True)
            return step()
        except (OSError, sqlite3.Error) as error:
            hint = "Check free space and permissions of [agent] state_dir."
            raise SpoolError(f"{self.path}: cannot be used: {error}", hint=hint) from error


def _total(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(sum(length(line)), 0) FROM events").fetchone()[0])

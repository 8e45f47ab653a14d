"""The durable queue between detection and sinks: what is in here survives kill -9, an absent collector and a full disk.

One SQLite file in WAL mode with synchronous=FULL: `append` returns after the lines are on disk, and only then does
anything call them recorded. Sinks read in order from their own cursor. The file is bounded; pruning takes the oldest
events of the lowest severity first and returns exactly what it took, so that it can be stated and signed.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from nbsentinel.errors import SpoolError

BALLAST_BYTES = 1 << 20
"""A file that is given up when the disk is full, so that findings still find room."""
KEPT_FINDINGS = 1_000
"""Delivered findings that stay readable on this machine."""
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


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One sealed event on its way into the spool."""

    chain: str
    sequence: int
    class_uid: int
    severity: int
    line: bytes
    """The signed canonical line without a newline."""
    vital: bool = False
    """Never pruned: enrolment, key rotation, drop statements, goodbye."""


class Row(msgspec.Struct, frozen=True):
    """One event in the spool."""

    id: int
    chain: str
    sequence: int
    line: bytes


class Pruned(msgspec.Struct, frozen=True):
    """A run of neighbouring events of one chain that was taken out, oldest first."""

    chain: str
    first: int
    last: int
    first_line: bytes
    last_line: bytes
    severities: dict[int, int]


class Spool:
    """The queue. Safe to use from several threads.

    Args:
        folder: Where `spool.db` lives; made with mode 0700.
        max_bytes: Bound on the lines that wait for a sink.

    Raises:
        SpoolError: The folder or the file cannot be used.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.path = folder / "spool.db"
        self._ballast = folder / "ballast"
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = self._open()
        except (OSError, sqlite3.Error) as error:
            hint = "Check free space and permissions of [agent] state_dir."
            raise SpoolError(f"{self.path}: cannot be used: {error}", hint=hint) from error
        self._bytes: int = self._total()
        self._make_ballast()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if "locked" in str(error) or not self.path.exists():
                raise
            # its journal goes along: SQLite would replay it into the new file
            for suffix in ("", "-wal", "-shm"):
                part = self.path.with_name(self.path.name + suffix)
                if part.exists():
                    part.replace(self.path.with_name(self.path.stem + ".broken" + suffix))
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
        except BaseException:
            database.close()
            raise
        return database

    def _total(self) -> int:
        return int(self._db.execute("SELECT coalesce(sum(length(line)), 0) FROM events").fetchone()[0])

    def _make_ballast(self) -> None:
        try:
            if not self._ballast.exists():
                self._ballast.write_bytes(bytes(BALLAST_BYTES))
        except OSError:
            self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    # Writing

    def append(self, entries: Sequence[Entry]) -> None:
        """Write events durably, all or none; when this returns they are recorded.

        Raises:
            SpoolError: The disk refuses even after the ballast was given up.
        """
        if not entries:
            return
        try:
            self._append(entries)
        except sqlite3.OperationalError as error:
            if "full" not in str(error) or not self._ballast.exists():
                raise SpoolError(f"{self.path}: {error}", hint="Free some disk space.") from error
            self._ballast.unlink(missing_ok=True)
            try:
                self._append(entries)
            except sqlite3.Error as again:
                raise SpoolError(f"{self.path}: {again}", hint="Free some disk space.") from again

    def adopt(self, entries: Sequence[Entry]) -> None:
        """Write events of an earlier chain that an agent could not write itself; what is there already stays."""
        known = [entry for entry in entries if self.find(entry.chain, entry.sequence) is None]
        self.append(known)

    def _append(self, entries: Sequence[Entry]) -> None:
        rows = [(e.chain, e.sequence, e.class_uid, e.severity, e.vital, e.line) for e in entries]
        with self._lock, self._transaction():
            self._db.executemany(
                "INSERT INTO events (chain, sequence, class, severity, vital, line) VALUES (?, ?, ?, ?, ?, ?)", rows
            )
        self._bytes += sum(len(entry.line) for entry in entries)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def begin_chain(self, genesis: Entry) -> None:
        """Write the first event of a chain and remember the chain as not yet enrolled."""
        with self._lock, self._transaction():
            self._db.execute(
                "INSERT INTO chains SELECT ?, coalesce(max(ordinal), 0) + 1, 'new', ? FROM chains",
                (genesis.chain, genesis.line),
            )
            self._db.execute(
                "INSERT INTO events (chain, sequence, class, severity, vital, line) VALUES (?, ?, ?, ?, 1, ?)",
                (genesis.chain, genesis.sequence, genesis.class_uid, genesis.severity, genesis.line),
            )
        self._bytes += len(genesis.line)

    # Reading

    def after(self, cursor: int, most: int, *, class_uid: int | None = None) -> list[Row]:
        """Return up to `most` events with an id above the cursor, in the order of recording."""
        only, values = ("AND class = ?", [class_uid]) if class_uid is not None else ("", [])
        query = f"SELECT id, chain, sequence, line FROM events WHERE id > ? {only} ORDER BY id LIMIT ?"  # noqa: S608 - constants
        with self._lock:
            return [Row(*row) for row in self._db.execute(query, [cursor, *values, most])]

    def latest(self, count: int, class_uid: int) -> list[Row]:
        """Return the newest events of a class, oldest first."""
        query = "SELECT id, chain, sequence, line FROM events WHERE class = ? ORDER BY id DESC LIMIT ?"
        with self._lock:
            return [Row(*row) for row in self._db.execute(query, (class_uid, count))][::-1]

    def find(self, chain: str, sequence: int) -> Row | None:
        """Return one event, or None when it is not (or no longer) in the spool."""
        query = "SELECT id, chain, sequence, line FROM events WHERE chain = ? AND sequence = ?"
        with self._lock:
            row = self._db.execute(query, (chain, sequence)).fetchone()
        return Row(*row) if row else None

    def waiting(self, sink: str) -> int:
        """Return how many events a sink has still to take."""
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM events WHERE id > ?", (self.cursor(sink),)).fetchone()[0])

    @property
    def size(self) -> int:
        """Bytes of all lines in the spool."""
        return self._bytes

    # Chains and facts

    def chains(self) -> list[tuple[str, str, bytes]]:
        """Return (chain, state, genesis line) of every chain that may still have events, oldest first."""
        with self._lock:
            return list(self._db.execute("SELECT chain, state, genesis FROM chains ORDER BY ordinal"))

    def set_chain_state(self, chain: str, state: str) -> None:
        """Remember a chain as `new`, `enrolled` or `refused`."""
        with self._lock:
            self._db.execute("UPDATE chains SET state = ? WHERE chain = ?", (state, chain))

    def fact(self, name: str) -> str | None:
        """Return a remembered value, or None."""
        with self._lock:
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def remember(self, name: str, value: str) -> None:
        """Keep a small value durably."""
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # Cursors and bounds

    def cursor(self, sink: str) -> int:
        """Return the id of the last event that a sink has taken; 0 at first."""
        with self._lock:
            row = self._db.execute("SELECT id FROM cursors WHERE sink = ?", (sink,)).fetchone()
        return int(row[0]) if row else 0

    def advance(self, sink: str, cursor: int) -> None:
        """Remember how far a sink has come."""
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (sink, cursor))

    def forget_delivered(self, sinks: Iterable[str], current_chain: str) -> int:
        """Delete what every sink has taken, except the newest findings; return how many events went.

        Args:
            sinks: The sinks that are configured; with none, everything counts as taken.
            current_chain: Its record is kept, as are chains with events left.
        """
        cursors = [self.cursor(sink) for sink in sinks]
        with self._lock, self._transaction():
            bound = min(cursors) if cursors else self._newest()
            kept = self._db.execute(
                "SELECT id FROM events WHERE class = 2004 ORDER BY id DESC LIMIT 1 OFFSET ?", (KEPT_FINDINGS,)
            ).fetchone()
            gone = self._db.execute(
                "DELETE FROM events WHERE id <= ? AND (class != 2004 OR id <= ?)", (bound, kept[0] if kept else 0)
            ).rowcount
            self._db.execute(
                "DELETE FROM chains WHERE chain != ? AND chain NOT IN (SELECT chain FROM events)", (current_chain,)
            )
        if gone:
            with self._lock:
                self._bytes = self._total()
                self._db.execute("PRAGMA incremental_vacuum(256)")
            self._make_ballast()
        return gone

    def _newest(self) -> int:
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])

    def over_bound(self) -> bool:
        """Return whether the lines exceed the bound."""
        return self._bytes > self._max_bytes

    def prune(self, chain: str) -> list[Pruned]:
        """Take out events of the current chain, lowest severity and oldest first, down to 90% of the bound.

        Vital events and the newest event stay. Runs of neighbours are returned in order of sequence.
        """
        target = int(self._max_bytes * 0.9)
        query = (
            "SELECT id, sequence, severity, length(line) FROM events WHERE chain = ? AND vital = 0 "
            "AND id < (SELECT max(id) FROM events) ORDER BY severity, id"
        )
        with self._lock, self._transaction():
            size, taken = self._bytes, []
            for row in self._db.execute(query, (chain,)):
                if size <= target:
                    break
                size -= row[3]
                taken.append(row)
            runs = [self._take_run(chain, run) for run in _runs(sorted(taken, key=lambda row: row[1]))]
            self._bytes = size
        return runs

    def _take_run(self, chain: str, run: list[tuple[int, int, int, int]]) -> Pruned:
        lines = [self._db.execute("SELECT line FROM events WHERE id = ?", (run[i][0],)).fetchone()[0] for i in (0, -1)]
        self._db.executemany("DELETE FROM events WHERE id = ?", [(row[0],) for row in run])
        severities: dict[int, int] = {}
        for row in run:
            severities[row[2]] = severities.get(row[2], 0) + 1
        return Pruned(chain, run[0][1], run[-1][1], lines[0], lines[1], severities)


def _runs(rows: list[tuple[int, int, int, int]]) -> list[list[tuple[int, int, int, int]]]:
    found: list[list[tuple[int, int, int, int]]] = []
    for row in rows:
        if found and found[-1][-1][1] + 1 == row[1]:
            found[-1].append(row)
        else:
            found.append([row])
    return found


class _Transaction:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK on any error."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._database.execute("COMMIT" if kind is None else "ROLLBACK")

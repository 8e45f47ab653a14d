"""The durable queue between detection and sinks: what is in here survives kill -9, an absent collector and a full disk.

One SQLite file in WAL mode with synchronous=FULL: `append` returns after the lines are on disk, and only then does
anything call them recorded. Sinks read in order from their own cursor. The file is bounded; pruning takes the oldest
events of the lowest severity first, of whatever chain, and returns exactly what it took, so that it can be stated and
signed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from nbsentinel.report.database import Database

KEPT_FINDINGS = 1_000
"""Delivered findings that stay readable on this machine, as far as the bound allows."""
SET_ASIDE_FACT = "set_aside"
"""Name of a damaged spool that this one took the place of, until that is told."""
_INSERT = "INSERT INTO events (chain, sequence, class, severity, vital, line) VALUES (?, ?, ?, ?, ?, ?)"


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
        self._max_bytes = max_bytes
        self._db = Database(self.path)
        self._lock = self._db.lock
        self._bytes = self._db.total()
        if self._db.set_aside:
            self.remember(SET_ASIDE_FACT, self._db.set_aside)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # Writing

    def append(self, entries: Sequence[Entry]) -> None:
        """Write events durably, all or none; when this returns they are recorded.

        Raises:
            SpoolError: The disk refuses even after the ballast was given up.
        """
        if not entries:
            return
        rows = [(e.chain, e.sequence, e.class_uid, e.severity, e.vital, e.line) for e in entries]
        with self._lock:
            self._db.write(lambda: self._db.execute_many(_INSERT, rows))
            self._bytes += sum(len(entry.line) for entry in entries)

    def adopt(self, entries: Sequence[Entry]) -> None:
        """Write events of an earlier chain that an agent could not write itself; what is there already stays."""
        known = [entry for entry in entries if self.find(entry.chain, entry.sequence) is None]
        self.append(known)

    def begin_chain(self, genesis: Entry) -> None:
        """Write the first event of a chain and remember the chain as not yet enrolled."""

        def begin() -> None:
            self._db.execute(
                "INSERT INTO chains SELECT ?, coalesce(max(ordinal), 0) + 1, 'new', ? FROM chains",
                (genesis.chain, genesis.line),
            )
            self._db.execute(
                _INSERT, (genesis.chain, genesis.sequence, genesis.class_uid, genesis.severity, 1, genesis.line)
            )

        with self._lock:
            self._db.write(begin)
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
        self._db.write(lambda: self._db.execute("UPDATE chains SET state = ? WHERE chain = ?", (state, chain)))

    def fact(self, name: str) -> str | None:
        """Return a remembered value, or None."""
        with self._lock:
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def remember(self, name: str, value: str) -> None:
        """Keep a small value durably."""
        self._db.write(lambda: self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value)))

    # Cursors and bounds

    def cursor(self, sink: str) -> int:
        """Return the id of the last event that a sink has taken; 0 at first."""
        with self._lock:
            row = self._db.execute("SELECT id FROM cursors WHERE sink = ?", (sink,)).fetchone()
        return int(row[0]) if row else 0

    def advance(self, sink: str, cursor: int) -> None:
        """Remember how far a sink has come."""
        self._db.write(lambda: self._db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (sink, cursor)))

    def forget_delivered(self, sinks: Iterable[str], current_chain: str) -> int:
        """Delete what every sink has taken, except the newest findings; return how many events went.

        Findings that are kept make room first: when the spool is over its bound, the oldest of them go as well.

        Args:
            sinks: The sinks that are configured; with none, everything counts as taken.
            current_chain: Its record is kept, as are chains with events left.
        """
        cursors = [self.cursor(sink) for sink in sinks]

        def forget() -> int:
            bound = min(cursors) if cursors else self._newest()
            kept = self._db.execute(
                "SELECT id FROM events WHERE class = 2004 ORDER BY id DESC LIMIT 1 OFFSET ?", (KEPT_FINDINGS,)
            ).fetchone()
            gone = self._db.execute(
                "DELETE FROM events WHERE id <= ? AND (class != 2004 OR id <= ?)", (bound, kept[0] if kept else 0)
            ).rowcount
            if self.over_bound() and (size := self._db.total()) > self._max_bytes:
                gone += self._delete_delivered(bound, size)
            self._db.execute(
                "DELETE FROM chains WHERE chain != ? AND chain NOT IN (SELECT chain FROM events)", (current_chain,)
            )
            return gone

        with self._lock:
            gone = self._db.write(forget)
            if gone:
                self._bytes = self._db.total()
                self._db.write(lambda: self._db.execute("PRAGMA incremental_vacuum(256)"))
                self._db.make_ballast()
        return gone

    def _delete_delivered(self, bound: int, size: int) -> int:
        """Delete the oldest of what every sink has taken until the rest is small enough; return how many went."""
        taken = []
        for row in self._db.execute("SELECT id, length(line) FROM events WHERE id <= ? ORDER BY id", (bound,)):
            if size <= self._target:
                break
            size -= row[1]
            taken.append((row[0],))
        self._db.execute_many("DELETE FROM events WHERE id = ?", taken)
        return len(taken)

    def _newest(self) -> int:
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])

    def over_bound(self) -> bool:
        """Return whether the lines exceed the bound."""
        return self._bytes > self._max_bytes

    @property
    def _target(self) -> int:
        return int(self._max_bytes * 0.9)

    def prune(self) -> list[Pruned]:
        """Take out events of any chain, lowest severity and oldest first, down to 90% of the bound.

        Vital events and the newest event of each chain stay. Runs of neighbours are returned by chain and sequence.
        """
        query = (
            "SELECT id, chain, sequence, severity, length(line) FROM events WHERE vital = 0 AND (chain, sequence) "
            "NOT IN (SELECT chain, max(sequence) FROM events GROUP BY chain) ORDER BY severity, id"
        )

        def prune() -> tuple[int, list[Pruned]]:
            size, taken = self._bytes, []
            for *row, length in self._db.execute(query):
                if size <= self._target:
                    break
                size -= length
                taken.append(_Place(*row))
            runs = _runs(sorted(taken, key=lambda place: (place.chain, place.sequence)))
            return size, [self._take_run(run) for run in runs]

        with self._lock:
            self._bytes, runs = self._db.write(prune)
        return runs

    def _take_run(self, run: list[_Place]) -> Pruned:
        first, last = (
            self._db.execute("SELECT line FROM events WHERE id = ?", (run[end].id,)).fetchone()[0] for end in (0, -1)
        )
        self._db.execute_many("DELETE FROM events WHERE id = ?", [(place.id,) for place in run])
        severities = dict(Counter(place.severity for place in run))
        return Pruned(run[0].chain, run[0].sequence, run[-1].sequence, first, last, severities)


class _Place(NamedTuple):
    """What pruning needs to know of an event."""

    id: int
    chain: str
    sequence: int
    severity: int


def _runs(places: list[_Place]) -> list[list[_Place]]:
    """Return runs of neighbours in one chain."""
    found: list[list[_Place]] = []
    for place in places:
        before = found[-1][-1] if found else None
        if before is not None and (before.chain, before.sequence + 1) == (place.chain, place.sequence):
            found[-1].append(place)
        else:
            found.append([place])
    return found

"""The file sink: recorded events as OCSF JSON lines in a local file, each exactly once, also after kill -9.

A batch is appended as a whole or not at all. At start, and after anything went wrong between appending and remembering,
the end of the file says how far delivery came: a torn last line is cut off, and delivery goes on behind the last whole
one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from nbsentinel.attest import canonical
from nbsentinel.errors import SpoolError
from nbsentinel.events import Coverage, SensorState
from nbsentinel.report.spool import Row, Spool

BATCH = 500
TAIL_BYTES = 1 << 20
"""Longer than any line: the last whole line is within this distance of the end."""


class FileSink:
    """Appends to one file; delivery happens in the thread that calls `notify`.

    Args:
        spool: Where events come from.
        path: The file; its folder is made if missing. Rotation by renaming is noticed.
        meddled: Called with the path and a word on it when the file was cut or removed behind our back.
    """

    name = "file"

    def __init__(
        self, spool: Spool, path: Path, meddled: Callable[[Path, str], None] = lambda _path, _how: None
    ) -> None:
        self._spool, self._path, self._meddled = spool, path, meddled
        self._lock = threading.Lock()
        self._fd = -1
        self._written = 0
        self._unsure = True
        """Whether the cursor may lag behind the file, or the file end with a torn line."""
        self._error = ""
        self.truncations = 0
        """Times that the file was found shorter than what was written, or replaced by another."""

    def start(self) -> None:
        """Open the file, mend its end, and deliver what waits."""
        self.notify()

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._written = os.fstat(self._fd).st_size

    def _resume(self) -> None:
        """Put the cursor behind the last whole line of the file, where that line is still in the spool."""
        size = os.fstat(self._fd).st_size
        tail = os.pread(self._fd, TAIL_BYTES, max(0, size - TAIL_BYTES))
        whole, newline, torn = tail.rpartition(b"\n")
        if torn:
            os.ftruncate(self._fd, size - len(torn))
            self._written = size - len(torn)
        row = self._row_of(whole.rpartition(b"\n")[2]) if newline else None
        if row is not None and row.id > self._spool.cursor(self.name):
            self._spool.advance(self.name, row.id)

    def _row_of(self, line: bytes) -> Row | None:
        try:
            event = canonical.decode(line)
            chain, sequence = event["attestation_list"][0]["chain_uid"], event["metadata"]["sequence"]  # type: ignore[index]
        except (canonical.CanonicalError, KeyError, IndexError, TypeError):
            return None
        return self._spool.find(chain, sequence) if isinstance(chain, str) and isinstance(sequence, int) else None

    def notify(self) -> None:
        """Append everything that is recorded and not yet in the file; what fails is in coverage and tried again."""
        with self._lock:
            try:
                self._deliver()
                self._error = ""
            except OSError as error:
                self._error = f"{self._path}: {error.strerror}"
            except SpoolError as error:
                self._error = error.message
            except sqlite3.Error as error:
                self._error = f"{self._spool.path}: {error}"

    def _deliver(self) -> None:
        if self._fd < 0:
            self._open()
        if self._unsure:
            self._resume()
            self._unsure = False
        self._follow_path()
        while rows := self._spool.after(self._spool.cursor(self.name), BATCH):
            self._unsure = True
            self._append(b"".join(row.line + b"\n" for row in rows))
            self._spool.advance(self.name, rows[-1].id)
            self._unsure = False

    def look(self) -> None:
        """Notice that the file was cut or removed although nothing happens."""
        with self._lock:
            try:
                if self._fd >= 0:
                    self._follow_path()
            except OSError as error:
                self._error = f"{self._path}: {error.strerror}"

    def _append(self, data: bytes) -> None:
        """Append all of it or nothing: a line that a full disk has cut must not stand before the next one."""
        size, done = os.fstat(self._fd).st_size, 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError:
            os.ftruncate(self._fd, size)
            raise
        self._written += done

    def _follow_path(self) -> None:
        """Open the path again when it names another file, and notice a file that has shrunk."""
        open_file = os.fstat(self._fd)
        try:
            named = self._path.stat()
        except OSError:
            named = None
        moved = named is None or (named.st_dev, named.st_ino) != (open_file.st_dev, open_file.st_ino)
        if open_file.st_size < self._written or (moved and open_file.st_nlink == 0):
            self.truncations += 1
            cut = f"cut from {self._written} to {open_file.st_size} bytes"
            self._meddled(self._path, cut if open_file.st_size < self._written else "removed while it is written")
        self._written = open_file.st_size
        if moved:
            os.close(self._fd)
            self._fd = -1
            self._open()

    def stop(self, timeout: float) -> None:  # noqa: ARG002 - delivery is immediate
        """Deliver what waits and close the file."""
        self.notify()
        with self._lock:
            if self._fd >= 0:
                with contextlib.suppress(OSError):
                    os.fsync(self._fd)
                os.close(self._fd)
                self._fd = -1

    def coverage(self) -> Coverage:
        """Return whether the file can be written."""
        state = SensorState.DEGRADED if self._error else SensorState.ACTIVE
        return Coverage(sensor="sink:file", state=state, why=self._error)

"""The agent's side of lessor and decoy: asks the guard's holder for them, and hears what they tell."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from nbsentinel_guard import records, wire

START_S = 2.0
PAUSES_S = (0.05, 0.2, 1.0, 5.0, 30.0)
"""Between attempts to get one that ended or was refused."""
GOOD_LIFE_S = 20.0


class Correspondent:
    """A connection with one of the holder's small processes, made again when it ends.

    Args:
        run_dir: Folder of the guard's socket.
        kind: `lessor` or `decoy`.
        heard: Takes each message: its first word and the rest.
        joined: Called when there is a new one, which knows nothing yet.
    """

    def __init__(
        self, run_dir: str, kind: bytes, heard: Callable[[bytes, bytes], None], joined: Callable[[], None]
    ) -> None:
        self._run_dir, self._kind, self._heard, self._joined = run_dir, kind, heard, joined
        self._connection: socket.socket | None = None
        self._failures, self._again_at, self._since = 0, 0.0, 0.0
        self.pid = 0
        self.ours: frozenset[int] = frozenset()
        """Processes of ours that it knows of."""
        self.failure = "not started"
        """Why there is none; empty while there is one."""

    @property
    def descriptor(self) -> int:
        """What to wait for, -1 while there is none."""
        return self._connection.fileno() if self._connection is not None else -1

    def due_in(self) -> float:
        """Return in how many seconds `tend` has something to do."""
        return 3600.0 if self._connection is not None else max(0.0, self._again_at - time.monotonic())

    def tend(self) -> None:
        """Ask for one where there is none and it is time."""
        if self._connection is not None or time.monotonic() < self._again_at:
            return
        try:
            self._join()
        except OSError as error:
            self._lose(f"the guard gives none: {error.strerror or error}")

    def _join(self) -> None:
        connection = wire.connect(self._run_dir, START_S)
        try:
            connection.send(self._kind)
            message, _ = wire.receive(connection)
            word, _, rest = message.partition(b" ")
        except OSError:
            connection.close()
            raise
        if word != b"ok":
            connection.close()
            raise OSError(rest.decode("ascii", "replace") if word == b"failed" else "no answer")
        connection.setblocking(False)
        self.ours = frozenset(map(int, rest.split()))
        self._connection, self.pid, self.failure, self._since = connection, int(rest.split()[0]), "", time.monotonic()
        self._joined()

    def _lose(self, why: str) -> None:
        if self._connection is not None:
            self._connection.close()
            if time.monotonic() - self._since > GOOD_LIFE_S:
                self._failures = 0
        self._connection, self.pid, self.failure = None, 0, why
        self._again_at = time.monotonic() + PAUSES_S[min(self._failures, len(PAUSES_S) - 1)]
        self._failures += 1

    def hear(self) -> None:
        """Take in what has come."""
        while self._connection is not None:
            try:
                message, descriptors = wire.receive(self._connection)
            except BlockingIOError:
                return
            except OSError:
                message, descriptors = b"", []
            for descriptor in descriptors:
                os.close(descriptor)
            if not message:
                self._lose("its process ended and is being replaced")
                return
            word, _, rest = message.partition(b" ")
            self._heard(word, rest)

    def say(self, message: bytes) -> bool:
        """Send a message; return False where there is nobody, or nobody who listens."""
        try:
            return self._connection is not None and self._connection.send(message) > 0
        except OSError:
            return False

    def close(self) -> None:
        """Leave; the other end ends."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def named(rest: bytes) -> tuple[records.Who, bytes, bytes, bytes, bytes]:
    """Return what the lessor tells of an opener: who, way, operation, file of the program, arguments."""
    who, (way, operation, exe, argv) = records.read_told(rest)
    return who, way, operation, exe, argv

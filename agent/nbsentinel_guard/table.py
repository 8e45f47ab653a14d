"""What is known of guarded processes by thread, so that a caller need not wait for /proc."""

from __future__ import annotations

import time

from nbsentinel_guard import evidence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Tuple

TRUST_S = 5.0
"""How long a process is taken for the same under its number: numbers do not come round in that time."""
KNOWN_LIMIT = 50_000


class Table:
    """Guarded processes by thread, shared by all who answer in one process; an entry is believed for `TRUST_S`."""

    def __init__(self) -> None:
        self._known: Dict[int, Tuple[int, int, float]] = {}
        self.attempts: Dict[int, Tuple[bytes, ...]] = {}
        """The last execve of a process, or its last look before it hid: path and descriptors 0 to 2."""
        self.resolvers: Dict[Tuple[int, int], None] = {}
        """Descriptors of processes that are connected with a name server."""
        self.datagrams: Dict[Tuple[int, bytes], float] = {}

    def of(self, tid: int) -> Tuple[int, int]:
        """Return (pid, start) of a thread; where it is gone, what was known of it, or a start of 0."""
        found = self._known.get(tid)
        now = time.monotonic()
        if found is not None and now - found[2] < TRUST_S:
            return found[0], found[1]
        fresh = evidence.identify(tid)
        if fresh is None:
            return (found[0], found[1]) if found else (tid, 0)
        return self.learn(tid, *fresh[:2])

    def meet(self, tid: int) -> int:
        """Look at a thread that is new to us while it still waits: once it is answered it may be gone.

        Returns:
            Its process's parent if the process is new to us as well, a fork that has not executed anything; else 0.
        """
        found = self._known.get(tid)
        if found is not None and time.monotonic() - found[2] < TRUST_S:
            return 0
        fresh = evidence.identify(tid)
        if fresh is None:
            return 0
        pid, start, parent = fresh
        process = self._known.get(pid)
        self.learn(tid, pid, start)
        if process is not None and process[1] == start:
            return 0
        self.learn(pid, pid, start)
        return parent

    def caller(self, tid: int) -> Tuple[int, int]:
        """Return (pid, start) like `of`, but a start of 0 for a thread that is new to us: its image is read soon."""
        found = self._known.get(tid)
        return (found[0], found[1]) if found is not None else (evidence.leader(tid), 0)

    def learn(self, tid: int, pid: int, start: int) -> Tuple[int, int]:
        """Remember a thread's process."""
        if len(self._known) > KNOWN_LIMIT:
            self._known.clear()
        self._known[tid] = pid, start, time.monotonic()
        return pid, start

    def remember(self, where: Dict[Any, Any], key: object, value: object) -> None:
        """Add to one of the small memories, which forget everything rather than grow."""
        if len(where) > KNOWN_LIMIT:
            where.clear()
        where[key] = value

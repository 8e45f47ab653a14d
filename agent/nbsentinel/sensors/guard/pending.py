"""Executions that were attempted and have not shown an image yet, and names that were asked for. No I/O."""

from __future__ import annotations

from collections import OrderedDict

PATIENCE_S = 0.05
"""A new image shows itself within this time, or it never reaches its first system call of that kind."""
NAME_S = 5.0
"""How long a name that a thread asked for is taken for what it connects to."""
LIMIT = 4_096


class Attempts:
    """The last attempt of each process."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, tuple[float, bytes]] = OrderedDict()

    def tried(self, pid: int, path: bytes, now: float) -> None:
        """Note an attempt; a search along PATH makes several, of which the last counts."""
        self._waiting.pop(pid, None)
        self._waiting[pid] = now, path
        if len(self._waiting) > LIMIT:
            self._waiting.popitem(last=False)

    def succeeded(self, pid: int) -> None:
        """Forget the attempt of a process whose image was seen."""
        self._waiting.pop(pid, None)

    def overdue(self, now: float) -> list[tuple[int, bytes]]:
        """Return and forget the attempts that nothing came of in time."""
        found = []
        while self._waiting:
            pid, (since, path) = next(iter(self._waiting.items()))
            if now - since < PATIENCE_S:
                break
            del self._waiting[pid]
            found.append((pid, path))
        return found

    def next_due(self) -> float | None:
        """Return when `overdue` has something to say, or None."""
        return next((since + PATIENCE_S for since, _ in self._waiting.values()), None)


class Names:
    """The last name that each thread asked a name server for."""

    def __init__(self) -> None:
        self._asked: OrderedDict[int, tuple[float, str]] = OrderedDict()

    def asked(self, tid: int, name: str, now: float) -> None:
        """Note a question."""
        self._asked.pop(tid, None)
        self._asked[tid] = now, name
        if len(self._asked) > LIMIT:
            self._asked.popitem(last=False)

    def of(self, tid: int, now: float) -> str | None:
        """Return the name that a thread asked for a moment ago, if any."""
        since, name = self._asked.get(tid, (0.0, ""))
        return name if name and now - since < NAME_S else None

"""Joins what inotify saw (a file was opened) with what the lessor tells (who opened it). Pure: no clock, no I/O."""

from __future__ import annotations

from collections import OrderedDict, deque

CREDIT_S = 0.3
"""How long a name waits for its open: the kernel tells of the open when the lease is given up."""
WAIT_S = 0.08
"""How long an open waits for a name: who holds the file is looked for when there was no lease."""
LIMIT = 4096


class Opens:
    """Opens without a name, and names whose open was not seen yet, by path."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, str]] = deque()
        self._names: OrderedDict[str, deque[float]] = OrderedDict()
        self.forgotten = 0
        """Opens that were given up because too many waited."""

    def opened(self, path: str, now: float) -> None:
        """Take note of an open."""
        names = self._names.get(path)
        while names:
            if now - names.popleft() < CREDIT_S:
                return
        self._waiting.append((now, path))
        if len(self._waiting) > LIMIT:
            self._waiting.popleft()
            self.forgotten += 1

    def named(self, path: str, now: float) -> None:
        """Take note that somebody was named as the one who opens a path."""
        for place, (_, waiting) in enumerate(self._waiting):
            if waiting == path:
                del self._waiting[place]
                return
        self._names.setdefault(path, deque(maxlen=256)).append(now)
        self._names.move_to_end(path)
        if len(self._names) > LIMIT:
            self._names.popitem(last=False)

    def unnamed(self, now: float, wait: float = WAIT_S) -> list[tuple[float, str]]:
        """Return and forget the opens that nobody was named for in time."""
        found = []
        while self._waiting and now - self._waiting[0][0] >= wait:
            found.append(self._waiting.popleft())
        return found

    def next_due(self, wait: float = WAIT_S) -> float | None:
        """Return when `unnamed` has something to say, or None."""
        return self._waiting[0][0] + wait if self._waiting else None


class Repeats:
    """Lets the same thing through once in a while, and counts the rest."""

    def __init__(self, pause: float, limit: int = LIMIT) -> None:
        self._pause, self._limit = pause, limit
        self._last: OrderedDict[object, float] = OrderedDict()
        self.count = 0
        """How many were not let through."""

    def is_new(self, what: object, now: float) -> bool:
        """Return whether it was not let through in the last while."""
        last = self._last.get(what)
        if last is not None and now - last < self._pause:
            self.count += 1
            return False
        self._last[what] = now
        self._last.move_to_end(what)
        if len(self._last) > self._limit:
            self._last.popitem(last=False)
        return True

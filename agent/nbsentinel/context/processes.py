"""The process table: every image seen, who started it, and for how long that stays known after its end."""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

import msgspec

from nbsentinel.events import Exec, Exit, Millis, Process, ProcessKey, StdioChange

LATELY_LIMIT = 256
"""Ended processes whose end is remembered with its time."""
ENDED_LIMIT = 8192
"""Ended processes remembered, so that a double fork keeps its ancestry."""
LINEAGE_LIMIT = 32
"""Longest ancestry that is followed."""


class ProcessTable:
    """Processes by (pid, start time), fed by observations; ended ones are kept within a bound. No I/O."""

    def __init__(self) -> None:
        self._live: dict[ProcessKey, Process] = {}
        self._ended: OrderedDict[ProcessKey, Process] = OrderedDict()
        self._children: dict[ProcessKey, set[ProcessKey]] = {}
        self._lately: deque[tuple[Millis, Process]] = deque(maxlen=LATELY_LIMIT)
        self._exec_at: dict[ProcessKey, Millis] = {}

    def __len__(self) -> int:
        return len(self._live)

    def apply(self, observation: Exec | StdioChange | Exit) -> None:
        """Take an observation into account."""
        if isinstance(observation, Exec):
            self._add(observation)
        elif isinstance(observation, StdioChange):
            if known := self._live.get(observation.key):
                self._live[observation.key] = msgspec.structs.replace(known, stdio=observation.stdio)
        else:
            self._end(observation.key, observation.at)

    def _add(self, observation: Exec) -> None:
        process = observation.process
        earlier = self._live.get(process.key)
        if earlier is not None and earlier.parent is not None:
            process = msgspec.structs.replace(process, parent=earlier.parent)
        self._live[process.key] = process
        self._exec_at[process.key] = observation.at
        if process.parent is not None:
            self._children.setdefault(process.parent, set()).add(process.key)

    def _end(self, key: ProcessKey, at: Millis) -> None:
        process = self._live.pop(key, None)
        if process is None:
            return
        self._lately.append((at, process))
        self._ended[key] = process
        while len(self._ended) > ENDED_LIMIT:
            gone, last = self._ended.popitem(last=False)
            self._children.pop(gone, None)
            self._exec_at.pop(gone, None)
            if last.parent is not None and (siblings := self._children.get(last.parent)):
                siblings.discard(gone)

    def hide(self, key: ProcessKey) -> None:
        """Note that a process may not be looked into any more."""
        if known := self._live.get(key):
            self._live[key] = msgspec.structs.replace(known, unreadable=True)

    def get(self, key: ProcessKey) -> Process | None:
        """Return a process, live or ended, or None when it was never seen or is forgotten."""
        return self._live.get(key) or self._ended.get(key)

    def latest(self, pid: int) -> Process | None:
        """Return the newest process with a pid, live or ended, None when none was seen."""
        known = [*self._live.values(), *self._ended.values()]
        return max((one for one in known if one.key.pid == pid), key=lambda one: one.key.start, default=None)

    def is_live(self, key: ProcessKey) -> bool:
        """Return whether the end of a known process has not been seen."""
        return key in self._live

    def live(self) -> Iterable[Process]:
        """Return the processes whose end has not been seen."""
        return list(self._live.values())

    def lived_at(self, at: Millis) -> list[Process]:
        """Return the processes whose end was not seen before a moment; any thread may ask."""
        return [*list(self._live.values()), *(process for ended, process in list(self._lately) if ended >= at)]

    def exec_time(self, key: ProcessKey) -> Millis | None:
        """Return when the image that a process runs now was first seen, in milliseconds since the epoch."""
        return self._exec_at.get(key)

    def children(self, key: ProcessKey) -> Iterator[Process]:
        """Yield the processes that a process started, live or still remembered."""
        for child in self._children.get(key, ()):
            if found := self.get(child):
                yield found

    def lineage(self, key: ProcessKey) -> tuple[Process, ...]:
        """Return the ancestors of a process from its parent upwards, as first seen (before any reparenting)."""
        plain = self._parents(key)
        own = self.get(key)
        root = own.root if own else None
        command = self.get(root) if root else None
        if command is None or command.key == key or command in plain:
            return plain
        # A double fork left the guarded command's tree; which command that was is known all the same.
        inside = tuple(itertools.takewhile(lambda process: process.root == root, plain))
        return (*inside, command, *self._parents(command.key))[:LINEAGE_LIMIT]

    def _parents(self, key: ProcessKey) -> tuple[Process, ...]:
        found: list[Process] = []
        seen = {key}
        current = self.get(key)
        while current is not None and current.parent is not None and current.parent not in seen:
            if len(found) >= LINEAGE_LIMIT:
                break
            seen.add(current.parent)
            current = self.get(current.parent)
            if current is not None:
                found.append(current)
        return tuple(found)

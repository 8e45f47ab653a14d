"""The process table: every image seen, who started it, and for how long that stays known after its end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

import msgspec

from nbsentinel.events import Exec, Exit, Millis, Origin, OriginKind, Process, ProcessKey, StdioChange

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
            self._end(observation.key)

    def _add(self, observation: Exec) -> None:
        process = observation.process
        earlier = self._live.get(process.key)
        if earlier is not None and earlier.parent is not None:
            process = msgspec.structs.replace(process, parent=earlier.parent)
        self._live[process.key] = process
        self._exec_at[process.key] = observation.at
        if process.parent is not None:
            self._children.setdefault(process.parent, set()).add(process.key)

    def _end(self, key: ProcessKey) -> None:
        process = self._live.pop(key, None)
        if process is None:
            return
        self._ended[key] = process
        while len(self._ended) > ENDED_LIMIT:
            gone, last = self._ended.popitem(last=False)
            self._children.pop(gone, None)
            self._exec_at.pop(gone, None)
            if last.parent is not None and (siblings := self._children.get(last.parent)):
                siblings.discard(gone)

    def get(self, key: ProcessKey) -> Process | None:
        """Return a process, live or ended, or None when it was never seen or is forgotten."""
        return self._live.get(key) or self._ended.get(key)

    def is_live(self, key: ProcessKey) -> bool:
        """Return whether the end of a known process has not been seen."""
        return key in self._live

    def live(self) -> Iterable[Process]:
        """Return the processes whose end has not been seen."""
        return list(self._live.values())

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

    def origin(self, key: ProcessKey, servers: Iterable[ProcessKey] = ()) -> Origin:
        """Return the kernel or terminal that a process belongs to, by its ancestry.

        Args:
            key: The process.
            servers: Jupyter servers that are known: a session leader on a terminal below one is a Jupyter terminal.
        """
        own = self.get(key)
        line = ((own,) if own else ()) + self.lineage(key)
        roots = set(servers)
        for process in line:
            if process.kernel is not None:
                return Origin(
                    kind=OriginKind.KERNEL,
                    source="ancestry: nearest ancestor with a kernel connection file",
                    process=process.key,
                    kernel_id=process.kernel.kernel_id,
                    notebook=process.kernel.notebook,
                )
            if process.parent in roots and process.tty and process.session == process.key.pid:
                return Origin(
                    kind=OriginKind.TERMINAL,
                    source=f"ancestry: {process.tty} was opened by the Jupyter server",
                    process=process.key,
                    cell_source="not a notebook cell: a terminal",
                )
        return Origin(
            kind=OriginKind.OTHER,
            source="unknown: no kernel and no Jupyter terminal among the known ancestors",
            process=line[-1].key if line else None,
            cell_source="unknown: not below a kernel that was seen",
        )

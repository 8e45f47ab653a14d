"""Which programs a pipe joins: what was said of standard streams when a program began to run. No I/O.

A shell starts the programs of a pipeline one by one, so whichever begins last is the one that can be told both ends.
"""

from __future__ import annotations

from collections import OrderedDict

from nbsentinel.events import Process, ProcessKey

PIPES_LIMIT = 2048
"""Pipes remembered; the one that was named longest ago goes first."""
HOPS_LIMIT = 8
"""Longest pipeline that is followed."""


def joins(stream: str) -> bool:
    """Return whether what one program writes there another one can read: a pipe, a fifo with a name, a file."""
    return stream.startswith("pipe:") or (stream.startswith("/") and not stream.startswith("/dev/"))


class Pipes:
    """The last program that reads, and the last that writes, of each pipe."""

    def __init__(self) -> None:
        self._readers: OrderedDict[str, Process] = OrderedDict()
        self._writers: OrderedDict[str, Process] = OrderedDict()

    def learn(self, process: Process) -> None:
        """Take in what a program has for standard input and output."""
        for table, stream in ((self._readers, process.stdio[0]), (self._writers, process.stdio[1])):
            if stream is not None and joins(stream):
                table[stream] = process
                table.move_to_end(stream)
                if len(table) > PIPES_LIMIT:
                    table.popitem(last=False)

    def upstream(self, process: Process) -> tuple[Process, ...]:
        """Return who writes what a process reads, who writes what they read, and so on."""
        return _follow(process, self._writers, 0)

    def downstream(self, process: Process) -> tuple[Process, ...]:
        """Return who reads what a process writes, who reads what they write, and so on."""
        return _follow(process, self._readers, 1)


def _follow(process: Process, ends: OrderedDict[str, Process], stream: int) -> tuple[Process, ...]:
    found: list[Process] = []
    seen: set[ProcessKey] = {process.key}
    current = process
    while len(found) < HOPS_LIMIT:
        other = ends.get(current.stdio[stream] or "")
        if other is None or other.key in seen:
            break
        seen.add(other.key)
        found.append(other)
        current = other
    return tuple(found)

"""Who feeds a process and who hears it: the way of the bytes through kernel objects, decided without names.

A process is remotely controlled when some path leads from a remote peer to its standard input, and some path from its
standard output or error to a remote peer. Paths go through sockets, pipes, fifos, pseudo terminals, unix sockets and
any process that holds the two ends (a relay). What a relay really does with the bytes cannot be seen, so a path is a
possibility; the caller weighs it.

Memory that a relay shares with others is followed only where no descriptor leads further: reading the maps of all
processes costs more than everything else here.

Not seen: files used as mailboxes, io_uring's registered descriptors, processes of other users.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol

import msgspec

from nbsentinel.context.objects import End, Family, KernelObject, ObjectKind, ObjectView, Socket
from nbsentinel.events import Inode, ProcessKey

MAX_RELAYS = 16
"""Longest chain of relaying processes that is followed."""
MAX_VISITED = 128
"""Processes looked into for one path; a search that hits the bound says so."""


class Policy(Protocol):
    """Which peers count as remote, and which edges are trusted."""

    def is_remote(self, socket: Socket) -> bool:
        """Return whether the peer of a connected internet socket counts as remote."""

    def trusts(self, holder: ProcessKey, target: KernelObject, socket: Socket | None) -> bool:
        """Return whether bytes that this holder moves through this object are the user's own."""


class Direction(Enum):
    """Which way a path is searched: upstream from standard input, downstream from standard output."""

    INPUT = "input"
    OUTPUT = "output"


class Step(NamedTuple):
    """An object on a path and the process that holds it on the peer's side."""

    object: KernelObject
    relay: ProcessKey | None


class Path(msgspec.Struct, frozen=True):
    """A way between a process and a remote peer, from the process outwards."""

    start: KernelObject
    steps: tuple[Step, ...]
    """Empty when the process holds the peer's socket itself."""
    socket: Socket
    """The socket whose peer is remote; family UNKNOWN where no table lists it."""

    @property
    def relays(self) -> tuple[ProcessKey, ...]:
        """The processes that pass the bytes on, from the process outwards."""
        return tuple(step.relay for step in self.steps if step.relay)


class Flow(msgspec.Struct, frozen=True):
    """A process that a remote peer feeds and hears."""

    source: Path
    sink: Path

    @property
    def direct(self) -> bool:
        """Whether the process holds the peer's sockets as its own standard input and output."""
        return not self.source.steps and not self.sink.steps

    @property
    def relays(self) -> tuple[ProcessKey, ...]:
        """Every relaying process, each once."""
        return tuple(dict.fromkeys((*self.source.relays, *self.sink.relays)))

    @property
    def sockets(self) -> tuple[Inode, ...]:
        """The inodes of the remote sockets."""
        return tuple(dict.fromkeys((self.source.socket.inode, self.sink.socket.inode)))


class Trace(msgspec.Struct, frozen=True):
    """The outcome of looking at one process."""

    source: Path | None
    """The way from a remote peer to its input."""
    sink: Path | None
    """The way from its output to a remote peer; looked for only where there is a source."""
    touched: frozenset[ProcessKey]
    """Processes on any way that was followed: a new connection of one of them is a reason to look again."""
    truncated: bool = False

    @property
    def flow(self) -> Flow | None:
        """Both ways together, None unless there are both."""
        return Flow(self.source, self.sink) if self.source and self.sink else None


class _Search:
    def __init__(self, view: ObjectView, subject: ProcessKey, policy: Policy) -> None:
        self.view, self.subject, self.policy = view, subject, policy
        self.touched: set[ProcessKey] = set()
        self.truncated = False

    def remote(self, holder: ProcessKey, target: KernelObject) -> Socket | None:
        """Return the socket behind an object if its peer is remote and the edge is not trusted."""
        if target.kind is not ObjectKind.SOCKET:
            return None
        found = self.view.socket(Inode(target.number), holder)
        if found is None:
            return None
        if found.family is not Family.INET or found.remote is None or not self.policy.is_remote(found):
            return None
        return None if self.policy.trusts(holder, target, found) else found

    def across(self, holder: ProcessKey, target: KernelObject, way: Direction) -> list[tuple[ProcessKey, KernelObject]]:
        """Return who stands at the other end of an object, and with which object of its own."""
        other = target
        if target.kind is ObjectKind.PTY_SLAVE:
            other = KernelObject(ObjectKind.PTY_MASTER, target.number)
        elif target.kind is ObjectKind.PTY_MASTER:
            other = KernelObject(ObjectKind.PTY_SLAVE, target.number)
        elif target.kind is ObjectKind.SOCKET:
            found = self.view.socket(Inode(target.number), holder)
            if found is None or found.peer is None:
                return []
            other = KernelObject(ObjectKind.SOCKET, found.peer)
        feeding = way is Direction.INPUT
        return [
            (key, other)
            for key in self.view.holders(other)
            if any(e.object == other and (e.writes if feeding else e.reads) for e in self.view.ends(key) or ())
        ]

    def path(self, start: KernelObject, way: Direction) -> Path | None:
        """Return the shortest path from an object of the subject to a remote peer, or None."""
        if found := self.remote(self.subject, start):
            return Path(start, (), found)
        way_out = self.walk(start, way, sharing=False)
        if way_out is None and self.touched and not self.truncated:
            way_out = self.walk(start, way, sharing=True)
        return way_out

    def walk(self, start: KernelObject, way: Direction, *, sharing: bool) -> Path | None:
        """Return the shortest path from beyond an object to a remote peer, through shared memory too where asked."""
        queue: deque[tuple[ProcessKey, KernelObject, tuple[Step, ...]]] = deque([(self.subject, start, ())])
        seen, visited = {start}, {self.subject}
        while queue:
            holder, target, steps = queue.popleft()
            for relay, other in self._neighbours(holder, target, way, sharing):
                if relay in visited or self._is_trusted(relay, other):
                    continue
                visited.add(relay)
                self.touched.add(relay)
                if len(visited) > MAX_VISITED or len(steps) >= 2 * MAX_RELAYS:
                    self.truncated = True
                    return None
                for item in self._further(relay, other, way, sharing):
                    if item in seen:
                        continue
                    seen.add(item)
                    further = (*steps, Step(other, relay), Step(item, None))
                    if found := self.remote(relay, item):
                        return Path(start, further, found)
                    queue.append((relay, item, further))
        return None

    def _neighbours(
        self, holder: ProcessKey, target: KernelObject, way: Direction, sharing: bool
    ) -> list[tuple[ProcessKey, KernelObject]]:
        if target.kind is not ObjectKind.MEMORY:
            return self.across(holder, target, way)
        return [(key, target) for key in self.view.sharers(target)] if sharing else []

    def _further(self, relay: ProcessKey, other: KernelObject, way: Direction, sharing: bool) -> list[KernelObject]:
        """Return the objects through which a relay could pass on, or get, what moves through another."""
        found = [
            end.object
            for end in self.view.ends(relay) or ()
            if end.object != other and (end.reads if way is Direction.INPUT else end.writes)
        ]
        return [*found, *(item for item in self.view.memory(relay) if item != other)] if sharing else found

    def _is_trusted(self, relay: ProcessKey, other: KernelObject) -> bool:
        found = self.view.socket(Inode(other.number), relay) if other.kind is ObjectKind.SOCKET else None
        return self.policy.trusts(relay, other, found)


def _unlisted(view: ObjectView, subject: ProcessKey, end: End) -> Path | None:
    """Return a path for a socket on standard input or output that no table lists (vsock, SCTP, packet ...)."""
    if end.object.kind is not ObjectKind.SOCKET:
        return None
    inode = Inode(end.object.number)
    if view.socket(inode, subject) is not None or view.socket(inode, subject, fresh=True) is not None:
        return None
    if not view.holds(subject, end):
        return None  # gone with its holder before the tables were read
    return Path(end.object, (), Socket(inode=inode, family=Family.UNKNOWN))


def _unbound_datagram(view: ObjectView, subject: ProcessKey, end: End) -> Path | None:
    """Return a path for a UDP socket without a fixed peer on standard input or output: anybody may be the peer."""
    if end.object.kind is not ObjectKind.SOCKET:
        return None
    found = view.socket(Inode(end.object.number), subject)
    if found and found.family is Family.INET and found.protocol == "udp" and found.remote is None:
        return Path(end.object, (), found)
    return None


def trace(view: ObjectView, subject: ProcessKey, policy: Policy, inputs: Sequence[int] = (0,)) -> Trace:
    """Return whether and how a remote peer feeds and hears a process.

    Args:
        view: The system at this moment.
        subject: The process to judge.
        policy: What counts as remote and what is trusted.
        inputs: The file descriptors that it may take its commands from; the first that is fed from afar counts.
    """
    ends = {end.fd: end for end in view.ends(subject) or ()}
    search = _Search(view, subject, policy)
    source = _first(search, ends, [fd for fd in inputs if fd not in ends or ends[fd].reads], Direction.INPUT)
    sink = _first(search, ends, (1, 2), Direction.OUTPUT) if source else None
    return Trace(source, sink, frozenset(search.touched), search.truncated)


def feeders(view: ObjectView, subject: ProcessKey, policy: Policy) -> list[Path]:
    """Return the ways from remote peers to whatever a process reads, shared memory included, each socket once.

    Sockets that it holds itself are not among them.
    """
    search = _Search(view, subject, policy)
    starts = dict.fromkeys(end.object for end in view.ends(subject) or () if end.reads)
    found: dict[Inode, Path] = {}
    for start in (*starts, *view.memory(subject)):
        if search.remote(subject, start) is not None:
            continue
        path = search.walk(start, Direction.INPUT, sharing=start.kind is ObjectKind.MEMORY)
        if path is not None:
            found.setdefault(path.socket.inode, path)
    return list(found.values())


def _first(search: _Search, ends: dict[int, End], fds: Sequence[int], way: Direction) -> Path | None:
    """Return the first path that one of the descriptors has."""
    for fd in fds:
        end = ends.get(fd)
        if end is None:
            continue
        found = search.path(end.object, way)
        found = (
            found or _unlisted(search.view, search.subject, end) or _unbound_datagram(search.view, search.subject, end)
        )
        if found is not None:
            return found
    return None

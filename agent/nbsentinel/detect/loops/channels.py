"""The connections through which a process could be given commands: its own, and those of processes it is joined to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec

from nbsentinel.context.objects import Family, KernelObject, ObjectKind, ObjectView, Socket
from nbsentinel.context.processes import ProcessTable
from nbsentinel.detect import dataflow
from nbsentinel.detect.trust import is_loopback
from nbsentinel.events import Endpoint, Inode, ProcessKey

BARREN_MS = 30
"""How long a process without a connection is not asked again: a build starts hundreds of programs a second."""
SEARCH_MS = 250
"""First pause between two searches beyond a process's own descriptors; it doubles while nothing is found."""
SEARCH_LONGEST_MS = 8_000
REMEMBERED = 4_096
KIN_LIMIT = 64
"""Processes of a session that are looked into for the other end of a connection on this machine."""


class Channel(msgspec.Struct, frozen=True):
    """A TCP connection with a remote peer."""

    socket: Socket
    holder: ProcessKey
    joined: bool
    """Whether another process holds it than the one that executes."""


class Channels:
    """Finds the channels of processes, and remembers for a moment who has none.

    Args:
        table: The process table.
        policy: What is remote, what is trusted.
    """

    def __init__(self, table: ProcessTable, policy: dataflow.Policy) -> None:
        self._table, self._policy = table, policy
        self._barren: dict[ProcessKey, int] = {}
        self._searched: dict[ProcessKey, tuple[int, int]] = {}

    def forget(self, key: ProcessKey) -> None:
        """Drop what is remembered of a process."""
        self._barren.pop(key, None)
        self._searched.pop(key, None)

    def own(self, view: ObjectView, key: ProcessKey, now: int) -> list[Channel]:
        """Return the remote TCP connections that a process holds itself."""
        if self._barren.get(key, 0) > now:
            return []
        found = [Channel(socket, key, False) for socket in self._sockets(view, key)]
        if not found:
            self._barren[key] = now + BARREN_MS
            _bound(self._barren)
        return found

    def may_be_joined(self, view: ObjectView, since: int) -> bool:
        """Return whether any remote peer was heard since a moment: only then a search is worth its cost."""
        return any(self._policy.is_remote(socket) for socket in view.heard(since))

    def joined(self, view: ObjectView, key: ProcessKey, now: int) -> list[Channel]:
        """Return the connections that lead to what a process reads, through other processes or shared memory.

        The search looks into every process: see `may_be_joined`.
        """
        next_at, pause = self._searched.get(key, (0, SEARCH_MS))
        if now < next_at:
            return []
        found = [
            Channel(path.socket, path.relays[-1], True)
            for path in dataflow.feeders(view, key, self._policy)
            if path.socket.protocol == "tcp" and path.relays
        ]
        pause = SEARCH_MS if found else min(2 * pause, SEARCH_LONGEST_MS)
        self._searched[key] = (now if found else now + pause, pause)
        _bound(self._searched)
        return found

    def _sockets(self, view: ObjectView, key: ProcessKey) -> Iterator[Socket]:
        for target in {end.object for end in view.ends(key) or () if end.object.kind is ObjectKind.SOCKET}:
            found = view.socket(Inode(target.number), key)
            if found is None or found.family is not Family.INET or found.protocol != "tcp":
                continue
            if self._policy.is_remote(found) and not self._policy.trusts(key, target, found):
                yield found

    def is_own_peer(self, view: ObjectView, key: ProcessKey, socket: Socket) -> bool:
        """Return whether the peer is a process of the same session: a scheduler and its workers, a server and its test.

        Only where peers on this machine count as remote at all. Ask at once: a peer that has hung up is nobody's.
        """
        if socket.peer is None:
            return socket.remote is not None and is_loopback(socket.remote.ip)
        wanted = KernelObject(ObjectKind.SOCKET, socket.peer)
        return any(wanted == end.object for kin in self._kin(key) for end in view.ends(kin) or ())

    def is_own_listener(self, view: ObjectView, key: ProcessKey, endpoint: Endpoint) -> bool:
        """Return whether a process of the same session listens on the port; looks into all of them, so ask seldom."""
        for kin in self._kin(key):
            for end in view.ends(kin) or ():
                if end.object.kind is ObjectKind.SOCKET:
                    found = view.socket(Inode(end.object.number), kin)
                    if found and found.listening and found.local and found.local.port == endpoint.port:
                        return True
        return False

    def _kin(self, key: ProcessKey) -> Iterator[ProcessKey]:
        """Yield a process and the living ones of its session and below it, within a bound."""
        yield key
        own = self._table.get(key)
        session = own.session if own else 0
        related = (
            other.key
            for other in self._table.live()
            if other.key != key and ((session and other.session == session) or key in self._line(other.key))
        )
        yield from islice(related, KIN_LIMIT)

    def _line(self, key: ProcessKey) -> Iterator[ProcessKey]:
        return (process.key for process in self._table.lineage(key))


def _bound(memory: dict[ProcessKey, int] | dict[ProcessKey, tuple[int, int]]) -> None:
    while len(memory) > REMEMBERED:
        del memory[next(iter(memory))]

"""Connections that another sensor has told of, so that each is one event. No I/O but the clock."""

from __future__ import annotations

import time

from nbsentinel.context.objects import Family, Socket
from nbsentinel.events import Endpoint, Inode, ProcessKey

CLAIM_S = 5.0
"""How long a connection of a process to a peer, without its socket, is taken for the one that was told."""
CLAIMS_LIMIT = 20_000
"""Connections that are remembered; beyond it all are forgotten, and may be told twice."""


class Claims:
    """What was told and has not been seen here yet."""

    def __init__(self) -> None:
        self._told: dict[Inode | tuple[ProcessKey, Endpoint], float] = {}
        self._peers: dict[Inode, Socket] = {}

    def add(self, key: ProcessKey, inode: Inode, remote: Endpoint) -> None:
        """Remember a connection.

        Args:
            key: Who connects.
            inode: The socket, 0 where it is not known: then the process and its peer stand for it.
            remote: The peer.
        """
        if len(self._told) >= CLAIMS_LIMIT:
            self._told.clear()
            self._peers.clear()
        self._told[inode or (key, remote)] = time.monotonic()
        if inode:
            self._peers[inode] = Socket(inode=inode, family=Family.INET, protocol="tcp", remote=remote)

    def settle(self, inode: Inode, key: ProcessKey, remote: Endpoint | None) -> bool:
        """Return whether a connection was told, and forget that it was."""
        if self._told.pop(inode, None) is not None:
            return True
        told = self._told.pop((key, remote), None) if remote is not None else None
        return told is not None and time.monotonic() - told < CLAIM_S

    def peer(self, inode: Inode) -> Socket | None:
        """Return a socket as it was told, for when no table lists it any more."""
        return self._peers.get(inode)

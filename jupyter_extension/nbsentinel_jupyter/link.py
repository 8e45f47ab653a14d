"""A connection with the agent that never waits: what does not go out at once goes out after a later look."""

from __future__ import annotations

import os
import socket

from nbsentinel_guard import wire

SOCKET_NAME = "kernels.sock"
PAUSE_LIMIT = 20
"""Looks after which an agent that turned us away is tried again, at most."""
_NOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Link:
    """The connection of this server with the agent.

    Args:
        run_dir: The agent's folder.
    """

    def __init__(self, run_dir: str) -> None:
        self._run_dir = run_dir
        self._socket: socket.socket | None = None
        self._welcomed = False
        self._pause, self._skip = 0, 0
        self.connections = 0
        """How many there have been: each agent is told everything anew."""

    def reach(self) -> bool:
        """Return whether an agent is there to be told; an absent one is looked for each time.

        An agent that closes the connection without a welcome does not know us (yet): it is tried again less and less.
        """
        if self._socket is not None and self._is_closed(self._socket):
            self.close()
            self._pause = 0 if self._welcomed else min(PAUSE_LIMIT, 2 * self._pause + 1)
            self._skip = self._pause
        if self._socket is None:
            if self._skip:
                self._skip -= 1
                return False
            self._socket = self._connect()
        return self._socket is not None

    def send(self, message: bytes) -> bool:
        """Send one message; return whether it went out."""
        if self._socket is None:
            return False
        try:
            self._socket.send(message, _NOW)
        except OSError:  # full, or gone: the next look tells
            return False
        return True

    def close(self) -> None:
        """End the connection."""
        own, self._socket = self._socket, None
        if own is not None:
            own.close()

    def _is_closed(self, own: socket.socket) -> bool:
        try:
            said = own.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self._welcomed = self._welcomed or bool(said)
        return not said

    def _connect(self) -> socket.socket | None:
        if not wire.is_private(self._run_dir):
            return None
        own = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            own.setblocking(False)
            self._reach(own)
            if wire.peer(own)[1] == os.getuid():
                self._welcomed = False
                self.connections += 1
                return own
        except OSError:
            pass
        own.close()
        return None

    def _reach(self, own: socket.socket) -> None:
        address = wire.address(self._run_dir, SOCKET_NAME)
        try:
            own.connect(address)
        finally:
            wire.release(address)

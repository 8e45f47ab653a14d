"""A kernel's connection with the agent: messages go out at once or not at all.

Nothing here waits, prints or raises. A message that does not fit is counted and the count is told later; only starts
and ends of cells are kept for a while. A forked child says nothing. What Python code may replace (`socket`,
`threading`) is not used.
"""

from __future__ import annotations

import _socket
import _thread
import contextlib
import json
import os
import struct
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

VERSION = 1
SOCKET_NAME = "kernels.sock"
RETRY_S = 1.0
"""How often an absent agent is looked for, at most."""
WAITING_LIMIT = 256
"""Starts and ends of cells that are kept for an agent that does not read."""
TEXT_LIMIT = 1024
_NOW = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL
_ADDRESS_LIMIT = 107
quiet = contextlib.suppress(Exception)
"""Whatever goes wrong here is not the user's business."""
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def text(value: Any, limit: int = TEXT_LIMIT) -> str:
    """Return a name or a path as text; for anything else what kind of thing it is."""
    if isinstance(value, bytes):
        return os.fsdecode(value[:limit])
    if isinstance(value, str):
        return value[:limit]
    if isinstance(value, (int, os.PathLike)):
        return str(value)[:limit]
    return "" if value is None else "<%s>" % type(value).__name__


class Channel:
    """The connection of this process with the agent.

    Args:
        run_dir: The agent's folder.
        hello: Returns what each connection begins with.
    """

    def __init__(self, run_dir: str, hello: Callable[[], list[Any]]) -> None:
        self.path = os.path.join(run_dir, SOCKET_NAME)
        self.dropped = 0
        self.key = os.urandom(32)
        """Makes access key ids unreadable; the agent's own as soon as it has said it."""
        self.watched: list[str] = []
        """The files that the agent wants to hear of; empty where it names none."""
        self._hello = hello
        self._pid = os.getpid()
        self._socket: _socket.socket | None = None
        self._place: tuple[int, int] = (0, 0)
        self._retry_at = 0.0
        self._welcomed = False
        self._waiting: deque[str] = deque()
        self._connecting = _thread.allocate_lock()
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        """Leave the connection to the kernel: its child is another process."""
        own, self._socket, self._pid = self._socket, None, -1
        if own is not None:
            self._close(own)

    def _close(self, own: _socket.socket) -> None:
        """Close our socket, unless its number has become somebody else's file."""
        try:
            if self._is_ours(own):
                own.close()
            else:
                own.detach()
        except OSError:
            pass

    def _is_ours(self, own: _socket.socket) -> bool:
        try:
            found = os.fstat(own.fileno())
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._place

    def reach(self) -> None:
        """Connect with the agent if there is one; each message tries again."""
        self._connect()

    def send(self, kind: str, *content: Any, keep: bool = False) -> None:
        """Send a message; with `keep` one that cannot go out now goes before the next one."""
        if os.getpid() != self._pid:
            return
        at = time.time_ns() // 1000000
        while self._waiting and self._out(self._waiting[0]):
            self._waiting.popleft()
        if not self._waiting and self._out(_encode([kind, self.dropped, at, *content])):
            return
        if keep and len(self._waiting) < WAITING_LIMIT:
            self._waiting.append(_encode([kind, self.dropped, at, *content]))
        else:
            self.dropped += 1

    def _out(self, message: str) -> bool:
        for _ in range(2):  # the second time to an agent that has taken the place of the first
            own = self._socket or self._connect()
            if own is None:
                return False
            try:
                if self._is_ours(own):
                    own.send(message.encode(), _NOW)
                    return True
                own.detach()
            except BlockingIOError:
                return False
            except OSError:
                self._close(own)
            self._socket = None
        return False

    def _connect(self) -> _socket.socket | None:
        now = time.monotonic()
        if now < self._retry_at or not self._connecting.acquire(False):
            return None
        try:
            self._retry_at = now + RETRY_S
            return self._open()
        except OSError:
            return None
        finally:
            self._connecting.release()

    def _open(self) -> _socket.socket | None:
        own = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            own.setblocking(False)
            self._reach(own)
            peer = own.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
            is_ours = struct.unpack("3i", peer)[1] == os.getuid()
            hello = ["hello", self.dropped, time.time_ns() // 1000000, *self._hello()]
            if is_ours:
                own.send(_encode(hello).encode(), _NOW)
            found = os.fstat(own.fileno())
        except OSError:
            own.close()
            raise
        if not is_ours:
            own.close()
            return None
        self._place, self._welcomed, self._socket = (found.st_dev, found.st_ino), False, own
        return own

    def _reach(self, own: _socket.socket) -> None:
        if len(os.fsencode(self.path)) <= _ADDRESS_LIMIT:
            own.connect(self.path)
            return
        folder = os.open(os.path.dirname(self.path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            own.connect("/proc/self/fd/%d/%s" % (folder, SOCKET_NAME))
        finally:
            os.close(folder)

    def is_own(self, address: str) -> bool:
        """Return whether an address is one of the agent's."""
        return address.startswith((os.path.dirname(self.path) + "/", "/proc/self/fd/"))

    def listen(self) -> bool:
        """Read the agent's answer if it is there; return whether it has just come."""
        own = self._socket
        if self._welcomed or own is None or not self._is_ours(own):
            return False
        try:
            version, key, watched = json.loads(own.recv(65536, _socket.MSG_DONTWAIT).decode())
            if version == VERSION:
                self.key, self.watched = bytes.fromhex(key), [str(entry) for entry in watched]
        except (OSError, ValueError, TypeError):
            return False
        self._welcomed = True
        return True

"""What is said on the socket: one JSON object a line, a request from the client, answers from the agent.

Requests: `{"request": "status"}`, `{"request": "who", "pid": n}`,
`{"request": "findings", "after": id, "limit": n, "follow": bool}` and
`{"request": "test-alert", "severity": name, "wait": seconds}`. An answer line is `{"status": {...}}`,
`{"who": {...} or null}`, `{"finding": {"id": n, "event": {...}}}`, `{"test_alert": {...}}`, then
`{"delivery": {"sink": name, "ms": n or "why": "..."}}` for each sink, or `{"refused": "..."}`; `{"end": true}` or
`{"error": "..."}`. Nobody can change anything through this socket: it tells, and makes a test alert that says so.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SOCKET_NAME = "agent.sock"
ADDRESS_LIMIT = 107
REQUEST_LIMIT = 4096
"""Longest request line, in bytes."""
DEFAULT_FINDINGS = 50
MAX_FINDINGS = 1000


class Peer(NamedTuple):
    """Who is at the other end of a unix socket, as the kernel recorded it at connect."""

    pid: int
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer:
    """Return the credentials of the process that opened the other end."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return Peer(*struct.unpack("3i", data))


def socket_path(run_dir: Path) -> Path:
    """Return where the agent's socket is in its run folder."""
    return run_dir / SOCKET_NAME


@contextmanager
def short_address(path: Path) -> Iterator[str]:
    """Yield an address of the socket that fits into sockaddr_un, whose path holds 107 bytes (unix(7)).

    A longer path is reached through a descriptor of its folder.

    Raises:
        OSError: The folder is not there.
    """
    if len(os.fsencode(path)) <= ADDRESS_LIMIT:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)

"""Messages with descriptors between launcher, holder, supervisor and agent: unix sockets that keep boundaries."""

from __future__ import annotations

import array
import os
import socket
import stat
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SOCKET_NAME = "guard.sock"
MESSAGE_LIMIT = 196608
DESCRIPTOR_LIMIT = 4


def send(connection: socket.socket, message: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one message with descriptors."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([message], ancillary)


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Return one message and its descriptors, which are close-on-exec; an empty message means the other end is gone."""
    space = socket.CMSG_SPACE(DESCRIPTOR_LIMIT * 4)
    message, ancillary, _, _ = connection.recvmsg(MESSAGE_LIMIT, space, socket.MSG_CMSG_CLOEXEC)
    found: array.array[int] = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return message, list(found)


def peer(connection: socket.socket) -> tuple[int, int]:
    """Return (pid, uid) of the other end, as the kernel recorded it when it connected."""
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def address(run_dir: str) -> str:
    """Return the socket's address; a path too long for one goes through /proc/self/fd."""
    path = os.path.join(run_dir, SOCKET_NAME)
    if len(os.fsencode(path)) < 108:
        return path
    descriptor = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return "/proc/self/fd/%d/%s" % (descriptor, SOCKET_NAME)


def is_private(run_dir: str) -> bool:
    """Return whether a folder is ours alone, so that only our user can have put a socket there."""
    try:
        found = os.stat(run_dir)
    except OSError:
        return False
    return found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & 0o077 == 0


def connect(run_dir: str, timeout: float) -> socket.socket:
    """Return a connection to the holder.

    Raises:
        OSError: Nobody listens there, or the folder is not private.
    """
    if not is_private(run_dir):
        raise OSError(f"{run_dir} is missing or not private")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    connection.settimeout(timeout)
    try:
        connection.connect(address(run_dir))
    except OSError:
        connection.close()
        raise
    if peer(connection)[1] != os.getuid():
        connection.close()
        raise OSError(f"{run_dir} belongs to another user")
    return connection

"""Messages with descriptors between launcher, holder, supervisor and agent: unix sockets that keep boundaries."""

from __future__ import annotations

import os
import stat
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
else:
    import _socket as socket  # all that is needed of it, without the two milliseconds of the rest

SOCKET_NAME = "guard.sock"
MESSAGE_LIMIT = 196608
DESCRIPTOR_LIMIT = 4


def send(connection: socket.socket, message: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one message with descriptors."""
    ancillary = (
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("%di" % len(descriptors), *descriptors))]
        if descriptors
        else []
    )
    connection.sendmsg([message], ancillary)


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Return one message and its descriptors, which are close-on-exec; an empty message means the other end is gone."""
    space = socket.CMSG_SPACE(DESCRIPTOR_LIMIT * 4)
    message, ancillary, _, _ = connection.recvmsg(MESSAGE_LIMIT, space, socket.MSG_CMSG_CLOEXEC)
    found: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.extend(struct.unpack_from("%di" % (len(data) // 4), data))
    return message, found


def peer(connection: socket.socket) -> tuple[int, int]:
    """Return (pid, uid) of the other end, as the kernel recorded it when it connected."""
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def address(run_dir: str, name: str = SOCKET_NAME) -> str:
    """Return the socket's address, until `release`; a path too long for one goes through /proc/self/fd."""
    path = os.path.join(run_dir, name)
    if len(os.fsencode(path)) < 108:
        return path
    descriptor = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return "/proc/self/fd/%d/%s" % (descriptor, name)


def release(path: str) -> None:
    """Give up an address once it was bound or connected: a long one keeps its folder open."""
    if path.startswith("/proc/self/fd/"):
        os.close(int(path.split("/")[4]))


def kernel_of(description: bytes) -> int:
    """Return the pid in a listener's description where a kernel was guarded, 0 for anything else."""
    return int(description.split(b" ", 1)[0] or 0) if b" kind=kernel " in description else 0


def hand_over(run_dir: str, timeout: float, page: int, listeners: dict[int, tuple[int, bytes]]) -> bool:
    """Give a page and its listeners to the holder that runs now; return whether it took them.

    Args:
        run_dir: Folder of its socket.
        timeout: Seconds that each step may take.
        page: Descriptor of the shared memory.
        listeners: Descriptor and description by place in that page.
    """
    try:
        connection = connect(run_dir, timeout)
    except OSError:
        return False
    try:
        send(connection, b"adopt %d" % len(listeners), [page])
        for index, (listener, description) in listeners.items():
            send(connection, b"%d %s" % (index, description), [listener])
        return connection.recv(16) == b"ok"
    except OSError:
        return False
    finally:
        connection.close()


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
    deadline, path = time.monotonic() + timeout, address(run_dir)
    try:
        while True:
            try:
                connection.connect(path)
                break
            except BlockingIOError:
                # The queue is full, and a unix socket with a timeout does not wait for room in it (connect(2)).
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.002)
    except OSError:
        connection.close()
        raise
    finally:
        release(path)
    if peer(connection)[1] != os.getuid():
        connection.close()
        raise OSError(f"{run_dir} belongs to another user")
    return connection


def wait_for_end(connection: socket.socket) -> None:
    """Wait until who handed over is gone: what it still answers until then must not be answered twice."""
    connection.settimeout(1.0)
    try:
        connection.recv(16)
    except OSError:
        return

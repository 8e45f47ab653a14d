"""What can be read of a caller: its memory, its image, its descriptors. None where it is gone or unreadable.

Nothing here opens a path that the caller named: only files of /proc, so nothing here can block.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import struct

from nbsentinel_guard import proc
from nbsentinel_guard.seccomp import _libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Set, Tuple

CMDLINE_LIMIT = 32768
ENVIRON_LIMIT = 262144
PRELOAD_LIMIT = 4096
MARKERS = (b"LD_PRELOAD", b"LD_AUDIT")
"""Variables that load code into a program before its own."""
PLAIN_LIMIT = 4096
ROOM = 65536
"""How much of a caller's memory is read in one piece."""

_read_memory = _libc.process_vm_readv
_read_memory.restype = ctypes.c_ssize_t
_read_memory.argtypes = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
)


class Memory:
    """Copies bytes out of callers; one for each thread, because it keeps its buffers.

    Args:
        permitted: False behaves as under Yama: every read is refused.
    """

    def __init__(self, *, permitted: bool = True) -> None:
        self.permitted = permitted
        self._buffer = bytearray(32)
        self._vectors = memoryview(self._buffer).cast("Q")
        here = ctypes.addressof((ctypes.c_char * 32).from_buffer(self._buffer))
        self._here, self._there = here, here + 16
        room = bytearray(ROOM)
        self._room, self._room_address = memoryview(room), ctypes.addressof((ctypes.c_char * ROOM).from_buffer(room))

    def copy(self, pid: int, address: int, target: int, length: int) -> int:
        """Copy `length` bytes to a local address; return how many came."""
        if not self.permitted or length <= 0:
            return 0
        vectors = self._vectors
        vectors[0], vectors[1], vectors[2], vectors[3] = target, length, address, length
        got: int = _read_memory(pid, self._here, 1, self._there, 1, 0)
        return max(0, got)

    def read(self, pid: int, address: int, length: int) -> bytes:
        """Return up to `length` bytes, at most `ROOM`; fewer where a page is missing."""
        got = self.copy(pid, address, self._room_address, min(length, ROOM))
        return bytes(self._room[:got])

    def text(self, pid: int, address: int, limit: int = 4096) -> bytes:
        """Return a string up to its zero byte; the page behind it may be missing, so it is read page by page."""
        found = b""
        while len(found) < limit:
            part = self.read(pid, address + len(found), min(limit - len(found), 4096 - (address + len(found)) % 4096))
            found += part.partition(b"\0")[0]
            if not part or b"\0" in part:
                break
        return found

    def start_of(self, pid: int, fields: List[bytes]) -> Tuple[bytes, bytes]:
        """Return the arguments and the environment that an image was started with, as /proc gives them.

        Args:
            pid: The process.
            fields: Of its stat, from the state on; where they and we may, both are read at once.
        """
        begin, middle, second, end = map(int, fields[45:49]) if len(fields) >= 49 else (0, 0, 0, 0)
        if 0 < begin <= middle <= second <= end <= begin + ROOM:
            block = self.read(pid, begin, end - begin)
            if len(block) == end - begin:
                return block[: middle - begin][:CMDLINE_LIMIT], block[second - begin :]
        base = b"/proc/%d/" % pid
        environment = proc.read_bytes(base + b"environ", ENVIRON_LIMIT)
        return proc.read_bytes(base + b"cmdline", CMDLINE_LIMIT) or b"", environment or b""


def endpoint(claim: bytes) -> tuple[str, int] | None:
    """Return (address, port) of an internet socket address, or None for any other family."""
    if len(claim) < 8:
        return None
    family = struct.unpack_from("=H", claim)[0]
    port = struct.unpack_from("!H", claim, 2)[0]
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, claim[4:8]), port
    if family == socket.AF_INET6 and len(claim) >= 24:
        raw = claim[8:24]
        if raw.startswith(b"\0" * 10 + b"\xff\xff"):
            return socket.inet_ntop(socket.AF_INET, raw[12:]), port
        return socket.inet_ntop(socket.AF_INET6, raw), port
    return None


def link(path: bytes) -> bytes | None:
    """Return the target of a link under /proc as bytes, or None."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def identify(tid: int) -> tuple[int, int, int] | None:
    """Return (process, its start in ticks since boot, its parent) of a thread, or None when it is gone."""
    pid = proc.status_number(tid, b"Tgid", 0)
    found = proc.stat_fields(pid) if pid else None
    return (pid, int(found[1][19]), int(found[1][1])) if found else None


def leader(tid: int) -> int:
    """Return the process that a thread belongs to; a number that is no thread stands for itself."""
    try:
        descriptor = os.pidfd_open(tid)  # there is none for another thread (man 2 pidfd_open); cheaper than /proc
    except (OSError, OverflowError, AttributeError):  # AttributeError: before Python 3.9
        return proc.status_number(tid, b"Tgid", tid)
    os.close(descriptor)
    return tid


def group(pid: int) -> int:
    """Return the process group of a process or thread, 0 where it is gone."""
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def process_of_descriptor(tid: int, descriptor: int) -> int:
    """Return the process that a pidfd stands for, 0 for any other descriptor; a folder of /proc can be one too."""
    path = b"/proc/%d/fd/%d" % (tid, descriptor)
    target = link(path) or b""
    if target.startswith(b"/proc/"):
        number = target.split(b"/")[2]
        return int(number) if number.isdigit() else 0
    data = proc.read_bytes("/proc/%d/fdinfo/%d" % (tid, descriptor), 1024) or b""
    _, found, rest = data.partition(b"\nPid:")
    return max(0, int(rest.split(None, 1)[0])) if found else 0


def socket_inode(tid: int, descriptor: int) -> int:
    """Return the inode of the socket behind a descriptor, 0 where there is none to be seen."""
    target = link(b"/proc/%d/fd/%d" % (tid, descriptor)) or b""
    return int(target[8:-1]) if target.startswith(b"socket:[") else 0


def owner(pid: int) -> int:
    """Return the user of a process, -1 where it is gone."""
    try:
        return os.stat("/proc/%d" % pid).st_uid
    except OSError:
        return -1


def streams(pid: int) -> tuple[bytes, bytes, bytes]:
    """Return what descriptors 0 to 2 refer to, b"" for each that is closed or may not be read."""
    base = b"/proc/%d/fd/" % pid
    return link(base + b"0") or b"", link(base + b"1") or b"", link(base + b"2") or b""


def preloads(environment: bytes) -> bytes:
    """Return the variables that load code into a process before its own, as NAME=value joined by blanks."""
    if b"LD_" not in environment:
        return b""
    environment = b"\0" + environment
    found = []
    for marker in MARKERS:
        _, present, rest = environment.partition(b"\0" + marker + b"=")
        if present:
            found.append(marker + b"=" + rest.partition(b"\0")[0][:PRELOAD_LIMIT])
    return b" ".join(found)


_plain: Set[Tuple[int, int, int]] = set()
"""Files without capabilities, as device, inode and time of their last change, which giving them some would move."""


def gives_rights(pid: int) -> bool:
    """Return whether the running file would give rights that no_new_privs withholds: set-uid, set-gid, capabilities."""
    path = b"/proc/%d/exe" % pid
    try:
        found = os.stat(path)
        if found.st_mode & (stat.S_ISUID | stat.S_ISGID):
            return True
        identity = found.st_dev, found.st_ino, found.st_ctime_ns
        if identity in _plain:
            return False
        os.getxattr(path, b"security.capability")
    except OSError as error:
        if error.errno == errno.ENODATA:
            if len(_plain) >= PLAIN_LIMIT:
                _plain.clear()
            _plain.add(identity)
        return False
    return True

"""What can be read of a caller: its memory, its image, its descriptors. None where it is gone or unreadable.

Nothing here opens a path that the caller named: only files of /proc, so nothing here can block.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

from nbsentinel_guard.seccomp import _libc

CMDLINE_LIMIT = 32768
ENVIRON_LIMIT = 65536
MARKERS = (b"LD_PRELOAD", b"LD_AUDIT")
"""Variables that load code into a program before its own."""

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


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class Memory:
    """Copies bytes out of callers; one for each thread, because it keeps its buffers.

    Args:
        permitted: False behaves as under Yama: every read is refused.
    """

    def __init__(self, *, permitted: bool = True) -> None:
        self._permitted = permitted
        self._here, self._there = _Vector(), _Vector()
        self._pointers = ctypes.addressof(self._here), ctypes.addressof(self._there)

    def copy(self, pid: int, address: int, target: int, length: int) -> int:
        """Copy `length` bytes to a local address; return how many came."""
        if not self._permitted or length <= 0:
            return 0
        self._here.base, self._here.length = target, length
        self._there.base, self._there.length = address, length
        here, there = self._pointers
        return max(0, int(_read_memory(pid, here, 1, there, 1, 0)))

    def text(self, pid: int, address: int, limit: int = 4096) -> bytes | None:
        """Return a string up to its zero byte; a page boundary behind it may end the read."""
        buffer = ctypes.create_string_buffer(limit)
        room = 4096 - address % 4096
        got = self.copy(pid, address, ctypes.addressof(buffer), min(limit, room))
        if got and b"\0" not in buffer.raw[:got] and got < limit:
            got += self.copy(pid, address + got, ctypes.addressof(buffer) + got, limit - got)
        return buffer.raw[:got].partition(b"\0")[0] if got else None


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


def read_file(path: str | bytes, limit: int) -> bytes | None:
    """Return at most `limit` bytes of a file under /proc, or None."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, limit)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def link(path: bytes) -> bytes | None:
    """Return the target of a link under /proc as bytes, or None."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def place(pid: int) -> tuple[int, bytes, int, int, int] | None:
    """Return (start, name, ppid, session, tty) of a process or thread from its stat, or None."""
    data = read_file("/proc/%d/stat" % pid, 4096)
    if not data:
        return None
    head, _, tail = data.rpartition(b")")
    fields = tail.split()
    if len(fields) < 20:
        return None
    return int(fields[19]), head.partition(b"(")[2], int(fields[1]), int(fields[3]), int(fields[4])


def leader(tid: int) -> int:
    """Return the process that a thread belongs to."""
    data = read_file("/proc/%d/status" % tid, 1024) or b""
    _, found, rest = data.partition(b"\nTgid:")
    return int(rest.split(None, 1)[0]) if found else tid


def image(pid: int) -> dict[str, object]:
    """Return what runs in a process now: a dictionary of texts in which each character is one byte."""
    base = b"/proc/%d/" % pid
    found = {"exe": link(base + b"exe"), "cwd": link(base + b"cwd")}
    found.update(("fd%d" % number, link(base + b"fd/%d" % number)) for number in (0, 1, 2))
    found["argv"] = read_file(base + b"cmdline", CMDLINE_LIMIT)
    environment = b"\0" + (read_file(base + b"environ", ENVIRON_LIMIT) or b"")
    texts: dict[str, object] = {name: value.decode("latin-1") for name, value in found.items() if value is not None}
    for marker in MARKERS:
        _, present, rest = environment.partition(b"\0" + marker + b"=")
        if present:
            texts[marker.decode()] = rest.partition(b"\0")[0][:4096].decode("latin-1")
    return texts

"""Reading /proc: what guard and agent both need. None where a process is gone or may not be read."""

from __future__ import annotations

import os


def read_bytes(path: str | bytes, limit: int = 65536) -> bytes | None:
    """Return at most `limit` bytes of a file under /proc, or None."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        chunks = []
        while limit > 0:
            chunk = os.read(descriptor, min(limit, 65536))
            if not chunk:
                break
            chunks.append(chunk)
            limit -= len(chunk)
        return b"".join(chunks)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_small(path: str | bytes) -> bytes | None:
    """Return a file under /proc that the kernel gives in one piece of at most 4 KiB, or None."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def stat_fields(pid: int) -> tuple[bytes, list[bytes]] | None:
    """Return a process's or thread's name and the fields of its stat from the state (field 3, see proc(5)) on."""
    data = read_small("/proc/%d/stat" % pid)
    if not data:
        return None
    head, _, tail = data.rpartition(b")")
    fields = tail.split()
    return (head.partition(b"(")[2], fields) if len(fields) >= 20 else None


def status_number(pid: int | str, name: bytes, missing: int) -> int:
    """Return a number from a process's status, for example `Tgid`."""
    data = read_small(f"/proc/{pid}/status") or b""
    _, found, rest = data.partition(b"\n" + name + b":")
    return int(rest.split(None, 1)[0]) if found else missing


def filters(pid: int | str) -> int:
    """Return how many seccomp filters a process is under; 0 where the kernel (before 5.9) does not tell."""
    return status_number(pid, b"Seccomp_filters", 0)


def is_outside(pid: int) -> bool:
    """Return whether a process has no more filters than we have: what is guarded may not claim to be one of ours."""
    return filters(pid) <= filters("self")

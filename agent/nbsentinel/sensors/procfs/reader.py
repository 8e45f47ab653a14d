"""Reading /proc: small, fast functions that return None for a process that is gone or may not be read.

Paths are plain strings and calls are `os` calls because these run thousands of times a minute. Every function can race
with the process's end; none raises for it.
"""

from __future__ import annotations

import functools
import json
import os
import pwd
import re
import stat as modes
import time
from itertools import pairwise
from typing import NamedTuple

from nbsentinel.events import KernelInfo, Millis, Process, ProcessKey
from nbsentinel.text import NAME_LIMIT, PATH_LIMIT, arguments, visible
from nbsentinel_guard.proc import filters, read_bytes, stat_fields

__all__ = ["filters", "read_bytes"]

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PTS_MAJORS = range(136, 144)
"""Device numbers of Unix98 pty slaves, Documentation/admin-guide/devices.txt."""
CONNECTION_FILE_LIMIT = 8192
ENVIRON_LIMIT = 262_144
ARGUMENTS_LIMIT = 4_194_304
"""Twice what execve takes in all (MAX_ARG_STRLEN times the usual stack limit, man 2 execve)."""
_EXEC_TRIES = 4
_PF_FORKNOEXEC = 0x40
"""include/linux/sched.h; the flags are field 9 of /proc/PID/stat."""
_PORT_KEYS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
_CONNECTION_FILE = re.compile(r"(^|/)runtime/[^/]*\.json$|(kernel|conn|tmp)[^/]*\.json$")
"""Where jupyter_client puts connection files, and how it and those who use it name them."""
_KERNEL_ID = re.compile(r"kernel-(.+)\.json$")


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that identify a process and place it."""

    key: ProcessKey
    name: bytes
    state: str
    ppid: int
    session: int
    tty: int
    forked: bool
    """Whether it has not executed anything since it was forked."""


def pids() -> set[int]:
    """Return all pids in our namespace."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def last_pid() -> bytes:
    """Return a token that changes whenever a process or thread was created: load average's last field."""
    return (read_bytes("/proc/loadavg", 128) or b"").rsplit(b" ", 1)[-1]


def stat(pid: int) -> Stat | None:
    """Return the identity and place of a process, or None when it is gone."""
    found = stat_fields(pid)
    if found is None:
        return None
    name, fields = found
    return Stat(
        key=ProcessKey(pid, int(fields[19])),
        name=name,
        state=fields[0].decode(),
        ppid=int(fields[1]),
        session=int(fields[3]),
        tty=int(fields[4]),
        forked=bool(int(fields[6]) & _PF_FORKNOEXEC),
    )


def is_alive(key: ProcessKey) -> bool:
    """Return whether this very process still runs (a zombie does not)."""
    now = stat(key.pid)
    return now is not None and now.key == key and now.state not in "ZX"


def terminal_name(tty: int) -> str | None:
    """Return the name of a controlling terminal's device number, as tools print it."""
    if tty == 0:
        return None
    major, minor = os.major(tty), os.minor(tty)
    if major in PTS_MAJORS:
        return f"pts/{(major - PTS_MAJORS.start) * 256 + minor}"
    return f"tty {major}:{minor}"


@functools.lru_cache(maxsize=64)
def user_name(uid: int) -> str | None:
    """Return the account's name, or None where there is none (common in containers)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def link(path: str) -> str | None:
    """Return the target of a link under /proc, or None."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def _text_link(path: bytes, limit: int = PATH_LIMIT) -> str | None:
    try:
        return visible(os.readlink(path), limit)
    except OSError:
        return None


def stdio(pid: int) -> tuple[str | None, str | None, str | None]:
    """Return what file descriptors 0 to 2 of a process refer to."""
    base = b"/proc/%d/fd/" % pid
    return (_text_link(base + b"0"), _text_link(base + b"1"), _text_link(base + b"2"))


@functools.lru_cache(maxsize=1)
def boot_time_ms() -> int:
    """Return the moment of boot in milliseconds since the epoch, as our clocks see it now."""
    return int((time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)) * 1000)


def start_time(key: ProcessKey) -> Millis:
    """Return the start of a process in milliseconds since the epoch, exact to one clock tick (10 ms)."""
    return Millis(boot_time_ms() + key.start * 1000 // TICKS_PER_SECOND)


def _environment(pid: int, names: tuple[bytes, ...]) -> dict[bytes, bytes]:
    block = read_bytes(f"/proc/{pid}/environ", ENVIRON_LIMIT) or b""
    pairs = (item.partition(b"=") for item in block.split(b"\0"))
    return {name: value for name, _, value in pairs if name in names}


def _connection_path(argv: tuple[str, ...]) -> str | None:
    for flag, value in pairwise(argv):
        # Other programs have a `-f x.json` too, and opening somebody's credential here would look like a reader.
        if flag in ("-f", "--f", "--connection-file", "--connection_file") and _CONNECTION_FILE.search(value):
            return value
    for value in argv:
        name, _, path = value.partition("=")
        if path.endswith(".json") and name.lower().endswith(("connection_file", "-f")):
            return path
        if _KERNEL_ID.search(value):
            return value
    return None


def kernel_info(pid: int, argv: tuple[str, ...], cwd: str | None) -> KernelInfo | None:
    """Return what makes a process look like a Jupyter kernel: a connection file among its arguments."""
    path = _connection_path(argv)
    if path is None:
        return None
    path = os.path.join(cwd or "/", path)
    try:
        content = json.loads(_regular_file(path) or b"")
        ports = tuple(int(content[key]) for key in _PORT_KEYS if isinstance(content.get(key), int))
        transport, ip = str(content.get("transport", "tcp"))[:16], str(content.get("ip", ""))[:NAME_LIMIT]
    except (ValueError, AttributeError):
        return None
    match = _KERNEL_ID.search(path)
    notebook = _environment(pid, (b"JPY_SESSION_NAME",)).get(b"JPY_SESSION_NAME")
    return KernelInfo(
        kernel_id=match.group(1) if match else os.path.basename(path),
        connection_file=path,
        transport=transport,
        ip=ip,
        ports=ports,
        notebook=visible(notebook) if notebook else None,
    )


def _regular_file(path: str) -> bytes | None:
    """Read a file that a process named: never blocks on a fifo, never follows into a device."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        if not modes.S_ISREG(os.fstat(fd).st_mode):
            return None
        return os.read(fd, CONNECTION_FILE_LIMIT)
    except OSError:
        return None
    finally:
        os.close(fd)


def _command_line(pid: int, *, wait: bool) -> bytes:
    """Return the argument block; in the middle of an execve it is empty for a moment, which is waited for."""
    for _ in range(_EXEC_TRIES if wait else 1):
        block = read_bytes(f"/proc/{pid}/cmdline", ARGUMENTS_LIMIT)
        if block:
            return block
        time.sleep(0.0005)
    return b""


def process(pid: int, parents: dict[int, ProcessKey] | None = None) -> Process | None:
    """Return everything that is shown of a process, or None when it is gone.

    Args:
        pid: The process.
        parents: Keys of processes known already, to name the parent without reading it again.
    """
    place = stat(pid)
    if place is None:
        return None
    base = b"/proc/%d/" % pid
    exe = _text_link(base + b"exe")
    argv, length, digest = arguments(_command_line(pid, wait=exe is not None))
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    parent = (parents or {}).get(place.ppid)
    if parent is None and place.ppid and (above := stat(place.ppid)):
        parent = above.key
    cwd = _text_link(base + b"cwd")
    return Process(
        key=place.key,
        parent=parent,
        name=visible(place.name, NAME_LIMIT),
        exe=exe,
        argv=argv,
        argv_length=length,
        argv_sha256=digest,
        cwd=cwd,
        uid=uid,
        user=user_name(uid),
        session=place.session,
        tty=terminal_name(place.tty),
        # What was read in between may be that of a new image.
        forked=place.forked and (again := stat(pid)) is not None and again.forked,
        started=start_time(place.key),
        stdio=stdio(pid),
        kernel=kernel_info(pid, argv, cwd),
    )


def has_executed(known: Process) -> bool:
    """Return whether a process runs another image than the one known: with other arguments, or for the first time.

    A fork may execute its parent's own file with the same arguments.
    """
    block = read_bytes(f"/proc/{known.key.pid}/cmdline", ARGUMENTS_LIMIT)
    if block and arguments(block).argv != known.argv:
        return True
    place = stat(known.key.pid) if known.forked else None
    return place is not None and not place.forked

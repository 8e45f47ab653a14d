"""Processes and their connections, as every part of the agent speaks of them."""

from __future__ import annotations

from typing import NewType

import msgspec

Millis = NewType("Millis", int)

Inode = NewType("Inode", int)


class ProcessKey(msgspec.Struct, frozen=True, order=True):
    """A process for all time: pids are reused, (pid, start time) is not."""

    pid: int
    start: int
    """Start time in clock ticks since boot: field 22 of /proc/PID/stat, see proc(5)."""


class KernelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a kernel's own arguments, connection file and environment say of it; its owner can write all three."""

    kernel_id: str
    connection_file: str
    transport: str = "tcp"
    ip: str = ""
    ports: tuple[int, ...] = ()
    """The ports of its ZeroMQ channels."""
    notebook: str | None = None


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One image that a process runs; a successful execve makes a new value with the same key."""

    key: ProcessKey
    parent: ProcessKey | None
    """The parent when the process was first seen; kept after reparenting to init."""
    name: str
    exe: str | None
    """Path of the running file, None where it may not be read (another user, not dumpable)."""
    argv: tuple[str, ...]
    argv_length: int
    """Length in bytes before cutting."""
    argv_sha256: str | None = None
    """SHA-256 of the whole argument block, only where it was cut."""
    cwd: str | None = None
    uid: int = -1
    user: str | None = None
    session: int = 0
    """Session id (the pid of the session leader)."""
    tty: str | None = None
    """Controlling terminal, for example `pts/3`."""
    started: Millis = Millis(0)
    stdio: tuple[str | None, str | None, str | None] = (None, None, None)
    """Targets of file descriptors 0 to 2 as the kernel names them (`socket:[123]`, `/dev/pts/3`)."""
    kernel: KernelInfo | None = None
    """Present where the process looks like a Jupyter kernel."""
    root: ProcessKey | None = None
    """The guarded command (kernel, terminal, `nbsentinel guard -- CMD`) it belongs to, whoever its parent is now. Of
    that command itself it is itself."""
    preloads: str | None = None
    """What LD_PRELOAD or LD_AUDIT loads into it before its own code, as `NAME=value`."""
    forked: bool = False
    """Whether it is a fork that has not executed anything: it goes on with its parent's work."""
    unreadable: bool = False
    """Whether it may not be looked into (execute-only file, not dumpable): file and streams are the last known ones."""

    @property
    def command_line(self) -> str:
        """The arguments joined by blanks, as Sigma's CommandLine has them."""
        return " ".join(self.argv) if self.argv else f"[{self.name}]"


class Endpoint(msgspec.Struct, frozen=True, order=True):
    """One side of a connection."""

    ip: str
    """Numeric address; IPv4 mapped into IPv6 is given as IPv4."""
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """An internet socket with a peer."""

    protocol: str
    """`tcp` or `udp`, empty where it is not known (a socket that was gone before it could be looked at)."""
    local: Endpoint | None
    """None where only the call was seen: the kernel had not chosen our side yet."""
    remote: Endpoint
    inode: Inode
    initiated: bool | None
    """True: this side connected; False: this side accepted; None: not known (a bound UDP socket)."""

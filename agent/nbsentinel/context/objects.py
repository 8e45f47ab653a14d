"""The kernel objects that join processes, and the view through which detection looks at them.

Detection never reads /proc itself: it is given an `ObjectView`. The procfs sensor implements it on the running system,
tests implement it in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple, Protocol

import msgspec

from nbsentinel.events import Endpoint, Inode, Process, ProcessKey


class ObjectKind(Enum):
    """Kernel objects that carry bytes from one process to another."""

    SOCKET = "socket"
    PIPE = "pipe"
    FIFO = "fifo"
    PTY_MASTER = "ptmx"
    PTY_SLAVE = "pts"
    MEMORY = "memory"
    """Writable memory that several processes map (a file, /dev/shm, memfd, an anonymous mapping kept over a fork)."""


class KernelObject(NamedTuple):
    """The identity of one object: inode of sockets and pipes, device and inode of fifos and memory, index of ptys."""

    kind: ObjectKind
    number: int
    device: int = 0

    def __str__(self) -> str:
        if self.kind is ObjectKind.PTY_SLAVE:
            return f"/dev/pts/{self.number}"
        if self.kind is ObjectKind.PTY_MASTER:
            return f"ptmx of pts/{self.number}"
        return f"{self.kind.value}:[{self.number}]"


class End(NamedTuple):
    """A file descriptor of a process that refers to such an object."""

    fd: int
    object: KernelObject
    reads: bool
    writes: bool


class Family(Enum):
    """Socket families as far as they matter to dataflow."""

    INET = "inet"
    UNIX = "unix"
    UNKNOWN = "unknown"
    """A socket that no table lists: another network namespace, packet, vsock, SCTP ..."""


class Socket(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel's tables say of a socket."""

    inode: Inode
    family: Family
    protocol: str = ""
    """`tcp` or `udp` for inet."""
    local: Endpoint | None = None
    remote: Endpoint | None = None
    """None while it has no peer."""
    listening: bool = False
    connecting: bool = False
    """A TCP socket whose peer has not answered yet."""
    peer: Inode | None = None
    """The other end of a unix socket, or of an internet connection whose two ends are on this machine."""


class Activity(NamedTuple):
    """What moved on a TCP connection, and when, in milliseconds since the epoch.

    Its establishment counts as the time of both; only the counts tell whether anything was said at all.
    """

    received: int
    sent: int
    segments_in: int = 0
    """Segments with data that came."""
    segments_out: int = 0
    """Segments with data that were sent."""
    bytes_in: int = 0


class ObjectView(Protocol):
    """Who holds which object now. Answers are a moment's: a process may be gone or changed when they are used."""

    def process(self, key: ProcessKey) -> Process | None:
        """Return what is known of a process."""

    def ends(self, key: ProcessKey) -> tuple[End, ...] | None:
        """Return the descriptors of a process that refer to kernel objects; None where they may not be read."""

    def holds(self, key: ProcessKey, end: End) -> bool:
        """Return whether a process still has a descriptor, looked at now."""

    def holders(self, target: KernelObject) -> Iterable[ProcessKey]:
        """Return every process seen to hold the object."""

    def socket(self, inode: Inode, holder: ProcessKey, *, fresh: bool = False) -> Socket | None:
        """Return what the network namespace of a holder lists of a socket; None where no table has it.

        A view reads the tables once: a socket that is younger is found with `fresh` only, which reads them again.
        """

    def activity(self, inode: Inode) -> Activity | None:
        """Return when a TCP connection last carried bytes; None where the kernel does not tell."""

    def heard(self, since: int) -> Iterable[Socket]:
        """Return the TCP connections on which something came since a moment, whoever holds them; cheap."""

    def parent(self, key: ProcessKey) -> ProcessKey | None:
        """Return the present parent of a process that is alive, seen before or not."""

    def memory(self, key: ProcessKey) -> tuple[KernelObject, ...]:
        """Return what a process maps writably and shared with others."""

    def sharers(self, target: KernelObject) -> Iterable[ProcessKey]:
        """Return every process seen to map the same memory; looks into all of them, so ask seldom."""

    def image(self, key: ProcessKey) -> str | None:
        """Return which interpreter the running file is, judged by its contents: `shell`, `python` ...; else None."""

    def lives(self, key: ProcessKey) -> bool:
        """Return whether a process still runs; `ends` of one that is gone are those last seen."""

    def awaits_input(self, key: ProcessKey, fd: int = 0) -> bool | None:
        """Return whether the process sleeps in a read of a descriptor now; None where the kernel does not tell."""

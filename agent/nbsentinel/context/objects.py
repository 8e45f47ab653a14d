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


class KernelObject(NamedTuple):
    """The identity of one object: inode for sockets and pipes, device and inode for fifos, index for ptys."""

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
    peer: Inode | None = None
    """The other end of a unix socket, or of an internet connection whose two ends are on this machine."""


class Activity(NamedTuple):
    """When bytes last moved on a TCP connection, in milliseconds since the epoch; its establishment counts as both."""

    received: int
    sent: int


class ObjectView(Protocol):
    """Who holds which object now. Answers are a moment's: a process may be gone or changed when they are used."""

    def process(self, key: ProcessKey) -> Process | None:
        """Return what is known of a process."""

    def ends(self, key: ProcessKey) -> tuple[End, ...] | None:
        """Return the descriptors of a process that refer to kernel objects; None where they may not be read."""

    def holders(self, target: KernelObject) -> Iterable[ProcessKey]:
        """Return every process seen to hold the object."""

    def socket(self, inode: Inode, holder: ProcessKey) -> Socket | None:
        """Return what the network namespace of a holder lists of a socket; None where no table has it."""

    def activity(self, inode: Inode) -> Activity | None:
        """Return when a TCP connection last carried bytes; None where the kernel does not tell."""

    def image(self, key: ProcessKey) -> str | None:
        """Return which interpreter the running file is, judged by its contents: `shell`, `python` ...; else None."""

    def awaits_input(self, key: ProcessKey) -> bool | None:
        """Return whether the process sleeps in a read of descriptor 0 now; None where the kernel does not tell."""

"""The running system as an `ObjectView`: descriptors, holders and sockets, each read at most once a look.

A view is a look at one moment. Detection makes one, asks it everything it needs within milliseconds and drops it.
"""

from __future__ import annotations

import os
import re
import stat as modes
from collections.abc import Callable, Iterable, Iterator

from nbsentinel.context.objects import Activity, End, Family, KernelObject, ObjectKind, Socket
from nbsentinel.events import Inode, Process, ProcessKey
from nbsentinel.sensors.procfs import reader, sockets
from nbsentinel.sensors.procfs.images import ImageCache

DESCRIPTOR_LIMIT = 4096
"""Descriptors looked at in one process; a process with more has its first ones looked at."""
_NUMBERED = re.compile(r"(socket|pipe):\[(\d+)\]$")
_SLEEPS_IN_READ = re.compile(rb"pipe_read|n_tty_read|wait_woken|unix_stream_read_generic|sk_wait_data|tcp_recvmsg|recv")
_REMOTE_FILESYSTEMS = ("nfs", "cifs", "smb", "fuse", "9p", "lustre", "ceph", "afs", "glusterfs", "virtiofs")
READ_CALLS = (b"0", b"7", b"17", b"19", b"23", b"45", b"270", b"271")
"""x86_64 numbers of read, poll, pread64, readv, select, recvfrom, pselect6, ppoll (asm/unistd_64.h)."""
READ_CALLS_AARCH64 = (b"63", b"65", b"67", b"72", b"73", b"207")


def remote_mounts() -> tuple[str, ...]:
    """Return mount points whose stat() may block on another machine or on a user's process."""
    found = []
    for line in (reader.read_bytes("/proc/self/mountinfo", 1 << 20) or b"").splitlines():
        left, _, right = line.partition(b" - ")
        if right.decode(errors="replace").startswith(_REMOTE_FILESYSTEMS):
            found.append(os.fsdecode(left.split(b" ")[4].replace(b"\\040", b" ")).rstrip("/") + "/")
    return tuple(found)


class ProcView:
    """What holds what, read from /proc on demand and remembered for the life of this object.

    Args:
        known: Processes that the sensor has seen, by key.
        images: The cache of file verdicts, shared between looks.
        keys: Returns every process that may be looked into.
    """

    def __init__(
        self,
        known: Callable[[ProcessKey], Process | None],
        images: ImageCache,
        keys: Callable[[], Iterable[ProcessKey]],
    ) -> None:
        self._known, self._images, self._keys = known, images, keys
        self._ends: dict[ProcessKey, tuple[End, ...] | None] = {}
        self._index: dict[KernelObject, list[ProcessKey]] | None = None
        self._inet: dict[Inode, Socket] | None = None
        self._unix: dict[Inode, Inode | None] | None = None
        self._activity: dict[Inode, Activity] | None = None
        self._blocking = remote_mounts()

    def process(self, key: ProcessKey) -> Process | None:
        """Return what the sensor knows of a process."""
        return self._known(key)

    def ends(self, key: ProcessKey) -> tuple[End, ...] | None:
        """Return the descriptors of a process that are sockets, pipes, fifos or ptys."""
        if key not in self._ends:
            self._ends[key] = self._read_ends(key)
        return self._ends[key]

    def _read_ends(self, key: ProcessKey) -> tuple[End, ...] | None:
        folder = f"/proc/{key.pid}/fd"
        try:
            numbers = sorted(map(int, os.listdir(folder)))[:DESCRIPTOR_LIMIT]
        except OSError:
            return None
        return tuple(end for number in numbers if (end := self._end(key.pid, folder, number)))

    def _end(self, pid: int, folder: str, number: int) -> End | None:
        path = f"{folder}/{number}"
        target = reader.link(path)
        if target is None:
            return None
        found = self._object(pid, number, path, target)
        if found is None:
            return None
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            return None
        return End(number, found, bool(mode & modes.S_IRUSR), bool(mode & modes.S_IWUSR))

    def _object(self, pid: int, number: int, path: str, target: str) -> KernelObject | None:
        if match := _NUMBERED.match(target):
            kind = ObjectKind.SOCKET if match.group(1) == "socket" else ObjectKind.PIPE
            return KernelObject(kind, int(match.group(2)))
        if not target.startswith("/"):
            return None
        if target.startswith("/dev/"):
            return _terminal(pid, number, target) or (None if target == "/dev/null" else self._fifo(path, target))
        return self._fifo(path, target)

    def _fifo(self, path: str, target: str) -> KernelObject | None:
        if target.startswith(self._blocking):
            return None
        try:
            info = os.stat(path)
        except OSError:
            return None
        if modes.S_ISFIFO(info.st_mode):
            return KernelObject(ObjectKind.FIFO, info.st_ino, info.st_dev)
        return None

    def holders(self, target: KernelObject) -> Iterator[ProcessKey]:
        """Yield every process of ours that holds the object."""
        if self._index is None:
            self._index = {}
            for key in self._keys():
                for found in {end.object for end in self.ends(key) or ()}:
                    self._index.setdefault(found, []).append(key)
        yield from self._index.get(target, ())

    def socket(self, inode: Inode, holder: ProcessKey) -> Socket | None:
        """Return what the tables say of a socket; those of the holder's network namespace where it has another."""
        if self._inet is None:
            self._inet = sockets.inet_sockets()
        if inode in self._inet:
            return self._inet[inode]
        if self._unix is None:
            self._unix = sockets.unix_sockets()
        if inode in self._unix:
            return Socket(inode=inode, family=Family.UNIX, peer=self._unix[inode])
        namespace = reader.link(f"/proc/{holder.pid}/ns/net")
        if namespace is None or namespace == sockets.own_namespace():
            return None
        return sockets.inet_sockets(holder.pid).get(inode)

    def activity(self, inode: Inode) -> Activity | None:
        """Return when a TCP connection last carried bytes."""
        if self._activity is None:
            self._activity = sockets.tcp_activity()
        return self._activity.get(inode)

    def image(self, key: ProcessKey) -> str | None:
        """Return the interpreter that a process runs, by name or by content."""
        known = self._known(key)
        return self._images.kind(key.pid, known.exe if known else None)

    def awaits_input(self, key: ProcessKey) -> bool | None:
        """Return whether the main thread sleeps in a read of descriptor 0."""
        call = reader.read_bytes(f"/proc/{key.pid}/syscall", 256)
        if call:
            number, _, rest = call.partition(b" ")
            if os.uname().machine == "aarch64":
                return number in READ_CALLS_AARCH64 and (number != b"63" or rest.startswith(b"0x0 "))
            return number in READ_CALLS and (number != b"0" or rest.startswith(b"0x0 "))
        channel = reader.read_bytes(f"/proc/{key.pid}/wchan", 128)
        if not channel or channel == b"0":
            return None
        return bool(_SLEEPS_IN_READ.search(channel))


def _terminal(pid: int, number: int, target: str) -> KernelObject | None:
    if target.startswith("/dev/pts/"):
        name = target.removeprefix("/dev/pts/").removesuffix(" (deleted)")
        if name.isdigit():
            return KernelObject(ObjectKind.PTY_SLAVE, int(name))
        if name != "ptmx":
            return None
    elif target == "/dev/tty":
        place = reader.stat(pid)
        terminal = reader.terminal_name(place.tty) if place else None
        if terminal and terminal.startswith("pts/"):
            return KernelObject(ObjectKind.PTY_SLAVE, int(terminal.removeprefix("pts/")))
        return None
    elif target != "/dev/ptmx":
        return None
    for line in (reader.read_bytes(f"/proc/{pid}/fdinfo/{number}", 4096) or b"").splitlines():
        if line.startswith(b"tty-index:"):
            return KernelObject(ObjectKind.PTY_MASTER, int(line.split()[1]))
    return None

"""The running system as an `ObjectView`: descriptors, holders and sockets, each read at most once a look.

A view is a look at one moment. Detection makes one, asks it everything it needs within milliseconds and drops it.
"""

from __future__ import annotations

import os
import re
import select
import stat as modes
import threading
from collections.abc import Callable, Iterable, Iterator

from nbsentinel.context.objects import Activity, End, Family, KernelObject, ObjectKind, Socket
from nbsentinel.events import Inode, Process, ProcessKey
from nbsentinel.sensors.procfs import reader, sockets
from nbsentinel.sensors.procfs.images import ImageCache

DESCRIPTOR_LIMIT = 4096
"""Descriptors looked at in one process; a process with more has its first ones looked at."""
MAPS_LIMIT = 4 * 1024 * 1024
_NUMBERED = re.compile(r"(socket|pipe):\[(\d+)\]$")
_SLEEPS_IN_READ = re.compile(rb"pipe_read|n_tty_read|wait_woken|unix_stream_read_generic|sk_wait_data|tcp_recvmsg|recv")
_REMOTE_FILESYSTEMS = ("nfs", "cifs", "smb", "fuse", "9p", "lustre", "ceph", "afs", "glusterfs", "virtiofs")
READ_CALLS = (b"0", b"7", b"17", b"19", b"23", b"45", b"270", b"271")
"""x86_64 numbers of read, poll, pread64, readv, select, recvfrom, pselect6, ppoll (asm/unistd_64.h)."""
READ_CALLS_AARCH64 = (b"63", b"65", b"67", b"72", b"73", b"207")


class _Mounts:
    """Which mount points are remote; read again when the kernel says that mounts have changed (proc_pid_mounts(5)).

    Looks are made in the sensor's thread and for detection: only one may poll at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._poll: select.poll | None = None
        self._remote: tuple[str, ...] = ()

    def remote(self) -> tuple[str, ...]:
        with self._lock:
            return self._current()

    def _current(self) -> tuple[str, ...]:
        if self._poll is None:
            try:
                # Kept open for as long as we live.
                table = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return _read_remote_mounts()
            self._poll = select.poll()
            self._poll.register(table, select.POLLERR | select.POLLPRI)
            self._remote = _read_remote_mounts()
        if self._poll.poll(0):
            self._remote = _read_remote_mounts()
        return self._remote


_mounts = _Mounts()


def remote_mounts() -> tuple[str, ...]:
    """Return mount points whose stat() may block on another machine or on a user's process."""
    return _mounts.remote()


def _read_remote_mounts() -> tuple[str, ...]:
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
        remembered: Returns a socket that a sensor saw connecting, which no table lists any more.
    """

    def __init__(
        self,
        known: Callable[[ProcessKey], Process | None],
        images: ImageCache,
        keys: Callable[[], Iterable[ProcessKey]],
        remembered: Callable[[Inode], Socket | None] = lambda _: None,
    ) -> None:
        self._known, self._images, self._keys, self._remembered = known, images, keys, remembered
        self._ends: dict[ProcessKey, tuple[End, ...] | None] = {}
        self._index: dict[KernelObject, list[ProcessKey]] | None = None
        self._inet: dict[Inode, Socket] | None = None
        self._foreign: dict[str, dict[Inode, Socket]] = {}
        self._unix: dict[Inode, Inode | None] | None = None
        self._activity: dict[Inode, Activity] | None = None
        self._memory: dict[ProcessKey, tuple[KernelObject, ...]] = {}
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
            return self._last_ends(key)
        return tuple(end for number in numbers if (end := self._end(key.pid, folder, number)))

    def _last_ends(self, key: ProcessKey) -> tuple[End, ...] | None:
        """Return standard input and output as last seen: the process is gone, or may not be looked into any more."""
        known = self._known(key)
        if known is None:
            return None
        found = []
        for number, target in enumerate(known.stdio):
            if match := _NUMBERED.match(target or ""):
                kind = ObjectKind.SOCKET if match.group(1) == "socket" else ObjectKind.PIPE
                both = kind is ObjectKind.SOCKET
                found.append(
                    End(number, KernelObject(kind, int(match.group(2))), both or not number, both or number > 0)
                )
            elif target and (terminal := _terminal(key.pid, number, target)):
                found.append(End(number, terminal, reads=True, writes=True))
        return tuple(found) or None

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

    def holds(self, key: ProcessKey, end: End) -> bool:
        """Return whether a process still has a descriptor, looked at now."""
        return self._end(key.pid, f"/proc/{key.pid}/fd", end.fd) == end

    def holders(self, target: KernelObject) -> Iterator[ProcessKey]:
        """Yield every process of ours that holds the object."""
        if self._index is None:
            self._index = {}
            for key in self._keys():
                for found in {end.object for end in self.ends(key) or ()}:
                    self._index.setdefault(found, []).append(key)
        yield from self._index.get(target, ())

    def socket(self, inode: Inode, holder: ProcessKey, *, fresh: bool = False) -> Socket | None:
        """Return what the tables say of a socket; those of the holder's network namespace where it has another."""
        if fresh:
            self._inet = self._unix = None
            self._foreign.clear()
        if self._inet is None:
            self._inet = sockets.inet_sockets()
        if inode in self._inet:
            return self._inet[inode]
        if self._unix is None:
            self._unix = sockets.unix_sockets()
        if inode in self._unix:
            return Socket(inode=inode, family=Family.UNIX, peer=self._unix[inode])
        if (gone := self._remembered(inode)) is not None:
            return gone
        namespace = reader.link(f"/proc/{holder.pid}/ns/net")
        if namespace is None or namespace == sockets.own_namespace():
            return None
        if namespace not in self._foreign:
            self._foreign[namespace] = sockets.inet_sockets(holder.pid)
        return self._foreign[namespace].get(inode)

    def activity(self, inode: Inode) -> Activity | None:
        """Return when a TCP connection last carried bytes."""
        known = (self._inet or {}).get(inode)
        if self._activity is None and known is not None and (found := sockets.activity_of(known)) is not None:
            return found
        if self._activity is None:
            self._activity = sockets.tcp_activity()
        return self._activity.get(inode)

    def heard(self, since: int) -> Iterator[Socket]:
        """Yield the TCP connections of our network namespace on which something came since a moment."""
        if self._activity is None:
            self._activity = sockets.tcp_activity()
        recent = [inode for inode, moved in self._activity.items() if moved.received >= since and moved.segments_in]
        if recent and self._inet is None:
            self._inet = sockets.inet_sockets()
        yield from (found for inode in recent if (found := (self._inet or {}).get(inode)) is not None)

    def parent(self, key: ProcessKey) -> ProcessKey | None:
        """Return the present parent of a living process."""
        place = reader.stat(key.pid)
        above = reader.stat(place.ppid) if place and place.key == key and place.ppid else None
        return above.key if above else None

    def memory(self, key: ProcessKey) -> tuple[KernelObject, ...]:
        """Return the writable shared mappings of a process: `rw-s` in its maps, see proc_pid_maps(5)."""
        if key not in self._memory:
            self._memory[key] = tuple(_mapped(reader.read_bytes(f"/proc/{key.pid}/maps", MAPS_LIMIT) or b""))
        return self._memory[key]

    def sharers(self, target: KernelObject) -> Iterator[ProcessKey]:
        """Yield every process of ours that maps the same memory."""
        yield from (key for key in self._keys() if target in self.memory(key))

    def image(self, key: ProcessKey) -> str | None:
        """Return the interpreter that a process runs, by name or by content."""
        known = self._known(key)
        return self._images.kind(key.pid, known.exe if known else None)

    def lives(self, key: ProcessKey) -> bool:
        """Return whether this very process still runs."""
        return reader.is_alive(key)

    def awaits_input(self, key: ProcessKey, fd: int = 0) -> bool | None:
        """Return whether the main thread sleeps in a read of a descriptor, or in a wait for several."""
        call = reader.read_bytes(f"/proc/{key.pid}/syscall", 256)
        if call:
            number, _, rest = call.partition(b" ")
            if os.uname().machine == "aarch64":
                return number in READ_CALLS_AARCH64 and (number != b"63" or rest.startswith(b"0x%x " % fd))
            return number in READ_CALLS and (number != b"0" or rest.startswith(b"0x%x " % fd))
        channel = reader.read_bytes(f"/proc/{key.pid}/wchan", 128)
        if not channel or channel == b"0":
            return None
        return bool(_SLEEPS_IN_READ.search(channel))


def _mapped(maps: bytes) -> Iterator[KernelObject]:
    seen = set()
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) < 6 or fields[1][1:2] != b"w" or fields[1][3:4] != b"s" or fields[5].startswith(b"/dev/dri"):
            continue
        major, _, minor = fields[3].partition(b":")
        found = KernelObject(ObjectKind.MEMORY, int(fields[4]), os.makedev(int(major, 16), int(minor, 16)))
        if found not in seen:
            seen.add(found)
            yield found


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

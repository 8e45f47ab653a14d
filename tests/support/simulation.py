"""An operating system in memory: processes, sockets, pipes and terminals that a test can bend as it likes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from nbsentinel.context.objects import Activity, End, Family, KernelObject, ObjectKind, Socket
from nbsentinel.events import Endpoint, Exec, Inode, KernelInfo, Millis, Process, ProcessKey

ATTACKER = Endpoint("203.0.113.7", 4444)
HERE = Endpoint("192.0.2.10", 50000)


class System:
    """Implements `ObjectView` on what the test built."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1000)
        self.processes: dict[ProcessKey, Process] = {}
        self.descriptors: dict[ProcessKey, dict[int, End]] = {}
        self.sockets: dict[Inode, Socket] = {}
        self.moved: dict[Inode, Activity] = {}
        self.images: dict[ProcessKey, str | None] = {}
        self.reading: set[ProcessKey] = set()
        self.unreadable: set[ProcessKey] = set()
        self.younger: set[Inode] = set()
        """Sockets that were made after the tables had been read."""
        self.ended: set[ProcessKey] = set()
        """Processes that end right after their descriptors were read."""
        self.mapped: dict[ProcessKey, tuple[KernelObject, ...]] = {}

    def start(
        self,
        *argv: str,
        parent: ProcessKey | None = None,
        image: str | None = None,
        tty: str | None = None,
        kernel: KernelInfo | None = None,
    ) -> ProcessKey:
        """Start a process without any descriptors and return its key."""
        pid = next(self._numbers)
        key = ProcessKey(pid, pid * 10)
        self.processes[key] = Process(
            key=key,
            parent=parent,
            name=argv[0].rpartition("/")[2][:15],
            exe=argv[0],
            argv=argv,
            argv_length=sum(len(a) + 1 for a in argv),
            session=pid if tty else 0,
            tty=tty,
            started=Millis(pid),
            kernel=kernel,
        )
        self.descriptors[key] = {}
        self.images[key] = image
        return key

    def executed(self, key: ProcessKey, at: int = 0) -> Exec:
        """Return the observation of a process, with its standard streams as they are now."""
        from msgspec.structs import replace

        ends = self.descriptors[key]
        names = tuple(_name(ends.get(fd)) for fd in (0, 1, 2))
        self.processes[key] = replace(self.processes[key], stdio=names)
        return Exec(at=Millis(at), process=self.processes[key], source="simulation")

    def hold(self, key: ProcessKey, fd: int, target: KernelObject, *, reads: bool = True, writes: bool = True) -> None:
        """Give a process a descriptor."""
        self.descriptors[key][fd] = End(fd, target, reads, writes)

    def stdio(self, key: ProcessKey, source: KernelObject, sink: KernelObject) -> None:
        """Give a process its standard input, and one object for its output and error."""
        self.hold(key, 0, source)
        self.hold(key, 1, sink)
        self.hold(key, 2, sink)

    def pipe(self) -> KernelObject:
        """Make a pipe."""
        return KernelObject(ObjectKind.PIPE, next(self._numbers))

    def fifo(self) -> KernelObject:
        """Make a named pipe."""
        return KernelObject(ObjectKind.FIFO, next(self._numbers), 7)

    def pty(self) -> tuple[KernelObject, KernelObject]:
        """Make a pseudo terminal and return its master and its slave."""
        number = next(self._numbers)
        return KernelObject(ObjectKind.PTY_MASTER, number), KernelObject(ObjectKind.PTY_SLAVE, number)

    def connection(
        self,
        remote: Endpoint | None = ATTACKER,
        local: Endpoint = HERE,
        protocol: str = "tcp",
        *,
        listening: bool = False,
    ) -> KernelObject:
        """Make an internet socket."""
        inode = Inode(next(self._numbers))
        self.sockets[inode] = Socket(
            inode=inode, family=Family.INET, protocol=protocol, local=local, remote=remote, listening=listening
        )
        return KernelObject(ObjectKind.SOCKET, inode)

    def pair(self, family: Family = Family.UNIX) -> tuple[KernelObject, KernelObject]:
        """Make two sockets that are each other's peer."""
        one, two = Inode(next(self._numbers)), Inode(next(self._numbers))
        ends = (Endpoint("127.0.0.1", one), Endpoint("127.0.0.1", two)) if family is Family.INET else (None, None)
        for inode, peer, local, remote in ((one, two, *ends), (two, one, *reversed(ends))):
            protocol = "tcp" if family is Family.INET else ""
            self.sockets[inode] = Socket(
                inode=inode, family=family, protocol=protocol, local=local, remote=remote, peer=peer
            )
        return KernelObject(ObjectKind.SOCKET, one), KernelObject(ObjectKind.SOCKET, two)

    def unlisted_socket(self) -> KernelObject:
        """Make a socket that no table lists."""
        return KernelObject(ObjectKind.SOCKET, next(self._numbers))

    # ObjectView

    def process(self, key: ProcessKey) -> Process | None:
        return self.processes.get(key)

    def ends(self, key: ProcessKey) -> tuple[End, ...] | None:
        if key in self.unreadable:
            return None
        return tuple(self.descriptors.get(key, {}).values())

    def holds(self, key: ProcessKey, end: End) -> bool:
        return key not in self.ended and end in (self.ends(key) or ())

    def holders(self, target: KernelObject) -> Iterator[ProcessKey]:
        for key in self.descriptors:
            if any(end.object == target for end in self.ends(key) or ()):
                yield key

    def socket(self, inode: Inode, holder: ProcessKey, *, fresh: bool = False) -> Socket | None:
        if inode in self.younger and not fresh:
            return None
        return self.sockets.get(inode)

    def activity(self, inode: Inode) -> Activity | None:
        return self.moved.get(inode)

    def heard(self, since: int) -> Iterator[Socket]:
        for inode, moved in self.moved.items():
            if moved.received >= since and moved.segments_in and inode in self.sockets:
                yield self.sockets[inode]

    def parent(self, key: ProcessKey) -> ProcessKey | None:
        process = self.processes.get(key)
        return process.parent if process else None

    def memory(self, key: ProcessKey) -> tuple[KernelObject, ...]:
        return self.mapped.get(key, ())

    def sharers(self, target: KernelObject) -> Iterator[ProcessKey]:
        yield from (key for key, objects in self.mapped.items() if target in objects)

    def image(self, key: ProcessKey) -> str | None:
        return self.images.get(key)

    def lives(self, key: ProcessKey) -> bool:
        return key not in self.ended and bool(self.ends(key))

    def awaits_input(self, key: ProcessKey, fd: int = 0) -> bool | None:
        return key in self.reading


def _name(end: End | None) -> str | None:
    if end is None:
        return None
    return {ObjectKind.PTY_SLAVE: "/dev/pts/", ObjectKind.FIFO: "/tmp/fifo"}.get(
        end.object.kind, f"{end.object.kind.value}:["
    ) + (
        ""
        if end.object.kind is ObjectKind.FIFO
        else f"{end.object.number}" + ("" if end.object.kind is ObjectKind.PTY_SLAVE else "]")
    )


class EveryPeer:
    """The plainest policy: every peer is remote, nothing is trusted."""

    def is_remote(self, socket: Socket) -> bool:
        return socket.remote is not None and not socket.remote.ip.startswith("127.")

    def trusts(self, holder: ProcessKey, target: KernelObject, socket: Socket | None) -> bool:
        return False

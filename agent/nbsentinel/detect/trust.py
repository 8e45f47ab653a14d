"""Whose edges are trusted: the Jupyter server's terminals, the kernels' ZeroMQ ports, brokers an admin registered.

Trust belongs to an edge (this process moves bytes through that object), never to a process: any other socket of the
Jupyter server is a relay like any other. There is at most one Jupyter server; it is found by what it does (it holds a
listening socket and is the parent of kernels, or is a Jupyter server program), the earliest one wins for as long as it
lives; nothing at or below a kernel can be it. A program that is no known server but the parent of kernels (a test
driver, a scheduler) stands back behind a known one. Code of the same user can imitate all this before the server
starts; docs/threat-model.md says so.
"""

from __future__ import annotations

import fnmatch
import ipaddress
from collections.abc import Sequence

import msgspec

from nbsentinel.context.objects import KernelObject, ObjectKind, ObjectView, Socket
from nbsentinel.context.processes import ProcessTable
from nbsentinel.context.runs import looks_like_server
from nbsentinel.events import Inode, Process, ProcessKey


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A process that an admin trusts to hold terminals for its users, known by its file and arguments."""

    exe: str
    """Glob on the path of the running file."""
    argv: tuple[str, ...] = ()
    """Globs that match the arguments after the first, in this order, others may stand between."""

    def matches(self, process: Process) -> bool:
        """Return whether a process is this broker."""
        if not process.exe or not fnmatch.fnmatchcase(process.exe, self.exe):
            return False
        rest = iter(process.argv[1:])
        return all(any(fnmatch.fnmatchcase(arg, glob) for arg in rest) for glob in self.argv)


def is_loopback(ip: str) -> bool:
    """Return whether a numeric address never leaves the machine."""
    try:
        return ipaddress.ip_address(ip).is_loopback
    except ValueError:
        return False


class Trust:
    """The policy of dataflow: what is remote, what is trusted.

    Args:
        table: The process table.
        loopback_is_remote: Count peers on this machine as remote; for demos and tests.
        brokers: Terminal brokers that an admin registered.
    """

    def __init__(self, table: ProcessTable, *, loopback_is_remote: bool, brokers: Sequence[Broker]) -> None:
        self._table = table
        self._loopback_is_remote = loopback_is_remote
        self._brokers = tuple(brokers)
        self._ports: dict[int, ProcessKey] = {}
        self.server: ProcessKey | None = None
        self.second_claims: set[ProcessKey] = set()

    def refresh(self, view: ObjectView) -> None:
        """Look again for kernels' ports and for the Jupyter server; call before judging with a new view."""
        kernels = [process for process in self._table.live() if process.kernel]
        self._ports = {}
        for kernel in kernels:
            assert kernel.kernel is not None
            self._ports.update(dict.fromkeys(self._listened(view, kernel) & set(kernel.kernel.ports), kernel.key))
        if self.server is not None and not self._table.is_live(self.server):
            self.server = None
        self._find_server(view, {kernel.parent for kernel in kernels})

    def _find_server(self, view: ObjectView, parents: set[ProcessKey | None]) -> None:
        """Choose the earliest server program that listens; where there is none, the earliest parent of a kernel."""
        listening = sorted(
            (
                process
                for process in self._table.live()
                if (process.key in parents or looks_like_server(process))
                and not self._is_in_kernel(process)
                and self._listened(view, process)
            ),
            key=lambda process: process.key.start,
        )
        programs = [process.key for process in listening if looks_like_server(process)]
        if programs and self.server not in programs:
            self.server = programs[0]
        elif self.server is None and listening:
            self.server = listening[0].key
        self.second_claims |= {key for key in programs if key != self.server}

    def _is_in_kernel(self, process: Process) -> bool:
        """Return whether a process is a kernel or below one: a fork of a kernel makes the kernel a kernel's parent."""
        return any(one.kernel is not None for one in (process, *self._table.lineage(process.key)))

    def _listened(self, view: ObjectView, process: Process) -> set[int]:
        ports = set()
        for end in view.ends(process.key) or ():
            if end.object.kind is ObjectKind.SOCKET:
                found = view.socket(Inode(end.object.number), process.key)
                if found and found.listening and found.local:
                    ports.add(found.local.port)
        return ports

    def is_remote(self, socket: Socket) -> bool:
        """Return whether a connected socket's peer is another machine, or counts as one."""
        if socket.remote is None:
            return False
        return self.is_elsewhere(socket.remote.ip) and (socket.peer is None or self._loopback_is_remote)

    def is_elsewhere(self, ip: str) -> bool:
        """Return whether an address is another machine's, or counts as one."""
        return self._loopback_is_remote or not is_loopback(ip)

    def trusts(self, holder: ProcessKey, target: KernelObject, socket: Socket | None) -> bool:
        """Return whether bytes that this holder moves through this object are the user's own."""
        if socket is not None:
            return self._is_kernel_channel(holder, socket)
        process = self._table.get(holder)
        if process is None:
            return False
        if target.kind is ObjectKind.PTY_MASTER:
            return self._is_users_terminal(process, target.number)
        return target.kind is ObjectKind.PIPE and holder == self.server

    def _is_kernel_channel(self, holder: ProcessKey, socket: Socket) -> bool:
        if socket.local is None or socket.remote is None or not is_loopback(socket.remote.ip):
            return False
        return self._ports.get(socket.local.port) == holder or socket.remote.port in self._ports

    def _is_users_terminal(self, holder: Process, index: int) -> bool:
        if any(broker.matches(holder) for broker in self._brokers):
            return True
        if holder.key != self.server:
            return False
        return any(
            child.tty == f"pts/{index}" and child.session == child.key.pid for child in self._table.children(holder.key)
        )

"""Holds every listener and lets no caller wait: takes listeners in, runs the supervisor, finishes what it leaves.

One thread and one loop. While listeners are held it looks every few milliseconds whether anything waits for an answer
too long; a supervisor that was stopped is resumed, one that is dead or hangs is replaced. It lives on when the agent
ends, for as long as anything guarded runs, and takes the next agent in.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import socket
import sys
import time

from nbsentinel_guard import abi, evidence, seccomp, supervisor, wire
from nbsentinel_guard.slots import CLAIM_SIZE, COUNT, LANES, Page, Slot

TICK_S = 0.015
PATIENCE = 3
"""Ticks that a call may stay with the supervisor: 45 ms. Its own longest hold is 20 ms."""
UNREAD_PATIENCE = 2
HANG_S = 1.0
RESTART_S = 0.2
"""Least time between two replacements of the supervisor; meanwhile callers are let go from here."""
LINGER_S = 2.0
"""How long it stays without an agent and without listeners."""


class Holder:
    """The loop.

    Args:
        run_dir: Folder of the socket.
        may_read_memory: False in tests of a kernel that refuses to read callers' memory.
    """

    def __init__(self, run_dir: str, *, may_read_memory: bool = True) -> None:
        self._may_read_memory = may_read_memory
        self._page = Page()
        self._listeners: dict[int, int] = {}
        self._next = 0
        self._not_before = 0.0
        self._seen: dict[tuple[int, int], tuple[int, int]] = {}
        self._unread: dict[int, tuple[int, int]] = {}
        self._agent: socket.socket | None = None
        self._agent_pid = 0
        self._events: socket.socket | None = None
        self._server = self._listen(run_dir)
        self._supervisor = 0
        self._control: socket.socket | None = None
        self._hung_since: float | None = None
        self._last_use = time.monotonic()
        self._start_supervisor()

    @staticmethod
    def _listen(run_dir: str) -> socket.socket:
        path = os.path.join(run_dir, wire.SOCKET_NAME)
        if os.path.exists(path):
            os.unlink(path)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        server.bind(wire.address(run_dir))
        server.listen(64)
        return server

    # The supervisor

    def _start_supervisor(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = os.fork()
        if child == 0:
            ours.close()
            self._server.close()
            for connection in (self._agent, self._control):
                if connection is not None:
                    connection.close()
            for listener in self._listeners.values():
                os.close(listener)
            supervisor.main(self._page, theirs, may_read_memory=self._may_read_memory)
        theirs.close()
        if self._control is not None:
            self._control.close()
        ours.settimeout(0.5)
        self._control, self._supervisor, self._hung_since = ours, child, None
        if self._events is not None:
            self._hand(b"agent %d" % self._agent_pid, self._events.fileno())
        for index, listener in self._listeners.items():
            self._hand(b"listener %d" % index, listener)

    def _look_after_supervisor(self) -> None:
        if not self._supervisor:
            if time.monotonic() >= self._not_before:
                self._start_supervisor()
            return
        pid, status = os.waitpid(self._supervisor, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return
        if os.WIFSTOPPED(status):
            os.kill(pid, signal.SIGCONT)
            self._tell({"kind": "notice", "what": "supervisor resumed", "why": "it was stopped by a signal"})
            return
        self._finish_all()
        self._supervisor = 0
        now = time.monotonic()
        if now >= self._not_before:
            self._start_supervisor()
        self._not_before = now + RESTART_S
        why = "signal %d" % os.WTERMSIG(status) if os.WIFSIGNALED(status) else "exit"
        self._tell({"kind": "notice", "what": "supervisor replaced", "why": f"it ended by {why}"})

    def _finish_all(self) -> None:
        """Answer and tell whatever a dead supervisor has left in its slots."""
        for index, listener in self._listeners.items():
            for slot in self._page.slots_of(index):
                if slot.call.id:
                    self._recover(index, slot.call, slot.claim_bytes() or _claim(slot.call))
                    if not slot.answered:
                        seccomp.let_go(listener, slot.call.id)
                slot.clear()

    def _recover(self, index: int, call: seccomp.Notification, claim: bytes) -> None:
        """Tell the agent of a call that the supervisor did not tell, as far as it is still known."""
        pid = evidence.leader(call.pid)
        where = evidence.place(pid)
        event = {"kind": "recovered", "pid": pid, "start": where[0] if where else 0, "number": call.data.nr}
        event.update(call="%d:%d" % (index, call.id), at=time.time_ns() // 1000000)
        remote = evidence.endpoint(claim)
        if remote:
            event["ip"], event["port"] = remote
        self._tell(event)

    def _tell(self, event: dict[str, object]) -> None:
        if self._events is None:
            return
        try:
            message = json.dumps(event, separators=(",", ":")).encode()
            self._events.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass

    # Callers that wait

    def _look_after_callers(self) -> None:
        stuck = False
        for index, listener in self._listeners.items():
            for lane, slot in enumerate(self._page.slots_of(index)):
                stuck = self._is_stuck(listener, (index, lane), slot) or stuck
        self._judge_supervisor(stuck=stuck)
        self._look_after_unread()

    def _is_stuck(self, listener: int, place: tuple[int, int], slot: Slot) -> bool:
        """Return whether a call stays with the supervisor for too long; its caller is let go then."""
        call = slot.call.id
        identity, ticks = self._seen.get(place, (0, 0))
        ticks = ticks + 1 if call and call == identity else 0
        self._seen[place] = call, ticks
        if ticks == PATIENCE and not slot.answered and seccomp.let_go(listener, call):
            number = slot.call.data.nr
            self._tell({"kind": "notice", "what": "caller let go", "why": "no answer to call %d" % number})
        return ticks >= PATIENCE

    def _judge_supervisor(self, *, stuck: bool) -> None:
        if not stuck:
            self._hung_since = None
            return
        now = time.monotonic()
        if self._hung_since is None:
            self._hung_since = now
        elif now - self._hung_since > HANG_S and self._supervisor:
            os.kill(self._supervisor, signal.SIGKILL)

    def _look_after_unread(self) -> None:
        poll = select.poll()
        by_descriptor = {}
        for index, listener in self._listeners.items():
            by_descriptor[listener] = index
            poll.register(listener, select.POLLIN)
        waiting = {}
        for descriptor, events in poll.poll(0):
            index = by_descriptor[descriptor]
            if events & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                self._forget(index)
            elif events & select.POLLIN:
                progress, ticks = self._unread.get(index, (0, 0))
                now = sum(slot.progress for slot in self._page.slots_of(index))
                ticks = ticks + 1 if now == progress else 1
                waiting[index] = now, ticks
                if ticks > UNREAD_PATIENCE:
                    self._take_over(index, descriptor)
        self._unread = waiting

    def _take_over(self, index: int, listener: int) -> None:
        """Answer everything that waits at a listener whose thread does not read."""
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        call = seccomp.Notification()
        where = ctypes.addressof(call)
        for _ in range(64):
            if not poll.poll(0):
                return
            ctypes.memset(where, 0, abi.NOTIF_SIZE)
            if seccomp.receive(listener, where) or not call.id:
                return
            self._recover(index, call, _claim(call))
            seccomp.let_go(listener, call.id)

    def _forget(self, index: int) -> None:
        listener = self._listeners.pop(index, None)
        if listener is not None:
            os.close(listener)
        for lane in range(LANES):
            self._seen.pop((index, lane), None)
        self._last_use = time.monotonic()

    # Those who come

    def _accept(self) -> None:
        connection, _ = self._server.accept()
        with connection:
            connection.settimeout(0.5)
            if wire.peer(connection)[1] != os.getuid():
                return
            message, descriptors = wire.receive(connection)
            word = message.split(b" ")
            if word[0] == b"guard" and len(descriptors) == 1:
                self._take(descriptors[0])
                connection.send(b"ok")
            elif word[0] == b"agent":
                self._welcome(connection)
            else:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _take(self, listener: int) -> None:
        turn = range(self._next, self._next + COUNT)
        free = next((index % COUNT for index in turn if index % COUNT not in self._listeners), None)
        if free is None:
            raise OSError(errno.EMFILE, "too many listeners")
        self._next = free + 1
        for slot in self._page.slots_of(free):
            slot.clear()
        self._listeners[free] = listener
        self._hand(b"listener %d" % free, listener)

    def _hand(self, message: bytes, descriptor: int) -> None:
        """Give the supervisor a descriptor; one that is dead gets everything when it is replaced."""
        if self._control is None:
            return
        try:
            wire.send(self._control, message, [descriptor])
        except OSError:
            pass

    def _welcome(self, connection: socket.socket) -> None:
        """Take an agent in, if there is none: it gets one end of a socket, the supervisor the other."""
        pid, _ = wire.peer(connection)
        if self._agent is not None or not _is_outside(pid):
            connection.send(b"no")
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        wire.send(connection, b"ok %d %d" % (os.getpid(), self._supervisor), [theirs.fileno()])
        theirs.close()
        self._events, self._agent_pid = ours, pid
        self._hand(b"agent %d" % pid, ours.fileno())
        self._agent = connection.dup()

    def _agent_left(self) -> None:
        for connection in (self._agent, self._events):
            if connection is not None:
                connection.close()
        self._agent = self._events = None
        self._agent_pid = 0
        self._last_use = time.monotonic()

    def run(self) -> None:
        """Serve until there is neither an agent nor anything guarded."""
        while True:
            watched = [self._server] + ([self._agent] if self._agent is not None else [])
            ready, _, _ = select.select(watched, [], [], TICK_S if self._listeners else LINGER_S)
            for one in ready:
                try:
                    self._ready(one)
                except OSError as error:
                    self._tell({"kind": "notice", "what": "holder", "why": str(error)})
            self._look_after_supervisor()
            if self._listeners:
                self._look_after_callers()
            elif self._agent is None and time.monotonic() - self._last_use >= LINGER_S:
                return

    def _ready(self, one: socket.socket) -> None:
        if one is self._server:
            self._accept()
        elif one is self._agent:
            self._agent_left()


def _claim(call: seccomp.Notification) -> bytes:
    """Return the socket address that a waiting connect points to."""
    if call.data.nr != abi.calls()["connect"]:
        return b""
    buffer = ctypes.create_string_buffer(CLAIM_SIZE)
    length = min(int(call.data.args[2]) & 0xFFFFFFFF, CLAIM_SIZE)
    got = evidence.Memory().copy(call.pid, call.data.args[1], ctypes.addressof(buffer), length)
    return buffer.raw[:got]


def _is_outside(pid: int) -> bool:
    """Return whether a process has no more filters than we have: what is guarded may not claim to be the agent."""

    def filters(one: int | str) -> int:
        data = evidence.read_file(f"/proc/{one}/status", 4096) or b""
        _, found, rest = data.partition(b"\nSeccomp_filters:")
        return int(rest.split(None, 1)[0]) if found else 0

    return filters(pid) <= filters("self")


def main(arguments: list[str]) -> int:
    """Run the holder: RUN_DIR [--no-memory]."""
    run_dir = arguments[0]
    if not wire.is_private(run_dir):
        sys.stderr.write(f"nbsentinel guard: {run_dir} is missing or not private\n")
        return 2
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    seccomp.forbid_dumps()
    holder = Holder(run_dir, may_read_memory="--no-memory" not in arguments)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    holder.run()
    os.unlink(os.path.join(run_dir, wire.SOCKET_NAME))
    os._exit(0)

"""Holds every listener and lets no caller wait: takes listeners in, runs the supervisor, finishes what it leaves.

One thread and one loop, above the supervisor: it learns of its stops and its end from the kernel, and a replacement
inherits every listener. It lives on when the agent ends, for as long as anything guarded runs, and takes the next agent
in. A holder that is killed is replaced by the next, which is given everything by the agent or by the supervisor.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
import time

from nbsentinel_guard import evidence, proc, records, seccomp, supervisor, wire
from nbsentinel_guard.caretaker import HANG_S, IDLE_TICK_S, TICK_S, Caretaker
from nbsentinel_guard.offspring import ROLES, Offspring
from nbsentinel_guard.page import AGENT, COUNT, HOLDER, Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict

RESTART_S = 0.2
"""Least time between two replacements of the supervisor; meanwhile callers are looked after from here."""
LOOK_S = 1.0
"""How often the kernel is asked about the supervisor without being told of it."""
PENDING_LIMIT, PENDING_S = 64, 2.0
"""Callers that are being served at once, and how long one may take; the oldest must go for a new one."""
REST_AFTER_S = 1.0
"""How long nothing must have been called before it rests: then it looks once a second, until somebody takes a call."""
LINGER_S = 2.0
"""How long it stays without an agent and without listeners."""
SETTINGS = b"connect=auto terminals=1 server=0"
"""What launchers are told until an agent says otherwise."""
HOLDER_ROLE, SUPERVISOR_ROLE, AGENT_ROLE, KEEPER_ROLE = range(4)


class Holder:
    """The loop.

    Args:
        run_dir: Folder of the socket.
        may_read_memory: False in tests of a kernel that refuses to read callers' memory.
    """

    def __init__(self, run_dir: str, *, may_read_memory: bool = True) -> None:
        self._run_dir, self._may_read_memory = run_dir, may_read_memory
        self._page = Page()
        self._page.introduce(HOLDER_ROLE, os.getpid())
        self._wake_read, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for ring in self._page.rings:
            ring.wake = wake
        roused, self._page.rouser = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._roused = roused
        self._care = Caretaker(self._page, self._notice, may_read_memory=may_read_memory)
        self._next = 0
        self._not_before = 0.0
        self._settings = SETTINGS
        self._agent: socket.socket | None = None
        self._server = self._listen()
        self._path = os.path.join(run_dir, wire.SOCKET_NAME)
        self._own_inode = os.stat(self._path).st_ino
        self._supervisor = 0
        self._control: socket.socket | None = None
        self._signals, ours = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGCHLD, signal.SIGIO):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
        self._pending: dict[int, tuple[socket.socket, float]] = {}
        self._poll = select.poll()
        for descriptor in (self._server.fileno(), self._signals, self._roused):
            self._poll.register(descriptor, select.POLLIN)
        self._last_use = self._asked = self._last_call = time.monotonic()
        self._progress = 0
        self._offspring = Offspring(self._page, self._notice, self._leave)
        self._start_supervisor()

    def _listen(self) -> socket.socket:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        name = "%s.%d" % (wire.SOCKET_NAME, os.getpid())
        path = wire.address(self._run_dir, name)
        server.bind(path)
        wire.release(path)
        server.listen(PENDING_LIMIT)
        server.settimeout(0)
        # In place of an older one at once: a launcher never finds nobody.
        os.rename(os.path.join(self._run_dir, name), os.path.join(self._run_dir, wire.SOCKET_NAME))
        return server

    def _notice(self, what: bytes, why: bytes) -> None:
        who = records.Who(time.time_ns() // 1000000, 0, 0, 0, 0)
        self._page.rings[HOLDER].put(records.NOTICE, 0, records.told(who, what, why))

    # The supervisor

    def _start_supervisor(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = os.fork()
        if child == 0:
            self._page.introduce(SUPERVISOR_ROLE, os.getpid())  # by itself: nobody may end before it is known
            signal.set_wakeup_fd(-1)
            ours.close()
            self._leave()
            supervisor.main(self._page, theirs, self._run_dir, may_read_memory=self._may_read_memory)
        theirs.close()
        if self._control is not None:
            self._control.close()
        ours.settimeout(0.5)
        self._control, self._supervisor = ours, child
        self._page.introduce(SUPERVISOR_ROLE, child)
        for index, (listener, description) in self._care.listeners.items():
            self._hand(index, listener, description)

    def _leave(self) -> None:
        """Close, in a child, what is ours alone."""
        for one in (self._server, self._agent, self._control, *(c for c, _ in self._pending.values())):
            if one is not None:
                one.close()
        for listener, _ in self._care.listeners.values():
            os.close(listener)
        os.close(self._wake_read)

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
            self._notice(b"stopped", b"the supervisor was stopped by signal %d and resumed" % os.WSTOPSIG(status))
            return
        self._page.introduce(SUPERVISOR_ROLE, 0)
        self._supervisor = 0
        self._care.finish()
        now = time.monotonic()
        if now >= self._not_before:
            self._start_supervisor()
        self._not_before = now + RESTART_S
        how = b"by signal %d" % os.WTERMSIG(status) if os.WIFSIGNALED(status) else b"by itself"
        self._notice(b"killed", b"the supervisor ended %s and was replaced" % how)

    def _look_after_callers(self) -> None:
        for index in self._care.look():
            self._forget(index)
        if self._supervisor and self._care.hung_for() > HANG_S:
            self._notice(b"hung", b"the supervisor did not answer and is replaced")
            os.kill(self._supervisor, signal.SIGKILL)

    def _forget(self, index: int) -> None:
        listener = self._care.remove(index)
        if listener >= 0:
            os.close(listener)
            self._say(b"gone %d" % index)
        self._last_use = time.monotonic()

    def _hand(self, index: int, listener: int, description: bytes) -> None:
        """Give the supervisor a listener; one that is dead gets everything when it is replaced."""
        try:
            if self._control is not None:
                wire.send(self._control, b"%d %s" % (index, description), [listener])
        except OSError:
            pass

    # Those who come

    def _accept(self) -> None:
        """Take in who waits; they are served as their messages come, so that one who says nothing holds up nobody."""
        for _ in range(PENDING_LIMIT):
            try:
                self._take_in(self._server.accept()[0])
            except BlockingIOError:
                return

    def _take_in(self, connection: socket.socket) -> None:
        if wire.peer(connection)[1] != os.getuid():
            connection.close()
            return
        if len(self._pending) >= PENDING_LIMIT:
            self._dismiss(next(iter(self._pending)))
        connection.settimeout(0.5)
        self._pending[connection.fileno()] = connection, time.monotonic()
        self._poll.register(connection.fileno(), select.POLLIN)

    def _dismiss(self, descriptor: int) -> None:
        connection, _ = self._pending.pop(descriptor)
        self._poll.unregister(descriptor)
        connection.close()

    def _serve(self, descriptor: int) -> None:
        """Answer one message of a caller."""
        connection, _ = self._pending[descriptor]
        pid, _ = wire.peer(connection)
        descriptors: list[int] = []
        try:
            message, descriptors = wire.receive(connection)
            if message == b"hello":
                connection.send(b"settings " + self._settings)
                return
            word, _, rest = message.partition(b" ")
            if word == b"guard" and len(descriptors) == 1:
                listener = descriptors.pop()
                if not seccomp.is_listener(listener):
                    os.close(listener)  # it would be waited at for ever
                elif self._take(listener, self._describe(pid, listener, rest)) >= 0:
                    connection.send(b"ok")
            elif word == b"agent":
                self._welcome(connection, pid, rest)
            elif word in ROLES and proc.is_outside(pid):
                self._offspring.start(word, connection)
            elif word == b"adopt" and len(descriptors) == 1 and proc.is_outside(pid):
                self._adopt(connection, int(rest), descriptors.pop())
        except OSError:
            pass  # it is gone
        for left in descriptors:
            os.close(left)
        self._dismiss(descriptor)

    @staticmethod
    def _describe(pid: int, listener: int, rest: bytes) -> bytes:
        start = evidence.identify(pid)
        wake = seccomp.wake_on_this_core(listener)
        return b"%d %d %s wake=%d" % (pid, start[1] if start else 0, rest, wake)

    def _take(self, listener: int, description: bytes) -> int:
        """Keep a listener and return its place, -1 where there are too many."""
        turn = range(self._next, self._next + COUNT)
        free = next((index % COUNT for index in turn if index % COUNT not in self._care.listeners), None)
        if free is None:
            self._notice(b"refused", b"a listener: there are %d already" % COUNT)
            os.close(listener)
            return -1
        self._next = free + 1
        for slot in self._page.slots_of(free):
            slot.clear()
        self._care.add(free, listener, description)
        # The agent first: should we end now, it can finish what the supervisor has begun.
        self._say(b"listener %d %s" % (free, description), [listener])
        self._hand(free, listener, description)
        return free

    def _adopt(self, connection: socket.socket, count: int, descriptor: int) -> None:
        """Take over from a holder that is dead: its listeners, what it had not told, and what it owed its callers."""
        page = Page(descriptor)
        old = Caretaker(page, self._notice, may_read_memory=self._may_read_memory)
        moved: Dict[int, int] = {}
        for _ in range(count):
            message, descriptors = wire.receive(connection)
            place, _, description = message.partition(b" ")
            old.add(int(place), os.dup(descriptors[0]), description)
            moved[int(place)] = self._take(descriptors[0], description)
        connection.send(b"ok")
        predecessor = page.who(SUPERVISOR_ROLE)
        if predecessor:
            wire.wait_for_end(connection)
        old.finish()
        for role in (HOLDER, AGENT):
            old.finish_for(role)
        for ring in page.rings:
            found, cursor = ring.read(ring.tail)
            while found:
                for kind, index, payload in found:
                    self._page.rings[HOLDER].put(kind, max(0, moved.get(index, 0)), payload)
                found, cursor = ring.read(cursor)
        for index in moved:
            os.close(old.remove(index))
        self._notice(b"killed", b"the holder ended and was replaced")

    def _welcome(self, connection: socket.socket, pid: int, settings: bytes) -> None:
        """Take an agent in, if there is none: it shares the page and holds every listener too."""
        if self._agent is not None and select.select([self._agent], [], [], 0)[0]:
            self._agent_left()
        if self._agent is not None or not proc.is_outside(pid):
            connection.send(b"no")
            return
        own, _, keeper = settings.partition(b" keeper=")
        self._settings = own or SETTINGS
        self._page.introduce(KEEPER_ROLE, int(keeper or 0))
        self._page.introduce(AGENT_ROLE, pid)
        wire.send(
            connection,
            b"ok %d %d" % (os.getpid(), self._supervisor),
            [self._page.descriptor, self._wake_read],
        )
        self._agent = connection.dup()
        self._poll.register(self._agent.fileno(), select.POLLIN)
        for index, (listener, description) in self._care.listeners.items():
            self._say(b"listener %d %s" % (index, description), [listener])
        for ring in self._page.rings:
            ring.attend(present=True)

    def _say(self, message: bytes, descriptors: tuple[int, ...] | list[int] = ()) -> None:
        try:
            if self._agent is not None:
                wire.send(self._agent, message, descriptors)
        except OSError:
            self._agent_left()

    def _agent_left(self) -> None:
        if self._agent is not None:
            self._poll.unregister(self._agent.fileno())
            self._agent.close()
        self._agent = None
        self._care.finish_for(AGENT)
        self._page.introduce(AGENT_ROLE, 0)
        self._page.introduce(KEEPER_ROLE, 0)
        for ring in self._page.rings:
            ring.attend(present=False)
        self._last_use = time.monotonic()

    def run(self) -> None:
        """Serve until there is neither an agent nor anything guarded, then take the socket away."""
        while self._care.listeners or self._agent is not None or time.monotonic() - self._last_use < LINGER_S:
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - who holds the listeners must not end by a mistake
                self._notice(b"failure", f"{type(error).__name__}: {error}".encode("utf-8", "replace"))
                time.sleep(TICK_S)
        if self._supervisor:
            os.kill(self._supervisor, signal.SIGKILL)  # it has nothing left to do; one that hangs would for ever
        if os.stat(self._path).st_ino == self._own_inode:
            os.unlink(self._path)

    def _wait(self) -> list[tuple[int, int]]:
        """Sleep until something is to be done: till the next look at the callers, or longer where there are none."""
        due = 1000 * self._offspring.due_in()
        if not self._care.listeners:
            return self._poll.poll(min(due, 1000 * LINGER_S))
        if not (self._care.is_quiet and self._may_rest()):
            return self._poll.poll(min(due, 1000 * (IDLE_TICK_S if self._care.is_quiet else TICK_S)))
        listeners = [listener for listener, _ in self._care.listeners.values()]
        for listener in listeners:
            self._poll.register(listener, select.POLLIN)
        self._page.rest()
        try:
            # Whoever took a call before the page said so has left it in a slot; whoever takes one now rouses us.
            return self._poll.poll(0 if self._care.is_busy() else min(due, 1000 * LOOK_S))
        finally:
            self._page.wake()
            for listener in listeners:
                self._poll.unregister(listener)

    def _may_rest(self) -> bool:
        """Return whether nothing was called for a while, and nobody waits to be served."""
        now, progress = time.monotonic(), self._care.progress()
        if progress != self._progress or self._pending or not self._supervisor:
            self._progress, self._last_call = progress, now
        return now - self._last_call > REST_AFTER_S

    def _turn(self) -> None:
        ready = {descriptor for descriptor, _ in self._wait()}
        self._page.beat()
        if self._roused in ready:
            os.read(self._roused, 4096)
        if self._signals in ready and signal.SIGIO in os.read(self._signals, 4096):
            self._offspring.broken()
        self._offspring.check()
        if self._agent is not None and self._agent.fileno() in ready:
            self._agent_left()
        # Of a child's stop or end the kernel tells by a signal; once a second it is asked all the same.
        now = time.monotonic()
        if self._signals in ready or not self._supervisor or now - self._asked > LOOK_S:
            self._asked = now
            self._offspring.look_after()
            self._look_after_supervisor()
        if self._care.listeners:
            self._look_after_callers()
        for descriptor in [descriptor for descriptor in self._pending if descriptor in ready]:
            self._serve(descriptor)
        for descriptor in [d for d, (_, since) in self._pending.items() if now - since > PENDING_S]:
            self._dismiss(descriptor)
        if self._server.fileno() in ready:
            self._accept()


def main(arguments: list[str]) -> int:
    """Run the holder: RUN_DIR [--no-memory]."""
    run_dir = arguments[0]
    if not wire.is_private(run_dir):
        sys.stderr.write(f"nbsentinel guard: {run_dir} is missing or not private\n")
        return 2
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    seccomp.be_hard_to_meddle_with()
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)  # the kernel tells this group, and nobody else, of whoever opens a leased file
    holder = Holder(run_dir, may_read_memory="--no-memory" not in arguments)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    holder.run()
    os._exit(0)

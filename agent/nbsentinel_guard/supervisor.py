"""Answers the guarded callers and tells the agent what they did: one thread for each listener.

The caller waits while we look, so a connection is answered after one read of the caller's memory; all that can wait
(which process the thread belongs to, which socket it is) is read after the answer. What a new image is, is read while
the image waits before its first instruction of its own: there it cannot lie.
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
import threading
import time
from typing import Any, Dict, NoReturn

from nbsentinel_guard import abi, evidence, seccomp, wire
from nbsentinel_guard.slots import CLAIM_SIZE, Page, Slot

HOLD_S = 0.02
"""Longest time that a possible remote shell waits for the agent."""
SLOW_S = 0.005
"""Longest time that a caller is slowed before its event is dropped."""
Event = Dict[str, Any]
_SHELLS = ("sh", "ash", "bash", "dash", "zsh", "ksh", "mksh", "fish", "busybox", "csh", "tcsh")
_LANGUAGES = ("python", "perl", "ruby", "node", "lua", "php", "tclsh", "socat", "nc", "ncat")
_INTERPRETERS = frozenset(_SHELLS + _LANGUAGES)


class Teller:
    """The way to the agent; events wait a moment for room, then are counted as dropped."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._waiting: dict[int, threading.Event] = {}
        self._serial = 0
        self.dropped = 0

    def use(self, descriptor: int) -> None:
        """Talk to the agent at the other end of a socket from now on."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = socket.socket(fileno=descriptor)
        threading.Thread(target=self._listen, args=(self._socket,), daemon=True).start()

    def tell(self, event: Event) -> bool:
        """Send one event; return whether the agent has it in its queue."""
        with self._lock:
            connection = self._socket
            if connection is None:
                return False
            if self.dropped:
                event["dropped"] = self.dropped
            message = json.dumps(event, separators=(",", ":")).encode()
            for last in (False, True):
                try:
                    connection.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    if not last:
                        select.select([], [connection], [], SLOW_S)
                except OSError as error:
                    if error.errno != errno.EMSGSIZE:
                        self._socket = None
                    break
                else:
                    self.dropped = 0
                    return True
            self.dropped += 1
            return False

    def ask(self, event: Event) -> None:
        """Send one event and wait until the agent has judged it, a moment at most."""
        done = threading.Event()
        with self._lock:
            self._serial += 1
            event["held"] = serial = self._serial
            self._waiting[serial] = done
        if self.tell(event):
            done.wait(HOLD_S)
        self._waiting.pop(serial, None)

    def _listen(self, connection: socket.socket) -> None:
        while True:
            try:
                message = connection.recv(64)
            except OSError:
                return
            if not message:
                return
            done = self._waiting.get(int(message))
            if done is not None:
                done.set()


class Table:
    """Guarded processes by thread: (process, start time). An entry is a hint, checked whenever it can be."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int]] = {}

    def of(self, tid: int) -> tuple[int, int]:
        """Return (pid, start) of a thread; reads /proc only for one that is new to us."""
        found = self._known.get(tid)
        return found if found is not None else self.look(tid)

    def look(self, tid: int) -> tuple[int, int]:
        """Read (pid, start) of a thread again; where it is gone, what was known of it, or a start of 0."""
        pid = evidence.leader(tid)
        where = evidence.place(pid)
        if where is None:
            return self._known.get(tid, (pid, 0))
        if len(self._known) > 50000:
            self._known.clear()
        self._known[tid] = (pid, where[0])
        return self._known[tid]


class Watch(threading.Thread):
    """One of the threads that answer a listener, until its last process is gone."""

    def __init__(self, supervisor: Supervisor, index: int, listener: int, slot: Slot) -> None:
        super().__init__(name="listener %d" % index, daemon=True)
        self._supervisor, self._index, self._listener = supervisor, index, listener
        self._slot = slot
        self._memory = evidence.Memory(permitted=supervisor.may_read_memory)
        self._response = seccomp.Response(0, 0, 0, abi.CONTINUE)
        self._attempts: dict[int, tuple[float, str]] = {}
        calls = abi.calls()
        self._connect, self._image = calls["connect"], calls.get("arch_prctl", calls["set_tid_address"])
        self._execs = (calls["execve"], calls["execveat"])
        self._signals = {calls[name]: at for name, at in (("kill", 0), ("tkill", 0), ("tgkill", 0))}
        self._pidfd_signal = calls["pidfd_send_signal"]
        names = ("prlimit64", "sched_setparam", "sched_setscheduler", "sched_setaffinity", "sched_setattr")
        self._targets = dict(
            [(calls[name], 0) for name in names] + [(calls[n], 1) for n in ("setpriority", "ioprio_set")]
        )

    def run(self) -> None:
        """Receive, answer, tell; every step leaves the slot in a state from which the holder can finish."""
        slot, listener = self._slot, self._listener
        where = ctypes.addressof(slot.call)
        poll = select.poll()
        poll.register(listener, 0)
        slot.clear()
        while True:
            number = seccomp.receive(listener, where)
            if number:
                if number not in (errno.EINTR, errno.ENOENT) or poll.poll(0):
                    break
                slot.clear()
                continue
            slot.progress += 1
            try:
                self._serve(slot)
            except Exception as error:  # noqa: BLE001 - a caller must never wait for our mistake
                self._answer(slot)
                self._supervisor.teller.tell({"kind": "failure", "why": f"{type(error).__name__}: {error}"})
            slot.clear()
        os.close(listener)

    def _answer(self, slot: Slot, error: int = 0) -> None:
        if slot.answered:
            return
        self._response.id = slot.call.id
        self._response.error = -error
        self._response.flags = 0 if error else abi.CONTINUE
        seccomp.send(self._listener, self._response)
        slot.answered = 1

    def _serve(self, slot: Slot) -> None:
        number = slot.call.data.nr
        if number == self._connect:
            self._serve_connect(slot)
        elif number == self._image:
            self._serve_image(slot)
        elif number in self._execs:
            self._serve_exec(slot, number)
        else:
            self._serve_protection(slot, number)

    def _serve_connect(self, slot: Slot) -> None:
        call, tid = slot.call, slot.call.pid
        length = min(int(call.data.args[2]) & 0xFFFFFFFF, CLAIM_SIZE)
        slot.claim_length = self._memory.copy(tid, call.data.args[1], ctypes.addressof(slot.claim), length)
        claim = slot.claim_bytes()
        remote = evidence.endpoint(claim)
        if remote is None and (claim or self._supervisor.may_read_memory):
            self._answer(slot)
            return
        table = self._supervisor.table
        table.of(tid)
        descriptor = int(call.data.args[0]) & 0xFFFFFFFF
        early = None if remote else evidence.link(b"/proc/%d/fd/%d" % (tid, descriptor))
        self._answer(slot)
        pid, start = table.look(tid)
        target = early or evidence.link(b"/proc/%d/fd/%d" % (tid, descriptor))
        event = {"kind": "connect", "pid": pid, "start": start, "fd": descriptor, "at": time.time_ns() // 1000000}
        event["call"] = "%d:%d" % (self._index, call.id)
        event["socket"] = os.fsdecode(target) if target else ""
        if remote:
            event["ip"], event["port"] = remote
        self._supervisor.teller.tell(event)

    def _serve_exec(self, slot: Slot, number: int) -> None:
        call, tid = slot.call, slot.call.pid
        path = self._memory.text(tid, call.data.args[1 if number == self._execs[1] else 0])
        pid = evidence.leader(tid)
        self._attempts[pid] = time.monotonic(), (path or b"").decode("latin-1")
        if len(self._attempts) > 10000:
            self._attempts.clear()
        self._answer(slot)

    def _serve_image(self, slot: Slot) -> None:
        pid = slot.call.pid
        where = evidence.place(pid)
        if where is None or evidence.leader(pid) != pid:
            self._answer(slot)
            return
        self._attempts.pop(pid, None)
        event = evidence.image(pid)
        start, name, parent, session, terminal = where
        above = evidence.place(parent)
        event.update(kind="exec", pid=pid, start=start, name=name.decode("latin-1"), session=session, tty=terminal)
        event.update(ppid=parent, pstart=above[0] if above else 0, at=time.time_ns() // 1000000)
        event["call"] = "%d:%d" % (self._index, slot.call.id)
        try:
            event["uid"] = os.stat("/proc/%d" % pid).st_uid
        except OSError:
            event["uid"] = -1
        self._supervisor.table.look(pid)
        if _is_possible_remote_shell(event):
            self._supervisor.teller.ask(event)
        else:
            self._supervisor.teller.tell(event)
        # Told first: what the image does next is told by another thread, and must not come before it.
        self._answer(slot)

    def _serve_protection(self, slot: Slot, number: int) -> None:
        """Refuse a signal or a limit that is meant for one of us; all others proceed."""
        call = slot.call
        arguments = call.data.args
        if number == self._pidfd_signal:
            target = _pid_of_descriptor(call.pid, int(arguments[0]) & 0xFFFFFFFF)
        else:
            target = ctypes.c_int(int(arguments[self._signals.get(number, self._targets.get(number, 0))])).value
        aimed = target in self._supervisor.protected() or (target == -1 and number in self._signals)
        self._answer(slot, errno.EPERM if aimed else 0)
        if aimed:
            pid, start = self._supervisor.table.look(call.pid)
            event = {"kind": "refused", "pid": pid, "start": start, "number": number, "target": target}
            self._supervisor.teller.tell(event)


def _pid_of_descriptor(tid: int, descriptor: int) -> int:
    data = evidence.read_file("/proc/%d/fdinfo/%d" % (tid, descriptor), 1024) or b""
    _, found, rest = data.partition(b"\nPid:")
    return int(rest.split(None, 1)[0]) if found else 0


def _is_possible_remote_shell(event: Event) -> bool:
    """Return whether standard input comes from a socket, or an interpreter's from a pipe or terminal."""
    source = event.get("fd0", "")
    if source.startswith("socket:"):
        return True
    if not source.startswith(("pipe:", "/dev/pts/")):
        return False
    name = event.get("exe", "").rpartition("/")[2].rstrip("0123456789.")
    return name in _INTERPRETERS


class Supervisor:
    """All listeners of one agent.

    Args:
        page: The slots, shared with the holder.
        control: The socket from the holder: new listeners, the way to the agent.
        may_read_memory: False in tests of a kernel that refuses it.
    """

    def __init__(self, page: Page, control: socket.socket, *, may_read_memory: bool = True) -> None:
        self.page, self._control, self.may_read_memory = page, control, may_read_memory
        self.teller, self.table = Teller(), Table()
        self._protected = {os.getpid(), os.getppid()}
        self._agent = 0

    def protected(self) -> set[int]:
        """Return the processes that nothing guarded may stop or starve: holder, supervisor, agent."""
        return self._protected | {self._agent} if self._agent else self._protected

    def run(self) -> None:
        """Take listeners until the holder is gone, then go on for those that are left."""
        while True:
            message, descriptors = wire.receive(self._control)
            if not message:
                break
            word, _, rest = message.partition(b" ")
            if word == b"listener":
                seccomp.wake_on_this_core(descriptors[0])
                for slot in self.page.slots_of(int(rest)):
                    Watch(self, int(rest), os.dup(descriptors[0]), slot).start()
                os.close(descriptors[0])
            elif word == b"agent":
                self._agent = int(rest)
                self.teller.use(descriptors[0])
        for thread in threading.enumerate():
            if isinstance(thread, Watch):
                thread.join()


def main(page: Page, control: socket.socket, *, may_read_memory: bool) -> NoReturn:
    """Run as the holder's child; never returns."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    seccomp.forbid_dumps()
    try:
        Supervisor(page, control, may_read_memory=may_read_memory).run()
    except Exception as error:  # noqa: BLE001 - the holder replaces us; this line says why
        sys.stderr.write(f"nbsentinel guard supervisor: {type(error).__name__}: {error}\n")
    finally:
        os._exit(0)

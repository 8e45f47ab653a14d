"""The kernel sensor's thread: takes what kernels and Jupyter servers tell, and says which kernels tell nothing.

What a kernel says of itself is a hint: whatever runs in it can lie. Who says it is certain: the operating system names
the sender of each message, and only processes with a kernel's connection file are listened to. A process that looks
like a Jupyter server may tell what is open in it, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable
from pathlib import Path

import msgspec

import nbsentinel_kernel
from nbsentinel.context.runs import looks_like_server
from nbsentinel.events import Coverage, KernelAudit, Process, ProcessKey, SensorState
from nbsentinel.sensors.base import Lane
from nbsentinel.sensors.kernels import senders
from nbsentinel.sensors.kernels.decode import NAME, Cell, Hello, RefusedError, Sessions, observation, read, served
from nbsentinel.sensors.kernels.senders import Role, Sender
from nbsentinel.sensors.procfs import reader
from nbsentinel.sensors.procfs.sensor import now_ms
from nbsentinel_guard import wire
from nbsentinel_kernel.channel import SOCKET_NAME, VERSION
from nbsentinel_kernel.watch import WATCHED

STARTUP = str(Path(nbsentinel_kernel.__file__).with_name("startup.py"))
TRIAL = str(Path(__file__).with_name("trial.py"))
SELF_TEST_S = 5.0
SENDERS_LIMIT = 256
SERVERS_LIMIT = 8
CONNECTIONS_LIMIT = 4
"""Connections of one process."""
TURN = 64
"""Messages taken from one kernel before the next has its turn."""
PARK_S, IDLE_S = 0.1, 1.0
ACCEPT_S = 0.05
"""Pause after a new connection: whoever connects without end cannot keep us busy, and kernels try again."""
SETTLE_S = 0.003
"""Pause after each turn: a kernel that tells much wakes us once for many messages and keeps its core."""
PAST_LIMIT = 1024
REASONS_LIMIT = 64


class KernelSensor:
    """Receives what kernels report, in a thread of its own.

    Args:
        lane: Takes each observation.
        run_dir: Folder of the socket.
        watched: Files whose opening kernels tell of: `name`, `folder/name`, `folder/*`, `/proc/name`.
    """

    name = NAME

    def __init__(self, lane: Lane, run_dir: Path, watched: Iterable[str] = WATCHED) -> None:
        self._lane, self._run_dir = lane, str(run_dir)
        self._welcome = msgspec.json.encode([VERSION, secrets.token_hex(32), list(watched)])
        self._selector = selectors.DefaultSelector()
        self._server: socket.socket | None = None
        self._senders: set[Sender] = set()
        self._parked: dict[Sender, float] = {}
        self._accepts_at = 0.0
        self._past: OrderedDict[ProcessKey, None] = OrderedDict()
        self._silent: list[senders.Silent] = []
        self._parents: set[ProcessKey | None] = set()
        """The parents of kernels: a Jupyter server under whatever name."""
        self._marks: set[str] = set()
        self._lock = threading.Lock()
        """Held while a sender is listened to: the pipeline's thread does that too."""
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure = "not started"
        self.lost = 0
        """Messages that kernels dropped, by their own count."""
        self.refused: Counter[str] = Counter()
        """Messages and connections that were refused, by reason."""

    # The thread

    def start(self) -> None:
        """Listen, in a thread."""
        path = Path(self._run_dir, SOCKET_NAME)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            path.unlink(missing_ok=True)
            address = wire.address(self._run_dir, SOCKET_NAME)
            try:
                server.bind(address)
            finally:
                wire.release(address)
            path.chmod(0o600)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            server.listen(64)
        except OSError as error:
            server.close()
            self._failure = f"no socket for kernels: {error}"
            return
        self._server, self._failure = server, ""
        self._selector.register(server, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="kernels", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; kernels go on without us."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(2)
        for sender in list(self._senders):
            self._leave(sender)
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                Path(self._run_dir, SOCKET_NAME).unlink()

    def _run(self) -> None:
        while not self._end.is_set():
            self._try_turn()

    def _try_turn(self) -> None:
        try:
            self._turn()
            self._failure = ""
        except Exception as error:  # noqa: BLE001 - one turn may fail, the sensor goes on and says so
            self._failure = f"{type(error).__name__}: {error}"
            self._end.wait(PARK_S)

    def _turn(self) -> None:
        now = time.monotonic()
        for sender in [sender for sender, until in self._parked.items() if until <= now]:
            del self._parked[sender]
            self._selector.register(sender.connection, selectors.EVENT_READ, sender)
        if self._accepts_at and now >= self._accepts_at:
            self._accepts_at = 0.0
            self._selector.register(self._listening(), selectors.EVENT_READ)
        if self._lane.is_crowded:  # kernels can wait: what does not fit into their sockets they count
            self._end.wait(PARK_S)
            return
        pause = ACCEPT_S if self._accepts_at else PARK_S if self._parked else IDLE_S
        for key, _ in self._selector.select(pause):
            if key.data is None:
                self._accept()
            else:
                self._hear(key.data)
        self._end.wait(SETTLE_S)

    def catch_up(self) -> None:
        """Take in what kernels have told so far, in the caller's thread: they tell before they do what others see."""
        if not self._lane.is_crowded:
            for sender in list(self._senders):
                self._hear(sender)

    def _hear(self, sender: Sender) -> None:
        with self._lock:
            if sender in self._senders and sender not in self._parked:
                self._listen(sender)

    def _listening(self) -> socket.socket:
        assert self._server is not None
        return self._server

    def _accept(self) -> None:
        self._accepts_at = time.monotonic() + ACCEPT_S
        self._selector.unregister(self._listening())
        try:
            connection, _ = self._listening().accept()
        except OSError:  # gone again, or no descriptors left
            self._end.wait(PARK_S)
            return
        process = senders.identify(connection)
        place = reader.stat(process.key.pid) if process is not None and self._marks else None
        trial = place is not None and place.ppid == os.getpid()
        role = Role.TRIAL if trial else self._role(process)
        why = self._refuses(process, role)
        if process is None or role is None or why:
            self._refuse(why)
            connection.close()
            return
        with contextlib.suppress(OSError):
            connection.send(b"[1]" if role is Role.SERVER else self._welcome, socket.MSG_DONTWAIT)
        sender = Sender(connection, process, time.monotonic(), role)
        self._senders.add(sender)
        self._selector.register(connection, selectors.EVENT_READ, sender)

    def _role(self, process: Process | None) -> Role | None:
        if process is not None and process.kernel is not None:
            return Role.KERNEL
        is_server = process is not None and (looks_like_server(process) or process.key in self._parents)
        return Role.SERVER if is_server else None

    def _refuses(self, process: Process | None, role: Role | None) -> str:
        if process is None:
            return "a sender that was gone"
        if role is None:
            return "a process that is no kernel"
        if role is Role.SERVER and sum(sender.role is role for sender in self._senders) >= SERVERS_LIMIT:
            return "too many servers"
        mine = sum(sender.process.key == process.key for sender in self._senders)
        return "too many connections" if mine >= CONNECTIONS_LIMIT or len(self._senders) >= SENDERS_LIMIT else ""

    def _leave(self, sender: Sender) -> None:
        if sender not in self._parked:
            self._selector.unregister(sender.connection)
        self._parked.pop(sender, None)
        self._senders.discard(sender)
        sender.connection.close()
        if sender.hello is not None and not sender.trial:
            self._past[sender.process.key] = None
            if len(self._past) > PAST_LIMIT:
                self._past.popitem(last=False)

    def _listen(self, sender: Sender) -> None:
        now = time.monotonic()
        allowed = sender.may_send(now)
        if not allowed:
            self._selector.unregister(sender.connection)
            self._parked[sender] = now + PARK_S
        for _ in range(min(allowed, TURN)):
            if not self._receive(sender):
                return

    def _receive(self, sender: Sender) -> bool:
        """Take one message; return whether there may be another."""
        try:
            raw = sender.receive()
            if raw is None:
                return False
            self._take(sender, raw)
        except RefusedError as error:
            self._refuse(str(error))
        except EOFError:
            self._leave(sender)
            return False
        return True

    def _refuse(self, why: str) -> None:
        self.refused[why] += 1
        if len(self.refused) > REASONS_LIMIT:
            self.refused = Counter({"many reasons": self.refused.total()})

    def _take(self, sender: Sender, raw: bytes) -> None:
        message = read(raw)
        if isinstance(message, Sessions) != (sender.role is Role.SERVER):
            raise RefusedError(f"not for a {sender.role.value} to tell")
        if isinstance(message, Sessions):
            sender.sessions = message
            self._lane.put(served(message, sender.process.key, now_ms(), _present))
            return
        if isinstance(message, Hello):
            if sender.hello is None:
                sender.hello = message
                self.lost += sender.count(message.dropped)
            return
        if sender.hello is None:
            raise RefusedError("no hello")
        exists = sender.owns_thread(message.thread)
        self.lost += sender.count(message.dropped)
        found = observation(message, sender.process.key, now_ms(), exists=exists)
        if not sender.trial:
            self._lane.put(found)
        elif isinstance(found, KernelAudit) and found.certain and not isinstance(message, Cell):
            self._marks.discard(found.message_id or "")

    # Coverage

    def reporting(self) -> set[ProcessKey]:
        """Return the kernels that report now."""
        return {sender.process.key for sender in list(self._senders) if sender.hello is not None and not sender.trial}

    def consider(self, processes: Iterable[Process]) -> None:
        """Look which kernels do not report; called now and then by whoever knows all processes."""
        kernels = [process for process in processes if process.kernel is not None]
        reporting = {sender.process.key for sender in list(self._senders) if sender.hello is not None}
        self._parents = {process.parent for process in kernels}
        self._silent = senders.silent(kernels, reporting, set(self._past), time.time())

    def coverage(self) -> Coverage:
        """Return how far this sensor can be relied on, and which kernels do not report."""
        if self._failure or self._thread is None:
            return Coverage(sensor=NAME, state=SensorState.UNAVAILABLE, why=self._failure)
        reporting = [sender for sender in list(self._senders) if sender.hello is not None and not sender.trial]
        blind = [sender for sender in reporting if sender.hello is not None and not sender.hello.audits]
        lacking = senders.describe(self._silent, len(reporting))
        if blind:
            lacking += f"{'; ' if lacking else ''}{len(blind)} with Python 3.7 tell their cells alone"
        left_out = sum(sender.sessions.left_out for sender in list(self._senders) if sender.sessions is not None)
        if left_out:
            lacking += f"{'; ' if lacking else ''}{left_out} kernels and terminals too many for the server to name"
        refused = self.refused.total()
        detail = f"{len(reporting)} kernel{'' if len(reporting) == 1 else 's'} reporting" + (
            f"; {refused} messages or senders refused" if refused else ""
        )
        state = SensorState.DEGRADED if lacking else SensorState.ACTIVE
        return Coverage(sensor=NAME, state=state, why=lacking, detail=detail)

    def self_test(self) -> Coverage:
        """Let a child load what kernels load and open a watched file in a cell; return whether that was told."""
        if self._failure:
            return self.coverage()
        mark = f"nbsentinel-self-test-{secrets.token_hex(8)}"
        self._marks.add(mark)
        command = [sys.executable, "-I", "-S", TRIAL, STARTUP, self._run_dir, mark]
        try:
            told = self._try(command, mark)
        except (OSError, subprocess.SubprocessError) as error:
            told = str(error)
        if mark in self._marks:
            self._marks.discard(mark)
            why = f"self-test: {told or 'what a cell did was not told'}"
            return Coverage(sensor=NAME, state=SensorState.UNAVAILABLE, why=why)
        return self.coverage()

    def _try(self, command: list[str], mark: str) -> str:
        """Run the self-test's child until what it did was told; return the last line that it said."""
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, text=True) as child:
            deadline = time.monotonic() + SELF_TEST_S
            while mark in self._marks and time.monotonic() < deadline and child.poll() is None:
                time.sleep(0.01)
            _, said = child.communicate(timeout=SELF_TEST_S)
        return said.strip().rpartition("\n")[2]


def _present(pid: int) -> ProcessKey | None:
    place = reader.stat(pid) if pid else None
    return place.key if place is not None else None

"""The guard sensor: what the system-call guard tells of guarded processes, and the care for its holder.

The holder is a process of its own that outlives the agent; this sensor starts it where none answers, and starts it
again when it ends. Executions and connections arrive while, or right after, the caller waits, so even what lives for a
millisecond is seen.
"""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from nbsentinel.events import (
    Connect,
    Connection,
    Coverage,
    Endpoint,
    Inode,
    Observation,
    Process,
    ProcessKey,
    Refused,
    SensorState,
)
from nbsentinel.sensors.base import Emit
from nbsentinel.sensors.procfs import reader, sockets
from nbsentinel.sensors.procfs.sensor import ProcfsSensor, now_ms
from nbsentinel.text import NAME_LIMIT, arguments, visible
from nbsentinel_guard import launcher, wire

NAME = "guard"
START_S = 5.0
RETRY_S = 1.0
SELF_TEST_S = 3.0
SEEN_LIMIT = 4096
"""Calls remembered, so that one that is told twice (by the supervisor and after its death) counts once."""
_PROGRAM = str(Path(launcher.__file__).with_name("__main__.py"))
_MARK = "nbsentinel-self-test-"


class GuardSensor:
    """Receives what the guard saw, in a thread of its own.

    Args:
        emit: Takes each observation; returns False when it had to be dropped.
        procfs: Shares what is known of processes and sockets, so that nothing is told twice.
        run_dir: Folder of the guard's socket.
        notice: Takes a line for the operator, which is signed as well.
    """

    name = NAME

    def __init__(self, emit: Emit, procfs: ProcfsSensor, run_dir: Path, notice: Callable[[str], None]) -> None:
        self._emit, self._procfs, self._run_dir, self._notice = emit, procfs, str(run_dir), notice
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._control: socket.socket | None = None
        self._events: socket.socket | None = None
        self._failure = "not started"
        self._held: dict[ProcessKey, int] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._marks: set[str] = set()
        self.lost = 0
        """Events that the supervisor could not hand over."""

    # The thread

    def start(self) -> None:
        """Join the guard that runs, or start one; then listen in a thread."""
        self._join()
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; the guard itself stays for as long as anything guarded runs."""
        self._end.set()
        if self._events is not None:
            self._shut(self._events)
        if self._thread is not None:
            self._thread.join(2)
        self._leave()

    @staticmethod
    def _shut(connection: socket.socket) -> None:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def _leave(self) -> None:
        for connection in (self._events, self._control):
            if connection is not None:
                connection.close()
        self._events = self._control = None
        self._procfs.guard_tells = False

    def _join(self) -> None:
        try:
            try:
                self._attach()
            except OSError:
                self._launch_holder()
                self._attach()
        except (OSError, subprocess.SubprocessError) as error:
            self._failure = f"the guard cannot be started: {error}"

    def _launch_holder(self) -> None:
        command = [sys.executable, "-I", "-S", _PROGRAM, "hold", self._run_dir]
        holder = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        assert holder.stdout is not None
        with holder.stdout:
            ready = holder.stdout.readline()
        threading.Thread(target=holder.wait, name="guard holder", daemon=True).start()
        if ready != b"ready\n":
            raise OSError("its process ended at once")

    def _attach(self) -> None:
        control = wire.connect(self._run_dir, START_S)
        try:
            control.send(b"agent")
            message, descriptors = wire.receive(control)
        except OSError:
            control.close()
            raise
        if not message.startswith(b"ok") or len(descriptors) != 1:
            control.close()
            raise OSError("another agent has it")
        self._control, self._events = control, socket.socket(fileno=descriptors[0])
        self._failure = ""
        self._procfs.guard_tells = True

    def _run(self) -> None:
        while not self._end.is_set():
            if self._events is None:
                self._end.wait(RETRY_S)
                if not self._end.is_set():
                    self._join()
                continue
            try:
                message = self._events.recv(wire.MESSAGE_LIMIT)
            except OSError:
                message = b""
            if not message:
                if not self._end.is_set():
                    self._leave()
                    self._failure = "its process ended and is being replaced"
                    self._notice("The guard's holder ended; it is started again")
                    self._join()
                continue
            try:
                self._take(json.loads(message))
            except Exception as error:  # noqa: BLE001 - one bad message must not end the sensor; it is told
                self._failure = f"a message could not be read: {type(error).__name__}: {error}"

    # Messages

    def _take(self, event: dict[str, object]) -> None:
        lost = event.get("dropped")
        self.lost += lost if isinstance(lost, int) else 0
        call = str(event.get("call", ""))
        if call:
            if call in self._seen:
                return
            self._seen[call] = None
            if len(self._seen) > SEEN_LIMIT:
                self._seen.popitem(last=False)
        kind = event["kind"]
        if kind == "exec":
            self._executed(event)
        elif kind == "connect" or (kind == "recovered" and "ip" in event):
            self._connected(event)
        elif kind == "recovered":
            self._procfs.wake()
        elif kind == "refused":
            key = self._key(event)
            number, target = _int(event, "number"), _int(event, "target")
            self._emit(Refused(at=now_ms(), key=key, call=number, target=target, source=NAME))
        elif kind == "notice":
            self._notice(f"The guard: {event.get('what')}: {event.get('why')}")
        elif kind == "failure":
            self._notice(f"The guard's supervisor could not judge a call: {event.get('why')}")

    def _key(self, event: dict[str, object]) -> ProcessKey:
        pid, start = _int(event, "pid"), _int(event, "start")
        known = self._procfs.key_of(pid)
        return known if known is not None and start in (0, known.start) else ProcessKey(pid, start)

    def _executed(self, event: dict[str, object]) -> None:
        process = _process(event)
        mark = next((argument for argument in process.argv if argument.startswith(_MARK)), None)
        if mark is not None and mark in self._marks:
            self._marks.discard(mark)
        held = event.get("held")
        if isinstance(held, int):
            self._held[process.key] = held
        if not self._procfs.adopt(process, self._emit, NAME) and isinstance(held, int):
            self._release(process.key)

    def _connected(self, event: dict[str, object]) -> None:
        target = str(event.get("socket", ""))
        inode = Inode(int(target[8:-1])) if target.startswith("socket:[") else Inode(0)
        found = sockets.inet_sockets(only=None).get(inode) if inode else None
        if "ip" in event:
            remote = Endpoint(str(event["ip"]), _int(event, "port"))
        elif found is not None and found.remote is not None:
            remote = found.remote
        else:
            return
        if inode:
            self._procfs.claim(inode)
        connection = Connection(
            protocol=found.protocol if found else "",
            local=found.local if found else None,
            remote=remote,
            inode=inode,
            initiated=True,
        )
        self._emit(Connect(at=now_ms(), key=self._key(event), connection=connection, source=NAME))

    def judged(self, observations: list[Observation]) -> None:
        """Let the shells go on that wait for a verdict on these observations."""
        if self._held:
            for observation in observations:
                process = getattr(observation, "process", None)
                if isinstance(process, Process):
                    self._release(process.key)

    def _release(self, key: ProcessKey) -> None:
        serial = self._held.pop(key, None)
        connection = self._events
        if serial is not None and connection is not None:
            try:
                connection.send(b"%d" % serial, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except OSError:
                return

    # Coverage

    def coverage(self) -> Coverage:
        """Return how far this sensor can be relied on."""
        if self._failure:
            return Coverage(sensor=NAME, state=SensorState.UNAVAILABLE, why=self._failure)
        return Coverage(sensor=NAME, state=SensorState.ACTIVE)

    def self_test(self) -> Coverage:
        """Run a harmless guarded child and return whether it was seen."""
        if self._failure:
            return self.coverage()
        mark = _MARK + secrets.token_hex(8)
        self._marks.add(mark)
        command = [sys.executable, "-I", "-S", _PROGRAM, "--run-dir", self._run_dir, "--", "/bin/true", mark]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SELF_TEST_S, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            return Coverage(sensor=NAME, state=SensorState.UNAVAILABLE, why=f"self-test: {error}")
        deadline = time.monotonic() + SELF_TEST_S
        while mark in self._marks and time.monotonic() < deadline:
            time.sleep(0.01)
        told = done.stderr.strip().rpartition("\n")[2].removeprefix("nbsentinel guard: ")
        if mark in self._marks:
            self._marks.discard(mark)
            why = told or "an executed program was not seen"
            return Coverage(sensor=NAME, state=SensorState.UNAVAILABLE, why=f"self-test: {why}")
        if told:
            return Coverage(sensor=NAME, state=SensorState.DEGRADED, why=told)
        return self.coverage()


def _int(event: dict[str, object], name: str) -> int:
    value = event.get(name)
    return value if isinstance(value, int) else 0


def _bytes(event: dict[str, object], name: str) -> bytes | None:
    value = event.get(name)
    return value.encode("latin-1") if isinstance(value, str) else None


def _text(event: dict[str, object], name: str) -> str | None:
    value = _bytes(event, name)
    return None if value is None else visible(value)


def _process(event: dict[str, object]) -> Process:
    """Return the image that the supervisor described; every text in it is still the attacker's bytes."""
    key = ProcessKey(_int(event, "pid"), _int(event, "start"))
    argv, length, digest = arguments(_bytes(event, "argv") or b"")
    cwd, uid, start = _text(event, "cwd"), _int(event, "uid"), _int(event, "pstart")
    return Process(
        key=key,
        parent=ProcessKey(_int(event, "ppid"), start) if start else None,
        name=visible(_bytes(event, "name") or b"", NAME_LIMIT),
        exe=_text(event, "exe"),
        argv=argv,
        argv_length=length,
        argv_sha256=digest,
        cwd=cwd,
        uid=uid,
        user=reader.user_name(uid),
        session=_int(event, "session"),
        tty=reader.terminal_name(_int(event, "tty")),
        started=reader.start_time(key),
        stdio=(_text(event, "fd0"), _text(event, "fd1"), _text(event, "fd2")),
        kernel=reader.kernel_info(key.pid, argv, cwd),
    )

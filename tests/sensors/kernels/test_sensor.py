"""Who is listened to, what is believed, and what becomes of floods: the sensor and processes that look like kernels."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from nbsentinel.events import (
    CellRun,
    Coverage,
    KernelAudit,
    Observation,
    Process,
    SensorState,
    ServedSession,
    ServerSessions,
)
from nbsentinel.sensors.base import Lane
from nbsentinel.sensors.kernels import senders
from nbsentinel.sensors.kernels.sensor import CONNECTIONS_LIMIT, SERVERS_LIMIT, KernelSensor
from nbsentinel.sensors.procfs import reader
from nbsentinel_guard import wire
from nbsentinel_kernel.channel import SOCKET_NAME
from support.waiting import wait_until

PRETENDER = Path(__file__).with_name("pretender.py")
HELLO = 'b\'["hello",0,1,%d,1,"3.11.2","9.0","7.0",true]\' % os.getpid()'


class Pretender:
    """A process that looks like a kernel, or like the program whose name it is given."""

    def __init__(self, folder: Path, path: str, *, looks: bool = True, name: str = "") -> None:
        file = folder / f"kernel-{os.urandom(4).hex()}.json"
        file.write_text(json.dumps({"ip": "127.0.0.1", "transport": "tcp", "shell_port": 1}))
        program = folder / name if name else PRETENDER
        if name and not program.exists():
            program.symlink_to(PRETENDER)
        command = [sys.executable, str(program), path, *(("-f", str(file)) if looks else ())]
        passed = [int(path.split("/")[4])] if path.startswith("/proc/self/fd/") else []
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=passed
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self.pid = self.process.pid

    def send(self, code: str) -> str:
        """Let it send; return what came of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(code + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def audit(self, thread: str = "os.getpid()", certain: str = "true", dropped: int = 0) -> str:
        """Let it tell of an event."""
        event = '["audit",%d,1,%d,"os.system",{"CommandLine":"x"},"m",{certain}]'.replace("{certain}", certain)
        return self.send(f"b'{event}' % ({dropped}, {thread})")

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


class Watched:
    """A sensor with its lane."""

    def __init__(self, folder: Path, limit: int = 20_000) -> None:
        self.run_dir = folder / "run"
        self.run_dir.mkdir(mode=0o700)
        self.lane = Lane("kernels", threading.Event(), limit)
        self.sensor = KernelSensor(self.lane, self.run_dir)
        self.sensor.start()
        self.folder = folder
        self.found: list[Observation] = []
        self.pretenders: list[Pretender] = []

    def pretender(self, *, looks: bool = True, name: str = "") -> Pretender:
        path = wire.address(str(self.run_dir), SOCKET_NAME)
        self.pretenders.append(Pretender(self.folder, path, looks=looks, name=name))
        return self.pretenders[-1]

    def observations(self) -> list[Observation]:
        self.found += self.lane.take(100_000)
        return self.found

    def wait(self, condition: Callable[[], object], seconds: float = 10.0) -> bool:
        return wait_until(condition, seconds)


@contextmanager
def sensor(folder: Path, limit: int = 20_000) -> Iterator[Watched]:
    running = Watched(folder, limit)
    try:
        yield running
    finally:
        for one in running.pretenders:
            one.close()
        running.sensor.stop()


def test_a_kernel_is_believed_about_itself(tmp_path: Path) -> None:
    """What a kernel tells is about the process that sent it, with its start time."""
    with sensor(tmp_path) as running:
        kernel = running.pretender()
        kernel.send(HELLO)
        kernel.audit()
        kernel.send("""b'["cell",0,1,%d,"start","m","c",4,null,false]' % os.getpid()""")
        assert running.wait(lambda: len(running.observations()) == 2)
        audit, cell = running.found
        assert isinstance(audit, KernelAudit)
        assert isinstance(cell, CellRun)
        place = reader.stat(kernel.pid)
        assert place is not None
        assert audit.key == cell.key == place.key
        assert (audit.thread, audit.certain, cell.cell_id) == (kernel.pid, True, "c")
        assert abs(audit.at - time.time() * 1000) < 60_000, "an old time of the sender's is not believed"


def test_threads_of_others_are_refused(tmp_path: Path) -> None:
    """A kernel that names a thread of another process is refused; one that names a thread that ended is not certain."""
    with sensor(tmp_path) as running:
        kernel = running.pretender()
        kernel.send(HELLO)
        kernel.audit(str(os.getpid()))
        assert running.wait(lambda: running.sensor.refused["a thread of another process"] == 1)
        gone = subprocess.Popen(["/bin/true"])
        gone.wait()
        kernel.audit(str(gone.pid))
        assert running.wait(running.observations)
        (event,) = running.found
        assert isinstance(event, KernelAudit)
        assert not event.certain


def test_a_child_over_its_parents_connection_is_refused(tmp_path: Path) -> None:
    """The operating system names the sender of each message: a forked child cannot speak as the kernel."""
    with sensor(tmp_path) as running:
        kernel = running.pretender()
        kernel.send(HELLO)
        event = """["audit",0,1,%d,"os.system",{"CommandLine":"x"},"m",true]"""
        kernel.send(f"child: b'{event}' % os.getppid()")
        reason = "sent by another process over a kernel's connection"
        assert running.wait(lambda: running.sensor.refused[reason] == 1)
        assert running.observations() == []


def test_processes_that_are_no_kernels_are_refused(tmp_path: Path) -> None:
    """Only a process with a kernel's connection file is listened to; a connection of a stranger is closed."""
    with sensor(tmp_path) as running:
        stranger = running.pretender(looks=False)
        assert running.wait(lambda: running.sensor.refused["a process that is no kernel"] == 1)
        assert stranger.send(HELLO) in ("BrokenPipeError", "ConnectionResetError")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as own:
            own.connect(wire.address(str(running.run_dir), SOCKET_NAME))
            assert running.wait(lambda: running.sensor.refused["a process that is no kernel"] == 2)
        assert "2 messages or senders refused" in running.sensor.coverage().detail


def test_hostile_messages(tmp_path: Path) -> None:
    """Anything may be sent: it is counted, nothing comes of it, and the kernel is heard afterwards."""
    lies = [
        b"",
        b"\0" * 100,
        b"[" * 30_000,
        b"1" * 30_000,
        b'["audit"]',
        b"{}",
        b'["cell",0,1,1,"start","' + b"m" * 400 + b'",null,null,null,false]',
        b'["audit",0,1,1,"exec",{},null,false]',
        b'["audit",0,1,1,"open",{"\\u202e":"x"},null,false]',
        b'["audit",-1,1,1,"open",{},null,false]',
        b"x" * 60_000,
        b'["api",0,1,1,"s3","","","",{"a b":"c"},"","","http.client",null,false]',
        b'["api",0,1,1,"s3","","","",{},"AKIAIOSFODNN7EXAMPLE","","http.client",null,false]',
    ]
    with sensor(tmp_path) as running:
        kernel = running.pretender()
        kernel.send(f"{lies[4]!r}")
        kernel.send(HELLO)
        for lie in lies[1:]:
            assert kernel.send(repr(lie)) == "sent"
        kernel.audit()
        assert running.wait(running.observations)
        assert len(running.found) == 1
        assert running.sensor.refused.total() == len(lies)
        assert len(running.sensor.refused) < 12, "reasons are bounded"


def test_a_flood_is_bounded_and_hides_nobody(tmp_path: Path) -> None:
    """One kernel that sends without end is slowed by its own socket; another is heard at once."""
    with sensor(tmp_path) as running:
        loud, quiet = running.pretender(), running.pretender()
        loud.send(HELLO), quiet.send(HELLO)
        event = '["audit",0,1,%d,"os.system",{"CommandLine":"x"},"m",true]'
        started = time.monotonic()
        thread = threading.Thread(target=loud.send, args=(f"[b'{event}' % os.getpid()] * 200000",))
        thread.start()
        time.sleep(0.2)
        quiet.audit()
        assert running.wait(lambda: [o for o in running.observations() if o.key.pid == quiet.pid])
        thread.join()
        time.sleep(0.5)
        seconds = time.monotonic() - started
        taken = len([o for o in running.observations() if o.key.pid == loud.pid])
        assert taken <= senders.BURST + senders.RATE * (seconds + 1)
        assert taken >= senders.BURST


def test_a_full_lane_lets_kernels_wait(tmp_path: Path) -> None:
    """Where the pipeline does not keep up, messages wait in the kernels' sockets and are not dropped by us."""
    with sensor(tmp_path, limit=100) as running:
        kernel = running.pretender()
        kernel.send(HELLO)
        event = '["audit",0,1,%d,"os.system",{"CommandLine":"x"},"m",true]'
        assert kernel.send(f"[b'{event}' % os.getpid()] * 150") == "sent"
        assert running.wait(lambda: len(running.observations()) == 150)
        assert running.lane.dropped == 0


def test_drops_are_counted_once(tmp_path: Path) -> None:
    """The kernel's own count of what it dropped is added up, over its connections too, and never goes down."""
    with sensor(tmp_path) as running:
        kernel = running.pretender()
        kernel.send(HELLO)
        for dropped in (3, 3, 1, 10):
            kernel.audit(dropped=dropped)
        assert running.wait(lambda: len(running.observations()) == 4)
        assert running.sensor.lost == 10


def test_connections_are_bounded(tmp_path: Path) -> None:
    """A kernel gets few connections."""
    with sensor(tmp_path) as running:
        kernel = running.pretender()
        for _ in range(CONNECTIONS_LIMIT + 2):
            kernel.send("again: ")
        assert running.wait(lambda: running.sensor.refused["too many connections"] == 3)


def test_self_test(tmp_path: Path) -> None:
    """The self-test loads what kernels load in a child and sees what it did; nothing of it is an observation."""
    with sensor(tmp_path) as running:
        assert running.sensor.self_test().state is SensorState.ACTIVE
        assert running.observations() == []


@pytest.mark.parametrize("harm", ["socket", "thread"])
def test_self_test_fails_where_nothing_is_seen(tmp_path: Path, harm: str) -> None:
    """A socket that somebody replaced, or a thread that ended, makes the self-test fail."""
    with sensor(tmp_path) as running:
        if harm == "socket":
            (running.run_dir / SOCKET_NAME).unlink()
        else:
            running.sensor._end.set()
            assert running.sensor._thread is not None
            running.sensor._thread.join()
        found = running.sensor.self_test()
        assert (found.state, found.why.partition(":")[0]) == (SensorState.UNAVAILABLE, "self-test")


def coverage_of(running: Watched, *, old: bool) -> Coverage:
    found = [process for one in running.pretenders if (process := reader.process(one.pid))]
    if old:
        found = [msgspec.structs.replace(process, started=process.started - 60_000) for process in found]
    running.sensor.consider(found)
    return running.sensor.coverage()


def test_kernels_that_do_not_report(tmp_path: Path) -> None:
    """Coverage names each kernel that tells nothing, and why as far as that is known; a young one has some time."""
    with sensor(tmp_path) as running:
        kernel, mute = running.pretender(), running.pretender()
        kernel.send(HELLO)
        kernel.audit()
        assert running.wait(running.observations)
        assert coverage_of(running, old=False) == Coverage(
            sensor="kernels", state=SensorState.ACTIVE, detail="1 kernel reporting"
        )
        found = coverage_of(running, old=True)
        assert found.state is SensorState.DEGRADED
        assert found.why.startswith("1 of 2 kernels do not report: ")
        assert f"[{mute.pid}]: Python without the startup file" in found.why


def test_a_kernel_that_stops_to_report(tmp_path: Path) -> None:
    """A kernel that closed its connection and lives on is named as such."""
    with sensor(tmp_path) as running:
        kernel = running.pretender()
        kernel.send(HELLO)
        assert running.wait(lambda: "1 kernel" in running.sensor.coverage().detail)
        kernel.send("connections.pop().close() or connections.append(socket.socket()) or b''")
        assert running.wait(lambda: "has stopped to report" in coverage_of(running, old=True).why)


def test_connecting_without_end(tmp_path: Path) -> None:
    """A process that connects all the time costs little, and a kernel is heard meanwhile."""
    with sensor(tmp_path) as running:
        kernel = running.pretender()
        kernel.send(HELLO)
        end, tries = threading.Event(), Counter[str]()
        path = wire.address(str(running.run_dir), SOCKET_NAME)

        def connect() -> None:
            while not end.is_set():
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as own:
                    tries[str(own.connect_ex(path))] += 1
                time.sleep(0.0005)

        thread = threading.Thread(target=connect)
        thread.start()
        begun = time.monotonic()
        time.sleep(1.0)
        kernel.audit()
        heard = running.wait(running.observations)
        end.set()
        thread.join()
        assert heard
        assert tries.total() > 200
        assert running.sensor.refused.total() <= 22 * (time.monotonic() - begun) + 2
        assert running.wait(lambda: kernel.send("again: ") == "connected", 10)


def sessions(pid: int, path: str = "/a.ipynb", left_out: int = 0) -> str:
    """Return code that makes a server's message about one kernel and a terminal that has ended."""
    content = ["sessions", 0, 0, 0, 1, [[pid, [["notebook", path, "n"]]]], [[2**22 + 1, "1"]], left_out]
    return repr(json.dumps(content).encode())


def test_a_server_tells_what_is_open_in_it(tmp_path: Path) -> None:
    """A Jupyter server's word is taken with its process and those it names; what names no process is left out."""
    with sensor(tmp_path) as running:
        server, kernel = running.pretender(looks=False, name="jupyter-lab"), running.pretender()
        assert server.send(sessions(kernel.pid)) == "sent"
        assert running.wait(running.observations)
        (told,) = running.found
        assert isinstance(told, ServerSessions)
        places = [reader.stat(one.pid) for one in (server, kernel)]
        assert [place.key for place in places if place] == [told.key, told.kernels[0][0]]
        assert told.kernels[0][1] == (ServedSession("notebook", "/a.ipynb", "n"),)
        assert told.terminals == ()
        assert running.sensor.reporting() == set(), "a server is no kernel that reports"


def test_a_server_under_another_name(tmp_path: Path) -> None:
    """The parent of a kernel is listened to as its server, whatever its program is called."""
    with sensor(tmp_path) as running:
        kernel = running.pretender()
        process = reader.process(kernel.pid)
        assert process is not None
        assert process.kernel is not None
        other = running.pretender(looks=False, name="own-hub")
        assert running.wait(lambda: running.sensor.refused["a process that is no kernel"] == 1)
        place = reader.stat(other.pid)
        assert place is not None
        running.sensor.consider([_below(process, place.key)])
        assert other.send("again: 0") == "connected"
        assert other.send(sessions(kernel.pid)) == "sent"
        assert running.wait(running.observations)


def _below(process: Process, parent: object) -> Process:
    return msgspec.structs.replace(process, parent=parent)


def test_each_tells_only_its_own(tmp_path: Path) -> None:
    """A kernel cannot name notebooks, a server cannot tell cells, and a child cannot speak as the server."""
    with sensor(tmp_path) as running:
        server, kernel = running.pretender(looks=False, name="jupyter-lab"), running.pretender()
        kernel.send(HELLO)
        kernel.send(sessions(kernel.pid))
        assert running.wait(lambda: running.sensor.refused["not for a kernel to tell"] == 1)
        server.send(HELLO)
        server.audit()
        assert running.wait(lambda: running.sensor.refused["not for a server to tell"] == 2)
        server.send(f"child: {sessions(kernel.pid)}")
        reason = "sent by another process over a kernel's connection"
        assert running.wait(lambda: running.sensor.refused[reason] == 1)
        assert running.observations() == []


@pytest.mark.parametrize(
    "lie",
    [
        ["sessions", 0, 0, 0, 2, [], [], 0],
        ["sessions", 0, 0, 0, 1, [[-1, []]], [], 0],
        ["sessions", 0, 0, 0, 1, [[1, [["notebook", "x" * 5000, ""]]]], [], 0],
        ["sessions", 0, 0, 0, 1, [[1, [["notebook", "x"]]]], [], 0],
        ["sessions", 0, 0, 0, 1, [[1, [{}]]], [], 0],
        ["sessions", 0, 0, 0, 1, [], [[1, None]], 0],
        ["sessions", 0, 0, 0, 1, [], [["1", "1"]], 0],
        ["sessions", 0, 0, 0, 1, [], [[2**31, "1"]], 0],
        ["sessions", 0, 0, 0, 1, [], [], -1],
        ["sessions"],
        "x" * 40_000,
    ],
)
def test_hostile_words_of_a_server(tmp_path: Path, lie: object) -> None:
    """What a server of ours would not send is refused as a whole, and the server is heard afterwards."""
    with sensor(tmp_path) as running:
        server = running.pretender(looks=False, name="jupyter-lab")
        server.send(repr(json.dumps(lie).encode()))
        server.send(sessions(server.pid, "/a\x1b[2J\u202e\udc80"))
        assert running.wait(running.observations)
        (told,) = running.found
        assert isinstance(told, ServerSessions)
        assert running.sensor.refused.total() == 1
        assert repr(told.kernels[0][1][0].path).isascii(), "and it is made visible"


def test_servers_are_bounded_and_slowed(tmp_path: Path) -> None:
    """Programs that look like servers can neither come in a crowd nor tell without end."""
    with sensor(tmp_path) as running:
        servers = [running.pretender(looks=False, name="jupyter-lab") for _ in range(SERVERS_LIMIT + 1)]
        assert running.wait(lambda: running.sensor.refused["too many servers"] == 1)
        told = servers[0].send(f"[{sessions(1)}] * 5000")
        assert told == "BlockingIOError", "its socket is full: nobody empties it at once"
        running.wait(lambda: False, 1.0)
        assert len(running.observations()) <= senders.SERVER_BURST + 3 * senders.SERVER_RATE


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    """Kernels and terminals that a server could not name stand in coverage."""
    with sensor(tmp_path) as running:
        server = running.pretender(looks=False, name="jupyter-lab")
        server.send(sessions(1, left_out=3))
        assert running.wait(running.observations)
        found = running.sensor.coverage()
        assert found.state is SensorState.DEGRADED
        assert "3 kernels and terminals too many" in found.why

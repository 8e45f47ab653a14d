"""The procfs sensor on real processes: what it must see, and when."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from nbsentinel.context.objects import ObjectKind
from nbsentinel.events import Connect, Exec, Exit, Observation, SensorState, StdioChange
from nbsentinel.sensors.base import Lane
from nbsentinel.sensors.procfs.sensor import ProcfsSensor
from nbsentinel.sensors.procfs.wake import CLOSE_COUNT, CLOSE_EACH_S, CLOSE_S, JOIN_S, Pace

T = TypeVar("T")


class Watch:
    """A running sensor and what it emitted."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.sensor = ProcfsSensor(lambda o: self.seen.append(o) is None, period_ms=50)
        self.sensor.start()
        self.seen.clear()

    def wait(self, condition: Callable[[Observation], T | None], seconds: float = 8) -> T:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for observation in list(self.seen):
                if (found := condition(observation)) is not None:
                    return found
            time.sleep(0.02)
        raise AssertionError(f"not seen among {[type(o).__name__ for o in self.seen]}")

    def executed(self, pid: int, word: str) -> Exec:
        return self.wait(
            lambda o: o if isinstance(o, Exec) and o.process.key.pid == pid and word in o.process.command_line else None
        )


@pytest.fixture
def watch() -> Iterator[Watch]:
    made = Watch()
    yield made
    made.sensor.stop()


def test_new_process_and_its_end(watch: Watch) -> None:
    """A process that lives a second is seen with its arguments, parent and streams, and its end too."""
    child = subprocess.Popen(["sleep", "1.01"], stdin=subprocess.DEVNULL)
    process = watch.executed(child.pid, "1.01").process
    assert process.parent is not None
    assert process.parent.pid == os.getpid()
    assert process.stdio[0] == "/dev/null"
    child.wait()
    watch.wait(lambda o: o if isinstance(o, Exit) and o.key == process.key else None)


def test_exec_without_a_new_process(watch: Watch) -> None:
    """The same pid with a new image is seen again."""
    child = subprocess.Popen(["sh", "-c", "sleep 0.5; exec sleep 2.02"])
    first = watch.executed(child.pid, "sh")
    second = watch.executed(child.pid, "2.02")
    assert first.process.key == second.process.key
    child.kill()
    child.wait()


def test_new_arguments_of_the_same_file(watch: Watch) -> None:
    """A shell that replaces itself by itself with other arguments is a new image."""
    child = subprocess.Popen(["bash", "-c", "sleep 0.5; exec bash -c 'sleep 2.03; :'"])
    watch.executed(child.pid, "exec bash")
    watch.wait(lambda o: o if isinstance(o, Exec) and o.process.argv[-1:] == ("sleep 2.03; :",) else None)
    child.kill()
    child.wait()


def test_a_fork_that_becomes_what_its_parent_is(watch: Watch) -> None:
    """A fork says that it is one; when it executes its parent's own file with the same arguments, that is told."""
    code = """
import os, sys, time
if "AGAIN" not in os.environ and not os.fork():
    time.sleep(0.7)
    os.environ["AGAIN"] = "1"
    os.execv(sys.executable, sys.orig_argv)
time.sleep(4)
"""
    child = subprocess.Popen([sys.executable, "-c", code])
    assert not watch.executed(child.pid, "AGAIN").process.forked
    twin = watch.wait(
        lambda o: o.process if isinstance(o, Exec) and o.process.parent and o.process.parent.pid == child.pid else None
    )
    assert twin.forked
    later = watch.wait(
        lambda o: o.process if isinstance(o, Exec) and o.process.key == twin.key and not o.process.forked else None
    )
    assert (later.exe, later.argv) == (twin.exe, twin.argv)
    os.kill(twin.key.pid, 9)
    child.kill()
    child.wait()


def test_streams_moved_without_exec(watch: Watch) -> None:
    """dup2 over descriptors 0 to 2 is seen although nothing was executed."""
    code = "import os, time; time.sleep(.5); r, w = os.pipe(); os.dup2(r, 0); time.sleep(5)"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL)
    changed = watch.wait(lambda o: o if isinstance(o, StdioChange) and o.key.pid == child.pid else None)
    assert (changed.stdio[0] or "").startswith("pipe:")
    child.kill()
    child.wait()


def test_connections_both_ways(watch: Watch) -> None:
    """A connection is seen with its process; who connected and who accepted is told apart."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        time.sleep(1.2)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0]:
            ours = watch.wait(lambda o: o if isinstance(o, Connect) and o.connection.remote.port == port else None)
            theirs = watch.wait(lambda o: o if isinstance(o, Connect) and o.connection.local.port == port else None)
    assert ours.key.pid == os.getpid()
    assert ours.connection.initiated is True
    assert theirs.connection.initiated is False


def test_wake_ups_are_close_until_they_are_many() -> None:
    """The first few may follow each other at once, a flood is joined, and quiet gives the allowance back."""
    pace = Pace(0.0)
    pauses = [pace.pause(n * 0.003) for n in range(200)]
    assert pauses[:CLOSE_COUNT] == [CLOSE_S] * CLOSE_COUNT
    assert pauses.count(CLOSE_S) <= CLOSE_COUNT + 1 + 200 * 0.003 / CLOSE_EACH_S
    assert pauses[-1] == JOIN_S
    assert pace.pause(10.0) == CLOSE_S


def test_known_shells_wake_the_sensor() -> None:
    """A shell's execution is seen long before the next look is due."""
    seen: list[Observation] = []
    woken = threading.Event()
    sensor = ProcfsSensor(lambda o: seen.append(o) is None or woken.set() is None, period_ms=10_000)
    sensor.start()
    try:
        seen.clear()
        child = subprocess.Popen(["sh", "-c", "sleep 3.04; :"])
        deadline = time.monotonic() + 3
        while (
            not any(isinstance(o, Exec) and o.process.key.pid == child.pid for o in seen)
            and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        assert any(isinstance(o, Exec) and o.process.key.pid == child.pid for o in seen)
        child.kill()
        child.wait()
    finally:
        sensor.stop()


def test_view_of_descriptors(watch: Watch, tmp_path: os.PathLike[str]) -> None:
    """Sockets, pipes, fifos and both sides of a pty are recognised with their direction."""
    fifo = os.path.join(tmp_path, "fifo")
    os.mkfifo(fifo)
    code = (
        "import os, pty, socket, sys, time\n"
        "m, s = pty.openpty(); r, w = os.pipe(); f = os.open(sys.argv[1], os.O_RDWR); a, b = socket.socketpair()\n"
        "print('ready', flush=True); time.sleep(10)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, fifo], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        child.stdout.readline()
        key = watch.executed(child.pid, "openpty").process.key
        ends = watch.sensor.view().ends(key) or ()
        child.kill()
        child.wait()
    kinds = [end.object.kind for end in ends if end.fd > 2]
    assert kinds.count(ObjectKind.PIPE) == 2
    assert {ObjectKind.PTY_MASTER, ObjectKind.PTY_SLAVE, ObjectKind.FIFO, ObjectKind.SOCKET} <= set(kinds)
    pipes = {(end.reads, end.writes) for end in ends if end.fd > 2 and end.object.kind is ObjectKind.PIPE}
    assert pipes == {(True, False), (False, True)}
    masters = {end.object.number for end in ends if end.object.kind is ObjectKind.PTY_MASTER}
    assert masters == {end.object.number for end in ends if end.object.kind is ObjectKind.PTY_SLAVE}


def test_renamed_shell_is_still_a_shell(watch: Watch, tmp_path: os.PathLike[str]) -> None:
    """A copy of a shell under another name, deleted while it runs, is known by its contents."""
    copy = os.path.join(tmp_path, "trainer")
    with open("/bin/sh", "rb") as source, open(copy, "wb") as target:
        target.write(source.read())
    os.chmod(copy, 0o755)
    child = subprocess.Popen([copy, "-c", "read x"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    with child.stdin:
        key = watch.executed(child.pid, "read x").process.key
        os.unlink(copy)
        view = watch.sensor.view()
        assert view.image(key) == "shell"
        assert view.awaits_input(key) is True
        child.kill()
        child.wait()


def test_self_test_and_coverage(watch: Watch) -> None:
    """The self-test starts a child and sees it; a stopped sensor says that it does not run."""
    assert watch.sensor.self_test().state in (SensorState.ACTIVE, SensorState.DEGRADED)
    watch.sensor.stop()
    assert watch.sensor.coverage().state is SensorState.UNAVAILABLE


def test_lane_counts_what_does_not_fit() -> None:
    """A full lane drops, counts, and keeps what it has in order."""
    ready = threading.Event()
    lane = Lane("test", ready, limit=3)
    exits = [Exit(at=i, key=None, source="t") for i in range(5)]  # type: ignore[arg-type]
    assert [lane.put(item) for item in exits] == [True, True, True, False, False]
    assert lane.dropped == 2
    assert ready.is_set()
    assert [item.at for item in lane.take(10)] == [0, 1, 2]


def test_slowed_sensor_says_so(watch: Watch) -> None:
    """Looking less often is reduced coverage with its reason; back at the usual rate it is whole again."""
    watch.sensor.slow_down(4, 3.14)
    assert watch.sensor.coverage().state is SensorState.DEGRADED
    assert "every 200 ms: the agent used 3.1% of a core" in watch.sensor.coverage().why
    watch.sensor.slow_down(64, 9)
    assert "every 2000 ms" in watch.sensor.coverage().why
    watch.sensor.slow_down(1, 0.5)
    assert "slowed" not in watch.sensor.coverage().why

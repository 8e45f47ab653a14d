"""When a path is evidence enough: confirmation in time, movement of bytes, dedicated relays."""

from __future__ import annotations

import pytest

from nbsentinel.context.objects import Activity, KernelObject
from nbsentinel.context.processes import ProcessTable
from nbsentinel.detect.remote import CONFIRM_MS, RemoteControl, Verdict
from nbsentinel.events import Confidence, Endpoint, Inode, ProcessKey
from support.simulation import EveryPeer, System


class Bench:
    """A simulated system with its table and a clock that the test moves."""

    def __init__(self) -> None:
        self.system, self.table, self.now = System(), ProcessTable(), 1_000_000
        self.remote = RemoteControl(self.table, EveryPeer())

    def see(self, key: ProcessKey) -> None:
        observation = self.system.executed(key, self.now)
        self.table.apply(observation)
        self.remote.consider(observation.process, self.system, self.now)

    def run(self, milliseconds: int) -> list[Verdict]:
        """Let time pass, judging whenever something is due."""
        found: list[Verdict] = []
        end = self.now + milliseconds
        while (due := self.remote.next_due()) is not None and due <= end:
            self.now = max(self.now, due)
            found += self.remote.judge(self.system, self.now)
        self.now = end
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


def relayed(bench: Bench, *argv: str, image: str = "shell") -> tuple[ProcessKey, ProcessKey, KernelObject]:
    """Return a process on two pipes, its relay and the relay's remote socket."""
    source, sink, socket = bench.system.pipe(), bench.system.pipe(), bench.system.connection()
    middle = bench.system.start("/usr/bin/python3", "job.py", image="python")
    key = bench.system.start(*argv, image=image, parent=middle)
    bench.system.stdio(key, source, sink)
    for fd, end in enumerate((source, sink, socket), 3):
        bench.system.hold(middle, fd, end)
    bench.see(middle)
    bench.see(key)
    return key, middle, socket


def test_direct_shell_is_judged_at_once(bench: Bench) -> None:
    """A shell on the peer's own socket needs no second look."""
    key = bench.system.start("/bin/sh", image="shell")
    socket = bench.system.connection()
    bench.system.stdio(key, socket, socket)
    bench.see(key)
    (verdict,) = bench.run(0)
    assert verdict.process.key == key
    assert verdict.confidence is Confidence.HIGH


def test_relayed_shell_is_confirmed_by_a_second_look(bench: Bench) -> None:
    """A path through a relay counts once it has lasted."""
    key, _, _ = relayed(bench, "/bin/sh")
    assert bench.run(CONFIRM_MS - 1) == []
    (verdict,) = bench.run(1)
    assert verdict.process.key == key


def test_script_handed_over_a_pipe_that_closes(bench: Bench) -> None:
    """A %%bash cell: the kernel writes the script into the shell's input and closes it."""
    key, middle, _ = relayed(bench, "/bin/bash")
    bench.run(10)
    del bench.system.descriptors[middle][3]
    assert bench.run(120_000) == []
    assert key in bench.system.processes


def test_idle_connection_of_a_busy_relay(bench: Bench) -> None:
    """A kernel with an idle keep-alive connection is no relay until bytes move."""
    _, middle, socket = relayed(bench, "/bin/bash")
    bench.system.hold(middle, 9, bench.system.connection(Endpoint("198.51.100.1", 443)))
    bench.system.moved[Inode(socket.number)] = Activity(-90_000, -90_000)
    assert bench.run(30_000) == []
    bench.system.moved[Inode(socket.number)] = Activity(bench.now, bench.now)
    (verdict,) = bench.run(15_000)
    assert verdict.confidence is Confidence.MEDIUM


def test_command_in_the_arguments_is_not_control(bench: Bench) -> None:
    """`!ls` in a cell: a shell on a pipe whose commands came with its arguments."""
    relayed(bench, "/bin/sh", "-c", "ls")
    assert bench.run(120_000) == []


def test_command_loop_in_the_arguments_is_control(bench: Bench) -> None:
    """`sh -c 'while read ...'`: it waits for input that only the peer can send."""
    key, _, _ = relayed(bench, "/bin/sh", "-c", "while read c; do eval $c; done")
    bench.system.reading.add(key)
    assert [v.process.key for v in bench.run(3_000)] == [key]


def test_relay_that_connects_late(bench: Bench) -> None:
    """The shell is there first, the connection comes an hour later: the connection wakes the judgement."""
    source, sink = bench.system.pipe(), bench.system.pipe()
    key, middle = bench.system.start("/bin/sh", image="shell"), bench.system.start("/bin/nc")
    bench.system.stdio(key, source, sink)
    bench.system.hold(middle, 3, source)
    bench.system.hold(middle, 4, sink)
    bench.see(key)
    assert bench.run(3_600_000) == []
    bench.system.hold(middle, 5, bench.system.connection())
    bench.remote.connected(middle, bench.now)
    assert [v.process.key for v in bench.run(CONFIRM_MS)] == [key]


def test_program_on_a_socket_that_runs_nothing(bench: Bench) -> None:
    """A service started with a socket as its streams is no command interpreter as long as it runs no programs."""
    key = bench.system.start("/usr/bin/server")
    socket = bench.system.connection()
    bench.system.stdio(key, socket, socket)
    bench.see(key)
    assert bench.run(30_000) == []
    bench.see(bench.system.start("/bin/sh", "-c", "id", parent=key, image="shell"))
    assert [v.process.key for v in bench.run(10_000)] == [key]


def test_script_that_serves_a_guest(bench: Bench) -> None:
    """A CGI script on an accepted connection answers and ends; one that waits for the guest's lines is a bind shell."""
    bench.remote = RemoteControl(bench.table, EveryPeer(), lambda _: False)
    key = bench.system.start("/bin/sh", "page.sh", image="shell")
    socket = bench.system.connection()
    bench.system.stdio(key, socket, socket)
    bench.see(key)
    assert bench.run(1_000) == []
    bench.system.reading.add(key)
    assert [v.process.key for v in bench.run(5_000)] == [key]


def test_script_that_is_a_pipe(bench: Bench) -> None:
    """`bash <(cat <&8) >&8`: standard input is quiet, the commands come through the operand."""
    key = bench.system.start("/bin/bash", "/dev/fd/63", image="shell")
    socket = bench.system.connection()
    bench.system.hold(key, 8, socket)
    bench.system.hold(key, 1, socket)
    bench.see(key)
    assert [v.process.key for v in bench.run(0)] == [key]


def test_shell_that_reads_another_descriptor(bench: Bench) -> None:
    """`while read x <&5; do eval "$x" >&5; done`: nothing is on its streams, but it waits for the peer's lines."""
    key = bench.system.start("/bin/bash", "-c", "...", image="shell")
    bench.system.hold(key, 5, bench.system.connection())
    bench.system.hold(key, 1, bench.system.pipe())
    bench.see(key)
    assert bench.run(5_000) == []
    bench.system.reading.add(key)
    (verdict,) = bench.run(5_000)
    assert verdict.one_way


def test_each_image_is_reported_once(bench: Bench) -> None:
    """A verdict ends the judgement of an image."""
    relayed(bench, "/bin/sh")
    assert len(bench.run(3_600_000)) == 1


def test_ended_processes_are_forgotten(bench: Bench) -> None:
    """Nothing is due for a process that is gone."""
    key, _, _ = relayed(bench, "/bin/sh")
    bench.remote.forget(key)
    assert bench.run(10_000) == []
    assert bench.remote.next_due() is None


def test_quiet_streams_are_not_judged(bench: Bench) -> None:
    """A shell without input cannot be fed."""
    key = bench.system.start("/bin/sh", image="shell")
    bench.see(key)
    assert bench.remote.next_due() is None

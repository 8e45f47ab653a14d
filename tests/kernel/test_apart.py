"""A kernel is as ever: whatever becomes of the agent, and whatever the user's code does to what we hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kernel.harness import Kernel, kernel, listener
from nbsentinel_guard import wire
from nbsentinel_kernel.channel import SOCKET_NAME, WAITING_LIMIT

WORK = "import socket\nfor n in range(20): socket.socket().connect_ex(('127.0.0.1', 9))\nprint('done')"
STATE = (
    "import threading, signal, sys, warnings\n"
    "print(sorted(n for n in globals() if not n.startswith('_i')), len(threading.enumerate()), signal.getsignal(2),"
    "threading._dangling.__class__, sorted(n for n in vars(get_ipython()) if 'sentinel' in n), sys.getrecursionlimit(),"
    "sys.gettrace(), sys.getprofile(), sys.excepthook.__class__, threading.Thread.start.__qualname__, open.__module__)"
)


def test_nothing_is_left_for_the_user_to_see(tmp_path: Path) -> None:
    """Names, threads, handlers and tracing are those of a kernel without us."""
    with (
        listener(tmp_path / "run"),
        kernel(tmp_path / "home", tmp_path / "run") as ours,
        kernel(tmp_path / "plain", None) as plain,
    ):
        assert plain.run(STATE).text.replace(str(plain.pid), "") == ours.run(STATE).text.replace(str(ours.pid), "")


def test_without_an_agent(tmp_path: Path) -> None:
    """No socket: cells run and print nothing of ours; once there is an agent it hears some, and how much not."""
    (tmp_path / "run").mkdir(mode=0o700)
    with kernel(tmp_path / "home", tmp_path / "run") as running:
        for _ in range(3):
            assert running.run(WORK)[:2] == ("ok", "done")
        with listener(tmp_path / "run") as heard:
            time.sleep(1.1)
            last = running.run(WORK)
            assert last[:2] == ("ok", "done")
            assert heard.wait(lambda: [c for c in heard.of("cell") if c[4:6] == ["stop", last.message_id]])
            assert len(heard.of("hello")) == 1
            assert len({c[5] for c in heard.of("cell")}) >= 4, "starts and ends of earlier cells were kept"
            assert max(told.content[1] for told in heard.told) >= 60, "the connections before are counted as dropped"
            assert len(heard.audits("socket.connect")) == 20


def test_agent_that_does_not_read(tmp_path: Path) -> None:
    """A socket that is full: nothing waits; cells are told afterwards in order, the rest is counted."""
    with listener(tmp_path / "run") as heard, kernel(tmp_path / "home", tmp_path / "run") as running:
        heard.reads.clear()
        messages = [running.run(WORK) for _ in range(60)]
        assert {outcome[:2] for outcome in messages} == {("ok", "done")}
        heard.reads.set()
        # What finds the socket still full is kept, and sent with what comes next.
        asked = [outcome.message_id for outcome in messages]
        assert any(
            heard.wait(lambda: [c for c in heard.of("cell") if c[4:6] == ["stop", asked[-1]]], 2)
            for _ in range(5)
            if running.run("print('done')")
        )
        starts = [c[5] for c in heard.of("cell") if c[4] == "start"]
        assert [message for message in starts if message in asked] == asked
        dropped = max(told.content[1] for told in heard.told)
        assert dropped > 0
        assert dropped + len(heard.audits("socket.connect")) == 60 * 20, "what was not told is counted, each one"


def test_stopped_agent(tmp_path: Path) -> None:
    """A listener that is stopped by a signal holds up nothing, not even a kernel that starts meanwhile."""
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    path = wire.address(str(run_dir), SOCKET_NAME)
    code = (
        "import socket, sys, time\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(sys.argv[1])\n"
        "s.listen(1); print('ready', flush=True); time.sleep(60)"
    )
    descriptors = [int(path.split("/")[4])] if path.startswith("/proc/self/fd/") else []
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, pass_fds=descriptors) as agent:
        try:
            assert agent.stdout is not None
            agent.stdout.readline()
            os.kill(agent.pid, signal.SIGSTOP)
            kernels = [Kernel(tmp_path / f"home{n}", run_dir) for n in range(4)]
            try:
                for running in kernels:
                    for _ in range(WAITING_LIMIT // 20):
                        assert running.run(WORK)[:2] == ("ok", "done")
            finally:
                for running in kernels:
                    running.close()
        finally:
            agent.kill()


def test_agent_dies_and_another_comes(tmp_path: Path) -> None:
    """An agent's death does not end the kernel, even where the user lets SIGPIPE do so; the next agent hears it."""
    with kernel(tmp_path / "home", tmp_path / "run") as running:
        with listener(tmp_path / "run") as first:
            time.sleep(1.1)
            running.run("import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)")
            assert first.wait(lambda: first.of("cell"))
        assert running.run(WORK)[:2] == ("ok", "done")
        time.sleep(1.1)
        with listener(tmp_path / "run") as second:
            running.run(WORK)
            time.sleep(1.1)
            last = running.run("print('done')", "later")
            assert last[:2] == ("ok", "done")
            assert second.wait(lambda: [c for c in second.of("cell") if c[6] == "later"])
            assert second.told[0].content[0] == "hello"


def test_descriptor_that_was_taken_away(tmp_path: Path) -> None:
    """Who closes our descriptor and opens a file under its number gets nothing of ours into that file."""
    code = (
        "import os, socket\nfor n in map(int, os.listdir('/proc/self/fd')):\n"
        "    try: name = os.readlink('/proc/self/fd/%d' % n)\n    except OSError: continue\n"
        "    if name.startswith('socket:'):\n        s = socket.socket(fileno=os.dup(n))\n"
        "        if s.family == socket.AF_UNIX and s.type == socket.SOCK_SEQPACKET:\n"
        "            f = os.open('victim', os.O_RDWR | os.O_CREAT)\n            os.dup2(f, n); print('took', n)\n"
        "        s.close()\n"
    )
    with listener(tmp_path / "run") as heard, kernel(tmp_path / "home", tmp_path / "run") as running:
        assert running.run(code).text.count("took") == 1
        time.sleep(1.1)
        assert running.run(WORK)[:2] == ("ok", "done")
        running.run("1", "after")
        assert (tmp_path / "home" / "victim").read_bytes() == b""
        assert heard.wait(lambda: [c for c in heard.of("cell") if c[6] == "after"]), "it reports over a new connection"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_say_nothing(tmp_path: Path, method: str) -> None:
    """A child process of multiprocessing is not the kernel, and does not hold the kernel's connection."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "child.py").write_text(
        "import socket, os\ndef work(_):\n    socket.socket().connect_ex(('127.9.9.9', 9)); return len([1 for n in "
        "os.listdir('/proc/self/fd') if 'socket' in os.path.realpath('/proc/self/fd/' + n)])\n"
    )
    code = (
        "import child, multiprocessing, sys; sys.path.insert(0, '.')\n"
        f"with multiprocessing.get_context({method!r}).Pool(2) as pool: print(len(pool.map(child.work, range(8))))"
    )
    with listener(tmp_path / "run") as heard, kernel(tmp_path / "home", tmp_path / "run") as running:
        assert running.run(code).text.endswith("8")
        last = running.run("1")
        assert heard.wait(lambda: [c for c in heard.of("cell") if c[4:6] == ["stop", last.message_id]])
        assert {told.pid for told in heard.told} == {running.pid}
        assert [e for e in heard.audits("socket.connect") if "127.9.9.9" in e[5].get("Address", "")] == []


def test_a_second_startup_file(tmp_path: Path) -> None:
    """Two startup files (of the machine and of the profile) do not tell everything twice."""
    startup = tmp_path / "home" / "ipython" / "profile_default" / "startup"
    with listener(tmp_path / "run") as heard:
        startup.mkdir(parents=True)
        from nbsentinel_kernel.startup import startup_file

        (startup / "50-again.py").write_text(startup_file(str(tmp_path / "run")))
        with kernel(tmp_path / "home", tmp_path / "run") as running:
            once = running.run(WORK)
            assert heard.wait(lambda: [c for c in heard.of("cell") if c[4:6] == ["stop", once.message_id]])
            assert len(heard.of("hello")) == 1
            assert len([e for e in heard.audits("socket.connect") if e[6] == once.message_id]) == 20


def test_another_users_socket_is_left_alone(tmp_path: Path) -> None:
    """A run folder that is missing, or a plain file in the socket's place, changes nothing."""
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run" / SOCKET_NAME).write_text("no socket")
    with (
        kernel(tmp_path / "home", tmp_path / "run") as running,
        kernel(tmp_path / "other", tmp_path / "nowhere") as other,
    ):
        assert running.run(WORK)[:2] == other.run(WORK)[:2] == ("ok", "done")
    assert (tmp_path / "run" / SOCKET_NAME).read_text() == "no socket"


@pytest.mark.parametrize("python", (os.environ.get("NBSENTINEL_TEST_KERNELS") or sys.executable).split(":"))
def test_other_versions(tmp_path: Path, python: str) -> None:
    """Every interpreter named in NBSENTINEL_TEST_KERNELS: cells and what they do, and the namespace is untouched."""
    with (
        listener(tmp_path / "run") as heard,
        kernel(tmp_path / "home", tmp_path / "run", python) as running,
        kernel(tmp_path / "plain", None, python) as plain,
    ):
        names = "print(sorted(n for n in globals() if not n.startswith('_i')))"
        assert plain.run(names).text == running.run(names).text
        outcome = running.run(WORK, "cell")
        assert outcome[:2] == ("ok", "done")
        thread = running.run(
            "import threading\nthreading.Timer(0.1, lambda: socket.socket().connect_ex(('127.0.0.3', 9))).start()"
        )
        running.run("import time; time.sleep(0.3)")
        assert heard.wait(lambda: len(heard.of("cell")) >= 8)
        hello = heard.of("hello")[0]
        assert next(c[4:7] for c in heard.of("cell") if c[5] == outcome.message_id) == [
            "start",
            outcome.message_id,
            "cell",
        ]
        if hello[8]:
            told = [e[6:] for e in heard.audits("socket.connect") if e[6] == outcome.message_id]
            assert told == [[outcome.message_id, True]] * 20
            later = [e for e in heard.audits("socket.connect") if e[5].get("Address") == "127.0.0.3:9"]
            assert [e[6:] for e in later] == [[thread.message_id, False]]
        else:
            assert hello[5].startswith("3.7."), "only Python 3.7 has no audit events"

"""The guard with real processes: what it sees, what it survives, and that callers never wait."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest

from guard.harness import LOOP, PROGRAM, Guard, guard
from nbsentinel_guard import abi, wire
from nbsentinel_guard.page import PROTECTED, Page

pytestmark = pytest.mark.skipif(abi.machine() is None, reason="no table of system calls for this machine")


@pytest.fixture
def running(tmp_path: Path):
    with guard(tmp_path / "run") as found:
        yield found


def run(found: Guard, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(found.command(*command), capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


def test_executions(running: Guard) -> None:
    """Every image is told with its file, arguments, standard streams and parent, before it runs."""
    result = run(running, "sh", "-c", "/bin/true one 'two three' | cat; exit 7")
    assert result.returncode == 7
    assert running.wait(lambda: len(running.of_kind("exec")) >= 3)
    by_name = {event["name"]: event for event in running.of_kind("exec")}
    assert by_name["true"]["argv"] == "/bin/true\0one\0two three\0"
    assert by_name["true"]["exe"] == os.path.realpath("/bin/true")
    assert by_name["cat"]["fd0"].startswith("pipe:[")
    assert by_name["cat"]["fd0"] == by_name["true"]["fd1"]
    assert by_name["cat"]["ppid"] == by_name["sh"]["pid"]
    assert by_name["cat"]["pstart"] == by_name["sh"]["start"]


def test_preloaded_libraries_are_told(running: Guard) -> None:
    """The variable that loads code into a program is evidence; its program runs as ever."""
    run(running, "/bin/true", env={**os.environ, "LD_PRELOAD": "/nowhere/evil.so"})
    assert running.wait(lambda: bool(running.of_kind("exec")))
    assert running.of_kind("exec")[0]["preloads"] == "LD_PRELOAD=/nowhere/evil.so"


@pytest.mark.parametrize("options", [(), ("--no-memory",)], ids=["memory", "no memory"])
def test_connections(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Connections are told by process and peer; where memory may not be read, the peer is looked up."""
    with guard(tmp_path / "run", *options) as running, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket, time; s = socket.create_connection(('127.0.0.1', {port})); time.sleep(0.2)"
        run(running, sys.executable, "-c", code)
        assert running.wait(lambda: any(e.get("port") == port for e in running.of_kind("connect")))
        event = next(e for e in running.of_kind("connect") if e.get("port") == port)
        assert event["ip"] == "127.0.0.1"
        assert event["inode"] > 0
        assert event["pid"] in {e["pid"] for e in running.of_kind("exec")}


def test_completeness(running: Guard) -> None:
    """A thousand programs of a few milliseconds, each with its own argument and connection: none is missed."""
    script = "for i in $(seq 1000); do /bin/echo n$i; done >/dev/null; (: </dev/tcp/127.0.0.1/1) 2>/dev/null; exit 0"
    assert run(running, "bash", "-c", script).returncode == 0
    names = lambda: [e["argv"].split("\0")[1] for e in running.of_kind("exec") if e["name"] == "echo"]  # noqa: E731
    assert running.wait(lambda: len(names()) >= 1000)
    assert Counter(names()) == Counter({f"n{i}": 1 for i in range(1, 1001)})
    # The C library may ask a local name service as well: that has no port.
    assert running.wait(lambda: [e["port"] for e in running.of_kind("connect") if "port" in e] == [1])


def test_path_search_is_one_execution(running: Guard) -> None:
    """Looking along PATH asks the kernel five times; only what ran is told."""
    path = "/nonexistent/a:/nonexistent/b:/nonexistent/c:" + os.environ["PATH"]
    run(running, "sh", "-c", "ls / >/dev/null", env={**os.environ, "PATH": path})
    assert running.wait(lambda: len(running.of_kind("exec")) >= 2)
    time.sleep(0.1)
    assert Counter(event["name"] for event in running.of_kind("exec")) == {"sh": 1, "ls": 1}


@pytest.mark.parametrize("call", ["kill", "limit", "everybody"])
def test_guard_cannot_be_stopped_from_inside(running: Guard, call: str) -> None:
    """Signals and limits for the guard's own processes are refused and told; the process's own children are its own."""
    target = running.holder.pid
    code = {
        "kill": f"import os; os.kill({target}, 9)",
        "limit": f"import resource; resource.prlimit({target}, resource.RLIMIT_NOFILE, (3, 3))",
        "everybody": "import os; os.kill(-1, 15)",
    }[call]
    result = run(running, sys.executable, "-c", code)
    assert "Operation not permitted" in result.stderr
    assert running.holder.poll() is None
    assert running.wait(lambda: bool(running.of_kind("refused")))
    child = "import subprocess; p = subprocess.Popen(['sleep', '9']); p.kill(); print(p.wait())"
    assert run(running, sys.executable, "-c", child).stdout.strip() == "-9"


def test_nested(running: Guard) -> None:
    """A guarded launcher runs its command as it is: the outer guard sees it."""
    inner = running.command("/bin/echo", "inner")
    result = run(running, *inner)
    assert (result.returncode, result.stdout, result.stderr) == (0, "inner\n", "")


def test_without_a_guard(tmp_path: Path) -> None:
    """No holder, or a folder that is not private: the command runs, and one line says that it is not guarded."""
    for folder in (tmp_path / "missing", tmp_path):
        tmp_path.chmod(0o755)
        command = [sys.executable, "-I", "-S", PROGRAM, "--run-dir", str(folder), "--", "sh", "-c", "echo on; exit 3"]
        result = subprocess.run(command, capture_output=True, text=True)
        assert (result.returncode, result.stdout) == (3, "on\n")
        assert result.stderr.startswith("nbsentinel guard: runs unguarded: ")
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("manner", ["silent", "takes it and dies"])
def test_nobody_acknowledges(tmp_path: Path, manner: str) -> None:
    """A holder that says nothing, or is gone before it says so: the command works, and has no child of ours."""
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(wire.address(str(run_dir)))
        server.listen()
        script = "ls / >/dev/null && /bin/echo works; cat /proc/$$/task/$$/children | wc -w"
        command = [sys.executable, "-I", "-S", PROGRAM, "--run-dir", str(run_dir), "--", "sh", "-c", script]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = server.accept()
            assert connection.recv(100) == b"hello"
            connection.send(b"settings connect=auto terminals=1 server=0")
            if manner != "silent":
                for descriptor in wire.receive(connection)[1]:
                    os.close(descriptor)
                connection.close()
            output, errors = process.communicate(timeout=20)
        connection.close()
    assert (process.returncode, output.split()) == (0, ["works", "2"])
    assert "nobody took the listener over" in errors


def test_old_holder_says_nothing_at_all(tmp_path: Path) -> None:
    """Somebody listens and never answers: the command runs unguarded after a moment, and says so."""
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(wire.address(str(run_dir)))
        server.listen()
        command = [sys.executable, "-I", "-S", PROGRAM, "--run-dir", str(run_dir), "--", "/bin/echo", "works"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stdout) == (0, "works\n")
    assert result.stderr == "nbsentinel guard: runs unguarded: timed out\n"


@pytest.mark.parametrize("harm", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_supervisor_harmed_under_load(running: Guard, harm: signal.Signals) -> None:
    """A stopped or killed supervisor is resumed or replaced; no call fails, none waits long, the harm is told."""
    with subprocess.Popen(running.command(sys.executable, "-c", LOOP, "4"), stdout=subprocess.PIPE, text=True) as loop:
        assert loop.stdout is not None
        assert loop.stdout.readline() == "ready\n"
        for turn in range(12):
            time.sleep(0.2 + 0.013 * turn)
            os.kill(running.supervisor(), harm)
        done, bad, worst = loop.stdout.read().split()
        assert loop.wait() == 0
    assert int(done) > 50
    assert bad == "0"
    assert float(worst) < 0.5
    word = {signal.SIGSTOP: "stopped", signal.SIGKILL: "killed"}[harm]
    assert sum(word == event["what"] for event in running.of_kind("notice")) >= 10


def test_events_of_a_killed_supervisor_are_not_lost(running: Guard) -> None:
    """Each connection of a loop is told once or more, although the supervisor dies again and again."""
    code = (
        "import socket, time\n"
        "for i in range(600):\n"
        "    s = socket.socket()\n"
        "    s.connect_ex(('127.0.0.1', 2000 + i)); s.close(); time.sleep(0.002)\n"
    )
    with subprocess.Popen(running.command(sys.executable, "-c", code)) as loop:
        while loop.poll() is None:
            time.sleep(0.07)
            os.kill(running.supervisor(), signal.SIGKILL)
        assert loop.returncode == 0
    told = lambda: {e["port"] for e in running.of_kind("connect") if "port" in e}  # noqa: E731
    running.wait(lambda: len(told()) >= 600, 2)
    assert told() == set(range(2000, 2600))


def test_agent_that_does_not_answer(running: Guard) -> None:
    """A shell that is held for the agent goes on after a moment although the agent says nothing."""
    running.delay = 1.0
    started = time.monotonic()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        result = subprocess.run(running.command("sh", "-c", "echo done"), stdin=ours, capture_output=True, text=True)
    assert result.stdout == "done\n"
    assert time.monotonic() - started < 0.5


def test_guard_outlives_the_agent(tmp_path: Path) -> None:
    """What is guarded goes on when the agent is gone, and the next agent hears of it."""
    running = Guard(tmp_path / "run")
    with subprocess.Popen(running.command(sys.executable, "-c", LOOP, "3"), stdout=subprocess.PIPE, text=True) as loop:
        assert loop.stdout is not None
        assert loop.stdout.readline() == "ready\n"
        running.leave()
        time.sleep(0.5)
        before = len(running.events)
        running.join()
        assert loop.stdout.read().split()[1] == "0"
    assert running.wait(lambda: len(running.events) > before + 100)
    assert running.close() == 0


def test_guarded_process_is_no_agent(running: Guard) -> None:
    """What is guarded cannot take the agent's place, not even when there is none."""
    running.leave()
    time.sleep(0.3)
    code = (
        f"import sys; sys.path.insert(0, {os.path.dirname(os.path.dirname(PROGRAM))!r})\n"
        f"from nbsentinel_guard import wire\n"
        f"c = wire.connect({str(running.run_dir)!r}, 2); c.send(b'agent x keeper=0'); print(wire.receive(c))"
    )
    assert run(running, sys.executable, "-c", code).stdout.strip() == "(b'no', [])"


def test_usage() -> None:
    """Wrong usage is one line and exit code 2; commands that cannot run have the codes that shells give."""
    for arguments, code in (
        ([], 2),
        (["--nonsense", "--", "ls"], 2),
        (["--", "/etc/passwd"], 126),
        (["--", "/no"], 127),
    ):
        result = subprocess.run([sys.executable, "-I", "-S", PROGRAM, *arguments], capture_output=True, text=True)
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr


def test_interrupted_waits_are_errors_as_ever(running: Guard) -> None:
    """Handlers that interrupt every 10 ms make hardly a connect look successful that was not.

    A call that the supervisor has not received yet is interrupted like any other, and CPython takes that for success;
    a filter without the kernel's features against it lets this happen in 0.4% of calls and more.
    """
    code = textwrap.dedent(
        """
        import errno, signal, socket
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        wrong = 0
        for _ in range(3000):
            s = socket.socket()
            try:
                s.connect(("127.0.0.1", 1))
                wrong += 1
            except ConnectionRefusedError:
                pass
            s.close()
        print(wrong)
        """
    )
    result = run(running, sys.executable, "-c", code)
    assert int(result.stdout) <= 40, result.stderr


def test_callers_that_say_nothing_hold_up_nobody(running: Guard) -> None:
    """A hundred connections that say nothing, or nonsense, or hand over something else: launchers are served."""
    squatters = []
    pipe = os.pipe()
    try:
        for number in range(100):
            connection = wire.connect(str(running.run_dir), 2)
            squatters.append(connection)
            if number % 3 == 1:
                connection.send(b"nonsense")
            elif number % 3 == 2:
                wire.send(connection, b"guard kind=command", [pipe[0]])
        os.write(pipe[1], b"x")
        result = run(running, "/bin/echo", "served")
        assert (result.stdout, result.stderr) == ("served\n", "")
        supervisor = running.supervisor()
        time.sleep(1.5)
        assert running.supervisor() == supervisor
        assert running.wait(lambda: any(event["name"] == "echo" for event in running.of_kind("exec")))
    finally:
        for connection in squatters:
            connection.close()
        for descriptor in pipe:
            os.close(descriptor)


def test_failure_after_the_filter(running: Guard) -> None:
    """Whatever fails once the filter is in force, the command runs: somebody answers its calls."""
    agent = os.path.dirname(os.path.dirname(PROGRAM))
    code = (
        f"import sys; sys.path.insert(0, {agent!r})\n"
        "from nbsentinel_guard import landlock, launcher\n"
        "def fail(): raise ValueError('broken')\n"
        "landlock.scope_signals = fail\n"
        "command = ['sh', '-c', 'ls / >/dev/null; echo $?']\n"
        f"launcher.main(['--run-dir', {str(running.run_dir)!r}, '--kind', 'server', '--', *command])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert result.stdout == "0\n", result.stderr
    assert "nobody took the listener over" in result.stderr


def test_the_holder_may_read_what_is_started(running: Guard) -> None:
    """What goes under the guard lets the holder, and whoever is below it, read its memory, as Yama asks for."""
    code = (
        "from nbsentinel_guard import launcher, seccomp\n"
        "allowed = []\n"
        "plain, seccomp.let_read = seccomp.let_read, allowed.append\n"
        f"told = launcher.guard_this_process({str(running.run_dir)!r})\n"
        "import os\n"
        "yama = os.path.exists('/proc/sys/kernel/yama/ptrace_scope')\n"
        "print(allowed, repr(told), plain(allowed[0]) == yama)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout == f"[{running.holder.pid}] '' True\n", done.stderr


def test_guard_of_another_version(tmp_path: Path) -> None:
    """A holder that we do not understand: the command runs unguarded, and says so."""
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(wire.address(str(run_dir)))
        server.listen()
        command = [sys.executable, "-I", "-S", PROGRAM, "--run-dir", str(run_dir), "--", "/bin/echo", "works"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = server.accept()
            connection.recv(100)
            connection.close()
            output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (0, "works\n")
    assert errors == "nbsentinel guard: runs unguarded: the guard speaks another version\n"


def test_page_of_another_version() -> None:
    """A page that is not laid out as ours is an error, never read."""
    page = Page()
    assert Page(os.dup(page.descriptor)).who(0) == 0
    page.introduce(PROTECTED + 1, 99)
    with pytest.raises(OSError, match="another version"):
        Page(os.dup(page.descriptor))
    short = os.memfd_create("short")
    with pytest.raises(OSError, match="another version"):
        Page(short)
    os.close(short)

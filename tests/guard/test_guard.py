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

from guard.harness import PROGRAM, Guard, guard
from nbsentinel_guard import abi

pytestmark = pytest.mark.skipif(abi.machine() is None, reason="no table of system calls for this machine")
LOOP = textwrap.dedent(
    """
    import errno, os, socket, sys, time
    sys.stdout.write("ready\\n"); sys.stdout.flush()
    end = time.monotonic() + float(sys.argv[1])
    worst = 0.0; done = bad = 0
    while time.monotonic() < end:
        started = time.monotonic()
        if done % 4 == 0:
            pid = os.posix_spawn("/bin/true", ["true"], {})
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0: bad += 1
        s = socket.socket()
        try:
            s.connect(("127.0.0.1", 1))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED: bad += 1
        else:
            bad += 1
        s.close()
        worst = max(worst, time.monotonic() - started); done += 1
    print(done, bad, worst)
    """
)


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
    assert running.of_kind("exec")[0]["LD_PRELOAD"] == "/nowhere/evil.so"


@pytest.mark.parametrize("options", [(), ("--no-memory",)], ids=["memory", "no memory"])
def test_connections(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Connections are told by process and peer; where memory may not be read, by process and socket."""
    with guard(tmp_path / "run", *options) as running, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        run(running, sys.executable, "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}))")
        told = "ip" if not options else "socket"
        wanted = lambda: [e for e in running.of_kind("connect") if e.get("port", port) == port and e.get(told)]  # noqa: E731
        assert running.wait(lambda: bool(wanted()))
        event = wanted()[0]
        if options:
            assert event["socket"].startswith("socket:[")
        else:
            assert (event["ip"], event["port"]) == ("127.0.0.1", port)
        assert event["pid"] in {e["pid"] for e in running.of_kind("exec")}


def test_completeness(running: Guard) -> None:
    """A thousand programs of a few milliseconds, each with its own argument and connection: none is missed."""
    script = "for i in $(seq 1000); do /bin/echo n$i; done >/dev/null; (: </dev/tcp/127.0.0.1/1) 2>/dev/null; exit 0"
    assert run(running, "bash", "-c", script).returncode == 0
    names = lambda: [e["argv"].split("\0")[1] for e in running.of_kind("exec") if e["name"] == "echo"]  # noqa: E731
    assert running.wait(lambda: len(names()) >= 1000)
    assert Counter(names()) == Counter({f"n{i}": 1 for i in range(1, 1001)})
    assert [e["port"] for e in running.of_kind("connect")] == [1]


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


def test_nobody_acknowledges(tmp_path: Path) -> None:
    """A holder that says nothing: the command works, and has no child that it did not start."""
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(run_dir / "guard.sock"))
        server.listen()
        script = "ls / >/dev/null && /bin/echo works; cat /proc/$$/task/$$/children | wc -w"
        command = [sys.executable, "-I", "-S", PROGRAM, "--run-dir", str(run_dir), "--", "sh", "-c", script]
        result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert result.returncode == 0
    assert result.stdout.splitlines()[0] == "works"
    assert "nobody took the listener over" in result.stderr


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
    word = {signal.SIGSTOP: "resumed", signal.SIGKILL: "replaced"}[harm]
    assert sum(word in event["what"] for event in running.of_kind("notice")) >= 10


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
    told = lambda: {e["port"] for e in running.events if e["kind"] in ("connect", "recovered") and "port" in e}  # noqa: E731
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
        running.control, running.socket = running._attach()
        messages = [running.socket.recv(100_000) for _ in range(5)]
        assert all(b'"kind"' in message for message in messages)
        assert loop.stdout.read().split()[1] == "0"
    assert running.close() == 0


def test_guarded_process_is_no_agent(running: Guard) -> None:
    """What is guarded cannot take the agent's place, not even when there is none."""
    running.leave()
    time.sleep(0.3)
    code = (
        f"import sys; sys.path.insert(0, {os.path.dirname(os.path.dirname(PROGRAM))!r})\n"
        f"from nbsentinel_guard import wire\n"
        f"c = wire.connect({str(running.run_dir)!r}, 2); c.send(b'agent'); print(wire.receive(c))"
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
    """A storm of signals never makes a connect look successful that was not."""
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
    assert int(result.stdout) <= 3, result.stderr

"""Every trapped call beside connect and execve: it behaves as ever, and is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from guard.harness import Guard, guard
from nbsentinel_guard import abi

pytestmark = pytest.mark.skipif(abi.machine() is None, reason="no table of system calls for this machine")
needs_compiler = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("c") / "calls"
    subprocess.run(["cc", "-O1", "-w", "-o", built, Path(__file__).with_name("calls.c")], check=True)
    return built


@pytest.fixture
def running(tmp_path: Path):
    with guard(tmp_path / "run") as found:
        yield found


def run(found: Guard, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(found.command(*command), capture_output=True, text=True, timeout=60)


@needs_compiler
def test_calls_behave_as_ever_and_are_told(running: Guard, program: Path) -> None:
    """The same results as without the guard, and one record for each call with what it was about."""
    plain = subprocess.run([program], capture_output=True, text=True)
    inside = run(running, str(program))
    assert (inside.returncode, inside.stdout) == (plain.returncode, plain.stdout)
    assert running.wait(lambda: bool(running.of_kind("hidden")))
    calls = {event["name"]: event for event in running.of_kind("call")}
    assert set(calls) >= {
        "listen",
        "memfd_create",
        "mount",
        "pidfd_getfd",
        "process_vm_readv",
        "process_vm_writev",
        "ptrace",
        "setns",
        "unshare",
    }
    child = calls["ptrace"]["TargetProcessId"]
    assert {calls[name]["TargetProcessId"] for name in ("process_vm_readv", "pidfd_getfd")} == {child}
    assert calls["memfd_create"]["FileName"] == "some-name"
    assert (calls["mount"]["Source"], calls["mount"]["Target"]) == ("source", "/mnt")
    assert calls["setns"]["Namespace"].startswith("uts:[")
    assert int(calls["listen"]["Socket"]) > 0
    ways = Counter((event["way"], event["port"]) for event in running.of_kind("connect") if "port" in event)
    assert ways[1, 9] == 1, "a datagram's receiver is told once"
    assert (ways[2, 3], ways[2, 4]) == (1, 1), "fast open is a connection"
    assert running.of_kind("hidden")[0]["exe"] == str(program)


@needs_compiler
def test_names_are_told(running: Guard, program: Path) -> None:
    """The question to a name server is read from the call, where the machine has a name server at all."""
    servers = [line for line in Path("/etc/resolv.conf").read_text().splitlines() if line.startswith("nameserver")]
    if not servers:
        pytest.skip("no name server is configured")
    run(running, str(program))
    assert running.wait(lambda: bool(running.of_kind("name")))
    assert "host.nbsentinel.test" in running.of_kind("name")[0]["name"]


@needs_compiler
@pytest.mark.skipif(abi.machine() != "x86_64", reason="int 0x80 is of x86")
def test_ways_around_are_refused_and_told(running: Guard, program: Path) -> None:
    """io_uring, 32-bit calls and a whole user's priority fail as on a kernel without them; each is told."""
    result = run(running, str(program), "all")
    refused = result.stdout.partition("refused:\n")[2].splitlines()
    assert refused[0] == "io_uring -1 Function not implemented"
    assert refused[1] == "int 0x80 -38"
    assert refused[2] == "everybody's priority -1 Operation not permitted"
    assert running.wait(lambda: len(running.of_kind("refused")) >= 3)
    told = {event["name"] for event in running.of_kind("refused")}
    assert told == {"io_uring_setup", "foreign-architecture", "setpriority"}


def test_execute_only_program_keeps_what_was_known(running: Guard, tmp_path: Path) -> None:
    """A file that may be executed and not read: its path and streams are those of the attempt."""
    hidden = tmp_path / "hidden"
    shutil.copy("/bin/cat", hidden)
    hidden.chmod(0o111)
    result = subprocess.run(running.command(str(hidden)), input="x", capture_output=True, text=True)
    assert result.stdout == "x"
    assert running.wait(lambda: any(event["unreadable"] for event in running.of_kind("exec")))
    event = next(event for event in running.of_kind("exec") if event["unreadable"])
    if os.geteuid() != 0:
        assert event["exe"] == str(hidden)
    assert event["fd0"].startswith("pipe:[")


def test_hidden_process_keeps_its_streams(running: Guard, tmp_path: Path) -> None:
    """A process that made itself unreadable and then executes an execute-only file: the streams are still known."""
    hidden = tmp_path / "hidden"
    shutil.copy("/bin/true", hidden)
    hidden.chmod(0o111)
    code = (
        f"import ctypes, os; ctypes.CDLL(None).prctl({abi.PR_SET_DUMPABLE}, 0, 0, 0, 0); "
        f"os.execv({str(hidden)!r}, ['hidden'])"
    )
    with open(os.devnull) as null:
        assert subprocess.run(running.command(sys.executable, "-c", code), stdin=null).returncode == 0
    assert running.wait(lambda: any(event["name"] == "hidden" for event in running.of_kind("exec")))
    event = next(event for event in running.of_kind("exec") if event["name"] == "hidden")
    assert event["fd0"] == "/dev/null"


def test_signal_through_a_folder_of_proc(running: Guard) -> None:
    """A folder of /proc serves as a pidfd: signals through it are judged by the process it stands for."""
    code = (
        "import os, signal\n"
        f"folder = os.open('/proc/{running.holder.pid}', os.O_DIRECTORY)\n"
        "try: signal.pidfd_send_signal(folder, 9)\n"
        "except OSError as error: print(error.errno)\n"
    )
    assert run(running, sys.executable, "-c", code).stdout == "1\n"
    assert running.holder.poll() is None


def _lasting_threads(pid: int) -> set[int]:
    """Return the threads of a process when they are three or more, without those that are about to end."""
    deadline, before = time.monotonic() + 5, set[int]()
    while True:
        threads = set(map(int, os.listdir(f"/proc/{pid}/task")))
        if len(threads) >= 3 and threads == before:
            return threads
        assert time.monotonic() < deadline
        before = threads
        time.sleep(0.3)


@pytest.mark.parametrize("call", ["tkill", "affinity"])
def test_threads_of_ours(running: Guard, call: str) -> None:
    """Naming one of the supervisor's threads is the same as naming the supervisor."""
    supervisor = running.supervisor()
    subprocess.run(running.command("true"))
    with subprocess.Popen(running.command("sleep", "10")) as sleeper:
        thread = max(_lasting_threads(supervisor))
        code = {
            "tkill": "import ctypes; libc = ctypes.CDLL(None, use_errno=True); "
            f"print(libc.syscall({abi.calls()['tkill']}, {thread}, 9), ctypes.get_errno())",
            "affinity": f"import os\ntry: os.sched_setaffinity({thread}, {{0}}); print('done')\n"
            "except OSError as error: print(-1, error.errno)",
        }[call]
        assert run(running, sys.executable, "-c", code).stdout == "-1 1\n"
        sleeper.terminate()
    assert running.supervisor() == supervisor


def test_group_of_ours(tmp_path: Path) -> None:
    """A signal to one's own process group reaches the group, unless one of ours is in it."""
    with guard(tmp_path / "run") as running:
        code = "import os, signal; signal.signal(15, lambda *_: print('caught')); os.kill(0, 15)"
        inside = subprocess.run(
            running.command(sys.executable, "-c", code), capture_output=True, text=True, start_new_session=True
        )
        assert inside.stdout == "caught\n"
        same_group = run(running, sys.executable, "-c", code)  # the holder was started by this very process
        assert "not permitted" in same_group.stderr


SET_USER = ("/usr/bin/su", "/bin/su", "/usr/bin/passwd", "/usr/bin/chsh")


def test_lost_rights_are_explained_at_a_terminal(running: Guard, tmp_path: Path) -> None:
    """A set-uid program at a terminal: one line says what is off; in a pipe nothing is added."""
    program = next((path for path in SET_USER if os.path.exists(path) and os.stat(path).st_mode & 0o4000), None)
    if program is None:
        pytest.skip("no set-uid program here")
    inner = " ".join(running.command(program, "--help"))
    shown = subprocess.run(["script", "-qec", inner, "/dev/null"], capture_output=True, text=True, timeout=30).stdout
    assert shown.count("nbsentinel: ") == 1
    assert f"{os.path.basename(program)} has no special rights here" in shown
    assert "terminals = false" in shown
    piped = run(running, "sh", "-c", f"{program} --help 2>&1 | cat")
    assert "nbsentinel" not in piped.stdout + piped.stderr
    ordinary = " ".join(running.command("ls", "/"))
    shown = subprocess.run(["script", "-qec", ordinary, "/dev/null"], capture_output=True, text=True, timeout=30).stdout
    assert "nbsentinel" not in shown


def test_terminals_can_be_left_out(tmp_path: Path) -> None:
    """With `[guard] terminals = false` a terminal runs as if there were no guard; a kernel does not."""
    with guard(tmp_path / "run") as running:
        running.settings("connect=auto terminals=0 server=0")
        script = "grep -c '^Seccomp:.2' /proc/self/status"
        command = running.command("sh", "-c", script)
        for kind, guarded in (("terminal", False), ("kernel", True)):
            kinded = [*command[: command.index("--")], "--kind", kind, *command[command.index("--") :]]
            plain = subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout
            inside = subprocess.run(kinded, capture_output=True, text=True)
            assert inside.stderr == ""
            assert inside.stdout == ("1\n" if guarded else plain)


def test_thread_that_guards_itself(running: Guard) -> None:
    """TSYNC: a process of many threads guards itself; what any of its threads starts is seen."""
    agent = str(Path(abi.__file__).parent.parent)
    code = (
        f"import sys, threading, subprocess, time; sys.path.insert(0, {agent!r})\n"
        "from nbsentinel_guard import abi, launcher\n"
        "go = threading.Event()\n"
        "def work(): go.wait(); print(subprocess.run(['/bin/echo', 'from a thread'], capture_output=True).stdout)\n"
        "threads = [threading.Thread(target=work) for _ in range(11)]\n"
        "[thread.start() for thread in threads]\n"
        f"told = launcher.guard_this_process({str(running.run_dir)!r}, flags=abi.FLAG_TSYNC | abi.FLAG_TSYNC_ESRCH)\n"
        "print('told', repr(told)); go.set(); [thread.join() for thread in threads]\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines()[0] == "told ''", result.stderr
    assert result.stdout.count("from a thread") == 11
    assert running.wait(lambda: len([e for e in running.of_kind("exec") if e["name"] == "echo"]) == 11)


def test_self_guard_without_a_taker(tmp_path: Path) -> None:
    """A process that guards itself and finds nobody to take the listener answers its own calls: nothing fails."""
    import socket

    from nbsentinel_guard import wire

    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    agent = str(Path(abi.__file__).parent.parent)
    code = (
        f"import sys, subprocess; sys.path.insert(0, {agent!r})\n"
        "from nbsentinel_guard import abi, launcher\n"
        f"print(launcher.guard_this_process({str(run_dir)!r}, flags=abi.FLAG_TSYNC | abi.FLAG_TSYNC_ESRCH))\n"
        "print(subprocess.run(['/bin/echo', 'works'], capture_output=True, text=True).stdout, flush=True)\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(wire.address(str(run_dir)))
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(100)
            connection.send(b"settings connect=auto")
            for descriptor in wire.receive(connection)[1]:
                os.close(descriptor)
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with open(tmp_path / "output", "w+") as output:  # a pipe would be held by the child that stays
            subprocess.run(
                [sys.executable, "-c", code + "import os, signal; os.killpg(0, 9)\n"],
                stdout=output,
                timeout=20,
                start_new_session=True,
            )
            output.seek(0)
            lines = output.read().splitlines()
        thread.join()
    assert lines == ["nobody took the listener over; what runs here is not watched", "works", ""]

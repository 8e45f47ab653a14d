"""The agent's socket: it tells status and findings, to its own user, and can be made to do nothing else."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbsentinel.errors import AgentUnreachableError
from nbsentinel.local.client import ask, status
from nbsentinel.local.protocol import REQUEST_LIMIT, peer_of, short_address, socket_path
from nbsentinel.local.server import CLIENT_LIMIT, LocalServer
from nbsentinel.report.spool import Entry, Spool


class Agent:
    """A server over a spool."""

    def __init__(self, folder: Path) -> None:
        self.run_dir = folder / "run"
        self.run_dir.mkdir(mode=0o700)
        self.spool = Spool(folder / "state", max_bytes=1 << 20)
        self.asked: list[tuple[object, object, int]] = []
        self.server = LocalServer(
            self.run_dir, self.spool, lambda: {"state": "ready"}, {7: {"live": True}}.get, self._drill
        )
        self.server.start()
        self._sequence = 0

    def _drill(self, severity: object, wait: object, pid: int) -> Iterator[dict[str, object]]:
        self.asked.append((severity, wait, pid))
        yield {"test_alert": {"sinks": ["file"]}}
        yield {}
        yield {"delivery": {"sink": "file", "ms": 1}}

    def find(self, count: int) -> None:
        """Record findings, as the recorder does."""
        entries = []
        for _ in range(count):
            self._sequence += 1
            line = json.dumps({"n": self._sequence}).encode()
            entries.append(Entry(chain="c", sequence=self._sequence, class_uid=2004, severity=4, line=line))
        self.spool.append(entries)
        self.server.recorded()

    def send(self, data: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            with short_address(socket_path(self.run_dir)) as address:
                client.connect(address)
            client.sendall(data)
            return client.makefile("rb").readline()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path)
    yield made
    made.server.stop()
    made.spool.close()


def numbers(agent: Agent, **request: object) -> list[int]:
    answers = ask(agent.run_dir, {"request": "findings", **request})
    return [answer["finding"]["event"]["n"] for answer in answers]


def test_status(agent: Agent) -> None:
    """Status is what the agent says."""
    assert status(agent.run_dir) == {"state": "ready"}


def test_newest_findings_and_those_after(agent: Agent) -> None:
    """The newest findings, oldest first; or everything after a known one."""
    agent.find(10)
    assert numbers(agent, limit=3) == [8, 9, 10]
    assert numbers(agent, after=7, limit=2) == [8, 9]
    assert numbers(agent, limit=0) == []


@pytest.mark.parametrize(("limit", "expected"), [(20, [1, 2, 3, 4, 5, 6]), (1, [2, 3, 4, 5, 6]), (0, [3, 4, 5, 6])])
def test_following(agent: Agent, limit: int, expected: list[int]) -> None:
    """A follower sees the newest findings that it asked for, also none of them, and each new one once, as it comes."""
    agent.find(2)
    seen: list[int] = []

    def follow() -> None:
        for answer in ask(agent.run_dir, {"request": "findings", "follow": True, "limit": limit}):
            seen.append(answer["finding"]["event"]["n"])
            if len(seen) == len(expected):
                return

    thread = threading.Thread(target=follow)
    thread.start()
    for _ in range(2):
        time.sleep(0.2)
        agent.find(2)
    thread.join(5)
    assert not thread.is_alive()
    assert seen == expected


@pytest.mark.parametrize(
    "request_line",
    [
        b"\n",
        b"{}\n",
        b"[]\n",
        b"\xff\n",
        b'{"request": "stop"}\n',
        b'{"request": 1}\n',
        b"x" * (REQUEST_LIMIT + 10) + b"\n",
    ],
)
def test_anything_else_is_refused(agent: Agent, request_line: bytes) -> None:
    """Nonsense and unknown requests are answered with an error, and the server goes on."""
    assert b"error" in agent.send(request_line)
    assert status(agent.run_dir)["state"] == "ready"


def test_private(agent: Agent) -> None:
    """Only our own user may connect."""
    assert socket_path(agent.run_dir).stat().st_mode & 0o777 == 0o600


def test_peer_credentials() -> None:
    """The kernel tells who is at the other end."""
    one, two = socket.socketpair()
    with one, two:
        assert peer_of(one) == (os.getpid(), os.getuid(), os.getgid())


def test_too_many_clients_do_not_stop_it(agent: Agent) -> None:
    """Clients beyond the bound are turned away and counted; when they are gone, all is as before."""
    clients = []
    for _ in range(CLIENT_LIMIT + 5):
        client = socket.socket(socket.AF_UNIX)
        with short_address(socket_path(agent.run_dir)) as address:
            client.connect(address)
        clients.append(client)
    deadline = time.monotonic() + 5
    while agent.server.refused < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert agent.server.refused == 5
    for client in clients:
        client.close()
    time.sleep(0.2)
    assert status(agent.run_dir)["state"] == "ready"


def test_run_dir_with_a_long_path(tmp_path: Path) -> None:
    """A path too long for a socket's address is no obstacle."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    agent = Agent(folder)
    try:
        assert status(agent.run_dir)["state"] == "ready"
    finally:
        agent.server.stop()
        agent.spool.close()


def test_no_agent(tmp_path: Path) -> None:
    """Without an agent there is one clear error with a next step."""
    with pytest.raises(AgentUnreachableError, match="no agent runs here") as caught:
        status(tmp_path)
    assert caught.value.hint


def test_agent_that_stops_while_followed(agent: Agent) -> None:
    """A follower is let go when the agent stops."""
    done = threading.Event()

    def follow() -> None:
        for _ in ask(agent.run_dir, {"request": "findings", "follow": True}):
            pass
        done.set()

    threading.Thread(target=follow, daemon=True).start()
    time.sleep(0.2)
    agent.server.stop()
    assert done.wait(8)


def test_test_alert(agent: Agent) -> None:
    """What is asked goes on as it came, with the pid that the kernel names; an empty answer keeps the line open."""
    answers = list(ask(agent.run_dir, {"request": "test-alert", "severity": ["x"], "wait": None, "pid": 1}))
    assert answers == [{"test_alert": {"sinks": ["file"]}}, {"delivery": {"sink": "file", "ms": 1}}]
    assert agent.asked == [(["x"], None, os.getpid())]

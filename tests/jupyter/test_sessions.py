"""The server's side: what it tells, when, and that nothing of it disturbs the server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import types
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from nbsentinel.sensors.kernels import decode
from nbsentinel_guard import wire
from nbsentinel_jupyter import sessions
from nbsentinel_jupyter.link import SOCKET_NAME, Link
from nbsentinel_jupyter.server import tell_sessions
from nbsentinel_kernel import channel


class Loop:
    """A loop that keeps what is to be called."""

    def __init__(self) -> None:
        self.later: list[Callable[[], Awaitable[None]]] = []

    def call_later(self, _seconds: float, callback: Callable[[], Awaitable[None]]) -> None:
        self.later.append(callback)


class Server:
    """A Jupyter server as far as the extension looks at it: one kernel, one terminal, sessions that a test sets."""

    def __init__(self) -> None:
        kernel = types.SimpleNamespace(provisioner=types.SimpleNamespace(pid=os.getpid()))
        terminal = types.SimpleNamespace(ptyproc=types.SimpleNamespace(pid=os.getppid()))
        self.listed: list[dict[str, Any]] = [session("notebook", "sub/a.ipynb")]
        self.asked = 0
        self.kernels = types.SimpleNamespace(
            list_kernel_ids=lambda: ["k"], get_kernel=lambda _id: kernel, root_dir="/root"
        )
        self.settings: dict[str, Any] = {
            "kernel_manager": self.kernels,
            "session_manager": types.SimpleNamespace(list_sessions=self.list_sessions),
            "terminal_manager": types.SimpleNamespace(terminals={"1": terminal}),
        }
        self.web_app = types.SimpleNamespace(settings=self.settings)
        self.io_loop = Loop()
        self.log = logging.getLogger("a server")

    async def list_sessions(self) -> list[dict[str, Any]]:
        self.asked += 1
        return self.listed

    def turn(self) -> None:
        """Let the loop call what is due."""
        asyncio.run(_run(self.io_loop.later.pop()))


async def _run(callback: Callable[[], Awaitable[None]]) -> None:
    await callback()


def session(kind: str, path: str, kernel: str = "k", name: str = "") -> dict[str, Any]:
    return {"type": kind, "path": path, "name": name, "kernel": {"id": kernel}}


class Agent:
    """A socket in the agent's place."""

    def __init__(self, run_dir: Path, *, welcomes: bool = True) -> None:
        run_dir.mkdir(mode=0o700, exist_ok=True)
        self._path, self._welcomes = run_dir / SOCKET_NAME, welcomes
        self._path.unlink(missing_ok=True)
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server.bind(wire.address(str(run_dir), SOCKET_NAME))
        self._server.listen(8)
        self._server.setblocking(False)
        self.connections: list[socket.socket] = []

    def told(self) -> list[list[Any]]:
        """Accept who waits, and return all new messages."""
        found = []
        try:
            self.connections.append(self._server.accept()[0])
            if self._welcomes:
                self.connections[-1].send(b"[1]")
        except BlockingIOError:
            pass
        for connection in self.connections:
            try:
                while raw := connection.recv(65536, socket.MSG_DONTWAIT):
                    assert isinstance(decode.read(raw), decode.Sessions), "the agent takes it"
                    found.append(json.loads(raw))
            except BlockingIOError:
                continue
        return found

    def close(self) -> None:
        for one in (self._server, *self.connections):
            one.close()
        self._path.unlink()


@contextmanager
def agent(run_dir: Path, *, welcomes: bool = True) -> Iterator[Agent]:
    with closing(Agent(run_dir, welcomes=welcomes)) as running:
        yield running


@pytest.fixture
def server() -> Server:
    return Server()


def start(server: Server, run_dir: Path) -> sessions.Teller:
    teller = sessions.Teller(server, str(run_dir))  # type: ignore[arg-type]
    teller.start()
    return teller


def test_what_is_told_and_when(server: Server, tmp_path: Path) -> None:
    """Everything is told once, and again when something changes, by the paths that the file system knows."""
    with agent(tmp_path / "run") as running:
        teller = start(server, tmp_path / "run")
        server.turn()
        rows = [[os.getpid(), [["notebook", "/root/sub/a.ipynb", ""]]]]
        assert running.told() == [["sessions", 0, 0, 0, 1, rows, [[os.getppid(), "1"]], 0]]
        server.turn()
        assert running.told() == []
        server.listed = [session("console", "console-1", name="Console 1"), session("notebook", "b.ipynb")]
        server.turn()
        ((*_, kernels, _, _),) = running.told()
        assert kernels == [[os.getpid(), [["notebook", "/root/b.ipynb", ""], ["console", "console-1", "Console 1"]]]], (
            "notebooks first, and a console's path is none"
        )
        server.settings["terminal_manager"].terminals.clear()
        server.kernels.list_kernel_ids = list
        server.turn()
        assert running.told() == [["sessions", 0, 0, 0, 1, [], [], 0]]
        teller._link.close()


def test_without_an_agent(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No agent: nothing is asked of the server, nothing is logged, and it is looked for as long as the server runs."""
    caplog.set_level(logging.DEBUG)
    start(server, tmp_path / "run")
    for _ in range(5):
        server.turn()
    ours = [record for record in caplog.records if record.name == "a server"]
    assert (server.asked, ours, len(server.io_loop.later)) == (0, [], 1)


def test_another_agent_is_told_everything(server: Server, tmp_path: Path) -> None:
    """An agent that has taken the place of the first is told at the next look, although nothing has changed."""
    teller = start(server, tmp_path / "run")
    with agent(tmp_path / "run") as first:
        server.turn()
        assert len(first.told()) == 1
        server.turn()
    server.turn()
    with agent(tmp_path / "run") as second:
        server.turn()
        assert len(second.told()) == 1
    teller._link.close()


def test_an_agent_that_does_not_want_us(server: Server, tmp_path: Path) -> None:
    """Who closes without a welcome is tried less and less."""
    teller = start(server, tmp_path / "run")
    with agent(tmp_path / "run", welcomes=False) as running:
        for _ in range(60):
            server.turn()
            running.told()
            while running.connections:
                running.connections.pop().close()
    assert 3 <= teller._link.connections <= 8
    teller._link.close()


def test_an_agent_that_does_not_read(server: Server, tmp_path: Path) -> None:
    """A full socket makes nobody wait; the newest state is told once there is room."""
    teller = start(server, tmp_path / "run")
    with agent(tmp_path / "run") as running:
        for number in range(2000):
            server.listed = [session("notebook", f"{number}.ipynb")]
            server.turn()
        running.told()
        server.turn()
        assert running.told()[-1][5][0][1] == [["notebook", "/root/1999.ipynb", ""]]
    teller._link.close()


@pytest.mark.parametrize("broken", ["list_sessions", "settings", "kernels", "terminals"])
def test_other_versions(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str) -> None:
    """Whatever another version of the server has instead: one line for debugging, and the next look comes."""
    caplog.set_level(logging.DEBUG)
    if broken == "settings":
        server.web_app.settings = None
    elif broken == "kernels":
        server.kernels.get_kernel = None
    elif broken == "terminals":
        server.settings["terminal_manager"].terminals = 7
    else:
        server.settings["session_manager"].list_sessions = lambda: {}["gone"]
    with agent(tmp_path / "run"):
        teller = start(server, tmp_path / "run")
        for _ in range(4):
            server.turn()
    ours = [record for record in caplog.records if record.name == "a server"]
    assert [(record.levelname, record.message.split(":")[0]) for record in ours] == [("DEBUG", "nbsentinel")]
    teller._link.close()


def test_nothing_of_ours_ends_a_server(caplog: pytest.LogCaptureFixture) -> None:
    """A server without a loop, or with anything else missing, loads the extension all the same."""
    caplog.set_level(logging.DEBUG)
    tell_sessions(types.SimpleNamespace(log=logging.getLogger("a server")))  # type: ignore[arg-type]
    assert [record.levelname for record in caplog.records if record.name == "a server"] == ["DEBUG"]


def test_kernels_without_a_process(server: Server, tmp_path: Path) -> None:
    """Kernels that run elsewhere are not asked for: that would be a question over the network."""
    server.kernels.get_kernel = lambda _id: types.SimpleNamespace(provisioner=None)
    with agent(tmp_path / "run") as running:
        teller = start(server, tmp_path / "run")
        server.turn()
        assert [message[5] for message in running.told()] == [[]]
        assert server.asked == 0
        teller._link.close()


def test_more_than_fits(tmp_path: Path) -> None:
    """However much is open, with whatever names, a message stays within what the agent takes and counts the rest."""
    opened = [("notebook", "\udc80\x1b\u202e" * 300, "n" * 100)]
    raw = sessions.message([(pid, opened) for pid in range(1, 300)], [(pid, str(pid)) for pid in range(1, 100)])
    found = decode.read(raw)
    assert isinstance(found, decode.Sessions)
    assert len(found.terminals) == 99
    assert found.left_out == 299 - len(found.kernels) > 0


def test_a_folder_of_others(tmp_path: Path) -> None:
    """Nothing is told where somebody else could have put the socket."""
    with agent(tmp_path / "run"):
        (tmp_path / "run").chmod(0o755)
        assert not Link(str(tmp_path / "run")).reach()
        (tmp_path / "run").chmod(0o700)
        link = Link(str(tmp_path / "run"))
        assert link.reach()
        link.close()


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    """A run folder with a long name is reached, and no look leaves a descriptor behind."""
    run_dir = tmp_path / ("d" * 100)
    before = len(os.listdir("/proc/self/fd"))
    link = Link(str(run_dir))
    run_dir.mkdir(mode=0o700)
    for _ in range(5):
        assert not link.reach()
    assert len(os.listdir("/proc/self/fd")) == before
    with agent(run_dir):
        assert link.reach()
        link.close()


def test_the_same_socket_as_kernels() -> None:
    """The extension and the kernels mean the same socket and speak the same version."""
    assert SOCKET_NAME == channel.SOCKET_NAME
    assert sessions.VERSION == channel.VERSION

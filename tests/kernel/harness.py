"""A listener in the agent's place, and real kernels that report to it."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

from nbsentinel_guard import wire
from nbsentinel_kernel.channel import SOCKET_NAME
from nbsentinel_kernel.startup import startup_file
from support.waiting import wait_until

KEY = "11" * 32


class Told(NamedTuple):
    """One message, with the process that the operating system names as its sender."""

    pid: int
    content: list[Any]


class Listener:
    """Takes messages as the agent does.

    Args:
        run_dir: Folder of the socket.
        watched: The files that kernels are told to watch; none for their own list.
    """

    def __init__(self, run_dir: Path, watched: tuple[str, ...] = ()) -> None:
        run_dir.mkdir(mode=0o700, exist_ok=True)
        self.told: list[Told] = []
        self._welcome = json.dumps([1, KEY, watched]).encode()
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._path = str(run_dir / SOCKET_NAME)
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        self._server.bind(wire.address(str(run_dir), SOCKET_NAME))
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._server.listen(16)
        self.reads = threading.Event()
        self.reads.set()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        self._connections: list[socket.socket] = []

    def _accept(self) -> None:
        while not self._end.is_set():
            with suppress(OSError):
                connection, _ = self._server.accept()
                connection.send(self._welcome)
                self._connections.append(connection)
                self._threads.append(threading.Thread(target=self._read, args=(connection,), daemon=True))
                self._threads[-1].start()

    def _read(self, connection: socket.socket) -> None:
        while self.reads.wait() and not self._end.is_set():
            try:
                message, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(12))
            except OSError:
                return
            if not message:
                return
            self.told.append(Told(struct.unpack("3i", ancillary[0][2])[0], json.loads(message)))

    def of(self, kind: str, pid: int | None = None) -> list[list[Any]]:
        """Return the messages of a kind, of one process or of all."""
        return [one.content for one in list(self.told) if one.content[0] == kind and pid in (None, one.pid)]

    def audits(self, name: str) -> list[list[Any]]:
        """Return the audit events of one name."""
        return [one for one in self.of("audit") if one[4] == name]

    def wait(self, condition: Callable[[], object], seconds: float = 10.0) -> bool:
        """Wait until something holds; return whether it does."""
        return wait_until(condition, seconds)

    def close(self) -> None:
        """Go away as an agent that dies."""
        self._end.set()
        self.reads.set()
        for one in (self._server, *self._connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        for thread in self._threads:
            thread.join(5)


class Outcome(NamedTuple):
    """What came of a cell."""

    status: str
    text: str
    """Everything that it printed, showed or raised."""
    message_id: str
    number: int | None
    """What the notebook shows as In [n]."""


class Kernel:
    """A real kernel.

    Args:
        folder: For its profile; it is its home folder too.
        run_dir: Folder of the agent; None for a kernel without us.
        python: The interpreter; None for the tests' own.
        launcher: What starts it, with its arguments.
    """

    def __init__(
        self,
        folder: Path,
        run_dir: Path | None,
        python: str | None = None,
        *,
        launcher: Sequence[str] = (),
        **variables: str,
    ) -> None:
        startup = folder / "ipython" / "profile_default" / "startup"
        startup.mkdir(parents=True, exist_ok=True)
        if run_dir is not None:
            (startup / "00-nbsentinel.py").write_text(startup_file(str(run_dir)))
        environment = {**os.environ, "IPYTHONDIR": str(folder / "ipython"), "HOME": str(folder), **variables}
        self.manager = KernelManager(kernel_name="python3")
        if python is not None or launcher:
            command = [python or sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            self.manager.kernel_spec.argv = [*launcher, *command]
        self.manager.start_kernel(env=environment, cwd=str(folder))
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)
        self.pid = int(self.run("import os; print(os.getpid())").text)

    def run(self, code: str, cell_id: str | None = None, timeout: float = 60, **more: Any) -> Outcome:
        """Run a cell as JupyterLab asks for it and wait for its end."""
        said: list[str] = []
        message_id = self.ask(code, cell_id, **more)
        deadline = time.monotonic() + timeout
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.01, deadline - time.monotonic()))
            if message["parent_header"].get("msg_id") != message_id:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                break
            if kind in ("stream", "execute_result", "error"):
                said.append(content.get("text") or content.get("ename") or content["data"]["text/plain"])
        reply = self.client.get_shell_msg(timeout=timeout)
        while reply["parent_header"].get("msg_id") != message_id:
            reply = self.client.get_shell_msg(timeout=timeout)
        content = reply["content"]
        return Outcome(content["status"], "".join(said).strip(), message_id, content.get("execution_count"))

    def ask(self, code: str, cell_id: str | None = None, *, subshell: str | None = None, **more: Any) -> str:
        """Send a cell without waiting; return its message id."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "stop_on_error": False}
        message = self.client.session.msg("execute_request", {**content, "allow_stdin": False, **more})
        message["metadata"] = {"cellId": cell_id} if cell_id else {}
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)
        found: str = message["header"]["msg_id"]
        return found

    def subshell(self) -> str:
        """Make a subshell; return its id."""
        message = self.client.session.msg("create_subshell_request")
        self.client.control_channel.send(message)
        reply = self.client.get_control_msg(timeout=30)
        found: str = reply["content"]["subshell_id"]
        return found

    def close(self) -> None:
        """End it."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@contextmanager
def kernel(
    folder: Path, run_dir: Path | None, python: str | None = None, *, launcher: Sequence[str] = (), **variables: str
) -> Iterator[Kernel]:
    """Run a kernel for the time of a test."""
    running = Kernel(folder, run_dir, python, launcher=launcher, **variables)
    try:
        yield running
    finally:
        running.close()


@contextmanager
def listener(run_dir: Path, watched: tuple[str, ...] = ()) -> Iterator[Listener]:
    """Listen for the time of a test."""
    running = Listener(run_dir, watched)
    try:
        yield running
    finally:
        running.close()

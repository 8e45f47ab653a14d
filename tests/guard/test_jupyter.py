"""A real Jupyter server with kernels and terminals under the guard, used as a browser does."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from guard.harness import Guard, guard
from nbsentinel_guard import abi

requests = pytest.importorskip("requests")
websocket = pytest.importorskip("websocket")
pytest.importorskip("jupyter_server")
pytestmark = pytest.mark.skipif(abi.machine() is None, reason="no table of system calls for this machine")

PATIENCE_S = 90
CELLS = (
    "1 + 1",
    "!echo from a shell; exit 3",
    "import subprocess; subprocess.run(['sh', '-c', 'exit 3']).returncode",
    "import socket; socket.socket().connect_ex(('127.0.0.1', 1))",
    "%%bash\necho in bash\n(exit 4) || echo $?",
    "1 / 0",
    "import os, multiprocessing as m; m.get_context('fork').Pool(2).map(abs, [-1, -2])",
    "import asyncio; p = await asyncio.create_subprocess_exec('cat', '/', stderr=-1); (await p.communicate())[1]",
    "import concurrent.futures as f; sum(f.ThreadPoolExecutor(8).map(lambda i: os.system(f'exit {i}') >> 8, range(9)))",
    "%env NAME=value\n!echo $NAME",
    "import signal; [signal.getsignal(s) for s in (signal.SIGPIPE, signal.SIGTERM)]",
)
_FULL_SERVER = """import socket; l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(0)
f = [socket.socket() for _ in range(4)]; [x.setblocking(False) or x.connect_ex(l.getsockname()) for x in f]
"""
INTERRUPTED = (
    "import time; print('asleep'); time.sleep(100)",
    "print('asleep')\n!sleep 100",
    "print('asleep'); import subprocess; subprocess.run(['sleep', '100'])",
    "print('asleep')\nwhile True: pass",
    _FULL_SERVER + "print('asleep'); socket.socket().connect(l.getsockname())",
)
TYPED = (
    "echo $((6 * 7))",
    "yes | head -1; echo ${PIPESTATUS[*]}",
    "(exec 3<>/dev/tcp/127.0.0.1/1) 2>/dev/null; echo $?",
    "test -t 0; echo $?; stty size",
)
KEYS = (("\x03", "130"), ("\x1c", "131"))
PROMPT = "ready> "


class Server:
    """A Jupyter server on a free port.

    Args:
        prefix: Comes before the server's command.
        inner: Comes before each kernel's and each terminal's.
    """

    def __init__(self, folder: Path, prefix: list[str], inner: list[str]) -> None:
        spec = folder / "data" / "kernels" / "guarded"
        spec.mkdir(parents=True)
        kernel = [*inner, sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        (spec / "kernel.json").write_text(
            json.dumps(
                {"argv": kernel, "display_name": "guarded", "language": "python", "metadata": {"debugger": True}}
            )
        )
        self.token, self.folder = secrets.token_hex(16), folder
        shell = json.dumps({"shell_command": [*inner, "bash", "--norc", "--noprofile"]})
        environment = {
            **os.environ,
            "HOME": str(folder),
            "JUPYTER_PATH": str(folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "IPYTHONDIR": str(folder / "ipython"),
        }
        with socket.create_server(("127.0.0.1", 0)) as trial:
            self.port = trial.getsockname()[1]
        options = [f"--ServerApp.{name}" for name in ("ip=127.0.0.1", f"port={self.port}", "port_retries=0")]
        options += ["--no-browser", f"--ServerApp.terminado_settings={shell}", f"--ServerApp.root_dir={folder}"]
        command = [sys.executable, "-m", "jupyter_server", *options, f"--IdentityProvider.token={self.token}"]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=folder
            )
        self.browser = requests.Session()
        self.browser.trust_env = False
        self.browser.headers["Authorization"] = f"token {self.token}"

    def wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(requests.ConnectionError):
                self.call("GET", "status")
                return
            time.sleep(0.1)
        raise AssertionError(f"the server does not answer: {(self.folder / 'log').read_text()}")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        address = f"http://127.0.0.1:{self.port}/api/{path}"
        answer = self.browser.request(method, address, json=body, timeout=PATIENCE_S)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def open(self, path: str) -> Any:
        address = f"ws://127.0.0.1:{self.port}/{path}?token={self.token}"
        return websocket.create_connection(address, timeout=PATIENCE_S, http_no_proxy=["127.0.0.1"])

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()
            self.browser.close()


class Kernel:
    """A kernel of the server, through its websocket."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.id = server.call("POST", "kernels", {"name": "guarded"})["id"]
        self.channels = server.open(f"api/kernels/{self.id}/channels")

    def send(self, code: str) -> str:
        number = uuid.uuid4().hex
        header = {"msg_id": number, "msg_type": "execute_request", "session": number, "username": "", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        self.channels.send(json.dumps(message))
        return number

    def run(self, code: str, at_output: Callable[[], object] | None = None) -> list[str]:
        """Run a cell and return what it shows; do something once its first output is there."""
        number, shown, over = self.send(code), [], set()
        while over != {"reply", "idle"}:
            answer = json.loads(self.channels.recv())
            if answer["parent_header"].get("msg_id") != number:
                continue
            kind, content = answer["msg_type"], answer["content"]
            if kind == "stream":
                shown.append(content["text"])
                if at_output:
                    # A kernel may miss a signal between its last words and the call in which it waits.
                    time.sleep(0.5)
                    at_output()
                    at_output = None
            elif kind == "error":
                shown.append(f"{content['ename']}: {content['evalue']}")
            elif kind == "execute_result":
                shown.append(content["data"]["text/plain"])
            elif kind == "execute_reply":
                over.add("reply")
            elif kind == "status" and content["execution_state"] == "idle":
                over.add("idle")
        return ["".join(shown)]

    def interrupt(self) -> None:
        self.server.call("POST", f"kernels/{self.id}/interrupt")

    def restart(self) -> None:
        self.channels.close()
        self.server.call("POST", f"kernels/{self.id}/restart")
        self.channels = self.server.open(f"api/kernels/{self.id}/channels")

    def pid(self) -> int:
        return int(self.run("import os; os.getpid()")[0])


def use_kernel(server: Server) -> list[str]:
    """Run cells, interrupt, restart, kill and shut down a kernel; return all that was shown."""
    kernel = Kernel(server)
    shown = [line for cell in CELLS for line in kernel.run(cell)]
    shown += [line for cell in INTERRUPTED for line in kernel.run(cell, kernel.interrupt)]
    kernel.run("kept = 1; child = subprocess.Popen(['sleep', '100'])")
    first = kernel.pid()
    kernel.restart()
    shown += kernel.run("kept")
    second = kernel.pid()
    shown.append(f"another process: {first != second}, the first is gone: {not Path(f'/proc/{first}').exists()}")
    with closing(server.open(f"api/kernels/{kernel.id}/channels")) as watching:
        os.kill(second, signal.SIGKILL)
        while json.loads(watching.recv())["content"].get("execution_state") != "restarting":
            continue
    kernel.channels.close()
    deadline = time.monotonic() + PATIENCE_S
    while server.call("GET", f"kernels/{kernel.id}")["execution_state"] not in ("idle", "starting"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kernel.channels = server.open(f"api/kernels/{kernel.id}/channels")
    shown += kernel.run("'after its death'")
    third = kernel.pid()
    kernel.channels.close()
    server.call("DELETE", f"kernels/{kernel.id}")
    shown.append(f"shut down: {not Path(f'/proc/{third}').exists()}, left: {server.call('GET', 'kernels')}")
    return shown


def use_terminal(server: Server) -> list[str]:
    """Type lines and keys into a terminal; return what it said."""
    name = server.call("POST", "terminals", {})["name"]
    said = ""
    taken = 0
    with closing(server.open(f"terminals/websocket/{name}")) as tab:

        def wait_for(text: str) -> None:
            nonlocal said, taken
            while (at := said.find(text, taken)) < 0:
                kind, *content = json.loads(tab.recv())
                assert kind != "disconnect", said
                if kind == "stdout":
                    said += content[0]
            taken = at + len(text)

        def type_in(text: str) -> None:
            tab.send(json.dumps(["stdin", text]))

        wait_for("$ ")
        type_in("PS1='rea''dy> '; PS2=; stty rows 24 cols 80\r")
        for line in TYPED:
            wait_for(PROMPT)
            type_in(line + "\r")
        for key, _ in KEYS:
            wait_for(PROMPT)
            type_in("ulimit -c 0; sh -c 'echo asl''eep; exec sleep 100'\r")
            wait_for("asleep")
            time.sleep(0.3)
            type_in(key)
            wait_for(PROMPT)
            type_in("echo $?\r")
        wait_for(PROMPT)
        type_in("exit\r")
        with suppress(websocket.WebSocketConnectionClosedException):
            while json.loads(tab.recv())[0] != "disconnect":
                continue
    said = said[said.index(PROMPT) :]
    return [re.sub(r"\x1b\[\?2004[hl]\r?", "", said[:taken])]


@contextmanager
def serving(folder: Path, prefix: list[str], inner: list[str]) -> Iterator[Server]:
    folder.mkdir()
    server = Server(folder, prefix, inner)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def use(folder: Path, prefix: list[str], inner: list[str]) -> list[str]:
    with serving(folder, prefix, inner) as server:
        shown = use_kernel(server) + use_terminal(server)
    return [*shown, f"exit code {server.process.returncode}"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What is shown without the guard."""
    return use(tmp_path_factory.mktemp("plain") / "home", [], [])


@pytest.fixture
def running(tmp_path: Path):
    with guard(tmp_path / "run") as found:
        yield found


def test_without_the_guard(plain: list[str]) -> None:
    """The comparison is worth something: cells run, and interrupts, restarts and keys do what they should."""
    text = "\n".join(plain)
    assert text.count("KeyboardInterrupt") >= 4
    assert "NameError: name 'kept' is not defined" in text
    assert "'after its death'" in text
    assert all(code in text for _, code in KEYS)


@pytest.mark.parametrize("way", ["kernels and terminals", "the whole server", "both"])
def test_with_the_guard(running: Guard, tmp_path: Path, plain: list[str], way: str) -> None:
    """A browser sees no difference, whether the guard starts each kernel and terminal, the server, or both."""
    command = running.command()
    prefix = command if way != "kernels and terminals" else []
    inner = command if way != "the whole server" else []
    assert use(tmp_path / "home", prefix, inner) == plain
    assert any("ipykernel_launcher" in event.get("argv", "") for event in running.of_kind("exec"))
    assert not running.of_kind("failure")


def test_notebook_that_is_run(running: Guard, tmp_path: Path) -> None:
    """A notebook that nbconvert runs has the same results; in how many pieces text comes is a matter of time."""
    pytest.importorskip("nbconvert")
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "outputs": [], "execution_count": None, "source": text}
        for i, text in enumerate(CELLS)
        if text != "1 / 0"
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "python3"}}
    book = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "book.ipynb").write_text(json.dumps(book))
    command = [sys.executable, "-m", "nbconvert", "--execute", "--to", "notebook", "--stdout", "book.ipynb"]
    environment = {**os.environ, "HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython")}
    found = [
        subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=PATIENCE_S)
        for line in (command, running.command(*command))
    ]
    assert found[0].returncode == 0, found[0].stderr
    assert found[1].returncode == 0, found[1].stderr
    bare, watched = (outputs(one.stdout) for one in found)
    assert len(bare) == len(cells)
    assert watched == bare


def outputs(notebook: str) -> list[list[dict[str, Any]]]:
    """Return what the cells of a notebook gave, the pieces of one stream that follow each other joined."""
    found = []
    for cell in json.loads(notebook)["cells"]:
        joined: list[dict[str, Any]] = []
        for output in cell["outputs"]:
            text = "".join(output.get("text", ""))
            if joined and output["output_type"] == "stream" and joined[-1].get("name") == output["name"]:
                joined[-1]["text"] += text
            else:
                joined.append({**output, "text": text})
        found.append(joined)
    return found

"""A real kernel under the guard, started by its own manager, whatever becomes of supervisor and agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from guard.harness import Guard, guard
from nbsentinel_guard import abi

pytestmark = pytest.mark.skipif(abi.machine() is None, reason="no table of system calls for this machine")

KERNEL = """
import time
from jupyter_client import KernelManager

manager = KernelManager(kernel_name="python3")
manager.start_kernel()
client = manager.client()
client.start_channels()
client.wait_for_ready(timeout=60)


def run(code, wait=True):
    def show(message):
        kind, content = message["msg_type"], message["content"]
        if kind in ("stream", "execute_result", "error"):
            print(kind, content.get("text") or content.get("ename") or content["data"]["text/plain"])

    return client.execute_interactive(code, timeout=60, output_hook=show)["content"]["status"]


print(run("1 + 1"))
print(run("!echo from a shell"))
print(run("import subprocess; subprocess.run(['sh', '-c', 'exit 3']).returncode"))
print(run("import socket; socket.socket().connect_ex(('127.0.0.1', 1))"))
import threading
threading.Timer(1, manager.interrupt_kernel).start()
print(run("import time; time.sleep(30)"))
manager.restart_kernel(now=True)
client.wait_for_ready(timeout=60)
print(run("'restarted'"))
client.stop_channels()
manager.shutdown_kernel()
print("gone", not manager.is_alive())
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str]:
    """Without the guard."""
    code, output = outcome([sys.executable, "-c", KERNEL], tmp_path_factory.mktemp("plain"))
    assert output.splitlines()[-1] == "gone True"
    assert "KeyboardInterrupt" in output
    return code, output


def outcome(command: list[str], folder: Path) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout


@pytest.mark.parametrize("state", ["works", "supervisor killed", "agent gone"])
def test_kernel(tmp_path: Path, plain: tuple[int, str], state: str) -> None:
    """A real kernel with its manager: cells, shells, interrupt, restart and shutdown, whatever becomes of the guard."""
    with guard(tmp_path / "run") as running:
        harm = threading.Event()
        if state == "agent gone":
            running.leave()
        elif state == "supervisor killed":
            threading.Thread(target=_kill_supervisors, args=(running, harm)).start()
        try:
            inside = outcome(running.command(sys.executable, "-c", KERNEL), tmp_path)
        finally:
            harm.set()
    assert inside == plain


def _kill_supervisors(running: Guard, until: threading.Event) -> None:
    while not until.wait(0.3):
        os.kill(running.supervisor(), signal.SIGKILL)

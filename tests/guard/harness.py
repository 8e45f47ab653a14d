"""A guard of its own for a test: the holder, and this process in the agent's place."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nbsentinel_guard
from nbsentinel_guard import wire

PROGRAM = str(Path(nbsentinel_guard.__file__).with_name("__main__.py"))
Event = dict[str, Any]


class Guard:
    """A running guard and what it has told so far."""

    def __init__(self, run_dir: Path, *options: str) -> None:
        run_dir.mkdir(mode=0o700, exist_ok=True)
        self.run_dir = run_dir
        self.events: list[Event] = []
        command = [sys.executable, "-I", "-S", PROGRAM, "hold", str(run_dir), *options]
        self.holder = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.holder.stdout is not None
        with self.holder.stdout:
            assert self.holder.stdout.readline() == b"ready\n"
        self.control, self.socket = self._attach()
        self.delay = 0.0
        threading.Thread(target=self._listen, daemon=True).start()

    def _attach(self) -> tuple[socket.socket, socket.socket]:
        control = wire.connect(str(self.run_dir), 5)
        control.send(b"agent")
        message, descriptors = wire.receive(control)
        assert message.startswith(b"ok"), message
        return control, socket.socket(fileno=descriptors[0])

    def _listen(self) -> None:
        while True:
            try:
                message = self.socket.recv(wire.MESSAGE_LIMIT)
            except OSError:
                return
            if not message:
                return
            event = json.loads(message)
            self.events.append(event)
            if "held" in event:
                time.sleep(self.delay)
                with suppress(OSError):
                    self.socket.send(b"%d" % event["held"])

    def command(self, *command: str) -> list[str]:
        """Return a command as it is run under this guard."""
        return [sys.executable, "-I", "-S", PROGRAM, "--run-dir", str(self.run_dir), "--", *command]

    def supervisor(self) -> int:
        """Return the supervisor's pid: the holder's only child."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            children = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children").read_text().split()
            if children:
                return int(children[0])
            time.sleep(0.005)
        raise AssertionError("no supervisor")

    def of_kind(self, kind: str) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in list(self.events) if event["kind"] == kind]

    def wait(self, condition: Callable[[], bool], seconds: float = 5.0) -> bool:
        """Wait until something holds; return whether it does."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def leave(self) -> None:
        """End the connection as an agent's death does."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.control.close()

    def close(self) -> int:
        """Leave, and return the holder's exit code: it ends when nothing guarded is left."""
        self.leave()
        try:
            return self.holder.wait(15)
        except subprocess.TimeoutExpired:
            self.holder.kill()
            return self.holder.wait()


@contextmanager
def guard(run_dir: Path, *options: str) -> Iterator[Guard]:
    """Run a guard for the time of a test; afterwards it must have ended by itself."""
    running = Guard(run_dir, *options)
    try:
        yield running
    finally:
        code = running.close()
    assert code == 0

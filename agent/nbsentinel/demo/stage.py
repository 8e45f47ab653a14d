"""The processes of the demonstration: a collector, an agent and a notebook kernel, each real and each ended again."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nbsentinel.errors import NbsentinelError

START_S = 30.0
END_S = 8.0


class DemoError(NbsentinelError):
    """A step of the demonstration did not happen."""


def wait_for(what: str, condition: Callable[[], Any], seconds: float = START_S) -> Any:
    """Return the first true answer of a condition.

    Raises:
        DemoError: It did not become true in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.02)
    raise DemoError(f"{what}: did not happen within {seconds:.0f} s", hint="The logs are printed above.")


def free_port() -> int:
    """Return a TCP port on loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Stage:
    """A throwaway folder with everything that runs in it.

    Use as a context manager: leaving it ends the processes it started, by pid, and removes the folder.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nbsentinel-demo-"))
        self.port = free_port()
        self._running: list[subprocess.Popen[bytes]] = []
        self._files = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._running):
            _end(process)
        self._files.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """The collector's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def run_dir(self) -> Path:
        """The agent's run folder."""
        return self.folder / "run"

    @property
    def report(self) -> Path:
        """The file that the agent writes findings to."""
        return self.folder / "events.jsonl"

    @property
    def database(self) -> Path:
        """The collector's database."""
        return self.folder / "collector.db"

    def nbsentinel(self, *arguments: str) -> list[str]:
        """Return the command that runs this very program."""
        return [sys.executable, "-m", "nbsentinel", *arguments]

    def spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a program; its output goes to a file of that name."""
        log = self._files.enter_context((self.folder / f"{name}.log").open("wb"))
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        self._running.append(process)
        return process

    def logs(self) -> Iterator[str]:
        """Yield the last lines of every log, for a failed demonstration."""
        for path in sorted(self.folder.glob("*.log")):
            yield f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}"

    def get(self, path: str, **query: str | int) -> Any:
        """Return the collector's answer, None while it does not answer."""
        import requests

        session = requests.Session()
        session.trust_env = False
        try:
            answer = session.get(self.url + path, params=query, timeout=5)
        except requests.RequestException:
            return None
        if answer.status_code != 200:
            return None
        return answer.content if "ndjson" in answer.headers.get("Content-Type", "") else answer.json()

    def start_collector(self) -> None:
        """Write a configuration, make an enrolment token, serve."""
        config = self.folder / "collector.toml"
        config.write_text(
            f'[collector]\nhost = "127.0.0.1"\nport = {self.port}\nid = "demo"\ndatabase = "sqlite:///{self.database}"\n'
        )
        made = subprocess.run(
            self.nbsentinel("collector", "token", "--config", str(config)), capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            raise DemoError(f"no enrolment token: {made.stderr.strip()}", hint="pip install 'nbsentinel[demo]'")
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(made.stdout.strip().split()[-1] + "\n")
        self.spawn("collector", self.nbsentinel("collector", "--config", str(config)))
        wait_for("the collector answers", lambda: self.get("/healthz") is not None)

    def start_agent(self) -> dict[str, Any]:
        """Write a configuration that counts loopback as remote, start the agent, return its status when ready."""
        from nbsentinel.errors import AgentUnreachableError
        from nbsentinel.local.client import status

        config = self.folder / "agent.toml"
        config.write_text(
            f'[agent]\nstate_dir = "{self.folder}/state"\nrun_dir = "{self.run_dir}"\nheartbeat_seconds = 5\n\n'
            f"[detect]\nloopback_is_remote = true\n\n"
            f'[report.file]\npath = "{self.report}"\n\n'
            f'[report.collector]\nurl = "{self.url}"\ntoken_file = "{self.folder}/token"\n'
        )
        self.spawn("agent", self.nbsentinel("agent", "--config", str(config)))

        def ready() -> dict[str, Any] | None:
            try:
                found = status(self.run_dir)
            except AgentUnreachableError:
                return None
            return found if found.get("state") == "ready" else None

        found = wait_for("the agent is ready", ready)
        assert isinstance(found, dict)
        return found


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def notebook_kernel(folder: Path) -> Iterator[Callable[[str], object]]:
    """Start a real Python kernel for a notebook and yield a function that runs a cell in it."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3", connection_file=str(folder / "kernel-demo.json"))
    from nbsentinel_kernel.startup import startup_file

    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-nbsentinel.py").write_text(startup_file(str(folder / "run")))
    environment = {
        **os.environ,
        "IPYTHONDIR": str(folder / "ipython"),
        "JPY_SESSION_NAME": str(folder / "demo.ipynb"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    # The kernel specification of this very environment, whatever else is installed for the user.
    assert manager.kernel_spec is not None
    manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    client = None
    try:
        with (folder / "kernel.log").open("wb") as log:
            manager.start_kernel(env=environment, cwd=str(folder), stdout=log, stderr=log)
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=START_S)
        yield functools.partial(
            client.execute_interactive, timeout=START_S, allow_stdin=False, output_hook=lambda _: None
        )
    finally:
        if client is not None:
            client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def load_lines(data: bytes) -> list[dict[str, Any]]:
    """Return the events of an NDJSON export."""
    return [json.loads(line) for line in data.splitlines() if line]

"""An agent for measuring, in throwaway folders, as an ordinary user where we are root."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nbsentinel_guard

USER = 1000
LAUNCHER = str(Path(nbsentinel_guard.__file__).with_name("__main__.py"))
TICKS = os.sysconf("SC_CLK_TCK")


def as_user() -> list[str]:
    """Command prefix that drops root."""
    if os.geteuid() != 0:
        return []
    return [
        "setpriv",
        f"--reuid={USER}",
        f"--regid={USER}",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
        "--",
    ]


def own(path: Path) -> Path:
    """Give a file or folder to the user that everything is measured as; return it."""
    if os.geteuid() == 0:
        os.chown(path, USER, USER)
    return path


def build(folder: Path, name: str, *options: str) -> str:
    """Compile `programs/NAME.c` and return the program's path; it is there for every user."""
    folder.mkdir(exist_ok=True)
    source, target = Path(__file__).with_name("programs") / f"{name}.c", folder / name
    subprocess.run(["gcc", "-O2", "-Wall", *options, "-o", target, source], check=True)
    return str(target)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used; 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int, name: str) -> float:
    """Return a line of /proc/PID/smaps_rollup or status in MiB (root can read it, the agent's own user cannot)."""
    for file in ("smaps_rollup", "status"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
                if line.startswith(name + ":"):
                    return int(line.split()[1]) / 1024
    return float("nan")


def _filters(pid: str | int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Seccomp_filters:"):
            return int(line.split()[1])
    return 0


def check_guarded(pid: int) -> None:
    """End the benchmark where a process is not under one filter more than we are: its figures would mean nothing."""
    if _filters(pid) <= _filters("self"):
        raise SystemExit("The guard did not take: the command runs unguarded. `nbsentinel status` says why.")


class Rig:
    """A running agent."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], environment: dict[str, str]) -> None:
        self.folder, self.process, self.environment = folder, process, environment
        self.report, self.run_dir = folder / "events.jsonl", folder / "run"

    def guarded(self, *command: str) -> list[str]:
        """Return a command as it is run under this agent's guard, by the agent's user."""
        launcher = [sys.executable, "-I", "-S", LAUNCHER, "--run-dir", str(self.run_dir), "--"]
        return [*as_user(), *launcher, *command]

    def _ask(self) -> subprocess.CompletedProcess[bytes]:
        command = [*as_user(), sys.executable, "-m", "nbsentinel", "status", "--run-dir", str(self.run_dir), "--json"]
        return subprocess.run(command, capture_output=True, env=self.environment)

    def status(self) -> dict:
        """Return what `nbsentinel status` says; nothing where it has no answer."""
        answer = self._ask()
        return json.loads(answer.stdout) if answer.returncode == 0 else {}

    def wait_until_ready(self) -> None:
        """Wait for the agent's self-test; end the benchmark where it does not come up."""
        deadline = time.monotonic() + 30
        while self._ask().returncode != 0:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit((self.folder / "log").read_text())
            time.sleep(0.1)

    def processes(self) -> dict[int, str]:
        """Return what belongs to this agent: itself, what it started, and its guard, which outlives it."""
        arguments, parents = {}, {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                pid = int(path.name)
                arguments[pid] = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
                parents[pid] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        found = {self.process.pid} | {pid for pid, words in arguments.items() if str(self.run_dir) in words}
        while more := {pid for pid, parent in parents.items() if parent == self.process.pid} - found:
            found |= more
        return {pid: " ".join(arguments[pid])[:120] for pid in sorted(found & arguments.keys())}

    def settle(self, seconds: float = 3.0) -> None:
        """Wait until the agent has dealt with what it was told, so that it does not disturb the next measurement."""
        deadline = time.monotonic() + seconds
        pids = list(self.processes())
        while time.monotonic() < deadline:
            before = sum(map(cpu_seconds, pids))
            time.sleep(0.1)
            if sum(map(cpu_seconds, pids)) - before <= 0.011:
                return

    def findings(self) -> list[dict]:
        """Return the findings in the report file so far."""
        if not self.report.exists():
            return []
        whole = self.report.read_bytes().rpartition(b"\n")[0]
        return [e for e in map(json.loads, whole.splitlines()) if e["class_uid"] == 2004]


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder of the user's that everything is measured as, and remove it."""
    made = own(Path(tempfile.mkdtemp(prefix="nbsentinel-bench-", dir="/var/tmp")))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def agent(extra: str = "", **variables: str) -> Iterator[Rig]:
    """Start an agent that counts loopback as remote, wait until it is ready, and end it.

    Args:
        extra: More of its configuration.
        variables: More of its environment.
    """
    with private_folder() as folder:
        home = folder / "home"
        home.mkdir()
        own(home)
        config = folder / "agent.toml"
        config.write_text(
            f'[agent]\nstate_dir = "{folder}/state"\nrun_dir = "{folder}/run"\n'
            f'[detect]\nloopback_is_remote = true\n[report.file]\npath = "{folder}/events.jsonl"\n{extra}'
        )
        environment = {**os.environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [*as_user(), sys.executable, "-m", "nbsentinel", "agent", "--config", str(config)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stderr=log, env={**environment, **variables}, cwd=folder)
        try:
            running = Rig(folder, process, environment)
            running.wait_until_ready()
            yield running
        finally:
            process.terminate()
            process.wait(10)

"""The agent under test, run by its contract: `agent --config`, `status --run-dir --json`, and a file of OCSF lines."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from live.account import Account

DETECTION_FINDING = 2004
"""OCSF class_uid."""
READY_S = 30.0
_STOP_S = 15.0
_POLL_S = 0.1


class Reported(msgspec.Struct, frozen=True):
    """What a test needs of one detection finding."""

    severity: int
    title: str
    rule: str
    pids: frozenset[int]
    """The processes that the evidence names."""
    line_pids: frozenset[int]
    """The same with their parents."""
    techniques: frozenset[str]
    at: float
    """When the agent says that it was, in seconds since the epoch."""


def _parents(process: dict[str, Any]) -> Iterator[int]:
    found: dict[str, Any] | None = process
    while found:
        if "pid" in found:
            yield found["pid"]
        found = found.get("parent_process")


def read_finding(line: bytes) -> Reported | None:
    """Return the finding in a line of the report, None where it holds something else."""
    event = json.loads(line)
    if event["class_uid"] != DETECTION_FINDING:
        return None
    info = event["finding_info"]
    processes = [evidence["process"] for evidence in event["evidences"] if "process" in evidence]
    attacks = [attack.get(name, {}) for attack in info.get("attacks", ()) for name in ("technique", "sub_technique")]
    return Reported(
        severity=event["severity_id"],
        title=info["title"],
        rule=info["analytic"]["uid"],
        pids=frozenset(process["pid"] for process in processes),
        line_pids=frozenset(pid for process in processes for pid in _parents(process)),
        techniques=frozenset(attack["uid"] for attack in attacks if "uid" in attack),
        at=event["time"] / 1000,
    )


class LiveAgent:
    """A running agent; loopback peers count as remote for it.

    Args:
        account: Whom it runs as.
        folder: For its configuration, state and report.
        more: TOML that is added to the configuration.
    """

    def __init__(self, account: Account, folder: Path, more: str = "") -> None:
        self._account, self._folder = account, folder
        self._run_dir, self._report = folder / "run", folder / "report.ndjson"
        self._offset = 0
        self._found: list[Reported] = []
        config = folder / "agent.toml"
        config.write_text(
            f'[agent]\nstate_dir = "{folder}/state"\nrun_dir = "{self._run_dir}"\n'
            f'[detect]\nloopback_is_remote = true\n[report.file]\npath = "{self._report}"\n{more}'
        )
        self._environment = account.environment(folder)
        with (folder / "agent.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command("agent", "--config", str(config)),
                env=self._environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _command(self, *arguments: str) -> list[str]:
        return [*self._account.prefix, self._account.python, "-m", "nbsentinel", *arguments]

    def wait_ready(self) -> None:
        """Wait until `status` says that the agent is ready.

        Raises:
            RuntimeError: It ended or needs too long; the message has the end of its log.
        """
        deadline = time.monotonic() + READY_S
        status = self._command("status", "--run-dir", str(self._run_dir), "--json")
        while subprocess.run(status, env=self._environment, cwd=self._folder, capture_output=True).returncode != 0:
            if not self.running or time.monotonic() > deadline:
                raise RuntimeError(f"the agent does not become ready:\n{self.log()[-3000:]}")
            time.sleep(_POLL_S)

    @property
    def running(self) -> bool:
        """Whether the agent's process lives."""
        return self._process.poll() is None

    def log(self) -> str:
        """Return what the agent wrote to its output."""
        return (self._folder / "agent.log").read_text(errors="replace")

    def findings(self) -> list[Reported]:
        """Return all detection findings that were reported so far."""
        if self._report.exists():
            with self._report.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    if (finding := read_finding(line)) is not None:
                        self._found.append(finding)
        return list(self._found)

    def wait_finding(self, pids: Iterable[int], severity: int, seconds: float) -> Reported | None:
        """Wait for a finding about one of the processes, at least as severe; None where none came in time."""
        wanted, deadline = frozenset(pids), time.monotonic() + seconds
        while True:
            for finding in self.findings():
                if finding.pids & wanted and finding.severity >= severity:
                    return finding
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End the agent."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def live_agent(account: Account, folder: Path, more: str = "") -> Iterator[LiveAgent]:
    """Yield an agent that is ready, and end it afterwards."""
    folder.mkdir()
    account.own(folder)
    agent = LiveAgent(account, folder, more)
    try:
        agent.wait_ready()
        yield agent
    finally:
        agent.stop()

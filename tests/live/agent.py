"""The agent under test, run by its contract: `agent --config`, `status --run-dir --json`, and a file of OCSF lines."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from live.account import Account

DETECTION_FINDING = 2004
"""OCSF class_uid."""
CLOSE = 3
"""OCSF `activity_id`."""
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
    fields: dict[str, str]
    """What the rule was matched on, as far as the finding shows it."""
    at: float
    """When the agent says that it was, in seconds since the epoch."""


def _parents(process: dict[str, Any]) -> Iterator[int]:
    found: dict[str, Any] | None = process
    while found:
        if "pid" in found:
            yield found["pid"]
        found = found.get("parent_process")


def read_finding(line: bytes) -> Reported | None:
    """Return the finding in a line of the report, None where it holds something else or the end of an incident."""
    event = json.loads(line)
    if event["class_uid"] != DETECTION_FINDING or event["activity_id"] == CLOSE:
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
        fields={item["name"]: item["value"] for item in event.get("enrichments", ())},
        at=event["time"] / 1000,
    )


def read_report(path: Path) -> list[dict[str, Any]]:
    """Return the events of a report that is being written: whole lines, none where there is no file yet."""
    found = []
    for line in path.read_bytes().rpartition(b"\n")[0].splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break  # the next agent is just cutting off what the one before it left half written
    return found


class LiveAgent:
    """A running agent; loopback peers count as remote for it.

    Args:
        account: Whom it runs as.
        folder: For its configuration, state and report.
        more: TOML that is added to the configuration.
        variables: Environment variables that are added to the usual few.
    """

    def __init__(self, account: Account, folder: Path, more: str = "", **variables: str) -> None:
        self._account, self._folder = account, folder
        self._run_dir, self._report = folder / "run", folder / "report.ndjson"
        self._offset = 0
        self._found: list[Reported] = []
        self._lock = threading.Lock()
        self.config = config = folder / "agent.toml"
        config.write_text(
            f'[agent]\nstate_dir = "{folder}/state"\nrun_dir = "{self._run_dir}"\n'
            f'[detect]\nloopback_is_remote = true\n[report.file]\npath = "{self._report}"\n{more}'
        )
        self._environment = account.environment(folder, **variables)
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

    def guarded(self, command: Sequence[str]) -> list[str]:
        """Return a command that runs another one under this agent's guard; for the account, as it is."""
        return [self._account.python, "-m", "nbsentinel", "guard", "--run-dir", str(self._run_dir), "--", *command]

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

    def status(self) -> dict[str, Any]:
        """Return what `status --json` says, an empty object while nobody answers."""
        status = self._command("status", "--run-dir", str(self._run_dir), "--json")
        done = subprocess.run(status, env=self._environment, cwd=self._folder, capture_output=True)
        found: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
        return found

    @property
    def running(self) -> bool:
        """Whether the process that was started lives: the agent's keeper."""
        return self._process.poll() is None

    def wait(self, seconds: float) -> int:
        """Wait for the end of the process that was started and return its exit code."""
        return self._process.wait(seconds)

    def log(self) -> str:
        """Return what the agent wrote to its output."""
        return (self._folder / "agent.log").read_text(errors="replace")

    def findings(self) -> list[Reported]:
        """Return all detection findings that were reported so far, the closings of incidents left out."""
        with self._lock:  # cases ask at the same time
            if self._report.exists():
                with self._report.open("rb") as file:
                    file.seek(self._offset)
                    for line in file:
                        if not line.endswith(b"\n"):
                            break
                        try:
                            finding = read_finding(line)
                        except ValueError:
                            break  # the next agent is just cutting off what the one before it left half written
                        self._offset += len(line)
                        if finding is not None:
                            self._found.append(finding)
            return list(self._found)

    def events(self) -> list[dict[str, Any]]:
        """Return all events that were reported so far."""
        return read_report(self._report)

    def forget_report(self) -> None:
        """Read the report from its beginning again, because somebody cut it."""
        self._offset = 0

    def wait_finding(self, pids: Iterable[int], severity: int, seconds: float, technique: str = "") -> Reported | None:
        """Wait for a finding about one of the processes, at least as severe; None where none came in time.

        Args:
            pids: The processes.
            severity: The least severity.
            seconds: How long to wait.
            technique: What one of its techniques must begin with.
        """
        wanted, deadline = frozenset(pids), time.monotonic() + seconds
        while True:
            for finding in self.findings():
                fits = any(one.startswith(technique) for one in finding.techniques)
                if finding.pids & wanted and finding.severity >= severity and (fits or not technique):
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
def live_agent(
    account: Account, folder: Path, more: str = "", *, harmed: bool = False, **variables: str
) -> Iterator[LiveAgent]:
    """Yield an agent that is ready, and end it afterwards.

    Raises:
        AssertionError: Its pipeline failed at something, although nobody harmed it.
    """
    folder.mkdir()
    account.own(folder)
    agent = LiveAgent(account, folder, more, **variables)
    try:
        agent.wait_ready()
        yield agent
    finally:
        agent.stop()
    wrong = [line for line in agent.log().splitlines() if "pipeline error" in line]
    assert harmed or not wrong, wrong[:3]

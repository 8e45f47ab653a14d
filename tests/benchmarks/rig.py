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

USER = 1000


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


class Rig:
    """A running agent."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder, self.process = folder, process
        self.report = folder / "events.jsonl"

    def findings(self) -> list[dict]:
        """Return the findings in the report file so far."""
        if not self.report.exists():
            return []
        whole = self.report.read_bytes().rpartition(b"\n")[0]
        return [e for e in map(json.loads, whole.splitlines()) if e["class_uid"] == 2004]

    def cpu_seconds(self) -> float:
        """Return the processor time the agent has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, name: str) -> float:
        """Return a line of /proc/PID/smaps_rollup or status in MiB (root can read it, the agent's own user cannot)."""
        for file in ("smaps_rollup", "status"):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{self.process.pid}/{file}").read_text().splitlines():
                    if line.startswith(name + ":"):
                        return int(line.split()[1]) / 1024
        return float("nan")


@contextlib.contextmanager
def agent(extra: str = "") -> Iterator[Rig]:
    """Start an agent that counts loopback as remote, wait until it is ready, and end it."""
    folder = Path(tempfile.mkdtemp(prefix="nbsentinel-bench-", dir="/var/tmp"))
    if os.geteuid() == 0:
        os.chown(folder, USER, USER)
    config = folder / "agent.toml"
    config.write_text(
        f'[agent]\nstate_dir = "{folder}/state"\nrun_dir = "{folder}/run"\n[detect]\nloopback_is_remote = true\n'
        f'[report.file]\npath = "{folder}/events.jsonl"\n{extra}'
    )
    program = [*as_user(), sys.executable, "-m", "nbsentinel"]
    environment = {**os.environ, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*program, "agent", "--config", str(config)], stderr=log, env=environment, cwd=folder
        )
        try:
            status = [*program, "status", "--run-dir", str(folder / "run"), "--json"]
            deadline = time.monotonic() + 30
            while subprocess.run(status, capture_output=True, env=environment).returncode != 0:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit((folder / "log").read_text())
                time.sleep(0.1)
            yield Rig(folder, process)
        finally:
            process.terminate()
            process.wait(10)
            shutil.rmtree(folder, ignore_errors=True)

"""From the start of a shell to its finding in the report file: with the guard, and with procfs alone.

The clock starts with the last thing that happens before the shell is executed: bash writes its `$EPOCHREALTIME` and
executes the shell in its own place. It stops when the finding's whole line is in the file, seen by looking at the
file's size every half millisecond. So the execution itself and any hold before the shell's first instruction count.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import records
import rig

LOOK_S = 0.0005
PAUSE_S = 0.05
"""Between two shells, so that the end of one is not part of the next."""
GIVE_UP_S, LONGEST_S = 5.0, 75.0
"""For one shell; for all of a form."""
MARK = "echo $EPOCHREALTIME >began"
FORMS = {
    "direct": f"{MARK}; exec bash -i <&3 >&3 2>&3",
    "relayed": f"mkfifo f; cat <&3 >f & cat f | {{ sleep 0.1; {MARK}; exec sh -i 2>&1; }} | cat >&3",
}
"""In the relayed form everything else is in place before the shell, so the start of the shell completes the chain. Its
prompt is what moves on the connection: a path on which nothing moves is no finding."""


class Goal(NamedTuple):
    """How many shells of a form, and how long they may take in milliseconds."""

    shells: int
    median: float
    p99: float
    aims: tuple[str, str] = ("", "")


AIMS = " (aim 5)", " (aim 30)"
GUARDED = {"direct": Goal(200, 20, 100, AIMS), "relayed": Goal(100, 20, 100, AIMS)}
PROCFS = {form: Goal(30, 400, 2500) for form in FORMS}


@contextlib.contextmanager
def _listening(used: set[int]) -> Iterator[socket.socket]:
    """Listen on a port that was not used before: a peer that is known already makes no new finding."""
    with contextlib.ExitStack() as stack:
        while True:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            if (port := listener.getsockname()[1]) not in used:
                used.add(port)
                listener.settimeout(GIVE_UP_S)
                yield listener
                return


def _one(running: rig.Rig, form: str, work: Path, used: set[int], *, guarded: bool) -> float:
    """Return milliseconds from the shell's execution to the finding; infinite where none came."""
    work.mkdir()
    rig.own(work)
    with _listening(used) as listener:
        port = listener.getsockname()[1]
        command = "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}; {FORMS[form]}"
        report = records.Reader(running.report)
        shell = subprocess.Popen(
            running.guarded(*command) if guarded else [*rig.as_user(), *command],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=running.environment,
            cwd=work,
        )
        try:
            with listener.accept()[0]:
                if guarded:
                    rig.check_guarded(shell.pid)
                seen = _wait(report, port)
            return 1000 * (seen - float((work / "began").read_text()))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()


def _wait(report: records.Reader, port: int) -> float:
    """Return when the finding about a peer was in the file."""
    deadline = time.monotonic() + GIVE_UP_S
    while time.monotonic() < deadline:
        lines = report.lines()
        now = time.time()
        if any(b'"class_uid":2004' in line and _is_about(json.loads(line), port) for line in lines):
            return now
        time.sleep(LOOK_S)
    return float("inf")


def _is_about(finding: dict, port: int) -> bool:
    peers = (evidence.get("dst_endpoint", {}).get("port") for evidence in finding["evidences"])
    fields = {each["name"] for each in finding.get("enrichments", ())}
    return "RemoteControlled" in fields and port in peers


def _shells(running: rig.Rig, goals: dict[str, Goal], *, guarded: bool) -> list[tuple]:
    rows: list[tuple] = []
    used: set[int] = set()
    way = "guarded" if guarded else "procfs alone"
    for form, goal in goals.items():
        print(f"latency: {goal.shells} {form} shells, {way} ...", flush=True)
        times: list[float] = []
        began = time.monotonic()
        while len(times) < goal.shells and time.monotonic() < began + LONGEST_S:
            times.append(_one(running, form, running.folder / "home" / f"{form}{len(times)}", used, guarded=guarded))
            time.sleep(PAUSE_S)
        times.sort()
        missed, late = times.count(float("inf")), sum(value > 100 for value in times)
        print(f"  {len(times)} shells, {missed} without a finding, {late} after more than 100 ms")
        # The nearest rank: the value that this share of all is not above.
        at = {share: times[max(0, -(-len(times) * share // 100) - 1)] for share in (0, 10, 50, 90, 99, 100)}
        print("  " + ", ".join(f"{share}%: {value:.1f} ms" for share, value in at.items()), flush=True)
        rows.append((f"{form} shell to finding, {way}, median{goal.aims[0]}", at[50], "ms", goal.median))
        rows.append((f"{form} shell to finding, {way}, p99{goal.aims[1]}", at[99], "ms", goal.p99))
    return rows


def measure() -> list[tuple]:
    """Return medians and 99th percentiles for direct and relayed shells."""
    with rig.agent() as running:
        rows = _shells(running, GUARDED, guarded=True)
    with rig.agent("[guard]\nenabled = false\n") as running:
        return rows + _shells(running, PROCFS, guarded=False)

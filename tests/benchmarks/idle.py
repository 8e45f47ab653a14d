"""What the agent costs while nothing happens, with 300 sleeping processes of its user on the machine."""

from __future__ import annotations

import subprocess
import time

import rig

PROCESSES = 300
SECONDS = 60


def measure() -> list[tuple]:
    """Return processor share and memory."""
    sleepers = [subprocess.Popen([*rig.as_user(), "sleep", "600"]) for _ in range(PROCESSES)]
    try:
        with rig.agent() as running:
            time.sleep(12)
            begin, cpu = time.monotonic(), running.cpu_seconds()
            print(f"idle: {PROCESSES} sleeping processes, {SECONDS} s ...", flush=True)
            time.sleep(SECONDS)
            share = 100 * (running.cpu_seconds() - cpu) / (time.monotonic() - begin)
            resident, proportional = running.memory("VmRSS"), running.memory("Pss")
    finally:
        for sleeper in sleepers:
            sleeper.kill()
        for sleeper in sleepers:
            sleeper.wait()
    return [
        (f"idle processor, {PROCESSES} processes", share, "% of a core", 0.5),
        ("resident memory of the agent", resident, "MiB", 60.0),
        ("proportional memory of the agent", proportional, "MiB", 50.0),
    ]

"""What reporting costs a kernel, beside a kernel without us in the same rounds."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import rig

ROUNDS = 7
PROGRAM = str(Path(__file__).with_name("programs") / "kernel_costs.py")


def measure() -> list[tuple]:
    """Return what an unwanted event and a cell cost, in microseconds."""
    with rig.agent() as running:
        folder = running.folder / "kernels"
        folder.mkdir()
        rig.own(folder)
        command = [*rig.as_user(), sys.executable, PROGRAM, str(folder), str(running.run_dir), str(ROUNDS)]
        done = subprocess.run(command, capture_output=True, text=True, env=running.environment, cwd=folder, timeout=500)
        if done.returncode:
            raise SystemExit(done.stderr)
        found: dict[str, dict[str, list[float]]] = json.loads(done.stdout.splitlines()[-1])
        drops = running.status().get("drops", {})
    added = {}
    print(f"\nkernels, median of {ROUNDS} rounds, us")
    for work, times in found.items():
        ours, plain = (statistics.median(times[name]) / 1000 for name in ("ours", "plain"))
        spread = statistics.median(abs(one / 1000 - plain) for one in times["plain"])
        added[work] = ours - plain
        print(f"  {work:28}{plain:10.2f} plain {ours:10.2f} ours {ours - plain:+8.2f} added  (noise {spread:.2f})")
    print(f"messages that the kernels dropped meanwhile: {drops.get('kernels_untold')}")
    return [
        ("kernel, an audit event that we do not want", added["an event that nobody wants"], "us", 1.0),
        ("kernel, the event of a file that is not watched", added["open, the event alone"], "us", 1.0),
        ("kernel, our hooks around a cell", added["hooks around a cell"], "us", 50.0),
    ]

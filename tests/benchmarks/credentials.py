"""Who reads credentials: how many readers are named, and for how long they are made to wait.

1,000 opens by readers that live for milliseconds, in C, Python, bash, perl, node, sqlite and git: one after the other,
and eight at once with a file each and with four files for all. Beside that the worst wait while the process that
holds the leases is killed, stopped or hangs 100 times, and a flood of 100,000 file events and 10,000 processes around
one read.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import rig

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
FILES = HERE.parent / "files"
COUNT, TIMES = 1000, 100
NAMES = (
    ".aws/credentials", ".ssh/id_rsa", ".netrc", ".git-credentials", ".pgpass", ".kaggle/kaggle.json",
    ".cache/huggingface/token", ".config/gh/hosts.yml",
)  # fmt: skip
FLOOD = """
import os, subprocess, sys
home, secret = sys.argv[1:]
for number in range(50000):
    name = os.path.join(home, "noise%d.key.part" % (number % 100))
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600))
    os.unlink(name)
    if number % 5 == 0:
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    if number == 25000:
        reader = subprocess.Popen(["cat", secret], stdout=subprocess.DEVNULL)
        print(reader.pid)
        reader.wait()
"""


def _make(home: Path, name: str) -> str:
    path = home / name
    for parent in reversed([p for p in path.parents if home in p.parents]):
        if not parent.exists():
            parent.mkdir()
            rig.own(parent)
    path.write_text("[default]\nkey=secret\n")
    rig.own(path)
    return str(path)


def _reads(running: rig.Rig) -> list[dict]:
    lines = running.report.read_bytes().rpartition(b"\n")[0].splitlines()
    return [event for event in map(json.loads, lines) if event["class_uid"] == 1001 and event["activity_id"] == 2]


def _named(running: rig.Rig) -> set[tuple[int, str]]:
    found = set()
    for event in _reads(running):
        process = event["actor"].get("process", {})
        if process.get("file"):
            found.add((process["pid"], event["file"]["path"]))
    return found


def _wait_for_leases(running: rig.Rig, count: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        detail = next(row["detail"] for row in running.status()["coverage"] if row["sensor"] == "files")
        leases = detail.split()[-2]
        if leases.isdigit() and int(leases) >= count:
            return
        time.sleep(0.2)
    raise SystemExit(f"The files are not leased: {detail}")


def _opens(running: rig.Rig, at_once: int, files: list[str], *options: str) -> tuple[float, list[int]]:
    reader = rig.build(running.folder / "programs", "reader")
    command = [sys.executable, str(FILES / "many.py"), str(COUNT), str(at_once), *options, reader, *files]
    done = subprocess.run(running.guarded(*command), capture_output=True, text=True, check=True)
    opened = json.loads(done.stdout)
    if wrong := [line for line in opened if line[3]]:
        raise SystemExit(f"Readers failed: {wrong[:3]}")
    running.settle(20)
    wanted = {(pid, file) for _, pid, file, *_ in opened}
    share = 100 * len(wanted & _named(running)) / len(wanted)
    waits = sorted(int(told) for kind, _, _, _, told in opened if kind == "C")
    return share, waits


def _readers() -> list[tuple]:
    rows: list[tuple] = []
    with rig.agent('[report]\nlevel = "all"\n') as running:
        files = [_make(running.folder / "home", name) for name in NAMES]
        _wait_for_leases(running, len(files))
        for title, at_once, chosen, options in (
            ("one at a time", 1, files, ()),
            ("8 at once, a file each", 8, files, ("--own",)),
            ("8 at once, 4 files", 8, files[:4], ()),
        ):
            share, waits = _opens(running, at_once, chosen, *options)
            rows.append((f"credential readers named, {title}", share, "%", 99.0, False))
            rows.append((f"wait for open, {title}, p99", waits[int(0.99 * len(waits))] / 1000, "ms", 20.0))
        pid = int(subprocess.run(
            running.guarded(sys.executable, "-c", FLOOD, str(running.folder / "home"), files[0]),
            capture_output=True, text=True, check=True,
        ).stdout)  # fmt: skip
        running.settle(20)
        rows.append(("the one read in a flood, named", 100.0 * ((pid, files[0]) in _named(running)), "%", 100.0, False))
        drops = {name: count for name, count in running.status()["drops"].items() if count}
        print(f"drops counted after the flood: {drops or 'none'}")
    return rows


@contextlib.contextmanager
def _opener(command: list[str]) -> Iterator[list[float]]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    found: list[float] = []
    yield found
    found.extend(map(float, process.communicate()[0].split()))


def harm(kind: str, folder: Path) -> list[float]:
    """Harm the lessor `TIMES` times, as this very user; return count, failures, longest and p99 wait in ms."""
    from files.lessee import lessee
    from guard.harness import PROGRAM, Guard
    from nbsentinel_guard import proc

    secret = folder / "credentials"
    secret.write_text("secret")
    program = (str(FILES / "harmed.py"), str(TIMES)) if kind == "hang" else (PROGRAM, "hold")
    running = Guard(folder / "run", program=program)
    with _opener(running.command(sys.executable, str(FILES / "opener.py"), str(secret))) as found:
        for turn in range(TIMES):
            with lessee(running) as told:
                told.lease(secret)
                told.wait(lambda told=told: bool(told.named))
                time.sleep(0.003 * (turn % 5))
                if kind == "hang":
                    told.wait(lambda told=told: proc.stat_fields(told.pid) is None)
                for _ in range(5 if kind == "stop" else kind == "kill"):
                    with contextlib.suppress(ProcessLookupError):  # ended, because it did not answer in time
                        os.kill(told.pid, signal.SIGSTOP if kind == "stop" else signal.SIGKILL)
                    time.sleep(0.01)
    running.close()
    return found


def _harmed() -> list[tuple]:
    rows: list[tuple] = []
    for kind in ("kill", "stop", "hang"):
        with rig.private_folder() as folder:
            command = [*rig.as_user(), sys.executable, str(Path(__file__).resolve()), kind, str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
        count, failed, longest, _ = json.loads(done.stdout)
        if failed:
            raise SystemExit(f"{failed} of {count} opens failed")
        rows.append((f"longest open while the lessor comes to harm 100 times: {kind}", longest, "ms", 200.0))
    return rows


def measure() -> list[tuple]:
    """Measure all of it."""
    return [*_readers(), *_harmed()]


if __name__ == "__main__":
    tempfile.tempdir = sys.argv[2]
    print(json.dumps(harm(sys.argv[1], Path(sys.argv[2]))))

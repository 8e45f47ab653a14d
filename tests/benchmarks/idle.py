"""What the agent and its guard cost while nothing happens.

Twice: the agent with 300 sleeping processes of its user on the machine, and the agent with holder and supervisor while
three guarded shells wait at their prompts and 20 other processes sleep, after ordinary programs have run: what they
leave behind must rest as well.
"""

from __future__ import annotations

import contextlib
import math
import os
import pty
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import rig

PROCESSES = 300
SHELLS, OTHERS = 3, 20
SECONDS = 60
SETTLE_S = 65
"""Shells are looked at often in their first minute."""


@contextlib.contextmanager
def _started(commands: list[list[str]], **options: object) -> Iterator[list[int]]:
    """Run commands, and end them afterwards; yield their pids."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            running.append(subprocess.Popen(command, **options))  # noqa: PERF401 - those before a failure must end too
        yield [process.pid for process in running]
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


ORDINARY = (
    "grep -rs key . >/dev/null; tar -cf /dev/null . 2>/dev/null; true",
    "cat .aws/credentials; echo true >> .bashrc; find . -name x",
    "python3 -c 'import socket; socket.socket().connect_ex((\"127.0.0.1\", 9))'; ls | sort | head -n 1",
)


def _use(running: rig.Rig) -> None:
    """Run programs that read credentials, open without blocking, connect, and work in pipelines."""
    home = running.folder / "home"
    rig.own((home / ".aws").mkdir(exist_ok=True) or home / ".aws")
    for name in (".aws/credentials", ".bashrc"):
        (home / name).write_text("x\n")
        rig.own(home / name)
    time.sleep(1)
    for line in ORDINARY * 2:
        command = running.guarded("bash", "-c", line)
        subprocess.run(command, env=running.environment, cwd=home, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def _shells(running: rig.Rig) -> Iterator[None]:
    """Run guarded shells that wait at a terminal's prompt."""
    with contextlib.ExitStack() as stack:
        pids: list[int] = []
        for _ in range(SHELLS):
            ours, theirs = pty.openpty()
            stack.callback(os.close, ours)
            command = running.guarded("bash", "--norc", "-i")
            streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
            options = {**streams, "env": running.environment, "cwd": running.folder / "home"}
            pids += stack.enter_context(_started([command], start_new_session=True, **options))
            os.close(theirs)
        time.sleep(SETTLE_S)
        for pid in pids:
            rig.check_guarded(pid)
        yield


def _share(pids: list[int]) -> dict[int, float]:
    """Return how much of a core each process uses while nothing happens, in percent."""
    forks = _forks()
    begin, before = time.monotonic(), {pid: rig.cpu_seconds(pid) for pid in pids}
    time.sleep(SECONDS)
    seconds = time.monotonic() - begin
    print(f"  {_forks() - forks} tasks were started on this machine meanwhile: the agent looks at each that it may see")
    return {pid: max(0.0, 100 * (rig.cpu_seconds(pid) - cpu) / seconds) for pid, cpu in before.items()}


def _forks() -> int:
    """Return how many tasks this machine has started since it booted."""
    lines = Path("/proc/stat").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("processes ")).split()[1])


def _agent_alone() -> list[tuple]:
    with _started([[*rig.as_user(), "sleep", "600"]] * PROCESSES), rig.agent() as running:
        time.sleep(SETTLE_S)
        print(f"idle: {PROCESSES} sleeping processes, {SECONDS} s ...", flush=True)
        pid = running.status()["pid"]
        share = _share([pid])[pid]
        resident, proportional = (rig.memory(pid, name) for name in ("VmRSS", "Pss"))
        keeper = rig.memory(running.process.pid, "Pss")
    return [
        (f"idle processor, {PROCESSES} processes", share, "% of a core", 0.5),
        ("resident memory of the agent", resident, "MiB", 60.0),
        ("proportional memory of the agent", proportional, "MiB", 50.0),
        ("proportional memory of its keeper", keeper, "MiB", 6.0),
    ]


def _with_guard() -> list[tuple]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(_started([[*rig.as_user(), "sleep", "600"]] * OTHERS))
        running = stack.enter_context(rig.agent())
        _use(running)
        stack.enter_context(_shells(running))
        print(f"idle: {SHELLS} guarded shells, {OTHERS} sleeping processes, {SECONDS} s ...", flush=True)
        names = running.processes()
        shares = _share(list(names))
        # Neither agent nor guard can be read by their own user, because they are not dumpable: then RSS must do.
        what = "PSS"
        sizes = {pid: rig.memory(pid, "Pss") for pid in names}
        if any(map(math.isnan, sizes.values())):
            what, sizes = "RSS", {pid: rig.memory(pid, "VmRSS") for pid in names}
            print("  PSS can be read by root alone: these are not dumpable. RSS counts what they share several times.")
        for pid, name in names.items():
            print(f"  {pid:>8} {shares[pid]:6.2f} % {sizes[pid]:7.1f} MiB {what}  {name}")
        guarded = running.status().get("guard")
        if guarded is not None:
            print(f"  guard: {guarded}")
    load = f"{SHELLS} guarded shells"
    return [
        (f"idle processor of agent and guard, {load}", sum(shares.values()), "% of a core", 0.5),
        (f"{what} of agent and guard, {load} (aim 50)", sum(sizes.values()), "MiB", 75.0),
    ]


def measure() -> list[tuple]:
    """Return processor share and memory."""
    return _agent_alone() + _with_guard()

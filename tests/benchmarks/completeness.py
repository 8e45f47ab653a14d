"""How much of what happens is told, and told right: 10,000 executions and 10,000 connections of short-lived processes.

Executions go through a PATH of five folders, each with an argument of its own; connections go to 10,000 different
targets on the loopback interface, from C, Python and bash. Counted are events with the right process, file, arguments
and peer: with the guard (also where it may not read its callers' memory), under strace, and by psutil once a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import records
import rig

EXECS, CONNECTIONS, PROGRAMS, STATIC = 10_000, 10_000, 20, 4
PER_PROCESS = 10
"""Connections that one process makes."""
SHARE = {"C": 0.5, "Python": 0.2, "bash": 0.3}
NO_MEMORY = {"NBSENTINEL_TEST_NO_MEMORY": "1"}
PATIENCE_S, LONGEST_S = 5.0, 180.0
"""How long nothing new may come before an agent counts as done, and how long it may take altogether."""
PYTHON = """
import socket, sys
for word in sys.argv[1:]:
    ip, _, port = word.partition(":")
    with socket.socket() as s:
        s.connect((ip, int(port)))
"""
BASH = 'for word; do : <>"/dev/tcp/${word/://}" || exit 1; done'


class Plan(NamedTuple):
    """What is done, and what it must look like."""

    file: Path
    path: str
    execs: list[list[str]]
    calls: list[list[str]]
    targets: dict[str, int]
    """Which of `calls` connects to an address."""
    exes: list[str]
    """The file that runs in each of `execs` and `calls`."""


class Count(NamedTuple):
    """How much was told by one of the ways to look."""

    way: str
    execs_told: int
    execs_right: int
    connections_told: int
    connections_right: int
    seconds: float


def _target(number: int, port: int) -> str:
    return f"127.{1 + number // 62500}.{number // 250 % 250 + 1}.{number % 250 + 1}:{port}"


def _programs(folder: Path) -> list[str]:
    """Make twenty programs in the last of five folders; return PATH's folders."""
    plain, static = rig.build(folder, "nothing"), ""
    with contextlib.suppress(subprocess.CalledProcessError):
        (folder / "static").mkdir()
        static = rig.build(folder / "static", "nothing", "-static")
    folders = [folder / f"path{number}" for number in range(5)]
    for each in folders:
        each.mkdir()
    for number in range(PROGRAMS):
        shutil.copy(static if static and number < STATIC else plain, folders[-1] / f"program{number}")
    return list(map(str, folders))


def _plan(folder: Path, port: int) -> Plan:
    folders = _programs(folder)
    execs = [[f"program{n % PROGRAMS}", f"turn-{n}"] for n in range(EXECS)]
    exes = [os.path.join(folders[-1], name) for name, _ in execs]
    bash, python = os.path.realpath("/bin/bash"), os.path.realpath(sys.executable)
    kinds = {
        "C": (rig.build(folder, "caller"), []),
        "Python": (sys.executable, ["-I", "-S", "-c", PYTHON]),
        "bash": ("/bin/bash", ["-c", BASH, "bash"]),
    }
    running = {"C": kinds["C"][0], "Python": python, "bash": bash}
    calls, targets, number = [], {}, 0
    for kind, share in SHARE.items():
        program, words = kinds[kind]
        for _ in range(int(CONNECTIONS * share) // PER_PROCESS):
            chosen = [_target(number + n, port) for n in range(PER_PROCESS)]
            number += PER_PROCESS
            targets.update(dict.fromkeys(chosen, len(calls)))
            calls.append([program, *words, *chosen])
            exes.append(running[kind])
    file = folder / "plan.json"
    file.write_text(json.dumps({"path": ":".join(folders), "execs": execs, "calls": calls}))
    return Plan(file, ":".join(folders), execs, calls, targets, exes)


@contextlib.contextmanager
def _everybody_answers() -> Iterator[int]:
    """Accept connections to every address of the loopback interface, and to no other; yield the port."""
    with socket.socket() as server:
        # Bound to the interface, so that one socket serves all of 127.0.0.0/8 and nothing from outside reaches it.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        server.bind(("0.0.0.0", 0))
        server.listen(4096)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def _work(running: rig.Rig | None, prefix: list[str], plan: Plan, folder: Path) -> tuple[list[int], float]:
    """Do what is planned; return the pids and how long it took."""
    truth = folder / f"truth{time.monotonic_ns()}.json"
    script = shutil.copy(Path(__file__).with_name("programs") / "workload.py", plan.file.parent)
    command = [*prefix, sys.executable, "-I", "-S", script, str(plan.file), str(truth)]
    environment = running.environment if running else {**os.environ, "HOME": str(folder)}
    begin = time.monotonic()
    subprocess.run(command, check=True, env=environment, cwd=folder, timeout=400, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - begin
    done = json.loads(truth.read_text())
    failed = Counter(code for _, code in done if code)
    if failed:
        raise SystemExit(f"completeness: programs of the workload failed: {dict(failed)}")
    return [pid for pid, _ in done], seconds


def _judge(way: str, plan: Plan, pids: list[int], told: records.Told, seconds: float) -> Count:
    """Compare what was told with what was done. What is told twice is not told right."""
    execs = right_execs = 0
    for number, (name, argument) in enumerate(plan.execs):
        found = told.execs.get(argument, [])
        execs += bool(found)
        right_execs += found == [(pids[number], plan.exes[number], f"{name} {argument}")]
    connections = right_connections = 0
    for target, call in plan.targets.items():
        at = len(plan.execs) + call
        found_pids = told.connections.get(target, [])
        unread = not found_pids and told.unread[pids[at], plan.exes[at]] > 0
        told.unread[pids[at], plan.exes[at]] -= unread
        connections += bool(found_pids) or unread
        right_connections += found_pids == [(pids[at], plan.exes[at])]
    return Count(way, execs, right_execs, connections, right_connections, seconds)


def _by_agent(way: str, plan: Plan, folder: Path, port: int, **variables: str) -> Count:
    with rig.agent('[report]\nlevel = "all"\n', **variables) as running:
        report = records.Reader(running.report)
        pids, seconds = _work(running, running.guarded(), plan, folder)
        begin = last = time.monotonic()
        while time.monotonic() < min(last + PATIENCE_S, begin + LONGEST_S):
            time.sleep(0.2)
            if any(records.is_counted(line) for line in report.lines()):
                last = time.monotonic()
        if time.monotonic() < last + PATIENCE_S:
            print(f"  {way}: it was still telling after {LONGEST_S:.0f} s; what came later is not counted")
        status = running.status()
        told = records.from_report(running.report, port)
        count = _judge(way, plan, pids, told, seconds)
        print(f"  {way}: counted as dropped: {status.get('drops')}; told until {last - begin:.1f} s after the work")
        records.explain(way, told, plan.execs, plan.targets)
    return count


def _by_strace(plan: Plan, folder: Path, port: int) -> Count:
    output = folder / "strace.txt"
    trace = ["strace", "-f", "--seccomp-bpf", "-e", "trace=execve,connect", "-s", "4096", "-o", str(output)]
    pids, seconds = _work(None, [*rig.as_user(), *trace], plan, folder)
    return _judge("strace -f --seccomp-bpf", plan, pids, records.from_strace(output, port), seconds)


def _by_polling(plan: Plan, folder: Path, port: int) -> Count:
    """Look with psutil once a second, at new processes and at all connections."""
    told, end = records.Told({}, {}, Counter()), threading.Event()

    def look() -> None:
        while not end.wait(1.0):
            for process in psutil.process_iter(["pid", "exe", "cmdline"]):
                told.execution(process.info["pid"], process.info["exe"] or "", process.info["cmdline"] or [])
            for found in psutil.net_connections("tcp"):
                if found.raddr and found.raddr.port == port and found.pid:
                    with contextlib.suppress(psutil.Error):
                        told.connection(found.pid, psutil.Process(found.pid).exe(), f"{found.raddr.ip}:{port}")

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    pids, seconds = _work(None, rig.as_user(), plan, folder)
    end.set()
    thread.join(10)
    return _judge("psutil once a second", plan, pids, told, seconds)


def measure() -> list[tuple]:
    """Return how many executions and connections the guard told right."""
    counts: list[Count] = []
    with _everybody_answers() as port, rig.private_folder() as folder:
        plan = _plan(folder / "programs", port)
        ways: dict[str, Callable[[str], Count]] = {
            "guard": lambda way: _by_agent(way, plan, folder, port),
            "guard, no memory": lambda way: _by_agent(way, plan, folder, port, **NO_MEMORY),
            "strace": lambda _: _by_strace(plan, folder, port),
            "psutil": lambda _: _by_polling(plan, folder, port),
        }
        if not shutil.which("strace"):
            print("completeness: strace is not installed, so that peer is left out")
            del ways["strace"]
        for way, count in ways.items():
            print(f"completeness: {EXECS} executions, {CONNECTIONS} connections, {way} ...", flush=True)
            counts.append(count(way))
    print(f"\n{'':26}{'execs told':>12}{'told right':>12}{'connections':>13}{'told right':>12}{'work took':>12}")
    for way, *numbers, seconds in counts:
        print(f"{way:26}{numbers[0]:>12}{numbers[1]:>12}{numbers[2]:>13}{numbers[3]:>12}{seconds:>10.1f} s")
    return [
        row
        for count in counts[:2]
        for row in (
            (f"{count.way}: executions told right", count.execs_right, f"of {EXECS}", EXECS, False),
            (f"{count.way}: connections told", count.connections_told, f"of {CONNECTIONS}", CONNECTIONS, False),
            (f"{count.way}: connections told right", count.connections_right, f"of {CONNECTIONS}", CONNECTIONS, False),
        )
    ]

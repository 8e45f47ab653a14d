"""From a process or a connection to the cell: real kernels under the guard, a real agent, its signed report."""

from __future__ import annotations

import json
import random
import subprocess
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kernel.harness import Kernel, kernel
from live.account import Account
from live.agent import LiveAgent, live_agent, read_report

CELLS = 500
SETTINGS = '[report]\nlevel = "all"\n'
WAYS = {
    "subprocess": "import subprocess; subprocess.run(['/bin/echo', MARK], stdout=-3)",
    "os.system": "import os; _ = os.system('/bin/echo ' + MARK + ' >/dev/null')",
    "exclamation": "out = !/bin/echo $MARK",
    "magic": "%%bash\n/bin/echo {mark} >/dev/null",
    "nested": "import os; _ = os.system('sh -c \"sh -c \\'/bin/echo ' + MARK + ' >/dev/null\\'\"')",
    "posix_spawn": textwrap.dedent(
        """
        import os
        quiet = [(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
        os.waitpid(os.posix_spawn("/bin/echo", ["echo", MARK], {}, file_actions=quiet), 0)
        """
    ),
    "thread": textwrap.dedent(
        """
        import subprocess, threading
        def late(mark=MARK):
            import time; time.sleep(0.05)
            subprocess.run(["/bin/echo", mark], stdout=-3)
        threading.Thread(target=late).start()
        """
    ),
    "double fork": textwrap.dedent(
        """
        import os
        first = os.fork()
        if first == 0:
            os.setsid()
            if os.fork() == 0:
                os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
                os.execv("/bin/echo", ["echo", MARK])
            os._exit(0)
        _ = os.waitpid(first, 0)
        """
    ),
    "asyncio": textwrap.dedent(
        """
        import asyncio
        one = await asyncio.create_subprocess_exec("/bin/echo", MARK, stdout=-3)
        _ = await one.wait()
        """
    ),
    "connect": textwrap.dedent(
        """
        import socket
        with socket.socket() as one:
            _ = one.connect_ex((TARGET, 1))
        """
    ),
    "connect in a thread": textwrap.dedent(
        """
        import socket, threading
        def call(target=TARGET):
            with socket.socket() as one:
                one.connect_ex((target, 1))
        threading.Thread(target=call).start()
        """
    ),
}


MANY = textwrap.dedent(
    """
    import subprocess, time
    for n in range(10):
        subprocess.run(["/bin/echo", f"mark-NAME-{n}"], stdout=-3)
        time.sleep(0.03)
    """
)


@pytest.fixture
def place(folder: Path, tmp_path: Path) -> Path:
    """A folder of each test's own, short enough for sockets."""
    own = folder / tmp_path.name[-24:]
    own.mkdir()
    return own


def events(folder: Path) -> list[dict[str, Any]]:
    return read_report(folder / "agent" / "report.ndjson")


def origin(event: dict[str, Any]) -> dict[str, Any]:
    found = (item["data"] for item in event.get("enrichments", ()) if item["name"] == "origin")
    return next(found, {})


def cells_by_mark(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the origin of each program or connection of the test, by the mark in its argument or address."""
    found = {}
    for event in events(folder):
        if event["class_uid"] == 1007 and event["activity_id"] == 1:
            words = event["process"].get("cmd_line", "").split()
            if len(words) == 2 and words[0].endswith("echo") and words[1].startswith("mark-"):
                found[words[1]] = origin(event)
        elif event["class_uid"] == 4001 and (target := event["dst_endpoint"].get("ip", "")).startswith("127.9."):
            found[target] = origin(event)
    return found


def kernels(account: Account, folder: Path) -> tuple[Kernel, Kernel]:
    run_dir = folder / "agent" / "run"
    return kernel(folder / "one", run_dir), kernel(folder / "two", run_dir)  # type: ignore[return-value]


def run_cells(kernels: tuple[Kernel, Kernel], count: int) -> dict[str, tuple[int, str, str]]:
    """Run cells of every way in both kernels; return kernel's pid, cell id and way by mark."""
    chosen = random.Random(7)
    expected = {}
    for number in range(count):
        way = list(WAYS)[number % len(WAYS)]
        running = chosen.choice(kernels)
        mark, cell = f"mark-{number}", f"cell-{number}"
        target = f"127.9.{number // 250}.{number % 250 + 1}"
        code = WAYS[way].replace("{mark}", mark)
        if not code.startswith("%%"):
            code = f"MARK, TARGET = {mark!r}, {target!r}\n{code}"
        outcome = running.run(code, cell)
        assert outcome.status == "ok", outcome.text
        expected[target if way.startswith("connect") else mark] = running.pid, cell, way
    return expected


def wait_for(agent: LiveAgent, folder: Path, marks: set[str]) -> dict[str, dict[str, Any]]:
    deadline = time.monotonic() + 30
    while not marks <= (found := cells_by_mark(folder)).keys() and time.monotonic() < deadline:
        assert agent.running
        time.sleep(0.3)
    return found


@pytest.mark.parametrize("count", [CELLS])
def test_the_right_cell(account: Account, place: Path, count: int) -> None:
    """Whatever a cell starts or connects, and however, stands in the report with that cell and its kernel."""
    with live_agent(account, place / "agent", SETTINGS) as agent:
        one, two = kernels(account, place)
        with one as first, two as second:
            expected = run_cells((first, second), count)
            found = wait_for(agent, place, set(expected))
            wrong = {
                mark: (way, found.get(mark))
                for mark, (pid, cell, way) in expected.items()
                if (found.get(mark, {}).get("cell_id"), found.get(mark, {}).get("pid")) != (cell, pid)
            }
            assert wrong == {}
            print(Counter(found[mark]["cell_certainty"] for mark in expected))
            rows = {item["pid"]: item for item in agent.status()["sessions"] if item["kind"] == "kernel"}
            for running in (first, second):
                assert rows[running.pid]["watched_by"] == ["procfs", "guard", "kernel"]


def test_cells_at_once(account: Account, place: Path) -> None:
    """Two cells that run at once in subshells each keep what they start."""
    with (
        live_agent(account, place / "agent", SETTINGS) as agent,
        kernel(place / "one", place / "agent" / "run") as it,
    ):
        try:
            subshell = it.subshell()
        except KeyError:
            pytest.skip("this ipykernel has no subshells")
        asked = [
            it.ask(MANY.replace("NAME", "a"), "cell-a"),
            it.ask(MANY.replace("NAME", "b"), "cell-b", subshell=subshell),
        ]
        assert len(asked) == 2
        marks = {f"mark-{name}-{n}" for name in "ab" for n in range(10)}
        found = wait_for(agent, place, marks)
        assert {mark: found[mark].get("cell_id") for mark in marks} == {mark: f"cell-{mark[5]}" for mark in marks}


def test_who(account: Account, place: Path) -> None:
    """`who PID` names kernel and cell of a process that runs, and of one that has ended."""
    with (
        live_agent(account, place / "agent", SETTINGS) as agent,
        kernel(place / "one", place / "agent" / "run") as it,
    ):
        code = "import subprocess; one = subprocess.Popen(['/bin/sleep', '60'], start_new_session=True); print(one.pid)"
        pid = int(it.run(code, "the-cell").text)

        def ask(*more: str) -> subprocess.CompletedProcess[str]:
            command = [account.python, "-m", "nbsentinel", "who", "--run-dir", str(place / "agent" / "run"), *more]
            environment = account.environment(place / "agent")
            return subprocess.run([*account.prefix, *command], env=environment, capture_output=True, text=True)

        deadline = time.monotonic() + 10
        while ask(str(pid)).returncode != 0 and time.monotonic() < deadline:
            time.sleep(0.2)
        told = json.loads(ask(str(pid), "--json").stdout)
        data = next(item["data"] for item in told["origin"] if item["name"] == "origin")
        assert (told["live"], data["cell_id"], data["pid"]) == (True, "the-cell", it.pid)
        assert it.run("one.kill(); _ = one.wait()").status == "ok"
        deadline = time.monotonic() + 10
        while "has ended" not in (shown := ask(str(pid)).stdout) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert "has ended" in shown
        assert "the-cell" in shown
        assert "sleep 60" in shown
        assert ask("999999999").returncode == 1
        assert agent.running

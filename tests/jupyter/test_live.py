"""A real Jupyter server with our extension, beside a running agent: what people are told of notebooks and terminals."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from live.account import Account
from live.agent import LiveAgent, live_agent

pytest.importorskip("requests")
from guard.test_jupyter import Server, serving

PATIENCE_S = 40


class Question:
    """Asks the agent as people do."""

    def __init__(self, account: Account, agent: LiveAgent, folder: Path) -> None:
        self._account, self._agent, self._folder = account, agent, folder

    def row(self, kind: str, **wanted: object) -> dict[str, Any]:
        """Return the row of `status` that has these values, an empty one where there is none."""
        rows = self._agent.status().get("sessions", ())
        return next((row for row in rows if row["kind"] == kind and wanted.items() <= row.items()), {})

    def who(self, pid: int, *more: str) -> str:
        return self.run("who", str(pid), *more)

    def run(self, name: str, *more: str) -> str:
        """Return what a command of ours prints."""
        command = [self._account.python, "-m", "nbsentinel", name, "--run-dir", str(self._folder / "run"), *more]
        environment = {**self._account.environment(self._folder), "COLUMNS": "200"}
        command = [*self._account.prefix, *command]
        return subprocess.run(command, env=environment, capture_output=True, text=True).stdout

    def origin(self, pid: int) -> dict[str, Any]:
        """Return what `who --json` says that a process belongs to, an empty object for one that was never seen."""
        told = json.loads(self.who(pid, "--json") or "null")
        return next((item["data"] for item in told["origin"] if item["name"] == "origin"), {}) if told else {}


def wait(condition: Callable[[], Any]) -> Any:
    """Return the first value that is something, or the last."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.3)
    return found


def child_of(pid: int) -> int:
    """Return a program that a terminal's shell has started, 0 for none."""
    return next((one.pid for one in psutil.Process(pid).children() if one.name() == "sleep"), 0)


def use_notebook(server: Server, ask: Question) -> None:
    model = {"path": "sub/first.ipynb", "type": "notebook", "name": "first.ipynb", "kernel": {"name": "guarded"}}
    session = server.call("POST", "sessions", model)
    kernel_id, root = session["kernel"]["id"], str(server.folder)
    first = f"{root}/sub/first.ipynb"
    row = wait(lambda: ask.row("kernel", kernel_id=kernel_id, sessions=[f"notebook {first}"]))
    assert row["notebook"] == first

    server.call("PATCH", f"sessions/{session['id']}", {"path": "sub/renamed.ipynb", "name": "renamed.ipynb"})
    renamed = f"{root}/sub/renamed.ipynb"
    assert wait(lambda: ask.row("kernel", notebook=renamed))["pid"] == row["pid"]
    found = ask.origin(row["pid"])
    assert (found["notebook"], found["kernel_id"]) == (renamed, kernel_id)
    assert found["source"].endswith("by the Jupyter server's word")

    console = {"path": "sub/console-1-ab", "type": "console", "name": "Console 1", "kernel": {"id": kernel_id}}
    server.call("POST", "sessions", console)
    everything = [f"notebook {renamed}", "console Console 1"]
    assert wait(lambda: ask.row("kernel", sessions=everything))["notebook"] == renamed
    assert "console Console 1" in ask.who(row["pid"])


def use_terminal(server: Server, ask: Question) -> None:
    server.call("POST", "terminals", {})
    name = server.call("POST", "terminals", {})["name"]
    row = wait(lambda: ask.row("terminal", terminal_name=name))
    assert row["terminal"].startswith("pts/")
    with closing(server.open(f"terminals/websocket/{name}")) as tab:
        tab.send(json.dumps(["stdin", "sleep 100\r"]))
        pid = wait(lambda: child_of(row["pid"]))
        found = wait(lambda: ask.origin(pid))
    assert (found["kind"], found["terminal"], found["pid"]) == ("terminal", name, row["pid"])
    assert f"terminal {name}" in ask.who(pid)
    assert f"terminal {name}" in ask.run("status")


@pytest.mark.parametrize("guard", [True, False])
def test_notebooks_and_terminals(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guard: bool
) -> None:
    """`status` and `who` name a notebook as it is called now, all that is open on a kernel, and terminals."""
    folder = tmp_path / "agent"
    with live_agent(account, folder, f"[guard]\nenabled = {str(guard).lower()}\nserver = true\n") as agent:
        monkeypatch.setenv("NBSENTINEL_RUN_DIR", str(folder / "run"))
        ask = Question(account, agent, folder)
        with serving(tmp_path / "home", [], []) as server:
            use_notebook(server, ask)
            use_terminal(server, ask)
        assert server.process.returncode == 0
        refused = next(item["detail"] for item in agent.status()["coverage"] if item["sensor"] == "kernels")
        assert "refused" not in refused

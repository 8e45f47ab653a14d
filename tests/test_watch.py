"""The sensors of an agent together."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from nbsentinel.config import AgentSection, Config
from nbsentinel.context.processes import ProcessTable
from nbsentinel.events import Coverage, SensorState
from nbsentinel.watch import Watch


def test_a_self_test_that_fails_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sensor whose self-test raises is unavailable, and the others are tested."""
    config = Config(agent=AgentSection(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run")))
    watch = Watch(config, threading.Event(), ProcessTable(), print, lambda: 0)
    first, *others = watch.all
    assert others

    def fail() -> Coverage:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(first, "self_test", fail)
    for sensor in others:
        active = Coverage(sensor=sensor.name, state=SensorState.ACTIVE)
        monkeypatch.setattr(sensor, "self_test", lambda active=active: active)
    found = watch.test()
    assert [one.state for one in found] == [SensorState.UNAVAILABLE, *[SensorState.ACTIVE] * len(others)]
    assert found[0].why == "the self-test failed: ZeroDivisionError: by zero"
    assert watch.coverage()[0].state is SensorState.UNAVAILABLE

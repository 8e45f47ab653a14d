"""A spool and a recorder whose events are as small as they can be."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbsentinel.events import AgentEvent, Lifecycle, Millis
from nbsentinel.report.recorder import Recorder
from nbsentinel.report.spool import Spool

Event = dict[str, object]
_clock = itertools.count(1_700_000_000_000)


def tick() -> Millis:
    """Return a time that moves by a millisecond at each call."""
    return Millis(next(_clock))


def render(event: AgentEvent) -> Event:
    """Return an event about the agent in the least form that can be sealed."""
    return {
        "class_uid": 6002,
        "severity_id": int(event.severity),
        "message": event.message,
        "type_uid": 600299,
        "unmapped": {"nbsentinel": {**event.details, "what": event.what.value}},
    }


def finding(number: int = 0, severity: int = 4) -> Event:
    """Return a finding in the least form."""
    return {"class_uid": 2004, "severity_id": severity, "message": f"finding {number}"}


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "state", max_bytes=200_000)
    yield made
    made.close()


@pytest.fixture
def begin(spool: Spool) -> Callable[..., Recorder]:
    """Return a function that begins a chain of a given uid in the spool, or in another one."""

    def make(chain: str = "chain-1", where: Spool = spool) -> Recorder:
        recorder = Recorder(where, chain, clock=tick, render=render, recorded=lambda: None)
        recorder.begin(AgentEvent(at=tick(), what=Lifecycle.ENROL, message="start", details={"agent_uid": "a"}))
        return recorder

    return make

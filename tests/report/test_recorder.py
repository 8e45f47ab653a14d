"""Recording: sealed, linked, on disk; rotations and drop statements keep the chain verifiable."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nbsentinel.attest.chain import Chain
from nbsentinel.attest.verify import ChainState, verify_genesis, verify_next
from nbsentinel.errors import SpoolError
from nbsentinel.events import AgentEvent, Lifecycle
from nbsentinel.report.recorder import Recorder
from nbsentinel.report.spool import Spool

from .conftest import finding, tick

Begin = Callable[..., Recorder]


def follow(spool: Spool, *, across_gap: bool = False) -> tuple[ChainState, int]:
    """Verify everything in the spool and return the last state and the number of events."""
    rows = spool.after(0, 100_000)
    state = verify_genesis(rows[0].line).state
    for row in rows[1:]:
        state = verify_next(row.line, state, across_gap=across_gap).state
    return state, len(rows)


def test_recorded_events_verify(spool: Spool, begin: Begin) -> None:
    """What is recorded is one chain, from the enrolment of its key to the newest event."""
    recorder = begin()
    recorder.record([finding(i) for i in range(20)])
    recorder.record_own(AgentEvent(at=tick(), what=Lifecycle.GOODBYE, message="bye"))
    state, count = follow(spool)
    assert count == 22
    assert recorder.head == state.head


def test_key_is_replaced_in_time(spool: Spool, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the key is due, the next event is signed by a new one that the old one announced."""
    recorder = begin()
    monkeypatch.setattr(Chain, "rotation_due", lambda self: self.head is not None and self.head.sequence % 5 == 0)
    for i in range(20):
        recorder.record([finding(i)])
    state, count = follow(spool)
    assert count > 22
    assert state.key != recorder.genesis_jwk


def test_pruning_is_stated_and_verifies(spool: Spool, begin: Begin) -> None:
    """A full spool drops the least, says what, and the rest still verifies without an open hole."""
    recorder = begin()
    for i in range(300):
        recorder.record([finding(i, severity=4 if i % 7 == 0 else 1)])
        recorder.keep_bound()
    state, count = follow(spool, across_gap=True)
    assert count < 300
    assert state.gaps == ()
    severe = [row for row in spool.after(0, 10_000) if b'"severity_id":4' in row.line]
    assert len(severe) == 43


def test_disk_that_refuses(spool: Spool, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk refuses, events are held and the failure is told; then they go out in order."""
    recorder = begin()
    append = Spool.append

    def refuse(self: Spool, entries: object) -> None:
        raise SpoolError("disk full")

    monkeypatch.setattr(Spool, "append", refuse)
    recorder.record([finding(1)])
    recorder.record([finding(2)])
    assert recorder.failure == "disk full"
    monkeypatch.setattr(Spool, "append", append)
    recorder.record([finding(3)])
    assert recorder.failure == ""
    assert follow(spool)[1] == 4
    assert recorder.unrecorded == 0

"""Recording: sealed, linked, on disk; rotations and drop statements keep the chain verifiable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from nbsentinel.attest import canonical
from nbsentinel.attest.attestation import lifecycle, parts
from nbsentinel.attest.chain import Chain
from nbsentinel.attest.verify import ChainState, verify_genesis, verify_next
from nbsentinel.errors import SpoolError
from nbsentinel.events import AgentEvent, Lifecycle
from nbsentinel.report import recorder as module
from nbsentinel.report.recorder import Recorder
from nbsentinel.report.spool import Entry, Spool

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


def own_details(spool: Spool, what: str) -> list[dict[str, Any]]:
    """Return what the agent says of itself in the events of a kind."""
    lines = [row.line for row in spool.after(0, 100_000) if b'"what":"%s"' % what.encode() in row.line]
    found = [lifecycle(canonical.decode(line)) for line in lines]
    return [dict(own) for own in found]


def test_dropped_events_of_an_earlier_chain_are_stated_apart(spool: Spool, begin: Begin) -> None:
    """Old noise goes before today's findings; the statement names its chain, and excuses nothing of the stating one."""
    old = begin("old")
    old.record([finding(i, severity=1) for i in range(300)])
    whole = [row.line for row in spool.after(0, 1_000)]
    recorder = begin("new")
    for i in range(100):
        recorder.record([finding(i, severity=5)])
        recorder.keep_bound()
    rows = spool.after(0, 10_000)
    new = [row.line for row in rows if row.chain == "new"]
    assert sum(b'"severity_id":5' in line for line in new) == 100
    state = verify_genesis(new[0]).state
    for line in new[1:]:
        state = verify_next(line, state).state
    statements = own_details(spool, "dropped")
    assert all(stated["ranges"] == [] for stated in statements)
    ranges = [item for stated in statements for item in stated["other_chains"]]
    assert {item["chain_uid"] for item in ranges} == {"old"}
    gone = {number for item in ranges for number in range(item["first"], item["last"] + 1)}
    left = [row.sequence for row in rows if row.chain == "old"]
    assert sorted([*gone, *left]) == list(range(1, 302))
    assert left[0] == 1
    assert left[-1] == 301
    item = ranges[0]
    before, end = (parts(canonical.decode(whole[item[name] - 1])) for name in ("first", "last"))
    assert (item["prev_fingerprint"], item["last_fingerprint"]) == (before.prev_fingerprint, end.fingerprint)
    assert item["counts"] == {"1": item["last"] - item["first"] + 1}


def test_statement_says_how_severe_what_went_was(spool: Spool, begin: Begin) -> None:
    """Where nothing else is left to drop, the statement does not claim that it was of low severity."""
    recorder = begin()
    recorder.record([finding(i, severity=5) for i in range(300)])
    recorder.keep_bound()
    (row,) = [row for row in spool.after(0, 1_000) if b'"dropped"' in row.line]
    assert b"of severity critical at most were dropped" in row.line


def test_damaged_events_are_dropped_and_stated(spool: Spool, begin: Begin) -> None:
    """A run whose ends somebody damaged is stated as far as it is known."""
    begin("old").record([finding(i, severity=1) for i in range(300)])
    spool._db.execute("UPDATE events SET line = CAST('x' || line AS BLOB) WHERE vital = 0")
    begin("new").keep_bound()
    (stated,) = own_details(spool, "dropped")
    (item,) = stated["other_chains"]
    assert set(item) == {"chain_uid", "first", "last", "counts"}
    assert not spool.over_bound()


def test_spool_that_was_set_aside_is_told(tmp_path: Path, begin: Begin) -> None:
    """That a damaged spool was set aside is signed once, by whichever agent gets as far as that."""
    (tmp_path / "spool.db").write_bytes(b"not a database" * 1000)
    Spool(tmp_path, max_bytes=1 << 20).close()
    spool = Spool(tmp_path, max_bytes=1 << 20)
    for chain in ("one", "two"):
        begin(chain, spool)
    told = [row for row in spool.after(0, 10) if b'"notice"' in row.line]
    spool.close()
    assert [row.chain for row in told] == ["one"]
    assert b"set aside as spool.broken" in told[0].line


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


class Disk:
    """A disk that refuses while it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self._append = True, Spool.append
        disk = self

        def write(spool: Spool, entries: Sequence[Entry]) -> None:
            if disk.full:
                raise SpoolError("disk full")
            disk._append(spool, entries)

        monkeypatch.setattr(Spool, "append", write)


def noise(number: int) -> dict[str, object]:
    return {"class_uid": 1007, "severity_id": 1, "message": f"noise {number}"}


@pytest.mark.parametrize("limit", ["MEMORY_LIMIT", "MEMORY_BYTES"])
def test_full_memory_keeps_the_chain_whole(
    spool: Spool, begin: Begin, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """What neither disk nor memory has room for has no place in the chain; findings, rotations and goodbye are kept."""
    recorder = begin()
    disk = Disk(monkeypatch)
    recorder.record([noise(0)])
    monkeypatch.setattr(module, limit, 10 if limit == "MEMORY_LIMIT" else 10 * len(recorder.held[0].line))
    heads = recorder.record([noise(i) for i in range(1, 100)])
    assert 8 <= len(heads) <= 10  # lines differ by a few bytes
    assert recorder.record([noise(100)]) == []
    recorder.record_own(AgentEvent(at=tick(), what=Lifecycle.HEARTBEAT, message="well"))
    assert recorder.unrecorded == 99 - len(heads) + 2
    due = [True]
    monkeypatch.setattr(Chain, "rotation_due", lambda _: bool(due and due.pop()))
    assert len(recorder.record([finding(1), noise(101)])) == 1
    recorder.record([finding(i) for i in range(2, 1_000)])
    assert len(recorder.held) < 30
    recorder.record_own(AgentEvent(at=tick(), what=Lifecycle.GOODBYE, message="bye"))
    assert recorder.failure == "disk full"
    disk.full = False
    recorder.record([noise(102)])
    state, count = follow(spool)
    assert state.head == recorder.head
    assert state.key != recorder.genesis_jwk
    lines = [row.line for row in spool.after(0, 1_000)]
    assert count == len(lines)
    assert sum(b"finding" in line for line in lines) >= 8
    for words in (b"key_rotation", b"goodbye", b"noise 8", b"noise 102"):
        assert any(words in line for line in lines)


def test_batch_larger_than_memory(spool: Spool, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes events takes any number of them at once."""
    recorder = begin()
    monkeypatch.setattr(module, "MEMORY_LIMIT", 10)
    assert len(recorder.record([noise(i) for i in range(100)])) == 100
    assert follow(spool)[1] == 101
    assert recorder.unrecorded == 0


def test_event_that_cannot_be_sealed(spool: Spool, begin: Begin) -> None:
    """What was sealed before it in the same batch is on disk: its places in the chain are used up."""
    recorder = begin()
    with pytest.raises(canonical.CanonicalError):
        recorder.record([noise(1), {"message": "x" * canonical.LINE_LIMIT}, noise(2)])
    assert follow(spool)[1] == 2
    recorder.record([noise(3)])
    assert follow(spool)[1] == 3

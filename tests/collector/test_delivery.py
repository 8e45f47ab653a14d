"""An agent's collector sink and the collector together: what each does with the other's answers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbsentinel.errors import CollectorError
from nbsentinel.events import AgentEvent, Lifecycle, SensorState
from nbsentinel.report.recorder import Recorder
from nbsentinel.report.sinks.collector import CollectorSink
from nbsentinel.report.sinks.transport import Problem, Transport, _judge
from nbsentinel.report.spool import Entry, Spool
from nbsentinel_collector.store import now_ms

from .conftest import Agent, Collector

Event = dict[str, object]


class Direct(Transport):
    """Speaks with a collector in this process."""

    def __init__(self, collector: Collector) -> None:
        super().__init__("http://collector", ca_bundle=None, connect_timeout=1, read_timeout=1)
        self._collector = collector

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> Event | Problem:
        answer = self._collector.client.post(path, content=body, headers=headers)
        return _judge("collector", answer.status_code, answer.content)


def render(event: AgentEvent) -> Event:
    own = {"what": event.what.value, **event.details}
    return {"class_uid": 6002, "severity_id": 1, "time": event.at, "type_uid": 600299, "unmapped": {"nbsentinel": own}}


class Sender:
    """A spool with chains in it, and the sink that delivers them."""

    def __init__(self, folder: Path, collector: Collector) -> None:
        self.spool, self.collector = Spool(folder / "state", max_bytes=1 << 20), collector
        self.token_file = folder / "token"
        self.token_file.write_text(collector.token())
        self.log: list[str] = []
        self.sink = self.session("none")

    def session(self, chain: str, batch: int = 50) -> CollectorSink:
        self.sink = CollectorSink(
            self.spool,
            Direct(self.collector),
            token_file=self.token_file,
            batch=batch,
            current_chain=chain,
            log=self.log.append,
            random_source=lambda: 0.0,
        )
        return self.sink

    def begin(self, chain: str) -> Recorder:
        def nobody() -> None:
            """Nobody hears of it."""

        recorder = Recorder(self.spool, chain, clock=now_ms, render=render, recorded=nobody)  # type: ignore[arg-type]
        recorder.begin(self.event(Lifecycle.ENROL, agent_uid="a"))
        self.session(chain)
        return recorder

    def event(self, what: Lifecycle, **details: object) -> AgentEvent:
        return AgentEvent(at=now_ms(), what=what, message="", details=details)  # type: ignore[arg-type]

    def damage(self, chain: str, sequence: int, change: Callable[[bytes], bytes]) -> None:
        row = self.spool.find(chain, sequence)
        assert row is not None
        with sqlite3.connect(self.spool.path) as database:
            database.execute("UPDATE events SET line = ? WHERE id = ?", (change(row.line), row.id))
        database.close()

    def deliver(self, turns: int = 30) -> None:
        for _ in range(turns):
            self.sink._step()

    def stored(self, chain: str) -> list[int]:
        rows = self.collector.client.get("/v1/events", params={"chain_uid": chain}).content.splitlines()
        spooled = {row.line: row.sequence for row in self.spool.after(0, 10_000)}
        return [spooled.get(line, 0) for line in rows if line]


@pytest.fixture
def sender(tmp_path: Path, collector: Collector) -> Iterator[Sender]:
    made = Sender(tmp_path, collector)
    yield made
    made.spool.close()


def findings(count: int) -> list[Event]:
    return [{"class_uid": 2004, "severity_id": 4, "time": now_ms(), "message": f"f{i}"} for i in range(count)]


def test_goodbye_comes_before_the_next_session(sender: Sender, collector: Collector) -> None:
    """After an outage over two sessions the goodbye of the first is known before the second is enrolled."""
    sender.begin("one").record_own(sender.event(Lifecycle.GOODBYE))
    sender.begin("two").record(findings(3))
    sender.deliver()
    assert (sender.stored("one"), sender.stored("two")) == ([1, 2], [1, 2, 3, 4])
    assert collector.alarms() == []


def other_line(_line: bytes) -> bytes:
    return Agent("elsewhere").genesis


@pytest.mark.parametrize("place", [2, 5, 9])
@pytest.mark.parametrize(
    "change",
    [
        lambda _line: b"",
        lambda _line: b"\xff\xfe",
        lambda _line: b"{\n\n\n}",
        lambda line: line[:-20],
        lambda line: line.replace(b'"f', b'"g'),
        lambda line: line + b" " * 300_000,
        other_line,
    ],
    ids=["empty", "binary", "lines", "cut", "changed", "long", "other"],
)
def test_damaged_event_is_left_out(
    sender: Sender, collector: Collector, place: int, change: Callable[[bytes], bytes]
) -> None:
    """One event that was damaged in the spool is left out and told; everything before and behind it arrives."""
    recorder = sender.begin("one")
    recorder.record(findings(8))
    sender.damage("one", place, change)
    sender.deliver()
    assert sender.stored("one") == [number for number in range(1, 10) if number != place]
    assert sender.spool.waiting("collector") == 0
    coverage = sender.sink.coverage()
    assert coverage.state is SensorState.DEGRADED
    assert coverage.why.startswith(f"event {place} of chain one was left out")
    assert len([line for line in sender.log if "was left out" in line]) == 1
    recorder.record_own(sender.event(Lifecycle.HEARTBEAT))
    sender.deliver()
    assert collector.alarms() == ["events_missing"]


def test_rotation_that_is_lost_ends_the_chain(sender: Sender) -> None:
    """Nothing behind a key that nobody announced can be taken: the chain is set aside, not tried for ever."""
    recorder = sender.begin("one")
    rotation = recorder._chain.rotate(render(sender.event(Lifecycle.KEY_ROTATION)))
    head = rotation.head
    sender.spool.append(
        [Entry(chain="one", sequence=head.sequence, class_uid=6002, severity=1, line=rotation.line, vital=True)]
    )
    recorder.record(findings(3))
    sender.damage("one", 2, lambda _line: b"{}")
    sender.deliver()
    assert sender.stored("one") == [1]
    assert sender.spool.waiting("collector") == 0
    assert "refuses chain one, which is set aside" in sender.sink.coverage().why


@pytest.mark.parametrize("limits", [{"max_lines": 3}, {"max_decoded_bytes": 4_000}, {"max_body_bytes": 2_000}])
def test_collector_with_small_limits(tmp_path: Path, limits: dict[str, int]) -> None:
    """Requests shrink to what a collector takes, whichever of its limits they meet."""
    collector = Collector(tmp_path, **limits)
    sender = Sender(tmp_path, collector)
    try:
        sender.begin("one").record(findings(30))
        sender.deliver(60)
        assert sender.stored("one") == list(range(1, 32))
        assert sender.sink.coverage().state is SensorState.ACTIVE
    finally:
        sender.spool.close()
        collector.close()


def test_new_token_after_the_collector_lost_its_memory(sender: Sender, collector: Collector, tmp_path: Path) -> None:
    """A collector that forgot the agent takes a new token from the file; the spent one is not presented to it."""
    sender.begin("one")
    sender.deliver(2)
    with collector.store.write() as connection:
        connection.exec_driver_sql("DELETE FROM tokens WHERE note = 'rotated'")
    sender.begin("two")
    sender.deliver(2)
    assert "Unknown token" in sender.sink.coverage().why
    assert "token_reused" not in collector.alarms()
    sender.token_file.write_text(collector.token())
    sender.deliver(2)
    assert (sender.stored("two"), sender.sink.coverage().state) == ([1], SensorState.ACTIVE)


def test_token_that_is_none_condemns_no_chain(sender: Sender) -> None:
    """A refusal of the token alone leaves the chain of an earlier session as it is, to be enrolled with a good one."""
    good = sender.token_file.read_text()
    sender.begin("one")
    sender.begin("two")
    sender.token_file.write_text("x" * 1_000)
    with pytest.raises(CollectorError, match="empty or too long"):
        sender.sink.deliver()
    sender.token_file.write_text(good)
    sender.deliver()
    assert (sender.stored("one"), sender.stored("two")) == ([1], [1])


def test_damaged_first_event_of_an_earlier_session(sender: Sender) -> None:
    """A chain that cannot be enrolled ever does not hold up this session's."""
    sender.begin("one")
    sender.begin("two").record(findings(2))
    with sqlite3.connect(sender.spool.path) as database:
        database.execute("UPDATE chains SET genesis = ? WHERE chain = 'one'", (b"\xff",))
    database.close()
    sender.deliver()
    assert (sender.stored("one"), sender.stored("two")) == ([], [1, 2, 3])
    assert "refuses chain one" in sender.sink.coverage().why


def test_too_large_for_somebody_on_the_way() -> None:
    """A proxy's 413 without a problem body is one all the same."""
    answer = _judge("collector", 413, b"<html>")
    assert isinstance(answer, Problem)
    assert answer.code == "too-large"

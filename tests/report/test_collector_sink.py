"""The collector sink against a collector in memory that can be absent, forgetful or hostile."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nbsentinel.attest import canonical
from nbsentinel.attest.attestation import parts
from nbsentinel.errors import CollectorError, SpoolError
from nbsentinel.events import SensorState
from nbsentinel.report.recorder import Recorder
from nbsentinel.report.sinks import collector as module
from nbsentinel.report.sinks.collector import LONGEST_PAUSE_S, CollectorSink
from nbsentinel.report.sinks.transport import Enrolled, Problem
from nbsentinel.report.spool import Spool
from support.waiting import wait_until

from .conftest import finding

Begin = Callable[..., Recorder]


class Collector:
    """Stores lines by (chain, sequence) and can be bent."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[int, bytes]] = {}
        self.enrolled: dict[str, bool] = {}
        self.tokens = ["t0"]
        self.answers: dict[tuple[str, bytes], str] = {}
        self.away = False
        self.loses_answers = False
        self.refuses: set[str] = set()
        self.most = 1_000
        self.requests: list[int] = []
        self.presented: list[str] = []
        self.ends_the_thread = False

    def enrol(self, token: str, genesis: bytes, *, orphan: bool) -> Enrolled | Problem:
        if self.away:
            raise CollectorError("away")
        self.presented.append(token)
        if (token, genesis) not in self.answers:
            if token not in self.tokens[-2:]:
                return Problem("token-reused", "Token was used", "")
            self.tokens.append(f"t{len(self.tokens)}")
            self.answers[token, genesis] = self.tokens[-1]
        self.enrolled[parts(canonical.decode(genesis)).chain_uid] = orphan
        if self.loses_answers:
            raise CollectorError("lost")
        return Enrolled("a", self.answers[token, genesis])

    def events(self, lines: Sequence[bytes]) -> Problem | None:
        if self.ends_the_thread:
            raise SystemExit
        if self.away:
            raise CollectorError("away")
        if len(lines) > self.most:
            return Problem("too-large", "Body too large", "")
        self.requests.append(len(lines))
        for line in lines:
            part = parts(canonical.decode(line))
            if part.chain_uid in self.refuses:
                return Problem("bad-signature", "Refused", "no", chain_uid=part.chain_uid)
            if part.chain_uid not in self.enrolled:
                return Problem("unknown-chain", "Unknown", "", chain_uid=part.chain_uid)
            chain = self.stored.setdefault(part.chain_uid, {})
            if part.sequence > len(chain) + 1:
                return Problem("gap", "Gap", "", chain_uid=part.chain_uid, expected_sequence=len(chain) + 1)
            chain[part.sequence] = line
        if self.loses_answers:
            raise CollectorError("lost")
        return None


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def sink(spool: Spool, collector: Collector, tmp_path: Path) -> CollectorSink:
    token = tmp_path / "token"
    token.write_text("t0\n")
    return CollectorSink(spool, collector, token_file=token, batch=7, current_chain="chain-1")  # type: ignore[arg-type]


def deliver(sink: CollectorSink, turns: int = 30) -> int:
    """Deliver with errors ignored, as the thread does, and return how many errors there were."""
    errors = 0
    for _ in range(turns):
        try:
            sink.deliver()
        except CollectorError:
            errors += 1
    return errors


def test_enrols_then_delivers_in_order(spool: Spool, begin: Begin, sink: CollectorSink, collector: Collector) -> None:
    """The first thing a collector hears is the enrolment; everything follows in order."""
    begin().record([finding(i) for i in range(30)])
    assert deliver(sink) == 0
    assert list(collector.stored["chain-1"]) == list(range(1, 32))
    assert spool.waiting("collector") == 0


def test_absent_collector_loses_nothing(spool: Spool, begin: Begin, sink: CollectorSink, collector: Collector) -> None:
    """While the collector is away everything waits; then the backlog arrives in order."""
    recorder, collector.away = begin(), True
    recorder.record([finding(i) for i in range(10)])
    assert deliver(sink, 5) == 5
    collector.away = False
    recorder.record([finding(99)])
    assert deliver(sink) == 0
    assert list(collector.stored["chain-1"]) == list(range(1, 13))


def test_lost_answers_are_repeated(spool: Spool, begin: Begin, sink: CollectorSink, collector: Collector) -> None:
    """An answer that got lost leads to the same request again, also for the enrolment and its token."""
    begin().record([finding(1)])
    collector.loses_answers = True
    assert deliver(sink, 1) == 1
    collector.loses_answers = False
    assert deliver(sink) == 0
    assert list(collector.stored["chain-1"]) == [1, 2]


def test_collector_that_lost_its_memory(spool: Spool, begin: Begin, sink: CollectorSink, collector: Collector) -> None:
    """A collector restored from an old backup asks for what it lacks and gets it as far as it is still here."""
    begin().record([finding(i) for i in range(20)])
    deliver(sink)
    collector.stored["chain-1"] = dict.fromkeys(range(1, 11), b"")
    collector.enrolled.clear()
    collector.tokens = ["t0", "t1"]
    spool.advance("collector", 15)
    assert deliver(sink) >= 2
    assert list(collector.stored["chain-1"]) == list(range(1, 22))


def test_orphans_of_a_killed_session_come_first(
    spool: Spool, begin: Begin, sink: CollectorSink, collector: Collector
) -> None:
    """A session that died before it could enrol is delivered by the next one, marked as an orphan."""
    begin("chain-0").record([finding(1)])
    begin("chain-1").record([finding(2)])
    assert deliver(sink) == 0
    assert collector.enrolled == {"chain-0": True, "chain-1": False}
    assert {chain: len(lines) for chain, lines in collector.stored.items()} == {"chain-0": 2, "chain-1": 2}


def test_refused_chain_does_not_hold_up_the_next(
    spool: Spool, begin: Begin, sink: CollectorSink, collector: Collector
) -> None:
    """A chain that the collector will never take is set aside; others are delivered."""
    for chain in ("chain-0", "chain-00", "chain-1"):
        begin(chain).record([finding(1)])
    collector.refuses = {"chain-0", "chain-00"}
    assert deliver(sink) == 2
    assert list(collector.stored["chain-1"]) == [1, 2]
    assert spool.waiting("collector") == 0


def test_refused_session_stays_in_coverage(
    spool: Spool, begin: Begin, sink: CollectorSink, collector: Collector
) -> None:
    """Once the collector refuses this session's chain nothing of it is delivered, and coverage keeps saying so."""
    recorder = begin()
    sink._step()
    collector.refuses = {"chain-1"}
    for number in range(4):
        recorder.record([finding(number)])
        sink._step()
    coverage = sink.coverage()
    assert (sink._error, spool.waiting("collector"), sink.delivered) == ("", 0, 1)
    assert coverage.state is SensorState.DEGRADED
    assert coverage.why == "the collector refuses chain chain-1, which is set aside: Refused: no"


def test_events_of_a_chain_that_was_refused_before(spool: Spool, begin: Begin, sink: CollectorSink) -> None:
    """What is skipped because its chain was refused earlier is told as well."""
    begin()
    spool.set_chain_state("chain-1", "refused")
    deliver(sink)
    assert "chain-1, which is set aside" in sink.coverage().why


@pytest.mark.parametrize("error", [SpoolError("the disk is full"), sqlite3.OperationalError("database is locked")])
@pytest.mark.parametrize("step", ["cursor", "after", "chains", "remember", "advance"])
def test_spool_that_fails_for_a_while(
    spool: Spool,
    begin: Begin,
    collector: Collector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: Exception,
) -> None:
    """A spool that cannot be used is tried again like a collector that is away; meanwhile coverage says why."""
    begin().record([finding(1)])
    (tmp_path / "token").write_text("t0")
    lines: list[str] = []
    sink = CollectorSink(
        spool,
        collector,  # type: ignore[arg-type]
        token_file=tmp_path / "token",
        batch=7,
        current_chain="chain-1",
        log=lines.append,
        random_source=lambda: 0.01,
    )

    def fail(*_: object) -> object:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(spool, step, fail)
        sink.start()
        assert wait_until(lambda: sink._failures > 1, 10)
        assert sink.coverage().state is SensorState.DEGRADED
        assert str(error) in sink.coverage().why
        assert len([line for line in lines if str(error) in line]) == 1
    assert wait_until(lambda: sink.coverage().state is SensorState.ACTIVE, 10)
    sink.stop(5)
    assert list(collector.stored["chain-1"]) == [1, 2]


def test_stop_while_the_spool_fails(
    spool: Spool, begin: Begin, sink: CollectorSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping does not fail because nobody can say how much is waiting."""

    def fail(_sink: str) -> int:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(spool, "waiting", fail)
    sink.stop(0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_thread_that_ended(spool: Spool, begin: Begin, sink: CollectorSink, collector: Collector) -> None:
    """A sink whose thread is gone does not call itself active, whatever it did last."""
    begin()
    collector.ends_the_thread = True
    sink._error = ""
    sink.start()
    assert wait_until(lambda: sink.coverage().state is SensorState.DEGRADED, 10)
    assert sink.coverage().why == "the thread that delivers has ended"


def test_requests_that_are_too_large(spool: Spool, begin: Begin, sink: CollectorSink, collector: Collector) -> None:
    """A request that is too large is made smaller until it is taken, and then larger again."""
    begin().record([finding(i) for i in range(20)])
    collector.most = 2
    sink.deliver()
    assert collector.requests == []
    collector.most = 1_000
    assert deliver(sink) == 0
    assert collector.requests == [3, 6, 7, 5]
    assert list(collector.stored["chain-1"]) == list(range(1, 22))


def test_one_event_that_is_too_large(spool: Spool, begin: Begin, sink: CollectorSink, collector: Collector) -> None:
    """Where not even one event is taken nothing is lost: it is an error until the limit is raised."""
    begin()
    collector.most = 0
    assert deliver(sink, 3) == 3
    assert spool.waiting("collector") == 1
    collector.most = 1
    assert deliver(sink) == 0
    assert spool.waiting("collector") == 0


def test_requests_are_bounded_by_bytes(
    spool: Spool, begin: Begin, sink: CollectorSink, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request has no more bytes than it may, but at least one event; not much more is read than goes into one."""
    begin().record([finding(i) for i in range(9)])
    size = max(len(row.line) for row in spool.after(0, 20)) + 1
    monkeypatch.setattr(module, "REQUEST_BYTES", 3 * size)
    after, asked = spool.after, list[int]()
    monkeypatch.setattr(spool, "after", lambda cursor, most: (asked.append(most), after(cursor, most))[1])
    assert deliver(sink) == 0
    assert set(collector.requests[:-1]) == {3}
    assert asked[:4] == [7, 6, 6, 6]
    monkeypatch.setattr(module, "REQUEST_BYTES", 1)
    collector.requests.clear()
    begin("chain-2").record([finding(1)])
    assert deliver(sink) == 0
    assert collector.requests == [1, 1]


def test_new_token_in_the_file(
    spool: Spool, begin: Begin, sink: CollectorSink, collector: Collector, tmp_path: Path
) -> None:
    """When the remembered token is not good any more, a new one in the file is presented; a spent one never again."""
    begin()
    assert deliver(sink) == 0
    collector.tokens = ["forgotten", "t9"]
    collector.presented.clear()
    begin("chain-2")
    assert deliver(sink, 3) == 3
    assert collector.presented == ["t1"] * 3
    (tmp_path / "token").write_text("t9\n")
    assert deliver(sink) == 0
    assert collector.presented[3:] == ["t1", "t9"]
    assert spool.fact("enrolment_token") == "t2"
    assert list(collector.stored["chain-2"]) == [1]


@pytest.mark.parametrize(("content", "word"), [(b"", "empty"), (b" \n", "empty"), (b"\xff\xfe", "something else")])
def test_useless_token_file(
    spool: Spool, begin: Begin, sink: CollectorSink, collector: Collector, tmp_path: Path, content: bytes, word: str
) -> None:
    """A token file without a token is told with its name, nothing is presented, and nothing is lost."""
    begin("chain-0")
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(CollectorError, match=word) as caught:
        sink.deliver()
    assert str(tmp_path / "token") in caught.value.message
    assert collector.presented == []
    assert spool.chains()[0][1] == "new"


def test_without_a_token(spool: Spool, begin: Begin, collector: Collector) -> None:
    """No token is an error with a next step, and nothing is lost."""
    begin()
    sink = CollectorSink(spool, collector, token_file=None, batch=7, current_chain="chain-1")  # type: ignore[arg-type]
    with pytest.raises(CollectorError, match="no enrolment token") as caught:
        sink.deliver()
    assert caught.value.hint
    assert spool.waiting("collector") == 1


def test_pauses_grow_and_are_bounded(spool: Spool, collector: Collector) -> None:
    """Pauses double from failure to failure up to a minute, with jitter over the whole range."""
    sink = CollectorSink(
        spool,
        collector,
        token_file=None,
        batch=7,
        current_chain="c",
        random_source=lambda: 1.0,  # type: ignore[arg-type]
    )
    pauses = []
    for failures in range(1, 15):
        sink._failures = failures
        pauses.append(sink.pause())
    assert pauses == sorted(pauses)
    assert pauses[0] == 1.0
    assert max(pauses) == LONGEST_PAUSE_S

"""The collector sink against a collector in memory that can be absent, forgetful or hostile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nbsentinel.attest import canonical
from nbsentinel.attest.attestation import parts
from nbsentinel.errors import CollectorError
from nbsentinel.report.recorder import Recorder
from nbsentinel.report.sinks.collector import LONGEST_PAUSE_S, CollectorSink
from nbsentinel.report.sinks.transport import Enrolled, Problem
from nbsentinel.report.spool import Spool

from .conftest import finding

Begin = Callable[..., Recorder]


class Collector:
    """Stores lines by (chain, sequence) and can be bent."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[int, bytes]] = {}
        self.enrolled: dict[str, bool] = {}
        self.tokens = ["t0"]
        self.away = False
        self.loses_answers = False
        self.refuses: set[str] = set()

    def enrol(self, token: str, genesis: bytes, *, orphan: bool) -> Enrolled | Problem:
        if self.away:
            raise CollectorError("away")
        if token not in self.tokens[-2:]:
            return Problem("token-reused", "Token was used", "")
        self.enrolled[parts(canonical.decode(genesis)).chain_uid] = orphan
        self.tokens.append(f"t{len(self.tokens)}")
        if self.loses_answers:
            raise CollectorError("lost")
        return Enrolled("a", self.tokens[-1])

    def events(self, lines: Sequence[bytes]) -> Problem | None:
        if self.away:
            raise CollectorError("away")
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

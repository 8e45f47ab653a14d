"""Test alerts: a finding that says that it is none goes the way of every finding, and each sink's word is waited for.

Whoever may ask is of our own user, so perhaps an attacker. What is asked can neither pass for a real finding nor make a
real one pass for a test: the agent alone writes both, with everything but the severity. How often is limited, counted
and signed, and the process that asked is in the finding.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Protocol

from nbsentinel.attest.chain import Head
from nbsentinel.context.origins import Origins
from nbsentinel.context.processes import ProcessTable
from nbsentinel.events import Confidence, Finding, Millis, Origin, OriginKind, Process, ProcessKey, Severity
from nbsentinel.report.ocsf_objects import Object
from nbsentinel.report.outlets import Fate
from nbsentinel.report.spool import Row, Spool

PERIOD_S = 10.0
"""Shortest time between two test alerts."""
LONGEST_WAIT_S = 120
KNOWN_S = 1.0
"""How long to wait until the process that asks is known: it has only just started."""
_STEP_S, _ALIVE_S = 0.02, 1.0
RULE_ID, RULE_NAME = "5b1d7a52-7c0e-4c34-9a55-4b7f0d1fffe0", "test_alert"
TITLE = "Test alert: nothing happened"
SEVERITIES = {severity.name.lower(): severity for severity in Severity}


class Ledger(Protocol):
    """Signs and stores; `nbsentinel.report.recorder.Recorder` is one."""

    failure: str

    def record(self, events: list[Object]) -> list[Head]:
        """Store events and return their places in the chain; none of what is lost."""


class Deliveries(Protocol):
    """The sinks; `nbsentinel.report.outlets.Outlets` is one."""

    @property
    def names(self) -> list[str]:
        """Their names."""

    def fate(self, name: str, row: Row) -> Fate:
        """Return what became of an event in a sink."""


class Drills:
    """Makes test alerts, from any thread.

    Args:
        ledger: Where they are recorded.
        spool: Where they are found again.
        deliveries: The sinks.
        render: Turns a finding into an event that is marked as a test.
        table: Who asks.
        origins: What that belongs to.
        clock: Milliseconds since the epoch.
    """

    def __init__(
        self,
        ledger: Ledger,
        spool: Spool,
        deliveries: Deliveries,
        render: Callable[[Finding], Object],
        table: ProcessTable,
        origins: Origins,
        clock: Callable[[], Millis],
    ) -> None:
        self._ledger, self._spool, self._deliveries, self._render = ledger, spool, deliveries, render
        self._table, self._origins, self._clock = table, origins, clock
        self._lock = threading.Lock()
        self._next = 0.0
        self.made = self.refused = 0

    def answer(self, severity: object, wait: object, pid: int) -> Iterator[Object]:
        """Make an alert and yield what to answer: what it is, then each sink's word; an empty answer means patience.

        Args:
            severity: What was asked for, unchecked.
            wait: Seconds to wait for sinks, unchecked.
            pid: Who asks, by the kernel's word.
        """
        chosen = SEVERITIES.get(severity) if isinstance(severity, str) else None
        if chosen is None:
            yield {"error": f"severity is one of {', '.join(SEVERITIES)}"}
            return
        if isinstance(wait, bool) or not isinstance(wait, int) or not 0 <= wait <= LONGEST_WAIT_S:
            yield {"error": f"wait is a number of seconds, {LONGEST_WAIT_S} at most"}
            return
        if left := self._limit():
            yield {"refused": f"a test alert is made once in {PERIOD_S:.0f} s; ask again in {left:.0f} s"}
            return
        finding = self._finding(chosen, pid)
        began = time.monotonic()
        heads = self._ledger.record([self._render(finding)])
        if not heads or self._ledger.failure:
            fate = "waits in memory, it cannot be written to disk" if heads else "is lost, memory and disk are full"
            yield {"refused": f"the alert {fate}: {self._ledger.failure}"}
            return
        (head,) = heads
        told = {"uid": finding.uid, "severity": severity, "chain": head.chain_uid, "sequence": head.sequence}
        yield {"test_alert": {**told, "recorded_ms": _since(began), "sinks": self._deliveries.names}}
        row = self._spool.find(head.chain_uid, head.sequence)
        if row is not None:
            yield from self._follow(row, began, wait)
        else:
            for name in self._deliveries.names:
                yield {"delivery": {"sink": name, "why": "it was dropped at once: the spool is full"}}

    def counters(self) -> dict[str, int]:
        """Return what heartbeats say."""
        return {"test_alerts": self.made, "test_alerts_refused": self.refused}

    def _limit(self) -> float:
        """Return how many seconds are left until the next alert may be made, 0 where this one may."""
        with self._lock:
            left = self._next - time.monotonic()
            if left > 0:
                self.refused += 1
                return max(1.0, left)
            self._next = time.monotonic() + PERIOD_S
            self.made += 1
            return 0

    def _finding(self, severity: Severity, pid: int) -> Finding:
        process = self._asking(pid)
        unknown = Origin(kind=OriginKind.OTHER, source="unknown: the process that asked was not seen yet")
        known = process is not None
        process = process or Process(
            key=ProcessKey(pid, 0), parent=None, name="unknown", exe=None, argv=(), argv_length=0
        )
        return Finding(
            uid=str(uuid.uuid4()),
            rule_id=RULE_ID,
            rule_name=RULE_NAME,
            title=TITLE,
            why="Somebody asked the agent for a test alert, to see whether alerts arrive. Nothing was detected.",
            severity=severity,
            confidence=Confidence.HIGH,
            at=self._clock(),
            process=process,
            lineage=self._table.lineage(process.key) if known else (),
            origin=self._origins.of(process.key) if known else unknown,
            advice=("Nothing, where you expected it. If nobody admits to it, ask who ran the command below.",),
            fields={"TestAlert": "true"},
        )

    def _asking(self, pid: int) -> Process | None:
        deadline = time.monotonic() + KNOWN_S
        while True:
            found = self._table.latest(pid)
            if found is not None and self._table.is_live(found.key):
                return found
            if time.monotonic() > deadline:
                return None
            time.sleep(_STEP_S)

    def _follow(self, row: Row, began: float, wait: int) -> Iterator[Object]:
        """Yield each sink's word as it comes; at the end of the patience, why it did not."""
        waiting, alive = list(self._deliveries.names), time.monotonic()
        while waiting:
            over = time.monotonic() - began >= wait
            for name in list(waiting):
                fate = self._deliveries.fate(name, row)
                if fate.delivered:
                    yield {"delivery": {"sink": name, "ms": _since(began)}}
                elif fate.final or over:
                    yield {"delivery": {"sink": name, "why": fate.why or f"no confirmation within {wait} s"}}
                else:
                    continue
                waiting.remove(name)
            if waiting and time.monotonic() - alive >= _ALIVE_S:
                alive = time.monotonic()
                yield {}
            time.sleep(_STEP_S if waiting else 0)


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)

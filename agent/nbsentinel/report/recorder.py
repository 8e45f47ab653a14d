"""Sealing and recording: the one place where an event gets sequence, link and signature, and goes to disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from nbsentinel.attest.chain import Chain, Head, Sealed
from nbsentinel.attest.keys import SigningKey
from nbsentinel.errors import SpoolError
from nbsentinel.events import AgentEvent, Lifecycle, Millis, Severity
from nbsentinel.report import prune
from nbsentinel.report.spool import Entry, Pruned, Spool

Event = dict[str, object]
RANGES_IN_STATEMENT = 400
"""Ranges in one drop statement: about half of the longest line."""
MEMORY_LIMIT = 5_000
"""Sealed events held in memory while the disk refuses them."""
_VITAL = (Lifecycle.ENROL, Lifecycle.KEY_ROTATION, Lifecycle.DROPPED, Lifecycle.GOODBYE)


class Recorder:
    """Writes one chain. Safe to use from several threads; events are recorded in the order of the calls.

    Args:
        spool: Where sealed events go.
        chain_uid: The agent session.
        clock: Milliseconds since the epoch.
        render: Turns an event about the agent itself into OCSF.
        recorded: Called after events are durable; sinks hang here.
    """

    def __init__(
        self,
        spool: Spool,
        chain_uid: str,
        *,
        clock: Callable[[], Millis],
        render: Callable[[AgentEvent], Event],
        recorded: Callable[[], None],
    ) -> None:
        self._spool, self._clock, self._render, self._recorded = spool, clock, render, recorded
        self._chain = Chain(chain_uid, SigningKey.generate(), now=clock)
        self._lock = threading.RLock()
        self._held: list[Entry] = []
        self.unrecorded = 0
        """Events lost because neither disk nor memory had room."""
        self.failure = ""
        """Why the spool refuses, empty while it works."""

    @property
    def chain_uid(self) -> str:
        """The uid of the chain that is written."""
        return self._chain.chain_uid

    @property
    def genesis_jwk(self) -> dict[str, str]:
        """The public key that the chain began with."""
        return self._chain.genesis_key.jwk()

    @property
    def held(self) -> tuple[Entry, ...]:
        """Sealed events that the disk refused so far, in their order."""
        with self._lock:
            return tuple(self._held)

    @property
    def head(self) -> Head | None:
        """The newest recorded event's place in the chain."""
        return self._chain.head

    def begin(self, event: AgentEvent) -> None:
        """Record the first event of the chain: the request to enrol its key.

        Raises:
            SpoolError: It cannot be written; an agent that cannot record does not start.
        """
        with self._lock:
            announced = self._with_details(event, key=self.genesis_jwk)
            self._spool.begin_chain(_entry(self._chain.seal(announced), vital=True))
        self._recorded()

    def _with_details(self, event: AgentEvent, **details: object) -> Event:
        return self._render(
            AgentEvent(
                at=event.at,
                what=event.what,
                message=event.message,
                details={**event.details, **details},
                severity=event.severity,
            )
        )

    def record(self, events: Sequence[Event]) -> list[Head]:
        """Seal and store OCSF events, and return their places; when this returns without `failure` they are on disk."""
        if not events:
            return []
        with self._lock:
            self._rotate_if_due()
            sealed = [self._chain.seal(event) for event in events]
            self._store([_entry(item) for item in sealed])
        self._recorded()
        return [item.head for item in sealed]

    def record_own(self, event: AgentEvent) -> None:
        """Seal and store an event about the agent itself."""
        with self._lock:
            self._rotate_if_due()
            self._store([_entry(self._chain.seal(self._render(event)), vital=event.what in _VITAL)])
        self._recorded()

    def _rotate_if_due(self) -> None:
        if not self._chain.rotation_due():
            return
        announcement = AgentEvent(at=self._clock(), what=Lifecycle.KEY_ROTATION, message="The signing key was replaced")
        self._store([_entry(self._chain.rotate(self._render(announcement)), vital=True)])

    def _store(self, entries: list[Entry]) -> None:
        waiting = [*self._held, *entries]
        try:
            self._spool.append(waiting)
            self._held, self.failure = [], ""
        except SpoolError as error:
            self.failure = error.message
            self._held = waiting[:MEMORY_LIMIT]
            self.unrecorded += len(waiting) - len(self._held)

    def keep_bound(self) -> None:
        """Prune the spool if it has outgrown its bound, and state in a signed event what went."""
        with self._lock:
            if not self._spool.over_bound():
                return
            runs = self._spool.prune(self.chain_uid)
            for begin in range(0, len(runs), RANGES_IN_STATEMENT):
                self._state_dropped(runs[begin : begin + RANGES_IN_STATEMENT])
        self._recorded()

    def _state_dropped(self, runs: list[Pruned]) -> None:
        count = sum(sum(run.severities.values()) for run in runs)
        statement = AgentEvent(
            at=self._clock(),
            what=Lifecycle.DROPPED,
            message=f"{count} events of low severity were dropped: the spool is full",
            details={"ranges": [prune.describe(run) for run in runs]},
            severity=Severity.MEDIUM,
        )
        self._store([_entry(self._chain.seal(self._render(statement)), vital=True)])


def _entry(sealed: Sealed, *, vital: bool = False) -> Entry:
    severity = sealed.event.get("severity_id")
    class_uid = sealed.event.get("class_uid")
    return Entry(
        chain=sealed.head.chain_uid,
        sequence=sealed.head.sequence,
        class_uid=class_uid if isinstance(class_uid, int) else 0,
        severity=severity if isinstance(severity, int) else 0,
        line=sealed.line,
        vital=vital,
    )

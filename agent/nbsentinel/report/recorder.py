"""Sealing and recording: the one place where an event gets sequence, link and signature, and goes to disk."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

from nbsentinel.attest.chain import Chain, Head, Sealed
from nbsentinel.attest.keys import SigningKey
from nbsentinel.errors import SpoolError
from nbsentinel.events import AgentEvent, Lifecycle, Millis, Severity
from nbsentinel.report import prune
from nbsentinel.report.spool import SET_ASIDE_FACT, Entry, Pruned, Spool
from nbsentinel.text import visible

Event = dict[str, object]
RANGES_IN_STATEMENT = 400
"""Ranges in one drop statement: a bit more than half of the longest line."""
MEMORY_LIMIT, MEMORY_BYTES = 5_000, 8 << 20
"""Sealed events, and bytes of these, held in memory while the disk refuses them; findings may fill twice as much."""
_FINDING_CLASS, _NAME_LIMIT = 2004, 100
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
        self._held_bytes = 0
        self.unrecorded = 0
        """Events lost because neither disk nor memory had room; they have no place in the chain, so it stays whole."""
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

        Where a damaged spool was set aside, that is the second one.

        Raises:
            SpoolError: It cannot be written; an agent that cannot record does not start.
        """
        with self._lock:
            announced = self._with_details(event, key=self.genesis_jwk)
            self._spool.begin_chain(_entry(self._chain.seal(announced), vital=True))
            if name := self._spool.fact(SET_ASIDE_FACT):
                self._tell_set_aside(name)
        self._recorded()

    def _tell_set_aside(self, name: str) -> None:
        name = visible(name.encode(), _NAME_LIMIT)
        message = f"The spool was damaged and is set aside as {name}; what it had not delivered is not in the new one"
        notice = AgentEvent(at=self._clock(), what=Lifecycle.NOTICE, message=message, severity=Severity.MEDIUM)
        self._hold(self._chain.seal(self._render(notice)), vital=True)
        self._flush()
        if not self.failure:
            self._spool.remember(SET_ASIDE_FACT, "")

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
        """Seal and store OCSF events; when this returns without `failure` they are on disk.

        Returns:
            Their places; of those that neither disk nor memory had room for, none.
        """
        if not events:
            return []
        with self._lock, self._storing():
            self._rotate_if_due()
            heads = [head for event in events if (head := self._take(event)) is not None]
        self._recorded()
        return heads

    def record_own(self, event: AgentEvent) -> None:
        """Seal and store an event about the agent itself."""
        with self._lock, self._storing():
            self._rotate_if_due()
            self._take(self._render(event), vital=event.what in _VITAL)
        self._recorded()

    def _rotate_if_due(self) -> None:
        if not self._chain.rotation_due():
            return
        announcement = AgentEvent(at=self._clock(), what=Lifecycle.KEY_ROTATION, message="The signing key was replaced")
        self._hold(self._chain.rotate(self._render(announcement)), vital=True)

    def _take(self, event: Event, *, vital: bool = False) -> Head | None:
        """Seal an event, or count it as unrecorded before it gets a place in the chain: then nothing is missing there.

        What is vital is few, and the chain cannot go on without it: it is always taken.
        """
        if not vital and not self._has_room(event):
            if not self.failure:
                self._flush()  # a batch larger than memory may hold
            if not self._has_room(event):
                self.unrecorded += 1
                return None
        sealed = self._chain.seal(event)
        self._hold(sealed, vital=vital)
        return sealed.head

    def _has_room(self, event: Event) -> bool:
        shares = 2 if event.get("class_uid") == _FINDING_CLASS else 1
        return len(self._held) < shares * MEMORY_LIMIT and self._held_bytes < shares * MEMORY_BYTES

    def _hold(self, sealed: Sealed, *, vital: bool) -> None:
        self._held.append(_entry(sealed, vital=vital))
        self._held_bytes += len(sealed.line)

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        """Write what is sealed within, whatever happens there; a disk that refused is asked again before, once."""
        if self.failure:
            self._flush()
        try:
            yield
        finally:
            if not self.failure:
                self._flush()

    def _flush(self) -> None:
        try:
            self._spool.append(self._held)
            self._held, self._held_bytes, self.failure = [], 0, ""
        except SpoolError as error:
            self.failure = error.message

    def keep_bound(self) -> None:
        """Prune the spool if it has outgrown its bound, and state in a signed event what went.

        Raises:
            SpoolError: The disk refuses; nothing was pruned.
        """
        with self._lock, self._storing():
            if not self._spool.over_bound():
                return
            runs = self._spool.prune()
            for begin in range(0, len(runs), RANGES_IN_STATEMENT):
                self._state_dropped(runs[begin : begin + RANGES_IN_STATEMENT])
        self._recorded()

    def _state_dropped(self, runs: list[Pruned]) -> None:
        """State dropped events: our own chain's so that verifiers accept the holes, others' so that it is known."""
        count = sum(sum(run.severities.values()) for run in runs)
        worst = prune.word(max(severity for run in runs for severity in run.severities))
        own = [prune.describe(run) for run in runs if run.chain == self.chain_uid]
        others = [prune.describe_other(run) for run in runs if run.chain != self.chain_uid]
        statement = AgentEvent(
            at=self._clock(),
            what=Lifecycle.DROPPED,
            message=f"{count} events of severity {worst} at most were dropped: the spool is full",
            details={"ranges": own, **({"other_chains": others} if others else {})},
            severity=Severity.MEDIUM,
        )
        self._take(self._render(statement), vital=True)


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

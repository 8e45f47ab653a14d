"""The collector sink: ships recorded events in order, at least once, through any outage.

A thread of its own; nothing else ever waits for the network. Errors lead to a pause with full jitter that doubles up to
a minute. A request holds events of one chain. A chain that the collector does not know is enrolled first, with the
token at hand; a chain that it refuses for good is set aside, and a damaged event left out, so that they cannot hold up
what follows. Coverage goes on saying so.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

from nbsentinel.attest.integrity import Reason
from nbsentinel.errors import CollectorError, NbsentinelError, SpoolError
from nbsentinel.events import Coverage, SensorState
from nbsentinel.report.sinks.transport import Enrolled, Problem, Transport
from nbsentinel.report.spool import Row, Spool

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0
LINGER_S = 0.05
"""Wait for a few more events before a request, so that a burst is one request."""
REQUEST_BYTES = 4 << 20
"""Lines in one request, before compression. A collector takes eight times as much unless it is configured not to."""
TOKEN_FACT = "enrolment_token"  # noqa: S105 - the name of a fact, not a secret
FILE_TOKEN_FACT = "enrolment_token_file_sha256"  # noqa: S105
"""Hash of the token file's content that was spent: presenting that again would look like a thief's copy."""
_TOKEN_REFUSED = {"unknown-token", "expired-token", "foreign-token", "token-reused"}
_BAD_GENESIS = {"bad-genesis", *(reason.value for reason in Reason)}
"""Refusals of an enrolment that are about the event, not about the token or the request."""


class CollectorSink:
    """Delivers the spool to a collector.

    Args:
        spool: Where events come from.
        transport: Speaks HTTP with the collector.
        token_file: File with the first enrolment token; later ones come from the collector and live in the spool. A new
            one in the file counts when the collector refuses the one that lives in the spool.
        batch: Most events in one request.
        current_chain: The chain of this session; older ones that are still unknown were orphaned.
        log: Takes a line for the operator.
        random_source: For jitter.
    """

    name = "collector"

    def __init__(
        self,
        spool: Spool,
        transport: Transport,
        *,
        token_file: Path | None,
        batch: int,
        current_chain: str,
        log: Callable[[str], None] = lambda _line: None,
        random_source: Callable[[], float] = random.random,
    ) -> None:
        self._spool, self._transport = spool, transport
        self._token_file, self._batch, self._current = token_file, batch, current_chain
        self._log, self._random = log, random_source
        self._most = batch
        """Most events in the next request: few after one that was too large, then twice as many each time."""
        self._work = threading.Event()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._error = "nothing was delivered yet"
        self._lost = ""
        """The last thing that will never be delivered, and why."""
        self._left_out: set[int] = set()
        self.delivered = 0

    def start(self) -> None:
        """Begin to deliver in a thread."""
        self._thread = threading.Thread(target=self._run, name="collector-sink", daemon=True)
        self._thread.start()
        self._work.set()

    def notify(self) -> None:
        """Hear of new events."""
        self._work.set()

    def look(self) -> None:
        """Do nothing: what is delivered is out of reach."""

    def stop(self, timeout: float) -> None:
        """Deliver what waits within the time, then stop."""
        deadline = time.monotonic() + timeout
        with contextlib.suppress(sqlite3.Error, SpoolError):
            while self._spool.waiting(self.name) and not self._failures and time.monotonic() < deadline:
                self._work.set()
                time.sleep(0.02)
        self._end.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join(max(0.1, deadline - time.monotonic()))

    def coverage(self) -> Coverage:
        """Return whether delivery works, and whether all that was to be delivered was taken."""
        ended = self._thread is not None and not self._thread.is_alive() and not self._end.is_set()
        words = ("the thread that delivers has ended" if ended else "", self._error, self._lost)
        why = "; ".join(dict.fromkeys(word for word in words if word))
        state = SensorState.DEGRADED if why else SensorState.ACTIVE
        return Coverage(sensor="sink:collector", state=state, why=why)

    def _run(self) -> None:
        while not self._end.is_set():
            self._work.wait(5)
            self._work.clear()
            if self._end.wait(LINGER_S) and self._failures:
                return
            while not self._end.is_set() and self._step():
                pass

    def _step(self) -> bool:
        """Deliver one batch; return whether there may be more to do now."""
        try:
            more = self.deliver()
        except Exception as error:  # noqa: BLE001 - nothing may end delivery: it is tried again, and coverage says why
            told = error.message if isinstance(error, NbsentinelError) else f"{type(error).__name__}: {error}"
            self._failures += 1
            if self._error != told:
                self._log(f"collector: {told}")
            self._error = told
            self._end.wait(self.pause())
            return True
        self._failures, self._error = 0, ""
        return more

    def pause(self) -> float:
        """Return how long to wait after the present number of failures, in seconds: full jitter, doubling."""
        ceiling = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, 10))
        return float(self._random() * ceiling)

    def deliver(self) -> bool:
        """Send the next batch and return whether more waits.

        Raises:
            CollectorError: The collector did not answer or cannot take anything now; nothing was lost.
            SpoolError: The spool cannot be used now; what was sent may be sent again.
        """
        found = self._spool.after(self._spool.cursor(self.name), self._most)
        if not found:
            return False
        rows = _request(found)
        more = len(found) == self._most
        if len(rows) < len(found):
            more, self._most = True, len(rows)
        if self._is_accepted(rows[0].chain):
            if not self._send(rows):
                return True
            self.delivered += len(rows)
        self._spool.advance(self.name, rows[-1].id)
        return more

    def _is_accepted(self, chain: str) -> bool:
        """Return whether the collector takes events of this chain, after enrolling it where that is due."""
        known = {uid: (state, genesis) for uid, state, genesis in self._spool.chains()}
        state, genesis = known.get(chain, ("refused", b""))
        if state == "refused":
            self._lost = self._lost or f"events of chain {chain}, which is set aside, are not delivered"
        return state != "refused" and (state != "new" or self._enrol(chain, genesis))

    def _send(self, rows: list[Row]) -> bool:
        """Send events of one chain; return whether they were taken, False for another try with others at once."""
        lines = [row.line for row in rows]
        problem = self._transport.events(lines)
        if problem is not None and self._is_gone(problem):
            problem = self._transport.events(lines, across_gap=True)
        if problem is None:
            self._most = min(self._batch, 2 * self._most)
            return True
        if self._change_request(problem, rows):
            return False
        raise self._mend(problem, rows)

    def _is_gone(self, problem: Problem) -> bool:
        """Return whether what the collector lacks cannot be sent: left out, or pruned and stated in a later event."""
        if problem.code != "gap" or not problem.chain_uid or not problem.expected_sequence:
            return False
        row = self._spool.find(problem.chain_uid, problem.expected_sequence)
        return row is None or row.id in self._left_out

    def _change_request(self, problem: Problem, rows: list[Row]) -> bool:
        """Return whether another request can succeed at once: a smaller one, or one without a damaged line."""
        if problem.line and problem.chain_uid != rows[0].chain:
            # The line says nothing that the collector could hold against a chain, or names another one.
            before = min(problem.line, len(rows)) - 1
            if before:
                self._most = before
            else:
                self._leave_out(rows[0], problem)
            return True
        if problem.code == "too-large" and len(rows) > 1:
            self._most = len(rows) // 2
            return True
        return False

    def _leave_out(self, row: Row, problem: Problem) -> None:
        self._left_out.add(row.id)
        self._spool.advance(self.name, row.id)
        told = f"{problem.title}: {problem.detail}"
        self._lost = f"event {row.sequence} of chain {row.chain} was left out, the collector cannot take it: {told}"
        self._log(f"collector: {self._lost}")

    def _mend(self, problem: Problem, rows: list[Row]) -> CollectorError:
        """Do what the next delivery needs to succeed, and return the error to tell meanwhile."""
        chain, told = rows[0].chain, f"{problem.title}: {problem.detail}"
        if problem.chain_uid != chain:
            return CollectorError(f"the collector refuses events: {told}")
        if problem.code == "unknown-chain":
            self._spool.set_chain_state(chain, "new")
            return CollectorError(f"the collector does not know chain {chain} any more; enrolling again")
        if problem.code == "gap" and problem.expected_sequence:
            missing = self._spool.find(chain, problem.expected_sequence)
            if missing is not None and missing.id < rows[0].id and missing.id not in self._left_out:
                self._spool.advance(self.name, missing.id - 1)
                return CollectorError(
                    f"the collector lacks events from {problem.expected_sequence} on; sending them again"
                )
        return CollectorError(self._set_aside(chain, told))

    def _set_aside(self, chain: str, told: str) -> str:
        self._spool.set_chain_state(chain, "refused")
        self._lost = f"the collector refuses chain {chain}, which is set aside: {told}"
        return self._lost

    def _enrol(self, chain: str, genesis: bytes) -> bool:
        """Enrol a chain; return False when it was set aside instead."""
        orphan = chain != self._current
        answer = self._present(genesis, orphan=orphan)
        if isinstance(answer, Problem):
            told = f"{answer.title}: {answer.detail}"
            if orphan and answer.code in _BAD_GENESIS:
                self._log(f"collector: {self._set_aside(chain, told)}")
                return False
            raise CollectorError(
                f"enrolment refused: {told}",
                hint="Ask the collector's operator for a new token (`nbsentinel collector token`) for token_file.",
            )
        self._spool.set_chain_state(chain, "enrolled")
        self._log(f"collector: chain {chain} is enrolled")
        return True

    def _present(self, genesis: bytes, *, orphan: bool) -> Enrolled | Problem:
        """Present a chain with the remembered token, or with a new one from the file where that is not good."""
        remembered = self._spool.fact(TOKEN_FACT)
        if remembered:
            answer = self._transport.enrol(remembered, genesis, orphan=orphan)
            if isinstance(answer, Enrolled):
                self._spool.remember(TOKEN_FACT, answer.next_token)
            if isinstance(answer, Enrolled) or answer.code not in _TOKEN_REFUSED or not self._has_new_token():
                return answer
        token = self._token_in_file()
        answer = self._transport.enrol(token, genesis, orphan=orphan)
        if isinstance(answer, Enrolled):
            self._spool.remember(TOKEN_FACT, answer.next_token)
            self._spool.remember(FILE_TOKEN_FACT, _digest(token))
        return answer

    def _has_new_token(self) -> bool:
        try:
            token = self._token_in_file()
        except CollectorError:
            return False
        return token != self._spool.fact(TOKEN_FACT) and _digest(token) != self._spool.fact(FILE_TOKEN_FACT)

    def _token_in_file(self) -> str:
        if self._token_file is None:
            raise CollectorError("no enrolment token", hint="Set [report.collector] token_file.")
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise CollectorError(f"{self._token_file}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise CollectorError(f"{self._token_file}: holds something else than an enrolment token") from error
        if not token:
            raise CollectorError(f"{self._token_file}: is empty; it should hold an enrolment token")
        return token


def _request(rows: list[Row]) -> list[Row]:
    """Return what of these goes into one request: the events of the first one's chain, as far as bytes allow."""
    size = 0
    for count, row in enumerate(takewhile(lambda row: row.chain == rows[0].chain, rows)):
        size += len(row.line) + 1
        if count and size > REQUEST_BYTES:
            return rows[:count]
    return rows[: count + 1]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()

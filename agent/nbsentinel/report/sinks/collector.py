"""The collector sink: ships recorded events in order, at least once, through any outage.

A thread of its own; nothing else ever waits for the network. Errors lead to a pause with full jitter that doubles up to
a minute. A chain that the collector does not know is enrolled first, with the token at hand; a chain that it refuses
for good is set aside and said so, so that it cannot hold up the next one.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from nbsentinel.errors import CollectorError
from nbsentinel.events import Coverage, SensorState
from nbsentinel.report.sinks.transport import Problem, Transport
from nbsentinel.report.spool import Row, Spool

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0
LINGER_S = 0.05
"""Wait for a few more events before a request, so that a burst is one request."""
TOKEN_FACT = "enrolment_token"  # noqa: S105 - the name of a fact, not a secret


class CollectorSink:
    """Delivers the spool to a collector.

    Args:
        spool: Where events come from.
        transport: Speaks HTTP with the collector.
        token_file: File with the first enrolment token; later ones come from the collector and live in the spool.
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
        self._work = threading.Event()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._error = "nothing was delivered yet"
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
        while self._spool.waiting(self.name) and not self._failures and time.monotonic() < deadline:
            self._work.set()
            time.sleep(0.02)
        self._end.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join(max(0.1, deadline - time.monotonic()))

    def coverage(self) -> Coverage:
        """Return whether delivery works."""
        if self._error:
            return Coverage(sensor="sink:collector", state=SensorState.DEGRADED, why=self._error)
        return Coverage(sensor="sink:collector", state=SensorState.ACTIVE)

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
        except CollectorError as error:
            self._failures += 1
            if self._error != error.message:
                self._log(f"collector: {error.message}")
            self._error = error.message
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
        """
        rows = self._spool.after(self._spool.cursor(self.name), self._batch)
        if not rows:
            return False
        states = {chain: (state, genesis) for chain, state, genesis in self._spool.chains()}
        for chain in dict.fromkeys(row.chain for row in rows):
            state, genesis = states.get(chain, ("refused", b""))
            if state == "new":
                self._enrol(chain, genesis)
        states = {chain: (state, genesis) for chain, state, genesis in self._spool.chains()}
        sent = [row for row in rows if states.get(row.chain, ("refused",))[0] != "refused"]
        if sent:
            self._send(sent)
        self._spool.advance(self.name, rows[-1].id)
        self.delivered += len(sent)
        return len(rows) == self._batch

    def _send(self, rows: list[Row]) -> None:
        lines = [row.line for row in rows]
        problem = self._transport.events(lines)
        if problem is not None and self._is_pruned(problem):
            problem = self._transport.events(lines, across_gap=True)
        if problem is not None:
            raise self._mend(problem, rows)

    def _is_pruned(self, problem: Problem) -> bool:
        """Return whether what the collector lacks is not here any more: pruned, and stated in a later event."""
        if problem.code != "gap" or not problem.chain_uid or not problem.expected_sequence:
            return False
        return self._spool.find(problem.chain_uid, problem.expected_sequence) is None

    def _mend(self, problem: Problem, rows: list[Row]) -> CollectorError:
        """Do what the next delivery needs to succeed, and return the error to tell meanwhile."""
        chain = problem.chain_uid
        if problem.code == "unknown-chain" and chain:
            self._spool.set_chain_state(chain, "new")
            return CollectorError(f"the collector does not know chain {chain} any more; enrolling again")
        if problem.code == "gap" and chain and problem.expected_sequence:
            missing = self._spool.find(chain, problem.expected_sequence)
            if missing is not None and missing.id < rows[0].id:
                self._spool.advance(self.name, missing.id - 1)
                return CollectorError(
                    f"the collector lacks events from {problem.expected_sequence} on; sending them again"
                )
        told = f"{problem.title}: {problem.detail}"
        if chain:
            self._spool.set_chain_state(chain, "refused")
            return CollectorError(f"the collector refuses chain {chain}, which is set aside: {told}")
        return CollectorError(f"the collector refuses events: {told}")

    def _enrol(self, chain: str, genesis: bytes) -> None:
        token = self._spool.fact(TOKEN_FACT) or self._first_token()
        answer = self._transport.enrol(token, genesis, orphan=chain != self._current)
        if isinstance(answer, Problem):
            if answer.code in ("malformed", "not-attested", "bad-genesis") and chain != self._current:
                self._spool.set_chain_state(chain, "refused")
                self._log(f"collector refuses to enrol chain {chain}: {answer.detail}")
                return
            raise CollectorError(
                f"enrolment refused: {answer.title}: {answer.detail}",
                hint="Ask the collector's operator for a new token (`nbsentinel collector token`).",
            )
        self._spool.remember(TOKEN_FACT, answer.next_token)
        self._spool.set_chain_state(chain, "enrolled")
        self._log(f"collector: chain {chain} is enrolled")

    def _first_token(self) -> str:
        if self._token_file is None:
            raise CollectorError("no enrolment token", hint="Set [report.collector] token_file.")
        try:
            return self._token_file.read_text().strip()
        except OSError as error:
            raise CollectorError(f"{self._token_file}: cannot be read: {error.strerror}") from error

"""Taking events in: every line is verified against its chain's state before anything of the batch is stored.

Verification needs no lock. The state that it began from is compared again inside the transaction; if another request
was faster, the batch is judged anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from nbsentinel.attest.attestation import lifecycle
from nbsentinel.attest.follow import Signed, advance, read
from nbsentinel.attest.keys import PublicKey
from nbsentinel.attest.verify import ChainState, IntegrityError, Reason
from nbsentinel_collector import alarms
from nbsentinel_collector.problems import ProblemError
from nbsentinel_collector.store import Store, chains, events, now_ms

TRIES = 8
"""Times that a batch is judged anew because another request for the same chain was faster."""
CAUGHT_UP_MS = 60_000
"""A heartbeat this fresh means that the agent has delivered everything, statements about drops included."""
_STATUS = {Reason.GAP: 409, Reason.FORK: 409, Reason.UNKNOWN_CHAIN: 403, Reason.REORDERED: 409, Reason.DUPLICATED: 409}


class Outcome(msgspec.Struct):
    """What became of a batch."""

    accepted: int = 0
    duplicates: int = 0
    heads: dict[str, int] = {}


class _ChainBatch:
    """The events of one chain in a batch, judged against a state that was read before."""

    def __init__(self, row: Row[tuple[object, ...]]) -> None:
        self.uid: str = row.chain_uid
        self.agent_uid: str = row.agent_uid
        self.begin: int = row.sequence
        self.state = msgspec.json.decode(row.state, type=ChainState)
        self.keys: list[dict[str, str]] = json.loads(row.keys)
        self.rows: list[dict[str, object]] = []
        self.lines: dict[int, bytes] = {}
        self.changes: dict[str, object] = {}
        self.caught_up = False

    def take(self, line: bytes, signed: Signed, at: int, *, across_gap: bool) -> None:
        accepted = advance(signed, self.state, across_gap=across_gap)
        self.state, event = accepted.state, accepted.event
        if self.state.key != self.keys[-1]:
            self.keys.append(self.state.key)
        sequence = accepted.head.sequence
        self.lines[sequence] = line
        self.rows.append(
            {
                "chain_uid": self.uid,
                "sequence": sequence,
                "class_uid": _int(event, "class_uid"),
                "severity_id": _int(event, "severity_id"),
                "time": _int(event, "time"),
                "agent_uid": self.agent_uid,
                "received_at": at,
                "line": line,
            }
        )
        self._learn(lifecycle(event), at - _int(event, "time"))

    def _learn(self, own: object, age: int) -> None:
        if not isinstance(own, dict):
            return
        what = own.get("what")
        if what in ("heartbeat", "goodbye"):
            self.changes["heartbeat"] = json.dumps(own)
            self.caught_up = age < CAUGHT_UP_MS or what == "goodbye"
        if what == "goodbye":
            self.changes["ended"] = True


def _int(event: dict[str, object], name: str) -> int:
    value = event.get(name)
    return value if type(value) is int and 0 <= value < 2**53 else 0


def ingest(store: Store, lines: Sequence[bytes], *, across_gap: bool = False) -> Outcome:
    """Verify and store a batch, all of it or nothing.

    Args:
        store: The database.
        lines: Signed canonical lines, of any number of chains, each chain in order.
        across_gap: The sender says that missing events were pruned; the hole stays open until a statement excuses it.

    Raises:
        ProblemError: Something is wrong with a line; nothing was stored.
    """
    for _ in range(TRIES):
        outcome = _try(store, lines, across_gap=across_gap)
        if outcome is not None:
            return outcome
    raise ProblemError(
        409, "busy", "Chain is being written", "other requests for the same chain were faster; try again"
    )


def _try(store: Store, lines: Sequence[bytes], *, across_gap: bool) -> Outcome | None:
    """Judge and store once; None when a chain changed in between."""
    signed = [_read(line, number) for number, line in enumerate(lines, 1)]
    batches = _load(store, {item.parts.chain_uid for item in signed})
    outcome, at = Outcome(), now_ms()
    for number, (line, item) in enumerate(zip(lines, signed, strict=True), 1):
        batch = batches.get(item.parts.chain_uid)
        if batch is None:
            uid = item.parts.chain_uid
            raise ProblemError(403, "unknown-chain", "Chain is not enrolled", uid, chain_uid=uid, line=number)
        if item.parts.sequence <= batch.state.head.sequence:
            _repeated(store, batch, item, line, number)
            outcome.duplicates += 1
            continue
        try:
            batch.take(line, item, at, across_gap=across_gap)
        except IntegrityError as error:
            raise _problem(error, number, batch) from None
        outcome.accepted += 1
    if not _write(store, list(batches.values()), at):
        return None
    outcome.heads = {batch.uid: batch.state.head.sequence for batch in batches.values()}
    return outcome


def _read(line: bytes, number: int) -> Signed:
    try:
        return read(line)
    except IntegrityError as error:
        raise _problem(error, number, None) from None


def _problem(error: IntegrityError, number: int, batch: _ChainBatch | None) -> ProblemError:
    expected = batch.state.head.sequence + 1 if batch and error.reason is Reason.GAP else None
    return ProblemError(
        _STATUS.get(error.reason, 400),
        error.reason.value,
        "Event does not verify",
        f"line {number}: {error.message}",
        line=number,
        chain_uid=batch.uid if batch else None,
        sequence=error.sequence,
        expected_sequence=expected,
    )


def _load(store: Store, uids: set[str]) -> dict[str, _ChainBatch]:
    with store.read() as connection:
        rows = connection.execute(sa.select(chains).where(chains.c.chain_uid.in_(uids))).all()
    return {row.chain_uid: _ChainBatch(row) for row in rows}


def _repeated(store: Store, batch: _ChainBatch, item: Signed, line: bytes, number: int) -> None:
    """Do nothing for an event that is stored already; raise for another one in its place.

    A validly signed one is a fork, and the collector's own finding even though the batch is refused.
    """
    sequence = item.parts.sequence
    known = batch.lines.get(sequence)
    if known is None:
        with store.read() as connection:
            query = sa.select(events.c.line).where(events.c.chain_uid == batch.uid, events.c.sequence == sequence)
            known = connection.scalar(query)
    if known == line:
        return
    detail = f"line {number}: event {sequence} is known with other content"
    if not _is_genuine(item, batch.keys):
        raise ProblemError(
            400,
            Reason.BAD_SIGNATURE.value,
            "Event does not verify",
            detail,
            line=number,
            chain_uid=batch.uid,
            sequence=sequence,
        )
    with store.write() as connection:
        alarms.alarm(
            connection,
            alarms.FORK,
            key=f"{batch.uid}:{sequence}:{item.parts.fingerprint}",
            detail=f"chain {batch.uid}, event {sequence}; refused: {line[:2000].decode(errors='replace')}",
            agent_uid=batch.agent_uid,
            chain_uid=batch.uid,
        )
    raise ProblemError(
        409, Reason.FORK.value, "Fork of a chain", detail, line=number, chain_uid=batch.uid, sequence=sequence
    )


def _is_genuine(item: Signed, keys: list[dict[str, str]]) -> bool:
    for key in keys:
        try:
            item.check(PublicKey.from_jwk(key))
        except IntegrityError:
            continue
        return True
    return False


def _write(store: Store, batches: list[_ChainBatch], at: int) -> bool:
    """Store everything in one transaction; return False when a chain is not where the judgement began."""
    with store.write() as connection:
        for batch in batches:
            changed = connection.execute(
                chains.update()
                .where(chains.c.chain_uid == batch.uid, chains.c.sequence == batch.begin)
                .values(
                    sequence=batch.state.head.sequence,
                    state=msgspec.json.encode(batch.state).decode(),
                    keys=json.dumps(batch.keys),
                    last_seen=at,
                    **batch.changes,
                )
            )
            if changed.rowcount != 1:
                connection.rollback()
                return False
        for batch in batches:
            if batch.rows:
                connection.execute(events.insert(), batch.rows)
            _notice_holes(connection, batch)
    return True


def _notice_holes(connection: Connection, batch: _ChainBatch) -> None:
    if not batch.caught_up:
        return
    for gap in batch.state.gaps:
        alarms.alarm(
            connection,
            alarms.MISSING,
            key=f"{batch.uid}:{gap.first}",
            detail=f"chain {batch.uid}, events {gap.first} to {gap.last}",
            agent_uid=batch.agent_uid,
            chain_uid=batch.uid,
        )

"""Enrolment: a token and the signed first event of a chain become a chain that is known."""

from __future__ import annotations

import json

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from nbsentinel.attest.attestation import lifecycle
from nbsentinel.attest.canonical import LINE_LIMIT
from nbsentinel.attest.verify import Accepted, IntegrityError, verify_genesis
from nbsentinel_collector import alarms, tokens
from nbsentinel_collector.problems import ProblemError
from nbsentinel_collector.store import Store, chains, events, now_ms


class Request(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of POST /v1/enroll."""

    token: str
    line: str
    orphan: bool = False
    """The chain of a session that died before it could enrol; its successor presents it."""


class Enrolled(msgspec.Struct, frozen=True):
    """The answer."""

    chain_uid: str
    agent_uid: str
    next_token: str


def parse(body: bytes) -> Request:
    """Return the request in a body.

    Raises:
        ProblemError: 400 or 422, precise.
    """
    try:
        request = msgspec.json.decode(body, type=Request)
    except msgspec.ValidationError as error:
        raise ProblemError(422, "malformed", "Not an enrolment", str(error)) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ProblemError(400, "malformed", "Not JSON", str(error)) from None
    if not 0 < len(request.token) <= tokens.TOKEN_LIMIT:
        raise ProblemError(422, "malformed", "Not an enrolment", "token is empty or too long")
    if len(request.line) > LINE_LIMIT:
        raise ProblemError(413, "too-large", "Line too long", f"at most {LINE_LIMIT} bytes")
    return request


def enrol(store: Store, secret: bytes, request: Request) -> Enrolled:
    """Verify and store an enrolment.

    Raises:
        ProblemError: The event does not verify, or the token is not good for it.
    """
    try:
        accepted = verify_genesis(request.line.encode("utf-8", "surrogatepass"))
    except IntegrityError as error:
        raise ProblemError(400, error.reason.value, "Enrolment does not verify", error.message) from None
    own = lifecycle(accepted.event)
    agent_uid = own.get("agent_uid")
    if not isinstance(agent_uid, str) or not 0 < len(agent_uid) <= 256:
        raise ProblemError(422, "bad-genesis", "Enrolment lacks the agent", "unmapped.nbsentinel.agent_uid")
    if accepted.head.chain_uid == alarms.CHAIN:
        raise ProblemError(422, "bad-genesis", "Reserved chain_uid", alarms.CHAIN)
    try:
        with store.write() as connection:
            successor = tokens.use(
                connection, secret, request.token, agent_uid=agent_uid, fingerprint=accepted.head.fingerprint
            )
            _begin(connection, accepted, agent_uid, request)
    except tokens.TokenReusedError as error:
        with store.write() as connection:
            alarms.alarm(
                connection,
                alarms.TOKEN_REUSED,
                key=accepted.head.fingerprint,
                detail=f"the token of agent {error.agent_uid} was presented again by chain {accepted.head.chain_uid}",
                agent_uid=error.agent_uid or agent_uid,
                chain_uid=accepted.head.chain_uid,
            )
        raise ProblemError(409, "token-reused", "Token was used already", "for another enrolment") from None
    return Enrolled(accepted.head.chain_uid, agent_uid, successor)


def _begin(connection: Connection, accepted: Accepted, agent_uid: str, request: Request) -> None:
    chain_uid, at = accepted.head.chain_uid, now_ms()
    known = connection.execute(sa.select(chains.c.genesis_key).where(chains.c.chain_uid == chain_uid)).first()
    key = json.dumps(accepted.state.key, sort_keys=True)
    if known is not None:
        if known.genesis_key != key:
            raise ProblemError(409, "fork", "Chain is known with another key", chain_uid, chain_uid=chain_uid)
        return
    _notice_restart(connection, agent_uid, chain_uid)
    own = lifecycle(accepted.event)
    ordinal = connection.scalar(sa.select(sa.func.coalesce(sa.func.max(chains.c.ordinal), 0)))
    connection.execute(
        chains.insert().values(
            chain_uid=chain_uid,
            ordinal=int(ordinal or 0) + 1,
            agent_uid=agent_uid,
            attested="vouched" if request.orphan else "token",
            genesis_key=key,
            keys=json.dumps([accepted.state.key]),
            sequence=1,
            state=msgspec.json.encode(accepted.state).decode(),
            enrolled_at=at,
            last_seen=at,
            ended=False,
            surface=json.dumps(own.get("surface", {})),
            heartbeat="{}",
        )
    )
    connection.execute(
        events.insert().values(
            chain_uid=chain_uid,
            sequence=1,
            class_uid=_int(accepted.event, "class_uid"),
            severity_id=_int(accepted.event, "severity_id"),
            time=_int(accepted.event, "time"),
            agent_uid=agent_uid,
            received_at=at,
            line=request.line.encode(),
        )
    )


def _int(event: dict[str, object], name: str) -> int:
    value = event.get(name)
    return value if type(value) is int and 0 <= value < 2**53 else 0


def _notice_restart(connection: Connection, agent_uid: str, chain_uid: str) -> None:
    """Raise a finding for the newest chain of this agent if it ended without a goodbye."""
    query = sa.select(chains).where(chains.c.agent_uid == agent_uid).order_by(chains.c.ordinal.desc()).limit(1)
    before = connection.execute(query).first()
    if before is not None and not before.ended:
        alarms.alarm(
            connection,
            alarms.RESTARTED,
            key=before.chain_uid,
            detail=f"chain {before.chain_uid} ended at event {before.sequence}, chain {chain_uid} followed",
            agent_uid=agent_uid,
            chain_uid=before.chain_uid,
        )

"""Enrolment tokens: used once, exchanged for the next at each use, stored as hashes only."""

from __future__ import annotations

import hashlib
import hmac
import secrets

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from nbsentinel_collector.problems import ProblemError
from nbsentinel_collector.store import Store, now_ms, tokens

PREFIX = "nbs_"
HOUR_MS = 3_600_000
TOKEN_LIMIT = 256


def digest(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def issue(store: Store, *, hours: int, note: str = "") -> str:
    """Return a new token that any agent may use once within so many hours."""
    token = PREFIX + secrets.token_urlsafe(32)
    with store.write() as connection:
        connection.execute(
            tokens.insert().values(
                sha256=digest(token), agent_uid=None, expires_at=now_ms() + hours * HOUR_MS, used_for=None, note=note
            )
        )
    return token


def following(secret: bytes, token: str, fingerprint: str) -> str:
    """Return the token that replaces another once it was used for an enrolment.

    It depends on nothing but the old token and the enrolment, so that a repeated request has the same answer.
    """
    mac = hmac.new(secret, f"{token}\n{fingerprint}".encode(), hashlib.sha256)
    return PREFIX + mac.hexdigest()


class TokenReusedError(Exception):
    """A token was used for two different enrolments: it was copied."""

    def __init__(self, agent_uid: str | None) -> None:
        super().__init__("token reused")
        self.agent_uid = agent_uid


def use(connection: Connection, secret: bytes, token: str, *, agent_uid: str, fingerprint: str) -> str:
    """Spend a token for an enrolment and return the next one.

    Args:
        connection: In a transaction.
        secret: The collector's.
        token: What was presented.
        agent_uid: The agent that enrols.
        fingerprint: Of the enrolment's first event: the same one again is a repeated request.

    Raises:
        ProblemError: Unknown, expired, or another agent's.
        TokenReusedError: Spent for another enrolment already.
    """
    this = tokens.c.sha256 == digest(token)
    row = connection.execute(sa.select(tokens).where(this)).first()
    if row is None:
        raise ProblemError(403, "unknown-token", "Unknown token", "the token was never issued here")
    if row.agent_uid is not None and row.agent_uid != agent_uid:
        raise ProblemError(403, "foreign-token", "Another agent's token", "the token belongs to another agent")
    successor = following(secret, token, fingerprint)
    if row.used_for is not None:
        if row.used_for != fingerprint:
            raise TokenReusedError(row.agent_uid)
        return successor
    if row.expires_at is not None and row.expires_at < now_ms():
        raise ProblemError(403, "expired-token", "Expired token", "ask for a new one")
    unspent = tokens.update().where(this, tokens.c.used_for.is_(None))
    if connection.execute(unspent.values(used_for=fingerprint, agent_uid=agent_uid)).rowcount != 1:
        # Another request was faster: beyond SQLite a transaction does not keep the others out.
        spent = connection.execute(sa.select(tokens).where(this)).one()
        if spent.used_for != fingerprint:
            raise TokenReusedError(spent.agent_uid)
        return successor
    connection.execute(
        tokens.insert().values(
            sha256=digest(successor), agent_uid=agent_uid, expires_at=None, used_for=None, note="rotated"
        )
    )
    return successor

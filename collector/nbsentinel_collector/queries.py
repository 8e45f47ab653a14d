"""What the collector tells: findings, agents, exports, keys and heads."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
import sqlalchemy as sa

from nbsentinel.attest.verify import ChainState
from nbsentinel_collector.alarms import CHAIN
from nbsentinel_collector.store import Store, chains, events, now_ms

FINDING_CLASS = 2004
PAGE = 1_000
"""Rows fetched at a time for an export."""


def findings(
    store: Store, *, after: int, limit: int, agent_uid: str | None, min_severity: int
) -> list[dict[str, object]]:
    """Return findings of agents and of the collector itself, in the order of their arrival."""
    query = sa.select(events).where(
        events.c.class_uid == FINDING_CLASS, events.c.id > after, events.c.severity_id >= min_severity
    )
    if agent_uid is not None:
        query = query.where(events.c.agent_uid == agent_uid)
    with store.read() as connection:
        rows = connection.execute(query.order_by(events.c.id).limit(limit)).all()
    return [
        {
            "id": row.id,
            "source": "collector" if row.chain_uid == CHAIN else "agent",
            "verified": row.chain_uid != CHAIN,
            "agent_uid": row.agent_uid,
            "chain_uid": row.chain_uid,
            "received_at": row.received_at,
            "event": _event(row.line),
        }
        for row in rows
    ]


def _event(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return {"unreadable": bytes(line).decode(errors="replace")}


def agents(store: Store, *, silence_seconds: int) -> list[dict[str, object]]:
    """Return every agent with its chains, newest last, and whether it is live, silent or stopped."""
    with store.read() as connection:
        rows = connection.execute(sa.select(chains).order_by(chains.c.ordinal)).all()
    found: dict[str, dict[str, object]] = {}
    for row in rows:
        state = msgspec.json.decode(row.state, type=ChainState)
        known = found.setdefault(row.agent_uid, {"agent_uid": row.agent_uid, "chains": []})
        listed = known["chains"]
        assert isinstance(listed, list)
        listed.append(
            {
                "chain_uid": row.chain_uid,
                "attested": row.attested,
                "enrolled_at": row.enrolled_at,
                "last_seen": row.last_seen,
                "ended": row.ended,
                "head": msgspec.to_builtins(state.head),
                "open_gaps": [msgspec.to_builtins(gap) for gap in state.gaps],
            }
        )
        heartbeat = json.loads(row.heartbeat)
        known |= {
            "surface": json.loads(row.surface),
            "state": agent_state(ended=row.ended, last_seen=row.last_seen, silence_seconds=silence_seconds),
            "last_seen": row.last_seen,
            "heartbeat": heartbeat,
            "coverage": heartbeat.get("coverage", []),
        }
    return list(found.values())


def agent_state(*, ended: bool, last_seen: int, silence_seconds: int) -> str:
    """Return `stopped` after a goodbye, `silent` after too long without an event, else `live`."""
    if ended:
        return "stopped"
    return "silent" if now_ms() - last_seen > silence_seconds * 1000 else "live"


def export(store: Store, *, chain_uid: str | None, after_sequence: int, limit: int) -> Iterator[bytes]:
    """Yield signed lines as they were received, with newlines: one chain in order, or all by arrival."""
    cursor, left = 0, limit
    while left > 0:
        query = sa.select(events.c.id, events.c.line).where(events.c.id > cursor, events.c.chain_uid != CHAIN)
        if chain_uid is not None:
            query = query.where(events.c.chain_uid == chain_uid, events.c.sequence > after_sequence)
        with store.read() as connection:
            rows = connection.execute(query.order_by(events.c.id).limit(min(PAGE, left))).all()
        if not rows:
            return
        cursor, left = rows[-1].id, left - len(rows)
        yield b"".join(bytes(row.line) + b"\n" for row in rows)


def keys(store: Store) -> dict[str, object]:
    """Return the first key of every chain: what `nbsentinel verify --keys` wants."""
    with store.read() as connection:
        rows = connection.execute(sa.select(chains).order_by(chains.c.ordinal)).all()
    return {"chains": {row.chain_uid: {"jwk": json.loads(row.genesis_key), "attested": row.attested} for row in rows}}


def heads(store: Store) -> dict[str, object]:
    """Return how far each chain was seen: what `nbsentinel verify --heads` wants."""
    with store.read() as connection:
        rows = connection.execute(sa.select(chains.c.chain_uid, chains.c.state).order_by(chains.c.ordinal)).all()
    states = {row.chain_uid: msgspec.json.decode(row.state, type=ChainState) for row in rows}
    return {"chains": {uid: msgspec.to_builtins(state.head) for uid, state in states.items()}}

"""Silence is an alarm: agents that said no goodbye and are not heard any more."""

from __future__ import annotations

import sqlalchemy as sa

from nbsentinel_collector import alarms
from nbsentinel_collector.store import Store, chains, now_ms

CHECK_SECONDS = 5.0


def check(store: Store, silence_seconds: int) -> int:
    """Raise a finding for each agent whose newest chain fell silent; once for each silence. Return how many are new."""
    newest = (
        sa.select(chains.c.agent_uid, sa.func.max(chains.c.ordinal).label("ordinal"))
        .group_by(chains.c.agent_uid)
        .subquery()
    )
    query = (
        sa.select(chains)
        .join(newest, newest.c.ordinal == chains.c.ordinal)
        .where(chains.c.ended.is_(False), chains.c.last_seen < now_ms() - silence_seconds * 1000)
    )
    with store.read() as connection:
        silent = connection.execute(query).all()
    found = 0
    for row in silent:
        with store.write() as connection:
            found += alarms.alarm(
                connection,
                alarms.SILENT,
                key=f"{row.chain_uid}:{row.last_seen}",
                detail=f"chain {row.chain_uid} was last heard at event {row.sequence}",
                agent_uid=row.agent_uid,
                chain_uid=row.chain_uid,
            )
    return found

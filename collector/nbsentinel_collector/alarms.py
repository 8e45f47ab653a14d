"""The collector's own findings: what only somebody who receives from all agents can notice."""

from __future__ import annotations

import json
import uuid
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from nbsentinel import __version__
from nbsentinel_collector.store import events, now_ms, raised

CHAIN = "collector"
"""Name under which these findings are stored; they are not signed by any agent."""


class Kind(NamedTuple):
    """One sort of finding."""

    rule: str
    title: str
    why: str
    severity: int


TOKEN_REUSED = Kind(
    "token_reused",
    "Enrolment token used twice",
    "Somebody has a copy of the token: one of the two is not your agent.",
    4,
)
FORK = Kind(
    "fork",
    "Two events for one place in a chain",
    "The agent's signing key was used by two writers: it was stolen, or the agent was restored from a copy.",
    5,
)
RESTARTED = Kind(
    "restarted_without_goodbye",
    "Agent restarted without goodbye",
    "The agent before it was killed or lost. Whoever did it may have put a program of his own in its place.",
    3,
)
SILENT = Kind("silent", "Agent fell silent", "It said no goodbye and is not heard any more: an unexplained stop.", 2)
MISSING = Kind("events_missing", "Events are missing from a chain", "The agent has not stated that it dropped them.", 4)
_SEVERITIES = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical"}


def as_ocsf(kind: Kind, *, uid: str, at: int, detail: str, agent_uid: str, chain_uid: str) -> dict[str, object]:
    """Return a finding of the collector as OCSF Detection Finding 2004."""
    return {
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "category_uid": 2,
        "category_name": "Findings",
        "activity_id": 1,
        "activity_name": "Create",
        "type_uid": 200401,
        "type_name": "Detection Finding: Create",
        "severity_id": kind.severity,
        "severity": _SEVERITIES[kind.severity],
        "status_id": 1,
        "status": "New",
        "confidence_id": 3,
        "confidence": "High",
        "time": at,
        "message": f"{kind.title}: {detail}",
        "metadata": {
            "version": "1.6.0",
            "product": {"name": "nbsentinel collector", "vendor_name": "nbsentinel", "version": __version__},
            "uid": uid,
        },
        "finding_info": {
            "uid": uid,
            "title": kind.title,
            "desc": f"{kind.why} {detail}",
            "created_time": at,
            "analytic": {"uid": f"collector:{kind.rule}", "name": kind.rule, "type_id": 1, "type": "Rule"},
        },
        "evidences": [{"data": {"agent_uid": agent_uid, "chain_uid": chain_uid, "detail": detail}}],
        "unmapped": {"nbsentinel": {"agent_uid": agent_uid, "chain_uid": chain_uid}},
    }


def alarm(
    connection: Connection, kind: Kind, *, key: str, detail: str, agent_uid: str = "", chain_uid: str = ""
) -> bool:
    """Store a finding once for each key; return whether it is new.

    Args:
        connection: In a transaction.
        kind: What happened.
        key: What makes it the same finding.
        detail: One line with the data.
        agent_uid: The agent that it is about.
        chain_uid: The chain that it is about.
    """
    full_key = f"{kind.rule}:{key}"[:512]
    if connection.scalar(sa.select(raised.c.key).where(raised.c.key == full_key)) is not None:
        return False
    uid, at = str(uuid.uuid4()), now_ms()
    event = as_ocsf(kind, uid=uid, at=at, detail=detail, agent_uid=agent_uid, chain_uid=chain_uid)
    sequence = connection.scalar(
        sa.select(sa.func.coalesce(sa.func.max(events.c.sequence), 0)).where(events.c.chain_uid == CHAIN)
    )
    result = connection.execute(
        events.insert().values(
            chain_uid=CHAIN,
            sequence=int(sequence or 0) + 1,
            class_uid=2004,
            severity_id=kind.severity,
            time=at,
            agent_uid=agent_uid,
            received_at=at,
            line=json.dumps(event, sort_keys=True).encode(),
        )
    )
    inserted = result.inserted_primary_key
    connection.execute(raised.insert().values(key=full_key, event_id=inserted[0] if inserted else 0))
    return True

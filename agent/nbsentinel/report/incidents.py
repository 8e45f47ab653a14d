"""Incidents as they were reported: which events belong together, what an incident is, and the end of those left open.

Works on OCSF events alone, so it knows what an agent before this one has told. Pure.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from nbsentinel.events import Millis
from nbsentinel.report.ocsf_drill import LABEL

Event = dict[str, Any]
CLOSE = 3
"""OCSF `activity_id`."""


def by_incident(events: Iterable[Event]) -> list[list[Event]]:
    """Return the events of findings by incident, the incident that was told of last at the end."""
    found: OrderedDict[str, list[Event]] = OrderedDict()
    for event in events:
        uid = event["finding_info"]["uid"]
        found.setdefault(uid, []).append(event)
        found.move_to_end(uid)
    return list(found.values())


def shown(events: list[Event]) -> Event:
    """Return the event of an incident that says most: the worst step, with what the newest event knows of them all.

    Args:
        events: Events of one incident, oldest first.
    """
    newest = events[-1]
    worst = max(events, key=lambda event: int(event["severity_id"]))
    told = ("related_events", "related_events_count", "last_seen_time")
    latest = newest["finding_info"]
    info = {**worst["finding_info"], **{name: latest[name] for name in told if name in latest}}
    whole = ("activity_id", "count", "status_detail", "risk_score", "risk_level", "risk_details", "unmapped")
    return {**worst, **{name: newest[name] for name in whole if name in newest}, "finding_info": info}


def left_open(events: Iterable[Event]) -> list[list[Event]]:
    """Return the events of each incident that was never closed, test alerts and older agents' findings left out."""
    return [
        group
        for group in by_incident(events)
        if group[-1]["activity_id"] != CLOSE
        and "incident" in group[-1].get("unmapped", {}).get("nbsentinel", {})
        and LABEL not in group[-1]["metadata"].get("labels", ())
    ]


def closing(events: list[Event], at: Millis) -> Event:
    """Return the event that closes an incident which an agent before this one left open.

    Args:
        events: Its events, oldest first, as they were reported.
        at: The time.
    """
    last = shown(events)
    kept = {name: value for name, value in last.items() if name != "attestation_list"}
    return {
        **kept,
        "activity_id": CLOSE,
        "activity_name": "Close",
        "type_uid": 2004 * 100 + CLOSE,
        "type_name": "Detection Finding: Close",
        "time": int(at),
        "message": f"Closed after {last['count']} hits: {last['finding_info']['title']}",
        "is_alert": False,
        "status_id": 99,
        "status": "Interrupted",
        "status_detail": "the agent was started again; what follows is a new incident",
        "metadata": {**last["metadata"], "uid": str(uuid.uuid4())},
        "finding_info": {**last["finding_info"], "modified_time": int(at)},
    }

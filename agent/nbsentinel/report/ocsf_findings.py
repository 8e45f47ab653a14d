"""Findings and their incidents as OCSF 1.6: what Detection Finding 2004 has of its own. Pure.

An incident is one finding in OCSF's sense (`finding_info.uid`). Each of its steps is an event about that step alone,
with the step's own rule, evidence, techniques and severity; the first creates, further ones update, the last closes.
"""

from __future__ import annotations

from nbsentinel.events import Finding, Incident, Origin, Phase, Severity, Step
from nbsentinel.report import ocsf_objects as objects
from nbsentinel.report.ocsf_objects import Object, present
from nbsentinel.report.redact import redact_text

SEVERITY = {
    Severity.INFORMATIONAL: "Informational",
    Severity.LOW: "Low",
    Severity.MEDIUM: "Medium",
    Severity.HIGH: "High",
    Severity.CRITICAL: "Critical",
}
_CONFIDENCE = {1: "Low", 2: "Medium", 3: "High"}
# OCSF's "Resolved" would say that somebody has looked at it; nobody has.
_STATUS = {Phase.OPENED: (1, "New"), Phase.UPDATED: (2, "In Progress"), Phase.CLOSED: (99, "Quiet")}
_RISK = ("Info", "Low", "Medium", "High", "Critical")
TEXT_LIMIT = 200
"""A step shows so much of its command line, evidence and place; its own event has all of it."""
CANDIDATE_LIMIT = 160
"""A finding shows so much of each command line of those who could have done it."""


def phase(value: Finding) -> Phase:
    """Return whether a finding opens, updates or closes its incident."""
    return value.incident.phase if value.incident else Phase.OPENED


def message(value: Finding) -> str:
    """Return what the event is about in one line."""
    if value.incident is None or value.incident.phase is not Phase.CLOSED:
        return value.title
    return f"Closed after {value.incident.count} hits: {value.title}"


def members(value: Finding) -> Object:
    """Return what belongs to a Detection Finding beside what all events have."""
    status_id, status = _STATUS[phase(value)]
    incident = value.incident
    event: Object = {
        "status_id": status_id,
        "status": status,
        "count": incident.count if incident else 1,
        "is_alert": value.severity >= Severity.MEDIUM and phase(value) is not Phase.CLOSED,
        "confidence_id": int(value.confidence),
        "confidence": _CONFIDENCE[value.confidence],
        "finding_info": _info(value),
        "evidences": [_evidence(value), *({"process": objects.process(relay)} for relay in value.relays)],
        "enrichments": _enrichments(value),
    }
    if value.advice:
        event["remediation"] = {"desc": " ".join(value.advice)}
    return event | (_incident(incident) if incident else {})


def _info(value: Finding) -> Object:
    incident = value.incident
    found = present(
        uid=incident.uid if incident else value.uid,
        title=value.title,
        desc=value.why,
        created_time=int(incident.opened_at if incident else value.at),
        analytic={"uid": value.rule_id, "name": value.rule_name, "type_id": 1, "type": "Rule"},
        attacks=[objects.attack(technique) for technique in value.attacks],
    )
    if incident is None:
        return found
    return found | {
        "modified_time": int(value.at),
        "first_seen_time": int(incident.opened_at),
        "last_seen_time": int(incident.last_at),
        "related_events": [_step(step) for step in incident.steps],
        "related_events_count": len(incident.steps) + incident.left_out,
    }


def _incident(value: Incident) -> Object:
    """Return what an event says of the incident as a whole."""
    told = present(severity_id=int(value.severity), severity=SEVERITY[value.severity])
    told["steps_left_out"] = value.left_out
    return {
        "status_detail": value.why,
        "risk_score": value.risk.score,
        "risk_level_id": value.risk.level,
        "risk_level": _RISK[value.risk.level],
        "risk_details": value.risk.why,
        "unmapped": {"nbsentinel": {"incident": told}},
    }


def _step(value: Step) -> Object:
    activity = (1, "Create") if value.opened else (2, "Update")
    process = value.process
    told = {
        "rule": value.rule_name,
        "process": f"{process.key.pid}:{process.key.start}",
        "command": _cut(objects.command_line(process)),
        "place": _cut(place(value.origin)),
        "evidence": _cut(redact_text(value.evidence)),
        "confidence": _CONFIDENCE[value.confidence],
    }
    return present(
        uid=value.uid,
        type_uid=200400 + activity[0],
        type_name=f"Detection Finding: {activity[1]}",
        title=value.title,
        severity_id=int(value.severity),
        severity=SEVERITY[value.severity],
        first_seen_time=int(value.at),
        last_seen_time=int(value.last_at),
        count=value.count,
        attacks=[objects.attack(technique) for technique in value.attacks],
        tags=[{"name": name, "value": text} for name, text in told.items() if text],
    )


def place(value: Origin) -> str:
    """Return in few words where something was done: the cell, else kernel or terminal, empty for none of them."""
    named = value.notebook or value.terminal or value.kernel_id
    who = f"{value.kind.value} {named}" if named else value.kind.value
    cell = value.cell
    if cell is None:
        return who
    name = f"In [{cell.execution_count}]" if cell.execution_count is not None else f"cell {cell.cell_id or '?'}"
    return f"{name} ({value.cell_certainty.value}) of {who}"


def _cut(text: str, limit: int = TEXT_LIMIT) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _evidence(value: Finding) -> Object:
    found: Object = {"process": objects.process(value.process, value.lineage)}
    if value.connection is not None:
        source, destination = objects.sides(value.connection)
        found |= {
            "src_endpoint": source,
            "dst_endpoint": destination,
            "connection_info": objects.connection(value.connection),
        }
    return found


def _enrichments(value: Finding) -> list[Object]:
    fields = [objects.enrichment(name, _field(name, text)) for name, text in sorted(value.fields.items())]
    doubts = [objects.enrichment("false_positives", "; ".join(value.false_positives))] if value.false_positives else []
    moved = [objects.enrichment("severity", value.severity_why)] if value.severity_why else []
    return [*objects.origin(value.origin), *fields, *doubts, *moved]


def _field(name: str, text: str) -> str:
    """Return a field without secrets; what is cut is cut afterwards, for half a secret is not known for one."""
    if name != "CandidateCommandLine":
        return redact_text(text)
    return "; ".join(_cut(redact_text(line), CANDIDATE_LIMIT) for line in text.split("\n"))

"""Events and findings as OCSF 1.6. Pure; attestation is added later by `nbsentinel.attest`.

Classes: Detection Finding 2004, Process Activity 1007, Network Activity 4001, Application Lifecycle 6002. What OCSF has
no place for stands under `enrichments` and `unmapped.nbsentinel`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping

import msgspec

from nbsentinel.context.processes import ProcessTable
from nbsentinel.events import AgentEvent, Connect, Exec, Exit, Finding, Lifecycle, Millis, Process, Severity
from nbsentinel.report import ocsf_objects as objects
from nbsentinel.report.ocsf_objects import Object, present
from nbsentinel.text import json_safe

VERSION = "1.6.0"
PRODUCT = "nbsentinel"
_SEVERITY = {
    Severity.INFORMATIONAL: "Informational",
    Severity.LOW: "Low",
    Severity.MEDIUM: "Medium",
    Severity.HIGH: "High",
    Severity.CRITICAL: "Critical",
}
_CONFIDENCE = {1: "Low", 2: "Medium", 3: "High"}
_CATEGORIES = {1: "System Activity", 2: "Findings", 4: "Network Activity", 6: "Application Activity"}
_CLASSES = {
    2004: "Detection Finding",
    1007: "Process Activity",
    4001: "Network Activity",
    6002: "Application Lifecycle",
}
_ACTIVITIES = {
    (2004, 1): "Create",
    (2004, 2): "Update",
    (1007, 1): "Launch",
    (1007, 2): "Terminate",
    (4001, 1): "Open",
    (6002, 3): "Start",
    (6002, 4): "Stop",
    (6002, 99): "Other",
}
_STATUS = {"new": (1, "New"), "update": (2, "In Progress")}
_LIFECYCLE = {Lifecycle.ENROL: 3, Lifecycle.GOODBYE: 4}


class Reporter(msgspec.Struct, frozen=True, kw_only=True):
    """Who reports: the members that every event of this agent has in common."""

    agent_uid: str
    version: str
    surface: dict[str, str]
    """Fields of `nbsentinel.context.surface.Surface` that are known."""

    @classmethod
    def of(cls, *, agent_uid: str, version: str, surface: Mapping[str, str]) -> Reporter:
        """Return the reporter for an agent on a surface."""
        return cls(agent_uid=agent_uid, version=version, surface=dict(surface))

    def device(self) -> Object:
        """Return the machine."""
        surface = self.surface
        return present(
            type_id=99 if surface.get("kind", "other") != "other" else 0,
            type=surface["kind"] if surface.get("kind", "other") != "other" else "Unknown",
            hostname=surface.get("hostname"),
            uid=surface.get("resource_arn"),
            region=surface.get("region"),
            os={
                "name": platform.system() or "Linux",
                "type_id": 200,
                "type": "Linux",
                "kernel_release": platform.release(),
            },
        )

    def cloud(self) -> Object | None:
        """Return account and region, None where neither is known."""
        account, region = self.surface.get("account"), self.surface.get("region")
        if not account and not region:
            return None
        return present(provider="AWS", region=region, account=present(uid=account, type_id=10 if account else None))

    def product(self) -> Object:
        """Return what made the event."""
        return {"name": PRODUCT, "vendor_name": PRODUCT, "version": self.version, "uid": self.agent_uid}


def _base(class_uid: int, activity: int, *, at: Millis, severity: Severity, reporter: Reporter, message: str) -> Object:
    category = class_uid // 1000
    cloud = reporter.cloud()
    name = _ACTIVITIES[class_uid, activity]
    return present(
        class_uid=class_uid,
        class_name=_CLASSES[class_uid],
        category_uid=category,
        category_name=_CATEGORIES[category],
        activity_id=activity,
        activity_name=name,
        type_uid=class_uid * 100 + activity,
        type_name=f"{_CLASSES[class_uid]}: {name}",
        severity_id=int(severity),
        severity=_SEVERITY[severity],
        time=int(at),
        message=message,
        metadata={
            "version": VERSION,
            "product": reporter.product(),
            "profiles": ["host", "cloud"] if cloud else ["host"],
        },
        device=reporter.device(),
        cloud=cloud,
    )


def finding(value: Finding, reporter: Reporter, *, status: str = "new", count: int = 1) -> Object:
    """Return a finding as Detection Finding 2004.

    Args:
        value: The finding.
        reporter: Who reports.
        status: `new`, or `update` for more of a known incident.
        count: How often it happened so far.
    """
    activity = 1 if status == "new" else 2
    event = _base(2004, activity, at=value.at, severity=value.severity, reporter=reporter, message=value.title)
    status_id, status_name = _STATUS[status]
    event |= {
        "status_id": status_id,
        "status": status_name,
        "count": count,
        "is_alert": value.severity >= Severity.MEDIUM,
        "confidence_id": int(value.confidence),
        "confidence": _CONFIDENCE[value.confidence],
        "finding_info": _info(value),
        "evidences": [_evidence(value), *({"process": objects.process(relay)} for relay in value.relays)],
        "enrichments": _enrichments(value),
    }
    if value.advice:
        event["remediation"] = {"desc": " ".join(value.advice)}
    return event


def _info(value: Finding) -> Object:
    return present(
        uid=value.uid,
        title=value.title,
        desc=value.why,
        created_time=int(value.at),
        analytic={"uid": value.rule_id, "name": value.rule_name, "type_id": 1, "type": "Rule"},
        attacks=[objects.attack(technique) for technique in value.attacks],
    )


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
    fields = [objects.enrichment(name, text) for name, text in sorted(value.fields.items())]
    doubts = [objects.enrichment("false_positives", "; ".join(value.false_positives))] if value.false_positives else []
    return [*objects.origin(value.origin), *fields, *doubts]


def exec_event(value: Exec, lineage: tuple[Process, ...], reporter: Reporter) -> Object:
    """Return an execution as Process Activity 1007, Launch."""
    message = f"{value.process.name} was executed"
    event = _base(1007, 1, at=value.at, severity=Severity.INFORMATIONAL, reporter=reporter, message=message)
    event["process"] = objects.process(value.process, lineage)
    event["actor"] = _actor(lineage[0] if lineage else None)
    event["unmapped"] = {"nbsentinel": _seen(value)}
    return event


def _seen(value: Exec) -> Object:
    process = value.process
    return present(
        source=value.source,
        stdio=[stream or "" for stream in process.stdio],
        argv_length=process.argv_length,
        argv_sha256=process.argv_sha256,
    )


def _actor(process: Process | None) -> Object:
    return {"process": objects.process(process)} if process else {"app_name": "unknown"}


def exit_event(value: Exit, process: Process, lineage: tuple[Process, ...], reporter: Reporter) -> Object:
    """Return the end of a process as Process Activity 1007, Terminate."""
    event = _base(
        1007, 2, at=value.at, severity=Severity.INFORMATIONAL, reporter=reporter, message=f"{process.name} ended"
    )
    event["process"] = objects.process(process, lineage)
    event["actor"] = _actor(lineage[0] if lineage else None)
    return event


def connect_event(value: Connect, process: Process, lineage: tuple[Process, ...], reporter: Reporter) -> Object:
    """Return a connection as Network Activity 4001, Open."""
    message = f"{process.name} is connected with {value.connection.remote}"
    event = _base(4001, 1, at=value.at, severity=Severity.INFORMATIONAL, reporter=reporter, message=message)
    source, destination = objects.sides(value.connection)
    event |= {
        "actor": {"process": objects.process(process, lineage)},
        "src_endpoint": source,
        "dst_endpoint": destination,
        "connection_info": objects.connection(value.connection),
        "is_src_dst_assignment_known": value.connection.initiated is not None,
    }
    return event


def observation(value: Exec | Exit | Connect, table: ProcessTable, reporter: Reporter) -> Object | None:
    """Return an observation with its context, or None where its process is not known any more."""
    if isinstance(value, Exec):
        return exec_event(value, table.lineage(value.process.key), reporter)
    process = table.get(value.key)
    if process is None:
        return None
    lineage = table.lineage(value.key)
    if isinstance(value, Exit):
        return exit_event(value, process, lineage, reporter)
    return connect_event(value, process, lineage, reporter)


def agent_event(value: AgentEvent, reporter: Reporter) -> Object:
    """Return an event about the agent itself as Application Lifecycle 6002."""
    activity = _LIFECYCLE.get(value.what, 99)
    event = _base(6002, activity, at=value.at, severity=value.severity, reporter=reporter, message=value.message)
    details = json_safe({"what": value.what.value, **value.details})
    event["app"] = {"name": PRODUCT, "uid": reporter.agent_uid, "version": reporter.version}
    event["unmapped"] = {"nbsentinel": details}
    return event

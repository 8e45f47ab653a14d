"""Events and findings as OCSF 1.6. Pure; attestation is added later by `nbsentinel.attest`.

Classes: Detection Finding 2004, File System Activity 1001, Process Activity 1007, Network Activity 4001, Application
Lifecycle 6002, and what kernels tell (`ocsf_kernel`). What OCSF has no place for stands under `enrichments` and
`unmapped.nbsentinel`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cached_property

import msgspec

from nbsentinel.attest.canonical import Settled
from nbsentinel.context.origins import Origins
from nbsentinel.context.processes import ProcessTable
from nbsentinel.events import (
    AgentEvent,
    Connect,
    ConnectOutcome,
    EnvironSweep,
    Exec,
    Exit,
    FileAccess,
    Finding,
    Lifecycle,
    Millis,
    OriginKind,
    Process,
    Severity,
    SystemCall,
)
from nbsentinel.report import ocsf_files, ocsf_findings, ocsf_kernel
from nbsentinel.report import ocsf_objects as objects
from nbsentinel.report.fit import fit
from nbsentinel.report.ocsf_objects import Object, present
from nbsentinel.text import json_safe

VERSION = "1.6.0"
PRODUCT = "nbsentinel"
_CATEGORIES = {1: "System Activity", 2: "Findings", 4: "Network Activity", 6: "Application Activity"}
_CLASSES = {
    2004: "Detection Finding",
    1001: "File System Activity",
    1007: "Process Activity",
    4001: "Network Activity",
    6002: "Application Lifecycle",
    6003: "API Activity",
}
_ACTIVITIES = {
    (2004, 1): "Create",
    (2004, 2): "Update",
    (2004, 3): "Close",
    (1001, 1): "Create",
    (1001, 2): "Read",
    (1001, 3): "Update",
    (1001, 4): "Delete",
    (1001, 5): "Rename",
    (1001, 6): "Set Attributes",
    (1007, 1): "Launch",
    (1007, 2): "Terminate",
    (1007, 99): "Other",
    (4001, 1): "Open",
    (4001, 4): "Fail",
    (4001, 7): "Listen",
    (6002, 3): "Start",
    (6002, 4): "Stop",
    (6002, 99): "Other",
    **ocsf_kernel.ACTIVITIES,
}
_LIFECYCLE = {Lifecycle.ENROL: 3, Lifecycle.GOODBYE: 4}


class Reporter(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Who reports: the members that every event of this agent has in common."""

    agent_uid: str
    version: str
    surface: dict[str, str]
    """Fields of `nbsentinel.context.surface.Surface` that are known."""

    @classmethod
    def of(cls, *, agent_uid: str, version: str, surface: Mapping[str, str]) -> Reporter:
        """Return the reporter for an agent on a surface."""
        return cls(agent_uid=agent_uid, version=version, surface=dict(surface))

    @cached_property
    def device(self) -> Settled:
        """The machine."""
        surface = self.surface
        found = present(
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
        return Settled(found)

    @cached_property
    def cloud(self) -> Settled | None:
        """Account and region, None where neither is known."""
        account, region = self.surface.get("account"), self.surface.get("region")
        if not account and not region:
            return None
        known = present(uid=account, type_id=10 if account else None)
        return Settled(present(provider="AWS", region=region, account=known))

    @cached_property
    def product(self) -> Settled:
        """What made the event."""
        return Settled({"name": PRODUCT, "vendor_name": PRODUCT, "version": self.version, "uid": self.agent_uid})


def _base(class_uid: int, activity: int, *, at: Millis, severity: Severity, reporter: Reporter, message: str) -> Object:
    category = class_uid // 1000
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
        severity=ocsf_findings.SEVERITY[severity],
        time=int(at),
        message=message,
        metadata=_metadata(reporter),
        device=reporter.device,
        cloud=reporter.cloud,
    )


def _metadata(reporter: Reporter) -> Object:
    profiles = ["host", "cloud"] if reporter.cloud else ["host"]
    return {"version": VERSION, "product": reporter.product, "profiles": profiles}


def finding(value: Finding, reporter: Reporter) -> Object:
    """Return a finding as Detection Finding 2004: a creation, an update or the closing of its incident."""
    activity, words = int(ocsf_findings.phase(value)), ocsf_findings.message(value)
    event = _base(2004, activity, at=value.at, severity=value.severity, reporter=reporter, message=words)
    event["metadata"] = {**_metadata(reporter), "uid": value.uid}
    return fit(event | ocsf_findings.members(value))


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
        preloads=process.preloads,
        unreadable=process.unreadable or None,
    )


def _actor(process: Process | None) -> Object:
    return {"process": objects.actor(process)} if process else {"app_name": "unknown"}


def exit_event(value: Exit, process: Process, lineage: tuple[Process, ...], reporter: Reporter) -> Object:
    """Return the end of a process as Process Activity 1007, Terminate."""
    event = _base(
        1007, 2, at=value.at, severity=Severity.INFORMATIONAL, reporter=reporter, message=f"{process.name} ended"
    )
    event["process"] = objects.process(process, lineage)
    event["actor"] = _actor(lineage[0] if lineage else None)
    return event


_OUTCOMES = {
    ConnectOutcome.ESTABLISHED: ("is connected with", 1, "Success"),
    ConnectOutcome.REFUSED: ("could not connect to", 2, "Failure"),
    ConnectOutcome.PENDING: ("tries to connect to", 0, "Unknown"),
    ConnectOutcome.UNKNOWN: ("called connect for", 0, "Unknown"),
}


def connect_event(value: Connect, process: Process, lineage: tuple[Process, ...], reporter: Reporter) -> Object:
    """Return a connection as Network Activity 4001: Open, or Fail where it was refused."""
    words, status_id, status = _OUTCOMES[value.outcome]
    message = f"{process.name} {words} {value.connection.remote}"
    activity = 4 if value.outcome is ConnectOutcome.REFUSED else 1
    event = _base(4001, activity, at=value.at, severity=Severity.INFORMATIONAL, reporter=reporter, message=message)
    source, destination = objects.sides(value.connection)
    if value.hostname:
        destination |= {"hostname": value.hostname}
    claimed = f"{value.claimed}" if value.claimed else None
    seen = present(
        source=value.source, outcome=value.outcome.value, claimed=claimed, unreadable=process.unreadable or None
    )
    event |= {
        "actor": {"process": objects.process(process, lineage)},
        "src_endpoint": source,
        "dst_endpoint": destination,
        "connection_info": objects.connection(value.connection),
        "is_src_dst_assignment_known": value.connection.initiated is not None,
        "status_id": status_id,
        "status": status,
        "unmapped": {"nbsentinel": seen},
    }
    return event


def call_event(value: SystemCall, process: Process, lineage: tuple[Process, ...], reporter: Reporter) -> Object:
    """Return a call that is worth telling as Process Activity 1007, Other."""
    message = f"{process.name} called {value.name}" + (" and was refused" if value.refused else "")
    event = _base(1007, 99, at=value.at, severity=Severity.INFORMATIONAL, reporter=reporter, message=message)
    event["process"] = objects.process(process, lineage)
    event["actor"] = _actor(lineage[0] if lineage else None)
    loading = present(preloads=process.preloads, unreadable=process.unreadable or None)
    told = {"system_call": value.name, "refused": value.refused, **loading, **value.arguments}
    event["unmapped"] = {"nbsentinel": json_safe({"source": value.source, **told})}
    return event


def kernel_event(
    value: ocsf_kernel.KernelTold, process: Process, lineage: tuple[Process, ...], reporter: Reporter
) -> Object:
    """Return what a kernel told as an event."""
    told = ocsf_kernel.describe(value, process, lineage, reporter.surface.get("hostname"))
    severity = Severity.INFORMATIONAL
    event = _base(
        told.class_uid, told.activity, at=value.at, severity=severity, reporter=reporter, message=told.message
    )
    return event | told.content


def file_event(value: FileAccess, table: ProcessTable, reporter: Reporter) -> Object:
    """Return an access to a watched file as File System Activity 1001, whoever it was."""
    process = table.get(value.key) if value.key else None
    lineage = table.lineage(value.key) if value.key else ()
    words = ocsf_files.message(value, process)
    activity = ocsf_files.ACTIVITIES[value.operation]
    event = _base(1001, activity, at=value.at, severity=Severity.INFORMATIONAL, reporter=reporter, message=words)
    return event | ocsf_files.members(value, process, lineage)


def sweep_event(value: EnvironSweep, table: ProcessTable, reporter: Reporter) -> Object:
    """Return a sweep of environments as Process Activity 1007, Other."""
    first = value.candidates[0] if value.candidates else None
    words = "somebody read the environment of a process that only exists to notice that"
    event = _base(1007, 99, at=value.at, severity=Severity.INFORMATIONAL, reporter=reporter, message=words)
    return event | ocsf_files.sweep_members(
        value, table.get(first) if first else None, table.lineage(first) if first else ()
    )


Recordable = Exec | Exit | Connect | SystemCall | FileAccess | EnvironSweep | ocsf_kernel.KernelTold


def observation(value: Recordable, table: ProcessTable, reporter: Reporter, origins: Origins) -> Object | None:
    """Return an observation with its context, or None where its process is not known any more."""
    event = _of(value, table, reporter)
    if event is None or isinstance(value, (Exit, EnvironSweep)):
        return fit(event) if event else None
    found = origins.of_observation(value)
    if found is not None and found.kind is not OriginKind.OTHER:
        event["enrichments"] = objects.origin(found)
    return fit(event)


def _of(value: Recordable, table: ProcessTable, reporter: Reporter) -> Object | None:
    if isinstance(value, FileAccess):
        return file_event(value, table, reporter)
    if isinstance(value, EnvironSweep):
        return sweep_event(value, table, reporter)
    if isinstance(value, Exec):
        return exec_event(value, table.lineage(value.process.key), reporter)
    process = table.get(value.key)
    if process is None:
        return None
    lineage = table.lineage(value.key)
    if isinstance(value, Exit):
        return exit_event(value, process, lineage, reporter)
    if isinstance(value, SystemCall):
        return call_event(value, process, lineage, reporter)
    if isinstance(value, ocsf_kernel.KernelTold):
        return kernel_event(value, process, lineage, reporter)
    return connect_event(value, process, lineage, reporter)


def agent_event(value: AgentEvent, reporter: Reporter) -> Object:
    """Return an event about the agent itself as Application Lifecycle 6002."""
    activity = _LIFECYCLE.get(value.what, 99)
    event = _base(6002, activity, at=value.at, severity=value.severity, reporter=reporter, message=value.message)
    details = json_safe({"what": value.what.value, **value.details})
    event["app"] = {"name": PRODUCT, "uid": reporter.agent_uid, "version": reporter.version}
    event["unmapped"] = {"nbsentinel": details}
    return event

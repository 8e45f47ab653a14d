"""What kernels tell, as OCSF. Pure.

Cells and audit events are Process Activity 1007, calls of AWS APIs are API Activity 6003.
"""

from __future__ import annotations

from typing import NamedTuple

from nbsentinel.events import ApiCall, CellPhase, CellRun, KernelAudit, Process
from nbsentinel.report import ocsf_objects as objects
from nbsentinel.report.ocsf_objects import Object, present
from nbsentinel.report.redact import redact_text
from nbsentinel.text import json_safe

KernelTold = CellRun | KernelAudit | ApiCall
ACTIVITIES = {
    (6003, 1): "Create",
    (6003, 2): "Read",
    (6003, 3): "Update",
    (6003, 4): "Delete",
    (6003, 99): "Other",
}
_VERBS = (
    (1, ("Create", "Run", "Start", "Upload")),
    (2, ("Get", "List", "Describe", "Head", "BatchGet", "Search", "Query", "Scan", "Select")),
    (3, ("Put", "Update", "Set", "Modify", "Attach", "Detach", "Add", "Tag", "Untag", "Copy")),
    (4, ("Delete", "Remove", "Terminate", "Abort")),
)


class Members(NamedTuple):
    """The parts of an event that are its own."""

    class_uid: int
    activity: int
    message: str
    content: Object


def describe(value: KernelTold, process: Process, lineage: tuple[Process, ...], hostname: str | None) -> Members:
    """Return what an event says of something that a kernel told.

    Args:
        value: What it told.
        process: The kernel.
        lineage: Its ancestors.
        hostname: This machine's name.
    """
    if isinstance(value, ApiCall):
        return _api_call(value, process, lineage, hostname)
    actor: Object = {"process": objects.actor(lineage[0])} if lineage else {"app_name": "unknown"}
    content: Object = {"process": objects.process(process, lineage), "actor": actor}
    if isinstance(value, CellRun):
        told = present(
            cell=value.phase.value,
            thread=value.thread,
            message_id=value.message_id,
            cell_id=value.cell_id,
            execution_count=value.execution_count,
            source_sha256=value.source_sha256,
        )
        if value.phase is CellPhase.STOP:
            told["failed"] = value.failed
        words = "starts a cell" if value.phase is CellPhase.START else "has run a cell"
    else:
        arguments = {name: redact_text(text) for name, text in value.arguments.items()}
        told = {**_where(value), "audit_event": value.name, **arguments}
        words = f"told of {value.name}"
    content["unmapped"] = {"nbsentinel": json_safe({"source": value.source, **told})}
    return Members(1007, 99, f"{process.name} {words}", content)


def _where(value: KernelAudit | ApiCall) -> Object:
    return present(thread=value.thread, message_id=value.message_id, certain=value.certain)


def activity(operation: str) -> int:
    """Return what kind of operation it is by the first word of its name."""
    for found, verbs in _VERBS:
        if operation.startswith(verbs):
            return found
    return 99


def _api_call(value: ApiCall, process: Process, lineage: tuple[Process, ...], hostname: str | None) -> Members:
    operation = value.operation or "unknown"
    host, _, port = value.host.partition(":")
    told = present(via=value.via, access_key_hmac=value.access_key, region=value.region)
    content = present(
        actor={"process": objects.process(process, lineage)},
        api=present(
            operation=operation,
            service={"name": value.service or "unknown"},
            request={"uid": value.request_id} if value.request_id else None,
        ),
        src_endpoint={"hostname": hostname} if hostname else {"name": "this machine"},
        dst_endpoint=present(hostname=host, port=int(port) if port.isdigit() and int(port) < 65536 else None),
        resources=[
            present(type=kind, name=redact_text(name), region=value.region)
            for kind, name in sorted(value.resources.items())
            if name
        ],
        unmapped={"nbsentinel": json_safe({"source": value.source, **_where(value), **told})},
    )
    return Members(6003, activity(operation), f"{process.name} called {value.service}:{operation}", content)

"""What kernels, files and decoys tell, as fields of Sigma. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from nbsentinel.detect.fields import Fields, file_event_fields, process_creation_fields
from nbsentinel.events import ApiCall, CellRun, EnvironSweep, FileAccess, KernelAudit, Process

KERNEL_AUDIT, API_CALL, ENVIRON_SWEEP, FILE_EVENT = "kernel_audit", "api_call", "environ_sweep", "file_event"
Report = CellRun | KernelAudit | ApiCall | FileAccess | EnvironSweep


def of_report(process: Process, parent: Process | None, told: Report) -> tuple[str, Fields, Fields] | None:
    """Return category, fields, and those that a finding shows, None for what no rule looks at.

    Args:
        process: The kernel, or who touched the file; ourselves where nobody knows.
        parent: Its parent.
        told: What was told.
    """
    if isinstance(told, KernelAudit):
        shown = audit_fields(told.name, told.arguments, in_cell=told.message_id is not None)
        return KERNEL_AUDIT, {**process_creation_fields(process, parent), **shown}, shown
    if isinstance(told, ApiCall):
        where = {"region": told.region, "host": told.host, "via": told.via}
        shown = api_call_fields(
            told.service, told.operation, told.resources, **where, in_cell=told.message_id is not None
        )
        return API_CALL, {**process_creation_fields(process, parent), **shown}, shown
    if isinstance(told, FileAccess):
        fields = file_event_fields(process if told.key is not None else None, told)
        return FILE_EVENT, fields, {name: fields[name] for name in _SHOWN if name in fields}
    if isinstance(told, EnvironSweep):
        shown = {"Decoys": told.decoys, "Candidates": len(told.candidates)}
        return ENVIRON_SWEEP, shown, shown
    return None


_SHOWN = (
    "TargetFilename",
    "SourceFilename",
    "LinkTarget",
    "CredentialKind",
    "FileOperation",
    "ReaderIsOwnTool",
    "ReaderCertainty",
)


def audit_fields(name: str, arguments: Mapping[str, str], *, in_cell: bool) -> Fields:
    """Return the fields of an audit event; its arguments have a prefix: a process has a command line of its own."""
    return {"AuditEvent": name, "InKernelCell": in_cell, **{f"Audit{key}": value for key, value in arguments.items()}}


def api_call_fields(
    service: str, operation: str, resources: Mapping[str, str], *, region: str, host: str, via: str, in_cell: bool
) -> Fields:
    """Return the fields of a call of an API; what is not known is left out."""
    found: Fields = {
        "Service": service,
        "Operation": operation,
        "Region": region,
        "Host": host,
        "Via": via,
        "InKernelCell": in_cell,
        **{f"Resource{kind}": name for kind, name in resources.items()},
    }
    return {name: value for name, value in found.items() if value != ""}

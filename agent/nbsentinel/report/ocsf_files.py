"""Accesses to files, and sweeps of environments, as OCSF 1.6: what File System Activity 1001 has of its own. Pure."""

from __future__ import annotations

import posixpath

from nbsentinel.events import EnvironSweep, FileAccess, FileOperation, Process
from nbsentinel.report import ocsf_objects as objects
from nbsentinel.report.ocsf_objects import Object, present
from nbsentinel.report.redact import redact_text

ACTIVITIES = {
    FileOperation.CREATE: 1,
    FileOperation.READ: 2,
    FileOperation.WRITE: 3,
    FileOperation.DELETE: 4,
    FileOperation.RENAME: 5,
    FileOperation.ATTRIBUTES: 6,
}
_WORDS = {
    FileOperation.CREATE: "created",
    FileOperation.READ: "opened",
    FileOperation.WRITE: "changed",
    FileOperation.DELETE: "removed",
    FileOperation.RENAME: "renamed",
    FileOperation.ATTRIBUTES: "changed the attributes of",
}


def message(value: FileAccess, process: Process | None) -> str:
    """Return what happened in one line."""
    who = process.name if process else "somebody"
    return f"{who} {_WORDS[value.operation]} {redact_text(value.path)}"


def _file(path: str) -> Object:
    plain = redact_text(path)
    return present(name=posixpath.basename(plain) or plain, path=plain, type_id=1, type="Regular File")


def members(value: FileAccess, process: Process | None, lineage: tuple[Process, ...]) -> Object:
    """Return what belongs to a File System Activity event beside what all events have."""
    told = present(
        source=value.source,
        kind=value.kind,
        operation=value.operation.value,
        certainty=value.certainty,
        own_tool=value.own_tool,
        thread=value.thread or None,
        link=redact_text(value.link) or None,
        candidates=[f"{key.pid}:{key.start}" for key in value.candidates],
    )
    # Who did it may be known by its number alone; a field that is left out would look like nobody.
    actor: Object = {"app_name": "unknown"}
    if process is not None:
        actor = {"process": objects.process(process, lineage)}
    elif value.key is not None:
        actor = {"process": {"pid": value.key.pid, "uid": f"{value.key.pid}:{value.key.start}"}}
    event: Object = {"actor": actor, "file": _file(value.path), "unmapped": {"nbsentinel": told}}
    if value.target:
        event["file_result"] = _file(value.target)
    return event


def sweep_members(value: EnvironSweep, process: Process | None, lineage: tuple[Process, ...]) -> Object:
    """Return what belongs to a sweep, which is a Process Activity event about its likeliest process."""
    told = present(
        source=value.source,
        decoys=value.decoys,
        certainty="unknown: the kernel does not tell who read",
        candidates=[f"{key.pid}:{key.start}" for key in value.candidates],
    )
    likeliest: Object = objects.process(process, lineage) if process else {"name": "unknown"}
    actor: Object = {"process": objects.actor(lineage[0])} if lineage else {"app_name": "unknown"}
    return {"process": likeliest, "actor": actor, "unmapped": {"nbsentinel": told}}

"""OCSF 1.6 objects from our values: processes, files, endpoints, techniques. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from nbsentinel.attest.canonical import Settled
from nbsentinel.events import Connection, Endpoint, Origin, Process, ProcessKey, Technique
from nbsentinel.report.redact import redact_arguments, redact_text

Object = dict[str, object]
LINEAGE_DEPTH = 12
ANCESTORS_LIMIT = 1_024
_FILE_REGULAR = 1


_ancestors: dict[tuple[ProcessKey, bool], tuple[Process, Settled | None, Settled]] = {}
"""What was made of ancestors: nearly all events of a notebook have the same ones."""


def present(**members: object) -> Object:
    """Return the members that have a value: OCSF leaves out what is not known."""
    return {name: value for name, value in members.items() if value is not None and value not in ("", [], {})}


def command_line(process: Process) -> str:
    """Return the arguments joined by blanks, without secrets."""
    return " ".join(redact_arguments(process.argv)) if process.argv else process.command_line


def file(path: str) -> Object:
    """Return the file object of a running program."""
    deleted = path.endswith(" (deleted)")
    plain = redact_text(path.removesuffix(" (deleted)"))
    name = posixpath.basename(plain) or plain
    return present(
        name=name, path=plain, type_id=_FILE_REGULAR, type="Regular File", is_deleted=True if deleted else None
    )


def process(value: Process, lineage: tuple[Process, ...] = ()) -> Object:
    """Return a process with its ancestors nested as `parent_process`."""
    above = lineage[:LINEAGE_DEPTH]
    parent: Settled | None = None
    for ancestor in reversed(above):
        parent = _ancestor(ancestor, parent)
    return _one(value, parent)


def actor(value: Process) -> Settled:
    """Return a process that did something to another one, which names its ancestors."""
    return _ancestor(value, None)


def _ancestor(value: Process, parent: Settled | None) -> Settled:
    """Return a process that others descend from; the same object again as long as nothing of it has changed."""
    place = value.key, parent is None
    known = _ancestors.get(place)
    if known is not None and known[0] is value and known[1] is parent:
        return known[2]
    made = Settled(_one(value, parent))
    if len(_ancestors) >= ANCESTORS_LIMIT:
        _ancestors.clear()
    _ancestors[place] = value, parent, made
    return made


def _one(value: Process, parent: Mapping[str, object] | None) -> Object:
    user = present(uid=str(value.uid) if value.uid >= 0 else None, name=value.user)
    session = present(uid=str(value.session) if value.session else None, terminal=value.tty)
    if parent is None and value.parent is not None:
        parent = {"pid": value.parent.pid, "uid": f"{value.parent.pid}:{value.parent.start}"}
    return present(
        pid=value.key.pid,
        uid=f"{value.key.pid}:{value.key.start}",
        name=value.name,
        cmd_line=command_line(value),
        created_time=int(value.started),
        file=file(value.exe) if value.exe else None,
        working_directory=redact_text(value.cwd) if value.cwd else None,
        user=user,
        session=session,
        parent_process=parent,
    )


def endpoint(value: Endpoint) -> Object:
    """Return one side of a connection."""
    return present(ip=value.ip, port=value.port or None)


def connection(value: Connection) -> Object:
    """Return protocol and direction of a connection."""
    direction = {True: (2, "Outbound"), False: (1, "Inbound"), None: (0, "Unknown")}[value.initiated]
    version = (
        (6, "Internet Protocol version 6 (IPv6)")
        if ":" in value.remote.ip
        else (4, "Internet Protocol version 4 (IPv4)")
    )
    number = {"tcp": 6, "udp": 17}.get(value.protocol)
    return {
        "direction_id": direction[0],
        "direction": direction[1],
        **({"protocol_name": value.protocol, "protocol_num": number} if number else {}),
        "protocol_ver_id": version[0],
        "protocol_ver": version[1],
    }


def sides(value: Connection) -> tuple[Object, Object]:
    """Return source and destination: who connected is the source; ourselves where that is not known."""
    ours, theirs = endpoint(value.local) if value.local else {}, endpoint(value.remote)
    return (theirs, ours) if value.initiated is False else (ours, theirs)


def attack(value: Technique) -> Object:
    """Return an ATT&CK reference; a sub-technique names its parent as the technique."""
    parent, dot, _ = value.uid.partition(".")
    found: Object = {"version": "17", "tactic": present(uid=value.tactic_uid, name=value.tactic)}
    if dot:
        found["technique"] = {"uid": parent}
        found["sub_technique"] = present(uid=value.uid, name=value.name)
    else:
        found["technique"] = present(uid=value.uid, name=value.name)
    return found


def enrichment(name: str, value: str, data: Object | None = None) -> Object:
    """Return a named addition to an event."""
    return {"name": name, "value": value, "type": "nbsentinel", "data": data or {name: value}}


def origin(value: Origin) -> list[Object]:
    """Return kernel, notebook, cell or terminal as enrichments, each with how it is known."""
    named = value.kernel_id or value.terminal
    who = f"{value.kind.value} {named}" if named else value.kind.value
    data = present(
        kind=value.kind.value,
        source=value.source,
        pid=value.process.pid if value.process else None,
        kernel_id=value.kernel_id,
        notebook=value.notebook,
        sessions=list(value.sessions),
        terminal=value.terminal,
        **_cell(value),
    )
    found = [enrichment("origin", f"{who} ({value.source})", data)]
    if value.notebook:
        found.append(enrichment("notebook", value.notebook))
    if value.sessions and value.sessions != (f"notebook {value.notebook}",):
        found.append(enrichment("sessions", "; ".join(value.sessions), {"sessions": list(value.sessions)}))
    found.append(enrichment("cell", _cell_name(value), _cell(value)))
    return found


def _cell(value: Origin) -> Object:
    cell = value.cell
    return present(
        cell_id=cell.cell_id if cell else None,
        cell_message_id=cell.message_id if cell else None,
        cell_execution_count=cell.execution_count if cell else None,
        cell_sha256=cell.source_sha256 if cell else None,
        cell_certainty=value.cell_certainty.value,
        cell_source=value.cell_source,
    )


def _cell_name(value: Origin) -> str:
    cell = value.cell
    if cell is None:
        return value.cell_source
    count = f"In [{cell.execution_count}]" if cell.execution_count is not None else "a cell"
    known = f"{count}, id {cell.cell_id}" if cell.cell_id else f"{count}, request {cell.message_id}"
    return f"{known} ({value.cell_source})"

"""Events as Sigma's standard fields, live from our values and again from OCSF lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbsentinel.events import Connection, Process

Fields = dict[str, object]
PROCESS_ACTIVITY, NETWORK_ACTIVITY = 1007, 4001


def _known(**fields: object) -> Fields:
    return {name: value for name, value in fields.items() if value is not None}


def process_creation_fields(process: Process, parent: Process | None) -> Fields:
    """Return the fields of category `process_creation`; what is not known is left out."""
    return _known(
        Image=_path(process.exe),
        CommandLine=process.command_line,
        CurrentDirectory=process.cwd,
        User=process.user or (str(process.uid) if process.uid >= 0 else None),
        LogonId=process.session or None,
        ProcessId=process.key.pid,
        ParentImage=_path(parent.exe) if parent else None,
        ParentCommandLine=parent.command_line if parent else None,
        ParentProcessId=process.parent.pid if process.parent else None,
    )


def _path(exe: str | None) -> str | None:
    return exe.removesuffix(" (deleted)") if exe else None


def network_connection_fields(process: Process, connection: Connection) -> Fields:
    """Return the fields of category `network_connection`."""
    return _known(
        Image=_path(process.exe),
        CommandLine=process.command_line,
        User=process.user or (str(process.uid) if process.uid >= 0 else None),
        ProcessId=process.key.pid,
        Protocol=connection.protocol or None,
        Initiated=connection.initiated,
        SourceIp=connection.local.ip if connection.local else None,
        SourcePort=connection.local.port if connection.local else None,
        DestinationIp=connection.remote.ip,
        DestinationPort=connection.remote.port,
    )


def from_ocsf(event: Mapping[str, Any]) -> tuple[str, Fields] | None:
    """Return category and fields of an OCSF event as our file sink writes it; None for classes without a category."""
    if event.get("class_uid") == PROCESS_ACTIVITY and event.get("activity_id") == 1:
        return "process_creation", _from_process(event.get("process", {}))
    if event.get("class_uid") == NETWORK_ACTIVITY:
        return "network_connection", _from_network(event)
    return None


def _from_process(process: Mapping[str, Any]) -> Fields:
    parent = process.get("parent_process", {})
    user, session = process.get("user", {}), process.get("session", {})
    return _known(
        Image=process.get("file", {}).get("path"),
        CommandLine=process.get("cmd_line"),
        CurrentDirectory=process.get("working_directory"),
        User=user.get("name") or user.get("uid"),
        LogonId=session.get("uid"),
        ProcessId=process.get("pid"),
        ParentImage=parent.get("file", {}).get("path"),
        ParentCommandLine=parent.get("cmd_line"),
        ParentProcessId=parent.get("pid"),
    )


def _from_network(event: Mapping[str, Any]) -> Fields:
    process = event.get("actor", {}).get("process", {})
    info = event.get("connection_info", {})
    initiated = {1: False, 2: True}.get(info.get("direction_id"))
    ours, theirs = event.get("src_endpoint", {}), event.get("dst_endpoint", {})
    if initiated is False:
        ours, theirs = theirs, ours
    user = process.get("user", {})
    return _known(
        Image=process.get("file", {}).get("path"),
        CommandLine=process.get("cmd_line"),
        User=user.get("name") or user.get("uid"),
        ProcessId=process.get("pid"),
        Protocol=info.get("protocol_name"),
        Initiated=initiated,
        SourceIp=ours.get("ip"),
        SourcePort=ours.get("port"),
        DestinationIp=theirs.get("ip"),
        DestinationPort=theirs.get("port"),
    )

"""Fields of Sigma again from the OCSF lines that the agent has written, for `rules replay`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from nbsentinel.detect import reports
from nbsentinel.detect.fields import SYSTEM_CALL, TAMPERING, Fields, known

FILE_ACTIVITY, PROCESS_ACTIVITY, NETWORK_ACTIVITY, API_ACTIVITY, DETECTION_FINDING = 1001, 1007, 4001, 6003, 2004
_LAUNCH = _CREATE = 1
_UPDATE = 2
_NOT_ARGUMENTS = frozenset({"source", "system_call", "refused", "preloads", "unreadable"})


def from_ocsf(event: Mapping[str, Any]) -> tuple[str, Fields] | None:
    """Return category and fields of an OCSF event as our file sink writes it; None for what rules do not look at.

    What matching sees live and no line carries: `HasConnection`, what joins processes (`LineageRoot` ...), and of a
    finding the fields of its own process beyond those that it names. A finding stands for the behaviour that it tells
    (`RemoteControlled` ...) and for tampering, which have no line of their own; other findings rest on lines that are
    there.
    """
    number, activity = event.get("class_uid"), event.get("activity_id")
    ours = event.get("unmapped", {}).get("nbsentinel", {})
    if number == PROCESS_ACTIVITY and activity == _LAUNCH:
        return "process_creation", {**_from_process(event.get("process", {})), **_loading(ours)}
    if number == PROCESS_ACTIVITY and "system_call" in ours:
        about = {name: value for name, value in ours.items() if name not in _NOT_ARGUMENTS}
        call = {"SystemCall": ours["system_call"], "Refused": ours.get("refused", False)}
        return SYSTEM_CALL, {**_from_process(event.get("process", {})), **_loading(ours), **call, **about}
    if number == PROCESS_ACTIVITY and "audit_event" in ours:
        return reports.KERNEL_AUDIT, {**_from_process(event.get("process", {})), **_from_audit(ours)}
    if number == PROCESS_ACTIVITY and "decoys" in ours:
        return reports.ENVIRON_SWEEP, {"Decoys": ours["decoys"], "Candidates": len(ours.get("candidates", ()))}
    if number == FILE_ACTIVITY:
        return reports.FILE_EVENT, _from_file(event, ours)
    if number == API_ACTIVITY:
        return reports.API_CALL, {**_from_process(event.get("actor", {}).get("process", {})), **_from_api(event, ours)}
    if number == NETWORK_ACTIVITY:
        return "network_connection", _from_network(event, ours)
    if number == DETECTION_FINDING and activity in (_CREATE, _UPDATE):
        return _from_finding(event)
    return None


def _loading(ours: Mapping[str, Any]) -> Fields:
    return known(Preloads=ours.get("preloads"), Unreadable=ours.get("unreadable"))


def _from_finding(event: Mapping[str, Any]) -> tuple[str, Fields] | None:
    told = {item["name"]: item["value"] for item in event.get("enrichments", ()) if item["name"][:1].isupper()}
    evidences = event.get("evidences") or [{}]
    process = evidences[0].get("process", {})
    if "TamperKind" in told:
        return TAMPERING, {**known(**_who(process)), **told}
    if "RemoteControlled" in told:
        return "process_creation", {**_from_process(process), **told}
    return None


def _who(process: Mapping[str, Any]) -> Fields:
    return {
        "Image": process.get("file", {}).get("path"),
        "CommandLine": process.get("cmd_line"),
        "ProcessId": process.get("pid"),
    }


def _from_process(process: Mapping[str, Any]) -> Fields:
    parent = process.get("parent_process", {})
    user, session = process.get("user", {}), process.get("session", {})
    return known(
        **_who(process),
        CurrentDirectory=process.get("working_directory"),
        User=user.get("name") or user.get("uid"),
        LogonId=_number(session.get("uid")),
        ParentImage=parent.get("file", {}).get("path"),
        ParentCommandLine=parent.get("cmd_line"),
        ParentProcessId=parent.get("pid"),
    )


def _number(text: str | None) -> int | str | None:
    return int(text) if text and text.isascii() and text.isdigit() else text


def _from_network(event: Mapping[str, Any], seen: Mapping[str, Any]) -> Fields:
    process = event.get("actor", {}).get("process", {})
    info = event.get("connection_info", {})
    initiated = {1: False, 2: True}.get(info.get("direction_id"))
    ours, theirs = event.get("src_endpoint", {}), event.get("dst_endpoint", {})
    # The name is what was asked for: it stands with the side that is written as the destination.
    hostname = theirs.get("hostname")
    if initiated is False:
        ours, theirs = theirs, ours
    user = process.get("user", {})
    claimed_ip, _, claimed_port = str(seen.get("claimed", "")).rpartition(":")
    return known(
        **_who(process),
        User=user.get("name") or user.get("uid"),
        Protocol=info.get("protocol_name"),
        Initiated=initiated,
        SourceIp=ours.get("ip"),
        SourcePort=ours.get("port"),
        DestinationIp=theirs.get("ip"),
        DestinationPort=theirs.get("port"),
        DestinationHostname=hostname,
        ClaimedDestinationIp=claimed_ip.strip("[]") or None,
        ClaimedDestinationPort=int(claimed_port) if claimed_port.isdigit() else None,
        Unreadable=seen.get("unreadable"),
    )


def _from_file(event: Mapping[str, Any], seen: Mapping[str, Any]) -> Fields:
    process, path = event.get("actor", {}).get("process", {}), event.get("file", {}).get("path")
    user, target = process.get("user", {}), event.get("file_result", {}).get("path")
    return known(
        **_who(process),
        User=user.get("name") or user.get("uid"),
        TargetFilename=target or path,
        SourceFilename=path if target else None,
        LinkTarget=seen.get("link"),
        CredentialKind=seen.get("kind"),
        FileOperation=seen.get("operation"),
        ReaderIsOwnTool=seen.get("own_tool"),
        ReaderCertainty=seen.get("certainty"),
    )


def _from_audit(seen: Mapping[str, Any]) -> Fields:
    arguments = {name: value for name, value in seen.items() if name[:1].isupper()}
    return reports.audit_fields(seen["audit_event"], arguments, in_cell="message_id" in seen)


def _from_api(event: Mapping[str, Any], seen: Mapping[str, Any]) -> Fields:
    api, peer = event.get("api", {}), event.get("dst_endpoint", {})
    service, operation = api.get("service", {}).get("name", ""), api.get("operation", "")
    host = ":".join(str(part) for part in (peer.get("hostname"), peer.get("port")) if part)
    return reports.api_call_fields(
        "" if service == "unknown" else service,
        "" if operation == "unknown" else operation,
        {item["type"]: item["name"] for item in event.get("resources", ())},
        region=seen.get("region", ""),
        host=host,
        via=seen.get("via", ""),
        in_cell="message_id" in seen,
    )


def event_time(event: Mapping[str, Any]) -> int | None:
    """Return the time of an OCSF event or of a flat one, in milliseconds since the epoch, or None where it has none.

    A flat event may have `time` (milliseconds) or `UtcTime` (ISO 8601).
    """
    value = event.get("time", event.get("UtcTime"))
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return value
    try:
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp() * 1000)

"""Events as Sigma's standard fields, from our values; `recorded` has them again from OCSF lines."""

from __future__ import annotations

from nbsentinel.events import Connect, FileAccess, Process, SystemCall, Tamper

Fields = dict[str, object]
TAMPERING, SYSTEM_CALL = "agent_tampering", "system_call"
"""Categories of our own beside Sigma's."""


def known(**fields: object) -> Fields:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def process_creation_fields(process: Process, parent: Process | None) -> Fields:
    """Return the fields of category `process_creation`; what is not known is left out."""
    return known(
        Image=_path(process.exe),
        CommandLine=process.command_line,
        CurrentDirectory=process.cwd,
        User=process.user or (str(process.uid) if process.uid >= 0 else None),
        LogonId=process.session or None,
        ProcessId=process.key.pid,
        ParentImage=_path(parent.exe) if parent else None,
        ParentCommandLine=parent.command_line if parent else None,
        ParentProcessId=process.parent.pid if process.parent else None,
        Preloads=process.preloads,
        Unreadable=process.unreadable or None,
    )


def tamper_fields(process: Process, tamper: Tamper) -> Fields:
    """Return the fields of our category `agent_tampering`."""
    return known(
        Image=_path(process.exe),
        CommandLine=process.command_line,
        ProcessId=process.key.pid,
        TamperKind=tamper.kind.value,
        Target=tamper.target,
        Detail=tamper.detail,
    )


def system_call_fields(process: Process, parent: Process | None, call: SystemCall) -> Fields:
    """Return the fields of our category `system_call`: the process's, `SystemCall`, and what it was about."""
    return {
        **process_creation_fields(process, parent),
        "SystemCall": call.name,
        "Refused": call.refused,
        **call.arguments,
    }


def file_event_fields(process: Process | None, access: FileAccess) -> Fields:
    """Return the fields of category `file_event`; without a process where nobody knows who it was."""
    user = (process.user or (str(process.uid) if process.uid >= 0 else None)) if process else None
    return known(
        Image=_path(process.exe) if process else None,
        CommandLine=process.command_line if process else None,
        User=user,
        ProcessId=access.key.pid if access.key else None,
        TargetFilename=access.target or access.path,
        SourceFilename=access.path if access.target else None,
        LinkTarget=access.link or None,
        CredentialKind=access.kind,
        FileOperation=access.operation.value,
        ReaderIsOwnTool=access.own_tool,
        ReaderCertainty=access.certainty,
    )


def _path(exe: str | None) -> str | None:
    return exe.removesuffix(" (deleted)") if exe else None


def network_connection_fields(process: Process, observation: Connect) -> Fields:
    """Return the fields of category `network_connection`."""
    connection = observation.connection
    return known(
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
        DestinationHostname=observation.hostname,
        ClaimedDestinationIp=observation.claimed.ip if observation.claimed else None,
        ClaimedDestinationPort=observation.claimed.port if observation.claimed else None,
        Unreadable=process.unreadable or None,
    )

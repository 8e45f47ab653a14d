"""Acts as the fields of Sigma that the engine makes of them."""

from __future__ import annotations

Fields = dict[str, object]
Row = tuple[str, str, Fields, Fields]
PROCESS, FILE, NETWORK, CALL = "process_creation", "file_event", "network_connection", "system_call"
API, AUDIT, SWEEP = "api_call", "kernel_audit", "environ_sweep"


def ran(line: str, image: str = "", **more: object) -> Fields:
    """Return the fields of an execution: the program is the line's first word, in /usr/bin where it has no folder."""
    word = line.split(" ", maxsplit=1)[0]
    return {"Image": image or (word if "/" in word else f"/usr/bin/{word}"), "CommandLine": line, **more}


def read(kind: str, name: str, line: str, *, own: bool | None = False, image: str = "") -> Fields:
    """Return the fields of a read of a credential in a home."""
    known = {} if own is None else {"ReaderIsOwnTool": own}
    about = {"CredentialKind": kind, "TargetFilename": f"/home/u/{name}", "FileOperation": "read"}
    return {**ran(line, image), **about, "ReaderCertainty": "lease", **known}


def changed(kind: str, name: str, operation: str = "write", **more: object) -> Fields:
    """Return the fields of a change of a file by somebody who is not known."""
    path = name if name.startswith("/") else f"/home/u/{name}"
    about = {"CredentialKind": kind, "TargetFilename": path, "FileOperation": operation}
    return {**about, "ReaderCertainty": "unknown: no lease", **more}


def connected(line: str, ip: str, port: int = 80, image: str = "") -> Fields:
    """Return the fields of a connection that was opened here."""
    return {**ran(line, image), "Initiated": True, "DestinationIp": ip, "DestinationPort": port}


def called(name: str, line: str = "/home/u/a.out", **arguments: object) -> Fields:
    """Return the fields of a system call."""
    return {**ran(line), "SystemCall": name, "Refused": False, **arguments}


def asked(service: str, operation: str, **resources: object) -> Fields:
    """Return the fields of a call of an AWS API in a kernel."""
    return {
        **ran("/opt/conda/bin/python3 -m ipykernel_launcher"),
        "Service": service,
        "Operation": operation,
        **resources,
    }


def opened(path: str, by: str) -> Fields:
    """Return the fields of a file that code in a kernel opens."""
    return {**ran(KERNEL), "AuditEvent": "open", "AuditAccess": "read", "AuditPath": path, "AuditBy": by}


KERNEL = "/opt/conda/bin/python3 -m ipykernel_launcher -f k.json"
PIP = ["pip install tool"]

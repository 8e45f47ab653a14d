"""A replayed line gives rules the same fields that live matching gave them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from nbsentinel.context.cells import Cells
from nbsentinel.context.origins import Origins
from nbsentinel.context.processes import ProcessTable
from nbsentinel.detect import fields, recorded, reports
from nbsentinel.detect.incidents import QUIET_MS, Incidents, Kin
from nbsentinel.events import (
    ApiCall,
    Confidence,
    Connect,
    Connection,
    ConnectOutcome,
    Endpoint,
    EnvironSweep,
    Exec,
    FileAccess,
    FileOperation,
    Finding,
    Inode,
    KernelAudit,
    Millis,
    Origin,
    OriginKind,
    Process,
    ProcessKey,
    Severity,
    SystemCall,
    Tamper,
    TamperKind,
)
from nbsentinel.report import ocsf
from support.findings import finding as small

REPORTER = ocsf.Reporter.of(agent_uid="a", version="1", surface={})
AT = Millis(1_700_000_000_000)


def process(pid: int, parent: Process | None = None, **more: object) -> Process:
    values: dict[str, object] = {
        "exe": f"/usr/bin/tool{pid}",
        "argv": (f"tool{pid}", "-x", "a b"),
        "argv_length": 10,
        "cwd": "/home/u",
        "uid": 1000,
        "user": "u",
        "session": 77,
        **more,
    }
    return Process(key=ProcessKey(pid, pid * 10), parent=parent.key if parent else None, name=f"tool{pid}", **values)  # type: ignore[arg-type]


PARENT = process(7)
CHILD = process(8, PARENT, preloads="/tmp/x.so", unreadable=True)
NAMELESS = process(9, PARENT, user=None, cwd=None, session=0)


def read(event: Mapping[str, object]) -> tuple[str, fields.Fields] | None:
    return recorded.from_ocsf(json.loads(json.dumps(event)))


@pytest.mark.parametrize(
    "child", [CHILD, NAMELESS, process(8, PARENT, exe="/tmp/x (deleted)"), process(8, PARENT, exe=None)]
)
def test_executions(child: Process) -> None:
    """An execution has every field again, what it preloads and whether it is unreadable included."""
    event = ocsf.exec_event(Exec(at=AT, process=child, source="guard"), (PARENT,), REPORTER)
    assert read(event) == ("process_creation", fields.process_creation_fields(child, PARENT))


@pytest.mark.parametrize("refused", [True, False])
def test_system_calls(refused: bool) -> None:
    """A system call has its name, what it was about, and its process's fields."""
    arguments = {"TargetProcessId": "77", "Source": "/dev/sda", "Flags": "1"}
    call = SystemCall(at=AT, key=CHILD.key, name="ptrace", arguments=arguments, refused=refused, source="guard")
    event = ocsf.call_event(call, CHILD, (PARENT,), REPORTER)
    assert read(event) == ("system_call", fields.system_call_fields(CHILD, PARENT, call))


@pytest.mark.parametrize("initiated", [True, False, None])
@pytest.mark.parametrize("claimed", [None, Endpoint("192.0.2.9", 80), Endpoint("2001:db8::1", 443)])
@pytest.mark.parametrize("outcome", [ConnectOutcome.ESTABLISHED, ConnectOutcome.REFUSED])
def test_connections(initiated: bool | None, claimed: Endpoint | None, outcome: ConnectOutcome) -> None:
    """A connection has both ends, its direction, the name that was asked for and the address that was claimed."""
    connection = Connection(
        inode=Inode(1),
        protocol="tcp",
        local=Endpoint("127.0.0.1", 5),
        remote=Endpoint("198.51.100.7", 443),
        initiated=initiated,
    )
    hostname = "example.com" if initiated else None
    found = Connect(
        at=AT, key=CHILD.key, connection=connection, source="guard", outcome=outcome, claimed=claimed, hostname=hostname
    )
    event = ocsf.connect_event(found, CHILD, (PARENT,), REPORTER)
    assert read(event) == ("network_connection", fields.network_connection_fields(CHILD, found))


def finding(told: dict[str, str]) -> dict[str, object]:
    value = Finding(
        uid="u",
        rule_id="r",
        rule_name="r",
        title="t",
        why="w",
        severity=Severity.HIGH,
        confidence=Confidence.HIGH,
        at=AT,
        process=CHILD,
        lineage=(PARENT,),
        origin=Origin(kind=OriginKind.OTHER, source="s"),
        attacks=(),
        false_positives=("none",),
        fields=told,
    )
    return ocsf.finding(value, REPORTER)


def test_tampering() -> None:
    """Tampering is told by its finding alone, with all that rules look at."""
    tamper = Tamper(at=AT, kind=TamperKind.STOPPED, target="agent", detail="by a signal", source="self")
    told = {"TamperKind": "stopped", "Target": "agent", "Detail": "by a signal"}
    assert read(finding(told)) == ("agent_tampering", fields.tamper_fields(CHILD, tamper))


def test_behaviour() -> None:
    """What was concluded about a process stands in its finding; other findings rest on the lines that they are of."""
    found = read(finding({"RemoteControlled": "direct", "InterpreterKind": "shell"}))
    assert found is not None
    category, values = found
    assert category == "process_creation"
    assert values["RemoteControlled"] == "direct"
    assert values["ParentImage"] == "/usr/bin/tool7"
    assert read(finding({})) is None
    assert read({"class_uid": 6002, "activity_id": 3}) is None


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"time": 5}, 5),
        ({"UtcTime": "1970-01-01 00:00:01.500"}, 1500),
        ({"UtcTime": "1970-01-01T01:00:00+01:00"}, 0),
        ({"UtcTime": "soon"}, None),
        ({"time": True}, None),
        ({}, None),
    ],
)
def test_times(event: dict[str, object], expected: int | None) -> None:
    """The time of a line is its own, in milliseconds or ISO 8601."""
    assert recorded.event_time(event) == expected


def access(path: str, operation: FileOperation, **more: object) -> FileAccess:
    values = {"at": AT, "kind": "aws", "certainty": "lease", "source": "files", "key": CHILD.key, **more}
    return FileAccess(path=path, operation=operation, **values)  # type: ignore[arg-type]


def audit(name: str, arguments: dict[str, str], **more: object) -> KernelAudit:
    return KernelAudit(at=AT, key=CHILD.key, thread=9, source="kernels", name=name, arguments=arguments, **more)  # type: ignore[arg-type]


def call(service: str, operation: str, **more: object) -> ApiCall:
    values = {"at": AT, "key": CHILD.key, "thread": 9, "source": "kernels", **more}
    return ApiCall(service=service, operation=operation, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "told",
    [
        access("/home/u/.aws/credentials", FileOperation.READ, own_tool=False),
        access("/home/u/.aws/config", FileOperation.WRITE, key=None),
        access("/home/u/a", FileOperation.RENAME, target="/home/u/b"),
        audit("subprocess.Popen", {"Path": "/bin/ls", "CommandLine": "ls -l"}),
        audit("open", {"Path": "/x", "By": "user"}, message_id="m", certain=True),
        call("s3", "GetObject", host="h.example:443", resources={"Bucket": "b"}, via="botocore"),
        call("iam", "", region="eu-west-1", host="h.example", via="http.client", message_id="m"),
        EnvironSweep(at=AT, decoys=2, candidates=(CHILD.key, PARENT.key), source="files"),
    ],
    ids=["read", "unknown writer", "rename", "audit", "audit of a cell", "call", "call of a cell", "sweep"],
)
def test_reports(told: reports.Report) -> None:
    """What kernels, files and decoys told has every field again."""
    table = ProcessTable()
    for one in (PARENT, CHILD):
        table.apply(Exec(at=AT, process=one, source="guard"))
    event = ocsf.observation(told, table, REPORTER, Origins(table, Cells(), tuple))  # type: ignore[arg-type]
    live = reports.of_report(CHILD, PARENT, told)
    assert event is not None
    assert live is not None
    carried = {name: value for name, value in live[1].items() if name not in ("Preloads", "Unreadable")}
    assert read(event) == (live[0], carried)


def test_each_step_of_an_incident_is_read_and_its_end_is_not() -> None:
    """An update tells of behaviour of its own; the closing repeats what was told, so it is nothing that happened."""
    incidents, told = Incidents(), {"RemoteControlled": "direct", "InterpreterKind": "shell"}
    values = [replace(small(CHILD, rule=f"r{n}", at=int(AT)), fields=told) for n in range(2)]
    steps = [step for value in values if (step := incidents.admit(value, Kin("1@1"))) is not None]
    (closed,) = incidents.closings(Millis(AT + QUIET_MS), 10)
    found = [read(ocsf.finding(value, REPORTER)) for value in (*steps, closed)]
    assert [one is not None for one in found] == [True, True, False]

"""Everything that is reported is valid OCSF 1.6, with no member that the schema does not know, and attests."""

from __future__ import annotations

import types
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ocsf.v1_6_0 import events as classes
from ocsf.v1_6_0 import objects
from pydantic import BaseModel

from nbsentinel.attest.canonical import LINE_LIMIT
from nbsentinel.attest.chain import Chain
from nbsentinel.attest.keys import SigningKey
from nbsentinel.attest.verify import verify_genesis
from nbsentinel.context.cells import Cells
from nbsentinel.context.origins import Origins
from nbsentinel.context.processes import ProcessTable
from nbsentinel.detect.evidence import shown_candidates
from nbsentinel.detect.incidents import Incidents, Kin
from nbsentinel.events import (
    AgentEvent,
    ApiCall,
    Cell,
    CellPhase,
    CellRun,
    Certainty,
    Confidence,
    Connect,
    Connection,
    Endpoint,
    EnvironSweep,
    Exec,
    Exit,
    FileAccess,
    FileOperation,
    Finding,
    Incident,
    Inode,
    KernelAudit,
    Lifecycle,
    Millis,
    Origin,
    OriginKind,
    Phase,
    Process,
    ProcessKey,
    Risk,
    Severity,
    Step,
    Technique,
)
from nbsentinel.report import ocsf
from nbsentinel.report.fit import EVENT_LIMIT
from nbsentinel.report.incidents import closing, left_open
from nbsentinel.report.ocsf_drill import LABEL, as_test
from nbsentinel.report.ocsf_findings import CANDIDATE_LIMIT
from nbsentinel.text import MAX_SAFE_INTEGER, arguments, visible
from support.findings import finding

CLASSES: dict[int, type[BaseModel]] = {
    2004: classes.DetectionFinding,
    1001: classes.FileActivity,
    1007: classes.ProcessActivity,
    4001: classes.NetworkActivity,
    6002: classes.ApplicationLifecycle,
    6003: classes.ApiActivity,
}
# What the profiles named in metadata.profiles add to a class, as OCSF 1.6 has it.
PROFILES: dict[str, dict[str, type[BaseModel]]] = {
    "host": {"device": objects.Device, "actor": objects.Actor},
    "cloud": {"cloud": objects.Cloud},
    "record_integrity": {},
    "incident": {},
}
# Our additions: the record_integrity profile is of OCSF 1.9 (docs/reference/events.md).
ATTESTATION = {"uid", "authority_uid", "chain_uid", "fingerprint", "prev_event", "signatures"}
FREE = {"unmapped", "data"}

text = st.binary(max_size=40).map(visible)
words = st.binary(min_size=1, max_size=40).map(visible)
keys = st.builds(ProcessKey, st.integers(1, 2**22), st.integers(0, 2**63))
streams = st.tuples(st.none() | text, st.none() | text, st.none() | text)
processes = st.builds(
    lambda block, **more: Process(argv=arguments(block).argv, argv_length=len(block), **more),
    st.binary(max_size=60),
    key=keys,
    parent=st.none() | keys,
    name=text,
    exe=st.none() | text,
    argv_sha256=st.none() | st.just("0" * 64),
    cwd=st.none() | text,
    uid=st.integers(-1, 2**32),
    user=st.none() | text,
    session=st.integers(0, 2**22),
    tty=st.none() | text,
    started=st.integers(0, 2**42).map(Millis),
    stdio=streams,
)
endpoints = st.builds(Endpoint, st.sampled_from(["192.0.2.1", "::1", "2001:db8::1"]), st.integers(0, 65535))
connections = st.builds(
    Connection,
    protocol=st.sampled_from(["tcp", "udp"]),
    local=endpoints,
    remote=endpoints,
    inode=st.integers(0, 2**63).map(Inode),
    initiated=st.none() | st.booleans(),
)
moments = st.integers(0, 2**42).map(Millis)
lineages = st.lists(processes, max_size=4).map(tuple)
techniques = st.builds(Technique, uid=st.sampled_from(["T1059", "T1059.004"]), name=text, tactic_uid=words, tactic=text)
origins = st.builds(
    Origin,
    kind=st.sampled_from(OriginKind),
    source=words,
    process=st.none() | keys,
    kernel_id=st.none() | words,
    notebook=st.none() | words,
    sessions=st.lists(words, max_size=3).map(tuple),
    terminal=st.none() | words,
    cell=st.none()
    | st.builds(Cell, message_id=words, cell_id=st.none() | words, execution_count=st.none() | st.integers(0, 2**40)),
    cell_certainty=st.sampled_from(Certainty),
    cell_source=words,
)
attacks = st.lists(techniques, max_size=2).map(tuple)
steps = st.builds(
    Step,
    uid=st.uuids().map(str),
    opened=st.booleans(),
    rule_id=st.uuids().map(str),
    rule_name=st.just("rule"),
    title=words,
    severity=st.sampled_from(Severity),
    confidence=st.sampled_from(Confidence),
    attacks=attacks,
    at=moments,
    last_at=moments,
    count=st.integers(1, 2**40),
    process=processes,
    origin=origins,
    evidence=text,
)
incidents = st.builds(
    Incident,
    uid=st.uuids().map(str),
    phase=st.sampled_from(Phase),
    why=words,
    opened_at=moments,
    last_at=moments,
    severity=st.sampled_from(Severity),
    count=st.integers(1, 2**40),
    steps=st.lists(steps, min_size=1, max_size=3).map(tuple),
    left_out=st.integers(0, 2**40),
    risk=st.builds(Risk, score=st.integers(0, 100), level=st.integers(0, 4), why=words),
)
findings = st.builds(
    Finding,
    uid=st.uuids().map(str),
    rule_id=st.uuids().map(str),
    rule_name=st.just("rule"),
    title=words,
    why=words,
    severity=st.sampled_from(Severity),
    confidence=st.sampled_from(Confidence),
    at=moments,
    process=processes,
    lineage=lineages,
    origin=origins,
    attacks=attacks,
    connection=st.none() | connections,
    relay_path=st.none() | text,
    relays=st.lists(processes, max_size=2).map(tuple),
    false_positives=st.lists(words, max_size=2).map(tuple),
    advice=st.lists(words, max_size=2).map(tuple),
    fields=st.dictionaries(st.sampled_from(["RemoteControlled", "RelayPath"]), words),
    severity_why=st.just("") | words,
    incident=st.none() | incidents,
)
surfaces = st.sampled_from(
    [{}, {"kind": "studio-jupyterlab", "hostname": "h", "account": "123456789012", "region": "eu-west-1"}]
)
reporters = st.builds(ocsf.Reporter, agent_uid=st.uuids().map(str), version=st.just("0.1.0"), surface=surfaces)
details = st.dictionaries(
    st.sampled_from(["a", "b"]),
    st.recursive(
        st.text(max_size=5) | st.integers() | st.booleans(), lambda child: st.lists(child, max_size=2), max_leaves=4
    ),
)


def _models(annotation: object) -> list[type[BaseModel]]:
    """Return the models inside an annotation such as `list[Process] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        return [model for part in typing.get_args(annotation) for model in _models(part)]
    return []


def check(model: type[BaseModel], value: dict[str, Any], path: str, more: dict[str, type[BaseModel]]) -> None:
    """Forbid every member that the model does not have, at every level; captions must fit their ids."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    fields |= {name.rstrip("_"): field for name, field in model.model_fields.items()}
    for name, member in value.items():
        assert member is not None and member not in ("", [], {}), f"{path}.{name} is empty"
        if name in more:
            _descend(more[name], member, f"{path}.{name}")
            continue
        assert name in fields, f"{path}.{name} is not in OCSF 1.6"
        inner = _models(fields[name].annotation)
        if inner and name not in FREE:
            _descend(inner[0], member, f"{path}.{name}")


def _descend(model: type[BaseModel], member: object, path: str) -> None:
    model.model_validate(member[0] if isinstance(member, list) else member)
    for item in member if isinstance(member, list) else [member]:
        assert isinstance(item, dict), path
        check(model, item, path, {})


def no_floats(value: object) -> None:
    assert value is not None
    assert not isinstance(value, float)
    if isinstance(value, dict):
        for name, child in value.items():
            assert name.isascii()
            no_floats(child)
    elif isinstance(value, list):
        for child in value:
            no_floats(child)
    elif isinstance(value, int):
        assert abs(value) <= MAX_SAFE_INTEGER


def assert_valid(event: dict[str, Any]) -> None:
    """Validate one event in every way that we have."""
    model = CLASSES[event["class_uid"]]
    model.model_validate(event)
    added: dict[str, type[BaseModel]] = {}
    for profile in event["metadata"]["profiles"]:
        added |= PROFILES[profile]
    check(model, {name: value for name, value in event.items() if name != "attestation_list"}, "event", added)
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert event["category_uid"] == event["class_uid"] // 1000
    no_floats(event)


@settings(max_examples=60, deadline=None)
@given(findings, reporters)
def test_findings(value: Finding, reporter: ocsf.Reporter) -> None:
    """Any finding is a valid Detection Finding with what the contract asks for."""
    event: dict[str, Any] = ocsf.finding(value, reporter)
    assert_valid(event)
    process = event["evidences"][0]["process"]
    assert {"pid", "created_time", "cmd_line"} <= process.keys() or not value.process.command_line
    assert event["finding_info"]["analytic"]["uid"] == value.rule_id or not value.rule_id
    assert 1 <= event["severity_id"] <= 5
    for attack, technique in zip(event["finding_info"].get("attacks", []), value.attacks, strict=True):
        uids = {attack["technique"]["uid"], attack.get("sub_technique", {}).get("uid")}
        assert technique.uid in uids


@settings(max_examples=30, deadline=None)
@given(findings, reporters)
def test_test_alerts(value: Finding, reporter: ocsf.Reporter) -> None:
    """A test alert is a valid finding with OCSF's own mark of a test and a label, which no other finding has."""
    real: dict[str, Any] = ocsf.finding(value, reporter)
    event: dict[str, Any] = as_test(real)
    verdict = {name: event.pop(name) for name in ("verdict_id", "verdict")}
    assert verdict == {"verdict_id": 6, "verdict": classes.IncidentFinding.VerdictId(6).label}
    assert event["metadata"]["labels"] == [LABEL]
    assert "incident" in event["metadata"]["profiles"]
    assert_valid(event)
    unmarked = {**event, "metadata": {k: v for k, v in event["metadata"].items() if k not in ("labels", "profiles")}}
    assert unmarked == {**real, "metadata": {k: v for k, v in real["metadata"].items() if k != "profiles"}}
    assert LABEL not in str(real)


@settings(max_examples=60, deadline=None)
@given(findings.filter(lambda value: value.incident is not None), reporters)
def test_incidents(value: Finding, reporter: ocsf.Reporter) -> None:
    """Every event of an incident names it, is about its own step, and tells risk and steps by their events' uids."""
    assert value.incident is not None
    event: dict[str, Any] = ocsf.finding(value, reporter)
    info = event["finding_info"]
    assert (event["activity_id"], event["metadata"]["uid"]) == (int(value.incident.phase), value.uid)
    assert (info["uid"], info["analytic"]["uid"]) == (value.incident.uid, value.rule_id)
    assert (event["severity_id"], event["count"]) == (int(value.severity), value.incident.count)
    assert event["is_alert"] == (value.severity >= Severity.MEDIUM and value.incident.phase is not Phase.CLOSED)
    assert (event["risk_score"], event["risk_level_id"]) == (value.incident.risk.score, value.incident.risk.level)
    assert [step["uid"] for step in info["related_events"]] == [step.uid for step in value.incident.steps]
    assert info["related_events_count"] == len(value.incident.steps) + value.incident.left_out
    assert event["unmapped"]["nbsentinel"]["incident"]["severity_id"] == int(value.incident.severity)
    is_open = value.incident.phase is not Phase.CLOSED
    assert [group[0]["finding_info"]["uid"] for group in left_open([event])] == [info["uid"]] * is_open
    over = closing([event], Millis(value.at + 1))
    assert_valid(over)
    assert left_open([event, over]) == []
    assert (over["finding_info"]["uid"], over["severity_id"]) == (info["uid"], event["severity_id"])
    assert over["metadata"]["uid"] != event["metadata"]["uid"]


@settings(max_examples=60, deadline=None)
@given(processes, lineages, connections, moments, reporters)
def test_observations(
    process: Process, lineage: tuple[Process, ...], connection: Connection, at: Millis, reporter: ocsf.Reporter
) -> None:
    """Executions, ends and connections are valid, whatever names and arguments they carry."""
    assert_valid(ocsf.exec_event(Exec(at=at, process=process, source="procfs"), lineage, reporter))
    assert_valid(ocsf.exit_event(Exit(at=at, key=process.key, source="procfs"), process, lineage, reporter))
    connect = Connect(at=at, key=process.key, connection=connection, source="procfs")
    assert_valid(ocsf.connect_event(connect, process, lineage, reporter))


texts = st.dictionaries(st.sampled_from(["Path", "Bucket"]), text)
told = st.one_of(
    st.builds(
        CellRun,
        at=moments,
        key=keys,
        phase=st.sampled_from(CellPhase),
        thread=st.integers(0, 2**31),
        message_id=text,
        cell_id=st.none() | text,
        execution_count=st.none() | st.integers(0, 2**60),
        failed=st.booleans(),
        source=st.just("kernels"),
    ),
    st.builds(
        KernelAudit,
        at=moments,
        key=keys,
        thread=st.integers(0, 2**31),
        name=st.sampled_from(["open", "os.system"]),
        arguments=texts,
        message_id=st.none() | text,
        certain=st.booleans(),
        source=st.just("kernels"),
    ),
    st.builds(
        ApiCall,
        at=moments,
        key=keys,
        thread=st.integers(0, 2**31),
        service=text,
        operation=text | st.sampled_from(["GetObject", "CreateUser", "PutParameter", "DeleteTrail", "Invoke"]),
        region=text,
        host=text | st.sampled_from(["127.0.0.1:80", "h:99999", "::1"]),
        resources=texts,
        access_key=st.sampled_from(["", "0" * 32]),
        request_id=text,
        via=st.sampled_from(["botocore", "http.client"]),
        message_id=st.none() | text,
        certain=st.booleans(),
        source=st.just("kernels"),
    ),
)


@settings(max_examples=150, deadline=None)
@given(told, processes, lineages, reporters)
def test_what_kernels_tell(
    value: CellRun | KernelAudit | ApiCall, process: Process, lineage: tuple[Process, ...], reporter: ocsf.Reporter
) -> None:
    """Cells, audit events and API calls are valid, and name the kernel and the request that they belong to."""
    event: dict[str, Any] = ocsf.kernel_event(value, process, lineage, reporter)
    assert_valid(event)
    assert event["unmapped"]["nbsentinel"].get("message_id", "") == (value.message_id or "")
    kernel = event["actor"]["process"] if isinstance(value, ApiCall) else event["process"]
    assert kernel["pid"] == process.key.pid


@pytest.mark.parametrize(
    "line",
    [
        "curl -H 'Authorization: Bearer abcdefghijklmnop' --password hunter2hunter2",
        "curl -u admin:hunter2 https://example.com; mysql -phunter2; sshpass -p hunter2 ssh example.com",
    ],
)
def test_secrets_of_kernels_do_not_leave(line: str) -> None:
    """A secret in a command line that a cell ran is not in the event."""
    audit = KernelAudit(
        at=Millis(1),
        key=ProcessKey(1, 1),
        thread=1,
        name="os.system",
        arguments={"CommandLine": line},
        source="kernels",
    )
    process = Process(key=ProcessKey(1, 1), parent=None, name="python", exe=None, argv=(), argv_length=0)
    event = ocsf.kernel_event(audit, process, (), ocsf.Reporter(agent_uid="a", version="0", surface={}))
    assert "abcdefghijklmnop" not in str(event)
    assert "hunter2" not in str(event)


accesses = st.builds(
    FileAccess,
    at=moments,
    path=words,
    operation=st.sampled_from(FileOperation),
    kind=st.sampled_from(["aws", "persistence-shell"]),
    key=st.none() | keys,
    certainty=st.sampled_from(["lease", "descriptor", "exec", "unknown: no lease"]),
    candidates=st.lists(keys, max_size=3).map(tuple),
    own_tool=st.none() | st.booleans(),
    thread=st.integers(0, 2**22),
    target=st.just("") | words,
    source=st.just("files"),
)


@settings(max_examples=60, deadline=None)
@given(accesses, processes, st.booleans(), reporters)
def test_file_accesses(value: FileAccess, process: Process, known: bool, reporter: ocsf.Reporter) -> None:
    """An access to a file is valid and says who it was, where only the number is known, and where nobody knows."""
    table = ProcessTable()
    if known and value.key is not None:
        process = msgspec.structs.replace(process, key=value.key)
        table.apply(Exec(at=value.at, process=process, source="guard"))
    event: dict[str, Any] | None = ocsf.observation(value, table, reporter, Origins(table, Cells(), tuple))
    assert event is not None
    assert_valid(event)
    assert event["actor"].get("process", {}).get("pid") == (value.key.pid if value.key else None)
    assert event["unmapped"]["nbsentinel"]["certainty"] == value.certainty


@settings(max_examples=60, deadline=None)
@given(moments, processes, st.lists(keys, max_size=3), reporters)
def test_sweeps(at: Millis, process: Process, others: list[ProcessKey], reporter: ocsf.Reporter) -> None:
    """A sweep of environments is valid, with and without anybody who could have done it."""
    table = ProcessTable()
    table.apply(Exec(at=at, process=process, source="guard"))
    for candidates in ((), (process.key, *others), tuple(others)):
        sweep = EnvironSweep(at=at, decoys=1, candidates=candidates, source="files")
        event = ocsf.observation(sweep, table, reporter, Origins(table, Cells(), tuple))
        assert event is not None
        assert_valid(event)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(Lifecycle), details, moments, reporters)
def test_agent_events(what: Lifecycle, more: dict[str, object], at: Millis, reporter: ocsf.Reporter) -> None:
    """Events about the agent are valid, and integers of any size stay exact."""
    assert_valid(ocsf.agent_event(AgentEvent(at=at, what=what, message="m", details=more), reporter))


@settings(max_examples=30, deadline=None)
@given(findings, reporters)
def test_attested_events(value: Finding, reporter: ocsf.Reporter) -> None:
    """A sealed event is still valid; its attestation has the members of the record_integrity profile and no others."""
    key = SigningKey.generate()
    chain = Chain("c", key, now=lambda: 1)
    enrol = ocsf.agent_event(
        AgentEvent(at=Millis(1), what=Lifecycle.ENROL, message="m", details={"key": key.jwk()}), reporter
    )
    verify_genesis(chain.seal(enrol).line)
    event = chain.seal(ocsf.finding(value, reporter)).event
    assert_valid(event)
    (attestation,) = event["attestation_list"]  # type: ignore[misc]
    assert set(attestation) == ATTESTATION
    assert "record_integrity" in event["metadata"]["profiles"]  # type: ignore[index]


@pytest.mark.parametrize("junk", [b"\xff", "\U0001f600".encode(), b"\\"])
def test_no_argument_makes_a_finding_too_long_to_be_signed(junk: bytes) -> None:
    """Whatever fills arguments, paths and evidence of a whole lineage and of all steps, the finding can be sealed."""
    long = arguments((junk * (1_020 // len(junk)) + b"\0") * 16)
    path = visible(junk * 4096)
    line = tuple(
        Process(
            key=ProcessKey(n, n),
            parent=None,
            name=visible(junk * 15),
            exe=path,
            cwd=path,
            argv=long.argv,
            argv_length=9,
            argv_sha256="0" * 64,
        )
        for n in range(1, 14)
    )
    incidents = Incidents()
    for number in range(40):
        first = finding(line[0], rule=f"r{number}", lineage=line[1:], Target=f"{number} {path}")
        value = incidents.admit(msgspec.structs.replace(first, relays=line), Kin("1@1"))
        assert value is not None
    reporter = ocsf.Reporter(agent_uid="a", version="0", surface={})
    event: dict[str, Any] = ocsf.finding(value, reporter)
    assert_valid(event)
    assert event["metadata"]["is_truncated"]
    assert event["metadata"]["untruncated_size"] > EVENT_LIMIT
    assert event["evidences"][0]["process"]["pid"] == 1
    assert event["finding_info"]["related_events"][-1]["uid"] == value.uid
    assert event["finding_info"]["analytic"]["uid"] == "r39"
    key = SigningKey.generate()
    chain = Chain("c", key, now=lambda: 1)
    chain.seal(
        ocsf.agent_event(
            AgentEvent(at=Millis(1), what=Lifecycle.ENROL, message="m", details={"key": key.jwk()}), reporter
        )
    )
    assert len(chain.seal(event).line) <= LINE_LIMIT


def test_secrets_of_steps_do_not_leave() -> None:
    """A secret on the command line or in the evidence of an incident's step is in no event of the incident."""
    secret = "hunter2hunter2"
    who = Process(
        key=ProcessKey(1, 1), parent=None, name="mysql", exe=None, argv=("mysql", f"--password={secret}"), argv_length=9
    )
    incidents = Incidents()
    for number in range(2):
        first = finding(who, rule=f"r{number}", Target=f"https://u:{secret}@h/")
        value = incidents.admit(first, Kin("1@1"))
        assert value is not None
    event = ocsf.finding(value, ocsf.Reporter(agent_uid="a", version="0", surface={}))
    assert len(event["finding_info"]["related_events"]) == 2  # type: ignore[index]
    assert secret not in str(event)


def test_secrets_of_candidates_do_not_leave() -> None:
    """A secret of one who could have done it is not in the event, also where what is shown of it ends in its middle."""
    lines = ["curl -u admin:hunter2 https://example.com", "x" * 130 + " https://user:hunter2hunter2hunter2@h/", "ls"]
    told = shown_candidates({"CandidateCommandLine": lines, "CandidateRoot": "1@1"})
    who = Process(key=ProcessKey(1, 1), parent=None, name="x", exe=None, argv=(), argv_length=0)
    value = finding(who, **{name: str(text) for name, text in told.items()})
    event: dict[str, Any] = ocsf.finding(value, ocsf.Reporter(agent_uid="a", version="0", surface={}))
    assert "hunter2" not in str(event)
    (shown,) = [item["value"] for item in event["enrichments"] if item["name"] == "CandidateCommandLine"]
    first, second, third = shown.split("; ")
    assert (first, third) == ("curl -u admin:<redacted:password> https://example.com", "ls")
    assert second.startswith("xxx")
    assert len(second) <= CANDIDATE_LIMIT


def test_secrets_do_not_leave() -> None:
    """A secret among the arguments, in a path or of an ancestor is not in the event."""
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY"
    argv = ("aws", "configure", "set", "aws_secret_access_key", secret[:40])
    process = Process(
        key=ProcessKey(1, 1), parent=None, name="aws", exe=f"/tmp/password={secret}", argv=argv, argv_length=9
    )
    reporter = ocsf.Reporter(agent_uid="a", version="0", surface={})
    event = ocsf.exec_event(Exec(at=Millis(1), process=process, source="procfs"), (process,), reporter)
    assert secret[:20] not in str(event)


@pytest.mark.parametrize("extra", ["surprise", "attestation_lists"])
def test_the_check_itself_refuses_extras(extra: str) -> None:
    """A member that OCSF does not know is caught: this test would fail if the validator let everything pass."""
    reporter = ocsf.Reporter(agent_uid="a", version="0", surface={})
    event = ocsf.agent_event(AgentEvent(at=Millis(1), what=Lifecycle.NOTICE, message="m"), reporter)
    with pytest.raises(AssertionError, match="not in OCSF"):
        assert_valid({**event, extra: 1})

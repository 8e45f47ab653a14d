"""Everything that is reported is valid OCSF 1.6, with no member that the schema does not know, and attests."""

from __future__ import annotations

import types
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ocsf.v1_6_0 import events as classes
from ocsf.v1_6_0 import objects
from pydantic import BaseModel

from nbsentinel.attest.chain import Chain
from nbsentinel.attest.keys import SigningKey
from nbsentinel.attest.verify import verify_genesis
from nbsentinel.events import (
    AgentEvent,
    Confidence,
    Connect,
    Connection,
    Endpoint,
    Exec,
    Exit,
    Finding,
    Inode,
    Lifecycle,
    Millis,
    Origin,
    OriginKind,
    Process,
    ProcessKey,
    Severity,
    Technique,
)
from nbsentinel.report import ocsf
from nbsentinel.text import MAX_SAFE_INTEGER, arguments, visible

CLASSES: dict[int, type[BaseModel]] = {
    2004: classes.DetectionFinding,
    1007: classes.ProcessActivity,
    4001: classes.NetworkActivity,
    6002: classes.ApplicationLifecycle,
}
# What the profiles named in metadata.profiles add to a class, as OCSF 1.6 has it.
PROFILES: dict[str, dict[str, type[BaseModel]]] = {
    "host": {"device": objects.Device, "actor": objects.Actor},
    "cloud": {"cloud": objects.Cloud},
    "record_integrity": {},
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
    origin=st.builds(
        Origin,
        kind=st.sampled_from(OriginKind),
        source=words,
        process=st.none() | keys,
        kernel_id=st.none() | words,
        notebook=st.none() | words,
        cell_id=st.none() | words,
    ),
    attacks=st.lists(techniques, max_size=2).map(tuple),
    connection=st.none() | connections,
    relay_path=st.none() | text,
    relays=st.lists(processes, max_size=2).map(tuple),
    false_positives=st.lists(words, max_size=2).map(tuple),
    advice=st.lists(words, max_size=2).map(tuple),
    fields=st.dictionaries(st.sampled_from(["RemoteControlled", "RelayPath"]), words),
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
@given(findings, reporters, st.sampled_from(["new", "update"]))
def test_findings(value: Finding, reporter: ocsf.Reporter, status: str) -> None:
    """Any finding is a valid Detection Finding with what the contract asks for."""
    event: dict[str, Any] = ocsf.finding(value, reporter, status=status)
    assert_valid(event)
    process = event["evidences"][0]["process"]
    assert {"pid", "created_time", "cmd_line"} <= process.keys() or not value.process.command_line
    assert event["finding_info"]["analytic"]["uid"] == value.rule_id or not value.rule_id
    assert 1 <= event["severity_id"] <= 5
    for attack, technique in zip(event["finding_info"].get("attacks", []), value.attacks, strict=True):
        uids = {attack["technique"]["uid"], attack.get("sub_technique", {}).get("uid")}
        assert technique.uid in uids


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

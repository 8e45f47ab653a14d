"""From events to findings: keeps the context, asks dataflow, lets the rules decide, groups into incidents.

Single-threaded. Everything outside comes in through the constructor: the clock, the view of the system, the rules.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping

import msgspec

from nbsentinel.context.objects import ObjectView, Socket
from nbsentinel.context.processes import ProcessTable
from nbsentinel.detect import fields as sigma_fields
from nbsentinel.detect.dataflow import Flow, Path
from nbsentinel.detect.incidents import Incidents
from nbsentinel.detect.remote import RemoteControl, Verdict
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import Rule
from nbsentinel.detect.trust import Trust, is_loopback
from nbsentinel.events import (
    Confidence,
    Connect,
    Connection,
    Exec,
    Exit,
    Finding,
    Millis,
    Observation,
    Process,
    ProcessKey,
    Refused,
    Severity,
)

_SEVERITY = {
    "informational": Severity.INFORMATIONAL,
    "low": Severity.LOW,
    "medium": Severity.MEDIUM,
    "high": Severity.HIGH,
    "critical": Severity.CRITICAL,
}
_CONFIDENCE = {"low": Confidence.LOW, "medium": Confidence.MEDIUM, "high": Confidence.HIGH}
Fields = Mapping[str, object]


class Evidence(msgspec.Struct, frozen=True):
    """What belongs to a finding beside its process."""

    connection: Connection | None = None
    relay_path: str | None = None
    relays: tuple[Process, ...] = ()
    confidence: Confidence | None = None
    fields: dict[str, str] = {}


class Engine:
    """Detection as a whole.

    Args:
        matcher: The rules.
        table: The process table, shared with nobody who writes.
        trust: The policy of dataflow.
        look: Returns a view of the system at this moment.
        describe: Returns a remote socket as a connection with its direction, or None where it has no peer.
        clock: Milliseconds since the epoch.
    """

    def __init__(
        self,
        *,
        matcher: Matcher,
        table: ProcessTable,
        trust: Trust,
        look: Callable[[], ObjectView],
        describe: Callable[[Socket], Connection | None],
        clock: Callable[[], Millis],
    ) -> None:
        self._matcher, self._table, self._trust = matcher, table, trust
        self._look, self._describe, self._clock = look, describe, clock
        self._remote = RemoteControl(table, trust, self._initiated)
        self.incidents = Incidents()

    def observe(self, observations: list[Observation]) -> list[Finding]:
        """Take observations in, in order, and return what follows from them now."""
        findings: list[Finding] = []
        view: ObjectView | None = None
        for observation in observations:
            if isinstance(observation, Connect):
                findings += self._connected(observation)
                continue
            if isinstance(observation, Refused):
                continue
            self._table.apply(observation)
            if isinstance(observation, Exit):
                self._remote.forget(observation.key)
                continue
            view = view or self._look()
            if isinstance(observation, Exec):
                findings += self._executed(observation.process, view)
            elif (known := self._table.get(observation.key)) is not None:
                self._remote.consider(known, view, self._clock())
        return findings + self.tick()

    def next_due(self) -> int | None:
        """Return when `tick` wants to be called again, in milliseconds since the epoch, or None."""
        return self._remote.next_due()

    def tick(self) -> list[Finding]:
        """Judge every process whose time has come."""
        now = self._clock()
        due = self._remote.next_due()
        if due is None or due > now:
            return []
        view = self._look()
        self._trust.refresh(view)
        return [finding for verdict in self._remote.judge(view, now) for finding in self._controlled(verdict)]

    def _executed(self, process: Process, view: ObjectView) -> list[Finding]:
        self._remote.consider(process, view, self._clock())
        return self._match("process_creation", self._process_fields(process), process, Evidence())

    def _initiated(self, socket: Socket) -> bool | None:
        connection = self._describe(socket)
        return connection.initiated if connection else None

    def _connected(self, observation: Connect) -> list[Finding]:
        self._remote.connected(observation.key, self._clock())
        process = self._table.get(observation.key)
        if process is None or observation.confirms:
            return []
        fields = sigma_fields.network_connection_fields(process, observation.connection)
        return self._match("network_connection", fields, process, Evidence(connection=observation.connection))

    def _process_fields(self, process: Process) -> dict[str, object]:
        parent = self._table.get(process.parent) if process.parent else None
        return dict(sigma_fields.process_creation_fields(process, parent))

    def _controlled(self, verdict: Verdict) -> list[Finding]:
        connection = self._describe(verdict.flow.source.socket) or self._describe(verdict.flow.sink.socket)
        behaviour = self._behaviour(verdict, connection)
        relays = tuple(found for key in verdict.flow.relays if (found := self._table.get(key)))
        evidence = Evidence(
            connection=connection,
            relay_path=str(behaviour["RelayPath"]),
            relays=relays,
            confidence=verdict.confidence,
            fields={
                name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in behaviour.items()
            },
        )
        fields = {**self._process_fields(verdict.process), **behaviour}
        return self._match("process_creation", fields, verdict.process, evidence)

    def _behaviour(self, verdict: Verdict, connection: Connection | None) -> dict[str, object]:
        found: dict[str, object] = {
            "RemoteControlled": "direct" if verdict.flow.direct else "relayed",
            "InterpreterKind": verdict.interpreter.kind.value,
            "InterpreterInput": verdict.interpreter.input.value,
            "RelayPath": render_path(verdict.flow, verdict.process.key, self._table.get),
        }
        if verdict.one_way:
            found["OneWay"] = True
        if verdict.active is not None:
            found["RelayActive"] = verdict.active
        if connection is not None:
            found["DestinationIp"] = connection.remote.ip
            found["DestinationPort"] = connection.remote.port
            found["PeerIsLoopback"] = is_loopback(connection.remote.ip)
            if connection.initiated is not None:
                found["Initiated"] = connection.initiated
        return found

    def _match(self, category: str, fields: Fields, process: Process, evidence: Evidence) -> list[Finding]:
        findings = []
        for rule in self._matcher.match(category, fields):
            finding = self._finding(rule, process, evidence)
            if self.incidents.admit(finding):
                findings.append(finding)
        return findings

    def _finding(self, rule: Rule, process: Process, evidence: Evidence) -> Finding:
        servers = () if self._trust.server is None else (self._trust.server,)
        return Finding(
            uid=str(uuid.uuid4()),
            rule_id=rule.id,
            rule_name=rule.name,
            title=rule.title,
            why=rule.why or rule.description,
            severity=_SEVERITY[rule.level],
            confidence=evidence.confidence or _CONFIDENCE.get(rule.confidence, Confidence.MEDIUM),
            at=self._clock(),
            process=process,
            lineage=self._table.lineage(process.key),
            origin=self._table.origin(process.key, servers),
            attacks=rule.techniques,
            connection=evidence.connection,
            relay_path=evidence.relay_path,
            relays=evidence.relays,
            false_positives=rule.false_positives,
            advice=rule.advice,
            fields=evidence.fields,
        )


def render_path(flow: Flow, subject: ProcessKey, get: Callable[[ProcessKey], Process | None]) -> str:
    """Return the way of the bytes as one line: peer, objects and processes to the subject, and back to the peer."""

    def name(key: ProcessKey) -> str:
        process = get(key)
        return f"{process.name if process else '?'}[{key.pid}]"

    def parts(path: Path) -> list[str]:
        peer = str(path.socket.remote) if path.socket.remote else "any peer"
        relays = [name(step.relay) for step in reversed(path.steps) if step.relay is not None]
        return [peer, *relays, str(path.start)] if path.steps else [peer]

    return " → ".join([*parts(flow.source), name(subject), *reversed(parts(flow.sink))])

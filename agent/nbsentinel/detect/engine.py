"""From events to findings: keeps the context, asks dataflow, lets the rules decide, groups into incidents.

Single-threaded. Everything outside comes in through the constructor: the clock, the view of the system, the rules.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec

import msgspec

from nbsentinel.context.cells import Cells
from nbsentinel.context.objects import ObjectView, Socket
from nbsentinel.context.origins import Origins, moment_of
from nbsentinel.context.processes import ProcessTable
from nbsentinel.detect import fields as sigma_fields
from nbsentinel.detect import reports
from nbsentinel.detect.evidence import Evidence, render_path, shown, shown_candidates, stranger
from nbsentinel.detect.incidents import Incidents, Kin
from nbsentinel.detect.kinship import Kinship
from nbsentinel.detect.loops.commands import CommandLoops
from nbsentinel.detect.loops.evidence import LoopVerdict, loop_fields
from nbsentinel.detect.remote import RemoteControl, Verdict
from nbsentinel.detect.rules.correlate import Correlator, Fired
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import Rule
from nbsentinel.detect.trust import Trust, is_loopback
from nbsentinel.events import (
    ApiCall,
    CellRun,
    Confidence,
    Connect,
    Connection,
    ConnectStage,
    EnvironSweep,
    Exec,
    Exit,
    FileAccess,
    Finding,
    KernelAudit,
    Millis,
    Observation,
    Process,
    ProcessKey,
    ServerSessions,
    Severity,
    SystemCall,
    Tamper,
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
P = ParamSpec("P")
_NOBODY = ProcessKey(0, 0)
"""Stands where nobody knows who did something: no process has this number."""
CONNECTED_LIMIT = 4096
"""Processes remembered to have connected somewhere."""


class Engine:
    """Detection as a whole.

    Args:
        matcher: The rules.
        correlator: What follows from several of their matches; None for nothing.
        table: The process table, shared with nobody who writes.
        trust: The policy of dataflow.
        look: Returns a view of the system at this moment.
        describe: Returns a remote socket as a connection with its direction, or None where it has no peer.
        clock: Milliseconds since the epoch.
        own: The agent's own process: what nobody is known to have done is told about it.
        cells: What kernels tell of their cells.
        origins: Tells what a process belongs to.
        failed: Takes what went wrong with one observation, so that its neighbours are judged all the same; without it
            the error is raised.
        surface: The kind of surface, which some rules' levels and the risk depend on.
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
        own: ProcessKey,
        cells: Cells,
        origins: Origins,
        correlator: Correlator | None = None,
        failed: Callable[[Exception], None] | None = None,
        surface: str = "other",
    ) -> None:
        self._matcher, self._table, self._trust = matcher, table, trust
        self._look, self._describe, self._clock, self._own = look, describe, clock, own
        self._cells, self._origins = cells, origins
        self._remote = RemoteControl(table, trust, self._initiated)
        self._loops = CommandLoops(table, trust, self._initiated)
        self._kinship = Kinship(table)
        self._surface = surface
        self.incidents = Incidents(surface)
        self.correlator = Correlator(()) if correlator is None else correlator
        self._failed = failed
        self._at = clock()
        self._view: ObjectView | None = None
        """The look that the observations of one turn share."""
        self._connected_lately: OrderedDict[ProcessKey, None] = OrderedDict()

    def observe(self, observations: list[Observation]) -> list[Finding]:
        """Take observations in, in order, and return what follows from them now."""
        findings: list[Finding] = []
        self._view = None
        # A kernel tells before it does; its word must be known before what others saw of the same moment.
        for observation in observations:
            if isinstance(observation, (CellRun, KernelAudit)):
                self._cells.learn(observation)
            elif isinstance(observation, ServerSessions):
                self._origins.learn(observation)
        for observation in observations:
            self._at = observation.at
            findings += self._carefully(self._judged, observation)
        self._view = None
        return findings + self._carefully(self.tick)

    def _carefully(self, judge: Callable[P, list[Finding]], *args: P.args, **kwargs: P.kwargs) -> list[Finding]:
        """Return what follows, nothing where judging fails."""
        try:
            return judge(*args, **kwargs)
        except Exception as error:
            if self._failed is None:
                raise
            self._failed(error)
            return []

    def _judged(self, observation: Observation) -> list[Finding]:
        if isinstance(observation, ServerSessions):
            return []
        if isinstance(observation, Connect):
            findings = self._connected(observation)
            self._loops.connected(observation, self._clock())
            return findings
        if isinstance(observation, Tamper):
            return self._tampered(observation)
        if isinstance(observation, SystemCall):
            return self._called(observation)
        if isinstance(observation, (CellRun, KernelAudit, ApiCall, FileAccess, EnvironSweep)):
            return self._reported(observation)
        if isinstance(observation, Exit):
            return self._ended(observation)
        self._table.apply(observation)
        self._view = view = self._view or self._look()
        if isinstance(observation, Exec):
            process = observation.process
            self._kinship.learn(process, view.image)
            self._cells.started(process, self._table.lineage(process.key), observation.at)
            findings = self._executed(process, view)
            self._loops.executed(observation, view, self._clock())
            return findings
        if (known := self._table.get(observation.key)) is not None:
            self._remote.consider(known, view, self._clock())
        return []

    def _ended(self, observation: Exit) -> list[Finding]:
        watched = self._remote.watches(observation.key)
        # The last chance, by what was seen while it lived.
        findings = self._carefully(self.tick) if watched else []
        self._table.apply(observation)
        self._cells.forget(observation.key)
        self._remote.forget(observation.key)
        self._loops.ended(observation.key, self._clock())
        return findings

    def next_due(self) -> int | None:
        """Return when `tick` wants to be called again, in milliseconds since the epoch, or None."""
        dues = (self._remote.next_due(), self._loops.next_due(), self.correlator.next_due())
        return min((due for due in dues if due is not None), default=None)

    def tick(self) -> list[Finding]:
        """Judge every process whose time has come."""
        now = self._clock()
        due = self.next_due()
        if due is None or due > now:
            return []
        self._at = now
        over = self._correlated(self.correlator.advance(now))
        view = self._look()
        self._trust.refresh(view)
        found = [finding for verdict in self._remote.judge(view, now) for finding in self._controlled(verdict)]
        return over + found + [finding for loop in self._loops.judge(view, now) for finding in self._looped(loop)]

    def _executed(self, process: Process, view: ObjectView) -> list[Finding]:
        self._remote.consider(process, view, self._clock())
        return self._match("process_creation", self._process_fields(process), process, Evidence())

    def _initiated(self, socket: Socket) -> bool | None:
        connection = self._describe(socket)
        return connection.initiated if connection else None

    def _connected(self, observation: Connect) -> list[Finding]:
        self._remote.connected(observation.key, self._clock())
        self._connected_lately[observation.key] = None
        if len(self._connected_lately) > CONNECTED_LIMIT:
            self._connected_lately.popitem(last=False)
        process = self._table.get(observation.key)
        if process is None or observation.stage in (ConnectStage.CONFIRMS, ConnectStage.RESULT):
            return self._misled(observation, process) if process and observation.claimed else []
        fields = sigma_fields.network_connection_fields(process, observation) | self._kinship.lineage(process.key)
        if self._trust.is_elsewhere(observation.connection.remote.ip):
            fields["DestinationIsRemote"] = True
        evidence = Evidence(connection=observation.connection, moment=moment_of(observation, self._cells))
        return self._match("network_connection", fields, process, evidence)

    def _misled(self, observation: Connect, process: Process) -> list[Finding]:
        """Match a result again whose peer is not the address that the call named."""
        fields = sigma_fields.network_connection_fields(process, observation)
        evidence = Evidence(connection=observation.connection, moment=moment_of(observation, self._cells))
        return self._match("network_connection", fields, process, evidence)

    def _reported(self, observation: CellRun | KernelAudit | ApiCall | FileAccess | EnvironSweep) -> list[Finding]:
        """Match what kernels, files and decoys tell."""
        key = getattr(observation, "key", None) or _NOBODY
        process = self._table.get(key) or stranger(key)
        parent = self._table.get(process.parent) if process.parent else None
        found = reports.of_report(process, parent, observation)
        if found is None:
            return []
        category, fields, told = found[0], dict(found[1]), dict(found[2])
        fields |= self._kinship.lineage(process.key) if getattr(observation, "key", None) else {}
        kin = None
        if isinstance(observation, (FileAccess, EnvironSweep)):
            candidates = self._kinship.candidates(observation)
            fields |= candidates
            told |= shown_candidates(candidates)
            if key == _NOBODY:
                kin = self._kinship.kin_of_candidates(observation.candidates, self._trust.server)
        guessed = isinstance(observation, FileAccess) and observation.certainty == "timing"
        evidence = Evidence(
            fields=shown(told),
            moment=moment_of(observation, self._cells),
            kin=kin,
            confidence=Confidence.LOW if guessed else None,
        )
        return self._match(category, fields, process, evidence)

    def _tampered(self, observation: Tamper) -> list[Finding]:
        process = self._table.get(observation.key) if observation.key else None
        process = process or self._table.get(self._own) or stranger(observation.key or self._own)
        fields = sigma_fields.tamper_fields(process, observation)
        told = {"TamperKind": observation.kind.value, "Target": observation.target, "Detail": observation.detail}
        moment = moment_of(observation, self._cells)
        kin = None if observation.key else Kin(f"nobody known: {observation.kind.value}")
        return self._match(sigma_fields.TAMPERING, fields, process, Evidence(fields=told, kin=kin, moment=moment))

    def _called(self, observation: SystemCall) -> list[Finding]:
        process = self._table.get(observation.key) or stranger(observation.key)
        parent = self._table.get(process.parent) if process.parent else None
        fields = sigma_fields.system_call_fields(process, parent, observation)
        fields |= self._kinship.lineage(process.key) | self._kinship.target(process.key, observation.arguments)
        told = {"SystemCall": observation.name, **observation.arguments}
        if observation.arguments.get("Option") == "PR_SET_DUMPABLE":
            self._table.hide(observation.key)
            fields["HasConnection"] = observation.key in self._connected_lately
        evidence = Evidence(fields=told, moment=moment_of(observation, self._cells))
        return self._match(sigma_fields.SYSTEM_CALL, fields, process, evidence)

    def _process_fields(self, process: Process) -> dict[str, object]:
        parent = self._table.get(process.parent) if process.parent else None
        return sigma_fields.process_creation_fields(process, parent) | self._kinship.execution(process)

    def _controlled(self, verdict: Verdict) -> list[Finding]:
        connection = self._describe(verdict.flow.source.socket) or self._describe(verdict.flow.sink.socket)
        behaviour = self._behaviour(verdict, connection)
        relays = tuple(found for key in verdict.flow.relays if (found := self._table.get(key)))
        evidence = Evidence(
            connection=connection,
            relay_path=str(behaviour["RelayPath"]),
            relays=relays,
            confidence=verdict.confidence,
            fields=shown(behaviour),
        )
        return self._match_again(verdict.process, behaviour, evidence)

    def _looped(self, verdict: LoopVerdict) -> list[Finding]:
        process = self._table.get(verdict.process) or stranger(verdict.process)
        behaviour = loop_fields(verdict)
        holder = self._table.get(verdict.holder) if verdict.holder != verdict.process else None
        evidence = Evidence(
            connection=self._describe(verdict.socket) if verdict.socket else None,
            relays=(holder,) if holder else (),
            confidence=verdict.confidence,
            fields=shown(behaviour),
        )
        return self._match_again(process, behaviour, evidence)

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
        matched = self._matcher.match(category, fields)
        return self._concluded(matched, matched, fields, process, evidence)

    def _match_again(self, process: Process, behaviour: Fields, evidence: Evidence) -> list[Finding]:
        """Match an execution with what was concluded about it: for correlations only what is new is one more event."""
        plain = self._process_fields(process)
        before = self._matcher.match("process_creation", plain, told=False)
        fields = {**plain, **behaviour}
        matched = self._matcher.match("process_creation", fields)
        new = tuple(rule for rule in matched if rule not in before)
        return self._concluded(matched, new, fields, process, evidence)

    def _concluded(
        self, matched: Sequence[Rule], new: Sequence[Rule], fields: Fields, process: Process, evidence: Evidence
    ) -> list[Finding]:
        found = [self._admitted(rule, process, evidence) for rule in matched if rule.reports]
        admitted = [finding for finding in found if finding is not None]
        return admitted + self._correlated(self.correlator.observe(self._at, new, fields, (process, evidence)))

    def _correlated(self, fired: list[Fired]) -> list[Finding]:
        """Return the findings of correlations: about the last event, with what came before as fields."""
        findings = []
        for item in fired:
            process, evidence = item.token
            told = {"CorrelatedRules": ", ".join(item.rules), "CorrelatedCount": str(item.count), **item.group}
            evidence = msgspec.structs.replace(evidence, fields={**evidence.fields, **told})
            if (finding := self._admitted(item.rule, process, evidence)) is not None:
                findings.append(finding)
        return findings

    def _admitted(self, rule: Rule, process: Process, evidence: Evidence) -> Finding | None:
        kin = self._kinship.kin(process.key, self._trust.server) if evidence.kin is None else evidence.kin
        return self.incidents.admit(self._finding(rule, process, evidence), kin)

    def _finding(self, rule: Rule, process: Process, evidence: Evidence) -> Finding:
        level = rule.level_by_surface.get(self._surface, rule.level)
        moved = f"{level}, because this is {self._surface}; {rule.level} elsewhere" if level != rule.level else ""
        return Finding(
            uid=str(uuid.uuid4()),
            rule_id=rule.id,
            rule_name=rule.name,
            title=rule.title,
            why=rule.why or rule.description,
            severity=_SEVERITY[level],
            severity_why=moved,
            confidence=evidence.confidence or _CONFIDENCE.get(rule.confidence, Confidence.MEDIUM),
            at=self._clock(),
            process=process,
            lineage=self._table.lineage(process.key),
            origin=self._origins.of(process.key, evidence.moment),
            attacks=rule.techniques,
            connection=evidence.connection,
            relay_path=evidence.relay_path,
            relays=evidence.relays,
            false_positives=rule.false_positives,
            advice=rule.advice,
            fields=evidence.fields,
        )

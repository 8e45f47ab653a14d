"""Incidents: what belongs together is one thing with steps; what happens again is counted.

A finding joins the open incident of its lineage: its kernel, terminal or guarded command. Within it the rule and the
salient evidence make a step. A finding is told when it is news, as the incident's opening or as an update; what is no
news is counted. Informational findings are traces of ordinary work: they make incidents of their own, and join none.
"""

from __future__ import annotations

import uuid
from collections import Counter, OrderedDict, deque

import msgspec
from msgspec.structs import replace

from nbsentinel.detect.risk import Weighing
from nbsentinel.detect.salient import evidence_of, salient
from nbsentinel.events import Finding, Incident, Millis, Phase, ProcessKey, Severity, Step

QUIET_MS = 3_600_000
"""An incident is closed after an hour without a hit."""
LONGEST_MS = 24 * 3_600_000
"""One that is never quiet is closed after a day: what comes then is told as a new one."""
INCIDENT_LIMIT = 512
"""Open incidents; the one that was quiet longest is closed to make room."""
STEPS_LIMIT = 32
"""Steps that an incident lists."""
MARK_LIMIT = 4_096
"""Steps whose repeats are known, of all incidents."""
PROCESS_LIMIT = 32
"""Processes that a step, or the place of an incident, remembers."""
NEWS_LIMIT = 256
"""Findings that one step is told with. Another process is news, so without a limit a loop of processes is a flood."""
CLOSED_LIMIT = 1_024
"""Closed incidents that wait for being told."""

_Place = tuple[str, ...]
_Key = tuple[str, str]


class Kin(msgspec.Struct, frozen=True):
    """Which lineage a finding belongs to."""

    root: str = ""
    """The kernel, terminal or command; empty where nobody is known to have done it."""
    family: tuple[ProcessKey, ...] = ()
    """The process and its ancestors, as far as they share nothing with other lineages."""


class _Mark(msgspec.Struct):
    """What is remembered of a step in order to know its repeats."""

    severity: Severity
    told: int = 0
    processes: OrderedDict[ProcessKey, None] = msgspec.field(default_factory=OrderedDict)

    def remember(self, key: ProcessKey) -> None:
        self.processes[key] = None
        self.processes.move_to_end(key)
        if len(self.processes) > PROCESS_LIMIT:
            self.processes.popitem(last=False)


class _Open(msgspec.Struct):
    """An open incident."""

    uid: str
    opened_at: Millis
    last_at: Millis
    worst: Finding
    weighing: Weighing
    count: int = 0
    left_out: int = 0
    acknowledged: bool = False
    steps: dict[_Key, Step] = msgspec.field(default_factory=dict)
    places: OrderedDict[_Place, None] = msgspec.field(default_factory=OrderedDict)

    def state(self, phase: Phase, why: str) -> Incident:
        return Incident(
            uid=self.uid,
            phase=phase,
            why=why,
            opened_at=self.opened_at,
            last_at=self.last_at,
            severity=self.worst.severity,
            count=self.count,
            steps=tuple(sorted(self.steps.values(), key=lambda step: step.at)),
            left_out=self.left_out,
            risk=self.weighing.risk(),
        )


class Incidents:
    """Open incidents within a bound.

    Args:
        surface: The kind of surface, for the risk score.
    """

    def __init__(self, surface: str = "other") -> None:
        self._surface = surface
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._places: dict[_Place, _Open] = {}
        self._marks: OrderedDict[tuple[str, str, str], _Mark] = OrderedDict()
        self._closed: deque[Finding] = deque()
        self.grouped: Counter[str] = Counter()
        """Findings that were counted into a step instead of being told, by rule id."""
        self.limited: Counter[str] = Counter()
        """The same because their step had been told too often, by rule id."""
        self.left_out = self.evicted = self.untold = self.forgotten = 0

    def admit(self, finding: Finding, kin: Kin | None = None) -> Finding | None:
        """Return a finding with the incident that it is part of, or None where it was counted.

        It is a repeat when its step is known, its process or an ancestor of it is part of that step already (what a
        reverse shell starts belongs to that shell), and it is not more severe. After an acknowledgement nothing is.

        Args:
            finding: The finding.
            kin: Its lineage; None for one that nobody is known to have made.
        """
        self._close_quiet(finding.at)
        key = (finding.rule_id, salient(finding))
        incident = self._incident(finding, kin or Kin(), key)
        mark = self._marks.get((incident.uid, *key))
        family = {finding.process.key, *(ancestor.key for ancestor in finding.lineage)}
        why = self._news(finding, incident, mark, family)
        incident.count += 1
        incident.last_at = finding.at
        self._open.move_to_end(incident.uid)
        mark = self._marked(incident, key, finding.severity)
        mark.remember(finding.process.key)
        if not why:
            if step := incident.steps.get(key):
                incident.steps[key] = replace(step, count=step.count + 1, last_at=finding.at)
            return None
        mark.told += 1
        mark.severity = max(mark.severity, finding.severity)
        opened = incident.count == 1
        incident.acknowledged = False
        incident.weighing.add(finding)
        if finding.severity > incident.worst.severity:
            incident.worst = finding
        self._add_step(incident, key, finding, opened=opened)
        return replace(finding, incident=incident.state(Phase.OPENED if opened else Phase.UPDATED, why))

    def acknowledge(self, uid: str) -> bool:
        """Note that a person has seen an incident: whatever is added to it from now on is told, repeats too.

        It silences nothing and closes nothing. Returns whether there is such an open incident. Call it from the
        pipeline's thread.
        """
        known = self._open.get(uid)
        if known is not None:
            known.acknowledged = True
        return known is not None

    def closings(self, now: Millis, most: int) -> list[Finding]:
        """Return incidents that are over, as their worst findings, and forget them.

        Args:
            now: The time.
            most: How many at most; the others come with the next call, so that a flood is not followed by another.
        """
        self._close_quiet(now)
        found: list[Finding] = []
        while self._closed and len(found) < most:
            found.append(replace(self._closed.popleft(), uid=str(uuid.uuid4()), at=now))
        return found

    @property
    def counters(self) -> dict[str, int]:
        """How many are open, and what the bounds cost."""
        return {
            "open": len(self._open),
            "evicted": self.evicted,
            "steps_left_out": self.left_out,
            "closings_untold": self.untold,
            "repeats_forgotten": self.forgotten,
        }

    def __len__(self) -> int:
        return len(self._open)

    def _incident(self, finding: Finding, kin: Kin, key: _Key) -> _Open:
        """Return the incident that a finding belongs to, a new one if there is none."""
        places: list[_Place] = [("alone", kin.root, *key)]
        if kin.root and finding.severity > Severity.INFORMATIONAL:
            places = [("root", kin.root), *(_place(member) for member in kin.family)]
        known = next((found for place in places if (found := self._places.get(place))), None)
        if known is not None and finding.at - known.opened_at >= LONGEST_MS:
            self._close(known, "it was open for a day; what follows is a new incident")
            known = None
        if known is None:
            known = _Open(finding.uid, finding.at, finding.at, finding, Weighing(self._surface))
            self._open[known.uid] = known
        # Who left its session has another root, but still an ancestor that is part of this.
        for place in places[:2]:
            self._places.setdefault(place, known)
            known.places[place] = None
        while len(known.places) > PROCESS_LIMIT:
            gone = next(place for place in known.places if place not in places[:2])
            del known.places[gone]
            self._release(gone, known)
        while len(self._open) > INCIDENT_LIMIT:
            self.evicted += 1
            self._close(next(iter(self._open.values())), "given up for newer ones: too many are open")
        return known

    def _news(self, finding: Finding, incident: _Open, mark: _Mark | None, family: set[ProcessKey]) -> str:
        """Return why a finding is news, or nothing; what is none is counted."""
        if incident.count == 0:
            return "the first finding"
        if incident.acknowledged:
            return "more of it after it was acknowledged"
        if mark is None:
            return "new evidence"
        if finding.severity > mark.severity:
            return "more severe than before"
        if family & mark.processes.keys():
            self.grouped[finding.rule_id] += 1
            return ""
        if mark.told >= NEWS_LIMIT:
            self.limited[finding.rule_id] += 1
            return ""
        return "another process"

    def _marked(self, incident: _Open, key: _Key, severity: Severity) -> _Mark:
        whole = (incident.uid, *key)
        mark = self._marks.setdefault(whole, _Mark(severity))
        self._marks.move_to_end(whole)
        while len(self._marks) > MARK_LIMIT:
            (uid, *_), _ = self._marks.popitem(last=False)
            self.forgotten += uid in self._open
        return mark

    def _add_step(self, incident: _Open, key: _Key, finding: Finding, *, opened: bool) -> None:
        known = incident.steps.get(key)
        if known is not None:
            severity = max(known.severity, finding.severity)
            confidence = max(known.confidence, finding.confidence)
            incident.steps[key] = replace(
                known, count=known.count + 1, last_at=finding.at, severity=severity, confidence=confidence
            )
            return
        incident.steps[key] = Step(
            uid=finding.uid,
            opened=opened,
            rule_id=finding.rule_id,
            rule_name=finding.rule_name,
            title=finding.title,
            severity=finding.severity,
            confidence=finding.confidence,
            attacks=finding.attacks,
            at=finding.at,
            last_at=finding.at,
            count=1,
            process=finding.process,
            origin=finding.origin,
            evidence=evidence_of(finding),
        )
        if len(incident.steps) > STEPS_LIMIT:
            # How it began stays, and of the others what is worst and newest.
            _, *others = incident.steps
            others.remove(key)
            del incident.steps[min(others, key=lambda k: (incident.steps[k].severity, incident.steps[k].last_at))]
            incident.left_out += 1
            self.left_out += 1

    def _close_quiet(self, now: Millis) -> None:
        while self._open:
            oldest = next(iter(self._open.values()))
            if now - oldest.last_at < QUIET_MS:
                return
            self._close(oldest, "quiet for an hour")

    def _close(self, incident: _Open, why: str) -> None:
        del self._open[incident.uid]
        for place in incident.places:
            self._release(place, incident)
        if len(self._closed) >= CLOSED_LIMIT:
            self.untold += 1
            return
        self._closed.append(replace(incident.worst, incident=incident.state(Phase.CLOSED, why)))

    def _release(self, place: _Place, incident: _Open) -> None:
        if self._places.get(place) is incident:
            del self._places[place]


def _place(key: ProcessKey) -> _Place:
    return ("process", f"{key.pid}@{key.start}")

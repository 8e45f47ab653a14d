"""Grouping: what belongs to one incident is reported once and counted after that."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from nbsentinel.events import Finding, Millis, ProcessKey, Severity

QUIET_MS = 3_600_000
"""An incident is closed after an hour without a hit."""
INCIDENT_LIMIT = 4_096


class Incident(msgspec.Struct):
    """Findings of one rule with the same salient evidence."""

    first: Finding
    last_at: Millis
    severity: Severity
    count: int = 1
    processes: set[ProcessKey] = msgspec.field(default_factory=set)


class Incidents:
    """Open incidents within a bound. A repeat is counted; new salient evidence is always let through."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[str, str], Incident] = OrderedDict()
        self.grouped = 0
        """Findings that were counted into an incident instead of being reported."""

    def admit(self, finding: Finding) -> bool:
        """Return whether to report a finding; count it into its incident if not.

        The key is the rule and the peer, or the rule and the file where there is no peer. Within it a finding is a
        repeat when its process, or an ancestor of it, is part of the incident already: what a reverse shell starts
        belongs to that shell. A higher severity is reported again.
        """
        self._close_quiet(finding.at)
        evidence = str(finding.connection.remote) if finding.connection else finding.process.exe or ""
        key = (finding.rule_id, evidence)
        known = self._open.get(key)
        family = {finding.process.key, *(ancestor.key for ancestor in finding.lineage)}
        if known is not None and family & known.processes and finding.severity <= known.severity:
            known.count += 1
            known.last_at = finding.at
            known.processes.add(finding.process.key)
            self.grouped += 1
            self._open.move_to_end(key)
            return False
        if known is None:
            self._open[key] = Incident(finding, finding.at, finding.severity, processes={finding.process.key})
        else:
            known.processes.add(finding.process.key)
            known.severity = max(known.severity, finding.severity)
            known.last_at = finding.at
        while len(self._open) > INCIDENT_LIMIT:
            self._open.popitem(last=False)
        return True

    def _close_quiet(self, now: Millis) -> None:
        while self._open:
            key, oldest = next(iter(self._open.items()))
            if now - oldest.last_at < QUIET_MS:
                return
            del self._open[key]

    def __len__(self) -> int:
        return len(self._open)

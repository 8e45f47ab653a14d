"""Findings in the least form that incidents can be made of."""

from __future__ import annotations

import itertools

from msgspec.structs import replace

from nbsentinel.events import (
    Confidence,
    Finding,
    Millis,
    Origin,
    OriginKind,
    Process,
    ProcessKey,
    Severity,
    Technique,
)

_NUMBERS = itertools.count(100)
WHO = Process(key=ProcessKey(7, 7), parent=None, name="x", exe="/bin/x", argv=(), argv_length=0)


def finding(
    process: Process = WHO,
    *,
    rule: str = "r",
    severity: Severity = Severity.MEDIUM,
    at: int = 1_000,
    lineage: tuple[Process, ...] = (),
    tactic: str = "",
    **fields: str,
) -> Finding:
    """Return a finding of a rule with some evidence."""
    return Finding(
        uid=str(next(_NUMBERS)),
        rule_id=rule,
        rule_name=rule,
        title=rule,
        why="w",
        severity=severity,
        confidence=Confidence.MEDIUM,
        at=Millis(at),
        process=process,
        lineage=lineage,
        origin=Origin(kind=OriginKind.OTHER, source="unknown: test"),
        attacks=(Technique("T1", "t", tactic, tactic),) if tactic else (),
        fields=fields,
    )


def process(pid: int, exe: str = "/bin/x") -> Process:
    """Return a process of a given number."""
    return replace(WHO, key=ProcessKey(pid, pid), exe=exe)

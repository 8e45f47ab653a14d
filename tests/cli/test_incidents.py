"""Incidents on a terminal: what belongs together is drawn once, with its steps in time order."""

from __future__ import annotations

import io
from typing import Any

from msgspec.structs import replace
from rich.console import Console, RenderableType

from nbsentinel.cli import incidents, status
from nbsentinel.cli.findings import render
from nbsentinel.detect.incidents import QUIET_MS, Incidents, Kin
from nbsentinel.events import Millis, Severity
from nbsentinel.report import incidents as reported
from nbsentinel.report import ocsf
from support.findings import finding, process

REPORTER = ocsf.Reporter(agent_uid="a", version="0", surface={})
NAMES = ("Downloaded", "Shell [red]", "Credential read", "Uploaded")
SEVERITIES = (Severity.LOW, Severity.HIGH, Severity.MEDIUM, Severity.MEDIUM)


def attack(known: Incidents, root: str = "1@1") -> list[dict[str, Any]]:
    """Return the events of an attack with four steps, the second one the worst and seen twice."""
    values = [
        replace(finding(process(10 + n, f"/bin/{n}"), rule=name, severity=SEVERITIES[n], at=60_000 * n), why=f"why {n}")
        for n, name in enumerate(NAMES)
    ]
    values.insert(2, replace(values[1], at=Millis(61_000)))
    admitted = [known.admit(value, Kin(root)) for value in values]
    return [ocsf.finding(value, REPORTER) for value in admitted if value is not None]


def drawn(what: RenderableType) -> str:
    """Return what a wide terminal shows."""
    console = Console(file=io.StringIO(), width=160)
    console.print(what)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_an_incident_is_drawn_once_with_its_steps_in_order() -> None:
    """Four events are one panel about the worst step, with all steps in time order and how often each was."""
    known = Incidents()
    first, second = attack(known), attack(known, "2@2")
    mixed = [event for pair in zip(first, second, strict=True) for event in pair]
    groups = reported.by_incident(mixed)
    assert [[e["metadata"]["uid"] for e in group] for group in groups] == [
        [e["metadata"]["uid"] for e in events] for events in (first, second)
    ]
    shown = drawn(render(reported.shown(groups[0])))
    assert shown.count("HIGH") == 1
    assert "why 1" in shown
    assert "high, risk" in shown
    assert "4 steps, 5 hits" in shown
    table = shown[shown.index("Steps") :]
    assert sorted(NAMES, key=table.index) == list(NAMES)
    assert "(2 times, last" in table


def test_one_step_needs_no_table() -> None:
    """A finding that stands alone is shown as one."""
    (event, *_) = attack(Incidents())
    assert incidents.steps(event) is None
    assert "Steps" not in drawn(render(event))


def test_a_closed_incident_says_so() -> None:
    """Its end is part of the same panel, with the final count and why it is over."""
    known = Incidents()
    events = attack(known)
    (closed,) = known.closings(Millis(180_000 + QUIET_MS), 10)
    (group,) = reported.by_incident([*events, ocsf.finding(closed, REPORTER)])
    assert "4 steps, 5 hits, closed: quiet for an hour" in drawn(render(reported.shown(group)))


def test_findings_of_an_older_agent_are_shown() -> None:
    """Events that know of no incidents, as an older spool holds them, are drawn as before."""
    event = ocsf.finding(finding(), REPORTER)
    assert "unmapped" not in event
    (group,) = reported.by_incident([event])
    assert "MEDIUM" in drawn(render(reported.shown(group)))


def test_status_shows_what_was_held_back() -> None:
    """Rules of which something was not told by itself are listed with how much and why."""
    rows = [{"rule": "often", "suppressed": 3, "grouped": 41}, {"rule": "seldom", "limited": 7}]
    found = {
        "state": "ready",
        "pid": 1,
        "version": "0",
        "rules": 2,
        "usage": {"resident_bytes": 1, "cpu_millicores": 1},
        "chain": {"uid": "c", "sequence": 1},
        "counters": {"processes": 1, "findings": 1, "grouped": 41},
        "incidents": {"open": 2},
        "drops": {},
        "coverage": [],
        "held_back": {"totals": {}, "rules": rows, "rule_count": 5},
    }
    shown = drawn(status.render(found))
    assert "2 open" in shown
    assert "and 3 rules more" in shown
    (often,) = (line.split() for line in shown.splitlines() if line.split()[:1] == ["often"])
    assert often == ["often", "3", "41"]

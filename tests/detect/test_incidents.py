"""Incidents: what is a repeat, what is news, what belongs together, and when it is over."""

from __future__ import annotations

import pytest

from nbsentinel.detect import incidents as module
from nbsentinel.detect.incidents import Incidents, Kin
from nbsentinel.events import Finding, Incident, Millis, Phase, ProcessKey, Severity
from support.findings import WHO, finding, process

KERNEL, OTHER = Kin("1@1", (WHO.key,)), Kin("2@2", (ProcessKey(9, 9),))


def told(found: Finding | None) -> Incident:
    """Return the incident of a finding that must have been told."""
    assert found is not None
    assert found.incident is not None
    return found.incident


@pytest.mark.parametrize(
    ("first", "repeat", "news"),
    [
        (
            {"CredentialKind": "key", "FileOperation": "read", "TargetFilename": "/a.pem"},
            {"CredentialKind": "key", "FileOperation": "read", "TargetFilename": "/b.pem"},
            {"CredentialKind": "aws", "FileOperation": "read", "TargetFilename": "/a.pem"},
        ),
        (
            {"CredentialKind": "persistence-shell", "FileOperation": "write", "TargetFilename": "/h/.bashrc"},
            {"CredentialKind": "persistence-shell", "FileOperation": "write", "TargetFilename": "/h/.bashrc"},
            {"CredentialKind": "persistence-shell", "FileOperation": "write", "TargetFilename": "/h/.profile"},
        ),
        (
            {"CredentialKind": "history", "FileOperation": "delete", "TargetFilename": "/h/x", "CandidateRoot": "7@1"},
            {"CredentialKind": "history", "FileOperation": "delete", "TargetFilename": "/h/x", "CandidateRoot": "7@1"},
            {"CredentialKind": "history", "FileOperation": "delete", "TargetFilename": "/h/x", "CandidateRoot": "8@1"},
        ),
        (
            {"Service": "iam", "Operation": "CreateUser"},
            {"Service": "iam", "Operation": "CreateUser", "ResourceUserName": "b"},
            {"Service": "iam", "Operation": "CreateAccessKey"},
        ),
        (
            {"AuditEvent": "open", "AuditPath": "/proc/1/mem"},
            {"AuditEvent": "open", "AuditPath": "/proc/1/mem"},
            {"AuditEvent": "open", "AuditPath": "/proc/2/mem"},
        ),
        (
            {"Decoys": "1", "Candidates": "1", "CandidateRoot": "7@1"},
            {"Decoys": "1", "Candidates": "3", "CandidateRoot": "7@1"},
            {"Decoys": "1", "Candidates": "1", "CandidateRoot": "8@1"},
        ),
    ],
)
@pytest.mark.parametrize("kin", [KERNEL, Kin()])
def test_new_evidence_of_one_process_is_news(
    first: dict[str, str], repeat: dict[str, str], news: dict[str, str], kin: Kin
) -> None:
    """A first harmless hit hides neither another kind, another file that is changed nor another API."""
    incidents = Incidents()
    found = [incidents.admit(finding(**fields), kin) for fields in (first, repeat, news)]
    assert [one is not None for one in found] == [True, False, True]
    assert incidents.grouped == {"r": 1}


def test_an_attack_is_one_incident_with_its_steps_in_order() -> None:
    """Download, shell, credential and upload of one kernel share a uid; each is told as itself, with all before it."""
    incidents = Incidents()
    names = ("download", "shell", "credential", "upload")
    severities = (Severity.LOW, Severity.HIGH, Severity.MEDIUM, Severity.MEDIUM)
    found = [
        incidents.admit(finding(process(10 + n), rule=name, severity=severities[n], at=1_000 * n, tactic=name), KERNEL)
        for n, name in enumerate(names)
    ]
    assert len({told(one).uid for one in found}) == 1
    assert [told(one).phase for one in found] == [Phase.OPENED, *[Phase.UPDATED] * 3]
    assert [one.rule_id for one in found if one] == list(names)
    assert [one.severity for one in found if one] == list(severities)
    last = told(found[-1])
    assert [(step.rule_name, step.at, step.process.key.pid) for step in last.steps] == [
        (name, 1_000 * n, 10 + n) for n, name in enumerate(names)
    ]
    assert [step.uid for step in last.steps] == [one.uid for one in found if one]
    assert [step.opened for step in last.steps] == [True, False, False, False]
    assert (last.severity, last.count) == (Severity.HIGH, 4)
    scores = [told(one).risk.score for one in found]
    assert scores == sorted(scores)
    assert scores[0] < scores[1] < scores[-1]


def test_two_kernels_are_two_incidents() -> None:
    """What different kernels do at the same time is not joined, though rule and evidence are the same."""
    incidents = Incidents()
    found = [incidents.admit(finding(process(n)), kin) for n, kin in ((7, KERNEL), (9, OTHER))]
    assert told(found[0]).uid != told(found[1]).uid
    assert [told(one).phase for one in found] == [Phase.OPENED] * 2


def test_who_leaves_its_session_stays_in_the_incident() -> None:
    """A child with another root joins by an ancestor that is part of the incident."""
    incidents = Incidents()
    first = incidents.admit(finding(), KERNEL)
    child = incidents.admit(finding(process(50), rule="other"), Kin("50@50", (ProcessKey(50, 50), WHO.key)))
    grandchild = incidents.admit(finding(process(51), rule="third"), Kin("50@50", (ProcessKey(51, 51),)))
    assert told(first).uid == told(child).uid == told(grandchild).uid


def test_traces_of_ordinary_work_join_nothing() -> None:
    """An informational finding neither opens nor lengthens the incident of a lineage."""
    incidents = Incidents()
    trace = incidents.admit(finding(rule="trace", severity=Severity.INFORMATIONAL), KERNEL)
    attack = incidents.admit(finding(), KERNEL)
    again = incidents.admit(finding(process(8), rule="trace", severity=Severity.INFORMATIONAL), KERNEL)
    assert told(attack).phase is Phase.OPENED
    assert told(trace).uid == told(again).uid != told(attack).uid


def test_what_is_more_severe_or_of_another_process_is_told() -> None:
    """A repeat by a child is counted; a higher severity and an unrelated process are updates of the same step."""
    incidents = Incidents()
    found = [
        incidents.admit(finding(), KERNEL),
        incidents.admit(finding(process(8), lineage=(WHO,)), KERNEL),
        incidents.admit(finding(severity=Severity.HIGH), KERNEL),
        incidents.admit(finding(process(9)), KERNEL),
    ]
    assert [one.incident.why if one and one.incident else None for one in found] == [
        "the first finding",
        None,
        "more severe than before",
        "another process",
    ]
    (step,) = told(found[-1]).steps
    assert (step.count, step.severity, told(found[-1]).count) == (4, Severity.HIGH, 4)


def test_any_hit_after_an_acknowledgement_is_told_once() -> None:
    """Acknowledging silences nothing: the next repeat goes out, and only that one."""
    incidents = Incidents()
    first = told(incidents.admit(finding(), KERNEL))
    assert incidents.admit(finding(), KERNEL) is None
    assert incidents.acknowledge(first.uid)
    again = incidents.admit(finding(), KERNEL)
    assert (told(again).uid, told(again).phase, told(again).count) == (first.uid, Phase.UPDATED, 3)
    assert incidents.admit(finding(), KERNEL) is None
    assert not incidents.acknowledge("unknown")


def test_quiet_closes_with_the_final_count() -> None:
    """After an hour without a hit the worst finding goes out as closed, once; what comes later is a new incident."""
    incidents = Incidents()
    first = told(incidents.admit(finding(), KERNEL))
    worst = incidents.admit(finding(rule="worst", severity=Severity.HIGH, at=2_000), KERNEL)
    assert incidents.admit(finding(at=5_000), KERNEL) is None
    assert incidents.closings(Millis(5_000 + module.QUIET_MS - 1), 10) == []
    (closed,) = incidents.closings(Millis(5_000 + module.QUIET_MS), 10)
    assert incidents.closings(Millis(5_000 + module.QUIET_MS), 10) == []
    state = told(closed)
    assert (state.uid, state.phase, state.count, state.last_at) == (first.uid, Phase.CLOSED, 3, 5_000)
    assert [step.count for step in state.steps] == [2, 1]
    assert worst is not None
    assert (closed.rule_id, closed.severity, closed.at) == ("worst", Severity.HIGH, 5_000 + module.QUIET_MS)
    assert closed.uid not in (first.uid, worst.uid)
    later = incidents.admit(finding(at=9_000 + module.QUIET_MS), KERNEL)
    assert (told(later).phase, told(later).uid != first.uid) == (Phase.OPENED, True)


def test_one_that_is_never_quiet_is_closed_after_a_day() -> None:
    """A habit that goes on all day does not swallow the next day's attack."""
    incidents = Incidents()
    uids = set()
    for at in range(0, module.LONGEST_MS + 1, module.QUIET_MS // 2):
        if (found := incidents.admit(finding(at=at), KERNEL)) is not None:
            uids.add(told(found).uid)
    assert len(uids) == 2
    (closed,) = incidents.closings(Millis(module.LONGEST_MS + 1), 10)
    assert told(closed).count == 48


def test_steps_are_bounded_and_what_is_left_out_is_counted() -> None:
    """Every step is told, however many; the list keeps the first, the worst and the newest."""
    incidents = Incidents()
    total = 3 * module.STEPS_LIMIT
    severities = {5: Severity.CRITICAL}
    found = [
        incidents.admit(finding(rule=f"r{n}", severity=severities.get(n, Severity.LOW), at=n), KERNEL)
        for n in range(total)
    ]
    last = told(found[-1])
    names = [step.rule_name for step in last.steps]
    assert None not in found
    assert (len(names), last.left_out) == (module.STEPS_LIMIT, total - module.STEPS_LIMIT)
    assert {"r0", "r5", f"r{total - 1}"} <= set(names)
    assert names == sorted(names, key=lambda name: int(name[1:]))
    assert incidents.counters["steps_left_out"] == total - module.STEPS_LIMIT


def test_a_loop_of_processes_is_limited_and_counted() -> None:
    """Another process is news only so often; what is beyond is counted by rule, and another rule still gets through."""
    incidents = Incidents()
    found = [incidents.admit(finding(process(n + 100)), KERNEL) for n in range(module.NEWS_LIMIT + 50)]
    assert sum(one is not None for one in found) == module.NEWS_LIMIT
    assert incidents.limited == {"r": 50}
    assert told(incidents.admit(finding(rule="other"), KERNEL)).count == module.NEWS_LIMIT + 51


def test_a_flood_of_lineages_is_bounded_and_closed_bit_by_bit() -> None:
    """Too many open incidents: the oldest are closed and told so, a few at a time; what cannot wait is counted."""
    incidents = Incidents()
    total = module.INCIDENT_LIMIT + module.CLOSED_LIMIT + 30
    for n in range(total):
        assert incidents.admit(finding(process(n), at=n), Kin(f"{n}@{n}", (ProcessKey(n, n),))) is not None
    assert len(incidents) == module.INCIDENT_LIMIT
    assert len(incidents.closings(Millis(total), 20)) == 20
    found = incidents.closings(Millis(total), 10_000)
    assert len(found) == module.CLOSED_LIMIT - 20
    assert {told(one).why for one in found} == {"given up for newer ones: too many are open"}
    assert incidents.counters["evicted"] == module.CLOSED_LIMIT + 30
    assert incidents.counters["closings_untold"] == 30


def test_memory_is_bounded_in_one_incident() -> None:
    """However many processes and kinds of evidence one lineage has, what is remembered stays within its bounds."""
    incidents = Incidents()
    for n in range(module.MARK_LIMIT + 100):
        key = ProcessKey(n, n)
        incidents.admit(finding(process(n), Target=str(n)), Kin("1@1", (key,)))
    assert len(incidents._marks) == module.MARK_LIMIT
    assert incidents.counters["repeats_forgotten"] == 100
    assert len(incidents._places) <= module.PROCESS_LIMIT
    assert told(incidents.admit(finding(process(1), Target="new"), Kin("1@1"))).count == module.MARK_LIMIT + 101

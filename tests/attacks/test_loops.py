"""Real loops of received and executed commands, under the guard, before one real agent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

import pytest

from attacks.loops import ALL, Loop
from live.account import Account
from live.agent import LiveAgent
from live.campaign import chosen, outcome_of, run_all
from live.orders import hand_out
from live.programs import prepare, turn
from live.shells import Outcome, Speech, control

LAST_REPORT_S = 5.0
"""Time from the end of a case in which a finding about it may still come."""

Outcomes = Mapping[str, Future[Outcome]]
each_case = pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, account: Account, folder: Path, agent: LiveAgent) -> Outcomes:
    """All chosen cases, over. A loop is told by the order of moments, which a busy machine blurs: it has two tries."""

    def session(case: Loop, place: Path) -> Outcome:
        command = agent.guarded(prepare(account, place, case.language, case.text))
        with turn(case.language):
            if case.polls:
                return hand_out(account, place, command)
            return control(account, place, command, case.transport, Speech.SH)

    def run(case: Loop) -> Outcome:
        first = session(case, folder / case.name)
        if first.proved and agent.wait_finding(first.pids, case.severity, LAST_REPORT_S) is not None:
            return first
        return session(case, folder / f"{case.name}-2")

    found = run_all(chosen(request, ALL), run)
    assert agent.running, agent.log()
    return found


@each_case
def test_loop_is_real(case: Loop, outcomes: Outcomes) -> None:
    """The operator's commands are carried out and answered: no case is for show."""
    outcome = outcome_of(case, outcomes)
    assert outcome.proved, outcome.said


@each_case
def test_loop_is_reported(case: Loop, outcomes: Outcomes, agent: LiveAgent) -> None:
    """A program that carries out what a remote peer sends is a finding about a process of its own."""
    outcome = outcome_of(case, outcomes)
    finding = agent.wait_finding(outcome.pids, case.severity, outcome.ended + LAST_REPORT_S - time.time(), "T1059")
    about = [finding for finding in agent.findings() if finding.line_pids & outcome.pids]
    assert finding is not None, f"no finding about {sorted(outcome.pids)}; near it: {about}\n{outcome.said}"

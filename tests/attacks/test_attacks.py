"""Real shells for a remote operator, many at a time, before one real agent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

import pytest

from attacks.cases import ALL, Case
from live.account import Account
from live.agent import LiveAgent
from live.campaign import chosen, outcome_of, run_all
from live.programs import prepare, turn
from live.shells import Outcome, control

HIGH = 4
"""OCSF severity_id."""
LAST_REPORT_S = 5.0
"""Time from the end of a case in which a finding about it may still come."""

Outcomes = Mapping[str, Future[Outcome]]
each_case = pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, account: Account, folder: Path, agent: LiveAgent) -> Outcomes:
    """All chosen cases, over."""

    def run(case: Case) -> Outcome:
        command = prepare(account, folder / case.name, case.language, case.text, case.flags)
        with turn(case.language):
            return control(account, folder / case.name, command, case.transport, case.speech)

    found = run_all(chosen(request, ALL), run)
    assert agent.running, agent.log()
    return found


@each_case
def test_case_is_real(case: Case, outcomes: Outcomes) -> None:
    """The operator's command is carried out, and the shell stays: no case is for show."""
    outcome = outcome_of(case, outcomes)
    assert outcome.proved, outcome.said


@each_case
def test_shell_is_reported(case: Case, outcomes: Outcomes, agent: LiveAgent) -> None:
    """A shell for a remote peer is a finding of high severity about a process of its own, as command execution."""
    outcome = outcome_of(case, outcomes)
    finding = agent.wait_finding(outcome.pids, HIGH, outcome.ended + LAST_REPORT_S - time.time(), "T1059")
    about = [finding for finding in agent.findings() if finding.line_pids & outcome.pids]
    assert finding is not None, f"no finding about {sorted(outcome.pids)}; near it: {about}\n{outcome.said}"

"""Metadata services, pools and distant hosts, in a network namespace that has their addresses, as has the agent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path

import pytest

from attacks.apart import apart, refused
from attacks.cases.acts.addresses import ADDRESSES, CASES
from attacks.cases.acts.base import Act
from attacks.stage import Stage, about, stage
from live.account import Account
from live.campaign import chosen, outcome_of, run_all
from live.work import Done

Outcomes = Mapping[str, Future[Done]]
each_act = pytest.mark.parametrize("case", CASES, ids=lambda act: act.name)


@pytest.fixture(scope="module")
def place(account: Account, folder: Path) -> Iterator[Stage]:
    """The agent of this module, in the namespace."""
    if reason := refused(account):
        pytest.skip(f"no network namespace: {reason}")
    with apart(account, ADDRESSES) as there, stage(there, folder, CASES) as made:
        yield made


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, place: Stage) -> Outcomes:
    """All chosen acts, over."""
    found = run_all(chosen(request, CASES), place.play)
    assert place.agent.running, place.agent.log()
    return found


@each_act
def test_act_is_real(case: Act, outcomes: Outcomes) -> None:
    """The service has answered, so no case is for show."""
    outcome = outcome_of(case, outcomes)
    assert outcome.done, outcome.said


@each_act
def test_act_is_reported(case: Act, outcomes: Outcomes, place: Stage) -> None:
    """It is a finding about a process of its own, with the technique that the rule names."""
    outcome = outcome_of(case, outcomes)
    finding = place.finding(case, outcome)
    near = [found for found in place.agent.findings() if about(found) & outcome.pids]
    assert finding is not None, f"no finding about {sorted(outcome.pids)}; near it: {near}\n{outcome.said}"

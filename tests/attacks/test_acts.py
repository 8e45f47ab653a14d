"""What attackers do beside shells, each for real and under the guard, before one real agent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path

import pytest

from attacks.cases.acts import ACTS, ALL, Act
from attacks.stage import Stage, about, stage
from live.account import Account
from live.campaign import chosen, outcome_of, run_all
from live.work import Done
from nbsentinel.detect.rules.pack import default_pack

APART_S = 0.4
"""Time between two acts of which nothing but the moment tells who did them."""
SECOND_TRIES = 0.1
"""The share of the acts that may need a second try."""

Outcomes = Mapping[str, Future[Done]]
each_act = pytest.mark.parametrize("case", ALL, ids=lambda act: act.name)
each_act_or_why = pytest.mark.parametrize(
    "case",
    [
        pytest.param(act, id=act.name, marks=[pytest.mark.xfail(reason=act.unseen, strict=True)] if act.unseen else [])
        for act in ALL
    ],
)


@pytest.fixture(scope="module")
def place(account: Account, folder: Path) -> Iterator[Stage]:
    """The one agent of this module, and what is around it."""
    with stage(account, folder, ALL) as made:
        yield made


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, place: Stage) -> Outcomes:
    """All chosen acts, over. On a busy machine the reader of a file may go unnamed, and an image unseen: two tries."""
    found: dict[str, Future[Done]] = {}
    for group in ACTS:
        acts = chosen(request, group)
        found |= run_all([act for act in acts if not act.alone], place.play)
        for act in acts:
            if act.alone:
                found |= run_all([act], place.play)
                time.sleep(APART_S)
    missed = [
        act
        for act in chosen(request, ALL)
        if not (act.unseen or found[act.name].exception()) and place.finding(act, found[act.name].result()) is None
    ]
    print(f"not reported at first: {', '.join(act.name for act in missed) or 'none'}")
    assert len(missed) <= max(1, SECOND_TRIES * len(found))
    for act in missed:
        found |= run_all([act], lambda act: place.play(act, "-again"))
        time.sleep(APART_S)
    assert place.agent.running, place.agent.log()
    return found


@each_act
def test_act_is_real(case: Act, outcomes: Outcomes, place: Stage) -> None:
    """The act takes place: its output and the other end show it, so no case is for show."""
    outcome = outcome_of(case, outcomes)
    assert outcome.done, outcome.said
    assert place.peer.heard.wait(case.heard)


@each_act_or_why
def test_act_is_reported(case: Act, outcomes: Outcomes, place: Stage) -> None:
    """It is a finding about a process of its own, with the technique that the rule names."""
    outcome = outcome_of(case, outcomes)
    finding = place.finding(case, outcome)
    near = [found for found in place.agent.findings() if about(found) & outcome.pids]
    assert finding is not None, f"no finding about {sorted(outcome.pids)}; near it: {near}\n{outcome.said}"


def test_acts_name_rules() -> None:
    """Each act names a rule of the catalogue and one of its techniques; most rows of the catalogue have one."""
    rules = {rule.name: {technique.uid for technique in rule.techniques} for rule in default_pack().rules}
    assert [act.name for act in ALL if not any(uid.startswith(act.technique) for uid in rules[act.rule])] == []
    assert len({act.rule for act in ALL}) >= 25
    assert len({act.name for act in ALL}) == len(ALL)

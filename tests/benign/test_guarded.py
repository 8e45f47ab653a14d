"""Ordinary work under the guard, where every command and every connection of it is seen, and must be let be."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path

import msgspec
import pytest

from benign.cases import GUARDED, Case
from live.account import Account
from live.agent import LiveAgent, Reported, live_agent
from live.campaign import chosen, lacking, run_all
from live.programs import prepare, turn
from live.web import web_server
from live.work import Done, work

MEDIUM = 3
"""OCSF severity_id."""
SETTLE_S = 3.0
"""Time in which an agent that was to say something would have said it."""

each_case = pytest.mark.parametrize("case", GUARDED, ids=lambda case: case.name)


class Session(msgspec.Struct, frozen=True):
    """What happened in this module."""

    cases: Mapping[str, Future[Done]]
    findings: list[Reported]
    """Reported until then, at least of medium severity."""


@pytest.fixture(scope="module")
def agent(account: Account, folder: Path) -> Iterator[LiveAgent]:
    """The one agent of this module."""
    with live_agent(account, folder / "agent") as running:
        yield running


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest, account: Account, folder: Path, agent: LiveAgent) -> Session:
    """All chosen cases, over."""
    with web_server() as web:

        def run(case: Case) -> Done:
            command = agent.guarded(prepare(account, folder / case.name, case.language, case.text))
            with turn(case.language):
                return work(account, folder / case.name, command, {"WEB": web}, case.expects)

        cases = run_all(chosen(request, GUARDED), run)
    time.sleep(SETTLE_S)
    return Session(cases, [finding for finding in agent.findings() if finding.severity >= MEDIUM])


def done_of(case: Case, session: Session) -> Done:
    """Return what became of a case; skip the test where this machine lacks a program."""
    if (reason := lacking(case)) is not None:
        pytest.skip(reason)
    return session.cases[case.name].result()


@each_case
def test_case_is_real(case: Case, session: Session) -> None:
    """The program does its work to the end under the guard."""
    done = done_of(case, session)
    assert done.done, done.said


@each_case
def test_look_alike_is_not_reported(case: Case, session: Session) -> None:
    """No finding from medium severity on names a process of ordinary work."""
    done = done_of(case, session)
    assert [finding for finding in session.findings if finding.line_pids & done.pids] == []

"""Ordinary work under the guard, where every command and every connection of it is seen, and must be let be."""

from __future__ import annotations

from pathlib import Path

import pytest

from benign.cases import GUARDED, Case
from benign.session import Session, hold
from live.account import Account
from live.agent import LiveAgent
from live.programs import prepare, turn
from live.web import web_server
from live.work import Done, work

each_case = pytest.mark.parametrize("case", GUARDED, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest, account: Account, folder: Path, agent: LiveAgent) -> Session:
    """All chosen cases, over."""
    with web_server() as web:

        def run(case: Case) -> Done:
            command = agent.guarded(prepare(account, folder / case.name, case.language, case.text))
            with turn(case.language):
                return work(account, folder / case.name, command, {"WEB": web}, case.expects)

        return hold(request, agent, GUARDED, run)


@each_case
def test_case_is_real(case: Case, session: Session) -> None:
    """The program does its work to the end under the guard."""
    done = session.of(case)
    assert done.done, done.said


@each_case
def test_look_alike_is_not_reported(case: Case, session: Session) -> None:
    """No finding from medium severity on names a process of ordinary work."""
    done = session.of(case)
    assert [finding for finding in session.findings if finding.line_pids & done.pids] == []

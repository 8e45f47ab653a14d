"""Ordinary work before one agent: what became of each case, and what the agent said until then."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future

import msgspec
import pytest

from benign.cases import Case
from live.agent import LiveAgent, Reported
from live.campaign import chosen, outcome_of, run_all
from live.work import Done

MEDIUM = 3
"""OCSF severity_id."""
SETTLE_S = 3.0
"""Time in which an agent that was to say something would have said it."""


class Session(msgspec.Struct, frozen=True):
    """What happened in a module."""

    cases: Mapping[str, Future[Done]]
    findings: list[Reported]
    """Reported until then, at least of medium severity."""

    def of(self, case: Case) -> Done:
        """Return what became of a case; skip the test where this machine lacks a program."""
        return outcome_of(case, self.cases)


def hold(
    request: pytest.FixtureRequest, agent: LiveAgent, cases: tuple[Case, ...], run: Callable[[Case], Done]
) -> Session:
    """Run the cases whose tests were selected, wait until the agent has said what it has to say, and return it all."""
    done = run_all(chosen(request, cases), run)
    time.sleep(SETTLE_S)
    return Session(done, [finding for finding in agent.findings() if finding.severity >= MEDIUM])

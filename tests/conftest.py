"""Fixtures that the suites with real processes share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from live.account import Account, unprivileged
from live.agent import LiveAgent, live_agent
from live.campaign import workspace

# How fast examples are made is the machine's matter, not the code's.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="module")
def account() -> Account:
    """Whom agent and cases run as."""
    return unprivileged()


@pytest.fixture(scope="module")
def folder(account: Account) -> Iterator[Path]:
    """A throwaway folder."""
    with workspace(account) as path:
        yield path


@pytest.fixture(scope="module")
def agent(account: Account, folder: Path) -> Iterator[LiveAgent]:
    """The one agent of a module, where that does not make its own."""
    with live_agent(account, folder / "agent") as running:
        yield running

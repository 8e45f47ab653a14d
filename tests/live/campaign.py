"""Run many cases at a time against one agent, and hand each test the outcome of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from live.account import Account, missing

WORKERS = 8
"""Cases that run at once: most of a case's time is waiting."""


class Named(Protocol):
    """What every case has."""

    @property
    def name(self) -> str:
        """Its name, unique in its suite."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Programs without which it cannot run."""


C = TypeVar("C", bound=Named)
R = TypeVar("R")


@contextmanager
def workspace(account: Account) -> Iterator[Path]:
    """Yield a throwaway folder that the account can reach; short, because names of unix sockets go into it."""
    with tempfile.TemporaryDirectory(prefix="nbs-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        account.own(Path(name))
        yield Path(name)


def chosen(request: pytest.FixtureRequest, cases: Iterable[C]) -> list[C]:
    """Return the cases whose tests were selected, without those that cannot run here."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function) and hasattr(item, "callspec")]
    mine = [item.callspec.params.get("case") for item in items if item.module is request.module]
    return [case for case in cases if case in mine and lacking(case) is None]


def lacking(case: Named) -> str | None:
    """Return why a case cannot run on this machine, or None."""
    reasons = [reason for need in case.needs if (reason := missing(need))]
    return "; ".join(reasons) or None


def run_all(cases: list[C], run: Callable[[C], R]) -> dict[str, Future[R]]:
    """Run the cases in threads and return what became of each by name: its outcome, or the error."""
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="case") as pool:
        return {case.name: pool.submit(run, case) for case in cases}


def outcome_of(case: Named, outcomes: Mapping[str, Future[R]]) -> R:
    """Return what became of a case; skip the test where this machine lacks a program."""
    if (reason := lacking(case)) is not None:
        pytest.skip(reason)
    return outcomes[case.name].result()

"""A home with fake credentials that an agent watches."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from live.account import Account
from live.agent import LiveAgent

_READY_S = 30.0


def furnish(account: Account, agent: LiveAgent, home: Path, contents: Mapping[str, str]) -> None:
    """Put files into the home, and wait until the agent holds a lease on each.

    Args:
        account: Whom they belong to.
        agent: Watches them.
        home: Of the agent.
        contents: By path in the home; credentials alone.
    """
    for name, content in contents.items():
        path = home / name
        for parent in reversed([p for p in path.parents if home in p.parents]):
            if not parent.exists():
                parent.mkdir()
                account.own(parent)
        path.write_text(content)
        account.own(path)
    deadline = time.monotonic() + _READY_S
    while _leases(agent) < len(contents):
        assert time.monotonic() < deadline, agent.status()["coverage"]
        time.sleep(0.2)


def _leases(agent: LiveAgent) -> int:
    row = next(row for row in agent.status()["coverage"] if row["sensor"] == "files")
    words = row["detail"].split()
    place = next((place for place, word in enumerate(words) if word.startswith("lease")), 0)
    return int(words[place - 1]) if place and words[place - 1].isdigit() else 0

"""A home with fake credentials, an agent that watches it, and everything that acts need around them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attacks.cases.acts import Act
from attacks.peer import Peer, peer, victim
from kernel import aws
from live.account import Account
from live.agent import LiveAgent, Reported, live_agent
from live.home import furnish
from live.programs import prepare
from live.work import Done, work

_MORE = '[report]\nlevel = "all"\n'
LAST_REPORT_S = 5.0
"""Time from the end of an act in which a finding about it may still come."""
_SHARED = {name: f"fake-{name}-shared" for name in (".npmrc", ".netrc", ".pgpass", ".my.cnf")}


def about(found: Reported) -> frozenset[int]:
    """Return the processes that a finding names, with their parents: where nobody is known, of the likeliest."""
    root = found.fields.get("CandidateRoot", "").partition("@")[0]
    return found.line_pids | ({int(root)} if root.isdigit() else frozenset())


class Stage:
    """Where acts are played."""

    def __init__(self, account: Account, folder: Path, agent: LiveAgent, there: Peer, more: dict[str, str]) -> None:
        self._account, self._folder, self._more = account, folder, more
        self.agent, self.peer, self.home = agent, there, folder / "agent"

    def furnish(self, acts: Iterable[Act]) -> None:
        """Put the credentials into the home, and wait until the agent holds leases on them."""
        contents = _SHARED | {act.path: act.content for act in acts if act.secret}
        furnish(self._account, self.agent, self.home, contents)

    def environment(self, act: Act) -> dict[str, str]:
        """Return the variables that an act finds."""
        secret = {"SECRET": str(self.home / act.path)} if act.secret else {}
        own = {"HOME": str(self.home), "PYTHON": self._account.python}
        return {**self.peer.environment(), **self._more, **secret, **own}

    def finding(self, act: Act, done: Done) -> Reported | None:
        """Wait for a finding about a process of an act's tree: many live too short for the cage to note them."""
        while True:
            for found in self.agent.findings():
                fits = any(one.startswith(act.technique) for one in found.techniques)
                if about(found) & done.pids and found.severity >= act.severity and fits:
                    return found
            if time.time() > done.ended + LAST_REPORT_S:
                return None
            time.sleep(0.1)

    def play(self, act: Act, turn: str = "") -> Done:
        """Run an act under the guard to its end; in a turn of its own after the first."""
        place = self._folder / f"{act.name}{turn}"
        command = prepare(self._account, place, act.language, act.text, act.flags)
        return work(self._account, place, self.agent.guarded(command), self.environment(act), act.proof)


@contextmanager
def stage(account: Account, folder: Path, acts: Iterable[Act]) -> Iterator[Stage]:
    """Set everything up for the time of a module."""
    tools = folder / "tools"
    tools.mkdir()
    shutil.copy(Path(__file__).with_name("aws"), tools / "aws")
    with (
        peer() as there,
        live_agent(account, folder / "agent", _MORE) as agent,
        victim(account, folder, agent) as somebody,
    ):
        more = {
            **somebody,
            **aws.environment(there.web),
            "AWS": str(tools / "aws"),
            "AGENT": str(agent.status()["pid"]),
        }
        made = Stage(account, folder, agent, there, more)
        made.furnish(acts)
        yield made

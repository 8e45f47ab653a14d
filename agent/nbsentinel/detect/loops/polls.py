"""Commands that are asked for with a new connection each time: connect, execute, connect, and so on.

Such a connection is gone before it can be looked at, so only the order of calls counts: one connection right before a
command and one right after it, to the same endpoint, again and again, and no command of its kind that is not so framed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from nbsentinel.events import Endpoint, Millis, ProcessKey

ASK_MS = 500
"""Longest time from a connection to the command that it brought: a request and its reply."""
LATE_MS = 250
"""How much later than a command a connection may be told of that was made before it."""
REPORT_MS = 500
"""Longest time from a command's end to the connection that reports it."""
TALKS_LIMIT = 2_048
TEXTS_LIMIT = 16
QUIET_PORTS = (53, 853, 123)
"""DNS and NTP: asked all day by everything, beside whatever else a program does."""
METADATA = ("169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23")
"""Where AWS libraries fetch credentials, before anything else that they do."""
ORDERLY_SHARE = 0.8


class Talk(msgspec.Struct):
    """What one process has with one endpoint."""

    owner: ProcessKey
    peer: Endpoint
    holder: ProcessKey
    """Who connected last: the owner, or a program whose output it reads."""
    last: int
    """When the last connection was made."""
    reported: int = -1
    """When the connection was made that reported the last command; it brings no new one."""
    child: ProcessKey | None = None
    """The command under way."""
    command: str = ""
    started: int = 0
    may_last: int = 0
    """Until when the command may have run, as far as is known: the time of the next look at it."""
    answered: bool = False
    rounds: int = 0
    stray: int = 0
    """Commands that no connection framed."""
    texts: deque[str] = msgspec.field(default_factory=lambda: deque(maxlen=TEXTS_LIMIT))

    @property
    def orderly(self) -> bool:
        """Whether connections frame nearly all commands."""
        return self.rounds >= ORDERLY_SHARE * (self.rounds + self.stray)


class Polls:
    """Keeps who talks with whom, within a bound."""

    def __init__(self) -> None:
        self._talks: dict[tuple[ProcessKey, Endpoint], Talk] = {}
        self._owners: dict[ProcessKey, set[Endpoint]] = {}

    def forget(self, key: ProcessKey) -> None:
        """Drop a process that ended."""
        for peer in self._owners.pop(key, set()):
            self._talks.pop((key, peer), None)

    def contact(self, owner: ProcessKey, holder: ProcessKey, peer: Endpoint, at: Millis) -> ProcessKey | None:
        """Take in a connection; return the command that it may report, to be confirmed by `settle`."""
        talk = self._talks.get((owner, peer))
        if talk is None:
            self._make_room()
            talk = self._talks[owner, peer] = Talk(owner, peer, holder, at)
            self._owners.setdefault(owner, set()).add(peer)
            return None
        talk.last, talk.holder = at, holder
        if talk.child is None or talk.answered:
            return None
        if at - max(talk.started, talk.may_last) > REPORT_MS:
            talk.child = None
            talk.stray += 1
            return None
        talk.answered, talk.reported = True, at
        return talk.child

    def _make_room(self) -> None:
        while len(self._talks) >= TALKS_LIMIT:
            owner, peer = next(iter(self._talks))
            del self._talks[owner, peer]
            self._owners.get(owner, set()).discard(peer)

    def executed(self, owner: ProcessKey, child: ProcessKey, command: str, started: int) -> bool:
        """Take in a command that a process runs; return whether a connection may have brought it."""
        framed = False
        for talk in self._of(owner):
            if talk.child is not None:
                talk.stray += not talk.answered
                talk.child = None
            if talk.last > talk.reported and -ASK_MS <= talk.last - started <= LATE_MS:
                talk.child, talk.command, talk.started, talk.answered = child, command, started, False
                talk.may_last = started
                framed = True
            else:
                talk.stray += 1
        return framed

    def alive(self, owner: ProcessKey, child: ProcessKey, next_look: int) -> None:
        """Take in that a command is still running: a connection in the meantime does not report it."""
        for talk in self._of(owner):
            if talk.child == child:
                talk.may_last = next_look
                if talk.answered:
                    talk.child = None
                    talk.stray += 1

    def settle(self, owner: ProcessKey, child: ProcessKey) -> Iterator[Talk]:
        """Yield the talks whose command is over and reported, counted in."""
        for talk in self._of(owner):
            if talk.child == child and talk.answered:
                talk.child = None
                talk.rounds += 1
                talk.texts.append(talk.command)
                yield talk

    def _of(self, owner: ProcessKey) -> list[Talk]:
        return [self._talks[owner, peer] for peer in self._owners.get(owner, ()) if (owner, peer) in self._talks]

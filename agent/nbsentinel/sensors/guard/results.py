"""What came of connections: looked up in the kernel's tables right after the call, again shortly after, then closed.

The address in a call is a claim, because another thread can change it before the kernel reads it. The socket's real
peer is compared here; where both are known and differ, the observation says so.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nbsentinel.context.objects import Socket
from nbsentinel.events import Connect, Connection, ConnectOutcome, ConnectStage, Inode

LOOKS_S = (0.0, 0.03, 0.2, 1.0)
"""When an attempt is looked at after it was seen; after the last one it is closed as it stands."""
WAITING_LIMIT = 2_000
_ANY = ("0.0.0.0", "::", "127.0.0.1", "::1")  # noqa: S104 - compared with, never bound


class _Waiting(msgspec.Struct):
    attempt: Connect
    since: float
    looks: int = 0
    was_listed: bool = False


class Results:
    """Attempts whose outcome is not known yet. Clock and tables are passed in."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []

    def expect(self, attempt: Connect, now: float) -> None:
        """Take up an attempt."""
        self._waiting.append(_Waiting(attempt, now))

    def next_due(self) -> float | None:
        """Return when `look` wants to be called again, on the same clock, or None."""
        return min((w.since + LOOKS_S[w.looks] for w in self._waiting), default=None)

    def look(self, now: float, listed: Mapping[Inode, Socket]) -> list[Connect]:
        """Return the results that are known now.

        Args:
            now: Seconds of the clock that `expect` was given.
            listed: The internet sockets of this moment.
        """
        found, waiting = [], []
        crowded = len(self._waiting) > WAITING_LIMIT
        for item in self._waiting:
            if now < item.since + LOOKS_S[item.looks] and not crowded:
                waiting.append(item)
                continue
            result = self._judge(item, listed.get(item.attempt.connection.inode), last=crowded)
            if result is None:
                waiting.append(item)
            else:
                found.append(result)
        self._waiting = waiting
        return found

    def _judge(self, item: _Waiting, listed: Socket | None, *, last: bool) -> Connect | None:
        item.looks += 1
        last = last or item.looks == len(LOOKS_S)
        if listed is not None and listed.remote is not None:
            item.was_listed = True
            if not listed.connecting:
                return _result(item.attempt, ConnectOutcome.ESTABLISHED, listed)
            return _result(item.attempt, ConnectOutcome.PENDING, listed) if last else None
        if listed is not None:
            # It exists and has no peer: the answer was no, or the call has not reached the kernel yet.
            return _result(item.attempt, ConnectOutcome.REFUSED, None) if item.looks > 1 else None
        if item.was_listed:
            return _result(item.attempt, ConnectOutcome.REFUSED, None)
        # Not in the tables: closed by now, or unbound again after a refusal. The kernel keeps no trace of either.
        return _result(item.attempt, ConnectOutcome.UNKNOWN, None) if item.looks > 1 or last else None


def _result(attempt: Connect, outcome: ConnectOutcome, listed: Socket | None) -> Connect:
    """Return an attempt with what came of it; a peer that is not the claimed one is put in its place."""
    told, claimed = attempt.connection, None
    if listed is not None and listed.remote is not None:
        if listed.remote != told.remote and not _is_same_place(told, listed):
            claimed = told.remote
        told = msgspec.structs.replace(
            told, protocol=listed.protocol, local=listed.local, remote=listed.remote, inode=listed.inode
        )
    return msgspec.structs.replace(
        attempt, connection=told, stage=ConnectStage.RESULT, outcome=outcome, claimed=claimed
    )


def _is_same_place(told: Connection, listed: Socket) -> bool:
    """Return whether the difference is the kernel's own: 0.0.0.0 and :: mean this machine, UDP sockets may move on."""
    if listed.protocol == "udp":
        return True
    assert listed.remote is not None
    return told.remote.port == listed.remote.port and told.remote.ip in _ANY and listed.remote.ip in _ANY

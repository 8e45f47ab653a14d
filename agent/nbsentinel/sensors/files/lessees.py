"""What the sensor leases, and what it hears of it: numbers for paths, states, programs that open without blocking."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

import msgspec

from nbsentinel.events import ProcessKey
from nbsentinel.sensors.files.catalogue import Use
from nbsentinel.sensors.files.leases import Correspondent, named
from nbsentinel.sensors.files.places import Target
from nbsentinel.text import visible

LATER_S = 0.3
"""How long a program that has ended is still taken for who opened a file: that takes a moment to be noticed."""
FOREIGN = "another user's"
"""What the lessor says of a file that cannot be leased because of whom it belongs to."""
OFF = "leases are off ([sensors] leases = false, or no guard)"


class Opener(msgspec.Struct, frozen=True):
    """Whom the lessor named."""

    key: ProcessKey
    tid: int
    way: str
    """`lease`: it waited in open(); `descriptor`: it had the file open right afterwards."""
    writes: bool
    exe: bytes
    argv: bytes
    at: int


class Lessees:
    """Leases by path.

    Args:
        run_dir: Folder of the guard's socket.
        named: Takes (path, opener); None for the lessor's own open.
        swept: Called when the decoy's environment was read, with the time in which that was, in milliseconds.
        enabled: Whether there are to be any.
    """

    def __init__(
        self,
        run_dir: str,
        named: Callable[[str, Opener | None], None],
        swept: Callable[[int], None],
        *,
        enabled: bool,
    ) -> None:
        self._named, self._swept = named, swept
        self._lessor = Correspondent(run_dir, b"lessor", self._heard, self._begin)
        self._decoy = Correspondent(run_dir, b"decoy", self._heard, self._told_ours)
        self._both = (self._lessor, self._decoy) if enabled else ()
        self._paths: dict[int, str] = {}
        self._targets: dict[str, tuple[int, Target]] = {}
        self._states: dict[int, str] = {}
        self._next = 1
        self._non_blocking: dict[ProcessKey, float] = {}
        self.lost = 0
        """What the lessor could not tell."""

    # The processes

    @property
    def is_active(self) -> bool:
        """Whether there is a lessor."""
        return bool(self._both) and not self._lessor.failure

    @property
    def failure(self) -> str:
        """Why there is none; empty while there is one."""
        return self._lessor.failure if self._both else OFF

    @property
    def descriptors(self) -> list[int]:
        """What to wait for."""
        return [one.descriptor for one in self._both if one.descriptor >= 0]

    def due_in(self) -> float:
        """Return in how many seconds `tend` has something to do."""
        return min((one.due_in() for one in self._both), default=3600.0)

    def tend(self) -> None:
        """Ask for what is missing."""
        for one in self._both:
            one.tend()

    def hear(self) -> None:
        """Take in what they told."""
        for one in self._both:
            one.hear()

    def close(self) -> None:
        """Leave both."""
        for one in self._both:
            one.close()

    def look_at_decoy(self) -> None:
        """Have the decoy look whether it was read."""
        self._decoy.say(b"look")

    # What is leased

    def add(self, target: Target) -> None:
        """Lease a file, also in place of the one that had its path before."""
        if target.use is Use.OBSERVE:
            return
        number, before = self._targets.get(target.path, (0, target))
        if number and before.use is Use.READ:
            target = before  # it waits for every opener already, those who change it included
        if not number:
            number, self._next = self._next, self._next + 1
        self._paths[number], self._targets[target.path] = target.path, (number, target)
        self._order(number, target)

    def remove(self, target: Target) -> None:
        """Give a file up that is gone."""
        number, known = self._targets.get(target.path, (0, target))
        if not number or (known.use is not target.use and os.path.lexists(target.path)):
            return
        del self._targets[target.path], self._paths[number]
        self._states.pop(number, None)
        self._lessor.say(b"drop %d" % number)

    def _order(self, number: int, target: Target) -> None:
        mode = b"w" if target.use is Use.CHANGE else b"r"
        if not self._lessor.say(b"add %d %s %s" % (number, mode, os.fsencode(target.path))) and self.is_active:
            self._states[number] = "the lessor does not listen"

    def _begin(self) -> None:
        """Order everything from a new lessor, credentials first."""
        self._states.clear()
        self._non_blocking.clear()
        self._told_ours()
        for number, target in sorted(self._targets.values(), key=lambda item: item[1].use is Use.CHANGE):
            self._order(number, target)

    def _told_ours(self) -> None:
        self._lessor.say(b"ours" + b"".join(b" %d" % pid for pid in self.ours()))

    def ours(self) -> frozenset[int]:
        """Return the processes of ours, as far as they are known."""
        return self._lessor.ours | {os.getpid(), os.getppid(), self._decoy.pid}

    # What is heard

    def _heard(self, word: bytes, rest: bytes) -> None:
        if word == b"named":
            self._opener(rest)
        elif word == b"opened":
            self._named(self._paths.get(int(rest), ""), None)
        elif word == b"read":
            self._swept(int(rest or b"1000"))  # the holder of an older version does not say
        elif word in (b"state", b"failed"):
            number, _, state = rest.partition(b" ")
            self._states[int(number)] = visible(state, 200)
        elif word == b"down":
            who, *_ = named(rest)
            self._non_blocking[ProcessKey(who.pid, who.start)] = math.inf
        elif word == b"up":
            self._non_blocking = dict.fromkeys(self._non_blocking, time.monotonic() + LATER_S)
        elif word == b"lost":
            self.lost += int(rest)

    def _opener(self, rest: bytes) -> None:
        who, way, operation, exe, argv = named(rest)
        path = self._paths.get(who.call, "")
        if not path or way == b"refused":
            return  # opened without blocking and refused: the next try is seen by inotify
        key = ProcessKey(who.pid, who.start)
        self._named(path, Opener(key, who.tid, way.decode(), operation == b"write", exe, argv, who.at))

    # What is said of it

    def non_blocking(self) -> tuple[ProcessKey, ...]:
        """Return the programs that open without blocking and ran a moment ago: there were no leases meanwhile.

        A pid of 0 stands for somebody who was refused and not found.
        """
        now = time.monotonic()
        self._non_blocking = {key: until for key, until in self._non_blocking.items() if until > now}
        return tuple(self._non_blocking)

    def is_leased(self, path: str) -> bool:
        """Return whether whoever opens a path now waits until it is named."""
        number, _ = self._targets.get(path, (0, None))
        return self._states.get(number) == "armed"

    def why_unnamed(self, path: str) -> str:
        """Return why nobody was named for an open."""
        if not self.is_active:
            return self.failure
        if self.non_blocking():
            return "opened without blocking, or beside a program that does so"
        number, _ = self._targets.get(path, (0, None))
        state = self._states.get(number, "no lease")
        return "opened while the lease was broken by another" if state == "armed" else f"no lease: {state}"

    def lacking(self) -> list[str]:
        """Return what is not as it should be."""
        if not self.is_active:
            return [f"readers are not named by leases: {self.failure}"]
        found: dict[str, int] = {}
        foreign = {number for number, target in self._targets.values() if target.use is Use.CHANGE}
        for number, state in list(self._states.items()):
            if state != "armed" and not (state == FOREIGN and number in foreign):
                found[state] = found.get(state, 0) + 1
        told = [f"{count} files have no lease: {state}" for state, count in sorted(found.items())]
        if self._decoy.failure:
            told.append(f"sweeps of /proc/*/environ are not noticed: {self._decoy.failure}")
        return told

    def detail(self) -> str:
        """Return how many leases there are."""
        armed = sum(state == "armed" for state in self._states.values())
        return f"{armed} leases" if self.is_active else "no leases"

"""How the guard asks the lessor to let go of its leases before a program opens files without blocking.

Lives in the header of the shared page, so asking costs a few stores, one signal and one look every fraction of a
millisecond. A lessor that does not answer in time is not waited for: then that program may be told EAGAIN once.
"""

from __future__ import annotations

import os
import signal
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import FrozenSet, Iterable, List, Tuple

WORDS = 448
"""Words of the header that this takes."""
PLACES = 32
OPENERS = 192
"""Programs known to open without blocking, by device and inode."""
WAIT_S = 0.01
"""Longest time that an execution is held for it."""
_LOOK_S = 0.0002
_LESSOR, _BEAT, _ASKED, _DONE, _COUNT, _VERSION = range(6)
_ASKING, _INODES = 8, 8 + PLACES
ONLY_LOOK = 1 << 63
"""With a process: whether it opens without blocking is still to be found out, from the script that it runs."""


class StandDown:
    """The words of it.

    Args:
        words: That part of the page.
    """

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._lock = threading.Lock()
        self._version = -1
        self._openers: FrozenSet[Tuple[int, int]] = frozenset()

    # The lessor's side

    def open(self, pid: int) -> None:
        """Say that a lessor holds leases from now on; 0 says that there is none."""
        self._words[_DONE] = self._words[_ASKED]
        self._words[_LESSOR] = pid
        self.beat(time.monotonic_ns())

    def beat(self, moment: int) -> None:
        """Say that the lessor has looked at everything that had happened before a moment, in nanoseconds."""
        self._words[_BEAT] = moment

    def last_beat(self) -> float:
        """Return when it said so last, in seconds of the monotonic clock."""
        return self._words[_BEAT] / 1e9

    def asking(self) -> Tuple[List[int], int]:
        """Return the processes that wait for it, `ONLY_LOOK` added where it must be found out, and what to settle."""
        asked, done = self._words[_ASKED], self._words[_DONE]
        first = max(done, asked - PLACES)
        return [self._words[_ASKING + number % PLACES] for number in range(first, asked)], asked

    def settle(self, asked: int) -> None:
        """Let them go on."""
        self._words[_DONE] = asked

    def list_openers(self, inodes: Iterable[Tuple[int, int]]) -> None:
        """Write down the programs that open without blocking."""
        chosen = list(inodes)[:OPENERS]
        for place, (device, inode) in enumerate(chosen):
            self._words[_INODES + 2 * place], self._words[_INODES + 2 * place + 1] = device, inode
        self._words[_COUNT] = len(chosen)
        self._words[_VERSION] += 1

    # The guard's side

    @property
    def is_open(self) -> bool:
        """Whether there are leases at all."""
        return self._words[_LESSOR] != 0

    def is_opener(self, pid: int) -> bool:
        """Return whether the file that a process runs is one that opens without blocking."""
        if self._version != self._words[_VERSION]:
            self._version, count = self._words[_VERSION], self._words[_COUNT]
            flat = self._words[_INODES : _INODES + 2 * count].tolist()
            self._openers = frozenset(zip(flat[::2], flat[1::2]))
        try:
            found = os.stat(b"/proc/%d/exe" % pid)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) in self._openers

    def ask(self, process: int) -> bool:
        """Wait until no lease is left that this process could run into; return whether that is so."""
        lessor = self._words[_LESSOR]
        if not lessor:
            return True
        with self._lock:
            number = self._words[_ASKED]
            self._words[_ASKING + number % PLACES] = process
            self._words[_ASKED] = number + 1
        deadline = time.monotonic() + WAIT_S
        try:
            os.kill(lessor, signal.SIGUSR2)
        except OSError:
            return True  # it is gone, and its leases with it
        while self._words[_DONE] <= number and self._words[_LESSOR] == lessor:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_S)
        return True

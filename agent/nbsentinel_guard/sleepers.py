"""Who waits in open() for a lease, and who holds a file open right now.

There are two ways to the first. The threads' wait channels take a millisecond or two when one process waits for one
file, but do not tell for which file, nor that nobody waits. /proc/locks tells both for certain, and everybody at once;
the kernel needs 12 to 19 ms for it, or less than a tenth when it was asked a moment before.
"""

from __future__ import annotations

import os
import time
from itertools import islice

from nbsentinel_guard import evidence, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterator, List, NamedTuple, Set, Tuple

    class Reader(NamedTuple):
        """A process that opens, or has opened, a leased file; everything was read while it waited."""

        tid: int
        pid: int
        start: int
        exe: bytes
        argv: bytes

else:
    from collections import namedtuple

    Reader = namedtuple("Reader", "tid pid start exe argv")

WAITING = b"__break_lease"
"""The kernel's function that an opener sleeps in, as /proc/PID/wchan names it."""
NEWEST, PORTION = 40, 60
"""How many of the newest processes, and of all other threads, are looked at in one turn."""
THREAD_S = 0.002
"""How long the thread of a process is looked for that is about to sleep."""
ARGV_LIMIT = 16384


def newest_first() -> List[int]:
    """Return all processes, the one that was made last first; numbers come round, so the last one given counts."""
    pids = sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True)
    load = proc.read_small("/proc/loadavg") or b""
    last = int(load.split()[-1]) if load else 0
    return [pid for pid in pids if pid <= last] + [pid for pid in pids if pid > last]


def is_waiting(task: bytes) -> bool:
    """Return whether a thread, given by its folder under /proc, sleeps because of a lease."""
    return proc.read_small(task + b"/wchan") == WAITING


def look(skip: Set[int], deadline: float) -> List[int]:
    """Return the threads that wait for leases, as soon as there are any, or none when time is over.

    The newest processes come first, again and again: the kernel tells of an opener before it sleeps. Between two looks
    at them some of the others are looked at, then further threads of all.
    """
    everyone = [pid for pid in newest_first() if pid not in skip]
    rest = _others(everyone[NEWEST:], everyone)
    while True:
        found = [pid for pid in everyone[:NEWEST] if is_waiting(b"/proc/%d" % pid)]
        found += [tid for task, tid in islice(rest, PORTION) if is_waiting(task)]
        if found or time.monotonic() > deadline:
            return found
        everyone = [pid for pid in newest_first() if pid not in skip]


def _others(older: List[int], everyone: List[int]) -> Iterator[Tuple[bytes, int]]:
    for pid in older:
        yield b"/proc/%d" % pid, pid
    for pid in everyone:
        for tid in _other_threads(pid):
            yield b"/proc/%d/task/%d" % (pid, tid), tid


def waiting(own: int) -> Dict[int, List[int]] | None:
    """Return the processes that wait for each broken lease of a process, by inode; None where nobody is told.

    An opener without O_NONBLOCK is in this list from the moment on that the lease's holder is told of it.
    """
    data = proc.read_bytes("/proc/locks", 1 << 22)
    if data is None:
        return None
    found: Dict[int, List[int]] = {}
    current: List[int] | None = None
    for line in data.splitlines():
        words = line.split()
        if words[1] == b"->":
            # 1: -> LEASE  BREAKER   READ 4711 <none>:0 0 EOF
            if current is not None and b"BREAKER" in words:
                current.append(int(words[words.index(b"BREAKER") + 2]))
        elif words[1] == b"LEASE" and int(words[4]) == own:
            # 1: LEASE  BREAKING  READ 42 fe:00:2146537 0 EOF
            current = found.setdefault(int(words[5].rpartition(b":")[2]), []) if words[2] == b"BREAKING" else None
        else:
            current = None
    return found


def keep_warm() -> None:
    """Have the kernel take the lock behind /proc/locks: as long as that goes on, it waits for no grace period."""
    proc.read_small("/proc/locks")


def thread_of(pid: int) -> int:
    """Return the thread of a process that waits; its first one where that cannot be seen."""
    deadline = time.monotonic() + THREAD_S
    while not is_waiting(b"/proc/%d" % pid):
        others = list(_other_threads(pid))
        found = next((tid for tid in others if is_waiting(b"/proc/%d/task/%d" % (pid, tid))), 0)
        if found or not others or time.monotonic() > deadline:
            return found or pid
    return pid


def _other_threads(pid: int) -> Iterator[int]:
    folder = "/proc/%d/task" % pid
    try:
        if os.stat(folder).st_nlink <= 3:  # one for itself, one for "..", one for each thread
            return
        names = os.listdir(folder)
    except OSError:
        return
    for name in sorted(map(int, names), reverse=True):
        if name != pid:
            yield name


def describe(tid: int) -> Reader | None:
    """Return what a thread's process is, None where it is gone."""
    known = evidence.identify(tid)
    if known is None:
        return None
    pid, start, _ = known
    exe = evidence.link(b"/proc/%d/exe" % pid) or b""
    return Reader(tid, pid, start, exe, proc.read_bytes("/proc/%d/cmdline" % pid, ARGV_LIMIT) or b"")


def holding(path: bytes, skip: Set[int], deadline: float) -> List[int]:
    """Return the processes that have a file open now, newest first, as far as they can be looked into in time."""
    found: List[int] = []
    for place, pid in enumerate(newest_first()):
        if time.monotonic() > deadline or (found and place >= NEWEST):
            break
        if pid not in skip and _holds(pid, path):
            found.append(pid)
    return found


def _holds(pid: int, path: bytes) -> bool:
    folder = b"/proc/%d/fd/" % pid
    try:
        return any(evidence.link(folder + name) == path for name in os.listdir(folder))
    except OSError:
        return False

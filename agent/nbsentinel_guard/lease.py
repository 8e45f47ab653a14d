"""One lease: taken, broken, given up, and when it is tried again."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from nbsentinel_guard import inotify, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Tuple

RETRY_S, LONGEST_RETRY_S = 0.004, 2.0
"""When a lease is tried again: at once when the file is closed, else after pauses that double."""
BUSY_PER_S, BUSY_PAUSE_S = 300, 0.2
"""A file that is opened more often than this is left alone for a moment: its openers would be slowed for nothing."""
_REMOTE = (b"nfs", b"cifs", b"smb", b"fuse", b"9p", b"afs", b"ceph", b"glusterfs", b"lustre", b"gpfs", b"virtiofs")
_EVENTS = inotify.OPEN | inotify.CLOSE_WRITE | inotify.CLOSE_NOWRITE


class Lease:
    """A file that is open here, and watched for opens and closes.

    Args:
        number: The agent's name for it.
        path: Where it is.
        wanted: F_WRLCK to make every opener wait, F_RDLCK for those alone who open it for writing.
        watcher: Hears of its opens and closes.

    Raises:
        OSError: It cannot be leased: not there, no regular file, another user's.
    """

    __slots__ = (
        "_busy",
        "_pause",
        "armed",
        "descriptor",
        "due",
        "expected",
        "inode",
        "number",
        "path",
        "rests",
        "told",
        "wanted",
        "watch",
    )

    def __init__(self, number: int, path: bytes, wanted: int, watcher: inotify.Inotify) -> None:
        self.number, self.path, self.wanted = number, os.path.realpath(path), wanted
        self.armed = False
        self.due = self._pause = self.rests = 0.0
        self.expected = 0
        """Openers that were named, whose open has not been seen yet."""
        self._busy = (0.0, 0)
        self.told = b""
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            found = os.fstat(self.descriptor)
            _check(found)
            self.inode = found.st_ino
            self.watch = watcher.add(path, _EVENTS)
        except OSError:
            os.close(self.descriptor)
            raise

    @property
    def for_every_opener(self) -> bool:
        """Whether readers wait too."""
        return self.wanted == fcntl.F_WRLCK

    @property
    def is_broken(self) -> bool:
        """Whether somebody wants to open the file: then the kernel tells what the lease is to become."""
        return self.armed and fcntl.fcntl(self.descriptor, fcntl.F_GETLEASE) != self.wanted

    @property
    def is_for_writing(self) -> bool:
        """Whether whoever waits wants to write: then nothing is to be left of the lease."""
        return fcntl.fcntl(self.descriptor, fcntl.F_GETLEASE) == fcntl.F_UNLCK

    def arm(self) -> None:
        """Take the lease.

        Raises:
            OSError: EAGAIN where somebody has the file open.
        """
        # The holder above us hears of openers too. Anew each time: who gives a lease up gives that up with it.
        fcntl.fcntl(self.descriptor, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, self.wanted)
        self.armed, self.due, self._pause, self.expected = True, 0.0, 0.0, 0

    def release(self) -> None:
        """Give it up; whoever waits goes on."""
        if self.armed:
            self.armed = False
            fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def broken(self, now: float) -> bool:
        """Plan the next try after somebody was let go; return whether that happens too often."""
        since, count = self._busy
        self._busy = (since, count + 1) if now - since < 1.0 else (now, 1)
        self._pause, self.due = RETRY_S, now + RETRY_S
        if self._busy[1] <= BUSY_PER_S:
            return False
        self.rests = self.due = now + BUSY_PAUSE_S
        return True

    def postpone(self, now: float) -> bool:
        """Plan the next try after one that failed; return whether it has failed for long."""
        self._pause = min(LONGEST_RETRY_S, 2 * self._pause or RETRY_S)
        self.due = now + self._pause
        return self._pause == LONGEST_RETRY_S

    @property
    def may_try(self) -> bool:
        """Whether it is not left alone for now."""
        return time.monotonic() >= self.rests


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "no regular file")
    if found.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "another user's")


def is_remote(path: bytes) -> bool:
    """Return whether a path is on a file system where a look can take for ever, or where there are no leases."""
    best: Tuple[int, bytes] = (0, b"")
    for line in (proc.read_bytes("/proc/self/mountinfo", 1 << 20) or b"").splitlines():
        left, _, right = line.partition(b" - ")
        point = left.split(b" ")[4].replace(b"\\040", b" ").rstrip(b"/")
        if (path + b"/").startswith(point + b"/") and len(point) + 1 >= best[0]:
            best = len(point) + 1, right
    return best[1].startswith(_REMOTE)
